"""A run as one readable file: method, settings, networks, optimizer, environment, budget and seed."""

import copy
import dataclasses
import json
import math
import re
from pathlib import Path

import gymnasium as gym
import yaml

from kerasrl_pg.agents import Agent
from kerasrl_pg.checks import check_whole, misspelt, refuse_unknown
from kerasrl_pg.described import class_of, describe, is_object, known_arguments, realize
from kerasrl_pg.serving.files import write_beside

COMPILED_WRAPPERS = ("time_limit", "mask_observations", "repeat_actions")
ENV_KEYS = ("id", "kwargs", "wrappers")


@dataclasses.dataclass(frozen=True)
class Run:
    """What a training run is made of, as plain data, so that it can be written, read, compared and changed.

    Objects are written by the names of their classes, `{"GAE": {"gae_lambda": 0.9}}`, at any depth; see
    `kerasrl_pg.described`. Nothing of a file is executed.

    Args:
        method: An `Agent` class, `agent` in a file, where it is its name.
        env: A gymnasium id; or `{"id": ..., "kwargs": {...}, "wrappers": [...]}`, the wrappers by their names in
            `gymnasium.wrappers`, outermost last; or a compiled environment, `{"CartPole": {"num_envs": 32}}`, which may
            be an `id`, too, with the wrappers of `kerasrl_pg.envs`.
        total_steps: Budget of environment steps, at least 1.
        num_envs: N, environments side by side; None for what `fit` takes by itself.
        seed: Of the agent, and so of all that is drawn; None draws one.
        settings: Keyword arguments of the method.
        optimizer: A Keras optimizer, or None for the method's own.
        source: Where the settings come from, in a sentence.

    Raises:
        ValueError: If a value is of the wrong kind or a name is not known.
        TypeError: If the method has no such setting; the nearest right one is said.

    >>> import kerasrl_pg as pg
    >>> run = Run(pg.PPO, "CartPole-v1", total_steps=1024, num_envs=8, settings={"horizon": 64, "minibatch_size": 64})
    >>> agent = run.train(seed=0, epochs=1, verbose=0)
    >>> int(agent.env_steps)
    1024
    >>> run.changed({"horizon": 32, "networks.activation": "relu"}).settings["networks"]
    {'Networks': {'activation': 'relu'}}
    """

    method: type
    env: str | dict
    total_steps: int
    num_envs: int | None = None
    seed: int | None = None
    settings: dict = dataclasses.field(default_factory=dict)
    optimizer: dict | None = None
    source: str = ""

    def __post_init__(self):
        if not (isinstance(self.method, type) and issubclass(self.method, Agent)):
            raise ValueError(f"`agent` must be an agent. Received: agent={self.method!r}.")
        check_whole("total_steps", self.total_steps)
        check_whole("num_envs", self.num_envs, optional=True)
        check_whole("seed", self.seed, at_least=0, optional=True)
        if not isinstance(self.settings, dict):
            raise ValueError(f"`settings` must be a dictionary of names and values. Received: {self.settings!r}.")
        if self.optimizer is not None and not is_object(self.optimizer):
            raise ValueError(
                "`optimizer` must name a Keras optimizer and its arguments, such as "
                f"{{'Adam': {{'learning_rate': 0.001}}}}, or be None. Received: {self.optimizer!r}."
            )
        if isinstance(self.env, dict) and not is_object(self.env):
            refuse_unknown("env", ENV_KEYS, {name: item for name, item in self.env.items() if name not in ENV_KEYS})
        if not isinstance(self.env, (str, dict)) or (isinstance(self.env, dict) and not self.env):
            raise ValueError(f"`env` must be a gymnasium id or a dictionary. Received: {self.env!r}.")
        if self.is_compiled and self.num_envs is not None:
            raise ValueError(
                "`num_envs` must be said of the compiled environment itself, and None beside it. Received: "
                f"num_envs={self.num_envs}."
            )

    # As a file

    @classmethod
    def of(cls, agent, env, total_steps, num_envs=None, source=""):
        """The run of an agent that was made by hand.

        Args:
            agent: An `Agent` that builds its networks itself; its settings are those it has now.
            env: A gymnasium id, the dictionary that `Run` takes, or a `CompiledEnv`.
            total_steps, num_envs, source: As of `Run`.

        Raises:
            TypeError: If a part of it cannot be written down: a Keras model of your own, a function, an object of a
                class that is not registered.

        >>> import kerasrl_pg as pg
        >>> Run.of(pg.PPO(horizon=64, seed=3), "CartPole-v1", total_steps=1000).to_dict()
        {'agent': 'PPO', 'env': 'CartPole-v1', 'total_steps': 1000, 'seed': 3, 'settings': {'horizon': 64}}
        """
        given = {name: value for name, value in vars(agent)["_given"].items() if name not in ("seed", "name")}
        start, now = type(agent)(**given).settings_values(), agent.settings_values()
        settings = {n: describe(getattr(agent, n) if n in now else value, n) for n, value in given.items()}
        changed = [name for name in now if name != "seed" and name not in given and now[name] != start[name]]
        settings.update({name: describe(getattr(agent, name), name) for name in changed})
        settings = {name: value for name, value in settings.items() if value is not None}
        optimizer = getattr(agent, "optimizer", None)
        return cls(
            type(agent),
            env if isinstance(env, (str, dict)) else describe(env, "env"),
            total_steps,
            num_envs,
            agent.seed,
            settings,
            None if optimizer is None else describe(optimizer, "optimizer"),
            source,
        )

    @classmethod
    def load(cls, path):
        """The run of a file.

        Args:
            path: Of YAML (.yaml, .yml) or JSON (.json).

        Raises:
            FileNotFoundError: If there is none.
            ValueError, TypeError: If it is no such file, or something in it is wrong; the sentence says what.
        """
        path = Path(path)
        if not path.exists():
            raise FileNotFoundError(f"There is no file of settings {path}.")
        try:
            data = parse(path.read_text(encoding="utf8"))
            run = cls.from_dict(data)
            run.check()
        except (ValueError, TypeError) as error:
            raise type(error)(f"{path}: {error}") from error
        return run

    @classmethod
    def from_dict(cls, data):
        """The run of plain data, as `to_dict` gives it.

        >>> Run.from_dict({"agent": "PPO", "env": "CartPole-v1", "total_step": 10})  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        ...
        TypeError: `Run` has no argument `total_step`. Did you mean `total_steps`? Its arguments are agent, env, ...
        """
        if not isinstance(data, dict):
            raise ValueError(f"A run must be a dictionary. Received: {type(data).__name__}.")
        names = ["agent", *(field.name for field in dataclasses.fields(cls) if field.name != "method")]
        refuse_unknown("Run", names, {name: value for name, value in data.items() if name not in names})
        missing = [name for name in ("agent", "env", "total_steps") if name not in data]
        if missing:
            raise ValueError(f"A run must have `agent`, `env` and `total_steps`. Received: none for {missing[0]!r}.")
        data = {name: copy.deepcopy(value) for name, value in data.items() if value is not None}
        return cls(method_of(data.pop("agent")), **data)

    def to_dict(self):
        """Plain data, in the order of the file, without what is left at its default."""
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        data = {"agent": fields.pop("method").__name__}
        return {**data, **{name: copy.deepcopy(value) for name, value in fields.items() if value not in (None, {}, "")}}

    def save(self, path):
        """Writes a file that `load` reads: YAML, or JSON if it is called so. One that is there is replaced."""
        suffix = Path(path).suffix
        if suffix not in (".yaml", ".yml", ".json"):
            raise ValueError(f"`path` must end in .yaml, .yml or .json. Received: {path}.")
        text = json.dumps(self.to_dict(), indent=2) + "\n" if suffix == ".json" else render(self.to_dict())
        write_beside(
            path, suffix, lambda file: Path(file).write_text(text, encoding="utf8"), lambda file: type(self).load(file)
        )

    def changed(self, changes):
        """A run with other values.

        Args:
            changes: Values by path: a field (`total_steps`), a setting of the method (`horizon`), or what is within
                one: `networks.activation`, `estimator.gae_lambda`, `optimizer.learning_rate`, `env.gravity` (an
                argument of the environment).

        Returns:
            A new `Run`, whose parts are checked.

        Raises:
            ValueError, TypeError: If a name is not known or a value is refused.
        """
        data = self.to_dict()
        for path, value in changes.items():
            first, *rest = path.split(".")
            if first in ("agent", "env", "total_steps", "num_envs", "seed", "source", "optimizer", "settings"):
                holder, whole = data, first
            else:
                holder, whole = data.setdefault("settings", {}), first
            if not rest:
                holder[whole] = value
            elif first == "env":
                holder["env"] = _with_env_argument(holder["env"], rest, value)
            else:
                start = holder.get(whole)
                if start is None or not isinstance(start, dict):
                    start = describe(self._default(first), first)
                holder[whole] = _within(start, rest, value, path)
        run = type(self).from_dict(data)
        run.check()
        return run

    def check(self):
        """Refuses what only making the agent and the environment's description can find wrong."""
        if self.optimizer is not None:
            realize(self.optimizer, "optimizer")
        self.method(**{"seed": 0, **self._settings()})
        if isinstance(self.env, dict):
            compiled = self.is_compiled
            for wrapper in self.env.get("wrappers", []) if not is_object(self.env) else []:
                _wrapper(wrapper, compiled)
            if compiled:
                self.make_env()

    # What it is made of

    @property
    def is_compiled(self):
        """Whether the environment is one of this library's, which play inside the compiled program."""
        return is_object(self.env) or (isinstance(self.env, dict) and is_object(self.env.get("id")))

    @property
    def env_name(self):
        """The gymnasium id, or the name of the compiled environment."""
        env = self.env
        if isinstance(env, dict) and not is_object(env):
            env = env["id"]
        return env if isinstance(env, str) else next(iter(env))

    def make_env(self):
        """What `fit`, `evaluate` and `bind` take: an id, a function that makes environments, or a `CompiledEnv`."""
        if isinstance(self.env, str):
            return self.env
        described = {"id": self.env} if is_object(self.env) else self.env
        wrappers = [_wrapper(item, self.is_compiled) for item in described.get("wrappers", [])]
        if self.is_compiled:
            env = realize(described["id"], "env")
            for kind, given in wrappers:
                env = kind(env, **given)
            return env

        def make(**kwargs):
            env = gym.make(described["id"], **{**described.get("kwargs", {}), **kwargs})
            for kind, given in wrappers:
                env = kind(env, **given)
            return env

        return make

    def agent(self, seed=None, **settings):
        """A compiled agent that has not seen its environment yet.

        Args:
            seed: The agent's; None for the run's.
            **settings: Keyword arguments of the method, in place of the run's.

        Returns:
            An `Agent`.

        Raises:
            ValueError, TypeError: If the method refuses a setting.

        >>> import kerasrl_pg as pg
        >>> pg.presets.PPO_CARTPOLE.agent(seed=0, gamma=0.9).gamma
        0.9
        """
        agent = self.method(**{**self._settings(), "seed": self.seed if seed is None else seed, **settings})
        if self.optimizer is None:
            agent.compile()
        else:
            agent.compile(realize(self.optimizer, "optimizer"))
        return agent

    def fit(self, agent, **arguments):
        """Trains `agent` on the run's environment for the run's budget.

        Args:
            agent: From `agent()`, or another one for the same spaces.
            **arguments: Of `Agent.fit`, in place of the run's or beside them.

        Returns:
            Keras's `History`.

        Raises:
            ValueError, RuntimeError: As `Agent.fit`.
        """
        budget = {"env": self.make_env(), "total_steps": self.total_steps, "num_envs": self.num_envs}
        return agent.fit(**{**budget, **arguments})

    def train(self, seed=None, **arguments):
        """A new agent, trained: `agent(seed)`, then `fit`.

        Args:
            seed: The agent's, and so that of everything in the run; None for the run's.
            **arguments: Of `Agent.fit`, in place of the run's or beside them.

        Returns:
            The trained `Agent`.
        """
        agent = self.agent(seed)
        self.fit(agent, **arguments)
        return agent

    def _settings(self):
        return {name: realize(value, name) for name, value in self.settings.items()}

    def _default(self, name):
        """What the method has by itself for a setting that is an object."""
        if name == "optimizer":
            return self.method().default_optimizer()
        import kerasrl_pg as pg

        value = pg.Networks() if name == "networks" else getattr(self.method(), name, None)
        if not hasattr(value, "get_config"):
            known = ["optimizer", "env", *known_arguments(self.method)]
            meant = misspelt(name, known)
            raise ValueError(
                f"`{name}` must be a setting with settings of its own. Received: {name}={value!r}."
                + (f" Did you mean `{meant}`?" if meant else "")
            )
        return value


