"""`fit` on compiled environments: the same agents, programs of whole iterations, and runs that go on exactly."""

import dataclasses
import subprocess
import sys

import gymnasium as gym
import keras
import numpy as np
import pytest
import tensorflow as tf
from test_all_agents import MAKERS, one_of_each_family, same, slow, weights

import kerasrl_pg as pg
from kerasrl_pg.envs import CompiledEnv, Transition


@dataclasses.dataclass(frozen=True)
class Road(CompiledEnv):
    """Five places in a row, a reward at the right end; starts anywhere but there."""

    num_envs: int = 4
    max_episode_steps: int | None = 12
    observation_space = gym.spaces.Discrete(5)
    action_space = gym.spaces.Discrete(2)
    reset_noise = 1

    def reset(self, noise):
        return tf.cast(4.0 * noise[:, 0], tf.int32)

    def observe(self, state):
        return state

    def step(self, state, actions, noise):
        state = tf.clip_by_value(state + tf.where(actions == 1, 1, -1), 0, 4)
        return Transition(state, tf.cast(state == 4, tf.float32), state == 4)


@dataclasses.dataclass(frozen=True)
class Poisoned(CompiledEnv):
    """Gives NaN once, in step `at` of environment 1's episode."""

    at: int = 5
    where: str = "rewards"
    num_envs: int = 2
    max_episode_steps: int | None = None
    observation_space = gym.spaces.Box(-1.0, 1.0, (1,))
    action_space = gym.spaces.Discrete(2)

    def reset(self, noise):
        return tf.zeros(noise.shape[0], tf.int32)

    def observe(self, state):
        bad = (state == self.at) & (tf.range(self.num_envs) == 1) & (self.where == "observations")
        return tf.where(bad, np.nan, 0.5)[:, None]

    def step(self, state, actions, noise):
        state += 1
        bad = (state == self.at) & (tf.range(self.num_envs) == 1) & (self.where == "rewards")
        return Transition(state, tf.where(bad, np.nan, 0.0), tf.zeros(self.num_envs, tf.bool))


def make(name, compile_kwargs=None, **kwargs):
    agent = MAKERS[name](**kwargs)
    agent.compile(keras.optimizers.Adam(1e-2), **{"jit_compile": False, **(compile_kwargs or {})})
    return agent


def fitted(name, iterations=4, compile_kwargs=None, env=None, **kwargs):
    agent = make(name, compile_kwargs, **kwargs)
    agent.fit(env or Road(), epochs=1, steps_per_epoch=iterations, verbose=0)
    return agent


@pytest.mark.parametrize("name", ["a2c", "ppo", *(pytest.param(n, marks=slow) for n in ("reinforce_value", "trpo"))])
@pytest.mark.slow
def test_steps_per_execution_changes_nothing(name):
    one, three = fitted(name), fitted(name, compile_kwargs={"steps_per_execution": 3})
    assert same(weights(one), weights(three))
    assert int(three.iterations.numpy()) == 4
    if name == "ppo":
        assert not same(weights(one), weights(fitted(name, seed=4)))


