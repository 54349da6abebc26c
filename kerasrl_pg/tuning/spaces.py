"""What a search may vary: ranges by dotted paths, as plain data, ready ones for every agent.

A space is a dictionary from a path, as `Run.changed` takes it, to one of

    [32, 64, 128]                                       # one of these, of any kind: numbers, text, None, lists, objects
    {"min": 1e-5, "max": 1e-2, "sampling": "log"}       # a number; whole if both ends are; `step`, if you like
    0.99                                                # always this

which are KerasTuner's `Choice`, `Float` or `Int`, and `Fixed`.
"""

import json

from kerasrl_pg.checks import misspelt, refuse_unknown

# Where the ranges come from.
ZOO = "RL Baselines3 Zoo, rl_zoo3/hyperparams_opt.py at 0a9df50"
ZOO_TRPO = f"{ZOO}, TRPO"
WHAT_MATTERS = "Andrychowicz et al. 2021 (arXiv 2006.05990), section 3.3: it matters, and by environment"
OWN_WIDTHS = "Ours: the Zoo's, its widest net left out, which takes ten times as long on a CPU"
OWN_HORIZONS = "Ours: the Zoo's 32 to 2048 of one environment, for eight side by side"

GAMMA = ([0.9, 0.95, 0.98, 0.99, 0.995, 0.999], ZOO_TRPO)
GAE_LAMBDA = ([0.8, 0.9, 0.92, 0.95, 0.98, 0.99, 1.0], ZOO_TRPO)
ENTROPY = ({"min": 1e-8, "max": 0.1, "sampling": "log"}, ZOO)
RATE = ({"min": 1e-5, "max": 2e-3, "sampling": "log"}, ZOO)
CLIPNORM = ({"min": 0.3, "max": 2.0}, ZOO)
NETS = {
    "networks.hidden_units": ([[64], [64, 64], [128, 128]], OWN_WIDTHS),
    "networks.activation": (["tanh", "relu"], ZOO),
}
NORMALIZED = {"networks.normalize_observations": ([False, True], WHAT_MATTERS)}
CRITIC = {"optimizer.learning_rate": ({"min": 1e-4, "max": 1e-2, "sampling": "log"}, "Ours: ten times 1e-3 each way")}
RETURNS = {"gamma": GAMMA, "estimator.gae_lambda": GAE_LAMBDA}
STEPS = {"optimizer.learning_rate": RATE, "optimizer.global_clipnorm": CLIPNORM, "entropy_coef": ENTROPY}

PASSES = {
    "horizon": ([32, 64, 128, 256], OWN_HORIZONS),
    "minibatch_size": ([32, 64, 128, 256, 512], ZOO),
    "update_epochs": ([1, 5, 10, 20], ZOO),
}
TRUST = {
    "horizon": ([64, 128, 256], OWN_HORIZONS),
    **RETURNS,
    **CRITIC,
    "update_epochs": ([5, 10, 20, 30], ZOO_TRPO),
    **NETS,
    **NORMALIZED,
}
CURVED = {
    "max_kl": ([0.1, 0.05, 0.03, 0.02, 0.01, 0.005, 0.001], ZOO_TRPO),
    "cg_iterations": ([5, 10, 20, 30], ZOO_TRPO),
    "damping": ([0.5, 0.2, 0.1, 0.05, 0.01], f"{ZOO_TRPO}, `cg_damping`, commented out there"),
}
POPULATION = {
    "noise": ({"min": 0.01, "max": 1.0, "sampling": "log"}, "Ours: ten times 0.1 each way"),
    "networks.hidden_units": ([[], [8], [32]], "Ours: searches among few weights get further"),
    "networks.activation": (["tanh", "relu"], ZOO),
}

