"""Pictures of variance and bias: credit, baselines, episodes, λ, γ, a wrong critic (lecture notes 3.3 and 3.4)."""

import keras
import numpy as np
import tensorflow as tf

from kerasrl_pg import baselines, estimators
from kerasrl_pg.agents import A2C, REINFORCE
from kerasrl_pg.lab.gradients import Expectation
from kerasrl_pg.lab.measure import measure, sweep
from kerasrl_pg.lab.pictures import style, worlds

BASELINES = {
    "average": baselines.AverageReturn(),
    "weighted average": baselines.WeightedAverage(),
    "time-dependent": baselines.TimeDependent(),
}


def reinforce(mdp, theta=None, values=None, **settings):
    """A compiled REINFORCE with a tabular policy; with a critic where `values` [S] are given."""
    agent = REINFORCE(
        worlds.tabular(mdp, theta), None if values is None else worlds.critic(mdp, values), gamma=mdp.gamma, **settings
    )
    agent.compile(keras.optimizers.SGD(0.1))
    return agent


def credits(mdp, theta, choices):
    """The measured ways of giving credit: `{name: settings}` with the gradient of J, exact values included."""
    softmax = tf.nn.softmax(theta).numpy()
    values = mdp.replace(horizon=None).evaluate(softmax).values if mdp.gamma < 1.0 else None
    found = {
        "whole return": {"estimator": estimators.WholeReturn()},
        "reward-to-go": {"discounted_gradient": True},
        **{f"… less {name}": {"baseline": each, "discounted_gradient": True} for name, each in choices.items()},
    }
    if values is not None:
        found["… less V(s)"] = {"baseline": baselines.ValueFunction(), "values": values, "discounted_gradient": True}
    return found


def variance_of_credit(filepath, choices=None, episodes=32, samples=2000):
    """Draws the variance of the gradient with the whole return, the reward-to-go and each baseline, in three processes.

    Args:
        filepath: Where to write the picture.
        choices: Baselines by their names, `{name: Baseline}`; None for those that are averages.
        episodes: N.
        samples: How many estimates each variance is of.

    Returns:
        The measurements: for each process a dictionary by credit.
    """
    choices = BASELINES if choices is None else choices
    made, axes = style.figure(3, width=5.2)
    lifted, unequal, rare = worlds.garnet(), worlds.unequal(), worlds.rare_loss()
    cases = {
        "Random process, rewards around 1": (lifted, 0.5 * np.random.default_rng(0).normal(size=lifted.shape)),
        "Usual action 10, rare action 5": (unequal, np.array([[2.197, 0.0]])),  # 90 % and 10 %.
        "Usual action 1, rare action 0": (rare, np.array([[2.944, 0.0]])),  # 95 % and 5 %.
    }
    results = []
    for one, (title, (mdp, theta)) in zip(axes, cases.items(), strict=True):
        given = credits(mdp, theta, choices)
        found = {
            name: measure(reinforce(mdp, theta, **settings), worlds.env(mdp, episodes), samples)
            for name, settings in given.items()
        }
        results.append(found)
        for place, (name, measured) in enumerate(found.items()):
            bar = one.barh(
                name,
                measured.variance,
                xerr=2 * measured.variance_error,
                color=style.COLOURS[place % len(style.COLOURS)],
                edgecolor="white",
                hatch=style.HATCHES[place % len(style.HATCHES)],
                height=0.7,
                error_kw={"ecolor": "0.4", "capsize": 3},
            )
            one.bar_label(bar, [f" {measured.variance:.2g}"], fontsize=9, padding=4)
        one.invert_yaxis()
        one.margins(x=0.18)
        one.set(title=title, xlabel=f"variance of the gradient (trace), {episodes} episodes")
    caption = (
        "All are unbiased. Left: the less of a return has nothing to do with the action, the less the estimate "
        "scatters. Middle: weighed by the scores' norms, an average is best. Right: where the rare action, which has "
        "the large score, gives nothing, averages are worse than no baseline (the notes' inequality needs correlation)."
    )
    style.save(made, filepath, "What an action is credited with, and how much the gradient scatters", caption)
    return results


def variance_over_episodes(filepath, counts=(4, 32, 256), samples=1000):
    """Draws the variance over the number of episodes N, on logarithmic axes, with the fitted slopes.

    Returns:
        `{credit: (variances, slope)}`.
    """
    made, axes = style.figure()
    mdp = worlds.garnet()
    theta = 0.5 * np.random.default_rng(0).normal(size=mdp.shape)
    given = {
        "whole return": {"estimator": estimators.WholeReturn()},
        "reward-to-go": {"discounted_gradient": True},
        "… less average": {"baseline": baselines.AverageReturn(), "discounted_gradient": True},
    }
    results = {}
    for place, (name, settings) in enumerate(given.items()):
        found = sweep(lambda s=settings: reinforce(mdp, theta, **s), worlds.env(mdp), samples, num_envs=list(counts))
        variances = np.array([measured.variance for _, measured in found])
        slope = np.polyfit(np.log(counts), np.log(variances), 1)[0]
        axes.loglog(counts, variances, **style.style(place), label=f"{name}: slope {slope:.2f}")
        results[name] = variances, slope
    first = next(iter(results.values()))[0]
    axes.loglog(
        counts, 2.5 * first[0] * counts[0] / np.array(counts), color="0.6", linewidth=1, label="1/N, to compare"
    )
    axes.set(xlabel="episodes N in a rollout", ylabel="variance of the gradient, trace", xticks=counts)
    axes.set_xticklabels(counts)
    axes.minorticks_off()
    axes.legend(fontsize=9)
    caption = (
        "The variance falls as 1/N whatever an action is credited with: a better credit is worth a multiple of the"
        " episodes, at every N."
    )
    style.save(made, filepath, "More episodes, less variance", caption)
    return results