@pytest.mark.parametrize(
    ("method", "head"),
    [
        pytest.param(pg.TRPO, pg.heads.Gaussian, marks=slow),
        (pg.PPOPenalty, pg.heads.TanhGaussian),
    ],
)
@pytest.mark.slow
def test_continuous_actions_too(method, head):
    results = []
    for jit in (True, False):
        agent = method(horizon=8, minibatch_size=16, update_epochs=2, networks=pg.Networks((8,), head=head), seed=0)
        agent.compile(keras.optimizers.Adam(1e-2), jit_compile=jit)
        history = agent.fit(pg.envs.Pendulum(num_envs=4), epochs=1, steps_per_epoch=2, verbose=0).history
        assert history.get("rejected", [0.0])[0] < 1.0 and history["kl"][0] > 0.0
        results.append(weights(agent))
    for a, b in zip(*results, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", ["a2c", "trpo", *(pytest.param(n, marks=slow) for n in ("reinforce_value", "ppo"))])
@pytest.mark.slow
def test_eager_graph_and_xla_agree(name):
    """Every agent's update is compared on the host; here, the ways to collect."""
    settings = [{"jit_compile": True}, {"jit_compile": False}]
    if name in ("a2c", "reinforce_value"):
        settings.append({"run_eagerly": True})
    xla, *others = (weights(fitted(name, 1, each)) for each in settings)
    for other in others:
        for a, b in zip(xla, other, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


@one_of_each_family
@pytest.mark.quick("ppo")
def test_one_trace_over_fits_budgets_and_equal_environments(name):
    agent = fitted(name, compile_kwargs={"steps_per_execution": 2})
    agent.fit(Road(), total_steps=400, epochs=2, verbose=0)
    assert agent.programs.latest.experimental_get_tracing_count() == 1
    assert len(agent.programs.made) == 1
    if name != "ppo":
        return
    agent.fit(dataclasses.replace(Road(), max_episode_steps=6), total_steps=400, epochs=2, verbose=0)
    assert len(agent.programs.made) == 2


@pytest.mark.parametrize(
    ("name", "at"),
    [
        ("ppo", 1),
        ("a2c", 3),
        *(pytest.param(name, 3, marks=slow) for name in ("ppo_penalty", "reinforce_value", "trpo")),
    ],
)
@pytest.mark.quick("a2c-3")
def test_a_saved_run_goes_on_bit_for_bit(name, at, tmp_path):
    """Saved in the middle of an epoch, with a falling learning rate and scaled rewards; every agent is on the host."""
    kwargs = {"anneal_learning_rate": True, "reward_scaling": True}
    budget = {"epochs": 2, "steps_per_epoch": 3, "verbose": 0}
    whole = make(name, **kwargs)
    whole.fit(Road(), **budget)
    saved = make(name, **kwargs)
    saved.fit(Road(), **budget, callbacks=[SaveAndStop(at, tmp_path / "agent.keras")])
    assert int(saved.iterations.numpy()) == at
    loaded = keras.models.load_model(tmp_path / "agent.keras")
    loaded.fit(Road(), **budget, resume=True)
    assert same(weights(whole), weights(loaded))
    saved.fit(Road(), **budget, resume=True)
    assert same(weights(whole), weights(saved))


class SaveAndStop(keras.callbacks.Callback):
    def __init__(self, iterations, filepath):
        super().__init__()
        self.iterations = iterations
        self.filepath = filepath

    def on_train_batch_end(self, batch, logs=None):
        if int(self.model.iterations.numpy()) == self.iterations:
            self.model.save(self.filepath)
            self.model.stop_training = True


@pytest.mark.slow
def test_resuming_needs_no_other_knowledge_of_where_the_fit_was(tmp_path):
    agent = fitted("a2c")
    with pytest.raises(ValueError, match="`initial_epoch` must be left out with `resume=True`.*initial_epoch=1"):
        agent.fit(Road(), epochs=2, steps_per_epoch=4, initial_epoch=1, resume=True, verbose=0)
    agent.fit(Road(), epochs=1, steps_per_epoch=4, resume=True, verbose=0)  # All of it is spent.
    assert int(agent.iterations.numpy()) == 4


def test_host_fits_resume_within_an_epoch_too(walk, tmp_path):
    agent = make("a2c", anneal_learning_rate=True)
    budget = {"total_steps": 320, "epochs": 2, "num_envs": 4, "verbose": 0}
    agent.fit(walk, **budget, callbacks=[SaveAndStop(3, tmp_path / "agent.keras")])
    loaded = keras.models.load_model(tmp_path / "agent.keras")
    history = loaded.fit(walk, **budget, resume=True)
    assert history.epoch == [0, 1] and history.history["env_steps"] == [160, 320]
    assert int(loaded.iterations.numpy()) == 10
    assert float(loaded.optimizer.learning_rate) == pytest.approx(1e-2)
    assert history.history["learning_rate"][-1] == pytest.approx(1e-2 * 0.3)  # Mean of 0.5, 0.4, ... 0.1.


@pytest.mark.slow
def test_processes_and_thread_counts_give_identical_weights(tmp_path):
    program = (
        "import sys, numpy as np, tensorflow as tf\n"
        "threads = int(sys.argv[2])\n"
        "if threads:\n"
        "    tf.config.threading.set_intra_op_parallelism_threads(threads)\n"
        "    tf.config.threading.set_inter_op_parallelism_threads(threads)\n"
        "import kerasrl_pg as pg\n"
        "agent = pg.PPO(horizon=32, minibatch_size=512, update_epochs=1, networks=pg.Networks((64,)), seed=1)\n"
        "agent.compile(jit_compile=True, steps_per_execution=int(sys.argv[3]))\n"
        "agent.fit(pg.envs.CartPole(num_envs=32), epochs=1, steps_per_epoch=4, verbose=0)\n"
        "np.savez(sys.argv[1], *[np.array(w) for w in agent.get_weights()])\n"
    )
    results = []
    for index, (threads, per_execution) in enumerate([(0, 1), (1, 4)]):
        file = str(tmp_path / f"{index}.npz")
        subprocess.run([sys.executable, "-c", program, file, str(threads), str(per_execution)], check=True)
        with np.load(file) as arrays:
            results.append(list(arrays.values()))
    assert same(*results)


@pytest.mark.slow
def test_a_second_fit_goes_on_with_the_episodes_and_a_seed_starts_anew():
    straight, twice, anew = make("a2c"), make("a2c"), make("a2c")
    straight.fit(Road(), epochs=1, steps_per_epoch=4, verbose=0)
    for agent, seed in ((twice, None), (anew, 9)):
        agent.fit(Road(), epochs=1, steps_per_epoch=2, verbose=0)
        agent.fit(Road(), epochs=1, steps_per_epoch=2, seed=seed, verbose=0)
    bare = [w for w in range(len(straight.weights)) if not straight.weights[w].path.endswith("progress")]
    assert same([weights(straight)[i] for i in bare], [weights(twice)[i] for i in bare])
    assert not same([weights(straight)[i] for i in bare], [weights(anew)[i] for i in bare])


@pytest.mark.parametrize(
    "name", ["a2c", "ppo", "reinforce_value", *(pytest.param(name, marks=slow) for name in ("reinforce", "trpo"))]
)
@pytest.mark.quick("a2c")
def test_it_learns_the_road_and_its_policy_does_on_the_host(name):
    kwargs = {"horizon": 12, "episodes": 1} if name.startswith("reinforce") else {"entropy_coef": 0.0}
    if name == "reinforce":
        kwargs["baseline"] = pg.baselines.AverageReturn()
    env = Road(num_envs=16)
    agent = MAKERS[name](**kwargs)
    agent.compile(keras.optimizers.Adam(0.03), steps_per_execution=20)
    history = agent.fit(env, epochs=2, steps_per_epoch=60, verbose=0).history
    assert history["episode_return"][-1] > 0.95
    assert history["episode_length"][-1] < 4.0
    assert agent.evaluate(env, episodes=20)["return"] == 1.0


def test_callbacks_validation_and_logs(tmp_path):
    agent = make("ppo", {"steps_per_execution": 2})
    seen = []
    history = agent.fit(
        Road(),
        epochs=3,
        steps_per_epoch=5,
        validation_env=Road(),
        validation_episodes=3,
        callbacks=[
            keras.callbacks.ModelCheckpoint(tmp_path / "best.keras", monitor="val_return", mode="max"),
            keras.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: seen.append(batch)),
            keras.callbacks.CSVLogger(tmp_path / "log.csv"),
            keras.callbacks.EarlyStopping(monitor="val_return", mode="max", patience=9, restore_best_weights=True),
        ],
        verbose=0,
    ).history
    assert seen == [0, 1, 2] * 3  # five iterations are executions of 2, 2 and 1
    assert history["env_steps"] == [160, 320, 480]
    assert {"val_return", "episode_return", "episode_length", "steps_per_second", "kl"} <= set(history)
    assert all(np.isfinite(values).all() for values in history.values())
    assert (tmp_path / "best.keras").exists()


@pytest.mark.slow
def test_backup_resumes_an_interrupted_run_bit_for_bit(tmp_path):
    class Interrupt(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch == 2:
                raise KeyboardInterrupt

    whole, broken = make("ppo"), make("ppo")
    whole.fit(Road(), epochs=4, steps_per_epoch=2, verbose=0)
    with pytest.raises(KeyboardInterrupt):
        callbacks = [keras.callbacks.BackupAndRestore(tmp_path / "backup"), Interrupt()]
        broken.fit(Road(), epochs=4, steps_per_epoch=2, callbacks=callbacks, verbose=0)
    resumed = make("ppo")
    callbacks = [keras.callbacks.BackupAndRestore(tmp_path / "backup")]
    resumed.fit(Road(), epochs=4, steps_per_epoch=2, callbacks=callbacks, verbose=0)
    assert same(weights(whole), weights(resumed))


@pytest.mark.parametrize(
    ("where", "sentence", "jit_compile"),
    [
        ("rewards", "`rewards` must be finite.*environment 1 in step 4 of the rollout", False),
        pytest.param("rewards", "`rewards` must be finite.*environment 1 in step 4 of", True, marks=slow),
        pytest.param(
            "observations",
            "`(next_)?observations` must be finite.*environment 1 in step [45] of the rollout",
            False,
            marks=slow,
        ),
    ],
)
def test_a_nan_is_named_and_the_last_good_weights_are_kept(where, sentence, jit_compile):
    agent = make("a2c", {"steps_per_execution": 5, "jit_compile": jit_compile})
    agent.fit(Poisoned(at=-1), epochs=1, steps_per_epoch=1, verbose=0)
    good = weights(agent)
    with pytest.raises(ValueError, match=sentence):
        agent.fit(Poisoned(at=5, where=where), epochs=1, steps_per_epoch=1, verbose=0)
    for weight, before in zip(agent.weights, good, strict=True):
        if not weight.path.endswith(("random_state", "progress")):
            np.testing.assert_array_equal(weight, before)
    agent.fit(Poisoned(at=-1), epochs=1, steps_per_epoch=1, verbose=0)


@dataclasses.dataclass(frozen=True)
class Growing(Road):
    """Its rewards grow with the steps of an episode until float32 does not know their sum."""

    max_episode_steps: int | None = None

    def reset(self, noise):
        return tf.zeros(noise.shape[0], tf.int32)

    def observe(self, state):
        return tf.minimum(state, 4)

    def step(self, state, actions, noise):
        return Transition(state + 1, tf.where(state < 20, 1.0, 3e38), tf.zeros_like(state, tf.bool))


@pytest.mark.parametrize("name", ["a2c", "trpo", *(pytest.param(name, marks=slow) for name in ("ppo", "ppo_penalty"))])
@pytest.mark.slow
def test_an_update_that_is_not_finite_is_undone_and_named(name):
    """In the middle of an execution: the two iterations before it stand."""
    agent = make(name, {"steps_per_execution": 5}, reward_scaling=True)
    with pytest.raises(ValueError, match=r"`[a-z_]*loss` must be finite.*in iteration 3.*\|reward\| is 3e\+38"):
        agent.fit(Growing(), epochs=1, steps_per_epoch=5, verbose=0)
    assert int(agent.iterations) == 2 and int(agent.env_steps) == 64
    again = make(name, reward_scaling=True)
    again.fit(Growing(), epochs=1, steps_per_epoch=2, verbose=0)
    assert same(weights(agent)[:-1], weights(again)[:-1])
    with pytest.raises(ValueError, match="in iteration 3"):
        again.fit(Growing(), epochs=1, steps_per_epoch=2, verbose=0)


@pytest.mark.slow
def test_a_fused_execution_stops_at_the_nan():
    agent = make("a2c", {"steps_per_execution": 5})
    with pytest.raises(ValueError, match="environment 1 in step 3 of the rollout"):
        agent.fit(Poisoned(at=20), epochs=1, steps_per_epoch=5, verbose=0)
    assert int(agent.iterations.numpy()) == 2


def test_wrong_settings_are_refused():
    agent = make("a2c")
    with pytest.raises(ValueError, match="`num_envs` must be left out, or be 4, for Road.*Received: num_envs=3"):
        agent.fit(Road(), num_envs=3, epochs=1, steps_per_epoch=1)
    with pytest.raises(ValueError, match="`steps_per_execution` must be .*Received: steps_per_execution=0"):
        agent.compile(steps_per_execution=0)
    agent = make("reinforce", horizon=None)
    with pytest.raises(ValueError, match="`horizon` must be given for an environment without a time limit"):
        agent.fit(dataclasses.replace(Road(), max_episode_steps=None), epochs=1, steps_per_epoch=1)


def test_compiling_is_shown(capsys):
    make("a2c").fit(Road(), epochs=1, steps_per_epoch=1, verbose=2)
    assert "Compiling A2C: " in capsys.readouterr().out


@dataclasses.dataclass(frozen=True)
class Astray(CompiledEnv):
    """Walks up from 0; its space ends at 2, which environment 1 oversteps in its third step."""

    several: bool = False
    num_envs: int = 2
    max_episode_steps: int | None = 4
    action_space = gym.spaces.Discrete(2)

    @property
    def observation_space(self):
        return gym.spaces.MultiDiscrete([5, 3]) if self.several else gym.spaces.Discrete(3)

    def reset(self, noise):
        return tf.zeros(noise.shape[0], tf.int32)

    def observe(self, state):
        state = tf.minimum(state, tf.stack([2, 3]))
        return tf.stack([state, state], 1) if self.several else state

    def step(self, state, actions, noise):
        return Transition(state + 1, tf.zeros(self.num_envs), tf.zeros(self.num_envs, tf.bool))


@pytest.mark.parametrize("several", [False, True])
@pytest.mark.quick("True")
def test_an_observation_that_is_no_choice_is_named(several):
    agent = pg.A2C(horizon=4, networks=pg.Networks(hidden_units=(4,)), seed=0)
    agent.compile(jit_compile=False)
    sentence = "`next_observations` must be choices of their space, .* from environment 1 in step 2 of the rollout"
    with pytest.raises(ValueError, match=sentence):
        agent.fit(Astray(several=several), epochs=1, steps_per_epoch=1, verbose=0)
    assert int(agent.iterations) == 0
