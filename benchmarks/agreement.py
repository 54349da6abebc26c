"""Do compiled training and compiled evaluation give what gymnasium gives? About ten minutes.

    python benchmarks/agreement.py

One preset's settings and seeds train twice, on gymnasium's environment and on ours of the same name. Every policy is
then evaluated in both.
"""

import argparse
import datetime
import importlib.metadata
import json
import os
import platform
import warnings
from pathlib import Path

RESULTS = Path(__file__).parent / "results" / "agreement.json"
ENVS = {"PPO_CARTPOLE": "CartPole", "PPO_ACROBOT": "Acrobot", "PPO_PENDULUM": "Pendulum"}
EPISODES = 100


def measure(name, seeds):
    """Returns by training and evaluation: `{"host": {"host": [seeds], "compiled": ...}, "compiled": ...}`."""
    from kerasrl_pg import envs, presets
    from kerasrl_pg import seeds as many

    preset = presets.ALL[name]
    compiled = getattr(envs, ENVS[name])(num_envs=preset.num_envs)
    places = {"host": preset.env, "compiled": compiled}
    returns = {}
    for training, env in places.items():
        returns[training] = {evaluation: [] for evaluation in places}
        agent = None
        for seed in range(seeds):
            fresh = preset.agent(seed)
            if agent is None:
                agent = fresh
            else:
                many.restart(agent, fresh)
            preset.fit(agent, env=env, epochs=1, verbose=0, **({} if training == "host" else {"num_envs": None}))
            for evaluation, judge in places.items():
                result = agent.evaluate(judge, EPISODES, seed=1_000_000 + 1000 * seed)["return"]
                returns[training][evaluation].append(result)
            print(name, training, seed, {k: round(v[-1], 1) for k, v in returns[training].items()}, flush=True)
    return returns


def table(result):
    """The record as Markdown."""
    from kerasrl_pg.seeds import bootstrap_interval, interquartile_mean

    def cell(values):
        low, high = bootstrap_interval(values)
        return f"{interquartile_mean(values):.1f} [{low:.1f}, {high:.1f}]"

    lines = [
        "# Compiled and gymnasium's environments agree",
        "",
        f"A preset's settings, {result['seeds']} seeds, trained in one place; return of the final policy in "
        f"either place: mean of {EPISODES} deterministic episodes a seed, then the interquartile mean over seeds "
        "with its 95 % bootstrap interval. Difference: of a policy's two evaluations, mean and standard error over "
        "all policies of a row.",
        "",
        "| preset | trained in | evaluated in gymnasium | evaluated compiled | difference |",
        "| --- | --- | ---: | ---: | ---: |",
    ]
    for name, by_training in result["returns"].items():
        for training, by_evaluation in by_training.items():
            host, compiled = by_evaluation["host"], by_evaluation["compiled"]
            gaps = [a - b for a, b in zip(host, compiled, strict=True)]
            mean = sum(gaps) / len(gaps)
            error = (sum((gap - mean) ** 2 for gap in gaps) / (len(gaps) - 1) / len(gaps)) ** 0.5
            lines.append(
                f"| {name} | {'gymnasium' if training == 'host' else 'compiled'} | {cell(host)} | {cell(compiled)} "
                f"| {mean:.2f} ± {error:.2f} |"
            )
    return "\n".join(
        [
            *lines,
            "",
            f"{result['date']}, Python {platform.python_version()}, {result['versions']}.",
            "",
            f"    python benchmarks/agreement.py --seeds={result['seeds']}",
            "",
        ]
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seeds", type=int, default=10)
    arguments = parser.parse_args()
    if arguments.seeds < 2:
        parser.error(f"--seeds must be at least 2. Received: {arguments.seeds}.")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    warnings.filterwarnings("ignore", category=DeprecationWarning)
    packages = ("kerasrl-pg", "tensorflow", "keras", "gymnasium")
    result = {
        "date": datetime.date.today().isoformat(),
        "versions": ", ".join(f"{name} {importlib.metadata.version(name)}" for name in packages),
        "seeds": arguments.seeds,
        "returns": {name: measure(name, arguments.seeds) for name in ENVS},
    }
    RESULTS.write_text(json.dumps(result, indent=1) + "\n")
    RESULTS.with_suffix(".md").write_text(table(result))


if __name__ == "__main__":
    main()
