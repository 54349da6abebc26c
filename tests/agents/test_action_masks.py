"""What an environment forbids is never done, learned from, evaluated or exported."""

import gymnasium as gym
import keras
import numpy as np
import pytest
import tensorflow as tf
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv

import kerasrl_pg as pg
from kerasrl_pg.envs import CompiledEnv, Transition

CHOICES = 4
NETWORKS = pg.Networks((8,))
AGENTS = {
    "reinforce": lambda **kw: pg.REINFORCE(horizon=20, **kw),
    "a2c": pg.A2C,
    "constrained": lambda **kw: pg.ConstrainedGradient(horizon=16, minibatch_size=32, **kw),
    "npg": lambda **kw: pg.NPG(horizon=16, minibatch_size=32, **kw),
    "trpo": lambda **kw: pg.TRPO(horizon=16, minibatch_size=32, **kw),
    "ppo_penalty": lambda **kw: pg.PPOPenalty(horizon=16, minibatch_size=32, update_epochs=2, **kw),
    "ppo": lambda **kw: pg.PPO(horizon=16, minibatch_size=32, update_epochs=2, **kw),
}
# Every agent in a graph; in the other two modes PPO, and the rest by `make slow`.
MATRIX = [
    pytest.param(name, mode, marks=() if mode == "graph" or name == "ppo" else pytest.mark.slow)
    for name in AGENTS
    for mode in ("eager", "graph", "xla")
]
MODES = {"eager": {"run_eagerly": True}, "graph": {"jit_compile": False}, "xla": {"jit_compile": True}}


class Forbidding(gym.Env):
    """At most half of four actions are allowed; an illegal one is an error. The reward is the action."""

    observation_space, action_space = gym.spaces.Box(-1, 1, (3,)), gym.spaces.Discrete(CHOICES, start=1)
    length = 9

    def next(self):
        self.mask = np.zeros(CHOICES, np.int8)
        self.mask[self.np_random.choice(CHOICES, 2)] = 1
        return self.np_random.uniform(-1, 1, 3).astype("float32"), {"action_mask": self.mask}

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t = 0
        return self.next()

    def step(self, action):
        if not self.mask[action - 1]:
            raise RuntimeError(f"{action} is illegal under {self.mask}")
        self.t += 1
        observation, info = self.next()
        return observation, float(action), False, self.t == self.length, info


class InObservation(Forbidding):
    observation_space = gym.spaces.Dict(place=Forbidding.observation_space, action_mask=gym.spaces.MultiBinary(CHOICES))

    def next(self):
        observation, _ = super().next()
        return {"place": observation, "action_mask": self.mask}, {}


class Compiled(CompiledEnv):
    """Two of three actions, by the state; an illegal one costs a thousand."""

    observation_space, action_space = gym.spaces.Box(0, 1, (1,)), gym.spaces.Discrete(3)
    reset_noise = step_noise = 1

    def reset(self, noise):
        return noise

    def observe(self, state):
        return state

    def action_masks(self, state):
        return tf.range(3) != tf.cast(3.0 * state, tf.int32)

    def step(self, state, actions, noise):
        legal = tf.gather(self.action_masks(state), tf.cast(actions, tf.int32), batch_dims=1)
        return Transition(noise, tf.where(legal, tf.cast(actions, tf.float32), -1000.0), noise[:, 0] < 0.1)


def made(name="ppo", mode="graph", **kwargs):
    agent = AGENTS[name](networks=NETWORKS, seed=0, **kwargs)
    agent.compile(**MODES[mode])
    return agent


def vector(kind, mode):
    return kind([Forbidding] * 4, autoreset_mode=mode)


@pytest.mark.parametrize("name, mode", MATRIX)
@pytest.mark.quick("ppo-graph")
def test_no_agent_does_what_is_forbidden(name, mode):
    agent = made(name, mode)
    history = agent.fit(Forbidding, num_envs=4, epochs=2, steps_per_epoch=1, verbose=0).history
    assert np.isfinite(history["loss"]).all() and history["entropy"][0] <= np.log(2) + 1e-5


@pytest.mark.parametrize("env", [Forbidding, InObservation])
@pytest.mark.quick("Forbidding")
def test_no_evaluation_does_what_is_forbidden(env):
    agent = made()
    agent.fit(env, num_envs=4, epochs=2, steps_per_epoch=1, verbose=0)
    for deterministic in (True, False):
        assert agent.evaluate(env, episodes=5, deterministic=deterministic)["length"] == Forbidding.length


