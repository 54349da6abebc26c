"""How good an agent's own estimate of the gradient is: bias, variance, direction, against the exact one."""

import dataclasses
import itertools
import statistics
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from kerasrl_pg import ops
from kerasrl_pg.agents.conservative import Conservative
from kerasrl_pg.checks import check_number, check_whole
from kerasrl_pg.envs.compiled import CompiledEnv
from kerasrl_pg.lab.exact import MDP, check_no_masks
from kerasrl_pg.lab.gradients import Expectation, fisher, solve
from kerasrl_pg.lab.policy import check_stateless
from kerasrl_pg.rollouts import compiled

ROWS = 500_000  # Of all rollouts that are played at once: ours, some 20 MB of small observations.
ROUNDING = 1e-6  # Ours: what sums of float32 are off by, in parts of the largest component.


class Measurement(NamedTuple):
    """What many independent estimates of a gradient are like; P components, in the unit of J.

    Args:
        mean: float64 [P], of the estimates.
        exact: float64 [P], what they are compared with.
        interval: float64 [P], half the width of the means' simultaneous confidence interval (Bonferroni).
        variance: E‖g - E g‖², the trace of the covariance matrix of one estimate.
        variance_error: The standard error of `variance`.
        cosine: Mean cosine of the angle between an estimate and the exact gradient.
        squared_error: E‖g - exact‖².
        samples: How many estimates.
    """

    mean: np.ndarray
    exact: np.ndarray
    interval: np.ndarray
    variance: float
    variance_error: float
    cosine: float
    squared_error: float
    samples: int

    @property
    def bias(self):
        """float64 [P], mean less exact."""
        return self.mean - self.exact

    @property
    def squared_bias(self):
        """‖E g - exact‖², less what chance adds to it in the mean; may be below 0 where there is no bias."""
        return float(np.sum(self.bias**2) - self.variance / self.samples)

    @property
    def unbiased(self):
        """Whether each component's bias lies inside the simultaneous interval."""
        return bool((np.abs(self.bias) <= self.interval).all())

    def agrees_with(self, exact):
        """Whether another gradient [P] lies inside the interval around the mean."""
        return bool((np.abs(self.mean - exact) <= self.interval).all())


def measure(agent, env, samples=1000, *, exact=None, natural=False, behavior=None, confidence=0.99, seed=0):
    """Measures the gradient that `train_step` would apply, over many independent rollouts.

    Each rollout is the one that `fit` would collect, T steps of `env.num_envs` environments, but that all of them begin
    an episode. The estimate is `agent.gradients(rollout)`, upwards, as to the policy's weights: the agent's own loss,
    credit and baseline. All rollouts are played and differentiated in one compiled program; no weight moves.

    Args:
        agent: A built and compiled agent without memory, with `Discrete` actions.
        env: A `CompiledEnv` that `MDP.of` can solve, with N = `num_envs` environments; or a pair of any `CompiledEnv`
            and its `MDP`.
        samples: M, how many rollouts, at least 2.
        exact: float64 [P], what estimates are compared with; None for what the agent sets out to estimate,
            `Expectation.claimed`. Whatever else its loss holds, such as an entropy bonus, standardised advantages,
            scaled or clipped rewards, or, on shared layers, the critic's loss, counts as bias.
        natural: Of `NPG` and `TRPO`: measure (F + cI)⁻¹ ∇J, both estimated from the rollout, in place of ∇J.
        behavior: A built agent that plays the rollouts, for methods that learn from what another did; None for the
            agent itself.
        confidence: Of the interval, over all components together.
        seed: Of the rollouts.

    Returns:
        A `Measurement`.

    Raises:
        ValueError: If the environment cannot be solved; and, as TypeErrors, what `measure_gradients` raises.

    >>> import keras
    >>> import kerasrl_pg as pg
    >>> env = pg.envs.TabularMDP(num_envs=2, max_episode_steps=4, num_states=3, num_actions=2)
    >>> agent = pg.REINFORCE(networks=pg.Networks(()), baseline=pg.baselines.AverageReturn(), seed=0)
    >>> agent.compile(keras.optimizers.SGD(0.1), jit_compile=False)
    >>> found = measure(agent, env, samples=200)
    >>> found.unbiased, found.mean.shape
    (True, (8,))
    """
    check_number("confidence", confidence, 0.0, 1.0, exclusive=True)
    env, mdp = env if isinstance(env, tuple) else (env, None)
    rows = _check(agent, env, samples)
    mdp = MDP.of(env, agent.gamma) if mdp is None else mdp
    if exact is None:
        expectation = Expectation(agent, mdp, rows)
        exact = expectation.claimed()
        if natural:
            exact = solve(fisher(mdp, agent, expectation.visits), exact, agent.scheduled(agent.damping))
    estimates = measure_gradients(agent, env, samples, natural=natural, behavior=behavior, seed=seed)
    return summary(estimates, np.asarray(exact, np.float64), confidence)


