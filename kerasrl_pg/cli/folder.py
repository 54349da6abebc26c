"""A run's folder: one layout, for every command that reads or writes one.

run.yaml          what ran, for `train --config` and `kerasrl_pg.Run.load`
arguments.json    the command that made it, for `train --resume`
history.csv       the logs of each epoch; history-2.csv of a second run in it, and so on
tensorboard/      the same for TensorBoard
checkpoint.keras  the latest, while training; gone when it is done
agent.keras       the trained agent; agent-1.keras the one before a second run
evaluation.json   its evaluation
videos/           films
saved_model/1/    its export; 2/ of a second run
seed-0/ ...       such a folder for each seed of `train --seeds`
"""

import json
from pathlib import Path

from absl import app

PARTS = ("agent.keras", "checkpoint.keras", "history.csv", "run.yaml")


class Folder:
    """Where the parts of a run are.

    Args:
        path: The folder.
    """

    def __init__(self, path):
        self.path = Path(path)
        self.run, self.arguments = self.path / "run.yaml", self.path / "arguments.json"
        self.agent, self.checkpoint = self.path / "agent.keras", self.path / "checkpoint.keras"
        self.evaluation, self.tensorboard = self.path / "evaluation.json", self.path / "tensorboard"
        self.videos, self.saved_model = self.path / "videos", self.path / "saved_model"

    def history(self, run=1):
        """Of the first run in this folder, or a later one."""
        return self.path / ("history.csv" if run == 1 else f"history-{run}.csv")

    def seeds(self):
        """The folders of the seeds, by number."""
        folders = [path for path in self.path.glob("seed-*") if path.name[5:].isdigit()]
        return [Folder(path) for path in sorted(folders, key=lambda path: int(path.name[5:]))]

    def left(self):
        """Names of what an earlier run left here."""
        return [name for name in PARTS if (self.path / name).exists()]

    def next_version(self):
        """Where the next export goes."""
        return self.saved_model / str(max(versions(self.saved_model), default=0) + 1)

    def number_of_run(self, trained_on=None, overwrite=False):
        """1, or how many runs there will have been in a folder whose own agent is trained on.

        Raises:
            absl.app.UsageError: If there is an earlier run that would be lost.
        """
        left = self.left()
        if not left or overwrite:
            return 1
        if trained_on and self.agent.exists() and self.agent.samefile(trained_on):
            run = 2
            while (self.path / f"agent-{run - 1}.keras").exists() or self.history(run).exists():
                run += 1
            return run
        raise app.UsageError(
            f"--out must be a folder without an earlier run. Received: --out={self.path}, which has "
            f"{' and '.join(left)}. Name another folder, go on with --resume where it was stopped, train on with "
            f"--from={self.agent}, or replace what is there with --overwrite."
        )

    def clear(self):
        """Removes what an earlier run would be mixed up with; films, exports and earlier agents stay."""
        for path in (self.checkpoint, self.evaluation, self.arguments):
            path.unlink(missing_ok=True)

    def remember(self, arguments):
        """Keeps the command for `--resume`."""
        self.path.mkdir(parents=True, exist_ok=True)
        self.arguments.write_text(json.dumps(arguments, indent=1) + "\n", encoding="utf8")

    def remembered(self):
        """The arguments of the command that made this folder.

        Raises:
            absl.app.UsageError: If there is none to go on with.
        """
        if not self.arguments.exists():
            raise app.UsageError(
                f"--resume must name a folder in which `train` was. Received: --out={self.path}, which has no "
                f"{self.arguments.name}."
            )
        return json.loads(self.arguments.read_text(encoding="utf8"))


def versions(folder):
    """Numbers of the exports in a folder."""
    return [int(path.name) for path in Path(folder).glob("*") if path.name.isdigit()]


def agent_file(given):
    """The saved agent of a `--from`, which is a file or a run's folder.

    Raises:
        FileNotFoundError: If there is none.
    """
    path = Path(given)
    if path.is_dir():
        folder = Folder(path)
        found = [each for each in (folder.agent, folder.checkpoint) if each.exists()]
        if not found:
            seeds = ", ".join(str(seed.path) for seed in folder.seeds()[:3])
            raise FileNotFoundError(
                f"--from must be a saved agent, or a run's folder. Received: --from={given}, which holds none."
                + (f" Its seeds are in {seeds} ..." if seeds else "")
            )
        return found[0]
    return path


def load(given):
    """The saved agent of a `--from`.

    Raises:
        OSError: If the file is damaged.
        ValueError: If it is none.
    """
    import zipfile

    import keras

    import kerasrl_pg  # noqa: F401  (registers the agents)
    from kerasrl_pg.serving.files import verify_zip

    path = agent_file(given)
    try:
        if path.is_file():  # Keras says of whatever is no archive that it is not found.
            verify_zip(path)
        return keras.models.load_model(path)
    except zipfile.BadZipFile as error:
        raise OSError(f"The saved agent is damaged: {error}. Received: --from={path}. Use another copy.") from error
