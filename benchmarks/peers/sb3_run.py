"""One run of Stable-Baselines3 or its Contrib: `sb3_run.py CASE_JSON [torch_threads]`, prints one JSON line."""

import json
import sys

import gymnasium
import sb3_contrib
import stable_baselines3 as sb3
import torch
from clock import Clock
from stable_baselines3.common.env_util import make_vec_env


def main(case, threads):
    if threads:
        torch.set_num_threads(threads)
    # make_vec_env is what its manual and its zoo use: a DummyVecEnv of monitored environments.
    masked = case["algorithm"] == "maskable_ppo"
    env = make_vec_env(
        case["env"], n_envs=case["num_envs"], seed=case["seed"], env_kwargs={"told": False} if masked else None
    )
    arguments = {
        "n_steps": case["horizon"],
        "gamma": case["gamma"],
        "gae_lambda": case["gae_lambda"],
        "learning_rate": case["learning_rate"],
        "ent_coef": case["entropy_coef"],
        "vf_coef": case["value_coef"],
        "max_grad_norm": case["max_grad_norm"],
        "policy_kwargs": {"net_arch": {"pi": [64, 64], "vf": [64, 64]}},
        "device": "cpu",
        "seed": case["seed"],
    }
    if case["algorithm"] == "a2c":
        model = sb3.A2C("MlpPolicy", env, **arguments)
    else:
        if case["algorithm"] == "recurrent_ppo":
            arguments["policy_kwargs"]["lstm_hidden_size"] = case["lstm_units"]
        method, policy = {
            "ppo": (sb3.PPO, "MlpPolicy"),
            "recurrent_ppo": (sb3_contrib.RecurrentPPO, "MlpLstmPolicy"),
            "maskable_ppo": (sb3_contrib.MaskablePPO, "MlpPolicy"),
        }[case["algorithm"]]
        model = method(
            policy,
            env,
            n_epochs=case["update_epochs"],
            batch_size=case["minibatch_size"],
            clip_range=case["clip_ratio"],
            **arguments,
        )
    clock = Clock(case["warmup"])
    steps = case["steps"] + case["warmup"] * case["horizon"] * case["num_envs"]
    model.learn(steps, callback=clock, log_interval=None)
    versions = {
        "stable-baselines3": sb3.__version__,
        "sb3-contrib": sb3_contrib.__version__,
        "torch": torch.__version__,
        "gymnasium": gymnasium.__version__,
        "torch threads": torch.get_num_threads(),
    }
    print(json.dumps(clock.report(model, versions)))


if __name__ == "__main__":
    main(json.loads(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 0)
