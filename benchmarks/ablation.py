"""Implementation matters: PPO's code-level optimisations, each switched off, and TRPO with and without them.

    .venv/bin/python benchmarks/ablation.py --processes=2
    .venv/bin/python benchmarks/ablation.py --processes=2 --alone
    .venv/bin/python benchmarks/ablation.py --env=Hopper-v5 --variant=PPO --variant="TRPO with all"

The question of Engstrom et al. 2020 (arXiv 2005.12729) and Andrychowicz et al. 2021 (arXiv 2006.05990). With `--alone`
each is switched on alone, too. Every cell, a variant in an environment, is a process of its own, which trains its seeds
by `pg.fit_seeds`; what it gives is kept in `results/ablation.json` at once and not run again. At the end
`results/ablation.md` and `ablation.png` are made from that file.
"""

import argparse
import json
import platform
import statistics
import time
from pathlib import Path

from records import Records, fingerprint, origin, run_all, run_apart, told

RESULTS = Path(__file__).parent / "results" / "ablation.json"
# The double pendulum pays up to 9.4 a step, so that scaling tells, and just less than the clip of unscaled rewards.
ENVS = ("HalfCheetah-v5", "Hopper-v5", "InvertedDoublePendulum-v5")
STEPS = 300_000
EPISODES = 20
REWARD_CLIP = 10.0
# The order of Engstrom et al., A.1; then advantage normalisation, which they leave on.
OPTIMISATIONS = (
    "value clipping",
    "reward scaling",
    "orthogonal initialisation",
    "learning-rate annealing",
    "reward clipping",
    "observation normalisation",
    "observation clipping",
    "tanh",
    "gradient clipping",
    "advantage normalisation",
)
ALL = frozenset(OPTIMISATIONS)
# Name: (method, what is on). TRPO has neither a clipped critic nor a rate of the policy to anneal: its critic has.
COMMON = {
    "PPO": ("PPO", ALL),
    **{f"PPO without {name}": ("PPO", ALL - {name}) for name in OPTIMISATIONS},
    # A critic bounded to changes of 0.2 cannot follow returns that are not scaled: what is left when neither is on.
    "PPO without reward scaling and value clipping": ("PPO", ALL - {"reward scaling", "value clipping"}),
    "PPO without ratio clipping": ("PPO-NoClip", ALL),
    "PPO without any": ("PPO", frozenset()),
    "TRPO with all": ("TRPO", ALL),
    "TRPO without any": ("TRPO", frozenset()),
}
# What clips observations is the normaliser, so this one cannot be on alone.
ALONE = {
    f"PPO with {name} alone": ("PPO", frozenset({name})) for name in OPTIMISATIONS if name != "observation clipping"
}
VARIANTS = {**COMMON, **ALONE}
RECORDS = Records(RESULTS, lambda r: (ENVS.index(r["env"]), list(VARIANTS).index(r["variant"]), r["seed"]))


def measured(method):
    """`method`, logging the divergence of each whole update, which PPO's own logs do not tell."""
    from kerasrl_pg import ops

    class Measured(method):
        def train_step(self, rollout):
            observations, valid = ops.flatten_time((rollout.inputs.observations, rollout.valid))
            old = self.policy(observations)
            logs = super().train_step(rollout)
            kl = old.kl_divergence(self.policy(observations))
            return {**logs, "update_kl": ops.masked_mean(kl, valid)}

    return Measured


def make_agent(method, on, seed):
    """A compiled agent with the optimisations that are `on`."""
    import keras

    import kerasrl_pg as pg

    given = {
        "horizon": 512,
        "minibatch_size": 64,
        "reward_scaling": "reward scaling" in on,
        "reward_clip": REWARD_CLIP if "reward clipping" in on else None,
        "anneal_learning_rate": "learning-rate annealing" in on,
        "networks": pg.Networks(
            activation="tanh" if "tanh" in on else "relu",
            orthogonal="orthogonal initialisation" in on,
            normalize_observations="observation normalisation" in on,
            observation_clip=10.0 if "observation clipping" in on else None,
        ),
        "seed": seed,
    }
    rate = 3e-4
    normalize = "advantage normalisation" in on
    if method == "TRPO":
        agent = measured(pg.TRPO)(normalize_advantages=normalize, **given)
        rate = 1e-3
    else:
        agent = measured(pg.PPO)(
            value_clip=0.2 if "value clipping" in on else None,
            normalize_advantages="minibatch" if normalize else False,
            clip_ratio=0.2 if method == "PPO" else 1e6,
            **given,
        )
    clipnorm = 0.5 if "gradient clipping" in on else None
    agent.compile(keras.optimizers.Adam(rate, epsilon=1e-5, global_clipnorm=clipnorm))
    return agent


