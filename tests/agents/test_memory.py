"""Policies that remember: every agent, every kind of environment, every mode, against episodes replayed from their
first step."""

import gymnasium as gym
import keras
import numpy as np
import pytest
import tensorflow as tf
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv

import kerasrl_pg as pg
from kerasrl_pg import ops
from kerasrl_pg.envs import CompiledEnv, Transition
from kerasrl_pg.models import GRU, History, recall
from kerasrl_pg.rollouts.records import Inputs, rows_of

NETWORKS = pg.Networks((6,), memory=GRU(5))
CONSERVATIVE = {"horizon": 6, "minibatch_size": 12, "update_epochs": 2}
AGENTS = {
    "reinforce": lambda **kw: pg.REINFORCE(horizon=6, **kw),
    "reinforce_value": lambda **kw: pg.REINFORCE(horizon=6, baseline=pg.baselines.ValueFunction(), **kw),
    "a2c": lambda **kw: pg.A2C(horizon=8, **kw),
    "constrained": lambda **kw: pg.ConstrainedGradient(**{**CONSERVATIVE, **kw}),
    "npg": lambda **kw: pg.NPG(**{**CONSERVATIVE, "fisher_fraction": 0.5, "cg_iterations": 3, **kw}),
    "trpo": lambda **kw: pg.TRPO(**{**CONSERVATIVE, **kw}),
    "ppo_penalty": lambda **kw: pg.PPOPenalty(**{**CONSERVATIVE, **kw}),
    "ppo": lambda **kw: pg.PPO(**{**CONSERVATIVE, **kw}),
}
MODES = {"eager": {"run_eagerly": True}, "graph": {"jit_compile": False}, "xla": {"jit_compile": True}}


class Episodes(gym.Env):
    """Random observations; episodes of 2 to 5 steps, terminated and truncated by turns."""

    observation_space, action_space = gym.spaces.Box(-1, 1, (3,)), gym.spaces.Discrete(2)

    def __init__(self):
        self.number = -1

    def observe(self):
        return self.np_random.uniform(-1, 1, 3).astype("float32")

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t, self.number = 0, self.number + 1
        self.length = int(self.np_random.integers(2, 6))
        return self.observe(), {}

    def step(self, action):
        self.t += 1
        ended, odd = self.t == self.length, bool(self.number % 2)
        return self.observe(), float(action), ended and odd, ended and not odd, {}


class Compiled(CompiledEnv):
    """The same, compiled; the state is the observation."""

    observation_space, action_space = Episodes.observation_space, Episodes.action_space
    reset_noise, step_noise = 3, 5

    def reset(self, noise):
        return 2.0 * noise - 1.0

    def observe(self, state):
        return state

    def step(self, state, actions, noise):
        rewards = tf.cast(actions, tf.float32)
        return Transition(2.0 * noise[:, :3] - 1.0, rewards, noise[:, 3] < 0.2, noise[:, 4] < 0.2)


class Recording(pg.PPO):
    """Keeps the rollouts it was given, and never moves."""

    def train_step(self, rollout):
        self.seen.append(tf.nest.map_structure(lambda x: x.numpy(), rollout))
        return super().train_step(rollout)


def recorded(env, networks=NETWORKS, iterations=4, horizon=7):
    agent = Recording(horizon=horizon, minibatch_size=horizon, networks=networks, seed=1, update_epochs=1)
    vars(agent)["seen"] = []
    agent.compile(keras.optimizers.SGD(0.0), run_eagerly=True)
    agent.fit(env, epochs=1, steps_per_epoch=iterations, verbose=0)
    return agent, vars(agent)["seen"]


def replayed(agent, seen):
    """For each valid row, the log-probability of its action and the values of it and of what follows, from one run over
    its whole episode's observations, begun with nothing remembered; and how many episodes there were."""
    networks, rows, episodes = agent.actor_critic, [], 0

    def call(observations):
        x = np.stack(observations)
        starts = [True] + [False] * (len(x) - 1)
        memory = np.zeros((1, networks.memory_size), "float32")
        run = networks.shared or (lambda x: {"policy": networks.policy(x), "value": networks.critic(x)})
        return recall(lambda: run(x), networks.memories, memory, starts, len(x))[0]

    for n in range(seen[0].valid.shape[1]):
        steps = [(k, t) for k, rollout in enumerate(seen) for t in range(len(rollout.valid)) if rollout.valid[t, n]]
        ends = [i for i, (k, t) in enumerate(steps) if seen[k].terminated[t, n] or seen[k].truncated[t, n]]
        episodes += len(ends)
        for first, last in zip([0, *(i + 1 for i in ends)], [*ends, len(steps) - 1], strict=True):
            episode = steps[first : last + 1]
            if not episode:
                continue
            observations = [seen[k].inputs.observations[t, n] for k, t in episode]
            followers = [seen[k].next_inputs.observations[t, n] for k, t in episode]
            assert np.array_equal(observations[1:], followers[:-1])
            outputs = call([*observations, followers[-1]])
            values = outputs["value"].mean()
            actions = np.array([seen[k].actions[t, n] for k, t in episode] + [0], "int32")
            log_probs = outputs["policy"].log_prob(actions)
            rows += [(k, t, n, log_probs[i], values[i], values[i + 1]) for i, (k, t) in enumerate(episode)]
    return rows, episodes