SPACES = {
    "PPO": {
        **PASSES,
        "clip_ratio": ([0.1, 0.2, 0.3, 0.4], ZOO),
        **RETURNS,
        **STEPS,
        **NETS,
        **NORMALIZED,
    },
    "PPOPenalty": {
        **PASSES,
        "target_kl": ([0.003, 0.01, 0.03], "Schulman et al. 2017 (arXiv 1707.06347), table 1"),
        **RETURNS,
        **STEPS,
        **NETS,
        **NORMALIZED,
    },
    "A2C": {
        "horizon": ([5, 8, 16, 32, 64], "Ours: from Mnih et al. 2016 (arXiv 1602.01783) to the Zoo's least but one"),
        **RETURNS,
        "normalize_advantages": ([False, True], "Ours: some environments of the Zoo's a2c.yml have it"),
        **STEPS,
        "optimizer.learning_rate": (
            {"min": 1e-5, "max": 1e-2, "sampling": "log"},
            "Ours: the Zoo's, and up to ten times RMSprop's 7e-4",
        ),
        **NETS,
        **NORMALIZED,
    },
    "TRPO": {**CURVED, **TRUST},
    "NPG": {**CURVED, **TRUST},
    "ConstrainedGradient": {
        "max_squared_norm": ({"min": 1e-4, "max": 1.0, "sampling": "log"}, "Ours: a hundred times 0.01 each way"),
        **TRUST,
    },
    "REINFORCE": {
        "episodes": ([2, 4, 8], "Ours: many updates, or ones of little variance"),
        "gamma": GAMMA,
        "baseline": (
            [None, {"AverageReturn": {}}, {"TimeDependent": {}}, {"ValueFunction": {}}],
            "Lecture notes 3.3; chapter 4.4",
        ),
        "optimizer.learning_rate": (
            {"min": 1e-4, "max": 3e-2, "sampling": "log"},
            "Ours: from the default on, since its updates are few",
        ),
        "optimizer.global_clipnorm": CLIPNORM,
        "entropy_coef": ENTROPY,
        **NETS,
    },
    "EvolutionStrategies": {
        "population_size": ([16, 32, 64], "Ours: half and twice the default"),
        "optimizer.learning_rate": ({"min": 1e-3, "max": 0.1, "sampling": "log"}, "Ours: ten times 0.01 each way"),
        **POPULATION,
    },
    "HillClimbing": {
        "population_size": ([8, 16, 32], "Ours: half and twice the default"),
        "shrink": ([0.5, 0.7, 0.9], "Ours: from the source's on"),
        "grow": ([1.1, 1.5, 2.0], "Ours: up to the source's"),
        **POPULATION,
    },
    "SimulatedAnnealing": {
        "population_size": ([8, 16, 32], "Ours: half and twice the default"),
        "temperature": (
            [{"linear": {"initial": each}} for each in (0.1, 1.0, 10.0, 100.0)],
            "Ours: what returns differ by, from toys to games",
        ),
        **POPULATION,
    },
    "BehaviorCloning": {
        "episodes": ([16, 32, 64, 128], "Ours: half, twice and a quarter of the default"),
        "optimizer.learning_rate": ({"min": 1e-4, "max": 1e-2, "sampling": "log"}, "Ours: supervised learning"),
        **NETS,
    },
    "ImportanceSampling": {
        "episodes": ([16, 32, 64, 128], "Ours: half, twice and a quarter of the default"),
        "gamma": GAMMA,
        "weight_clip": ([None, 2.0, 10.0], "Ours: never, or at a few times what a likely episode weighs"),
        "optimizer.learning_rate": ({"min": 1e-5, "max": 3e-3, "sampling": "log"}, "Ours: ten times 3e-4 each way"),
        **NETS,
    },
}

RANGE = ("min", "max", "step", "sampling")


def space(method):
    """The ready search space of a method.

    Args:
        method: An `Agent` class, its name in any case, or a `Run`. Of a run, what its rollouts cannot be cut into is
            left out: minibatches must divide horizon x num_envs, and five rollouts must be in the budget.

    Returns:
        A dictionary from paths to ranges, as `HyperAgent` takes it; change it as you like.

    Raises:
        ValueError: If there is none for the method.

    >>> space("ppo")["optimizer.learning_rate"]
    {'min': 1e-05, 'max': 0.002, 'sampling': 'log'}
    >>> import kerasrl_pg as pg
    >>> run = pg.Run(pg.PPO, "CartPole-v1", total_steps=10_000, num_envs=12)
    >>> space(run)["horizon"], space(run)["minibatch_size"]
    ([32, 64, 128], [32, 64, 128])
    """
    found = {path: copied(given) for path, (given, _) in _entries(method).items()}
    return found if isinstance(method, (str, type)) else _suited(found, method)


def sources(method):
    """Where each range of `space(method)` comes from: a dictionary from paths to sentences.

    >>> sources("ppo")["update_epochs"]
    'RL Baselines3 Zoo, rl_zoo3/hyperparams_opt.py at 0a9df50'
    """
    return {path: source for path, (_, source) in _entries(method).items()}


def _entries(method):
    from kerasrl_pg.run import method_of

    kind = method_of(method) if isinstance(method, str) else getattr(method, "method", method)
    for base in kind.__mro__:
        if base.__name__ in SPACES:
            return SPACES[base.__name__]
    raise ValueError(
        f"`space` must be given for a method that has no ready one. Received: {kind.__name__}. "
        f"There are ready ones for {', '.join(sorted(SPACES))}."
    )


def copied(value):
    """Data as it comes back from a file of JSON, in which objects are text."""
    return json.loads(json.dumps(value, default=str))


