import zipfile
from pathlib import Path

import h5py
import pytest

from kerasrl_pg.serving import write_beside
from kerasrl_pg.serving.files import verify_weights, verify_zip


def write(path):
    Path(path).write_text("new")


def fine(path):
    assert path.read_text() == "new"


def fail(path):
    raise OSError("the disk is full")


def half(path):
    Path(path).write_text("ne")
    fail(path)


def test_a_new_file_in_a_new_folder(tmp_path):
    path = tmp_path / "a" / "b" / "x.txt"
    write_beside(path, ".txt", write, fine)
    assert path.read_text() == "new"
    assert list(path.parent.iterdir()) == [path]


def test_an_older_file_is_replaced(tmp_path):
    path = tmp_path / "x.txt"
    path.write_text("old")
    write_beside(str(path), ".txt", write, fine)
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


def test_an_older_file_is_there_until_the_new_one_is_verified(tmp_path):
    path = tmp_path / "x.txt"
    path.write_text("old")
    seen = []

    def look(temporary):
        seen.append((path.read_text(), temporary.read_text(), temporary.parent, temporary.suffix))

    write_beside(path, ".txt", write, look)
    assert seen == [("old", "new", tmp_path, ".txt")]


@pytest.mark.parametrize("crashing_write, crashing_verify", [(fail, fine), (half, fine), (write, fail)])
@pytest.mark.parametrize("old", [None, "old"])
def test_a_crash_loses_nothing_and_leaves_nothing(tmp_path, crashing_write, crashing_verify, old):
    path = tmp_path / "x.txt"
    if old:
        path.write_text(old)
    with pytest.raises(OSError, match="the disk is full"):
        write_beside(path, ".txt", crashing_write, crashing_verify)
    assert [p.read_text() for p in tmp_path.iterdir()] == ([old] if old else [])


def test_an_interrupt_leaves_nothing_either(tmp_path):
    def interrupted(path):
        write(path)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_beside(tmp_path / "x.txt", ".txt", interrupted, fine)
    assert not list(tmp_path.iterdir())


def test_another_suffix_is_refused(tmp_path):
    with pytest.raises(ValueError, match="`filepath` must end in '.keras'. Received: filepath='.*x.h5'"):
        write_beside(tmp_path / "x.h5", ".keras", write, fine)
    assert not list(tmp_path.iterdir())


def test_an_existing_file_is_refused_without_overwrite(tmp_path):
    path = tmp_path / "x.txt"
    path.write_text("old")
    with pytest.raises(ValueError, match="`filepath` must not exist with overwrite=False. Received: .* which exists"):
        write_beside(path, ".txt", write, fine, overwrite=False)
    assert path.read_text() == "old"
    write_beside(tmp_path / "y.txt", ".txt", write, fine, overwrite=False)


NAMES = ("config.json", "metadata.json", "model.weights.h5")


def archive(path, names=NAMES):
    with zipfile.ZipFile(path, "w") as file:
        for name in names:
            file.writestr(name, 100 * name)
    return path


def test_a_whole_keras_file_passes(tmp_path):
    verify_zip(archive(tmp_path / "x.keras"))


def test_a_damaged_keras_file_does_not(tmp_path):
    with pytest.raises(OSError, match=r"cannot be read back: .*missing=\['model.weights.h5'\]. Is the disk full"):
        verify_zip(archive(tmp_path / "x.keras", NAMES[:2]))
    path = archive(tmp_path / "y.keras")
    content = path.read_bytes()
    path.write_bytes(content.replace(b"config.jsonconfig.json", b"config.jsonconfig.jsOn", 1))
    with pytest.raises(OSError, match="damaged=config.json"):
        verify_zip(path)
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(zipfile.BadZipFile):
        verify_zip(path)


def test_weight_files(tmp_path):
    path = tmp_path / "x.weights.h5"
    with h5py.File(path, "w") as file:
        file["layer/kernel"] = [1.0, 2.0]
    verify_weights(path)
    content = path.read_bytes()
    path.write_bytes(content[:-100])
    with pytest.raises(OSError, match="truncated"):
        verify_weights(path)
    with h5py.File(path, "w") as file:
        file.create_group("layer")
    with pytest.raises(OSError, match="the file holds none. Is the disk full"):
        verify_weights(path)
