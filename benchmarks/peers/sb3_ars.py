"""One run of sb3-contrib's ARS: `sb3_ars.py CASE_JSON`, prints a line of JSON at each of the case's marks.

RL Baselines3 Zoo, hyperparams/ars.yml, HalfCheetah-v3: those of the paper (Mania et al. 2018), the observations
normalised.
"""

import json
import sys
import time

import gymnasium
import numpy as np
import sb3_contrib
import stable_baselines3 as sb3
import torch
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.vec_env import VecNormalize


def main(case):
    torch.set_num_threads(1)
    env = VecNormalize(make_vec_env(case["env"], 1, seed=case["seed"]), norm_obs=True, norm_reward=False)
    model = sb3_contrib.ARS(
        "LinearPolicy",
        env,
        n_delta=32,
        n_top=4,
        learning_rate=0.02,
        delta_std=0.03,
        alive_bonus_offset=0,
        device="cpu",
        seed=case["seed"],
    )
    versions = {
        "stable-baselines3": sb3.__version__,
        "sb3-contrib": sb3_contrib.__version__,
        "torch": torch.__version__,
        "gymnasium": gymnasium.__version__,
    }
    judge = VecNormalize(make_vec_env(case["env"], 1, seed=1_000_000 + 1000 * case["seed"]), training=False)
    judge.norm_reward = False
    seconds = 0.0
    for mark in case["marks"]:
        start = time.perf_counter()
        # Rates are constant, so that pieces make no difference.
        model.learn(mark - model.num_timesteps, log_interval=None, reset_num_timesteps=False)
        seconds += time.perf_counter() - start
        judge.obs_rms, episodes = env.obs_rms, 100 if mark == case["marks"][-1] else 20
        returns, _ = evaluate_policy(model, judge, episodes, deterministic=True, return_episode_rewards=True)
        evaluation = {"return": float(np.mean(returns)), "return_std": float(np.std(returns)), "episodes": episodes}
        told = {"steps": mark, "env_steps": int(model.num_timesteps), "seconds": round(seconds, 1)}
        print(json.dumps({**told, "evaluation": evaluation, "versions": versions}), flush=True)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