def measure_gradients(agent, env, samples=1000, *, natural=False, behavior=None, seed=0):
    """The estimates that `measure` judges, of any compiled environment, whether it can be solved or not.

    Args:
        agent, samples, natural, behavior, seed: Of `measure`.
        env: A `CompiledEnv`.

    Returns:
        float64 [M, P], upwards, in the unit of J.

    Raises:
        ValueError: If the agent remembers, actions are masked, the settings do not fit the rollouts, or an estimate is
            not finite.
        TypeError: If `env` is no compiled environment.

    >>> import keras
    >>> import kerasrl_pg as pg
    >>> agent = pg.REINFORCE(networks=pg.Networks(()), horizon=20, seed=0)
    >>> agent.compile(keras.optimizers.SGD(0.1), jit_compile=False)
    >>> measure_gradients(agent, pg.envs.CartPole(num_envs=2), samples=3).shape
    (3, 10)
    """
    rows = _check(agent, env, samples)
    estimates = _estimates(agent, env, rows, samples, natural, behavior or agent, seed)
    if not np.isfinite(estimates).all():
        raise ValueError(
            f"`agent` must give gradients that are finite. Received: {agent!r}, of whose {samples} estimates "
            f"{int(np.sum(~np.isfinite(estimates).all(-1)))} are not. Look at its weights and the rewards."
        )
    return estimates


def _check(agent, env, samples):
    """T, rows of a rollout, of an agent that it gets ready; refuses what cannot be measured."""
    check_whole("samples", samples, at_least=2)
    if not isinstance(env, CompiledEnv):
        raise TypeError(f"`env` must be a CompiledEnv, such as envs.TabularMDP. Received: env={env!r}.")
    check_no_masks(env)
    agent._assert_compile_called("measure")
    agent.bind(env.observation_space, env.action_space)
    check_stateless(agent)
    rows = agent.rollout_horizon(env)
    agent.check_rollout(rows, env.num_envs)
    return rows


def summary(estimates, exact, confidence=0.99):
    """The `Measurement` of independent estimates float [M, P] of a gradient [P]."""
    count, size = estimates.shape
    mean = estimates.mean(0)
    deviations = estimates - mean
    lengths = np.sum(deviations**2, -1)
    quantile = statistics.NormalDist().inv_cdf(1.0 - (1.0 - confidence) / (2.0 * size))
    spread = np.sqrt(np.sum(deviations**2, 0) / (count - 1))
    norms = np.linalg.norm(estimates, axis=-1) * np.linalg.norm(exact)
    cosines = np.divide(estimates @ exact, norms, out=np.zeros(count), where=norms > 0.0)
    return Measurement(
        mean,
        exact,
        quantile * spread / np.sqrt(count) + ROUNDING * np.abs(exact).max(),
        float(lengths.sum() / (count - 1)),
        float(lengths.std() / np.sqrt(count)),
        float(cosines.mean()),
        float(np.sum((estimates - exact) ** 2, -1).mean()),
        count,
    )


