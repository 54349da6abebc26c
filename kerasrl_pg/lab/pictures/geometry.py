"""Pictures of how far a step may go: balls around a policy, the landscape with paths on it, PPO's clipped objective."""

import keras
import numpy as np

from kerasrl_pg import estimators, ops
from kerasrl_pg.agents import NPG, PPO, REINFORCE, TRPO
from kerasrl_pg.lab.gradients import fisher, policy_gradient
from kerasrl_pg.lab.landscape import landscape, paths
from kerasrl_pg.lab.pictures import style, worlds
from kerasrl_pg.lab.policy import PolicyTable


def contours(one, plane, name="J"):
    """J behind a picture, in grey, with a few labelled lines."""
    one.grid(False)
    levels = np.linspace(plane.objective.min(), plane.objective.max(), 12)
    one.contourf(plane.x, plane.y, plane.objective, levels, cmap="Greys", alpha=0.45)
    lines = one.contour(plane.x, plane.y, plane.objective, levels[1::3], colors="0.35", linewidths=0.7)
    one.clabel(lines, fmt=lambda value: f"{name} = {value:.1f}", fontsize=7)


def balls(filepath, theta=(1.8, 0.0), max_kl=0.05, radius=0.9):
    """Draws what the three constraints allow around one policy of two parameters: ‖d‖² <= ε, ½ dᵀFd <= δ and KL <= δ.

    Returns:
        The Fisher matrix [2, 2].
    """
    made, axes = style.figure(width=5.4, height=4.4)
    mdp, theta = worlds.two_states(), np.asarray(theta)
    table = PolicyTable(worlds.two_parameters(theta), mdp.observations)
    old, matrix, gradient = table.probabilities(), fisher(mdp, table), policy_gradient(mdp, table)
    visits = mdp.visits(old) / mdp.visits(old).sum()
    plane = landscape(mdp, table, (theta[0] - 3, theta[0] + 3), (theta[1] - 2.2, theta[1] + 2.2), 35)
    contours(axes, plane)
    divergence = np.array(
        [[visits @ np.sum(old * np.log(old / table.probabilities([a, b])), -1) for a in plane.x] for b in plane.y]
    )
    circle = np.stack([np.cos(np.linspace(0, 2 * np.pi, 200)), np.sin(np.linspace(0, 2 * np.pi, 200))])
    ellipse = np.sqrt(2 * max_kl) * np.linalg.inv(np.linalg.cholesky(matrix)).T @ circle
    axes.plot(*(theta[:, None] + radius * circle), **style.style(0, False), label=f"‖d‖² ≤ {radius**2:.2g}")
    axes.plot(*(theta[:, None] + ellipse), **style.style(1, False), label=f"½ dᵀFd ≤ {max_kl:g} nats")
    axes.contour(plane.x, plane.y, divergence, [max_kl], colors=style.COLOURS[2], linestyles="-.", linewidths=1.8)
    axes.plot([], [], **style.style(2, False), label=f"KL(π_old ‖ π) ≤ {max_kl:g} nats")
    natural = np.linalg.solve(matrix, gradient)
    steps = {0: radius * gradient / np.linalg.norm(gradient)}
    steps[1] = ops.natural_step_size(gradient, natural, max_kl).numpy() * natural
    for place, step in steps.items():
        arrow = {"arrowstyle": "-|>", "color": style.COLOURS[place], "linewidth": 1.6, "shrinkA": 0, "shrinkB": 0}
        axes.annotate("", theta + step, theta, arrowprops=arrow)
    axes.plot(*theta, "o", color="white", markeredgecolor="black")
    axes.set(xlabel="θ₁, log-odds of staying in the first state", ylabel="θ₂, of staying in the second")
    axes.legend(fontsize=9, loc="lower right")
    caption = (
        "A ball in parameters takes all directions alike. The Fisher ellipse is long in what changes the policy "
        "little, where it is nearly certain or rarely comes, and is the divergence's own ball to second order. "
        "Arrows: the best steps in the first two to first order, gradient and natural gradient; grey: J."
    )
    style.save(made, filepath, "Three balls around one policy", caption)
    return matrix


