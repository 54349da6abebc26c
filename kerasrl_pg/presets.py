"""Settings that are known to learn: a method, an environment, and the numbers that made it work.

`benchmarks/learning.py` measures them; `benchmarks/results/learning.md` says what they reach.
Where settings come from other libraries, mind that our critic loss is half the squared error:
Stable-Baselines3's `vf_coef` 0.5 is `value_coef=1.0` here.
"""

from collections.abc import Callable
from dataclasses import dataclass

import keras

from kerasrl_pg import heads
from kerasrl_pg.agents import A2C, NPG, PPO, REINFORCE, TRPO, Agent
from kerasrl_pg.baselines import ValueFunction
from kerasrl_pg.estimators import GAE
from kerasrl_pg.models import Networks


@dataclass(frozen=True, eq=False)
class Preset:
    """One method's settings for one environment.

    Args:
        method: An `Agent` class.
        env: A gymnasium id.
        total_steps: Budget of environment steps that the settings are meant for.
        num_envs: N, environments stepped side by side.
        settings: Function without arguments giving the keyword arguments of `method`; a function,
            so that no two agents share a layer.
        optimizer: Function without arguments giving a fresh optimizer.
        source: Where the settings come from.

    >>> agent = PPO_CARTPOLE.agent(seed=0)
    >>> agent.gamma, agent.horizon
    (0.99, 128)
    >>> history = PPO_CARTPOLE.fit(agent, total_steps=1024, epochs=1, verbose=0)
    >>> int(agent.env_steps.numpy())
    1024
    """

    method: type[Agent]
    env: str
    total_steps: int
    num_envs: int
    settings: Callable[[], dict]
    optimizer: Callable[[], keras.optimizers.Optimizer]
    source: str

    def agent(self, seed=None, **settings):
        """A compiled agent that has not seen its environment yet.

        Args:
            seed: The agent's; None draws one.
            **settings: Keyword arguments of the method, in place of the preset's.

        Returns:
            An `Agent`.

        Raises:
            ValueError, TypeError: If the method refuses a setting.

        >>> PPO_CARTPOLE.agent(seed=0, gamma=0.9).gamma
        0.9
        """
        agent = self.method(**{**self.settings(), "seed": seed, **settings})
        agent.compile(self.optimizer())
        return agent

    def fit(self, agent, **arguments):
        """Trains `agent` on the preset's environment for the preset's budget.

        Args:
            agent: From `agent()`, or another one for the same spaces.
            **arguments: Of `Agent.fit`, in place of the preset's or beside them.

        Returns:
            Keras's `History`.

        Raises:
            ValueError, RuntimeError: As `Agent.fit`.
        """
        budget = {"total_steps": self.total_steps, "num_envs": self.num_envs}
        return agent.fit(**{"env": self.env, **budget, **arguments})

    def train(self, seed=None, **arguments):
        """A new agent, trained: `agent(seed)`, then `fit`.

        Args:
            seed: The agent's, and so that of everything in the run.
            **arguments: Of `Agent.fit`, in place of the preset's or beside them.

        Returns:
            The trained `Agent`.

        >>> agent = REINFORCE_CARTPOLE.train(seed=0, total_steps=4000, epochs=1, verbose=0)
        >>> agent.act([0.0, 0.0, 0.0, 0.0]) in (0, 1)
        True
        """
        agent = self.agent(seed)
        self.fit(agent, **arguments)
        return agent


def find(method, env):
    """The preset of a method for an environment.

    Args:
        method: An `Agent` class, or its name in any case.
        env: A gymnasium id.

    Returns:
        A `Preset`, or None where there is none.

    >>> find("ppo", "CartPole-v1") is PPO_CARTPOLE, find(A2C, "Hopper-v5")
    (True, None)
    """
    name = (method if isinstance(method, str) else method.__name__).lower()
    for preset in ALL.values():
        if (preset.method.__name__.lower(), preset.env) == (name, env):
            return preset
    return None


def _adam(learning_rate, clipnorm=0.5):
    return lambda: keras.optimizers.Adam(learning_rate, epsilon=1e-5, global_clipnorm=clipnorm)


def _falling(value, iterations):
    return keras.optimizers.schedules.PolynomialDecay(value, iterations, 0.0)


@keras.saving.register_keras_serializable("kerasrl_pg")
class NarrowGaussian(heads.Gaussian):
    """A `Gaussian` that starts with log σ = -2: random actions that barely reach the bounds.

    A class of its own because `Networks` gives the heads that it builds seeded initial weights.

    Args:
        shape, **kwargs: Of `Gaussian`.
        initial_log_std: -2, as RL Baselines3 Zoo for MuJoCo.

    >>> NarrowGaussian(2).initial_log_std
    -2.0
    """

    def __init__(self, shape, initial_log_std=-2.0, **kwargs):
        super().__init__(shape, initial_log_std=initial_log_std, **kwargs)


