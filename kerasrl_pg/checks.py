"""Refusing wrong settings at construction, in sentences."""

import difflib
import functools
import inspect
import math

import numpy as np

from kerasrl_pg.schedules import OverBudget, is_schedule


def check_number(name, value, low, high=float("inf"), exclusive=False, optional=False, schedule=False):
    """Refuses `value` unless it is a finite number in [low, high] ((low, high] where exclusive), None where optional,
    or a schedule. One over the budget must give such numbers all along; it may end at `low`.

    >>> check_number("gamma", 1.5, 0.0, 1.0)
    Traceback (most recent call last):
    ...
    ValueError: `gamma` must be a number in [0.0, 1.0]. Received: gamma=1.5.
    """
    if optional and value is None:
        return
    if schedule and is_schedule(value):
        if isinstance(value, OverBudget):
            _check_over_budget(name, value, low, high, exclusive)
        return
    is_number = isinstance(value, (int, float, np.number)) and not isinstance(value, bool)
    finite = is_number and math.isfinite(value)
    if not finite or not (low < value if exclusive else low <= value) or not value <= high:
        interval = f"{'(' if exclusive else '['}{low}, {high}{')' if high == float('inf') else ']'}"
        none = ", or None" if optional else ""
        raise ValueError(f"`{name}` must be a number in {interval}{none}. Received: {name}={value!r}.")


def _check_over_budget(name, schedule, low, high, exclusive):
    for share in (0.0, 0.25, 0.5, 0.75, 1.0):
        value = float(schedule(share))
        above = low < value if exclusive and share < 1.0 else low <= value
        if not (math.isfinite(value) and above and value <= high):
            raise ValueError(
                f"`{name}` must be a schedule of numbers in {'(' if exclusive else '['}{low}, {high}]. "
                f"Received: {name}={schedule!r}, which gives {value:g} at {share:.0%} of the budget."
            )


def check_whole(name, value, at_least=1, at_most=float("inf"), optional=False):
    """Refuses `value` unless it is a whole number from `at_least` to `at_most`, or None where optional.

    >>> check_whole("horizon", 0)
    Traceback (most recent call last):
    ...
    ValueError: `horizon` must be a whole number of at least 1. Received: horizon=0.
    """
    if optional and value is None:
        return
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or not at_least <= value <= at_most:
        most = "" if at_most == float("inf") else f" and at most {at_most}"
        none = ", or None" if optional else ""
        raise ValueError(
            f"`{name}` must be a whole number of at least {at_least}{most}{none}. Received: {name}={value!r}."
        )


def check_choice(name, value, choices):
    """Refuses `value` unless it is one of `choices`.

    >>> check_choice("normalize_advantages", "rollout", ("minibatch", "batch", False))
    Traceback (most recent call last):
    ...
    ValueError: `normalize_advantages` must be 'minibatch', 'batch' or False. Received: normalize_advantages='rollout'.
    """
    # By kind as well, since 0 == False.
    if not any(type(value) is type(choice) and value == choice for choice in choices):
        *most, last = map(repr, choices)
        raise ValueError(f"`{name}` must be {', '.join(most)} or {last}. Received: {name}={value!r}.")


def check_flag(name, value):
    """Refuses `value` unless it is True or False.

    >>> check_flag("reward_scaling", "minibatch")
    Traceback (most recent call last):
    ...
    ValueError: `reward_scaling` must be True or False. Received: reward_scaling='minibatch'.
    """
    if not isinstance(value, (bool, np.bool_)):
        raise ValueError(f"`{name}` must be True or False. Received: {name}={value!r}.")


def arguments(root, kind):
    """Names of the arguments that the `__init__`s of the class `kind` up to `root` take together."""
    classes = [c for c in kind.__mro__[: kind.__mro__.index(root) + 1] if "__init__" in vars(c)]
    parameters = [p for c in classes for p in list(inspect.signature(c.__init__).parameters.values())[1:]]
    return list(dict.fromkeys(p.name for p in parameters if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)))