def method_of(name):
    """The `Agent` class of a name, in any case.

    >>> method_of("ppo").__name__
    'PPO'
    """
    methods = agents()
    found = methods.get(str(name).lower())
    if found is not None:
        return found
    kind = class_of(name, "agent") if ">" in str(name) else None
    if kind is None:
        raise ValueError(
            f"`agent` must be one of {', '.join(m.__name__ for m in methods.values())}. Received: {name!r}."
        )
    return kind


def agents():
    """The methods, by their names in lower case."""
    import kerasrl_pg as pg

    values = [getattr(pg, name) for name in pg.__all__]
    found = [v for v in values if isinstance(v, type) and issubclass(v, Agent) and v is not Agent]
    return {value.__name__.lower(): value for value in found}


class _Loader(yaml.SafeLoader):
    """YAML as its version 1.2 has it: 1e-5 is a number, `on` is a string; a key given twice is refused."""

    def construct_mapping(self, node, deep=False):
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        twice = {key for key in keys if keys.count(key) > 1}
        if twice:
            raise ValueError(f"A key must stand once. Received: {sorted(map(str, twice))[0]!r} twice.")
        return super().construct_mapping(node, deep)


_Loader.yaml_implicit_resolvers = {
    first: [
        (tag, pattern) for tag, pattern in resolvers if tag not in ("tag:yaml.org,2002:bool", "tag:yaml.org,2002:float")
    ]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile(r"^(?:true|True|false|False)$"), list("tTfF"))
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(?:\d[\d_]*\.?[\d_]*|\.\d[\d_]*)(?:[eE][-+]?\d+)?$|^[-+]?\.(?:inf|Inf)$|^\.(?:nan|NaN)$"),
    list("-+0123456789."),
)


