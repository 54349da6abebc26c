"""Pictures of how a policy moves: step sizes, smooth probabilities, local optima (chapter 4.2; unit 4)."""

import itertools

import keras
import numpy as np

from kerasrl_pg import baselines
from kerasrl_pg.agents import REINFORCE
from kerasrl_pg.lab.gradients import policy_gradient
from kerasrl_pg.lab.landscape import paths
from kerasrl_pg.lab.pictures import style, worlds
from kerasrl_pg.lab.policy import PolicyTable
from kerasrl_pg.schedules import InverseSquareRoot
from kerasrl_pg.seeds import restart


def followed(make, env, seeds, marks):
    """The policies of many seeds after so many updates, all on one compiled program.

    Args:
        make: Function from a seed to a fresh, compiled agent.
        env: A `CompiledEnv`.
        seeds: How many.
        marks: Rising whole numbers.

    Returns:
        `(table, thetas)`: a `PolicyTable` to evaluate them with, and float64 [seeds, marks, P].
    """
    agent, table, thetas = make(0), None, []
    agent.bind(env.observation_space, env.action_space)
    for seed in range(seeds):
        if seed > 0:
            restart(agent, make(seed))
        table, done, row = table or PolicyTable(agent, env.mdp.observations), 0, []
        for mark in marks:
            agent.fit(env, epochs=1, steps_per_epoch=mark - done, verbose=0)
            row.append(table.theta)
            done = mark
        thetas.append(row)
    return table, np.array(thetas)


