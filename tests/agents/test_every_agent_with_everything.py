"""Memory, masks and composite actions, together and alone, in every agent that the library has and in every mode."""

import inspect

import gymnasium as gym
import keras
import numpy as np
import pytest
import tensorflow as tf

import kerasrl_pg as pg
from kerasrl_pg.agents.search import Search
from kerasrl_pg.agents.stored import FromStored
from kerasrl_pg.envs import CompiledEnv, Transition

BATCHES = {"horizon": 6, "minibatch_size": 12}
AGENTS = {
    "REINFORCE": {"horizon": 6, "baseline": pg.baselines.ValueFunction()},
    "A2C": {"horizon": 6},
    "A3C": {"horizon": 6},
    "ConstrainedGradient": BATCHES,
    "NPG": {**BATCHES, "fisher_fraction": 0.5, "cg_iterations": 3},
    "TRPO": BATCHES,
    "PPOPenalty": {**BATCHES, "update_epochs": 2},
    "PPO": {**BATCHES, "update_epochs": 2},
    "ImportanceSampling": {"episodes": 8},
    "BehaviorCloning": {"episodes": 8},
    "HillClimbing": {"population_size": 4},
    "SimulatedAnnealing": {"population_size": 4, "temperature": 0.1},
    "EvolutionStrategies": {"population_size": 4},
}
MODES = {"eager": {"run_eagerly": True}, "graph": {"jit_compile": False}, "xla": {"jit_compile": True}}
S = gym.spaces


class Steps(CompiledEnv):
    """Random observations; episodes end by themselves or at 5 steps, and what pays is seen in the observation."""

    observation_space, action_space = S.Box(-1, 1, (2,)), S.Discrete(3)
    reset_noise, step_noise = 2, 3

    def reset(self, noise):
        return 2.0 * noise - 1.0

    def observe(self, state):
        return state

    def choice(self, actions):
        return actions

    def step(self, state, actions, noise):
        rewards = tf.cast(self.choice(actions), tf.float32) * state[:, 0]
        return Transition(2.0 * noise[:, :2] - 1.0, rewards, noise[:, 2] < 0.1)


class Masked(Steps):
    """Allows two of the three, by the state; whoever takes the third pays for it."""

    def allowed(self, state):
        return tf.range(3) != tf.cast(state[:, 1:] > 0.0, tf.int32)

    def action_masks(self, state):
        return self.allowed(state)

    def step(self, state, actions, noise):
        legal = tf.gather(self.allowed(state), self.choice(actions), batch_dims=1)
        after = super().step(state, actions, noise)
        return after._replace(rewards=tf.where(legal, after.rewards, -1000.0))


PARTS = S.Dict(move=S.Discrete(3), arm=S.Tuple((S.Box(-1, 1, (2,), np.float32), S.MultiDiscrete([2, 2]))))


class Composite(Steps):
    """The same choice beside others, in a Dict."""

    action_space = PARTS

    def choice(self, actions):
        return actions["move"]


class Together(Composite, Masked):
    def action_masks(self, state):
        return {"move": self.allowed(state)}


KINDS = {
    "memory": (Steps, True),
    "masks": (Masked, False),
    "composite": (Composite, False),
    "together": (Together, True),
}


def made(name, mode, kind):
    env, remembers = KINDS[kind]
    networks = pg.Networks((6,), memory=pg.models.GRU(4) if remembers else None)
    masks = "info" if issubclass(env, Masked) else None
    agent = getattr(pg, name)(networks=networks, action_masks=masks, seed=3, **AGENTS[name])
    rule_of_its_own = agent.default_optimizer() is None
    agent.compile(None if rule_of_its_own else keras.optimizers.Adam(1e-2), **MODES[mode])
    return agent


def world(kind):
    return KINDS[kind][0](num_envs=4, max_episode_steps=5)


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    """A dataset of each kind, by a policy of the same networks."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MINARI_DATASETS_PATH", str(tmp_path_factory.mktemp("datasets")))
        found = {}

        def get(kind):
            if kind not in found:
                acted = made("A2C", "graph", kind)
                found[kind] = pg.data.record(acted, world(kind), f"{kind}/acted-v0", episodes=16)
            return found[kind]

        yield get


def test_every_agent_is_here():
    ours = {name for name in dir(pg) if inspect.isclass(c := getattr(pg, name)) and issubclass(c, pg.Agent)}
    assert ours - {"Agent"} == set(AGENTS)


class Keeping(pg.A2C):
    """Keeps what it was given."""

    def train_step(self, rollout):
        vars(self).setdefault("seen", []).append(rollout)
        return super().train_step(rollout)


def played(kind):
    """Two rollouts."""
    agent = Keeping.from_config(made("A2C", "eager", kind).get_config())
    agent.compile(run_eagerly=True)
    agent.fit(world(kind), epochs=1, steps_per_epoch=2, verbose=0)
    return vars(agent)["seen"]


def flat(agent):
    return np.concatenate([w.numpy().ravel() for w in agent.network_variables])


def fitted(name, mode, kind, recorded):
    """The agent after two iterations, how far its weights moved at most, and what was logged."""
    agent, env = made(name, mode, kind), world(kind)
    agent.bind(env.observation_space, env.action_space)
    before = flat(agent)
    if name == "A3C":  # What a worker sends is learned from here; tests/workers ask how workers play.
        logs = [agent.train_on(rollout) for rollout in played(kind)][-1]
    else:
        source = recorded(kind) if isinstance(agent, FromStored) else env
        history = agent.fit(source, epochs=1, steps_per_epoch=2, verbose=0).history
        logs = {key: values[-1] for key, values in history.items()}
    return agent, np.abs(flat(agent) - before).max(), logs


def check(name, mode, kind, recorded):
    agent, moved, logs = fitted(name, mode, kind, recorded)
    recurrent = [v for v in agent.network_variables if "recurrent_kernel" in v.path]
    assert bool(recurrent) == KINDS[kind][1] and agent.actor_critic.policy_memory_size == 4 * bool(recurrent)
    assert moved > 1e-4 and all(np.isfinite(value) for value in logs.values())
    if agent.action_masks:  # What is forbidden costs a thousand.
        assert agent.evaluate(world(kind), episodes=8, deterministic=False)["return_min"] > -10.0
        assert min((value for key, value in logs.items() if "return" in key), default=0.0) > -10.0
    return agent, moved


FEW = ("A2C", "ImportanceSampling", "EvolutionStrategies")  # One of each base; the rest by `make slow`.


@pytest.mark.parametrize("name", [n if n in FEW else pytest.param(n, marks=pytest.mark.slow) for n in AGENTS])
def test_it_learns_obeys_and_says_what_it_does(name, recorded):
    check(name, "graph", "together", recorded)


# Alone, those that no other test of the kind has in all modes: tests/agents/test_memory, _action_masks, _composite.
ALONE = ("A3C", *(name for name in AGENTS if issubclass(getattr(pg, name), (FromStored, Search))))


@pytest.mark.slow
@pytest.mark.parametrize("name, kind", [(n, k) for n in AGENTS for k in KINDS if k == "together" or n in ALONE])
def test_eager_graph_and_xla_agree(name, kind, recorded):
    (graph, moved), *others = (check(name, mode, kind, recorded) for mode in ("graph", "eager", "xla"))
    for other, _ in others:
        np.testing.assert_allclose(flat(other), flat(graph), atol=min(2e-4, 0.1 * moved))
