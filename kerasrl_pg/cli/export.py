"""exports a saved agent as a SavedModel, which TensorFlow alone can load and TensorFlow Serving can serve.

kerasrl-pg export --from=runs/cartpole --out=saved_models/cartpole/1
kerasrl-pg export --from=runs/cartpole --out=saved_models/cartpole      # in a folder of versions: the next one
"""

from pathlib import Path

from absl import flags

from kerasrl_pg.cli.command import need, no_more
from kerasrl_pg.cli.folder import load, versions


def define(values):
    """Defines the flags."""
    flags.DEFINE_string("from", None, "A saved agent (.keras) or a run's folder.", flag_values=values)
    flags.DEFINE_string(
        "out",
        None,
        "The version's folder to make, or a folder of versions to make the next one in.",
        flag_values=values,
    )


def run(values, positional):
    """Exports."""
    no_more(positional, "from")
    need(values, "from", "out")
    out, numbers = Path(values.out), versions(values.out)
    path = load(values["from"].value).export(out / str(max(numbers) + 1) if numbers else out)
    print(f"SavedModel: {path}")
