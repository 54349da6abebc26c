"""The main job as a command: `kerasrl-pg train | evaluate | export | lab`.

kerasrl-pg train --agent=ppo --env=CartPole-v1 --total_steps=100000 --out=runs/cartpole
kerasrl-pg evaluate --from=runs/cartpole/agent.keras --env=CartPole-v1 --episodes=100
kerasrl-pg export --from=runs/cartpole/agent.keras --out=runs/cartpole/saved_model
kerasrl-pg lab --out=pictures
"""

import shutil
import sys
import zipfile
from pathlib import Path

from absl import app, flags, logging

AGENTS = ("a2c", "constrainedgradient", "npg", "ppo", "ppopenalty", "reinforce", "trpo")

flags.DEFINE_enum("agent", "ppo", AGENTS, "The method; with --from, the saved agent's.")
flags.DEFINE_string("env", None, "A gymnasium id, such as CartPole-v1.")
flags.DEFINE_integer("total_steps", None, "Budget of environment steps; the preset's where left out.", lower_bound=1)
flags.DEFINE_integer(
    "num_envs", None, "Environments side by side; the preset's, else 8 (1 for reinforce).", lower_bound=1
)
flags.DEFINE_integer("epochs", 10, "Lines of progress the budget is shared out to.", lower_bound=1)
flags.DEFINE_integer("episodes", 100, "Episodes of an evaluation.", lower_bound=1)
flags.DEFINE_integer("seed", 0, "Of weights, actions and environments.", lower_bound=0)
flags.DEFINE_bool("deterministic", True, "Evaluate the policy's mode, not its samples.")
flags.DEFINE_bool("preset", True, "Use the named settings for this agent and environment, where there are some.")
flags.DEFINE_float(
    "learning_rate", None, "Of Adam with joint gradient norm 0.5, in place of the default optimizer's.", lower_bound=0.0
)
flags.DEFINE_string("from", None, "A saved agent (.keras): to evaluate, to export, or to train on.")
flags.DEFINE_string(
    "out",
    None,
    "train: folder for agent.keras, history.csv and the next version in saved_model; where --from is its agent.keras, "
    "that is kept as agent-1.keras, and the history goes to history-2.csv, and so on. export: version folder to make, "
    "or a folder of versions to make the next one in. lab: folder for the pictures.",
)
flags.DEFINE_bool("overwrite", False, "Replace agent.keras, history.csv or pictures that an earlier run left in --out.")
flags.DEFINE_integer("verbose", 1, "0 silent, 1 progress bar, 2 one line an epoch.")
FLAGS = flags.FLAGS


def train():
    """Trains, evaluates, saves and exports."""
    _need("env", "out")
    import keras

    out = Path(FLAGS.out)
    saved, run = out / "agent.keras", _number_of_run(out)
    history = out / ("history.csv" if run == 1 else f"history-{run}.csv")
    agent, name, preset = _agent_and_preset()
    total_steps, num_envs = FLAGS.total_steps, FLAGS.num_envs
    if preset is not None:
        total_steps, num_envs = total_steps or preset.total_steps, num_envs or preset.num_envs
    if total_steps is None:
        raise app.UsageError("--total_steps must be given where there is no preset. Received: none.")
    if agent is None:
        agent = _new_agent(name, preset)
    if FLAGS.learning_rate is not None:
        agent.compile(keras.optimizers.Adam(FLAGS.learning_rate, epsilon=1e-5, global_clipnorm=0.5))
    out.mkdir(parents=True, exist_ok=True)
    agent.fit(
        FLAGS.env,
        total_steps=total_steps,
        num_envs=num_envs or (1 if name == "reinforce" else 8),
        epochs=FLAGS.epochs if FLAGS["epochs"].present else None,  # Else at most 10.
        callbacks=[keras.callbacks.CSVLogger(str(history))],
        verbose=FLAGS.verbose,
        seed=FLAGS.seed,
    )
    if run > 1:
        shutil.copy2(saved, out / f"agent-{run - 1}.keras")
    agent.save(saved)
    _say(agent.evaluate(FLAGS.env, episodes=FLAGS.episodes, deterministic=FLAGS.deterministic, seed=FLAGS.seed + 1))
    folder = agent.export(out / "saved_model" / str(max(_versions(out / "saved_model"), default=0) + 1))
    _say_where(agent, saved, folder)


def _agent_and_preset():
    """The saved agent or None, the method's name in lower case, and the preset or None."""
    import kerasrl_pg as pg

    agent = _load() if FLAGS["from"].value else None
    name = FLAGS.agent if agent is None else type(agent).__name__.lower()
    if FLAGS["agent"].present and FLAGS.agent != name:
        raise app.UsageError(
            f"--agent must be left out with --from, or be the saved agent's, {name}. Received: --agent={FLAGS.agent}."
        )
    return agent, name, pg.presets.find(name, FLAGS.env) if FLAGS.preset else None