def misspelt(name, known):
    """The one of the names `known` that `name` may be a misspelling of, or None.

    >>> misspelt("entropy_coeff", ["gamma", "entropy_coef"])
    'entropy_coef'
    """
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.8)  # ours: one wrong letter in five
    return close[0] if close else None


def check_known(root, kind, unknown, hints=None):
    """Refuses keyword arguments that no `__init__` from the class `kind` up to `root` names, and says what was meant.

    `hints` are sentences by name, for what belongs elsewhere.

    >>> class Agent:
    ...     def __init__(self, horizon=1, **unknown):
    ...         check_known(Agent, type(self), unknown)
    >>> class Method(Agent):
    ...     def __init__(self, clip_ratio=0.2, **kwargs):
    ...         super().__init__(**kwargs)
    >>> Method(horizn=8)
    Traceback (most recent call last):
    ...
    TypeError: `Method` has no argument `horizn`. Did you mean `horizon`? Its arguments are clip_ratio, horizon.
    """
    refuse_unknown(kind.__name__, arguments(root, kind), unknown, hints)


def refuse_given(kind, given, names, reason):
    """Refuses those of the keyword arguments `given` that mean nothing to a class, which takes them from its base.

    >>> refuse_given(int, {"gamma": 0.9}, ("gamma",), "which knows no time")
    Traceback (most recent call last):
    ...
    TypeError: `gamma` must be left out of int, which knows no time. Received: gamma=0.9.
    """
    for name in names:
        if name in given:
            raise TypeError(
                f"`{name}` must be left out of {kind.__name__}, {reason}. Received: {name}={given[name]!r}."
            )


# What other libraries, and Keras's supervised models, call what this one has; by the name that their users write.
ELSEWHERE = {
    "activation_fn": "It is `networks=kerasrl_pg.Networks(activation=...)`, of the agent.",
    "baseline": "The critic is the baseline of this method, whose rollouts are no whole episodes; others go with "
    "REINFORCE, ConstrainedGradient, NPG and TRPO.",
    "batch_size": "It is `minibatch_size`, of the agent, where its method has minibatches.",
    "callback": "It is `callbacks` of `fit`, which takes Keras callbacks.",
    "cg_damping": "It is `damping`, of the agent.",
    "cg_max_steps": "It is `cg_iterations`, of the agent.",
    "class_weight": "There are no classes: `fit` learns from rewards.",
    "clip_param": "It is `clip_ratio` of PPO.",
    "clip_range": "It is `clip_ratio` of PPO.",
    "clip_range_vf": "It is `value_clip` of PPO.",
    "ent_coef": "It is `entropy_coef`, of the agent.",
    "entropy_coeff": "It is `entropy_coef`, of the agent.",
    "env": "Give it to `fit`.",
    "env_id": "Give `env` to `fit`.",
    "gae_lambda": "It is `estimator=kerasrl_pg.estimators.GAE(0.95)`, of the agent.",
    "lambda_": "It is `estimator=kerasrl_pg.estimators.GAE(0.95)`, of the agent.",
    "learning_rate": "It belongs to the Keras optimizer given to `compile`.",
    "line_search_max_iter": "It is `backtracks` of TRPO.",
    "line_search_shrinking_factor": "It is `backtrack_ratio` of TRPO.",
    "log_interval": "It is `epochs` of `fit`: how many lines of progress there are.",
    "loss": "The agent's method is the loss: write another one as `train_step` of a subclass.",
    "loss_weights": "They are `value_coef` and `entropy_coef`, of the agent.",
    "lr": "It is `learning_rate`, of the Keras optimizer given to `compile`.",
    "max_grad_norm": "It is `global_clipnorm`, of the Keras optimizer given to `compile`.",
    "metrics": "The logs are the method's own; a callback or a subclass's `train_step` can add to them.",
    "n_envs": "It is `num_envs` of `fit`.",
    "n_epochs": "It is `update_epochs` of PPO; `epochs` of `fit` are shares of the budget.",
    "n_eval_episodes": "It is `episodes` of `evaluate`.",
    "n_steps": "It is `horizon`, of the agent; steps in all are `total_steps` of `fit`.",
    "net_arch": "It is `networks=kerasrl_pg.Networks(hidden_units=...)`, of the agent.",
    "norm_adv": "It is `normalize_advantages`, of the agent.",
    "normalize_advantage": "It is `normalize_advantages`, of the agent.",
    "num_envs": "Give it to `fit`.",
    "num_sgd_iter": "It is `update_epochs` of PPO.",
    "num_steps": "It is `horizon`, of the agent; steps in all are `total_steps` of `fit`.",
    "optimizer": "Give it to `compile`.",
    "policy_kwargs": "It is `networks=kerasrl_pg.Networks(hidden_units=..., activation=...)`, of the agent.",
    "progress_bar": "It is `verbose` of `fit`: 0 silent, 1 progress bar, 2 one line an epoch.",
    "sample_weight": "There are no samples to weigh: `fit` collects its own.",
    "shuffle": "There are no data to shuffle: `fit` collects its own.",
    "tensorboard_log": "Give `fit` the callback `keras.callbacks.TensorBoard(...)`.",
    "total_timesteps": "It is `total_steps` of `fit`.",
    "validation_batch_size": "It is `validation_episodes` of `fit`.",
    "validation_data": "It is `validation_env` of `fit`, an environment to evaluate in.",
    "validation_split": "It is `validation_env` of `fit`, an environment to evaluate in.",
    "validation_steps": "It is `validation_episodes` of `fit`.",
    "verbose": "Give it to `fit`.",
    "vf_coef": "It is `value_coef`, of the agent.",
    "weighted_metrics": "The logs are the method's own; a callback or a subclass's `train_step` can add to them.",
    "x": "There are no data to give: an agent collects its own. Give it an `env`.",
    "y": "There are no targets: an agent learns from rewards. Give it an `env`.",
}


