"""One run of PureJaxRL's PPO: `purejaxrl_run.py CASE_JSON CHECKOUT`, prints one JSON line.

Its `purejaxrl/ppo.py` is imported from the checkout as it stands, and told what its own `__main__`
tells it but for the case's `num_envs`, `horizon`, `steps` and `seed`, and without its printing.
With `seeds` in the case that many agents are trained side by side by `jax.vmap`, as its walkthrough does.
Importing it also imports brax and navix, for environments that are not used here: `wrappers.py`
asks for them, so they are part of what its user waits for.
"""

import json
import subprocess
import sys
import time
from importlib import metadata
from pathlib import Path

# Its `__main__`, word for word but for what the case says; DEBUG prints every episode's return.
CONFIG = {
    "LR": 2.5e-4,
    "UPDATE_EPOCHS": 4,
    "NUM_MINIBATCHES": 4,
    "GAMMA": 0.99,
    "GAE_LAMBDA": 0.95,
    "CLIP_EPS": 0.2,
    "ENT_COEF": 0.01,
    "VF_COEF": 0.5,
    "MAX_GRAD_NORM": 0.5,
    "ACTIVATION": "tanh",
    "ENV_NAME": "CartPole-v1",
    "ANNEAL_LR": True,
    "DEBUG": False,
}
EPISODES = 100  # the returns of the last so many are averaged


def commit(checkout):
    """The checkout's commit, with a + where its files differ from it; None where git does not know."""
    git = ["git", "-C", str(checkout), "describe", "--always", "--abbrev=40", "--dirty=+"]
    done = subprocess.run(git, capture_output=True, text=True)
    return done.stdout.strip() or None


def main(case, checkout):
    started = time.perf_counter()
    sys.path.insert(0, str(checkout / "purejaxrl"))
    import jax
    import numpy as np
    import ppo

    imported = time.perf_counter()
    config = {
        **CONFIG,
        "NUM_ENVS": case["num_envs"],
        "NUM_STEPS": case["horizon"],
        "TOTAL_TIMESTEPS": case["steps"],
    }
    train, seeds = ppo.make_train(config), case.get("seeds", 1)
    rng = jax.random.PRNGKey(case["seed"])
    if seeds > 1:
        train, rng = jax.vmap(train), jax.random.split(rng, seeds)
    compiled = jax.jit(train).lower(rng).compile()
    ready = time.perf_counter()
    out = jax.block_until_ready(compiled(rng))
    seconds = time.perf_counter() - ready

    steps = seeds * config["NUM_UPDATES"] * config["NUM_STEPS"] * config["NUM_ENVS"]
    # [updates, T, N] for each seed: in the order of time, so that the last episodes come last.
    metrics = {name: np.asarray(value).reshape(seeds, -1) for name, value in out["metrics"].items()}
    ends = zip(metrics["returned_episode_returns"], metrics["returned_episode"], strict=True)
    returns = [float(values[ended][-EPISODES:].mean()) for values, ended in ends]
    packages = ("jax", "jaxlib", "flax", "optax", "distrax", "gymnax", "brax", "navix")
    report = {
        "steps_per_second": steps / seconds,
        "steps": steps,
        "seconds": seconds,
        "import_seconds": imported - started,
        "compile_seconds": ready - imported,
        "last_returns": sum(returns) / seeds,
        "versions": {
            "purejaxrl": commit(checkout),
            **{package: metadata.version(package) for package in packages},
        },
    }
    print(json.dumps(report))


if __name__ == "__main__":
    main(json.loads(sys.argv[1]), Path(sys.argv[2]))
