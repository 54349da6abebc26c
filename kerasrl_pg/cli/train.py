"""trains an agent, evaluates it, saves it and exports it.

    kerasrl-pg train --agent=ppo --env=CartPole-v1 --total_steps=100000 --out=runs/cartpole
    kerasrl-pg train --agent=ppo --env=Pendulum-v1 --set gamma=0.9 --set networks.activation=relu --out=runs/pendulum
    kerasrl-pg train --config=runs/pendulum/run.yaml --seeds=5 --out=runs/five
    kerasrl-pg train --resume --out=runs/five
    kerasrl-pg train --from=runs/cartpole/agent.keras --env=CartPole-v1 --total_steps=50000 --out=runs/cartpole

Where an agent and an environment have a preset, its settings are taken; the flags go before them. --set takes any
setting of the agent (horizon=64), of what it is made of (networks.hidden_units=[32], estimator.gae_lambda=0.9,
optimizer.learning_rate=3e-4), and of the environment (env.gravity=9.8); values are YAML, objects are written
"estimator={NStep: {n: 5}}".

While it trains, the agent is saved every --checkpoint_seconds: Ctrl-C, SIGTERM and a kill lose no more than that, and
--resume, with nothing but --out, goes on. The folder holds run.yaml (what ran), history.csv, tensorboard/, agent.keras,
evaluation.json and saved_model/1; of several seeds, one such folder each, seed-0 and so on.
"""

import csv
import json
import shutil

from absl import app, flags

from kerasrl_pg.cli.command import Stopped, need, no_more
from kerasrl_pg.cli.folder import Folder, load

AGENTS = (
    "a2c",
    "a3c",
    "constrainedgradient",
    "evolutionstrategies",
    "hillclimbing",
    "npg",
    "ppo",
    "ppopenalty",
    "reinforce",
    "simulatedannealing",
    "trpo",
)
SEARCHES = ("evolutionstrategies", "hillclimbing", "simulatedannealing")


def define(values):
    """Defines the flags."""
    kind = {"flag_values": values}
    flags.DEFINE_enum("agent", "ppo", AGENTS, "The method; with --from, the saved agent's.", **kind)
    flags.DEFINE_string("env", None, "A gymnasium id, such as CartPole-v1.", **kind)
    flags.DEFINE_string("config", None, "A run's file (YAML or JSON): another's run.yaml, a preset, your own.", **kind)
    flags.DEFINE_multi_string("set", [], "name=value, before what preset or config say; more than once.", **kind)
    flags.DEFINE_integer("total_steps", None, "Environment steps; the preset's where left out.", lower_bound=1, **kind)
    flags.DEFINE_integer(
        "num_envs",
        None,
        "Environments side by side; the preset's, else 8 (1 for reinforce, and for searches as many as members).",
        lower_bound=1,
        **kind,
    )
    flags.DEFINE_integer(
        "workers",
        None,
        "Processes of Ray that play, on this machine or on those of RAY_ADDRESS; a3c takes one a core by itself.",
        lower_bound=1,
        **kind,
    )
    flags.DEFINE_integer("seed", None, "Of weights, actions and environments; else the config's, or 0.", **kind)
    flags.DEFINE_integer("seeds", None, "Train so many, the first one --seed.", lower_bound=1, **kind)
    flags.DEFINE_bool(
        "preset", True, "Take the named settings for agent and environment, where there are some.", **kind
    )
    flags.DEFINE_float(
        "learning_rate",
        None,
        "Of Adam with joint gradient norm 0.5, in place of the optimizer.",
        lower_bound=0.0,
        **kind,
    )
    flags.DEFINE_string("from", None, "A saved agent (.keras) or a run's folder, to train on.", **kind)
    flags.DEFINE_string("out", None, "The run's folder.", **kind)
    flags.DEFINE_bool("overwrite", False, "Replace what an earlier run left in --out.", **kind)
    flags.DEFINE_bool("resume", False, "Go on with the run in --out, which was stopped.", **kind)
    flags.DEFINE_float("checkpoint_seconds", 60.0, "Between checkpoints.", lower_bound=0.001, **kind)
    flags.DEFINE_integer(
        "epochs", None, "Lines of progress the budget is shared out to; else 10.", lower_bound=1, **kind
    )
    flags.DEFINE_integer("episodes", 100, "Of the evaluation at the end.", lower_bound=1, **kind)
    flags.DEFINE_bool("deterministic", True, "Evaluate the policy's mode, not its samples.", **kind)
    flags.DEFINE_bool("tensorboard", True, "Write logs for TensorBoard, too.", **kind)
    flags.DEFINE_integer("video_steps", None, "Film the policy every so many steps (GIF).", lower_bound=1, **kind)
    flags.DEFINE_bool("export", True, "Export a SavedModel at the end.", **kind)
    flags.DEFINE_integer("verbose", 1, "0 silent, 1 progress bar, 2 one line an epoch.", **kind)


