"""One run of SBX, Stable-Baselines3 in JAX: `sbx_run.py CASE_JSON`, prints one JSON line."""

import json
import sys

import gymnasium
import jax
import sbx
import torch
from clock import Clock
from stable_baselines3.common.env_util import make_vec_env


def main(case, threads):
    if threads:
        torch.set_num_threads(threads)  # its rollout buffer still hands out torch tensors
    env = make_vec_env(case["env"], n_envs=case["num_envs"], seed=case["seed"])
    model = sbx.PPO(
        "MlpPolicy",
        env,
        n_steps=case["horizon"],
        n_epochs=case["update_epochs"],
        batch_size=case["minibatch_size"],
        gamma=case["gamma"],
        gae_lambda=case["gae_lambda"],
        learning_rate=case["learning_rate"],
        clip_range=case["clip_ratio"],
        ent_coef=case["entropy_coef"],
        vf_coef=case["value_coef"],
        max_grad_norm=case["max_grad_norm"],
        policy_kwargs={"net_arch": {"pi": [64, 64], "vf": [64, 64]}},
        device="cpu",
        seed=case["seed"],
    )
    clock = Clock(case["warmup"])
    steps = case["steps"] + case["warmup"] * case["horizon"] * case["num_envs"]
    model.learn(steps, callback=clock, log_interval=None)
    versions = {
        "sbx-rl": sbx.__version__,
        "jax": jax.__version__,
        "gymnasium": gymnasium.__version__,
        "torch threads": torch.get_num_threads(),
    }
    print(json.dumps(clock.report(model, versions)))


if __name__ == "__main__":
    main(json.loads(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 0)