def vectors():
    yield "sync", lambda: SyncVectorEnv([Episodes] * 2, autoreset_mode=AutoresetMode.DISABLED)
    yield "next step", lambda: gym.vector.VectorWrapper(SyncVectorEnv([Episodes] * 2))
    yield "same step", lambda: SyncVectorEnv([Episodes] * 2, autoreset_mode=AutoresetMode.SAME_STEP)
    yield "async", lambda: AsyncVectorEnv([Episodes] * 2, autoreset_mode=AutoresetMode.NEXT_STEP)
    yield "compiled", lambda: Compiled(num_envs=2)


SHARED = pg.Networks((6,), memory=History(3), shared=True)


@pytest.mark.parametrize("networks", [NETWORKS, SHARED], ids=["gru", "shared"])
@pytest.mark.parametrize("make", [pytest.param(make, id=name) for name, make in vectors()])
@pytest.mark.quick("compiled-gru", "async-shared")
def test_what_is_remembered_is_the_episode_and_nothing_else(make, networks):
    env = make()
    agent, seen = recorded(env, networks, iterations=3)
    rows, episodes = replayed(agent, seen)
    assert len(rows) > 30 and episodes > 6
    valued = [(agent.values(rollout.inputs), agent.values(rollout.next_inputs)) for rollout in seen]
    assert any(not rollout.inputs.starts[0].all() for rollout in seen[1:])  # carried over
    for number, t, n, log_prob, value, following in rows:
        rollout = seen[number]
        assert rollout.log_probs[t, n] == pytest.approx(float(log_prob), abs=1e-5)
        values, next_values = valued[number]
        assert float(values[t, n]) == pytest.approx(float(value), abs=1e-5)
        # Of a truncated episode too: after its final observation.
        assert float(next_values[t, n]) == pytest.approx(float(following), abs=1e-5)
    if not isinstance(env, CompiledEnv):
        env.close()


@pytest.mark.parametrize("length", [1, 2, 4, 8])
@pytest.mark.quick("4")
def test_the_ratio_is_one_before_the_first_step(length):
    logs = {}

    class Ratio(pg.PPO):
        def loss(self, samples):
            log_probs = self.forward(samples.inputs)[0].log_prob(samples.actions)
            loss, more = super().loss(samples)
            return loss, {**more, "largest": tf.reduce_max(tf.abs(log_probs - samples.old_log_probs))}

    agent = Ratio(horizon=8, minibatch_size=8, networks=NETWORKS, sequence_length=length, seed=0, update_epochs=1)
    agent.compile(keras.optimizers.SGD(0.0))
    logs = agent.fit(Compiled(num_envs=4), epochs=1, steps_per_epoch=3, verbose=0).history
    assert logs["largest"][0] < 1e-6 and logs["updates"] == [4.0]


def naive(agent, rollout, length):
    """A2C's gradient by a loop over steps and sequences in Python."""
    networks, (horizon, num) = agent.actor_critic, rollout.valid.shape
    samples = agent.samples(rollout)
    advantages, returns, _ = agent.credit(rollout)
    variables = [v.value for v in networks.variables]
    with tf.GradientTape() as tape:
        loss = 0.0
        for n in range(num):
            for t in range(horizon):
                if t % length == 0:
                    memory = rollout.inputs.memory[t, n][None]
                inputs = tf.nest.map_structure(lambda x, t=t, n=n: x[t, n][None], rollout.inputs)
                memory = tf.zeros_like(memory) if rollout.inputs.starts[t, n] else memory
                inputs = inputs._replace(memory=memory)
                distribution, value = networks.forward(inputs)
                memory = networks.step(inputs)[1]
                objective = distribution.log_prob(rollout.actions[t, n][None])[0] * advantages[t, n]
                loss -= objective + agent.entropy_coef * distribution.entropy()[0]
                loss += agent.value_coef * 0.5 * (value.mean()[0] - returns[t, n]) ** 2
        loss /= horizon * num
    return tape.gradient(loss, variables), samples


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("length", [2, 6])
def test_gradients_flow_through_the_steps_of_a_sequence_and_no_further(length, shared):
    networks = pg.Networks((4,), memory=GRU(3), shared=shared)
    agent = pg.A2C(horizon=6, networks=networks, sequence_length=length, seed=0)
    agent.compile()
    agent.bind(Episodes.observation_space, Episodes.action_space)
    for variable in agent.network_variables:  # Heads of 0.01 would hide the rest.
        variable.assign(np.random.default_rng(len(variable.path)).normal(size=variable.shape) * 0.7)
    rng = np.random.default_rng(3)
    shape, size = (6, 2), agent.actor_critic.memory_size

    def some(*rest):
        return rng.normal(size=(*shape, *rest)).astype("float32")

    inputs = Inputs(some(3), starts=rng.random(shape) < 0.3, memory=some(size))
    no = np.zeros(shape, bool)
    following = Inputs(some(3), memory=some(size))
    actions = rng.integers(2, size=shape).astype("int32")
    rollout = pg.rollouts.Rollout(inputs, actions, some(), some(), no, no, following, ~no)
    rollout = tf.nest.map_structure(tf.constant, rollout)
    expected, samples = naive(agent, rollout, length)
    found, _ = agent.gradients(rollout)
    assert samples.inputs.length == length
    for g, e in zip(found["networks"], expected, strict=True):
        np.testing.assert_allclose(g, e, rtol=1e-4, atol=1e-6)


