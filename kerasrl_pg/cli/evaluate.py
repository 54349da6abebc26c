"""evaluates saved agents, and compares them.

    kerasrl-pg evaluate --from=runs/cartpole --episodes=100
    kerasrl-pg evaluate --from=runs/five --from=runs/cartpole/agent.keras --env=CartPole-v1 --seeds=3 --json=table.json

--from is a saved agent or a run's folder, and may be given more than once; a folder of several seeds stands for all of
them. Where --env is left out, the run's own environment is taken.
"""

import json
from pathlib import Path

from absl import app, flags

from kerasrl_pg.cli.command import need, no_more
from kerasrl_pg.cli.folder import Folder, load


def define(values):
    """Defines the flags."""
    kind = {"flag_values": values}
    flags.DEFINE_multi_string("from", [], "A saved agent (.keras) or a run's folder; more than once.", **kind)
    flags.DEFINE_list("env", [], "Gymnasium ids, with commas between; else each run's own.", **kind)
    flags.DEFINE_integer("episodes", 100, "For each agent, environment and seed.", lower_bound=1, **kind)
    flags.DEFINE_integer("seed", 0, "Of environments and samples.", lower_bound=0, **kind)
    flags.DEFINE_integer("seeds", 1, "Evaluate so often, from --seed on.", lower_bound=1, **kind)
    flags.DEFINE_bool("deterministic", True, "The policy's mode, not its samples.", **kind)
    flags.DEFINE_string("json", None, "Where to write all figures, too.", **kind)


def run(values, positional):
    """Evaluates all of them, and prints a line, or a table."""
    from kerasrl_pg.cli.train import say

    no_more(positional, "from")
    need(values, "from")
    results = []
    for given in values["from"].value:
        for path in _members(given):
            agent = load(path)
            for name, env in _environments(values, path):
                for seed in range(values.seed, values.seed + values.seeds):
                    result = agent.evaluate(
                        env, episodes=values.episodes, deterministic=values.deterministic, seed=seed
                    )
                    result = {key: v.item() if hasattr(v, "item") else v for key, v in result.items()}
                    results.append({"from": str(path), "env": name, "seed": seed, **result})
    if len(results) == 1:
        say(results[0])
    else:
        print(table(results))
    if values.json:
        Path(values.json).write_text(json.dumps(results, indent=1) + "\n", encoding="utf8")


def _members(given):
    folder = Folder(given)
    seeds = folder.seeds() if folder.path.is_dir() and not folder.agent.exists() else []
    return [seed.path for seed in seeds] or [Path(given)]


def _environments(values, path):
    """Names and what to give to `evaluate`."""
    if values.env:
        return [(name, name) for name in values.env]
    from kerasrl_pg.run import Run

    folder = Folder(path if path.is_dir() else path.parent)
    if not folder.run.exists():
        raise app.UsageError(f"--env must be given for an agent that is in no run's folder. Received: --from={path}.")
    made = Run.load(folder.run)
    return [(made.env_name, made.make_env())]


def table(results):
    """Results in columns: one row an agent and environment, with the mean over seeds."""
    groups = {}
    for result in results:
        groups.setdefault((result["from"], result["env"]), []).append(result)
    rows = [("agent", "environment", "return", "std", "min", "max", "episodes")]
    for (agent, env), group in groups.items():
        mean = sum(r["return"] for r in group) / len(group)
        std = sum(r["return_std"] for r in group) / len(group)
        low, high = min(r["return_min"] for r in group), max(r["return_max"] for r in group)
        episodes = sum(r["episodes"] for r in group)
        rows.append((agent, env, f"{mean:.1f}", f"{std:.1f}", f"{low:.1f}", f"{high:.1f}", str(episodes)))
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if i < 2 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    )
