"""kerasrl_pg until it solves: `ours_solve.py CASE_JSON STARTED`, prints one JSON line, as `peers/sb3_solve.py` does.

STARTED is `time.time()` just before this process was started. From there the clock runs, through
Python's start, all imports and compilation, and stands still during evaluations.
"""

import json
import sys
import time

# Chosen for the clock and not for the steps, which cost microseconds here; six of six seeds ended at 500 (0 to 5).
NUM_ENVS, HORIZON, ITERATIONS = 32, 64, 64


def main(case, started):
    entered = time.time()
    import gymnasium
    import keras
    import tensorflow as tf

    import kerasrl_pg as pg

    import_seconds = time.time() - entered

    class UntilSolved(keras.callbacks.Callback):
        """Evaluates the policy after every epoch; ends training when it is good enough."""

        evaluations, paused, solved = (), 0.0, False

        def on_epoch_end(self, epoch, logs=None):
            stopped = time.time()
            # None of the seeds is one of training's.
            seed = 1_000_000 + 1000 * case["seed"]
            score = self.model.evaluate(case["env"], episodes=case["episodes"], num_envs=10, seed=seed)["return"]
            seconds = stopped - started - self.paused
            self.evaluations = *self.evaluations, (int(self.model.env_steps.numpy()), score, seconds)
            self.solved = score >= case["threshold"]
            self.model.stop_training = self.solved
            self.paused += time.time() - stopped

    # Every 16,384 steps, or at the end of the run alone.
    epochs = 1 if case["whole_run"] else 8
    agent = pg.PPO(
        horizon=HORIZON,
        update_epochs=4,
        minibatch_size=512,
        value_coef=1.0,
        anneal_learning_rate=True,
        seed=case["seed"],
    )
    # One call from an evaluation to the next.
    agent.compile(keras.optimizers.Adam(3e-3, epsilon=1e-5, global_clipnorm=0.5), steps_per_execution=ITERATIONS)
    callback = UntilSolved()
    agent.fit(
        pg.envs.CartPole(num_envs=NUM_ENVS),
        epochs=epochs,
        steps_per_epoch=ITERATIONS // epochs,
        callbacks=[callback],
        verbose=0,
    )
    steps, score, seconds = callback.evaluations[-1]
    report = {
        "solved": bool(callback.solved),
        "seconds": seconds,
        "steps": steps,
        "return": score,
        "import_seconds": import_seconds,
        "evaluation_seconds": callback.paused,
        "evaluations": callback.evaluations,
        "versions": {
            "kerasrl-pg": pg.__version__,
            "tensorflow": tf.__version__,
            "keras": keras.__version__,
            "gymnasium": gymnasium.__version__,
        },
    }
    print(json.dumps(report))


if __name__ == "__main__":
    main(json.loads(sys.argv[1]), float(sys.argv[2]))
