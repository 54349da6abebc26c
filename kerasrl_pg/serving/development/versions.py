"""The versions of a model in a folder: which are there, whole, and loaded."""

import contextlib
import threading
import time
from pathlib import Path

import tensorflow as tf

from kerasrl_pg.serving.card import differences, read_card

# Of `ModelVersionStatus.State`, as far as they are used here.
LOADING, AVAILABLE, UNLOADING, END = 20, 30, 40, 50


class Version:
    """One version of a model.

    Args:
        number: Its number.
        path: Its folder.

    Attributes:
        state: One of the states above.
        error: A sentence, where it could not be loaded; else empty.
        signature_defs: TensorFlow's `SignatureDef`s by the name of the endpoint.
        functions: What computes their answers.
        in_flight: Requests that it is answering.
    """

    def __init__(self, number, path):
        self.number, self.path = number, path
        self.state, self.error, self.in_flight = LOADING, "", 0
        self.signature_defs, self.functions, self._model = {}, {}, None

    def load(self):
        """Loads it, and warms it up with the requests that were exported beside it."""
        from tensorflow.core.protobuf import saved_model_pb2

        from kerasrl_pg.serving.requests import read_warm_up

        proto = saved_model_pb2.SavedModel.FromString((self.path / "saved_model.pb").read_bytes())
        self._model = tf.saved_model.load(str(self.path))
        self.functions = dict(self._model.signatures)
        definitions = proto.meta_graphs[0].signature_def
        self.signature_defs = {name: definitions[name] for name in self.functions}
        for request in read_warm_up(self.path):
            given = {name: tf.constant(tf.make_ndarray(each)) for name, each in request.inputs.items()}
            self.functions[request.model_spec.signature_name or "serving_default"](**given)
        self.state = AVAILABLE

    def drop(self):
        """Forgets the model."""
        self.state, self.signature_defs, self.functions, self._model = END, {}, {}, None


class Versions:
    """The newest version of a model in a folder, as it changes.

    A version is loaded when all of it is there: all files that its card names, as their SHA-256 say; of a model without
    a card, when nothing in its folder has changed for `settle_seconds`. The one before goes on answering until then,
    and is dropped when its last request is answered. A version whose folder is withdrawn makes place for the newest of
    the others.

    Args:
        folder: Of version folders, whose names are numbers.
        poll_seconds: Between two looks at it.
        settle_seconds: See above.
        say: Function of a sentence about what becomes of a version.
    """

    def __init__(self, folder, poll_seconds=1.0, settle_seconds=2.0, say=lambda sentence: None):
        self.folder, self._say = Path(folder), say
        self._poll, self._settle = poll_seconds, settle_seconds
        self._lock, self._stop = threading.Lock(), threading.Event()
        self._known = {}  # By number.
        self._seen = {}  # By number: what the folder looked like, since when, and whether it was whole.
        self._failed = {}  # By number: what the folder looked like when it could not be loaded.
        self._thread = threading.Thread(target=self._watch, name="versions", daemon=True)

    def start(self):
        """Looks once, and from then on in a thread."""
        self.look()
        self._thread.start()

    def stop(self):
        """Stops looking, and drops what is loaded."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()
        with self._lock:
            for version in self._known.values():
                version.drop()

    def statuses(self):
        """`(number, state, error)` of all versions known so far, the newest first."""
        with self._lock:
            return [(v.number, v.state, v.error) for _, v in sorted(self._known.items(), reverse=True)]

    @contextlib.contextmanager
    def using(self, number=None):
        """The version of this number, or the newest, which stays loaded inside; None where it is not loaded."""
        with self._lock:
            loaded = [v for v in self._known.values() if v.state == AVAILABLE and number in (None, v.number)]
            version = max(loaded, key=lambda v: v.number, default=None)
            if version is not None:
                version.in_flight += 1
        try:
            yield version
        finally:
            if version is not None:
                with self._lock:
                    version.in_flight -= 1
                    self._drop_idle()

    def look(self):
        """Looks at the folder: loads the newest version if it is whole, and lets go of the others."""
        numbers = sorted((int(p.name) for p in self._folders()), reverse=True)
        for number in numbers:
            if self._is_loaded(number) or (self._is_whole(number) and self._load(number)):
                self._keep(number)
                return
        self._keep(None)

    def _folders(self):
        with contextlib.suppress(OSError):
            return [path for path in self.folder.iterdir() if path.name.isdecimal() and path.is_dir()]
        return []

    def _path(self, number):
        return next(path for path in self._folders() if int(path.name) == number)

    def _is_loaded(self, number):
        version = self._known.get(number)
        return version is not None and version.state == AVAILABLE and (version.path / "saved_model.pb").exists()

    def _is_whole(self, number):
        try:
            path = self._path(number)
            looks = _looks(path)
        except (StopIteration, OSError):  # It is being withdrawn.
            return False
        if self._failed.get(number) == looks:
            return False
        before, since, whole = self._seen.get(number, (None, 0.0, False))
        if before != looks:
            since, whole = time.monotonic(), None
        card = read_card(path)
        try:
            if card is None:
                whole = (path / "saved_model.pb").exists() and time.monotonic() - since >= self._settle
            elif whole is None:
                whole = not differences(path, card)
        except OSError:
            whole = False
        self._seen[number] = looks, since, whole
        return whole

    def _load(self, number):
        """Whether it could be loaded."""
        try:
            looks, version = self._seen[number][0], Version(number, self._path(number))
        except StopIteration:  # It has just been withdrawn.
            return False
        with self._lock:
            self._known[number] = version
        try:
            version.load()
        except Exception as error:  # TensorFlow raises many kinds; each means that it cannot be served.
            version.drop()
            version.error = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
            self._failed[number] = looks
            self._say(f"Version {number} cannot be loaded: {version.error}")
            return False
        self._failed.pop(number, None)
        self._say(f"Version {number} is served.")
        return True

    def _keep(self, number):
        """Lets go of all versions but one."""
        with self._lock:
            for version in self._known.values():
                if version.number != number and version.state == AVAILABLE:
                    version.state = UNLOADING
            self._drop_idle()

    def _drop_idle(self):
        for version in self._known.values():
            if version.state == UNLOADING and version.in_flight == 0:
                version.drop()
                self._say(f"Version {version.number} is dropped.")

    def _watch(self):
        while not self._stop.wait(self._poll):
            try:
                self.look()
            except Exception as error:  # Whatever a folder does, what is loaded goes on answering.
                self._say(f"The folder {self.folder} could not be looked at: {error!r}.")


def _looks(path):
    """What a folder looks like from outside: its files, their sizes and times."""
    found = []
    for file in sorted(path.rglob("*")):
        status = file.stat()
        found.append((str(file.relative_to(path)), status.st_size, status.st_mtime_ns))
    return found