def _estimates(agent, env, rows, samples, natural, player, seed):
    together = max(1, min(samples, ROWS // (rows * env.num_envs)))
    agent._take_settings()
    key = "measure", env, rows, together, natural, id(player)
    program, _ = agent.program(key, lambda: (_program(agent, env, rows, together, natural, player), []))
    calls = -(-samples // together)
    found = [program(tf.constant([seed, 4 * call])).numpy() for call in range(calls)]
    return np.concatenate(found)[:samples].astype(np.float64)


def _program(agent, env, rows, together, natural, player):
    """The function from a seed int32[2] to `together` estimates [together, P]."""
    many, num_envs = dataclasses.replace(env, num_envs=together * env.num_envs), env.num_envs

    def apart(x):
        """[T, M N, ...] as [M, T, N, ...]."""
        x = tf.reshape(x, [rows, together, num_envs, *x.shape[2:]])
        return tf.transpose(x, [1, 0, *range(2, x.shape.rank)])

    def program(seed):
        seeds = [seed + [0, stream] for stream in range(4)]
        players = compiled.start(many, seeds[3])
        rollout, _, _ = compiled.collect(many, player.actor_critic, players, seeds[:3], rows, agent.episodes_per_env)
        rollouts = tf.nest.map_structure(apart, rollout)
        return tf.map_fn(lambda one: estimate(agent, one, natural), rollouts, fn_output_signature=tf.float32)

    return program


def estimate(agent, rollout, natural=False):
    """One rollout's estimate of the policy's gradient, upwards: float32 [P]."""
    if isinstance(agent, Conservative):
        samples = agent.samples(rollout)
        _, gradient = agent.gradient(samples)
        return agent.natural_direction(gradient, samples)[0] if natural else gradient
    found, _ = agent.gradients(rollout)
    of = {id(v): g for part, (_, vs) in agent.moves().items() for v, g in zip(vs, found[part], strict=True)}
    return -ops.flatten_parameters([of[id(variable)] for variable in agent.policy.trainable_variables])


def sweep(make_agent, env, samples=1000, *, num_envs=None, seed=0, **settings):
    """Measures every combination of settings.

    Args:
        make_agent: Function from keyword arguments to a fresh, compiled agent, always with the same policy:
            `lambda **settings: ...`.
        env, samples, seed: Of `measure`.
        num_envs: None for `env.num_envs`, or a list of N.
        **settings: A list for each argument of `make_agent` that is to vary: `gamma=[0.9, 0.99]`,
            `estimator=[pg.estimators.GAE(0.9), ...]`, `baseline=[None, pg.baselines.AverageReturn()]`, whatever it
            takes.

    Returns:
        A list of pairs: a dictionary of what was set, and its `Measurement`. `table` writes it out.

    >>> import keras
    >>> import kerasrl_pg as pg
    >>> env = pg.envs.TabularMDP(num_envs=2, max_episode_steps=3, num_states=3, num_actions=2)
    >>> def make_agent(**settings):
    ...     agent = pg.REINFORCE(networks=pg.Networks(()), seed=0, **settings)
    ...     agent.compile(keras.optimizers.SGD(0.1), jit_compile=False)
    ...     return agent
    >>> found = sweep(make_agent, env, samples=100, baseline=[None, pg.baselines.AverageReturn()])
    >>> print(table(found).splitlines()[0])
    | baseline | variance | squared bias | squared error | cosine | unbiased |
    """
    single, mdp = env if isinstance(env, tuple) else (env, None)
    names = [*settings]
    counts = [single.num_envs] if num_envs is None else num_envs
    found = []
    for values in itertools.product(*settings.values()):
        agent = make_agent(**dict(zip(names, values, strict=True)))
        for count in counts:
            copies = dataclasses.replace(single, num_envs=count)
            which = dict(zip(names, values, strict=True)) | ({} if num_envs is None else {"num_envs": count})
            found.append((which, measure(agent, copies if mdp is None else (copies, mdp), samples, seed=seed)))
    return found


def table(found):
    """What `sweep` found, as a table in Markdown."""
    columns = "variance", "squared_bias", "squared_error", "cosine", "unbiased"
    names = [*found[0][0]]
    lines = [[*names, *(column.replace("_", " ") for column in columns)]]
    lines.append(["---"] * len(lines[0]))
    for which, measured in found:
        numbers = [getattr(measured, column) for column in columns]
        lines.append([str(which[n]) for n in names] + [str(x) if isinstance(x, bool) else f"{x:.4g}" for x in numbers])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