def _new_agent(name, preset):
    import kerasrl_pg as pg

    if preset is not None:
        return preset.agent(seed=FLAGS.seed)
    methods = {name.lower(): getattr(pg, name) for name in pg.__all__}
    agent = methods[name](seed=FLAGS.seed)
    agent.compile()
    return agent


def evaluate():
    """Evaluates a saved agent."""
    _need("from", "env")
    _say(_load().evaluate(FLAGS.env, episodes=FLAGS.episodes, deterministic=FLAGS.deterministic, seed=FLAGS.seed))


def export():
    """Exports a saved agent as a SavedModel."""
    _need("from", "out")
    out = Path(FLAGS.out)
    versions = _versions(out)
    print(f"SavedModel: {_load().export(out / str(max(versions) + 1) if versions else out)}")


def lab():
    """Draws the laboratory's pictures."""
    _need("out")
    from kerasrl_pg.lab import pictures

    pictures.draw(FLAGS.out, verbose=FLAGS.verbose > 0, overwrite=FLAGS.overwrite)
    print(f"Pictures: {FLAGS.out}")


def _load():
    import keras

    import kerasrl_pg  # noqa: F401  (registers the agents)
    from kerasrl_pg.serving.files import verify_zip

    path = Path(FLAGS["from"].value)
    try:
        if path.is_file():  # Keras says of whatever is no archive that it is not found.
            verify_zip(path)
        return keras.models.load_model(path)
    except zipfile.BadZipFile as error:
        raise OSError(f"The saved agent is damaged: {error}. Received: --from={path}. Use another copy.") from error


def _number_of_run(out):
    """1, or how many runs there will have been in a folder whose own agent is trained on."""
    left = [name for name in ("agent.keras", "history.csv") if (out / name).exists()]
    if not left or FLAGS.overwrite:
        return 1
    saved = out / "agent.keras"
    if FLAGS["from"].value and saved.exists() and saved.samefile(FLAGS["from"].value):
        run = 2
        while (out / f"agent-{run - 1}.keras").exists() or (out / f"history-{run}.csv").exists():
            run += 1
        return run
    raise app.UsageError(
        f"--out must be a folder without an earlier run. Received: --out={out}, which has {' and '.join(left)}. Name "
        f"another folder, train on with --from={saved}, or replace what is there with --overwrite."
    )


def _versions(folder):
    return [int(path.name) for path in folder.glob("*") if path.name.isdigit()]


def _need(*names):
    for name in names:
        if not FLAGS[name].value:
            raise app.UsageError(f"--{name} must be given. Received: none.")


def _say(result):
    kind = "mode" if result["deterministic"] else "samples"
    print(
        f"Return {result['return']:.1f} ± {result['return_std']:.1f} over {result['episodes']} episodes "
        f"(min {result['return_min']:.1f}, max {result['return_max']:.1f}; the policy's {kind})"
    )


def _say_where(agent, saved, folder):
    inputs = ["observation"] if agent.observation_spec.single else list(agent.observation_spec.specs)
    arguments = ", ".join(f"{name}=..." for name in inputs)
    print(f"Saved agent: {saved}  (keras.models.load_model, then fit goes on)")
    print(f"SavedModel:  {folder}  (for TensorFlow Serving, or with TensorFlow alone:)")
    print(f"  act = tf.saved_model.load('{folder}').signatures['serving_default']; act({arguments})['action']")


def _run(argv):
    commands = {"train": train, "evaluate": evaluate, "export": export, "lab": lab}
    if len(argv) != 2 or argv[1] not in commands:
        raise app.UsageError(
            f"Expected one command of {', '.join(commands)}. Received: {' '.join(argv[1:]) or 'none'}.\n{__doc__}"
        )
    logging.set_verbosity(logging.ERROR)
    try:
        commands[argv[1]]()
    except (ValueError, TypeError, RuntimeError, OSError, ImportError) as error:
        if FLAGS.verbose > 1:
            raise
        sys.exit(f"{type(error).__name__}: {error}")


def main():
    """Entry point of the `kerasrl-pg` command."""
    # `--help` shows what the program's own file says, and that is one that pip wrote.
    sys.modules["__main__"].__doc__ = __doc__
    for flag in FLAGS.get_flags_for_module(__name__):
        FLAGS.register_key_flag_for_module(sys.argv[0], flag)
    app.run(_run)


if __name__ == "__main__":
    main()
