"""Pictures are whole, or what was there before."""

from pathlib import Path

import pytest

from kerasrl_pg import figures


def drawn():
    figure = figures.figure(2, 1, extra="plot")
    figure.subplots().plot([0, 1])
    return figure


@pytest.mark.parametrize(("name", "begins"), [("a.png", b"\x89PNG"), ("a.svg", b"<?xml"), ("a", b"\x89PNG")])
def test_written_as_its_name_says(tmp_path, name, begins):
    path = figures.write(drawn(), tmp_path / "new" / name)
    assert path.read_bytes().startswith(begins)
    assert [p.name for p in path.parent.iterdir()] == [path.name] == [name if "." in name else f"{name}.png"]


def test_a_full_disk_loses_nothing(tmp_path, monkeypatch):
    old = tmp_path / "a.png"
    old.write_bytes(b"old")
    whole = Path.write_bytes

    def full(path, content):
        whole(path, content[:20])
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", full)
        with pytest.raises(OSError, match="No space left"):
            figures.write(drawn(), old)
    with monkeypatch.context() as patch:  # One that keeps less than it says.
        patch.setattr(Path, "write_bytes", lambda path, content: whole(path, content[:-1]))
        with pytest.raises(OSError, match="`filepath` must keep what is written. Received: .*a.png"):
            figures.write(drawn(), old)
    with pytest.raises(ValueError):
        figures.write(drawn(), tmp_path / "a.nothing")
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("a.png", b"old")]
