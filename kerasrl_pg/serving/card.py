"""The card of an exported policy: what it is, where it comes from, and what to expect of it."""

import datetime
import hashlib
import importlib.metadata
import json
import math
from pathlib import Path

import numpy as np

from kerasrl_pg.envs.spaces import space_to_config

NAME = "assets.extra/card.json"
PACKAGES = ("kerasrl-pg", "tensorflow", "keras", "tensorflow-probability", "gymnasium")
Z = 1.959964  # Of a normal distribution: 95 % lie within so many deviations of its mean.


def make_card(networks, folder, facts, notes):
    """What is known of an export, as plain JSON.

    Args:
        networks: The `ActorCritic`.
        folder: Of the export, which has all its files but the card.
        facts: What the agent says: `agent`, `settings`, `environment_steps`, `seeds`, `evaluation`, `command`; None
            where it does not know.
        notes: More to say, by name.

    Returns:
        A dictionary.
    """
    facts = dict(facts or {})
    card = {
        "agent": facts.get("agent"),
        "environment_steps": facts.get("environment_steps"),
        "seeds": facts.get("seeds"),
        "return": return_of(facts.get("evaluation")),
        "observation_space": space_to_config(networks.observation_space),
        "action_space": space_to_config(networks.action_space),
        "settings": facts.get("settings"),
        "command": facts.get("command"),
        **notes,
        "versions": {package: importlib.metadata.version(package) for package in PACKAGES},
        "date": datetime.date.today().isoformat(),
        "sha256": checksums(folder),
    }
    return _plain(card)


def return_of(evaluation):
    """The return of an evaluation with its interval, as a card says it; None where there is no evaluation.

    Args:
        evaluation: What `Agent.evaluate` returns, to which `environment` and `seed` may be added.

    Raises:
        ValueError: If it is none.

    >>> return_of({"return": 10.0, "return_std": 4.0, "episodes": 100, "deterministic": 1.0})["interval"]
    [9.212, 10.788]
    """
    if evaluation is None:
        return None
    try:
        mean, std, episodes = (float(evaluation[name]) for name in ("return", "return_std", "episodes"))
    except (KeyError, TypeError, ValueError):
        raise ValueError(
            "`evaluation` must be what `agent.evaluate(...)` returns, with `return`, `return_std` and `episodes`. "
            f"Received: evaluation={evaluation!r}."
        ) from None
    interval = None
    if episodes > 1 and math.isfinite(mean):
        half = Z * std / math.sqrt(episodes - 1)  # `return_std` is of these episodes, not of all there could be.
        interval = [round(mean - half, 3), round(mean + half, 3)]
    found = {"mean": mean if math.isfinite(mean) else None, "std": std if math.isfinite(std) else None}
    more = {name: evaluation.get(name) for name in ("environment", "seed") if evaluation.get(name) is not None}
    return {
        **found,
        "interval": interval,
        "interval_of": "the mean over episodes, 95 %, by the normal distribution",
        "episodes": int(episodes),
        "deterministic": bool(evaluation.get("deterministic", True)),
        **more,
    }


def checksums(folder):
    """SHA-256 of every file of an export but its card, by path."""
    folder = Path(folder)
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name not in ("card.json", "card.md"))
    found = {}
    for path in files:
        with open(path, "rb") as file:
            found[path.relative_to(folder).as_posix()] = hashlib.file_digest(file, "sha256").hexdigest()
    return found


def read_card(folder):
    """The card of an export; None where it has none, or not all of it yet."""
    try:
        card = json.loads((Path(folder) / NAME).read_text(encoding="utf8"))
    except (OSError, ValueError):
        return None
    return card if isinstance(card, dict) and isinstance(card.get("sha256"), dict) else None


def differences(folder, card):
    """Names of files that a card knows, and that are missing in a folder or differ there; a copy is whole without."""
    found = checksums(folder)
    return [name for name, digest in card["sha256"].items() if found.get(name) != digest]


def write_card(folder, card):
    """Writes it, as JSON and to be read."""
    folder = Path(folder)
    (folder / NAME).write_text(json.dumps(card, indent=1, allow_nan=False) + "\n", encoding="utf8")
    (folder / NAME).with_suffix(".md").write_text("\n".join(described(card)) + "\n", encoding="utf8")


def told(card):
    """What a card tells, as texts by name; None for what it does not know."""
    steps, seeds = card["environment_steps"], card["seeds"]
    return {
        "agent": card["agent"],
        "environment steps": None if steps is None else f"{steps:,}",
        "seed" if seeds and len(seeds) == 1 else "seeds": None if not seeds else ", ".join(map(str, seeds)),
        "return": _return(card["return"]),
        "observations": json.dumps(card["observation_space"]),
        "actions": json.dumps(card["action_space"]),
        "command": card["command"],
        "warm-up requests": card.get("warm_up"),
        "LiteRT": card.get("litert"),
        "versions": ", ".join(f"{name} {version}" for name, version in card["versions"].items()),
        "date": card["date"],
    }


def described(card):
    """A card as lines of Markdown."""
    lines = [f"# {card['agent'] or 'Policy'}", "", "| | |", "| --- | --- |"]
    lines += [f"| {name} | {'not known' if value is None else _cell(value)} |" for name, value in told(card).items()]
    lines += ["", "Endpoints: signatures.txt. Example requests: request_rest.json, request_grpc.json.", ""]
    lines += ["SHA-256, `sha256sum --check` takes the lines:", ""]
    return [*lines, *(f"    {digest}  {name}" for name, digest in card["sha256"].items())]


def _cell(value):
    return str(value).replace("|", "\\|").replace("\n", " ")


def _return(found):
    if found is None or found["mean"] is None:
        return None
    interval = "" if found["interval"] is None else " [{:.1f}, {:.1f}]".format(*found["interval"])
    kind = "deterministic" if found["deterministic"] else "sampled"
    where = "".join(f", {name} {found[name]}" for name in ("environment", "seed") if name in found)
    return f"{found['mean']:.1f}{interval}, {found['episodes']} {kind} episodes{where}"


def _plain(value):
    """Plain JSON; what it does not have is a text: "inf", "-inf", "nan", and whatever is none of its kinds."""
    if isinstance(value, dict):
        return {str(name): _plain(each) for name, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(each) for each in value]
    if isinstance(value, (np.generic, np.ndarray)):
        return _plain(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value if value is None or isinstance(value, (bool, int, float, str)) else repr(value)


def digest(variables):
    """SHA-256 of the values of Keras variables, in their order."""
    found = hashlib.sha256()
    for variable in variables:
        found.update(variable.value.numpy().tobytes())
    return found.hexdigest()
