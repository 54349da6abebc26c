"""One run of kerasrl_pg on its own CartPole: `ours_compiled_run.py CASE_JSON`, prints one JSON line.

The settings are those of `peers/purejaxrl_run.py`. That side compiles before it runs; here the first
call does both, so the clock of the steps starts after it, and its share of running is taken off
the time to compile.
"""

import json
import sys
import time


def main(case):
    started = time.perf_counter()
    import keras
    import tensorflow as tf

    import kerasrl_pg as pg

    imported = time.perf_counter()

    class FirstCall(keras.callbacks.Callback):
        """Notes the time and the step count when the first call is over."""

        over = None

        def on_train_batch_end(self, batch, logs=None):
            if self.over is None:
                self.over = time.perf_counter()
                self.steps = int(self.model.env_steps.numpy())

    def make_agent(seed):
        agent = pg.PPO(
            horizon=case["horizon"],
            update_epochs=4,
            minibatch_size=case["horizon"] * case["num_envs"] // 4,
            entropy_coef=0.01,
            value_coef=0.5,  # of half the squared error, as there
            value_clip=0.2,
            anneal_learning_rate=True,
            seed=seed,
        )
        optimizer = keras.optimizers.Adam(2.5e-4, epsilon=1e-5, global_clipnorm=0.5)
        agent.compile(optimizer, steps_per_execution=case["steps_per_execution"])
        return agent

    first_call, env = FirstCall(), pg.envs.CartPole(num_envs=case["num_envs"])
    budget = {"total_steps": case["steps"], "epochs": 1, "verbose": 0}
    if "seeds" in case:
        # Evaluations are none of PureJaxRL's business, so that there is only a token one.
        runs = pg.fit_seeds(
            make_agent, env, case["seeds"], episodes=1, callbacks=lambda seed: [first_call] * (seed == 0), **budget
        )
        histories = runs.histories
    else:
        histories = [make_agent(case["seed"]).fit(env, callbacks=[first_call], **budget).history]
    seconds = time.perf_counter() - first_call.over
    steps = len(histories) * case["steps"] - first_call.steps
    report = {
        "steps_per_second": steps / seconds,
        "steps": steps,
        "seconds": seconds,
        "import_seconds": imported - started,
        "compile_seconds": first_call.over - imported - first_call.steps * seconds / steps,
        "last_returns": sum(history["episode_return"][-1] for history in histories) / len(histories),
        "versions": {
            "kerasrl-pg": pg.__version__,
            "tensorflow": tf.__version__,
            "keras": keras.__version__,
        },
    }
    print(json.dumps(report))


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
