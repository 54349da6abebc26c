"""Stable-Baselines3-Contrib's TRPO updates, timed: `sb3_trpo_update.py CASE_JSON [torch_threads]`, one JSON line."""

import copy
import json
import sys
import time

import sb3_contrib
import torch
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.logger import Logger


def main(case, threads):
    if threads:
        torch.set_num_threads(threads)
    model = sb3_contrib.TRPO(
        "MlpPolicy",
        make_vec_env(case["env"], n_envs=1, seed=case["seed"]),
        learning_rate=case["learning_rate"],
        n_steps=case["samples"],
        batch_size=case["minibatch_size"],
        gamma=case["gamma"],
        gae_lambda=case["gae_lambda"],
        cg_max_steps=case["cg_iterations"],
        cg_damping=case["damping"],
        line_search_shrinking_factor=case["backtrack_ratio"],
        line_search_max_iter=case["backtracks"] + 1,  # it counts the whole step, too
        n_critic_updates=case["critic_passes"],
        target_kl=case["max_kl"],
        policy_kwargs={"net_arch": {"pi": [64, 64], "vf": [64, 64]}},
        device="cpu",
        seed=case["seed"],
    )
    model.set_logger(Logger(None, []))
    _, callback = model._setup_learn(case["samples"], None)
    model.collect_rollouts(model.env, callback, model.rollout_buffer, case["samples"])
    start = copy.deepcopy((model.policy.state_dict(), model.policy.optimizer.state_dict()))
    seconds = []
    for _ in range(case["warmup"] + case["updates"]):
        policy, optimizer = copy.deepcopy(start)
        model.policy.load_state_dict(policy)
        model.policy.optimizer.load_state_dict(optimizer)
        started = time.perf_counter()
        model.train()
        seconds.append(time.perf_counter() - started)
    logs = model.logger.name_to_value
    report = {
        "seconds": seconds[case["warmup"] :],
        "first_call": seconds[0],
        # What it logs is the mean over the action's dimensions.
        "kl": float(logs["train/kl_divergence_loss"]) * model.action_space.shape[0],
        "versions": {
            "sb3-contrib": sb3_contrib.__version__,
            "torch": torch.__version__,
            "torch threads": torch.get_num_threads(),
        },
    }
    print(json.dumps(report))


if __name__ == "__main__":
    main(json.loads(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 0)
