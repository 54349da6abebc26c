"""Searches hyperparameters with KerasTuner: python examples/tune.py [trials] [steps] [folder] [new seeds]

A killed search goes on with the same command. Two processes beside a chief, KERASTUNER_TUNER_ID=chief, one, two:
KERASTUNER_ORACLE_IP=127.0.0.1 KERASTUNER_ORACLE_PORT=8000 KERASTUNER_TUNER_ID=one python examples/tune.py
"""

import os
import sys

import kerasrl_pg as pg

trials = int(sys.argv[1]) if len(sys.argv) > 1 else 8
steps = int(sys.argv[2]) if len(sys.argv) > 2 else 20_000
folder = sys.argv[3] if len(sys.argv) > 3 else "runs/tuning"
new_seeds = int(sys.argv[4]) if len(sys.argv) > 4 else 5

# What is searched: PPO's defaults on a compiled CartPole, and what of them may vary.
defaults = pg.Run(pg.PPO, {"CartPole": {"num_envs": 8}}, total_steps=steps)
space = pg.tuning.space(defaults)  # Ready ranges, with their sources in `pg.tuning.sources`.
space = {path: space[path] for path in ("horizon", "update_epochs", "gamma", "optimizer.learning_rate")}
space["minibatch_size"] = [64, 128]

# A trial trains three seeds; its score is their mean return in the last of five evaluations.
hyper = pg.tuning.HyperAgent(defaults, space=space, seeds=3, stopping=pg.tuning.Median())
tuner = pg.tuning.tuner("random", hyper, f"{folder}/cartpole", trials)  # Or "bayesian", "hyperband", "grid".
tuner.oracle.verbose = 0  # Instead of KerasTuner's dozen lines a trial, the one of `HyperAgent`.
tuner.search()

if "KERASTUNER_ORACLE_IP" not in os.environ:
    found = pg.tuning.results(tuner)
    print(found.markdown())
    found.write(folder)  # trials.csv, trials.md and, with matplotlib, trials.png.
    found.save_best(f"{folder}/best.yaml")  # For `kerasrl-pg train --config`.
    print(found.retrain(new_seeds, folder=f"{folder}/retraining"))