@pytest.mark.parametrize("mode", [AutoresetMode.DISABLED, AutoresetMode.NEXT_STEP, AutoresetMode.SAME_STEP])
@pytest.mark.parametrize("kind", [SyncVectorEnv, AsyncVectorEnv])
@pytest.mark.quick("SyncVectorEnv-AutoresetMode.NEXT_STEP", "AsyncVectorEnv-AutoresetMode.SAME_STEP")
def test_masks_follow_every_way_of_resetting(kind, mode):
    agent = made("a2c")
    env = vector(kind, mode)
    try:
        agent.fit(env, epochs=1, steps_per_epoch=10, verbose=0)  # Episodes end at 9 steps, rollouts at 5.
        assert agent.evaluate(env, episodes=8)["length"] == Forbidding.length
    finally:
        env.close()


def test_the_ratio_is_one_before_the_first_step():
    seen = {}

    class Watching(pg.PPO):
        def loss(self, samples):
            loss, logs = super().loss(samples)
            seen.setdefault("kl", logs["kl"])
            return loss, logs

    agent = Watching(horizon=16, minibatch_size=64, update_epochs=1, networks=NETWORKS, seed=0)
    agent.compile(run_eagerly=True)
    agent.fit(Forbidding, num_envs=4, epochs=1, steps_per_epoch=1, verbose=0)
    assert abs(float(seen["kl"])) < 1e-10


@pytest.mark.parametrize("name", ["a2c", *(pytest.param(name, marks=pytest.mark.slow) for name in ("ppo", "trpo"))])
def test_compiled_environments_say_it_by_their_state(name):
    agent = made(name, "xla")
    env = Compiled(num_envs=4, max_episode_steps=10)
    history = agent.fit(env, epochs=2, steps_per_epoch=4, verbose=0).history
    assert history["episode_return"][-1] >= 0.0 and history["entropy"][0] <= np.log(2) + 1e-5
    for deterministic in (True, False):
        assert agent.evaluate(env, episodes=20, deterministic=deterministic)["return_min"] >= 0.0


def test_acting_obeys_and_wants_to_be_told(tmp_path):
    agent = made()
    agent.fit(Forbidding, num_envs=4, epochs=1, steps_per_epoch=1, verbose=0)
    agent.save(tmp_path / "agent.keras")
    rows = np.random.default_rng(0).uniform(-1, 1, (20, 3)).astype("float32")
    for one in (agent, keras.models.load_model(tmp_path / "agent.keras")):
        assert one.action_masks == "info"
        for mask in np.eye(CHOICES, dtype=np.int8):
            only = 1 + int(mask.argmax())
            assert one.act(rows[0], action_mask=mask) == only
            assert one.act(rows[0], deterministic=False, action_mask=mask) == only
            assert (one.act(rows, action_mask=np.tile(mask, (20, 1))) == only).all()
        with pytest.raises(ValueError, match="`action_mask` must be given, since the agent was trained"):
            one.act(rows[0])
        with pytest.raises(ValueError, match="`action_mask` must allow something. Received: none for observation 0"):
            one.act(rows[0], action_mask=np.zeros(CHOICES, np.int8))


@pytest.mark.parametrize("env", [Forbidding, pytest.param(InObservation, marks=pytest.mark.slow)])
def test_the_exported_policy_obeys(env, tmp_path):
    agent = made()
    agent.fit(env, num_envs=4, epochs=1, steps_per_epoch=1, verbose=0)
    served = tf.saved_model.load(agent.export(str(tmp_path / "1"), verify=False)).signatures
    rng = np.random.default_rng(0)
    masks = rng.random((200, CHOICES)) < 0.4
    masks[np.arange(200), rng.integers(CHOICES, size=200)] = True
    rows = tf.constant(rng.uniform(-1, 1, (200, 3)), tf.float32)
    if env is Forbidding:
        given = {"observation": rows, "action_mask": tf.constant(masks)}
    else:
        given = {"place": rows, "action_mask": tf.constant(masks, tf.float32)}
    for actions in (
        served["serving_default"](**given)["action"],
        served["sample"](**given, seed=tf.constant([0, 1]))["action"],
    ):
        assert masks[np.arange(200), actions.numpy() - 1].all()


