"""What an agent says to the habits of Keras's supervised models and of other libraries."""

import gymnasium as gym
import keras
import numpy as np
import pytest

import kerasrl_pg as pg


@pytest.fixture(scope="module")
def agent():
    agent = pg.A2C(horizon=8, networks=pg.Networks(hidden_units=(8,)), seed=0)
    agent.compile(jit_compile=False)
    agent.bind(gym.spaces.Box(-1.0, 1.0, (4,)), gym.spaces.Discrete(2))
    return agent


x = np.zeros((3, 4), "float32")


@pytest.mark.parametrize(
    ("call", "error", "sentence"),
    [
        (lambda a: a.policy.predict(x), NotImplementedError, "Call `agent.predict"),
        (lambda a: a.critic.predict(x), NotImplementedError, "Call `agent.predict"),
        (lambda a: a.train_on_batch(x), NotImplementedError, "Call `fit`"),
        (lambda a: a.test_on_batch(x), NotImplementedError, "Call `evaluate`"),
        (lambda a: a.predict(x[0]), ValueError, "`x` must be a batch of observations.*Call `act`"),
        (lambda a: a.learn(1000), AttributeError, "Call `fit"),
        (lambda a: a.nothing, AttributeError, "no attribute 'nothing'"),
        (lambda a: a.compile(loss="mse"), TypeError, "`compile` has no argument `loss`"),
        (lambda a: a.compile(metrics=["mse"]), TypeError, "`compile` has no argument `metrics`"),
        (lambda a: a.fit(x, x), TypeError, "`env` must be a gymnasium id"),
        (lambda a: a.fit(x=x, y=x), TypeError, "`fit` has no argument `x`"),
        (lambda a: a.fit("CartPole-v1", validation_data=x), TypeError, "It is `validation_env` of `fit`"),
        (lambda a: a.fit("CartPole-v1", batch_size=3), TypeError, "It is `minibatch_size`"),
        (lambda a: a.fit("CartPole-v1", total_timesteps=3), TypeError, "It is `total_steps` of `fit`"),
        (lambda a: a.fit("CartPole-v1", total_step=3), TypeError, "Did you mean `total_steps`"),
        (lambda a: a.fit("CartPole-v1", 64, callbacks=[keras.callbacks.TerminateOnNaN]), TypeError, "Make one of"),
        (lambda a: a.evaluate("CartPole-v1", n_eval_episodes=3), TypeError, "It is `episodes`"),
        (lambda a: a.evaluate(x=x), TypeError, "`evaluate` has no argument `x`"),
        (lambda a: a.act(x, determinstic=True), TypeError, "Did you mean `deterministic`"),
        (lambda a: pg.estimators.GAE(lambd=0.9), TypeError, "`GAE` has no argument `lambd`"),
        (lambda a: pg.Networks(hidden_unit=(8,)), TypeError, "Did you mean `hidden_units`"),
        (lambda a: pg.PPO(n_steps=8), TypeError, "It is `horizon`"),
        (lambda a: pg.PPO(n_epochs=8), TypeError, "It is `update_epochs`"),
        (lambda a: pg.PPO(gae_lambda=0.9), TypeError, "It is `estimator="),
        (lambda a: pg.PPO(clip_range=0.1), TypeError, "It is `clip_ratio`"),
        (lambda a: pg.PPO(ent_coef=0.1), TypeError, "It is `entropy_coef`"),
        (lambda a: pg.PPO(vf_coef=0.1), TypeError, "It is `value_coef`"),
        (lambda a: pg.PPO(n_envs=8), TypeError, "It is `num_envs` of `fit`"),
        (lambda a: pg.PPO(max_grad_norm=8), TypeError, "It is `global_clipnorm`"),
        (lambda a: pg.PPO(env="CartPole-v1"), TypeError, "Give it to `fit`"),
        (lambda a: a.fit("CartPole-v1", 64, initial_epoch=10), ValueError, "`initial_epoch` must be below"),
        (
            lambda a: a.fit("CartPole-v1", 64, validation_env="CartPole-v1", validation_freq=11),
            ValueError,
            "`validation_freq` must name one",
        ),
    ],
)
def test_other_habits_are_told_what_to_do(agent, call, error, sentence):
    with pytest.raises(error, match=sentence):
        call(agent)


def test_one_callback_needs_no_list_and_lowered_epochs_are_said(agent):
    with pytest.warns(UserWarning, match="`epochs` is lowered from 5 to 2"):
        agent.fit("CartPole-v1", total_steps=16, epochs=5, callbacks=keras.callbacks.TerminateOnNaN(), verbose=0)


def test_hyperband_with_total_steps_is_refused(agent):
    class Rung(keras.callbacks.Callback):
        class trial:
            class hyperparameters:
                values = {"tuner/epochs": 2}

    with pytest.raises(ValueError, match="Give `steps_per_epoch`"):
        agent.fit("CartPole-v1", total_steps=16, epochs=2, callbacks=[Rung()], verbose=0)