def run(values, positional):
    """Trains one seed, or several."""
    no_more(positional, "agent")
    need(values, "out")
    if values.resume:
        return _resume(values)
    if values["from"].value:
        _train_on(values)
        return None
    made = the_run(values)
    for folder, _ in _folders(values, made):
        folder.number_of_run(overwrite=values.overwrite)  # All of them, before the first is trained.
    _begin(values)
    for folder, seeded in _folders(values, made):
        _start(folder, seeded, values)
    return _finish_all(values, made)


def the_run(values):
    """The `Run` that the flags describe."""
    import kerasrl_pg as pg

    changes = dict(_setting(text) for text in values.set)
    if values.config:
        made = pg.Run.load(values.config)
        if values["agent"].present and values.agent != made.method.__name__.lower():
            raise app.UsageError(
                f"--agent must be left out with --config, which says {made.method.__name__}. "
                f"Received: --agent={values.agent}."
            )
        changes = {**({"env": values.env} if values.env else {}), **changes}
    else:
        need(values, "env")
        preset = pg.presets.find(values.agent, values.env) if values.preset else None
        total_steps = values.total_steps or changes.get("total_steps") or (preset and preset.total_steps)
        if total_steps is None:
            raise app.UsageError("--total_steps must be given where there is no preset. Received: none.")
        made = preset or pg.Run(
            pg.run.method_of(values.agent), values.env, total_steps, num_envs=_environments(values.agent)
        )
    for name in ("total_steps", "num_envs", "seed"):
        if values[name].value is not None:
            changes[name] = values[name].value
    if values.learning_rate is not None:
        adam = {"learning_rate": values.learning_rate, "epsilon": 1e-5, "global_clipnorm": 0.5}
        changes = {"optimizer": {"Adam": adam}, **changes}
    if made.seed is None:
        changes.setdefault("seed", 0)
    return made.changed(changes)


def _environments(agent):
    return None if agent in SEARCHES else 1 if agent == "reinforce" else 8


def _setting(text):
    from kerasrl_pg.run import parse

    name, equals, value = text.partition("=")
    if not equals or not name:
        raise app.UsageError(f"--set must be name=value, such as gamma=0.9. Received: --set={text}.")
    return name.strip(), parse(value)


def _folders(values, made):
    """Each seed's folder and run."""
    if values.seeds is None:
        return [(Folder(values.out), made)]
    seeds = range(made.seed, made.seed + values.seeds)
    return [(Folder(Folder(values.out).path / f"seed-{seed}"), made.changed({"seed": seed})) for seed in seeds]


def _begin(values):
    """Keeps the command for --resume."""
    given = [
        flag for flag in (values[name] for name in values) if flag.present and flag.name not in ("out", "overwrite")
    ]
    serialized = {flag.name: flag.serialize() for flag in given if flag.value is not None}
    lines = [line for text in serialized.values() for line in text.split("\n")]
    Folder(values.out).remember(["train", *lines])


def _start(folder, made, values):
    """Writes what is to run, so that a resumed command finds it."""
    if values.overwrite:
        folder.clear()
        if values.seeds is None:
            _begin(values)
    folder.path.mkdir(parents=True, exist_ok=True)
    made.save(folder.run)


def _finish_all(values, made):
    folders = _folders(values, made)
    done = []
    for folder, seeded in folders:
        if values.seeds is not None and values.verbose:
            print(f"Seed {seeded.seed} ({len(done) + 1} of {len(folders)})")
        done.append(_finish(folder, seeded, values))
    if values.seeds is not None:
        from kerasrl_pg.seeds import bootstrap_interval, interquartile_mean

        returns = [result["return"] for result in done]
        low, high = bootstrap_interval(returns)
        print(
            f"{len(returns)} seeds: IQM {interquartile_mean(returns):.1f} [{low:.1f}, {high:.1f}], "
            f"worst {min(returns):.1f}"
        )


def _finish(folder, made, values):
    """Trains from the checkpoint, if there is one, or from the start, and does the rest; gives the evaluation."""
    if folder.agent.exists() and folder.evaluation.exists() and not values.overwrite:
        result = json.loads(folder.evaluation.read_text(encoding="utf8"))
        if values.verbose:
            print(f"{folder.path} is done.")
        return result
    resume = folder.checkpoint.exists()
    agent = load(folder.checkpoint) if resume else made.agent()
    if resume:
        _cut(folder.history(), int(agent.env_steps))
    _fit(agent, folder, made.make_env(), made.total_steps, made.num_envs, made.seed, values, resume=resume)
    return _after(agent, folder, made.make_env(), made.seed, values)


def _fit(agent, folder, env, total_steps, num_envs, seed, values, run=1, resume=False):
    import keras

    from kerasrl_pg import callbacks

    checkpoint = callbacks.Checkpoint(folder.checkpoint, values.checkpoint_seconds)
    used = [keras.callbacks.CSVLogger(str(folder.history(run)), append=resume), checkpoint]
    if values.tensorboard:
        used.append(keras.callbacks.TensorBoard(str(folder.tensorboard), write_graph=False))
    if values.video_steps:
        used.append(callbacks.Video(env, folder.videos, values.video_steps))
    with checkpoint.listening():
        agent.fit(
            env,
            total_steps=total_steps,
            num_envs=num_envs,
            epochs=values.epochs,
            callbacks=used,
            verbose=values.verbose,
            seed=seed,
            resume=resume,
            workers=values.workers,
        )
    if checkpoint.stopped is not None:
        raise Stopped(
            checkpoint.stopped,
            f"Stopped after {int(agent.env_steps)} environment steps, which are saved. "
            f"Go on with: kerasrl-pg train --resume --out={values.out}",
        )