def bias_and_variance(filepath, lambdas=(0.0, 0.3, 0.6, 0.8, 0.9, 1.0), gammas=(0.5, 0.7, 0.8, 0.9, 0.95, 1.0)):
    """Draws squared bias, variance and their sum, over λ with a critic that is wrong, and over γ.

    Returns:
        `(over_lambda, over_gamma)`, lists of `Measurement`s.
    """
    made, axes = style.figure(2)
    mdp = worlds.garnet(horizon=20)
    rng = np.random.default_rng(0)
    theta, noise = 0.5 * rng.normal(size=mdp.shape), rng.normal(size=5)
    softmax = tf.nn.softmax(theta).numpy()
    values = mdp.replace(horizon=None).evaluate(softmax).values + 2.0 * noise
    over_lambda = [
        measure(actor_critic(mdp, theta, values, estimators.GAE(each)), worlds.env(mdp, 8), 4000) for each in lambdas
    ]
    far = worlds.near_and_far(gamma=1.0)
    level = np.zeros(far.shape)
    exact = Expectation(_bound(reinforce(far, level), far), far, far.horizon).claimed()
    over_gamma = [
        measure(reinforce(far.replace(gamma=each), level), (worlds.env(far, 64), far), 1000, exact=exact)
        for each in gammas
    ]
    titles = {
        "λ of GAE, critic wrong by about 2": (lambdas, over_lambda),
        "γ, reward at the far end of a corridor": (gammas, over_gamma),
    }
    for one, (title, (places, found)) in zip(axes, titles.items(), strict=True):
        one.plot(places, [max(m.squared_bias, 0.0) for m in found], **style.style(1), label="squared bias")
        one.plot(places, [m.variance for m in found], **style.style(2), label="variance")
        one.plot(places, [m.squared_error for m in found], **style.style(0), label="sum: mean squared error")
        best = places[int(np.argmin([m.squared_error for m in found]))]
        one.axvline(best, color="0.7", linewidth=1)
        one.set_title(title, fontsize=11)
        one.set(xlabel=title[0], ylabel="squared norm of the gradient's error")
        one.set_ylim(0)
        one.legend(fontsize=9)
    caption = (
        "Left: small λ trusts the critic, whose error becomes bias; large λ trusts the rewards, whose chance "
        "becomes variance. Right: a discount below 1 forgets late rewards, which is bias, and their chance with "
        "them. The grey line is the least error (left 8 episodes, right 64)."
    )
    style.save(made, filepath, "Bias against variance", caption)
    return over_lambda, over_gamma


def actor_critic(mdp, theta, values, estimator):
    """A compiled A2C with a tabular policy and critic, its entropy bonus off; rows of one episode."""
    agent = A2C(
        worlds.tabular(mdp, theta),
        worlds.critic(mdp, values),
        gamma=mdp.gamma,
        horizon=mdp.horizon,
        estimator=estimator,
        entropy_coef=0.0,
    )
    agent.compile(keras.optimizers.SGD(0.1))
    return agent


def _bound(agent, mdp):
    agent.bind(worlds.env(mdp).observation_space, worlds.env(mdp).action_space)
    return agent


def wrong_critic(filepath, errors=(0.0, 0.5, 1.0, 1.5, 2.0, 2.5), samples=4000):
    """Draws how TD(0)'s gradient is biased by a critic's error, measured and as the process predicts.

    Returns:
        `{estimator: (measured, predicted)}`, the norms of the bias.
    """
    made, axes = style.figure()
    mdp = worlds.garnet(horizon=20)
    rng = np.random.default_rng(0)
    theta, noise = 0.5 * rng.normal(size=mdp.shape), rng.normal(size=5)
    softmax = tf.nn.softmax(theta).numpy()
    values, results = mdp.replace(horizon=None).evaluate(softmax).values, {}
    kinds = {"TD(0)": estimators.TD0(), "GAE(0.5)": estimators.GAE(0.5), "GAE(0.9)": estimators.GAE(0.9)}
    for place, (name, estimator) in enumerate(kinds.items()):
        agent, measured, predicted = actor_critic(mdp, theta, values, estimator), [], []
        for error in errors:
            agent.critic.trainable_variables[0].assign(np.reshape(values + error * noise, (-1, 1)))
            found = measure(agent, worlds.env(mdp, 16), samples)
            measured.append(max(found.squared_bias, 0.0) ** 0.5)
            predicted.append(np.linalg.norm(Expectation(agent, mdp, mdp.horizon).predicted() - found.exact))
        look = style.style(place)
        axes.plot(errors, predicted, **{**look, "marker": ""}, label=f"{name}, predicted")
        axes.plot(errors, measured, color=look["color"], marker=look["marker"], linestyle="", label="measured")
        results[name] = measured, predicted
    axes.set(xlabel="the critic's error, standard deviations of 1", ylabel="norm of the gradient's bias")
    axes.legend(fontsize=9, ncols=1)
    caption = (
        "An exact critic leaves the gradient unbiased; a wrong one biases it in proportion to its error, by what "
        "the process's equations say, and the less the more rewards come before it speaks."
    )
    style.save(made, filepath, "What a wrong critic does to TD(0)", caption)
    return results