def test_a_leaf_is_a_mask_by_its_name_or_as_the_user_says():
    class Named(InObservation):
        observation_space = gym.spaces.Dict(
            place=Forbidding.observation_space, legal=gym.spaces.Box(0, 1, (CHOICES,), np.int8)
        )

        def next(self):
            observation, info = super().next()
            return {"place": observation["place"], "legal": observation["action_mask"]}, info

    agent = made(action_masks="legal")
    agent.fit(Named, num_envs=4, epochs=1, steps_per_epoch=1, verbose=0)
    again = type(agent).from_config(agent.get_config())
    assert again.action_masks == again.actor_critic.mask_key == "legal"
    with pytest.raises(
        ValueError, match="`action_masks` must be 'info', or name a leaf .* Received: action_masks='no'"
    ):
        made(action_masks="no").fit(Named, num_envs=4, epochs=1, steps_per_epoch=1, verbose=0)
    with pytest.raises(TypeError, match="`action_masks` must be None, 'info', or the name"):
        pg.PPO(action_masks=True)


@pytest.mark.parametrize("env", [Forbidding, InObservation])
def test_where_nothing_is_allowed_is_said(env):
    class Stuck(env):
        def next(self):
            observation, info = super().next()
            if self.t == 5:
                self.mask[:] = 0
            return observation, info

    sentence = "An action mask must allow something. Received: a mask of zeros from environment 0 in step 5 of the "
    with pytest.raises(ValueError, match=sentence + "rollout"):
        made().fit(Stuck, num_envs=2, epochs=1, steps_per_epoch=1, verbose=0)
    agent = made()
    agent.bind(env.observation_space, env.action_space)
    with pytest.raises(ValueError, match=sentence + "evaluation"):
        agent.evaluate(Stuck, episodes=2)


def test_wrong_masks_are_refused_by_environment_and_step():
    class Wrong(Forbidding):
        def next(self):
            observation, info = super().next()
            return observation, {"action_mask": np.ones(3, np.int8)} if self.t == 2 else info

    class Forgets(Forbidding):
        def next(self):
            observation, info = super().next()
            return observation, {} if self.t == 2 else info

    with pytest.raises(ValueError, match="from environment 0 after step 1 since"):
        made().fit(Wrong, num_envs=2, epochs=1, steps_per_epoch=1, verbose=0)
    with pytest.raises(
        ValueError, match="must be given with every observation. Received: none from environment 0 after"
    ):
        made().fit(Forgets, num_envs=2, epochs=1, steps_per_epoch=1, verbose=0)


def test_a_head_without_masks_says_so():
    class Force(Forbidding):
        action_space = gym.spaces.Box(-1, 1, (2,))

        def step(self, action):
            return super().step(1 + int(self.mask.argmax()))

    with pytest.raises(ValueError, match="must be left out where the policy's head takes no masks"):
        made().fit(Force, num_envs=2, epochs=1, steps_per_epoch=1, verbose=0)


class Terminal(Forbidding):
    """Nothing is allowed any more when an episode has ended, and nothing is said of it in the last info."""

    def __init__(self, says=True):
        self.says = says

    def step(self, action):
        observation, reward, _, over, info = super().step(action)
        info = {"action_mask": 0 * self.mask} if self.says else {}
        return observation, reward, over, False, info if over else {"action_mask": self.mask}


@pytest.mark.parametrize("says", [True, False])
@pytest.mark.parametrize("kwargs", [{}, {"autoreset_mode": AutoresetMode.NEXT_STEP}], ids=["own", "next_step"])
@pytest.mark.quick("own-True", "next_step-False")
def test_where_no_action_is_taken_no_mask_is_needed(kwargs, says):
    makers = [lambda: Terminal(says)] * 2
    env = AsyncVectorEnv(makers, shared_memory=False, **kwargs) if kwargs else makers[0]
    agent = made("a2c")
    try:
        agent.fit(env, epochs=1, steps_per_epoch=6, verbose=0)
        assert agent.evaluate(env, episodes=4)["length"] == Forbidding.length
    finally:
        if kwargs:
            env.close()


