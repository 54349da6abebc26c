import os
import subprocess
import sys
from contextlib import nullcontext

import pytest
import tensorflow as tf

from kerasrl_pg import compilation_cache
from kerasrl_pg.compilation_cache import FLAG, NOTES, READ_ONLY, check, enable, first_call, note_new, prune


def test_the_folder_is_the_users_own(tmp_path):
    environ = {"XDG_CACHE_HOME": str(tmp_path), "TF_XLA_FLAGS": "--tf_xla_auto_jit=1"}
    folder = enable(environ)
    assert folder.is_dir() and folder.parent == tmp_path / "kerasrl_pg" / "xla"
    assert environ["TF_XLA_FLAGS"] == f"--tf_xla_auto_jit=1 {FLAG}={folder}"
    assert enable({"XDG_CACHE_HOME": str(tmp_path)}) == folder


def test_it_is_chosen_left_out_or_left_alone(tmp_path):
    assert enable({"KERASRL_PG_CACHE": str(tmp_path)}).parent == tmp_path
    own = {"TF_XLA_FLAGS": f"{FLAG}=/elsewhere"}
    assert enable(own) is None and own["TF_XLA_FLAGS"] == f"{FLAG}=/elsewhere"
    off = {"KERASRL_PG_CACHE": "", "XDG_CACHE_HOME": str(tmp_path)}
    assert enable(off) is None and "TF_XLA_FLAGS" not in off


def test_a_folder_that_cannot_be_made_is_no_error(tmp_path):
    (tmp_path / "file").write_text("")
    environ = {"KERASRL_PG_CACHE": str(tmp_path / "file")}
    assert enable(environ) is None and "TF_XLA_FLAGS" not in environ


def test_the_oldest_programs_go_first(tmp_path):
    for age, name in enumerate(("new", "middle", "old")):
        (tmp_path / name).write_bytes(b"x" * 100)
        os.utime(tmp_path / name, (1000 - age, 1000 - age))
    prune(tmp_path, 250)
    assert sorted(f.name for f in tmp_path.iterdir()) == ["middle", "new"]


def test_what_is_half_made_goes_after_an_hour(tmp_path):
    for name, age in (("x.pb", 1e6), ("left.tmp", 1e6), ("present.tmp", 0)):
        (tmp_path / name).write_bytes(b"x")
        changed = (tmp_path / name).stat().st_mtime - age
        os.utime(tmp_path / name, (changed, changed))
    prune(tmp_path, 250)
    assert sorted(f.name for f in tmp_path.iterdir()) == ["present.tmp", "x.pb"]


PROGRAM = bytes(range(256)) * 4


@pytest.mark.parametrize(
    "damaged",
    [PROGRAM[:100], b"", bytes(len(PROGRAM)), PROGRAM[:500] + b"?" + PROGRAM[501:], PROGRAM + b"?"],
    ids=["truncated", "empty", "zeros", "flipped", "longer"],
)
def test_a_damaged_program_is_deleted(tmp_path, damaged):
    for name in ("a.pb", "b.pb"):
        (tmp_path / name).write_bytes(PROGRAM)
    check(tmp_path)
    check(tmp_path)
    assert sorted(f.name for f in tmp_path.iterdir()) == ["a.pb", "b.pb", NOTES]
    (tmp_path / "a.pb").write_bytes(damaged)
    os.utime(tmp_path / "b.pb", (0, 0))  # Copied, as it may be, and whole.
    check(tmp_path)
    assert sorted(f.name for f in tmp_path.iterdir()) == ["b.pb", NOTES]


@pytest.mark.parametrize("notes", [b"", b"\xff\xfe", b"a.pb 1\n", b"a.pb x y z\n"])
def test_damaged_notes_cost_nothing(tmp_path, notes):
    (tmp_path / "a.pb").write_bytes(PROGRAM)
    (tmp_path / NOTES).write_bytes(notes)
    check(tmp_path)
    assert (tmp_path / "a.pb").exists() and (tmp_path / NOTES).read_text().startswith("a.pb 1024 ")