def parse(text):
    """The plain data of YAML, of which JSON is a part.

    Raises:
        ValueError: If it is neither, or has a key twice.

    >>> parse("learning_rate: 1e-3")
    {'learning_rate': 0.001}
    """
    try:
        return yaml.load(text, Loader=_Loader)  # A SafeLoader: plain data, whatever the text says.
    except yaml.YAMLError as error:
        raise ValueError(f"The text must be YAML or JSON. Received: {' '.join(str(error).split())}") from error


class _Dumper(yaml.SafeDumper):
    """As `_Loader` reads it, with small lists in one line."""


def _represent_float(dumper, value):
    text = repr(value) if math.isfinite(value) else {math.inf: ".inf", -math.inf: "-.inf"}.get(value, ".nan")
    return dumper.represent_scalar("tag:yaml.org,2002:float", text)


_Dumper.yaml_implicit_resolvers = _Loader.yaml_implicit_resolvers
_Dumper.add_representer(float, _represent_float)
_Dumper.add_representer(
    list, lambda dumper, value: dumper.represent_sequence("tag:yaml.org,2002:seq", value, flow_style=True)
)


def render(data):
    """Plain data as YAML that `parse` reads."""
    return yaml.dump(data, Dumper=_Dumper, sort_keys=False, width=100, allow_unicode=True)