def test_masks_that_come_and_go_between_environments():
    class Free(Forbidding):
        def next(self):
            observation, _ = super().next()
            self.mask[:] = 1
            return observation, {}

    class StepsOnly(Forbidding):
        def reset(self, *, seed=None, options=None):
            observation, _ = super().reset(seed=seed)
            self.mask[:] = 1
            return observation, {}

    once = {"num_envs": 2, "epochs": 1, "steps_per_epoch": 1, "verbose": 0}
    agent = made("a2c")
    agent.fit(Free, **once)
    assert agent.evaluate(Forbidding, episodes=2)["length"] == Forbidding.length  # Obeyed, and nothing learnt of it.
    assert agent.action_masks is None
    agent.fit(Free, **once)
    agent.fit(Forbidding, **once)
    assert agent.action_masks == "info"
    for play in (lambda: agent.fit(Free, **once), lambda: agent.evaluate(Free, episodes=2)):
        with pytest.raises(ValueError, match="must be given by the environment, since action_masks='info'"):
            play()
    with pytest.raises(ValueError, match="Received: one from `step`, but none from `reset`"):
        made("a2c").fit(StepsOnly, **once)
    with pytest.raises(ValueError, match="`predict` must be of an agent whose observations say"):
        agent.predict(np.zeros((2, 3), np.float32), verbose=0)
    with pytest.raises(ValueError, match="`action_masks` must be given when A2C is made"):
        agent.action_masks = "legal"


class Odd(Compiled):
    """Allows nothing in some states."""

    def action_masks(self, state):
        return tf.logical_and(super().action_masks(state), state < 0.5)


class Narrow(Compiled):
    def action_masks(self, state):
        return super().action_masks(state)[:, :2]


def test_compiled_masks_are_judged_too(tmp_path):
    agent = made("a2c")
    once = {"epochs": 1, "steps_per_epoch": 1, "verbose": 0}
    agent.fit(Compiled(num_envs=2, max_episode_steps=10), **once)
    assert agent.action_masks == "info"
    with pytest.raises(ValueError, match="a mask of zeros from environment . in step . of the rollout"):
        made("a2c").fit(Odd(num_envs=4, max_episode_steps=10), **once)
    with pytest.raises(ValueError, match=r"with 3 entries.*: shape \(2, 2\) of bool.*what `action_masks` of Narrow"):
        made("a2c").fit(Narrow(num_envs=2, max_episode_steps=10), **once)


def test_the_mean_gradient_under_masks_is_the_exact_one():
    """Over all legal ways through two steps of three actions, against differences of J in float64."""
    rng = np.random.default_rng(0)
    logits, rewards = rng.normal(size=(2, 3)).astype("float32"), rng.normal(size=(2, 3)).astype("float32")
    allowed, gamma = np.array([[True, False, True], [False, True, True]]), 0.7
    inputs = keras.Input((), dtype="int32")
    head = pg.heads.Categorical(3)
    agent = pg.REINFORCE(
        keras.Model(inputs, head(keras.ops.one_hot(inputs, 3))), gamma=gamma, horizon=2, discounted_gradient=True
    )
    agent.compile(keras.optimizers.SGD(1.0))
    agent.bind(gym.spaces.Discrete(3), gym.spaces.Discrete(3))
    head.dense.kernel.assign(np.concatenate([logits, np.zeros((1, 3), "float32")]))

    def policy(z):
        weights = np.where(allowed, np.exp(z.astype("float64")), 0.0)
        return weights / weights.sum(1, keepdims=True)

    def value(z):
        return (policy(z) * rewards * gamma ** np.arange(2)[:, None]).sum()

    expected = np.zeros((2, 3))
    for place in np.ndindex(2, 3):
        step = np.zeros((2, 3))
        step[place] = 1e-5
        expected[place] = (value(logits + step) - value(logits - step)) / 2e-5
    mean, p = np.zeros((3, 3)), policy(logits)
    for ways in np.ndindex(3, 3):
        if not (allowed[0, ways[0]] and allowed[1, ways[1]]):
            continue
        actions, zeros, no = np.array(ways, np.int32)[:, None], np.zeros((2, 1), "float32"), np.zeros((2, 1), bool)
        states = np.arange(2, dtype=np.int32)[:, None]
        rollout = pg.rollouts.Rollout(
            pg.rollouts.Inputs(states, allowed[:, None]), actions, zeros, rewards[states, actions],
            np.array([[False], [True]]), no, pg.rollouts.Inputs(states + 1), ~no,
        )  # fmt: skip
        gradients = agent.gradients(rollout)[0]["networks"]
        (kernel,) = (g for g in gradients if g.shape == (3, 3))
        mean -= p[0, ways[0]] * p[1, ways[1]] * kernel.numpy()
    np.testing.assert_allclose(mean[:2], expected, atol=1e-5)
    assert (mean[:2][~allowed] == 0.0).all() and np.abs(mean[:2]).max() > 0.01