def test_rows_are_sequences_side_by_side():
    steps = tf.reshape(tf.range(12), (6, 2))
    assert rows_of(steps, 3).numpy().tolist() == [0, 2, 4, 1, 3, 5, 6, 8, 10, 7, 9, 11]
    assert rows_of(steps).numpy().tolist() == ops.flatten_time(steps).numpy().tolist()


def fitted(name, mode, env=None, iterations=2, **kwargs):
    agent = AGENTS[name](networks=NETWORKS, seed=3, **kwargs)
    agent.compile(**MODES[mode])
    env = env or Compiled(num_envs=4, max_episode_steps=6)
    agent.fit(env, epochs=1, steps_per_epoch=iterations, num_envs=4, verbose=0)
    return agent


@pytest.mark.parametrize("name", AGENTS)
@pytest.mark.quick("reinforce")
def test_eager_graph_and_xla_agree(name):
    def flat(model):
        return np.concatenate([w.ravel() for w in model.get_weights()])

    agents = {mode: fitted(name, mode, sequence_length=2) for mode in MODES}
    fresh = AGENTS[name](networks=NETWORKS, seed=3)
    fresh.bind(Compiled.observation_space, Compiled.action_space)
    moved = np.abs(flat(agents["graph"].policy) - flat(fresh.policy)).max()
    assert moved > 2e-4
    for mode in ("eager", "xla"):
        np.testing.assert_allclose(flat(agents[mode]), flat(agents["graph"]), atol=min(2e-4, 0.1 * moved))
    assert agents["xla"].programs.latest.experimental_get_tracing_count() == 1


@pytest.mark.slow
@pytest.mark.parametrize("name", AGENTS)
def test_every_agent_trains_on_the_host(name):
    agent = fitted(name, "graph", lambda: gym.wrappers.TimeLimit(Episodes(), 6))
    assert agent.evaluate(Episodes, episodes=3)["episodes"] == 3
    assert agent.programs.latest.experimental_get_tracing_count() == 1


def test_compiled_episodes_are_saved_with_what_is_remembered(tmp_path):
    env = Compiled(num_envs=4)
    whole = fitted("a2c", "graph", env, 4)
    half = fitted("a2c", "graph", env, 2)
    half.save(tmp_path / "half.keras")
    again = keras.models.load_model(tmp_path / "half.keras")
    again.fit(env, epochs=1, steps_per_epoch=2, verbose=0)
    for one, other in zip(whole.network_variables, again.network_variables, strict=True):
        np.testing.assert_array_equal(one, other)


def test_acting_takes_and_gives_the_state(tmp_path):
    agent = fitted("ppo", "graph")
    for variable in agent.network_variables:
        variable.assign(np.random.default_rng(1).normal(size=variable.shape))
    agent.export(tmp_path / "1", verify=False)
    served = tf.saved_model.load(str(tmp_path / "1")).signatures
    x = np.random.default_rng(0).uniform(-1, 1, (5, 3)).astype("float32")
    state, given = None, served["initial_state"](batch_size=tf.constant(1))
    values = given["value_state"]
    for t, observation in enumerate(x):
        action, state = agent.act(observation, state=state)
        given = served["serving_default"](observation=observation[None], state=given["state"])
        answer = served["value"](observation=observation[None], value_state=values)
        values = answer["value_state"]
        np.testing.assert_allclose(given["state"][0], state, atol=1e-5)
        assert action == given["action"].numpy()[0]
        whole = recall(lambda t=t: agent.critic(x[: t + 1]), agent.actor_critic.memories, np.zeros((1, 10), "float32"),
                       [True] + [False] * t, t + 1)[0].mean()  # fmt: skip
        assert float(answer["value"][0]) == pytest.approx(float(whole[-1]), abs=1e-4)
    actions, states = agent.act(np.stack([x[4]] * 2), state=np.stack([state] * 2))
    assert actions.shape == (2,) and states.shape == (2, 5)
    assert not np.allclose(agent.act(x[4])[1], states[0])  # which begins an episode
    sampled = served["sample"](observation=x[:2], state=states, seed=[0, 1])
    assert set(sampled) == {"action", "log_prob", "state"}


