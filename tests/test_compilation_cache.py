import os
import subprocess
import sys

from kerasrl_pg.compilation_cache import FLAG, enable, prune


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


def test_importing_the_library_is_enough(tmp_path):
    program = "import kerasrl_pg, tensorflow as tf; tf.function(lambda x: x @ x + 1, jit_compile=True)(tf.ones((3, 3)))"
    environ = {k: v for k, v in os.environ.items() if k not in ("TF_XLA_FLAGS", "KERASRL_PG_CACHE")}
    subprocess.run([sys.executable, "-c", program], check=True, env={**environ, "KERASRL_PG_CACHE": str(tmp_path)})
    assert list(tmp_path.glob("*/*.pb"))