def _after(agent, folder, env, seed, values, run=1):
    """Saves, evaluates and exports."""
    if run > 1:
        shutil.copy2(folder.agent, folder.path / f"agent-{run - 1}.keras")
    agent.save(folder.agent)
    result = agent.evaluate(env, episodes=values.episodes, deterministic=values.deterministic, seed=(seed or 0) + 1)
    result = {name: value.item() if hasattr(value, "item") else value for name, value in result.items()}
    exported = agent.export(folder.next_version()) if values.export else None
    folder.evaluation.write_text(json.dumps(result, indent=1) + "\n", encoding="utf8")
    folder.checkpoint.unlink(missing_ok=True)
    say(result)
    print(f"Saved agent: {folder.agent}  (keras.models.load_model, then fit goes on)")
    if exported:
        inputs = ["observation"] if agent.observation_spec.single else list(agent.observation_spec.specs)
        arguments = ", ".join(f"{name}=..." for name in inputs)
        print(f"SavedModel:  {exported}  (for TensorFlow Serving, or with TensorFlow alone:)")
        print(f"  act = tf.saved_model.load('{exported}').signatures['serving_default']; act({arguments})['action']")
    return result


def _resume(values):
    """Goes on with what the folder's own command was doing."""
    from kerasrl_pg.cli.command import flags_of
    from kerasrl_pg.run import Run

    given = [values[name].name for name in values if values[name].present]
    others = sorted({*given} - {"resume", "out", "verbose"})
    if others:
        raise app.UsageError(
            "--resume must be alone with --out: the folder knows the rest. "
            f"Received: {' '.join(f'--{name}' for name in others)}."
        )
    folder = Folder(values.out)
    remembered = flags_of("train")
    remembered([*folder.remembered(), f"--out={values.out}"])
    if values["verbose"].present:
        remembered.verbose = values.verbose
    if remembered["from"].value:
        raise app.UsageError(
            f"--resume must name a run from its start. Received: --out={values.out}, whose last one trained on with "
            f"--from={remembered['from'].value}. Its checkpoint is {folder.checkpoint}."
        )
    first = folder if remembered.seeds is None else folder.seeds()[0]
    made = Run.load(first.run)  # Also if --config or a preset has been changed since.
    _finish_all(remembered, made)


def _cut(history, env_steps):
    """Takes the lines out of a history that tell of steps after the checkpoint, which are trained anew."""
    if not history.exists():
        return
    with open(history, newline="", encoding="utf8") as file:
        rows = list(csv.DictReader(file))
    kept = [row for row in rows if float(row.get("env_steps") or 0) <= env_steps]
    if rows and len(kept) < len(rows):
        with open(history, "w", newline="", encoding="utf8") as file:
            writer = csv.DictWriter(file, rows[0])
            writer.writeheader()
            writer.writerows(kept)


def _train_on(values):
    """Trains a saved agent on, with its own settings."""
    import keras

    import kerasrl_pg as pg

    if values.config or values.set or values.seeds:
        raise app.UsageError(
            "--config, --set and --seeds must be left out with --from: the saved agent has its settings. Received: "
            f"--from={values['from'].value}."
        )
    need(values, "env")
    folder = Folder(values.out)
    agent = load(values["from"].value)
    name = type(agent).__name__.lower()
    if values["agent"].present and values.agent != name:
        raise app.UsageError(
            f"--agent must be left out with --from, or be the saved agent's, {name}. Received: --agent={values.agent}."
        )
    from kerasrl_pg.cli.folder import agent_file

    number = folder.number_of_run(agent_file(values["from"].value), values.overwrite)
    preset = pg.presets.find(name, values.env) if values.preset else None
    total_steps = values.total_steps or (preset and preset.total_steps)
    if total_steps is None:
        raise app.UsageError("--total_steps must be given where there is no preset. Received: none.")
    num_envs = values.num_envs or (preset.num_envs if preset else _environments(name))
    if values.learning_rate is not None:
        agent.compile(keras.optimizers.Adam(values.learning_rate, epsilon=1e-5, global_clipnorm=0.5))
    if values.overwrite:
        folder.clear()
    _begin(values)
    seed = values.seed or 0
    _fit(agent, folder, values.env, total_steps, num_envs, seed, values, run=number)
    _after(agent, folder, values.env, seed, values, run=number)


def say(result):
    """Prints an evaluation in a line."""
    kind = "mode" if result["deterministic"] else "samples"
    print(
        f"Return {result['return']:.1f} ± {result['return_std']:.1f} over {result['episodes']} episodes "
        f"(min {result['return_min']:.1f}, max {result['return_max']:.1f}; the policy's {kind})"
    )