class Masked(Compiled):
    def action_masks(self, state):
        return tf.stack([state[:, 0] < 0.5, state[:, 0] > -0.5], -1)

    def step(self, state, actions, noise):
        legal = tf.gather(self.action_masks(state), actions, batch_dims=1)
        after = super().step(state, actions, noise)
        return after._replace(rewards=tf.where(legal, after.rewards, -1000.0))


@pytest.mark.parametrize("name", ["ppo", "trpo"])
@pytest.mark.quick("ppo")
def test_masked_and_recurrent_together(name):
    agent = AGENTS[name](networks=NETWORKS, seed=0)
    agent.compile(jit_compile=False)
    history = agent.fit(Masked(num_envs=4), epochs=1, steps_per_epoch=6, verbose=0).history
    assert history["episode_return"][0] >= 0.0
    assert agent.evaluate(Masked(num_envs=4), episodes=20, deterministic=False)["return_min"] >= 0.0


@pytest.mark.slow
def test_it_learns_what_only_memory_can_tell():
    maze = pg.envs.TMaze(num_envs=32, length=3, max_episode_steps=12)
    settings = {"horizon": 16, "minibatch_size": 128, "update_epochs": 4, "entropy_coef": 0.01}
    results = []
    for memory in (GRU(16), None):
        networks = pg.Networks((16,), memory=memory)
        agent = pg.PPO(**settings, anneal_learning_rate=True, networks=networks, seed=0)
        agent.compile(keras.optimizers.Adam(5e-3))
        agent.fit(maze, total_steps=20_480, epochs=1, verbose=0)
        results.append(agent.evaluate(maze, episodes=200)["return"])
    assert results[0] == 1.0 and results[1] < 0.7


def test_a_critic_may_remember_where_the_policy_does_not():
    inputs = keras.Input((3,))
    policy = keras.Model(inputs, pg.heads.Categorical(2)(keras.layers.Dense(4)(inputs)))
    critic = keras.Model(inputs, pg.heads.NormalValue()(GRU(4)(inputs)))
    agent = pg.A2C(policy, critic, horizon=8, seed=0)
    agent.compile()
    agent.fit(Episodes, epochs=1, steps_per_epoch=2, num_envs=2, verbose=0)
    assert agent.actor_critic.policy_memory_size == 0 and agent.actor_critic.memory_size == 4
    assert agent.act([0.0, 0.0, 0.0]) in (0, 1)  # without a state


def test_settings_and_states_that_mean_nothing_are_refused():
    agent = pg.PPO(sequence_length=4, seed=0)
    with pytest.raises(ValueError, match="`sequence_length` must be None where no network remembers"):
        agent.bind(Episodes.observation_space, Episodes.action_space)
    agent = pg.PPO(horizon=8, minibatch_size=12, networks=NETWORKS, sequence_length=8, seed=0)
    agent.compile()
    with pytest.raises(ValueError, match="`sequence_length` must divide.*=8, 8 steps, minibatch_size=12"):
        agent.fit(Episodes, total_steps=240, num_envs=3, verbose=0)
    with pytest.raises(ValueError, match=r"`state` must be of shape \(5,\). Received: one of shape \(4,\)"):
        agent.act(np.zeros(3), state=np.zeros(4))
    with pytest.raises(ValueError, match="`predict` must be of a policy without memory"):
        agent.predict(np.zeros((2, 3)))
    no = np.zeros((8, 3), bool)
    numbers, inputs = np.zeros((8, 3), "float32"), Inputs(np.zeros((8, 3, 3), "float32"))
    rollout = pg.rollouts.Rollout(inputs, no.astype("int32"), numbers, numbers, no, no, inputs, ~no)
    agent.sequence_length = 4
    with pytest.raises(ValueError, match="`rollout.inputs.memory` must be what the agent's networks remembered"):
        agent.train_on(rollout)
    plain = pg.PPO(seed=0)
    plain.bind(Episodes.observation_space, Episodes.action_space)
    with pytest.raises(ValueError, match="`state` must be None for a policy without memory"):
        plain.act(np.zeros(3), state=np.zeros(4))