def settings(variant):
    """All that determines a run but its environment and seed, as JSON can hold it."""
    agent = make_agent(*VARIANTS[variant], 0)
    return {"method": type(agent).__mro__[1].__name__, "total_steps": STEPS, **told(agent)}


def train(variant, env, seeds):
    """The runs of one cell, in this process; their records."""
    import kerasrl_pg as pg

    runs = pg.fit_seeds(
        lambda seed: make_agent(*VARIANTS[variant], seed),
        env,
        seeds,
        episodes=EPISODES,
        total_steps=STEPS,
        num_envs=4,
        epochs=10,
        verbose=0,
    )
    return [
        {
            "variant": variant,
            "env": env,
            "seed": seed,
            "settings": fingerprint(settings(variant)),
            "evaluation": evaluation,
            "training_return": history["episode_return"][-1],
            "kl": statistics.mean(history["update_kl"]),
            **origin(),
        }
        for seed, evaluation, history in zip(*runs, strict=True)
    ]


def returns(records, variant, env, what="evaluation"):
    """[seeds] of one cell, returns or what else is named."""
    cell = [r for r in records if (r["variant"], r["env"]) == (variant, env)]
    return [r["evaluation"]["return"] if what == "evaluation" else r[what] for r in cell]


def table(records):
    """`ablation.md`."""
    from kerasrl_pg.seeds import bootstrap_interval, interquartile_mean

    def cell(values):
        if not values:
            return "-"
        low, high = bootstrap_interval(values)
        return f"{interquartile_mean(values):.0f} [{low:.0f}, {high:.0f}]"

    lines = [
        "# Implementation matters",
        "",
        f"Return after {STEPS:,} steps: {EPISODES} deterministic episodes with the final policy of each seed; "
        "interquartile mean over seeds and its 95 % bootstrap interval. KL: mean KL(π_old || π) of a whole update over "
        "its rollout, nats, in closed form, mean over updates, then median over seeds, by environment.",
        "",
        f"| variant | seeds | {' | '.join(ENVS)} | KL |",
        f"| --- | ---: |{' ---: |' * (len(ENVS) + 1)}",
    ]
    for variant in VARIANTS:
        rows = [r for r in records if r["variant"] == variant]
        if rows:
            cells = [cell(returns(rows, variant, env)) for env in ENVS]
            counts = {len(returns(rows, variant, env)) for env in ENVS}
            seeds = f"{min(counts)}" if len(counts) == 1 else f"{min(counts)} to {max(counts)}"
            kls = [returns(rows, variant, env, "kl") for env in ENVS]
            kl = ", ".join(f"{statistics.median(values):.2g}" if values else "-" for values in kls)
            lines.append(f"| {variant} | {seeds} | {' | '.join(cells)} | {kl} |")
    missing = [v for v in COMMON if any(not returns(records, v, env) for env in ENVS)]
    if missing:
        lines += ["", f"Not yet measured, or not everywhere: {', '.join(missing)}."]
    lines += [
        "",
        "Mean return of the last 100 episodes of training, actions sampled; on HalfCheetah they are its last third:",
        "",
        f"| variant | {' | '.join(ENVS)} |",
        f"| --- |{' ---: |' * len(ENVS)}",
    ]
    for variant in VARIANTS:
        cells = [cell(returns(records, variant, env, "training_return")) for env in ENVS]
        if any(text != "-" for text in cells):
            lines.append(f"| {variant} | {' | '.join(cells)} |")
    versions = sorted({f"{k} {v}" for r in records for k, v in r["versions"].items()})
    return "\n".join(
        [
            *lines,
            "",
            "One setting for all, none tuned for its row, where Engstrom et al. tune the learning rate of each: 4 "
            "environments x 512 steps, two networks of 64 x 64, γ 0.99, λ 0.95. PPO: 10 passes of 64, ε 0.2, "
            "Adam(3e-4), gradient norm 0.5, value clipping 0.2, rewards and observations clipped at 10; where tanh is "
            "off, ReLU; where orthogonal initialisation is off, Glorot's. TRPO: KL 0.01, 10 conjugate gradient steps, "
            "damping 0.1, critic by 10 passes of 64 with Adam(1e-3), whose rate is annealed and whose gradient is "
            "clipped; value clipping does not apply. Observation clipping is the normaliser's, so it goes where "
            "normalisation does. Value clipping alone bounds a change of 0.2 in returns that nothing scales, "
            "hundreds and more. Reward clipping alone clips nothing, since no reward here reaches 10 unscaled: its row "
            "is that of none of the ten, run again.",
            "",
            f"{min(r['date'] for r in records)} to {max(r['date'] for r in records)}, Python "
            f"{platform.python_version()}, {', '.join(versions)}.",
            "",
            "    python benchmarks/ablation.py --processes=2 --alone",
            "",
            "![Returns of the variants, by environment](ablation.png)",
            "",
        ]
    )


