"""One run of RLlib's PPO: `rllib_run.py CASE_JSON`, prints one JSON line. Steps a second after the first iterations."""

import json
import statistics
import sys
import time

import ray
import torch
from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.core.rl_module.default_model_config import DefaultModelConfig


def main(case):
    workers = case["workers"]
    ray.init(num_cpus=max(2, workers), include_dashboard=False, log_to_driver=False, logging_level="error")
    steps = case["num_envs"] * case["horizon"]
    config = (
        PPOConfig()
        .environment("CartPole-v1")
        .env_runners(
            num_env_runners=workers,
            num_envs_per_env_runner=case["num_envs"] // max(1, workers),
            rollout_fragment_length=case["horizon"],
        )
        .learners(num_learners=0)
        .training(
            train_batch_size_per_learner=steps,
            num_epochs=case["update_epochs"],
            minibatch_size=case["minibatch_size"],
            lr=case["learning_rate"],
            grad_clip=0.5,
        )
        .rl_module(model_config=DefaultModelConfig(fcnet_hiddens=case["hidden"], vf_share_layers=False))
        .debugging(seed=case["seed"], log_level="ERROR")
    )
    torch.set_num_threads(1)
    algorithm = config.build_algo()
    speeds = []
    for _ in range(4):
        begun, played = time.perf_counter(), 0
        for _ in range(case["iterations"]):
            played += algorithm.train()["env_runners"]["num_env_steps_sampled"]
        speeds.append(played / (time.perf_counter() - begun))
    algorithm.stop()
    versions = {"ray": ray.__version__, "torch": torch.__version__}
    print(json.dumps({"steps_per_second": statistics.median(speeds[1:]), "rllib": versions}))


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