def test_programs_that_have_not_changed_are_not_read(tmp_path, monkeypatch):
    (tmp_path / "a.pb").write_bytes(PROGRAM)
    check(tmp_path)
    monkeypatch.setattr(compilation_cache.zlib, "crc32", lambda content: pytest.fail("read"))
    check(tmp_path)


def test_what_is_new_is_noted_and_the_rest_is_not_looked_at(tmp_path, monkeypatch):
    seen = set()
    for name in ("a.pb", "b.pb", "half.tmp"):
        (tmp_path / name).write_bytes(PROGRAM)
        note_new(tmp_path, seen)
    notes = (tmp_path / NOTES).read_text()
    assert [line.split()[0] for line in notes.splitlines()] == ["a.pb", "b.pb"]
    with monkeypatch.context() as patch:
        patch.setattr(compilation_cache, "open", lambda *args: pytest.fail("opened"), raising=False)
        patch.setattr(compilation_cache.Path, "stat", lambda self: pytest.fail("looked up"))
        note_new(tmp_path, seen)
    with monkeypatch.context() as patch:  # They are what `check` expects.
        patch.setattr(compilation_cache.zlib, "crc32", lambda content: pytest.fail("read"))
        check(tmp_path)
    assert (tmp_path / NOTES).read_text() == notes
    (tmp_path / "a.pb").write_bytes(PROGRAM[:100])
    check(tmp_path)
    assert not (tmp_path / "a.pb").exists() and (tmp_path / "b.pb").exists()


@pytest.mark.parametrize("full", [False, True])
def test_a_first_call_notes_what_it_compiled_and_nothing_else(tmp_path, monkeypatch, full):
    (tmp_path / "old.pb").write_bytes(PROGRAM)
    monkeypatch.setattr(compilation_cache, "_folder", tmp_path)
    monkeypatch.setattr(compilation_cache, "_seen", {"old.pb"})
    monkeypatch.setenv("TF_XLA_FLAGS", "")

    def program(x):
        (tmp_path / "new.pb").write_bytes(PROGRAM)
        return x + 1

    if full:
        monkeypatch.setattr(compilation_cache, "_line", lambda *noted: no_space())
    assert first_call(program, 1)[1] == 2
    monkeypatch.undo()
    assert ("new.pb" in (tmp_path / NOTES).read_text()) != full
    assert "old.pb" not in (tmp_path / NOTES).read_text()
    check(tmp_path)  # As the next process does.
    assert sorted(line.split()[0] for line in (tmp_path / NOTES).read_text().splitlines()) == ["new.pb", "old.pb"]


def no_space():
    raise OSError(28, "No space left on device")


def test_a_line_that_was_cut_off_costs_only_itself(tmp_path):
    for name in ("a.pb", "b.pb"):
        (tmp_path / name).write_bytes(PROGRAM)
    check(tmp_path)
    whole = (tmp_path / NOTES).read_text().splitlines()
    (tmp_path / NOTES).write_text(f"{whole[0]}\n{whole[1][:12]}")
    (tmp_path / "a.pb").write_bytes(PROGRAM[:100])
    (tmp_path / "b.pb").write_bytes(PROGRAM[:100])
    check(tmp_path)
    left = {"a.pb", "b.pb"} - {whole[0].split()[0]}
    assert {f.name for f in tmp_path.glob("*.pb")} == left  # What is not known to be damaged, TensorFlow reads.


@pytest.mark.parametrize("reason", ["full", "read-only"])
def test_a_folder_that_cannot_take_more_is_only_read(tmp_path, monkeypatch, reason):
    def refuse(*args, **kwargs):
        raise OSError(30, "Read-only file system")

    folder = enable({"KERASRL_PG_CACHE": str(tmp_path)})
    (folder / "a.pb").write_bytes(PROGRAM)
    if reason == "full":
        monkeypatch.setattr(compilation_cache.shutil, "disk_usage", lambda path: Usage)
    else:
        monkeypatch.setattr(compilation_cache.tempfile, "NamedTemporaryFile", refuse)
    environ = {"KERASRL_PG_CACHE": str(tmp_path)}
    assert enable(environ) == folder
    assert environ["TF_XLA_FLAGS"] == f"{FLAG}={folder} {READ_ONLY}"
    assert [f.name for f in folder.iterdir()] == ["a.pb"]