def step_sizes(filepath, rate=0.5, seeds=20, updates=2048):
    """Draws ‖∇J‖² over the updates with a constant step and with η₀/√t.

    Returns:
        `{name: float [seeds, marks]}` and the marks.
    """
    made, axes = style.figure()
    mdp, marks = worlds.between_two_walls(), [2**k for k in range(int(np.log2(updates)) + 1)]
    rates = {f"constant η = {rate:g}": lambda: rate, f"η = {rate:g} / √t": lambda: InverseSquareRoot(rate)}
    results = {}
    for name, each in rates.items():

        def make(seed, each=each):
            agent = REINFORCE(worlds.tabular(mdp), gamma=mdp.gamma, discounted_gradient=True, seed=seed)
            agent.compile(keras.optimizers.SGD(each()), steps_per_execution=64)
            return agent

        table, thetas = followed(make, worlds.env(mdp, 2), seeds, marks)
        slopes = [[np.sum(policy_gradient(mdp, table, theta=theta) ** 2) for theta in row] for row in thetas]
        results[name] = np.array(slopes)
    for place, (name, found) in enumerate(results.items()):
        axes.loglog(marks, found.mean(0), **style.style(place), label=f"{name}, mean of {seeds} seeds")
        low, high = np.percentile(found, [25, 75], axis=0)
        axes.fill_between(marks, low, high, color=style.COLOURS[place], alpha=0.15, linewidth=0)
    level = results[f"η = {rate:g} / √t"].mean(0)[-1]
    late = np.array(marks[len(marks) // 2 :])
    axes.loglog(late, level * np.sqrt(late[-1] / late), color="0.6", linewidth=1, label="1/√t, to compare")
    axes.set(xlabel="update t", ylabel="‖∇J‖², exact")
    axes.legend(fontsize=9)
    caption = (
        "A constant step never comes to rest: chance keeps throwing the policy off the optimum. With η₀/√t the slope "
        "where it stands keeps falling (two episodes an update; bands: the middle half of the seeds)."
    )
    style.save(made, filepath, "Steps that shrink let the slope vanish", caption)
    return results, marks


def probabilities(filepath, updates=20, state=2):
    """Draws one state's action probabilities over the updates of a policy gradient and of value iteration.

    Returns:
        `(smooth, jumping)`, float [updates + 1, A] each.
    """
    made, axes = style.figure(2, sharey=True)
    mdp = worlds.garnet(horizon=30, gamma=0.95, lift=0.0, seed=256)
    agent = REINFORCE(
        worlds.tabular(mdp), gamma=mdp.gamma, baseline=baselines.AverageReturn(), discounted_gradient=True, seed=0
    )
    agent.compile(keras.optimizers.SGD(0.3))
    thetas = paths({"gradient": agent}, worlds.env(mdp, 256), updates)["gradient"]
    table = PolicyTable(agent, mdp.observations)
    smooth = np.array([table.probabilities(theta)[state] for theta in thetas])
    iterates = itertools.islice(mdp.value_iteration(), updates + 1)
    jumping = np.array([np.eye(mdp.shape[1])[action_values[state].argmax()] for action_values in iterates])
    for one, (title, rows) in zip(
        axes, {"REINFORCE": smooth, "greedy policy of value iteration": jumping}.items(), strict=True
    ):
        for action in range(mdp.shape[1]):
            look = style.style(action, marker=False)
            one.plot(
                rows[:, action], drawstyle="default" if rows is smooth else "steps-post", **look, label=f"a = {action}"
            )
        one.set(title=title, xlabel="update" if rows is smooth else "iteration", xticks=range(0, updates + 1, 4))
    axes[0].set(ylabel=f"π(a | s = {state})", ylim=(-0.03, 1.03))
    axes[0].legend(fontsize=9)
    caption = (
        "A policy gradient moves probabilities a little at a time. A greedy policy jumps from one action to another as "
        "soon as one value passes the other, however little they differ."
    )
    style.save(made, filepath, "Smooth and sudden", caption)
    return smooth, jumping


def local_optimum(filepath, seeds=12, updates=500, coefficients=(0.0, 0.3)):
    """Draws J of many seeds in a corridor with a small reward near and a large one far, without and with an entropy
    bonus.

    Returns:
        `{coefficient: float [seeds, marks]}`.
    """
    made, axes = style.figure(len(coefficients), sharey=True)
    mdp, results, marks = worlds.near_and_far(), {}, np.arange(1, 11) * (updates // 10)
    for one, coefficient in zip(axes, coefficients, strict=True):

        def make(seed, coefficient=coefficient):
            agent = REINFORCE(worlds.tabular(mdp), gamma=mdp.gamma, entropy_coef=coefficient, seed=seed)
            agent.compile(keras.optimizers.SGD(0.5), steps_per_execution=50)
            return agent

        table, thetas = followed(make, worlds.env(mdp, 8), seeds, marks)
        curves = [[mdp.evaluate(table.probabilities(theta)).objective for theta in row] for row in thetas]
        curves = results[coefficient] = np.array(curves)
        best = mdp.optimal_values()[0]
        far = int(np.sum(curves[:, -1] > 0.5 * (1.0 + best)))
        one.plot(marks, curves.T, color=style.COLOURS[1], linewidth=1, alpha=0.6)
        one.axhline(1.0, color="0.5", linestyle=":")
        one.axhline(best, color="0.5", linestyle="--")
        one.set(title=f"entropy coefficient {coefficient:g}: {far} of {seeds} get there", xlabel="update")
    axes[0].set(ylabel="J, exact")
    axes[0].text(updates, 1.03, "near reward", ha="right", fontsize=9)
    axes[0].text(updates, best + 0.03, "far reward", ha="right", fontsize=9)
    caption = (
        "The near reward is a local optimum: some seeds find it first, and then no longer look further. A bonus for "
        "entropy keeps the other direction alive until the far reward is found. One thin line a seed."
    )
    style.save(made, filepath, "A local optimum, and a way out", caption)
    return results


def staleness(filepath, rates=(0.1, 0.3, 1.0), updates=64, most=16):
    """Draws how far a gradient is off that was computed so many updates ago, as a worker's that sends it late
    (lecture notes 3.5).

    Returns:
        `{rate: float [most + 1]}`, ‖∇J(θ_{t-s}) - ∇J(θ_t)‖ over ‖∇J(θ_t)‖, means over t, by s.
    """
    made, axes = style.figure()
    mdp, results = worlds.garnet(horizon=30, gamma=0.95, lift=0.0, seed=256), {}
    for place, rate in enumerate(rates):
        agent = REINFORCE(
            worlds.tabular(mdp), gamma=mdp.gamma, baseline=baselines.AverageReturn(), discounted_gradient=True, seed=0
        )
        agent.compile(keras.optimizers.SGD(rate))
        thetas = paths({"gradient": agent}, worlds.env(mdp, 256), updates)["gradient"]
        table = PolicyTable(agent, mdp.observations)
        slopes = np.array([policy_gradient(mdp, table, theta=theta) for theta in thetas])
        late = slopes[most:]
        norms = np.linalg.norm(late, axis=1)
        results[rate] = np.array(
            [
                np.mean(np.linalg.norm(slopes[most - stale : len(slopes) - stale] - late, axis=1) / norms)
                for stale in range(most + 1)
            ]
        )
        axes.plot(results[rate], **style.style(place), label=f"step {rate:g}")
    axes.set(xlabel="staleness: updates since the weights were fetched", ylabel="error of the gradient, of its norm")
    axes.set_ylim(0)
    axes.legend(fontsize=9)
    caption = (
        "A gradient that was computed with the present weights is exact on average. One that arrives late is the "
        "gradient of another policy: its error grows with the updates that came between, and with their length."
    )
    style.save(made, filepath, "What arrives late points elsewhere", caption)
    return results