def figure(records):
    """`ablation.png`: a panel for each environment, a row for each variant: seeds, mean, interval."""
    from matplotlib.figure import Figure

    from kerasrl_pg.seeds import bootstrap_interval, interquartile_mean

    variants = [v for v in VARIANTS if any(r["variant"] == v for r in records)]
    drawing = Figure(figsize=(13, 1 + 0.3 * len(variants)), layout="constrained")
    panels = drawing.subplots(1, len(ENVS), sharey=True)
    for axes, env in zip(panels, ENVS, strict=True):
        for row, variant in enumerate(variants):
            values = returns(records, variant, env)
            if not values:
                continue
            color = "tab:orange" if "TRPO" in variant else "tab:blue" if "alone" not in variant else "tab:green"
            low, high = bootstrap_interval(values)
            axes.plot(values, [row] * len(values), ".", color=color, alpha=0.4)
            axes.plot([low, high], [row, row], color=color, lw=2)
            axes.plot(interquartile_mean(values), row, "o", color=color)
        base = returns(records, "PPO", env)
        if base:
            axes.axvline(interquartile_mean(base), color="gray", lw=0.8, ls="--")
        axes.set_title(env, fontsize=10)
        axes.grid(alpha=0.2)
        axes.spines[["top", "right"]].set_visible(False)
    panels[0].set_yticks(range(len(variants)), variants, fontsize=8)
    panels[0].invert_yaxis()
    drawing.supxlabel(f"return of the final policy after {STEPS:,} steps", fontsize=10)
    drawing.savefig(RESULTS.with_suffix(".png"), dpi=110)


def report():
    current = {variant: fingerprint(settings(variant)) for variant in VARIANTS}
    records = [r for r in RECORDS.load() if r["settings"] == current.get(r["variant"])]
    if records:
        RESULTS.with_suffix(".md").write_text(table(records))
        figure(records)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--variant", choices=VARIANTS, action="append", help="default: all but those alone")
    parser.add_argument("--alone", action="store_true", help="each optimisation alone, too")
    parser.add_argument("--env", choices=ENVS, action="append", help="default: all")
    parser.add_argument("--seeds", type=int, default=5, help="how many; 0 for the report only")
    parser.add_argument("--processes", type=int, default=1, help="runs side by side")
    parser.add_argument("--only_seeds", type=int, nargs="+", help=argparse.SUPPRESS)  # of a cell's own process
    arguments = parser.parse_args()
    if arguments.processes < 1:
        parser.error(f"--processes must be at least 1. Received: {arguments.processes}.")
    variants, envs = arguments.variant or list(VARIANTS if arguments.alone else COMMON), arguments.env or ENVS
    if arguments.only_seeds is not None:
        print(json.dumps(train(variants[0], envs[0], arguments.only_seeds)))
        return
    current = {variant: fingerprint(settings(variant)) for variant in variants}
    done = {RECORDS.key(r) for r in RECORDS.load() if r["settings"] == current.get(r["variant"])}
    cells = []
    for variant in variants:
        for env in envs:
            names = [{"variant": variant, "env": env, "seed": seed} for seed in range(arguments.seeds)]
            seeds = [name["seed"] for name in names if RECORDS.key(name) not in done]
            if seeds:
                cells.append((variant, env, seeds))

    def run(place, variant, env, seeds):
        start = time.perf_counter()
        only = [f"--variant={variant}", f"--env={env}", "--only_seeds", *map(str, seeds)]
        records = run_apart(__file__, only)
        for record in records:
            RECORDS.add(record)
        told = ", ".join(f"{r['evaluation']['return']:.0f}" for r in records)
        seconds = time.perf_counter() - start
        print(f"{place} of {len(cells)}: {variant}, {env}: {told} ({seconds:.0f} s)", flush=True)

    try:
        run_all(run, [(place + 1, *each) for place, each in enumerate(cells)], arguments.processes)
    finally:
        report()


if __name__ == "__main__":
    main()
