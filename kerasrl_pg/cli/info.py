"""says what a file or a folder holds: a saved agent, a run, an export, a file of settings, a dataset.

kerasrl-pg info runs/cartpole
kerasrl-pg info saved_models/cartpole/1
"""

import json
from pathlib import Path

from absl import app

from kerasrl_pg.cli.folder import Folder, load, versions


def define(values):
    """There are no flags of its own."""


def run(values, positional):
    """Prints what each of the paths holds."""
    if not positional:
        raise app.UsageError("info must be given files or folders. Received: none.")
    for given in positional:
        print("\n".join(described(given)))


def described(given):
    """Lines about a path, or the id of a Minari dataset.

    Raises:
        FileNotFoundError: If there is nothing, or nothing that is known.
    """
    path = Path(given)
    if path.suffix == ".keras" and path.is_file():
        return _agent(path)
    if path.suffix in (".yaml", ".yml", ".json") and path.is_file():
        from kerasrl_pg.run import Run, render

        return [f"{path}: a file of settings", *_indented(render(Run.load(path).to_dict()))]
    if (path / "saved_model.pb").exists():
        return _export(path)
    folder = Folder(path)
    if path.is_dir() and (folder.left() or folder.seeds()):
        return _run(folder)
    if path.is_dir() and versions(path):
        return [f"{path}: exports, versions {', '.join(map(str, sorted(versions(path))))}"]
    if not path.exists():
        found = _dataset(given)
        if found:
            return found
        raise FileNotFoundError(f"There is no file, folder or dataset {given}.")
    raise FileNotFoundError(f"`info` must be of an agent, a run, an export or a dataset. Received: {given}.")


def _agent(path):
    agent = load(path)
    lines = [f"{path}: a saved {type(agent).__name__}, after {int(agent.env_steps):,} environment steps"]
    lines += [f"  observations: {agent.spaces[0]}", f"  actions: {agent.spaces[1]}"]
    policy, critic = agent.policy, agent.critic
    for name, model in (("policy", policy), ("critic", critic)):
        if model is not None:
            lines.append(f"  {name}: {model.count_params():,} numbers")
    lines.append(f"  head: {type(agent.head).__name__}")
    return lines + [f"  {name}: {value}" for name, value in agent.settings_values().items() if _plain(value)]


def _plain(value):
    return value is not None and not isinstance(value, dict)


def _export(path):
    import tensorflow as tf

    loaded = tf.saved_model.load(path)
    lines = [f"{path}: a SavedModel"]
    for name, signature in loaded.signatures.items():
        given, made = (
            ", ".join(f"{key} {spec.dtype.name}{_shape(spec)}" for key, spec in specs.items())
            for specs in (signature.structured_input_signature[1], signature.structured_outputs)
        )
        lines.append(f"  {name}: {given or 'nothing'} -> {made}")
    return lines + _card(path)


def _card(path):
    from kerasrl_pg.serving.card import differences, read_card, told

    card = read_card(path)
    if card is None:
        return ["  card: none"]
    changed = differences(path, card)
    files = f"{', '.join(changed)} differ from the card" if changed else "as the card says, by SHA-256"
    return [*(f"  {name}: {value}" for name, value in told(card).items() if value is not None), f"  files: {files}"]


def _shape(spec):
    return "[" + ", ".join("B" if size is None else str(size) for size in spec.shape) + "]"


def _run(folder):
    lines = [f"{folder.path}: a run"]
    seeds = folder.seeds()
    if seeds:
        lines.append(f"  seeds: {', '.join(seed.path.name[5:] for seed in seeds)}")
        folder = seeds[0]
    if folder.run.exists():
        from kerasrl_pg.run import Run, render

        lines += _indented(render(Run.load(folder.run).to_dict()))
    for one in seeds or [folder]:
        if one.evaluation.exists():
            result = json.loads(one.evaluation.read_text(encoding="utf8"))
            where = f"  {one.path.name}: " if seeds else "  "
            lines.append(f"{where}return {result['return']:.1f} over {result['episodes']} episodes")
        elif one.checkpoint.exists():
            lines.append(f"  {one.path}: stopped; `kerasrl-pg train --resume` goes on")
    if versions(folder.saved_model):
        lines.append(f"  exports: {', '.join(map(str, sorted(versions(folder.saved_model))))}")
    return lines


def _dataset(given):
    try:
        import minari

        dataset = minari.load_dataset(given)
    except (ImportError, OSError, ValueError):
        return None
    return [
        f"{given}: a dataset of {dataset.total_episodes} episodes, {dataset.total_steps:,} steps",
        f"  observations: {dataset.observation_space}",
        f"  actions: {dataset.action_space}",
    ]


def _indented(text):
    return [f"  {line}" for line in text.splitlines()]