class Pair(CompiledEnv):
    """One of two states, one step; of a pair of choices the state forbids one of the first, the second is free."""

    observation_space = gym.spaces.Discrete(2)
    action_space = gym.spaces.Dict(second=gym.spaces.Discrete(2), first=gym.spaces.Discrete(3))
    reset_noise = 1
    rewards = np.random.default_rng(3).normal(size=(2, 3, 2)).astype("float32")
    allowed = np.array([[True, False, True], [False, True, True]])

    def reset(self, noise):
        return tf.cast(noise[:, 0] < 0.3, tf.int32)

    def observe(self, state):
        return state

    def action_masks(self, state):
        return {"first": tf.gather(self.allowed, state), "second": None}

    def step(self, state, actions, noise):
        places = tf.stack([state, tf.cast(actions["first"], tf.int32), tf.cast(actions["second"], tf.int32)], -1)
        return Transition(state, tf.gather_nd(self.rewards, places), tf.ones_like(state, tf.bool))


def test_the_gradient_of_composites_under_masks_is_the_exact_one_within_its_error():
    """As compiled environments are played, against differences of J in float64."""
    rng, rollouts = np.random.default_rng(0), []

    class Keeping(pg.REINFORCE):
        def train_step(self, rollout):
            rollouts.append(rollout)
            return super().train_step(rollout)

    inputs = keras.Input((), dtype="int32")
    head = pg.heads.Composite({"first": pg.heads.Categorical(3), "second": pg.heads.Categorical(2)})
    agent = Keeping(keras.Model(inputs, head(keras.ops.one_hot(inputs, 2))), horizon=1, seed=0)
    agent.compile(keras.optimizers.SGD(0.0), run_eagerly=True)
    logits = {name: rng.normal(size=(2, n)) for name, n in (("first", 3), ("second", 2))}
    for name, z in logits.items():
        head.heads[name].dense.kernel.assign(z)
    agent.fit(Pair(num_envs=400_000, max_episode_steps=1), epochs=1, steps_per_epoch=1, verbose=0)
    assert rollouts[0].inputs.masks.shape == (1, 400_000, 5)

    def value(z):
        first, second = np.where(Pair.allowed, np.exp(z["first"]), 0.0), np.exp(z["second"])
        first, second = first / first.sum(1, keepdims=True), second / second.sum(1, keepdims=True)
        return [0.7, 0.3] @ np.einsum("sa,sb,sab->s", first, second, Pair.rewards.astype("float64"))

    found = {tuple(g.shape): -g.numpy() for g in agent.gradients(rollouts[0])[0]["networks"]}
    for name, z in logits.items():
        expected = np.zeros_like(z)
        for place in np.ndindex(*z.shape):
            step = np.zeros_like(z)
            step[place] = 1e-5
            up, down = ({**logits, name: z + sign * step} for sign in (1, -1))
            expected[place] = (value(up) - value(down)) / 2e-5
        np.testing.assert_allclose(found[z.shape], expected, atol=0.006)  # Five standard errors of 0.0012 at most.
        assert np.abs(expected).max() > 0.05
    assert (found[2, 3][~Pair.allowed] == 0.0).all()


@pytest.mark.parametrize(
    "leaf",
    [gym.spaces.MultiBinary(CHOICES + 1), gym.spaces.Box(0, 1, (CHOICES,))],
    ids=["of another size", "of floats"],
)
def test_a_leaf_called_action_mask_that_is_none_is_refused(leaf):
    """It would be an ordinary observation in silence, as it is where it is said to be none."""
    observations = gym.spaces.Dict(place=Forbidding.observation_space, action_mask=leaf)
    with pytest.raises(ValueError, match="Its leaf `action_mask` is none: say action_masks='info' if it is not meant"):
        made().bind(observations, gym.spaces.Discrete(CHOICES))
    agent = made(action_masks="info")
    agent.bind(observations, gym.spaces.Discrete(CHOICES))
    assert agent.actor_critic.mask_key is None
    continuous = made()  # A head without masks has no use for one.
    continuous.bind(observations, gym.spaces.Box(-1.0, 1.0, (2,)))
    assert continuous.actor_critic.mask_key is None