class Usage:
    free = 2**16


def failing_once(error):
    calls = []

    def program(x):
        calls.append(x)
        if len(calls) == 1:
            raise error
        return x + 1

    return program


@pytest.mark.parametrize(
    "error",
    [
        tf.errors.OutOfRangeError(None, None, "Read less bytes than requested"),
        tf.errors.InvalidArgumentError(None, None, "Serialized HLO does not match."),
        tf.errors.DataLossError(None, None, "Can't parse FOLDER/a.pb as binary proto"),
        tf.errors.ResourceExhaustedError(None, None, "FOLDER/a.pb.tmp; No space left on device"),
        tf.errors.InvalidArgumentError(None, None, "Matrix size-incompatible"),
    ],
)
def test_what_is_wrong_with_the_folder_empties_it(tmp_path, monkeypatch, error):
    monkeypatch.setattr(compilation_cache, "_folder", tmp_path)
    monkeypatch.setenv("TF_XLA_FLAGS", "")
    (tmp_path / "a.pb").write_bytes(PROGRAM)
    error._message = error.message.replace("FOLDER", str(tmp_path))
    monkeypatch.setattr(compilation_cache, "_under_another_name", lambda program, arguments: program)
    others = "Matrix" in error.message
    with pytest.raises(tf.errors.InvalidArgumentError) if others else nullcontext():
        assert first_call(failing_once(error), 1)[1] == 2
    assert (tmp_path / "a.pb").exists() == others


def test_a_folder_that_never_works_is_named(tmp_path, monkeypatch):
    def program(x):
        raise tf.errors.ResourceExhaustedError(None, None, f"{tmp_path}/a.pb; No space left on device")

    monkeypatch.setattr(compilation_cache, "_folder", tmp_path)
    monkeypatch.setattr(compilation_cache, "_under_another_name", lambda program, arguments: program)
    with pytest.raises(RuntimeError, match="cannot be kept in .*No space left.*KERASRL_PG_CACHE"):
        first_call(program, 1)


FIT = """
import tensorflow as tf
import kerasrl_pg as pg
from kerasrl_pg.compilation_cache import first_call
small = tf.function(lambda x: x @ x + 1.0, jit_compile=True).get_concrete_function(tf.TensorSpec((3, 3)))
first_call(small, tf.ones((3, 3)))
agent = pg.A2C(horizon=8, networks=pg.Networks((4,)), seed=0)
agent.compile(jit_compile=True)
for _ in range(2):
    history = agent.fit(pg.envs.CartPole(num_envs=8), total_steps=64, epochs=1, verbose=0).history
print(int(agent.env_steps), history["policy_loss"])
"""


def fit(folder):
    environ = {k: v for k, v in os.environ.items() if k not in ("TF_XLA_FLAGS", "TF_CPP_MIN_LOG_LEVEL")}
    environ["KERASRL_PG_CACHE"] = str(folder)
    result = subprocess.run([sys.executable, "-c", FIT], capture_output=True, text=True, env=environ, timeout=300)
    assert result.returncode == 0, result.stderr
    return result


@pytest.mark.slow
def test_programs_that_are_cut_off_cost_compiling_and_not_the_run(tmp_path):
    first = fit(tmp_path)  # Importing the library was enough.
    assert first.stdout.startswith("128 ")
    (folder,) = tmp_path.iterdir()
    programs = sorted(folder.glob("*.pb"), key=lambda file: file.stat().st_size)
    assert (folder / NOTES).read_text().count("\n") == len(programs) == 2
    (folder / NOTES).unlink()  # So that TensorFlow meets the damage, not the library.
    programs[1].write_bytes(programs[1].read_bytes()[:1000])
    again = fit(tmp_path)
    assert again.stdout == first.stdout
    assert not programs[1].exists() and list(folder.glob("*.pb"))
    for alarm in ("text_format.cc", "cpu_aot_loader", "retracing"):  # Of reading the other one.
        assert alarm not in again.stderr