PPO_CARTPOLE = Preset(
    PPO,
    "CartPole-v1",
    total_steps=100_000,
    num_envs=8,
    settings=lambda: {"horizon": 128, "minibatch_size": 128, "value_coef": 1.0, "anneal_learning_rate": True},
    optimizer=_adam(1e-3),
    source="Huang et al. 2022, The 37 implementation details of PPO, from eight environments with a larger rate "
    "and more passes: ours. RL Baselines3 Zoo's settings (horizon 32, 20 passes) ended below 475 on one seed of ten.",
)

A2C_CARTPOLE = Preset(
    A2C,
    "CartPole-v1",
    total_steps=500_000,
    num_envs=8,
    settings=lambda: {"entropy_coef": 0.0, "value_coef": 1.0, "anneal_learning_rate": True},
    optimizer=lambda: keras.optimizers.RMSprop(7e-4, rho=0.99, epsilon=1e-5, global_clipnorm=0.5),
    source="RL Baselines3 Zoo, hyperparams/a2c.yml; annealed: ours, because the last policy counts.",
)

REINFORCE_CARTPOLE = Preset(
    REINFORCE,
    "CartPole-v1",
    total_steps=300_000,
    num_envs=1,
    settings=lambda: {
        "baseline": ValueFunction(update_epochs=10),
        "episodes": 4,
        "normalize_advantages": True,
        "anneal_learning_rate": True,
    },
    optimizer=_adam(3e-3),
    source="Ours: one environment, since with more of them those that have ended idle, at the "
    "budget's cost, until the last one ends; four episodes an update; standardised advantages.",
)

PPO_ACROBOT = Preset(
    PPO,
    "Acrobot-v1",
    total_steps=100_000,
    num_envs=8,
    settings=lambda: {
        "horizon": 128,
        "estimator": GAE(0.94),
        "update_epochs": 20,
        "minibatch_size": 128,
        "value_coef": 1.0,
        "entropy_coef": 0.02,
        "anneal_learning_rate": True,
    },
    optimizer=_adam(1e-3),
    source="RL Baselines3 Zoo, hyperparams/ppo.yml, for a million steps; for a tenth of them a "
    "larger rate, more passes and no normalisation, and an entropy bonus without which some "
    "deterministic policies get stuck: ours, measured.",
)

PPO_PENDULUM = Preset(
    PPO,
    "Pendulum-v1",
    total_steps=100_000,
    num_envs=4,
    settings=lambda: {
        "horizon": 256,
        "gamma": 0.95,
        "update_epochs": 10,
        "minibatch_size": 64,
        "value_coef": 1.0,
        "reward_scaling": True,
        "anneal_learning_rate": True,
        "networks": Networks(activation="relu"),
    },
    optimizer=_adam(1e-3),
    source="RL Baselines3 Zoo, hyperparams/ppo.yml, without its state-dependent exploration; a "
    "shorter horizon, γ 0.95 for 0.9, ReLU, annealing and reward scaling: ours.",
)

PPO_LUNAR_LANDER = Preset(
    PPO,
    "LunarLander-v3",
    total_steps=1_000_000,
    num_envs=16,
    settings=lambda: {
        "horizon": 256,
        "gamma": 0.999,
        "estimator": GAE(0.98),
        "update_epochs": 10,
        "minibatch_size": 64,
        "value_coef": 1.0,
        "entropy_coef": 0.01,
        "anneal_learning_rate": True,
    },
    optimizer=_adam(5e-4),
    source="RL Baselines3 Zoo, hyperparams/ppo.yml (LunarLander-v2); a quarter of its horizon, more "
    "passes, a larger rate and annealing: ours, measured.",
)

PPO_HALF_CHEETAH = Preset(
    PPO,
    "HalfCheetah-v5",
    total_steps=1_000_000,
    num_envs=4,
    settings=lambda: {
        "horizon": 256,
        "gamma": 0.98,
        "estimator": GAE(0.92),
        "update_epochs": 10,
        "minibatch_size": 64,
        "clip_ratio": 0.1,
        "value_coef": 1.0,
        "reward_scaling": True,
        "reward_clip": 10.0,
        "networks": Networks(activation="relu", normalize_observations=True, head=NarrowGaussian),
    },
    optimizer=_adam(1e-4),
    source="RL Baselines3 Zoo, hyperparams/ppo.yml (HalfCheetah-v4): discount, λ, clipping, first "
    "deviation and ReLU; networks of 64 units in place of 256 with a larger learning rate, and "
    "half the passes: ours, because they are far cheaper.",
)

PPO_HOPPER = Preset(
    PPO,
    "Hopper-v5",
    total_steps=1_000_000,
    num_envs=4,
    settings=lambda: {
        "horizon": 512,
        "gamma": 0.995,
        "estimator": GAE(0.97),
        "update_epochs": 10,
        "minibatch_size": 64,
        "reward_scaling": True,
        "reward_clip": 10.0,
        "anneal_learning_rate": True,
        "networks": Networks(normalize_observations=True),
    },
    optimizer=_adam(3e-4),
    source="Huang et al. 2022, The 37 implementation details of PPO (CleanRL's "
    "ppo_continuous_action.py), from four environments; γ 0.995 for 0.99 and λ 0.97 for 0.95: "
    "ours, because falling late must count.",
)