def _suited(ranges, run):
    """Without what the run's number of environments and budget do not go with."""
    num_envs = num_envs_of(run)
    if num_envs is None or "horizon" not in ranges:
        return ranges
    horizons = [h for h in ranges["horizon"] if 5 * h * num_envs <= run.total_steps] or ranges["horizon"][:1]
    sizes = ranges.get("minibatch_size")
    if sizes is not None:
        fitting = [m for m in sizes if all(h * num_envs % m == 0 for h in horizons)]
        if not fitting:  # One environment, say: longer rollouts, and what divides them all.
            horizons = [h for h in horizons if h * num_envs >= max(sizes[:2])] or horizons[-1:]
            fitting = [m for m in sizes if all(h * num_envs % m == 0 for h in horizons)]
        ranges["minibatch_size"] = fitting or [horizons[0] * num_envs]
    ranges["horizon"] = horizons
    return ranges


def num_envs_of(run):
    """N of a run, or None where only `fit` will know."""
    if not run.is_compiled:
        return run.num_envs
    return run.make_env().num_envs


def check_range(path, given):
    """Refuses what is no range.

    Raises:
        ValueError, TypeError: With a sentence that says how it is written.

    >>> check_range("gamma", {"min": 0.9, "max": 0.8})
    Traceback (most recent call last):
    ...
    ValueError: `space` must have a `min` below the `max`. Received: gamma={'min': 0.9, 'max': 0.8}.
    """
    if isinstance(given, list):
        if not given:
            raise ValueError(f"`space` must have at least one choice. Received: {path}=[].")
        return
    if not (isinstance(given, dict) and {"min", "max"} & {*given}):
        return
    refuse_unknown("A range", RANGE, {name: value for name, value in given.items() if name not in RANGE})
    ends = [given.get("min"), given.get("max")]
    if not all(isinstance(end, (int, float)) and not isinstance(end, bool) for end in ends):
        raise ValueError(f"`space` must have numbers as `min` and `max` of a range. Received: {path}={given!r}.")
    if ends[0] >= ends[1]:
        raise ValueError(f"`space` must have a `min` below the `max`. Received: {path}={given!r}.")
    sampling = given.get("sampling", "linear")
    if sampling not in ("linear", "log", "reverse_log"):
        meant = misspelt(str(sampling), ("linear", "log", "reverse_log"))
        raise ValueError(
            "`space` must have `sampling` linear, log or reverse_log. "
            f"Received: {path}={given!r}." + (f" Did you mean {meant!r}?" if meant else "")
        )
    if sampling != "linear" and ends[0] <= 0:
        raise ValueError(f"`space` must have a `min` above 0 with {sampling} sampling. Received: {path}={given!r}.")
    step = given.get("step")
    if step is not None and not (isinstance(step, (int, float)) and step > (1 if sampling != "linear" else 0)):
        raise ValueError(
            f"`space` must have a `step` above 0, or above 1, by which is multiplied, with log sampling. "
            f"Received: {path}={given!r}."
        )


def edges(given):
    """Values of a range that between them show whether a run takes it: all choices, or both ends.

    >>> edges({"min": 1, "max": 4}), edges([None, 0.5]), edges(3)
    ([1, 4], [None, 0.5], [3])
    """
    if isinstance(given, list):
        return given
    return [given["min"], given["max"]] if _is_range(given) else [given]


def _is_range(given):
    return isinstance(given, dict) and {"min", "max"} <= {*given}


def draw(hp, path, given):
    """The value that KerasTuner has for a path.

    What is not whole goes through KerasTuner as JSON text or is rounded to six digits: its messages between processes
    have floats of 32 bits, and a worker's 0.99 would be 0.9900000095, which is none of the choices.

    Args:
        hp: `keras_tuner.HyperParameters`.
        path, given: An item of a space.

    >>> import keras_tuner as kt
    >>> draw(kt.HyperParameters(), "baseline", [None, {"AverageReturn": {}}]) is None
    True
    """
    if isinstance(given, list):
        if all(type(value) is int for value in given) or all(type(value) is str for value in given):
            return hp.Choice(path, given)
        return json.loads(hp.Choice(path, [json.dumps(value) for value in given]))
    if not _is_range(given):
        return json.loads(hp.Fixed(path, json.dumps(given)))
    low, high, step = given["min"], given["max"], given.get("step")
    how = {"sampling": given.get("sampling", "linear"), "step": step}
    if all(type(end) is int for end in (low, high, 1 if step is None else step)):
        return int(hp.Int(path, low, high, **how))
    return min(max(float(f"{hp.Float(path, float(low), float(high), **how):.6g}"), low), high)


def plain(value):
    """What a person reads of a value that KerasTuner holds.

    >>> plain('[64, 64]'), plain(0.123456789), plain("relu")
    ([64, 64], 0.123457, 'relu')
    """
    if isinstance(value, str):
        try:
            return json.loads(value)
        except ValueError:
            return value
    return float(f"{value:.6g}") if isinstance(value, float) else value
