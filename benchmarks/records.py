"""Runs in processes of their own, and the file where each finished one is kept at once."""

import datetime
import fcntl
import hashlib
import importlib.metadata
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

PACKAGES = ("kerasrl-pg", "tensorflow", "keras", "tensorflow-probability", "gymnasium", "mujoco")
ONE_THREAD = {
    "TF_NUM_INTRAOP_THREADS": "1",
    "TF_NUM_INTEROP_THREADS": "1",
    "TF_CPP_MIN_LOG_LEVEL": "3",
}


def origin(packages=PACKAGES):
    """When, and with which versions."""
    versions = {package: importlib.metadata.version(package) for package in packages}
    return {"date": datetime.date.today().isoformat(), "versions": versions}


def told(agent):
    """What determines a compiled agent but its seed, as JSON can hold it.

    Left out is what is off (None, False): a setting that comes later, off by itself, leaves old runs what they are.
    What None stands for elsewhere, the widths and activation of `Networks`, is not told either; tests/models hold it.
    """
    config = {key: value for key, value in agent.get_config().items() if key not in ("name", "seed", "arguments")}
    optimizer = {key: value for key, value in agent.optimizer.get_config().items() if key != "name"}
    return _on(json.loads(json.dumps({"agent": config, "optimizer": optimizer}, default=str)))


def _on(value):
    if isinstance(value, dict):
        return {key: _on(each) for key, each in value.items() if each is not None and each is not False}
    return value


def fingerprint(settings):
    """Twelve hexadecimal digits that tell runs of other settings apart."""
    return hashlib.sha1(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:12]


class Records:
    """A JSON file of records.

    Args:
        path: The file.
        key: Function from a record to what no two of them share; they are sorted by it.
    """

    def __init__(self, path, key):
        self.path = path
        self.key = key

    def load(self):
        return json.loads(self.path.read_text()) if self.path.exists() else []

    def add(self, record):
        """Puts a record in the file, in place of an older one of the same key."""
        self.path.parent.mkdir(exist_ok=True)
        folder = os.open(self.path.parent, os.O_RDONLY)
        fcntl.flock(folder, fcntl.LOCK_EX)  # two of these programs may run at once
        try:
            records = [r for r in self.load() if self.key(r) != self.key(record)] + [record]
            records.sort(key=self.key)
            beside = self.path.with_suffix(".json.part")
            beside.write_text("[\n" + ",\n".join(json.dumps(r) for r in records) + "\n]\n")
            os.replace(beside, self.path)
        finally:
            os.close(folder)


def run_apart(script, arguments):
    """One run, in a process of its own with one TensorFlow thread: the JSON of its last line."""
    command = [sys.executable, str(script), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **ONE_THREAD})
    if done.returncode:
        # MuJoCo's deprecation warnings are read only where a run fails.
        raise RuntimeError(f"{' '.join(arguments)} must end well. Received:\n{done.stderr[-3000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def run_all(run, runs, processes):
    """`run(*each)` for each of `runs`, so many side by side; an error is raised when all are over."""
    with ThreadPoolExecutor(processes) as pool:
        waiting = [pool.submit(run, *each) for each in runs]
    for each in waiting:
        each.result()