PPO_MINIGRID_EMPTY, PPO_MINIGRID_DOOR_KEY = (
    Preset(
        PPO,
        f"minigrid:MiniGrid-{name}-v0",  # gymnasium imports what stands before the colon.
        total_steps=65_536,
        num_envs=8,
        settings=lambda: {"target_kl": 0.02, "anneal_learning_rate": True},
        optimizer=_adam(3e-4),
        source="Ours: the defaults, annealed, and with the bound on the divergence, without which one rare action can "
        "undo the policy after many updates that changed nothing, by when Adam divides by nearly nothing. "
        "rl-starter-files' entropy bonus, 4 passes of 256 and rate of 1e-3 learned more slowly within that bound.",
    )
    for name in ("Empty-5x5", "DoorKey-5x5")
)


def _adam_critic():
    return keras.optimizers.Adam(1e-3)


TRPO_CARTPOLE, NPG_CARTPOLE = (
    Preset(
        method,
        "CartPole-v1",
        total_steps=100_000,
        num_envs=8,
        settings=lambda: {"horizon": 128},
        optimizer=_adam_critic,
        source="Ours: the defaults of the method.",
    )
    for method in (TRPO, NPG)
)

TRPO_ACROBOT, NPG_ACROBOT = (
    Preset(
        method,
        "Acrobot-v1",
        total_steps=100_000,
        num_envs=16,
        settings=lambda: {"horizon": 128, "max_kl": 0.02, "entropy_coef": 0.01},
        optimizer=_adam_critic,
        source="Ours: 16 environments, steps twice as long as usual, and PPO_ACROBOT's entropy bonus halved.",
    )
    for method in (TRPO, NPG)
)


def _trust_region(
    method, env, source, horizon=256, gamma=0.99, gae_lambda=0.95, max_kl=0.02, networks=None, **settings
):
    """What TRPO and NPG share on MuJoCo: 4 environments, statistics of observations and, mostly, of rewards."""
    return Preset(
        method,
        env,
        total_steps=1_000_000,
        num_envs=4,
        settings=lambda: {
            "horizon": horizon,
            "gamma": gamma,
            "estimator": GAE(gae_lambda),
            "max_kl": max_kl,
            "reward_scaling": True,
            "networks": Networks(normalize_observations=True, **(networks or {})),
            **settings,
        },
        optimizer=_adam_critic,
        source="Normalisation and the critic's rate of 1e-3: Tianshou's examples/mujoco. " + source,
    )


_NARROW_RELU = {"activation": "relu", "head": NarrowGaussian}
_ELSE = "1,024 steps: there, too. δ twice its 0.01: ours."
_AS_PPO = _ELSE + " Discount, λ, first deviation and ReLU: as PPO_HALF_CHEETAH."
_CALMS_DOWN = (
    "1,024 steps: there, too. δ from 0.03 and the critic's rate falling to 0, since late in training a step too many "
    "made some seeds stumble: ours, measured."
)
_FALLS_LATE = _ELSE + " γ and λ: as PPO_HOPPER."
_SWIMMER = (
    "4,096 steps, δ 0.04, a far sight, since a stroke pays late, and an entropy bonus, without which some seeds swim "
    "half as fast: ours, measured."
)
_BALANCE = (
    "4,096 steps, γ 0.97, δ and the critic's rate falling to 0, since one late fall loses all, and rewards clipped to "
    "1 in place of scaled: ours, measured."
)

TRPO_HALF_CHEETAH, NPG_HALF_CHEETAH = (
    _trust_region(method, "HalfCheetah-v5", _AS_PPO, gamma=0.98, gae_lambda=0.92, networks=_NARROW_RELU)
    for method in (TRPO, NPG)
)
TRPO_HOPPER, NPG_HOPPER = (
    _trust_region(method, "Hopper-v5", _FALLS_LATE, gamma=0.995, gae_lambda=0.97) for method in (TRPO, NPG)
)
TRPO_WALKER = _trust_region(TRPO, "Walker2d-v5", _CALMS_DOWN, max_kl=_falling(0.03, 976), anneal_learning_rate=True)
NPG_WALKER = _trust_region(NPG, "Walker2d-v5", _ELSE)
TRPO_SWIMMER, NPG_SWIMMER = (
    _trust_region(
        method, "Swimmer-v5", _SWIMMER, horizon=1024, gamma=0.999, gae_lambda=0.98, max_kl=0.04, entropy_coef=0.01
    )
    for method in (TRPO, NPG)
)
TRPO_INVERTED_DOUBLE_PENDULUM, NPG_INVERTED_DOUBLE_PENDULUM = (
    _trust_region(
        method,
        "InvertedDoublePendulum-v5",
        _BALANCE,
        horizon=1024,
        gamma=0.97,
        max_kl=_falling(0.02, 244),
        reward_scaling=False,
        reward_clip=1.0,
        anneal_learning_rate=True,
    )
    for method in (TRPO, NPG)
)

# Every preset by its name.
ALL = {name: value for name, value in list(globals().items()) if isinstance(value, Preset)}
