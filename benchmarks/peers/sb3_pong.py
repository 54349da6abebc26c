"""Stable-Baselines3's PPO on Pong, timed: `sb3_pong.py CASE_JSON [torch_threads]`, prints one JSON line.

Its NatureCNN with nothing between it and the two heads is CleanRL's network; the environment is that of `pong.py`.
"""

import json
import sys

import ale_py
import gymnasium as gym
import stable_baselines3 as sb3
import torch
from clock import Clock
from stable_baselines3.common.env_util import make_vec_env

gym.register_envs(ale_py)


def pong():
    env = gym.make("ALE/Pong-v5", frameskip=1, repeat_action_probability=0.0)
    return gym.wrappers.FrameStackObservation(gym.wrappers.AtariPreprocessing(env), 4)


def main(case, threads):
    if threads:
        torch.set_num_threads(threads)
    model = sb3.PPO(
        "CnnPolicy",
        make_vec_env(pong, n_envs=case["num_envs"], seed=case["seed"]),
        n_steps=case["horizon"],
        batch_size=case["rows"],
        n_epochs=case["update_epochs"],
        clip_range=case["clip_ratio"],
        ent_coef=case["entropy_coef"],
        learning_rate=2.5e-4,
        max_grad_norm=0.5,
        policy_kwargs={"net_arch": []},
        device="cpu",
        seed=case["seed"],
    )
    clock = Clock(1)
    model.learn((case["iterations"] + 1) * case["horizon"] * case["num_envs"], callback=clock, log_interval=None)
    report = clock.report(model, {"stable-baselines3": sb3.__version__, "torch": torch.__version__})
    print(json.dumps({key: report[key] for key in ("steps_per_second", "versions")}))


if __name__ == "__main__":
    main(json.loads(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 0)