def refuse_unknown(what, known, unknown, hints=None):
    """Refuses keyword arguments that `what` does not have, and says what was meant.

    Args:
        what: Name of the function or class.
        known: Names of its arguments.
        unknown: What else it was given; empty where all is well.
        hints: Sentences by name that go before those of `ELSEWHERE`.

    >>> refuse_unknown("fit", ["total_steps"], {"total_timesteps": 1000})
    Traceback (most recent call last):
    ...
    TypeError: `fit` has no argument `total_timesteps`. It is `total_steps` of `fit`. Its arguments are total_steps.
    """
    if not unknown:
        return
    name = next(iter(unknown))
    meant = misspelt(name, known)
    hint = {**ELSEWHERE, **(hints or {})}.get(name) or (f"Did you mean `{meant}`?" if meant else "")
    sentences = f"`{what}` has no argument `{name}`.", hint, f"Its arguments are {', '.join(known)}."
    raise TypeError(" ".join(filter(None, sentences)))


def knows_its_arguments(function):
    """Decorates a method, so that an unknown keyword argument is refused by `refuse_unknown`."""
    known = list(inspect.signature(function).parameters)[1:]
    # Of a constructor, its class.
    what = function.__qualname__.split(".")[-2 if function.__name__ == "__init__" else -1]

    @functools.wraps(function)
    def checked(self, *args, **kwargs):
        refuse_unknown(what, known, [name for name in kwargs if name not in known])
        return function(self, *args, **kwargs)

    return checked


def check_standardizable(rows, name, value):
    """Refuses to standardise one advantage alone, which gives 0 and no gradient.

    >>> check_standardizable(1, "normalize_advantages", True)
    Traceback (most recent call last):
    ...
    ValueError: `normalize_advantages` must be False where there is one advantage at a time, which standardised is 0 \
and teaches nothing. Received: normalize_advantages=True. Take more rows, or set it to False.
    """
    if rows == 1 and value is not False:
        raise ValueError(
            f"`{name}` must be False where there is one advantage at a time, which standardised is 0 and teaches "
            f"nothing. Received: {name}={value!r}. Take more rows, or set it to False."
        )
