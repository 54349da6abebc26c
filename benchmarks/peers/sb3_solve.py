"""Stable-Baselines3 until it solves: `sb3_solve.py CASE_JSON STARTED [torch_threads]`, prints one JSON line.

STARTED is `time.time()` just before this process was started. From there the clock runs, through
Python's start and all imports, and stands still during evaluations.
"""

import json
import sys
import time

# RL Baselines3 Zoo, hyperparams/ppo.yml, CartPole-v1. Its lin_x is x times what is left of training.
NUM_ENVS = 8
TOTAL_STEPS = 100_000
ZOO = {
    "n_steps": 32,
    "batch_size": 256,
    "gae_lambda": 0.8,
    "gamma": 0.98,
    "n_epochs": 20,
    "ent_coef": 0.0,
    "learning_rate": lambda remaining: 1e-3 * remaining,
    "clip_range": lambda remaining: 0.2 * remaining,
}


def main(case, started, threads):
    entered = time.time()
    import gymnasium
    import stable_baselines3 as sb3
    import torch
    from stable_baselines3.common.callbacks import BaseCallback
    from stable_baselines3.common.env_util import make_vec_env
    from stable_baselines3.common.evaluation import evaluate_policy

    import_seconds = time.time() - entered
    if threads:
        torch.set_num_threads(threads)

    class UntilSolved(BaseCallback):
        """Evaluates the policy of the last update every `interval` steps; ends training when it is good enough."""

        evaluations, paused, solved = (), 0.0, False

        def evaluate(self):
            stopped = time.time()
            # Ten at once: each plays ten episodes. None of the seeds is one of training's.
            env = make_vec_env(case["env"], n_envs=10, seed=1_000_000 + 1000 * case["seed"])
            score, _ = evaluate_policy(self.model, env, case["episodes"], deterministic=True)
            env.close()
            seconds = stopped - started - self.paused
            self.evaluations = *self.evaluations, (self.num_timesteps, float(score), seconds)
            self.solved = score >= case["threshold"]
            self.paused += time.time() - stopped

        def _on_rollout_start(self):
            if not case["whole_run"] and self.num_timesteps >= case["interval"] * (len(self.evaluations) + 1):
                self.evaluate()

        def _on_step(self):
            return not self.solved

    callback = UntilSolved()
    model = sb3.PPO(
        "MlpPolicy", make_vec_env(case["env"], NUM_ENVS, seed=case["seed"]), device="cpu", seed=case["seed"], **ZOO
    )
    model.learn(TOTAL_STEPS, callback=callback, log_interval=None)
    if not callback.solved:
        callback.evaluate()  # the policy after the last update
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
            "stable-baselines3": sb3.__version__,
            "torch": torch.__version__,
            "gymnasium": gymnasium.__version__,
            "torch threads": torch.get_num_threads(),
        },
    }
    print(json.dumps(report))


if __name__ == "__main__":
    main(json.loads(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3]) if len(sys.argv) > 3 else 0)
