"""What a search leaves beside KerasTuner's own files, and what makes those whole after a kill.

search.json              what is searched: the run, the space, the seeds
oracle-begun.json        KerasTuner's oracle.json as it was when the last trial began
trial_0/trial.json       KerasTuner's
        begun.json       the same, as it was when the trial began
        seeds.json       each seed's evaluations; why the trial was stopped, or failed
        run.yaml         the run with this trial's values
        seed-0.keras     the trained agent of a seed, where Hyperband may go on with it
"""

import json
import shutil
from pathlib import Path

from kerasrl_pg.serving.files import write_beside


def write_json(path, data):
    """Writes beside, reads back, renames."""
    text = json.dumps(data, indent=1, default=str) + "\n"
    write_beside(path, ".json", lambda part: Path(part).write_text(text, encoding="utf8"), _verify)


def _verify(path):
    json.loads(Path(path).read_text(encoding="utf8"))


def read_json(path):
    """The data of a file, or None where there is none or it is cut off."""
    try:
        return json.loads(Path(path).read_text(encoding="utf8"))
    except (OSError, ValueError):
        return None


class TrialFolder:
    """Where the parts of a trial are.

    Args:
        path: The folder.
    """

    def __init__(self, path):
        self.path = Path(path)
        self.trial, self.begun = self.path / "trial.json", self.path / "begun.json"
        self.seeds, self.run = self.path / "seeds.json", self.path / "run.yaml"

    def agent(self, seed):
        """Where the trained agent of a seed is."""
        return self.path / f"seed-{seed}.keras"

    def record(self):
        """What `seeds.json` holds; {} where there is none."""
        return read_json(self.seeds) or {}


def trials_of(folder):
    """The folders of a search's trials, in their order."""
    found = [path for path in Path(folder).glob("trial_*") if path.is_dir()]
    return [TrialFolder(path) for path in sorted(found, key=lambda path: (len(path.name), path.name))]


def keep(project, trial):
    """Copies what KerasTuner writes in place, while it is whole: a kill may cut it off.

    Args:
        project: Its folder.
        trial: The `TrialFolder` that begins.
    """
    for source, copy in (
        (Path(project) / "oracle.json", Path(project) / "oracle-begun.json"),
        (trial.trial, trial.begun),
    ):
        data = read_json(source)
        if data is not None:
            write_json(copy, data)


def repair(folder):
    """Makes the folder of a killed search such that KerasTuner can reload it.

    KerasTuner writes its files in place, a trial's before its own. A kill may leave one cut off, or a trial that its
    state does not know, whose number would then be given away twice.

    Args:
        folder: KerasTuner's `directory / project_name`. Nothing happens where there is none.

    Returns:
        What was done, a list of sentences.
    """
    folder, done = Path(folder), []
    oracle = folder / "oracle.json"
    if not folder.exists() or (not oracle.exists() and not trials_of(folder)):
        return done
    if read_json(oracle) is None:
        before = read_json(folder / "oracle-begun.json")
        if before is not None:
            write_json(oracle, before)
            done.append("oracle.json was cut off: set back to where the last trial began.")
        else:
            oracle.unlink(missing_ok=True)
            done.append("oracle.json was cut off in the first trial: the search begins anew.")
    state = read_json(oracle) or {"start_order": [], "end_order": [], "ongoing_trials": {}}
    ongoing = {tuner: trial for tuner, trial in state["ongoing_trials"].items() if trial not in state["end_order"]}
    if ongoing != state["ongoing_trials"]:  # It would be run once more.
        write_json(oracle, {**state, "ongoing_trials": ongoing})
        done.append("A trial had just ended: noted.")
    for trial in trials_of(folder):
        name = trial.path.name.removeprefix("trial_")
        if name not in state["start_order"]:
            shutil.rmtree(trial.path)
            done.append(f"Trial {name} had not begun: removed.")
        elif name not in state["end_order"] or read_json(trial.trial) is None:
            begun = read_json(trial.begun)
            if begun is not None and begun != read_json(trial.trial):
                write_json(trial.trial, begun)
                done.append(f"Trial {name} was under way: set back to its begin.")
    for path in folder.glob("*.json"):  # KerasTuner's tuner0.json, chief.json: an empty dictionary.
        if read_json(path) is None:
            write_json(path, {})
    return done