def _within(data, path, value, whole):
    """Plain data with one value in it replaced; what has but a class's name in the way is passed through."""
    if is_object(data):
        ((name, given),) = data.items()
        return {name: _within(given or {}, path, value, whole)}
    first, *rest = path
    if not rest:
        return {**data, first: value}
    if not isinstance(data.get(first), dict):
        raise ValueError(f"`{whole}` must lead to a setting. Received: a path through {first!r}, which has none.")
    return {**data, first: _within(data[first], rest, value, whole)}


def _with_env_argument(env, path, value):
    if is_object(env):
        return _within(env, path, value, "env." + ".".join(path))
    env = {"id": env} if isinstance(env, str) else dict(env)
    if path[0] in ENV_KEYS and len(path) == 1:
        return {**env, path[0]: value}
    if is_object(env["id"]):
        return {**env, "id": _within(env["id"], path, value, "env." + ".".join(path))}
    return {**env, "kwargs": _within(env.get("kwargs", {}), path, value, "env." + ".".join(path))}


def _wrapper(described, compiled):
    """The class of a wrapper, and its keyword arguments."""
    if isinstance(described, str):
        described = {described: None}
    if not (isinstance(described, dict) and len(described) == 1):
        raise ValueError(
            "`wrappers` must be a list of names, each with its arguments, such as {'RescaleAction': {'min_action': "
            f"-1, 'max_action': 1}}. Received: {described!r}."
        )
    ((name, given),) = described.items()
    import kerasrl_pg as pg

    known = COMPILED_WRAPPERS if compiled else [known for known in gym.wrappers.__all__ if known[0].isupper()]
    if name not in known:
        meant = misspelt(name, known)
        where = "kerasrl_pg.envs" if compiled else "gymnasium.wrappers"
        raise ValueError(
            f"`wrappers` must be names in {where}. Received: {name!r}." + (f" Did you mean {meant!r}?" if meant else "")
        )
    kind = getattr(pg.envs if compiled else gym.wrappers, name)
    refuse_unknown(name, known_arguments(kind)[1:], set(given or {}) - {*known_arguments(kind)[1:]})
    return kind, {key: realize(value, f"wrappers.{name}") for key, value in (given or {}).items()}
