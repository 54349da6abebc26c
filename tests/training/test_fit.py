"""`fit`: budgets, Keras's callbacks, validation, the user's own networks, and what happens to wrong input."""

import gc
import os

import gymnasium as gym
import keras
import numpy as np
import pytest
import tensorflow as tf

import kerasrl_pg as pg


def tiny(**kwargs):
    settings = {"horizon": 8, "networks": pg.Networks(hidden_units=(8,)), "seed": 0, **kwargs}
    agent = pg.A2C(**settings)
    agent.compile(keras.optimizers.Adam(1e-3), jit_compile=False)
    return agent


def test_budget_is_never_exceeded_and_shared_out_to_epochs(walk):
    agent = tiny()
    history = agent.fit(walk, total_steps=1000, num_envs=4, epochs=3, verbose=0).history
    # 31 rollouts of 32 steps fit into 1000; the epochs end after 11, 21 and 31.
    assert history["env_steps"] == [352, 672, 992]
    assert int(agent.env_steps.numpy()) == 992


def test_epochs_of_whole_episodes_end_by_their_share(walk):
    agent = pg.REINFORCE(networks=pg.Networks(hidden_units=(8,)), seed=0)
    agent.compile(jit_compile=False)
    steps = agent.fit(walk, total_steps=600, num_envs=2, epochs=3, verbose=0).history["env_steps"]
    assert len(steps) == 3
    assert 200 <= steps[0] < 240 and 400 <= steps[1] < 440 and 560 < steps[2] <= 600


def test_a_resumed_fit_ends_where_an_uninterrupted_one_does(walk):
    whole, parts = tiny(), tiny()
    whole.fit(walk, total_steps=1000, num_envs=4, epochs=3, verbose=0)
    parts.fit(walk, epochs=1, steps_per_epoch=11, num_envs=4, verbose=0)
    parts.fit(walk, total_steps=1000, num_envs=4, epochs=3, initial_epoch=1, verbose=0)
    assert int(parts.env_steps.numpy()) == int(whole.env_steps.numpy())


