"""exports a saved agent as a SavedModel, which TensorFlow alone can load and TensorFlow Serving can serve.

kerasrl-pg export --from=runs/cartpole --out=saved_models/cartpole/1
kerasrl-pg export --from=runs/cartpole --out=saved_models/cartpole      # in a folder of versions: the next one

Beside the model, in assets.extra, stand its card, example requests, and what TensorFlow Serving warms up with; with
--litert a LiteRT file for devices, too.
"""

import json
import shlex
from pathlib import Path

from absl import flags

from kerasrl_pg.cli.command import need, no_more
from kerasrl_pg.cli.folder import Folder, agent_file, load, versions


def define(values):
    """Defines the flags."""
    flags.DEFINE_string("from", None, "A saved agent (.keras) or a run's folder.", flag_values=values)
    flags.DEFINE_string(
        "out",
        None,
        "The version's folder to make, or a folder of versions to make the next one in.",
        flag_values=values,
    )
    flags.DEFINE_bool("litert", False, "Write a LiteRT file for devices, too.", flag_values=values)


def run(values, positional):
    """Exports."""
    no_more(positional, "from")
    need(values, "from", "out")
    out, numbers = Path(values.out), versions(values.out)
    agent = load(values["from"].value)
    known = told_by_the_run(agent_file(values["from"].value))
    path = agent.export(out / str(max(numbers) + 1) if numbers else out, litert=values.litert, **known)
    print(f"SavedModel: {path}")


def told_by_the_run(path):
    """`evaluation` and `command` for the card of an agent, as far as it lies in a run's folder."""
    folder, found = Folder(path.parent), {}
    if path.name != folder.agent.name:  # An earlier agent, or one that is still training.
        return found
    if folder.evaluation.exists():
        found["evaluation"] = json.loads(folder.evaluation.read_text(encoding="utf8"))
    if folder.arguments.exists():
        found["command"] = command_of(folder)
    return found


def command_of(folder):
    """The command that made a run's folder."""
    return shlex.join(["kerasrl-pg", *folder.remembered(), f"--out={folder.path}"])