def methods(mdp, theta):
    """Compiled agents over the two-parameter policy by their names."""
    rows = {"horizon": mdp.horizon, "estimator": estimators.GAE(1.0), "gamma": mdp.gamma, "seed": 0}
    whole = 128 * mdp.horizon

    def networks():
        return worlds.two_parameters(theta), worlds.critic(mdp)

    def compiled(agent, rate):
        agent.compile(keras.optimizers.SGD(rate))
        return agent

    natural = {"damping": 1e-3, "minibatch_size": whole, **rows}
    ppo = {"minibatch_size": whole, "update_epochs": 10, **rows}
    reinforce = REINFORCE(worlds.two_parameters(theta), gamma=mdp.gamma, discounted_gradient=True, seed=0)
    return {
        "gradient": compiled(reinforce, 0.1),
        "natural gradient": compiled(NPG(*networks(), max_kl=0.01, **natural), 0.5),
        "TRPO": compiled(TRPO(*networks(), max_kl=0.01, **natural), 0.5),
        "PPO": compiled(PPO(*networks(), **ppo), 2.0),
    }


def ways(filepath, theta=(1.5, -2.0), updates=40):
    """Draws J of two parameters, and the ways that gradient, natural gradient, TRPO and PPO take from one start.

    Returns:
        `{method: float [updates + 1, 2]}`.
    """
    made, axes = style.figure(2, width=5.0, height=4.2)
    mdp = worlds.two_states()
    plane = landscape(mdp, worlds.two_parameters(), (-5, 5), (-4, 8), 35)
    contours(axes[0], plane)
    found = paths(methods(mdp, theta), worlds.env(mdp, 128), updates)
    table = PolicyTable(worlds.two_parameters(), mdp.observations)
    for place, (name, thetas) in enumerate(found.items()):
        look = style.style(place)
        clipped = np.clip(thetas, [-5, -4], [5, 8])
        axes[0].plot(*clipped.T, **{**look, "markersize": 3}, markevery=5, label=name)
        worth = [mdp.evaluate(table.probabilities(one)).objective for one in thetas]
        axes[1].plot(worth, **{**look, "markersize": 4}, markevery=10, label=name)
    axes[0].plot(*theta, "o", color="white", markeredgecolor="black", markersize=8)
    axes[0].set(xlabel="θ₁, log-odds of staying where it pays 1", ylabel="θ₂, of staying where it pays 2")
    axes[1].axhline(mdp.optimal_values()[0], color="0.5", linestyle=":")
    axes[1].set(xlabel="update", ylabel="J, exact")
    axes[1].legend(fontsize=9)
    caption = (
        "From the same start in a process of two states (Kakade 2001) the gradient first learns to stay where it pays "
        "less, and is held up on the plateau there; steps measured in the policy's own distance go straighter. "
        "Markers: every 5th and 10th update of 128 episodes; dotted: the optimum."
    )
    style.save(made, filepath, "Four methods on one landscape", caption)
    return found


def clipped_objective(filepath, clip_ratio=0.2):
    """Draws PPO's clipped objective over the ratio, for an action better and one worse than expected.

    Returns:
        `{advantage: float [n]}`.
    """
    made, axes = style.figure(2, width=4.2, height=3.2)
    ratio, results = np.linspace(0.0, 2.0, 401, dtype=np.float32), {}
    for one, advantage in zip(axes, (1.0, -1.0), strict=True):
        values = np.full_like(ratio, advantage)
        clipped = results[advantage] = ops.clipped_objective(ratio, values, clip_ratio).numpy()
        one.plot(ratio, ops.importance_objective(ratio, values), **style.style(1, False), label="ratio · A")
        one.plot(ratio, clipped, **style.style(0, False) | {"linewidth": 2.4}, label="clipped, PPO's")
        one.plot(1.0, advantage, "o", color="white", markeredgecolor="black", zorder=3)
        one.axvspan(1 - clip_ratio, 1 + clip_ratio, color="0.93", zorder=0)
        one.set(
            xlabel="ratio π(a|s) / π_old(a|s)", title=f"advantage A = {advantage:+g}", ylabel="objective, unit of A"
        )
        one.legend(fontsize=9)
    caption = (
        f"Beyond 1 ± {clip_ratio:g} (grey) nothing more is to be won by moving on in the direction that A asks for, "
        "so the gradient is 0 there; in the other direction the loss counts in full. Never above the unclipped: a "
        "pessimist."
    )
    style.save(made, filepath, "The clipped objective", caption)
    return results
