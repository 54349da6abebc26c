"""One run of kerasrl_pg: `ours_run.py CASE_JSON`, prints one JSON line, as the peers do."""

import json
import sys
import time

import gymnasium
import keras
import tensorflow as tf

import kerasrl_pg as pg


class Clock(keras.callbacks.Callback):
    """Notes the time and the step count when iteration `warmup` (from 0) begins."""

    def __init__(self, warmup):
        super().__init__()
        self.warmup = warmup
        self.iterations = 0

    def on_train_batch_begin(self, batch, logs=None):
        if self.iterations == self.warmup:
            self.first_step = int(self.model.env_steps.numpy())
            self.started = time.perf_counter()
        self.iterations += 1


def make_agent(case):
    """The agent of a case. The peers' value loss is the whole squared error, ours half of it."""
    arguments = {
        "horizon": case["horizon"],
        "gamma": case["gamma"],
        "estimator": pg.estimators.GAE(case["gae_lambda"]),
        "value_coef": 2.0 * case["value_coef"],
        "entropy_coef": case["entropy_coef"],
        "seed": case["seed"],
    }
    rate, norm = case["learning_rate"], case["max_grad_norm"]
    if case["algorithm"] == "recurrent_ppo":
        arguments["policy"], arguments["critic"] = recurrent(case)
        arguments["sequence_length"] = case.get("sequence_length")
    if case["algorithm"] != "a2c":
        agent = pg.PPO(
            update_epochs=case["update_epochs"],
            minibatch_size=case["minibatch_size"],
            clip_ratio=case["clip_ratio"],
            **arguments,
        )
        agent.compile(keras.optimizers.Adam(rate, epsilon=1e-5, global_clipnorm=norm))
    else:
        agent = pg.A2C(**arguments)
        # The peers' epsilon, 1e-5, stands beside the root; Keras adds its own under the root.
        agent.compile(keras.optimizers.RMSprop(rate, 0.99, epsilon=1e-10, global_clipnorm=norm))
    return agent


def recurrent(case):
    """The peer's two networks for CartPole: an LSTM, and behind it 64 x 64 tanh."""

    def trunk():
        x = observation = keras.Input((2,))
        x = pg.models.LSTM(case["lstm_units"])(x)
        for _ in range(2):
            x = keras.layers.Dense(64, "tanh", kernel_initializer=keras.initializers.Orthogonal(2.0**0.5))(x)
        return observation, x

    keras.utils.set_random_seed(case["seed"])
    observation, x = trunk()
    policy = keras.Model(
        observation, pg.heads.Categorical(2, kernel_initializer=keras.initializers.Orthogonal(0.01))(x)
    )
    observation, x = trunk()
    return policy, keras.Model(observation, pg.heads.NormalValue()(x))


def main(case):
    agent = make_agent(case)
    clock = Clock(case["warmup"])
    steps = case["steps"] + case["warmup"] * case["horizon"] * case["num_envs"]
    history = agent.fit(
        case["env"],
        total_steps=steps,
        num_envs=case["num_envs"],
        epochs=1,
        callbacks=[clock],
        verbose=0,
    )
    seconds = time.perf_counter() - clock.started
    steps = int(agent.env_steps.numpy()) - clock.first_step
    report = {
        "steps_per_second": steps / seconds,
        "steps": steps,
        "seconds": seconds,
        "iterations": clock.iterations - clock.warmup,
        "last_returns": history.history["episode_return"][-1],
        "versions": {
            "kerasrl-pg": pg.__version__,
            "tensorflow": tf.__version__,
            "keras": keras.__version__,
            "gymnasium": gymnasium.__version__,
        },
    }
    print(json.dumps(report))


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