def test_the_stock_callbacks_work_unchanged(walk, tmp_path):
    agent = tiny()
    seen = []
    callbacks = [
        keras.callbacks.EarlyStopping(monitor="val_return", mode="max", patience=50, restore_best_weights=True),
        keras.callbacks.ModelCheckpoint(tmp_path / "best.keras", monitor="val_return", mode="max", save_best_only=True),
        keras.callbacks.ModelCheckpoint(tmp_path / "{epoch}.weights.h5", save_weights_only=True, save_freq=2),
        keras.callbacks.BackupAndRestore(tmp_path / "backup"),
        keras.callbacks.TensorBoard(tmp_path / "board", histogram_freq=1),
        keras.callbacks.CSVLogger(tmp_path / "log.csv"),
        keras.callbacks.ReduceLROnPlateau(monitor="loss", factor=0.5, patience=1, min_delta=1e6, min_lr=1e-6),
        keras.callbacks.TerminateOnNaN(),
        keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: seen.append((epoch, set(logs)))),
        keras.callbacks.ProgbarLogger(),
    ]
    history = agent.fit(
        walk,
        epochs=3,
        steps_per_epoch=2,
        num_envs=4,
        callbacks=callbacks,
        validation_env=walk,
        validation_episodes=4,
        verbose=2,
    )
    assert isinstance(history, keras.callbacks.History)
    assert [epoch for epoch, _ in seen] == [0, 1, 2]
    assert {"loss", "entropy", "val_return", "val_return_std"} <= seen[0][1]
    assert len(history.history["val_return"]) == 3
    assert float(agent.optimizer.learning_rate) == pytest.approx(1e-3 * 0.5**2)
    assert (tmp_path / "log.csv").read_text().count("\n") == 4
    assert list((tmp_path / "board").rglob("events*"))
    assert (tmp_path / "1.weights.h5").exists() and not (tmp_path / "backup").exists()
    best = keras.models.load_model(tmp_path / "best.keras")
    assert best.evaluate(walk, episodes=4, seed=1)["episodes"] == 4
    # EarlyStopping restored the weights of the best epoch, which are those of the best checkpoint.
    for a, b in zip(agent.policy.get_weights(), best.policy.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_learning_rate_scheduler_takes_effect_without_a_new_trace(walk):
    agent = tiny()
    before = None

    class Freeze(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            nonlocal before
            if epoch == 1:
                before = agent.policy.get_weights()

    schedule = keras.callbacks.LearningRateScheduler(lambda epoch: 1e-2 if epoch == 0 else 0.0)
    agent.fit(walk, epochs=2, steps_per_epoch=2, num_envs=4, callbacks=[schedule, Freeze()], verbose=0)
    for a, b in zip(before, agent.policy.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    assert agent.programs.latest.experimental_get_tracing_count() == 1


def test_terminate_on_nan_ends_the_fit(walk):
    class Diverging(pg.A2C):
        def train_step(self, rollout):
            logs = super().train_step(rollout)
            logs["loss"] = tf.where(self.iterations.value == 2, np.nan, logs["loss"])
            return logs

    agent = Diverging(horizon=4, networks=pg.Networks(hidden_units=(4,)), seed=0)
    agent.compile(jit_compile=False)
    callbacks = [keras.callbacks.TerminateOnNaN()]
    with pytest.warns(UserWarning, match="`loss` must be finite after an update. .*The update was undone"):
        history = agent.fit(walk, epochs=9, steps_per_epoch=1, num_envs=4, callbacks=callbacks, verbose=0)
    assert int(agent.iterations.numpy()) == 2 and np.isnan(history.history["loss"]).tolist() == [False, False, True]


def test_weights_that_are_not_finite_are_named(walk):
    agent = tiny(entropy_coef=1e38)
    agent.compile(keras.optimizers.SGD(1e38), jit_compile=False)
    with pytest.raises(ValueError, match="kernel` of the policy must be finite.*Lower the learning rate"):
        agent.fit(walk, epochs=5, steps_per_epoch=1, num_envs=4, verbose=0)


def test_backup_resumes_an_interrupted_run_bit_for_bit(walk, tmp_path):
    class Interrupt(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch == 2:
                raise KeyboardInterrupt

    def run(agent, *extra):
        backup = keras.callbacks.BackupAndRestore(tmp_path / "backup", delete_checkpoint=False)
        agent.fit(walk, epochs=4, steps_per_epoch=2, num_envs=4, callbacks=[backup, *extra], seed=7, verbose=0)
        return agent

    with pytest.raises(KeyboardInterrupt):
        run(tiny(), Interrupt())
    resumed = tiny()
    resumed.bind(gym.spaces.Discrete(5), gym.spaces.Discrete(2))
    run(resumed)
    assert int(resumed.iterations.numpy()) == 8
    # What never stopped, given the same environments from the same epoch on.
    straight = tiny()
    straight.fit(walk, epochs=2, steps_per_epoch=2, num_envs=4, seed=7, verbose=0)
    straight.fit(walk, epochs=4, initial_epoch=2, steps_per_epoch=2, num_envs=4, seed=7, verbose=0)
    for a, b in zip(resumed.get_weights(), straight.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_validation_leaves_training_untouched(walk):
    with_validation, without = tiny(), tiny()
    kwargs = {"epochs": 2, "steps_per_epoch": 2, "num_envs": 4, "verbose": 0}
    with_validation.fit(walk, validation_env=walk, validation_freq=2, validation_episodes=3, **kwargs)
    without.fit(walk, **kwargs)
    assert len(with_validation.history.history["val_return"]) == 1
    for a, b in zip(with_validation.get_weights(), without.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_progress_shows_return_steps_and_speed(walk, capsys):
    tiny().fit(walk, total_steps=64, num_envs=4, epochs=2)
    shown = capsys.readouterr().out
    for word in ("Epoch 2/2", "episode_return", "env_steps", "steps_per_second"):
        assert word in shown
    assert "explained_variance" not in shown


# The user's own networks


def functional(*outputs):
    inputs = keras.Input((4,))
    features = keras.layers.Dense(8, "tanh")(inputs)
    return keras.Model(inputs, outputs[0](features))


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.dense = keras.layers.Dense(8, "relu")
        self.head = pg.heads.Categorical(2)

    def call(self, observations):
        return self.head(self.dense(observations))


@pytest.mark.parametrize("kind", ["functional", "sequential", "subclassed"])
@pytest.mark.quick("subclassed")
def test_own_policy_and_critic(kind):
    policy = {
        "functional": lambda: functional(pg.heads.Categorical(2)),
        "sequential": lambda: keras.Sequential([keras.layers.Dense(8, "gelu"), pg.heads.Categorical(2)]),
        "subclassed": Subclassed,
    }[kind]()
    agent = pg.PPO(policy, functional(pg.heads.NormalValue()), horizon=8, minibatch_size=16, update_epochs=1, seed=0)
    agent.compile(jit_compile=False)
    agent.fit("CartPole-v1", epochs=1, steps_per_epoch=2, num_envs=4, verbose=0)
    assert agent.policy is policy
    assert int(agent.env_steps.numpy()) == 64


@pytest.mark.parametrize("own", [False, True])
@pytest.mark.quick("True")
def test_shared_layers_survive_saving(own, tmp_path):
    if own:
        inputs = keras.Input((4,))
        features = keras.layers.Dense(8, "tanh")(inputs)
        outputs = {"policy": pg.heads.Categorical(2)(features), "value": pg.heads.NormalValue()(features)}
        agent = pg.A2C(keras.Model(inputs, outputs), seed=0)
    else:
        agent = pg.A2C(networks=pg.Networks(hidden_units=(8,), shared=True), seed=0)
    agent.compile(jit_compile=False)
    agent.fit("CartPole-v1", epochs=1, steps_per_epoch=2, num_envs=4, verbose=0)
    assert len(agent.network_variables) == 6  # One trunk, two heads.
    agent.save(tmp_path / "shared.keras")
    loaded = keras.models.load_model(tmp_path / "shared.keras")
    observations = np.random.default_rng(0).normal(size=(3, 4)).astype("float32")
    inputs = pg.rollouts.Inputs(observations)
    for a, b in zip(agent.forward(inputs), loaded.forward(inputs), strict=True):
        np.testing.assert_array_equal(a.parameters.get("logits", a.mode()), b.parameters.get("logits", b.mode()))
    for twin in (agent, loaded):
        twin.fit("CartPole-v1", epochs=1, steps_per_epoch=2, num_envs=4, verbose=0)
    for a, b in zip(agent.get_weights(), loaded.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_two_optimizers_move_their_own_network(walk):
    agent = tiny()
    agent.compile(keras.optimizers.SGD(0.0), critic_optimizer=keras.optimizers.SGD(0.1), jit_compile=False)
    agent.bind(gym.spaces.Discrete(5), gym.spaces.Discrete(2))
    policy, critic = agent.policy.get_weights(), agent.critic.get_weights()
    agent.fit(walk, epochs=1, steps_per_epoch=1, num_envs=4, verbose=0)
    assert all(np.array_equal(a, b) for a, b in zip(policy, agent.policy.get_weights(), strict=True))
    assert not all(np.array_equal(a, b) for a, b in zip(critic, agent.critic.get_weights(), strict=True))


def test_two_optimizers_move_embeddings_whatever_their_scales(walk):
    """Sparse gradients, and an optimizer of each network that divides by a scale of its own."""
    weights = {}
    for scale in (None, 64.0):
        keras.utils.set_random_seed(1)
        models = [
            keras.Sequential([keras.Input((), dtype="int32"), keras.layers.Embedding(5, 4), head])
            for head in (pg.heads.Categorical(2), pg.heads.NormalValue())
        ]
        agent = pg.A2C(*models, horizon=8, seed=0)
        policy, critic = keras.optimizers.SGD(0.1, loss_scale_factor=scale), keras.optimizers.SGD(0.1)
        agent.compile(policy, critic_optimizer=critic, jit_compile=False)
        agent.fit(walk, epochs=1, steps_per_epoch=2, num_envs=4, verbose=0)
        weights[scale] = [np.array(w) for w in agent.network_variables]
    for a, b in zip(weights[None], weights[64.0], strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_two_optimizers_over_shared_layers_are_refused(walk):
    agent = pg.A2C(networks=pg.Networks((8,), shared=True), seed=0)
    agent.compile(keras.optimizers.SGD(0.1), critic_optimizer=keras.optimizers.SGD(0.1))
    with pytest.raises(ValueError, match="`critic_optimizer` must be left out where policy and critic share layers"):
        agent.fit(walk, epochs=1, steps_per_epoch=1, num_envs=4, verbose=0)


def test_compiling_anew_takes_the_new_optimizer(walk):
    agent = tiny()
    agent.fit(walk, epochs=1, steps_per_epoch=1, num_envs=4, verbose=0)
    agent.compile(keras.optimizers.SGD(0.0), jit_compile=False)
    before = agent.policy.get_weights()
    agent.fit(walk, epochs=1, steps_per_epoch=2, num_envs=4, verbose=0)
    assert all(np.array_equal(a, b) for a, b in zip(before, agent.policy.get_weights(), strict=True))
    assert int(agent.optimizer.iterations) == 2


def test_a_setting_changed_between_fits_takes_effect(walk):
    agent = pg.A2C(horizon=16, networks=pg.Networks((8,)), seed=0)
    agent.compile(jit_compile=False)
    once = {"epochs": 1, "steps_per_epoch": 1, "num_envs": 4, "verbose": 0}
    for agent.entropy_coef in (0.01, 0.5):
        logs = {name: values[0] for name, values in agent.fit(walk, **once).history.items()}
        loss = logs["policy_loss"] + agent.value_coef * logs["critic_loss"] - agent.entropy_coef * logs["entropy"]
        assert logs["loss"] == pytest.approx(loss, rel=1e-5)
    (program,) = agent.programs.made.values()
    agent.fit(walk, **once)
    assert [program] == list(agent.programs.made.values())
    agent.estimator = pg.estimators.TD0()
    agent.fit(walk, **once)
    (second,) = agent.programs.made.values()
    agent.estimator = pg.estimators.RewardToGo()  # It has no settings either.
    agent.fit(walk, **once)
    (third,) = agent.programs.made.values()
    assert len({id(each) for each in (program, second, third)}) == 3


@pytest.mark.parametrize(
    ("kind", "memory"), [pytest.param(pg.PPO, None, id="ppo"), pytest.param(pg.A2C, pg.models.GRU(3), id="a2c-gru")]
)
@pytest.mark.quick("a2c-gru")
def test_a_dropped_agent_leaves_no_graph(walk, kind, memory):
    """10 MB each time, in a search over settings."""

    def graphs():
        networks = pg.Networks((4,), memory=memory)
        passes = {"minibatch_size": 16, "update_epochs": 2} if kind is pg.PPO else {}
        agent = kind(horizon=8, networks=networks, seed=0, **passes)
        agent.compile(jit_compile=False)
        agent.fit(walk, epochs=1, steps_per_epoch=1, num_envs=4, verbose=0)
        del agent
        gc.collect()
        return sum(isinstance(each, tf.Graph) for each in gc.get_objects())

    assert graphs() == graphs()  # The first may leave what all agents share.


def test_a_discount_changed_between_fits_reaches_the_reward_scaling(walk):
    agent = tiny(reward_scaling=True)
    once = {"epochs": 1, "steps_per_epoch": 1, "num_envs": 4, "verbose": 0}
    agent.fit(walk, **once)
    agent.gamma, agent.reward_clip = 0.5, 0.1
    agent.fit(walk, **once)
    assert (agent.reward_scaling.gamma, agent.reward_scaling.clip) == (0.5, 0.1)
    assert type(agent).from_config(agent.get_config()).reward_scaling.clip == 0.1


def test_predict_act_and_evaluate_agree():
    agent = pg.PPO(networks=pg.Networks(normalize_observations=True), seed=0)
    agent.compile()
    space = gym.spaces.Box(-2.0, 2.0, (3,), np.float32)
    agent.bind(gym.spaces.Box(-9.0, 9.0, (4,), np.float32), space)
    observations = np.random.default_rng(0).normal(size=(7, 4)).astype("float32")
    batch = agent.act(observations)
    assert batch.shape == (7, 3)
    np.testing.assert_allclose(agent.act(observations[2]), batch[2], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(agent.predict(observations, verbose=0), batch, rtol=1e-5, atol=1e-6)
    sampled = agent.act(observations, deterministic=False, seed=5)
    np.testing.assert_array_equal(sampled, agent.act(observations, deterministic=False, seed=5))
    assert space.contains(sampled[0]) and not np.allclose(sampled, batch)


# Wrong input


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: pg.PPO(gamma=1.5), r"`gamma` must be a number in \[0.0, 1.0\]. Received: gamma=1.5"),
        (lambda: pg.PPO(clip_ratio=0.0), r"`clip_ratio` must be a number in \(0.0, inf\)"),
        (lambda: pg.PPO(update_epochs=0), "`update_epochs` must be a whole number of at least 1"),
        (lambda: pg.PPO(minibatch_size=2.5), "`minibatch_size` must be a whole number"),
        (lambda: pg.PPO(normalize_advantages=True), "`normalize_advantages` must be 'minibatch', 'batch' or False"),
        (lambda: pg.PPO(entropy_coef=-0.1), "`entropy_coef`"),
        (lambda: pg.PPO(horizon=None), "`horizon`"),
        (lambda: pg.PPO(reward_clip=0), "`reward_clip`"),
        (lambda: pg.PPO(target_kl=-1), "`target_kl`"),
        (lambda: pg.PPO(seed=-1), "`seed`"),
        (lambda: pg.PPO(reward_scaling=1.0), "`reward_scaling` must be True or False. Received: reward_scaling=1.0"),
        (lambda: pg.PPO(anneal_learning_rate="linear"), "`anneal_learning_rate` must be True, False or a"),
        (lambda: pg.REINFORCE(discounted_gradient=0.9), "`discounted_gradient` must be True or False"),
        *(
            (lambda method=method: method(normalize_advantages="minibatch"), "`normalize_advantages` must be True or F")
            for method in (pg.A2C, pg.REINFORCE, pg.ConstrainedGradient, pg.NPG, pg.TRPO, pg.PPOPenalty)
        ),
        *(
            (
                lambda kwargs=kwargs: pg.PPO().compile(**kwargs),
                "`optimizer` must have `use_ema=False`, since Keras would write its averages over",
            )
            for kwargs in (
                {"optimizer": keras.optimizers.Adam(use_ema=True)},
                {"critic_optimizer": keras.optimizers.Adam(use_ema=True)},
                {"optimizer": keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(use_ema=True))},
            )
        ),
        (lambda: pg.PPO(seed=2**31), "`seed` must be a whole number of at least 0 and at most 2147483647"),
        (lambda: pg.PPO(gamma=keras.optimizers.schedules.PolynomialDecay(0.9, 5)), "`gamma` must be a number"),
        (lambda: pg.PPO(critic=functional(pg.heads.NormalValue())), "`critic` must come with a `policy`"),
        (
            lambda: pg.PPO(functional(pg.heads.Categorical(2)), networks=pg.Networks()),
            "`networks` says what to build where no `policy` is given",
        ),
        (lambda: pg.REINFORCE(estimator=pg.estimators.GAE()), "`estimator` must be RewardToGo"),
        (
            lambda: pg.PPO(value_clip=0.2, networks=pg.Networks(critic_head=pg.heads.HistogramValue(0, 1))).bind(
                gym.spaces.Discrete(2), gym.spaces.Discrete(2)
            ),
            "`value_clip` must be None with a critic that is no NormalValue",
        ),
    ],
)
def test_wrong_settings_are_refused_by_name(make, sentence):
    with pytest.raises(ValueError, match=sentence):
        make()


@pytest.mark.parametrize(
    "make",
    [
        lambda: pg.PPO(estimator="gae"),
        lambda: pg.PPO("MlpPolicy", "CartPole-v1"),
        lambda: pg.TRPO(functional(pg.heads.Categorical(2)), critic="value"),
        lambda: pg.PPO(networks={"hidden_units": (8,)}),
        lambda: pg.REINFORCE(baseline="average"),
        lambda: pg.Networks(head="beta"),
    ],
)
def test_wrong_kinds_are_refused(make):
    with pytest.raises(TypeError, match="must be .* Received: "):
        make()


@pytest.mark.parametrize(
    ("kwargs", "sentence"),
    [
        ({}, "`total_steps`, or `epochs` and `steps_per_epoch` together"),
        ({"epochs": 3}, "`total_steps`, or `epochs` and `steps_per_epoch` together"),
        (
            {"total_steps": 31},
            r"`total_steps` must be at least one rollout, horizon x num_envs = 32. Received: total_steps=31",
        ),
        ({"total_steps": 64, "steps_per_epoch": 2}, "`steps_per_epoch` must be left out with `total_steps`"),
        ({"total_steps": -5}, "`total_steps` must be a whole number"),
        ({"total_steps": 64, "num_envs": 0}, "`num_envs` must be a whole number"),
    ],
)
def test_wrong_budgets_are_refused(walk, kwargs, sentence):
    with pytest.raises(ValueError, match=sentence):
        tiny().fit(walk, **{"num_envs": 4, "verbose": 0, **kwargs})


def test_minibatch_that_does_not_divide_or_is_larger_than_the_rollout(walk):
    for size in (24, 64):
        agent = pg.PPO(horizon=8, minibatch_size=size, seed=0)
        agent.compile()
        with pytest.raises(ValueError, match=f"8 x 4 = 32. Received: minibatch_size={size}"):
            agent.fit(walk, total_steps=64, num_envs=4, verbose=0)


def test_fit_before_compile_is_refused(walk):
    with pytest.raises(ValueError, match="compile"):
        pg.PPO().fit(walk, total_steps=1024)


def test_another_environment_is_refused(walk):
    agent = tiny()
    agent.fit(walk, epochs=1, steps_per_epoch=1, num_envs=2, verbose=0)
    with pytest.raises(ValueError, match="`env` must have the spaces the agent was built for"):
        agent.fit("CartPole-v1", epochs=1, steps_per_epoch=1, num_envs=2, verbose=0)
    with pytest.raises(ValueError, match="`validation_env` must have the spaces"):
        agent.fit(walk, epochs=1, steps_per_epoch=1, num_envs=2, validation_env="CartPole-v1", verbose=0)
    with pytest.raises(ValueError, match="`env` must have the spaces"):
        agent.evaluate("CartPole-v1")


def test_an_action_space_without_a_head_is_refused(bandit):
    with pytest.raises(ValueError, match="Text"):
        tiny().fit(bandit(gym.spaces.Text(3)), epochs=1, steps_per_epoch=1, verbose=0)


def test_wrong_head_of_an_own_policy_is_refused():
    agent = pg.PPO(functional(pg.heads.Gaussian((2,))), functional(pg.heads.NormalValue()))
    agent.compile()
    with pytest.raises(ValueError, match="`policy` must give actions of the environment's space"):
        agent.fit("CartPole-v1", total_steps=1024, num_envs=8, verbose=0)


def test_unbuilt_agent_says_what_to_do():
    for call in (lambda a: a.act([0.0]), lambda a: a.evaluate("CartPole-v1"), lambda a: a.export("never/made/1")):
        with pytest.raises(ValueError, match="must be built before"):
            call(pg.PPO())


class Broken(gym.Env):
    """Fails in its fifth step, in the way it is told."""

    observation_space = gym.spaces.Box(-1.0, 1.0, (1,), np.float32)
    action_space = gym.spaces.Discrete(2)

    def __init__(self, how):
        self.how = how

    def reset(self, *, seed=None, options=None):
        self.steps = 0
        return np.zeros(1, np.float32), {}

    def step(self, action):
        self.steps += 1
        observation, reward = np.zeros(1, np.float32), 0.0
        if self.steps == 5:
            if self.how == "raise":
                raise OSError("the robot fell")
            if self.how == "observation":
                observation[:] = np.nan
            if self.how == "reward":
                reward = float("nan")
        return observation, reward, False, False, {}


@pytest.mark.parametrize(
    ("how", "error", "sentence"),
    [
        ("raise", RuntimeError, "Environment 1 raised OSError in step 4 .*the robot fell"),
        pytest.param(
            "observation",
            ValueError,
            "`(next_)?observations` must be finite.*environment 1 in step [45]",
            marks=pytest.mark.slow,
        ),
        ("reward", ValueError, "`rewards` must be finite.*environment 1 in step 4"),
    ],
)
def test_a_broken_environment_is_named_and_the_last_good_state_is_kept(how, error, sentence):
    makers = [lambda: Broken("not"), lambda: Broken(how)]
    agent = tiny(horizon=4)
    agent.fit(lambda: Broken("not"), epochs=1, steps_per_epoch=1, num_envs=2, verbose=0)
    good = agent.get_weights()
    envs = gym.vector.SyncVectorEnv(makers)
    agent.horizon = 8
    with pytest.raises(error, match=sentence):
        agent.fit(envs, epochs=1, steps_per_epoch=2, seed=0, verbose=0)
    for weight, before in zip(agent.weights, good, strict=True):
        if not weight.path.endswith(("random_state", "progress")):
            np.testing.assert_array_equal(weight, before)
    agent.fit(lambda: Broken("not"), epochs=1, steps_per_epoch=1, num_envs=2, verbose=0)


def test_reward_of_shape_n_by_1_is_refused():
    class Column(gym.vector.SyncVectorEnv):
        def step(self, actions):
            observations, rewards, *rest = super().step(actions)
            return observations, rewards[:, None], *rest

    with pytest.raises(ValueError, match=r"`rewards` of `env.step` must have shape \(2,\).*\(2, 1\)"):
        tiny().fit(Column([lambda: gym.make("CartPole-v1")] * 2), epochs=1, steps_per_epoch=1, verbose=0)


def test_saving_never_loses_an_older_file(walk, tmp_path, monkeypatch):
    agent = tiny()
    agent.fit(walk, epochs=1, steps_per_epoch=1, num_envs=2, verbose=0)
    agent.save(tmp_path / "agent.keras")
    before = (tmp_path / "agent.keras").read_bytes()

    def full_disk(*args, **kwargs):
        raise OSError("No space left on device")

    monkeypatch.setattr(keras.src.saving.saving_lib, "_save_state", full_disk)
    with pytest.raises(OSError, match="No space left"):
        agent.save(tmp_path / "agent.keras")
    assert (tmp_path / "agent.keras").read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["agent.keras"]


def test_weights_load_into_an_agent_that_has_seen_nothing(walk, tmp_path):
    agent = tiny()
    agent.fit(walk, epochs=1, steps_per_epoch=2, num_envs=2, verbose=0)
    agent.save_weights(tmp_path / "agent.weights.h5")
    fresh = tiny()
    fresh.load_weights(tmp_path / "agent.weights.h5")
    for twin in (agent, fresh):
        twin.fit(walk, epochs=1, steps_per_epoch=2, num_envs=2, verbose=0)
    for a, b in zip(agent.get_weights(), fresh.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_export_never_overwrites(tmp_path):
    agent = pg.PPO(seed=0)
    agent.bind(gym.spaces.Box(-1.0, 1.0, (2,)), gym.spaces.Discrete(2))
    (tmp_path / "1").mkdir()
    with pytest.raises(ValueError, match="`filepath` must be a folder that does not exist yet"):
        agent.export(tmp_path / "1")


def test_run_eagerly_lets_python_see_the_tensors(walk):
    seen = []

    class Debugged(pg.A2C):
        def train_step(self, rollout):
            seen.append(rollout.rewards.numpy().sum())
            return super().train_step(rollout)

    agent = Debugged(horizon=4, networks=pg.Networks(hidden_units=(4,)), seed=0)
    agent.compile(run_eagerly=True)
    agent.fit(walk, epochs=1, steps_per_epoch=2, num_envs=2, verbose=0)
    assert len(seen) == 2  # `numpy` is an error in a graph.


class Exhausted(gym.Env):
    """An environment that plays what an iterator gives it, which comes to its end."""

    observation_space = gym.spaces.Box(-1.0, 1.0, (1,), np.float32)
    action_space = gym.spaces.Discrete(2)

    def __init__(self, error):
        self.error = error

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.left = iter(range(20))
        return np.ones(1, np.float32), {}

    def step(self, action):
        try:
            next(self.left)
        except StopIteration:
            raise self.error from None
        return np.ones(1, np.float32), 1.0, False, False, {}


@pytest.mark.parametrize("error", [StopIteration(), tf.errors.OutOfRangeError(None, None, "end of sequence")])
@pytest.mark.parametrize("num_envs", [1, 2])
@pytest.mark.quick("1-error0", "2-error1")
def test_data_that_end_before_the_budget_are_an_error(error, num_envs):
    with pytest.raises(RuntimeError, match="StopIteration|end of sequence"):
        tiny().fit(lambda: Exhausted(error), total_steps=64, num_envs=num_envs, epochs=1, verbose=0)


def test_a_compiled_environment_whose_data_end_is_an_error():
    agent = tiny()
    agent.compile(run_eagerly=True)
    training = pg.envs.CartPole(num_envs=2)
    agent.bind(training.observation_space, training.action_space)
    agent.train_step = lambda rollout: next(iter(()))
    with pytest.raises(RuntimeError, match="Training failed at environment step 0: StopIteration"):
        agent.fit(training, total_steps=16, epochs=1, verbose=0)


def test_a_callback_whose_data_end_is_an_error(walk):
    rates = iter([0.1, 0.2])
    agent = tiny()
    with pytest.warns(UserWarning, match="out of data"), pytest.raises(RuntimeError, match="Received: 24. Something"):
        agent.fit(
            walk,
            total_steps=32,
            epochs=1,
            verbose=0,
            callbacks=[keras.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: next(rates))],
        )


def test_no_fit_or_agent_traces_what_another_has(walk, caplog):
    for _ in range(2):
        agent = tiny()
        for _ in range(6):
            agent.fit(walk, total_steps=8, epochs=1, verbose=0)
            agent.evaluate(walk, episodes=1)
            agent.act(0)
            agent.act(0, deterministic=False)
    assert "retracing" not in caplog.text
    assert set(agent._rooms.noise_programs) == {(256, 1), (1,)}  # of rollouts and evaluations, and of `act`


# What goes wrong around a fit


def test_a_close_that_raises_does_not_cost_the_history():
    class Stuck(Broken):
        def close(self):
            raise OSError("the door is stuck")

    settings = {"epochs": 2, "steps_per_epoch": 1, "num_envs": 2, "verbose": 0}
    with pytest.warns(UserWarning, match="raised OSError: the door is stuck. What was done before is kept") as caught:
        history = tiny().fit(
            lambda: Stuck("not"), validation_env=lambda: gym.wrappers.TimeLimit(Stuck("not"), 5), **settings
        )
    assert len(history.history["loss"]) == len(history.history["val_return"]) == 2
    assert sum("the door" in str(warning.message) for warning in caught) == 2  # of training and of validation
    with pytest.warns(UserWarning, match="the door is stuck"), pytest.raises(RuntimeError, match="the robot fell"):
        tiny().fit(lambda: Stuck("raise"), **settings)
    agent = tiny()
    agent.bind(Broken.observation_space, Broken.action_space)
    with pytest.warns(UserWarning, match="the door is stuck"):
        assert agent.evaluate(lambda: gym.wrappers.TimeLimit(Stuck("not"), 5), episodes=1)["length"] == 5


def test_a_worker_that_is_gone_ends_the_fit_in_a_sentence():
    class Mortal(Broken):
        def step(self, action):
            if self.steps == 4:
                os._exit(3)
            return super().step(action)

    made = []

    def make():
        made.append(gym.vector.AsyncVectorEnv([lambda: Broken("not"), lambda: Mortal("not")]))
        return made[-1]

    with pytest.raises(RuntimeError, match="Environment 1 ended its process in step 4 .* with exit code 3"):
        tiny().fit(make, epochs=1, steps_per_epoch=1, verbose=0)
    assert not any(process.is_alive() for process in made[0].processes)


def test_workers_are_not_waited_for_after_another_failure():
    """The first one's answer has been taken when the fit is interrupted; it will not come again."""
    made = []

    def make():
        made.append(gym.vector.AsyncVectorEnv([lambda: Broken("not")] * 2))
        made[0].error_queue.cancel_join_thread()
        return made[0]

    class Interrupt(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            made[0].step_async(np.zeros(2, int))
            made[0].parent_pipes[0].recv()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tiny().fit(make, epochs=1, steps_per_epoch=1, verbose=0, callbacks=[Interrupt()])
    assert not any(process.is_alive() for process in made[0].processes)


def test_a_validation_that_does_not_end_has_no_return_and_ends_no_fit(walk, forever):
    env = forever()
    settings = {"epochs": 2, "steps_per_epoch": 1, "num_envs": 2, "verbose": 0}
    agent = tiny()
    with pytest.warns(UserWarning, match="returns of this evaluation are unknown, NaN.*max_steps=9"):
        history = agent.fit(lambda: env, validation_env=forever, validation_max_steps=9, **{**settings, "num_envs": 1})
    assert np.isnan(history.history["val_return"]).all() and np.isfinite(history.history["loss"]).all()
    with pytest.raises(ValueError, match="`validation_max_steps` must be a whole number of at least 1, or None"):
        agent.fit(forever, validation_env=forever, validation_max_steps=0.5, **settings)


@pytest.mark.parametrize(
    "result, sentence",
    [
        ((1, "1", False, False, {}), "`reward` must be one number. Received: '1'"),
        ((1, None, False, False, {}), "`reward` must be one number. Received: None"),
        ((1, 1e39, False, False, {}), r"`rewards` must be within float32 \(3.4e38\).* Received: 1e\+39"),
        ((1, 1.0, 1, False, {}), "`terminated` must be True or False. Received: 1 "),
        (
            (3, 1.0, False, False, {}),
            "`observation` must be one of the choices of its space Discrete.* Received: 3 from",
        ),
        ((1, 1.0, True, {}), "`env.step` must return .* Received: 4 values"),
    ],
)
def test_what_an_environment_must_not_give_is_not_trained_on(walk, result, sentence):
    class Odd(gym.Env):
        observation_space, action_space = gym.spaces.Discrete(3), gym.spaces.Discrete(2)

        def reset(self, *, seed=None, options=None):
            return 0, {}

        def step(self, action):
            return result

    agent = tiny()
    with pytest.raises(ValueError, match=f"{sentence}.* environment 0 in step 0"):
        agent.fit(Odd, epochs=1, steps_per_epoch=1, verbose=0)
    assert int(agent.iterations) == 0
