"""Weight files that are damaged, foreign or hostile are refused, and the agent that was to read them is as it was."""

import io
import json
import random
import shutil
import subprocess
import sys
import zipfile

import gymnasium as gym
import h5py
import keras
import numpy as np
import pytest

import kerasrl_pg as pg
from kerasrl_pg.saving.weights import HEADER, read_weights, seal, spaces_from_configs

SPACES = gym.spaces.Box(-1.0, 1.0, (3,)), gym.spaces.Discrete(2)


def agent_of(kind=pg.PPO, units=4, seed=0, spaces=SPACES, optimizer=None, **settings):
    horizon = {} if kind is pg.REINFORCE else {"horizon": 8}
    agent = kind(networks=pg.Networks((units,)), seed=seed, **horizon, **settings)
    agent.compile(optimizer, jit_compile=False)
    if spaces:
        agent.bind(*spaces)
    return agent


def state(agent):
    return [np.array(v) for v in (*agent.variables, *agent.optimizer.variables)] if agent.built else None


def assert_refused(agent, path, kind, sentence, **kwargs):
    before, built = state(agent), agent.built
    with pytest.raises(kind, match=sentence):
        agent.load_weights(path, **kwargs)
    assert agent.built == built
    if built:
        np.testing.assert_equal(state(agent), before)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved")
    agent = agent_of(seed=1)
    agent.save_weights(folder / "agent.weights.h5")
    agent.save(folder / "agent.keras")
    return folder


@pytest.mark.parametrize("name", ["agent.weights.h5", "agent.keras"])
@pytest.mark.parametrize("spaces", [SPACES, None])
def test_weights_come_back_from_both_kinds_of_file(saved, name, spaces):
    agent = agent_of(spaces=spaces)
    agent.load_weights(saved / name)
    np.testing.assert_equal(state(agent), state(agent_of(seed=1)))


def test_plain_h5py_and_keras_read_a_sealed_file(saved):
    with h5py.File(saved / "agent.weights.h5") as file:
        assert file["vars/0"][()].tolist() == [1, 0]
    agent = agent_of()
    keras.saving.load_weights(agent, saved / "agent.weights.h5")
    np.testing.assert_equal(state(agent), state(agent_of(seed=1)))


def test_files_from_before_there_were_checksums_load(saved, tmp_path):
    path = tmp_path / "old.weights.h5"
    path.write_bytes((saved / "agent.weights.h5").read_bytes()[HEADER:])
    agent = agent_of()
    agent.load_weights(path)
    np.testing.assert_equal(state(agent), state(agent_of(seed=1)))


def flipped(content, seed):
    place = random.Random(seed).randrange(len(content))
    return content[:place] + bytes([content[place] ^ 1 << seed % 8]) + content[place + 1 :]


DAMAGES = {
    **{f"flip {seed}": lambda content, seed=seed: flipped(content, seed) for seed in range(20)},
    "half": lambda content: content[: len(content) // 2],
    "empty": lambda content: b"",
    "zeros": lambda content: bytes(len(content)),
    "zeros at the end": lambda content: content[:-4096] + bytes(4096),
    "zeros at the beginning": lambda content: bytes(HEADER) + content[HEADER:],
    "longer": lambda content: content + b"\0",
    "garbage": lambda content: random.Random(0).randbytes(len(content)),
}


@pytest.mark.parametrize("name", ["agent.weights.h5", "agent.keras"])
def test_damage_is_noticed_before_a_weight_changes(saved, tmp_path, name):
    content, agent = (saved / name).read_bytes(), agent_of()
    before, right = state(agent), state(agent_of(seed=1))
    for damage, spoil in DAMAGES.items():
        path = tmp_path / f"{damage}-{name}"
        path.write_bytes(spoil(content))
        try:
            agent.load_weights(path)
        except OSError as error:
            assert str(path) in str(error), damage
            np.testing.assert_equal(state(agent), before, damage)
        else:  # A bit of an archive that nothing reads, such as a date's.
            assert name == "agent.keras", damage
            np.testing.assert_equal(state(agent), right, damage)
            agent = agent_of()


def test_a_damaged_agent_gives_no_agent(saved, tmp_path):
    content, right = (saved / "agent.keras").read_bytes(), agent_of(seed=1).get_weights()
    start = zipfile.ZipFile(saved / "agent.keras").getinfo("model.weights.h5").header_offset + 100
    for seed in range(8):
        path = tmp_path / f"{seed}.keras"
        path.write_bytes(content[:start] + flipped(content[start:-300], seed) + content[-300:])
        with pytest.raises((OSError, ValueError, zipfile.BadZipFile)):
            np.testing.assert_equal(keras.models.load_model(path).get_weights(), right)


def test_backups_fall_back_to_the_copy_before(saved, tmp_path):
    agent, folder = agent_of(), tmp_path / "backup"
    folder.mkdir()
    (folder / "latest.weights.h5").write_bytes(flipped((saved / "agent.weights.h5").read_bytes(), 3))
    shutil.copy(saved / "agent.weights.h5", folder / "latest.weights.h5.bkp")
    callback = keras.callbacks.BackupAndRestore(folder, double_checkpoint=True)
    callback.set_model(agent)
    callback.on_train_begin()
    np.testing.assert_equal(state(agent), state(agent_of(seed=1)))


@pytest.mark.parametrize(
    ("other", "sentence"),
    [
        ({"kind": pg.PPOPenalty}, r"of the same method.*vars/4: float32\[\] where nothing is expected"),
        ({"kind": pg.REINFORCE}, "critic.*where float32.* is expected"),
        ({"units": 5}, r"differs in \d+: .*float32\[5"),
        ({"reward_scaling": True}, "reward_scaling.*where nothing is expected"),
        ({"spaces": (SPACES[0], gym.spaces.Discrete(3))}, "`filepath` must have the spaces"),
        ({"spaces": (gym.spaces.Box(-1.0, 1.0, (4,)), SPACES[1])}, "`filepath` must have the spaces"),
        # Of the same shapes, so that only the description tells.
        ({"spaces": (SPACES[0], gym.spaces.Discrete(2, start=1))}, "`filepath` must have the spaces"),
    ],
)
def test_weights_of_another_agent_are_refused(tmp_path, other, sentence):
    agent_of(seed=1, **other).save_weights(tmp_path / "other.weights.h5")
    assert_refused(agent_of(), tmp_path / "other.weights.h5", ValueError, sentence)
    if "spaces" not in other:
        assert_refused(agent_of(spaces=None), tmp_path / "other.weights.h5", ValueError, sentence)


def test_an_agent_with_its_own_model_is_as_it_was_too(tmp_path):
    def agent(units):
        observation = keras.Input((3,))
        x = keras.layers.Dense(units)(observation)
        model = keras.Model(observation, {"policy": pg.heads.Categorical(2)(x), "value": pg.heads.NormalValue()(x)})
        agent = pg.PPO(model, horizon=8, seed=0)
        agent.compile(jit_compile=False)
        return agent

    other = agent(5)
    other.bind(*SPACES)
    other.save_weights(tmp_path / "other.weights.h5")
    mine = agent(4)
    assert_refused(mine, tmp_path / "other.weights.h5", ValueError, "differs in")
    mine.bind(gym.spaces.Box(-2.0, 2.0, (3,)), gym.spaces.Discrete(2))
    agent(5).load_weights(tmp_path / "other.weights.h5")


def test_what_fits_is_taken_on_demand(tmp_path):
    other = agent_of(kind=pg.PPOPenalty, seed=1)
    other.save_weights(tmp_path / "other.weights.h5")
    agent = agent_of()
    with pytest.warns(UserWarning, match="could not be loaded"):
        agent.load_weights(tmp_path / "other.weights.h5", skip_mismatch=True)
    np.testing.assert_equal(agent.policy.get_weights(), other.policy.get_weights())


def test_another_optimizers_weights_are_skipped_with_a_warning(tmp_path):
    agent_of(seed=1, optimizer="sgd").save_weights(tmp_path / "sgd.weights.h5")
    agent = agent_of()
    with pytest.warns(UserWarning, match="Skipping variable loading for optimizer 'adam"):
        agent.load_weights(tmp_path / "sgd.weights.h5")
    np.testing.assert_equal(agent.get_weights(), agent_of(seed=1).get_weights())


def test_a_load_that_fails_half_way_is_undone(saved, tmp_path, monkeypatch):
    def fail(store):
        raise ValueError("not these")

    agent = agent_of()
    monkeypatch.setattr(agent.optimizer, "load_own_variables", fail)
    before = agent.get_weights()
    with pytest.raises(ValueError, match="not these"):
        try:
            agent.load_weights(saved / "agent.weights.h5")
        finally:
            monkeypatch.undo()
    np.testing.assert_equal(agent.get_weights(), before)


def hostile(saved, path, change):
    """A sealed file, so that nothing but what is in it can be the matter."""
    memory = io.BytesIO((saved / "agent.weights.h5").read_bytes()[HEADER:])
    with h5py.File(memory, "r+") as file:
        change(file)
    path.write_bytes(seal(memory.getvalue()))
    return path


def external_link(file):
    del file["vars/spaces"]
    file["vars/spaces"] = h5py.ExternalLink("/tmp/elsewhere.h5", "/spaces")


def soft_link(file):
    del file["vars/1"]
    file["vars/1"] = h5py.SoftLink("/vars/2")


def linked_group(file):
    del file["critic"]
    file["critic"] = h5py.ExternalLink("/tmp/elsewhere.h5", "/critic")


def external_data(file):
    del file["vars/0"]
    file.create_dataset("vars/0", (2,), "int32", external=[("/etc/passwd", 0, 8)])


def virtual_data(file):
    del file["vars/0"]
    layout = h5py.VirtualLayout((2,), "int32")
    layout[:] = h5py.VirtualSource("/tmp/elsewhere.h5", "vars/0", (2,))
    file.create_virtual_dataset("vars/0", layout)


def huge(file):
    del file["vars/spaces"]
    file.create_dataset("vars/spaces", (2**34,), "uint8", chunks=(2**20,), compression="gzip")


def huge_weight(file):
    del file["vars/0"]
    file.create_dataset("vars/0", (2**31,), "int32", chunks=(2**18,))


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (external_link, "'vars/spaces' links to another place"),
        (soft_link, "'vars/1' links to another place"),
        (linked_group, "'critic' links to another place"),
        (external_data, "'vars/0' is kept in another place"),
        (virtual_data, "'vars/0' is kept in another place"),
        (huge, r"'vars/spaces' declares shape \(17179869184,\), more than the file holds"),
        (huge_weight, "'vars/0' declares shape .* more than the file holds"),
    ],
)
@pytest.mark.parametrize("spaces", [SPACES, None])
def test_what_keras_never_writes_is_refused(saved, tmp_path, change, sentence, spaces):
    path = hostile(saved, tmp_path / "hostile.weights.h5", change)
    assert_refused(agent_of(spaces=spaces), path, ValueError, sentence)


def text(value):
    def change(file):
        del file["vars/spaces"]
        file["vars/spaces"] = np.frombuffer(value.encode(), "uint8")

    return change


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        ("[{", OSError),
        ("[" * 100_000, OSError),
        ("{}", ValueError),
        ("[1, 2]", ValueError),
        ('[{"kind": "Box"}, {"kind": "Discrete", "n": 2, "start": 0}]', ValueError),
        ('[{"kind": "Discrete", "n": -2, "start": 0}, {"kind": "Discrete", "n": 2, "start": 0}]', ValueError),
        ('[{"kind": "MultiBinary", "shape": [1000000000000]}, {"kind": "Discrete", "n": 2, "start": 0}]', ValueError),
    ],
)
def test_spaces_that_mean_nothing_are_refused(saved, tmp_path, value, kind):
    path = hostile(saved, tmp_path / "hostile.weights.h5", text(value))
    assert_refused(agent_of(spaces=None), path, kind, "cannot be read|must hold at most")


def test_spaces_in_an_agent_file_are_looked_at_too():
    config = agent_of().get_config()
    box = {"kind": "Box", "low": -1.0, "high": 1.0, "shape": [2**40], "dtype": "float32"}
    config["observation_space"] = {"kind": "Dict", "spaces": [["a", box]]}
    with pytest.raises(ValueError, match="must hold at most 67108864 numbers. Received: 1099511627777"):
        pg.PPO.from_config(config)


def test_ordinary_spaces_come_back():
    from kerasrl_pg.envs.spaces import space_to_config

    spaces = (gym.spaces.Dict(a=gym.spaces.Box(0, 255, (84, 84, 4), np.uint8), b=gym.spaces.MultiBinary(3)), SPACES[1])
    assert spaces_from_configs(json.loads(json.dumps([space_to_config(s) for s in spaces]))) == spaces


@pytest.mark.parametrize("value", ["[1]", "7", '["CartPole", 5]', '["CartPole", "x"]', "[3, 0]"])
def test_episodes_that_mean_nothing_are_refused(saved, tmp_path, value):
    def change(file):
        file["vars/players"] = np.frombuffer(value.encode(), "uint8")

    path = hostile(saved, tmp_path / "hostile.weights.h5", change)
    assert_refused(agent_of(), path, ValueError, "saved episodes")


def test_other_kinds_of_file_and_shards_are_refused(tmp_path):
    agent = agent_of()
    for name in ("x.h5", "x.weights.json", "x"):
        assert_refused(agent, tmp_path / name, ValueError, "`filepath` must end in '.weights.h5' or '.keras'. Received")
    assert_refused(agent, tmp_path / "none.weights.h5", FileNotFoundError, "none.weights.h5")
    with pytest.raises(ValueError, match="`max_shard_size` must be left out"):
        agent.save_weights(tmp_path / "x.weights.h5", max_shard_size=1)
    with pytest.raises(ValueError, match="`zipped` must be left out"):
        agent.save(tmp_path / "x.keras", zipped=False)
    with pytest.raises(ValueError, match="must be built before `save_weights`"):
        agent_of(spaces=None).save_weights(tmp_path / "x.weights.h5")
    assert not list(tmp_path.iterdir())


FULL = """
import resource, sys
import keras, gymnasium as gym, kerasrl_pg as pg
folder = sys.argv[1]
agent = pg.PPO(horizon=8, minibatch_size=8, networks=pg.Networks((32,)), seed=0)
agent.compile(jit_compile=False)
agent.fit("CartPole-v1", total_steps=8, epochs=1, verbose=0)
agent.save_weights(folder + "/agent.weights.h5")
agent.save(folder + "/agent.keras")
backup = keras.callbacks.BackupAndRestore(folder + "/backup", delete_checkpoint=False)
checkpoint = keras.callbacks.ModelCheckpoint(folder + "/checkpoint.weights.h5", save_weights_only=True)
agent.fit("CartPole-v1", total_steps=8, epochs=1, verbose=0, callbacks=[backup, checkpoint])
# What a full disk does, but to this process alone.
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, resource.RLIM_INFINITY))
for save in (
    lambda: agent.save_weights(folder + "/agent.weights.h5"),
    lambda: agent.save(folder + "/agent.keras"),
    lambda: agent.fit("CartPole-v1", total_steps=8, epochs=1, verbose=0, callbacks=[checkpoint]),
    backup._save_model,
):
    agent.iterations.assign_add(1)
    try:
        save()
    except OSError as error:
        print("refused", error)
"""


@pytest.mark.slow
def test_a_full_disk_is_an_error_that_loses_nothing(tmp_path):
    result = subprocess.run([sys.executable, "-c", FULL, str(tmp_path)], capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("refused") == 4, result.stdout
    kept = sorted(str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*") if p.is_file())
    latest = ["backup/latest.weights.h5", "backup/training_metadata.json"]
    assert kept == ["agent.keras", "agent.weights.h5", *latest, "checkpoint.weights.h5"]
    for name in ("agent.keras", "agent.weights.h5", "backup/latest.weights.h5", "checkpoint.weights.h5"):
        assert read_weights(tmp_path / name).weights


def test_an_agent_that_was_never_compiled_is_saved_with_what_it_has(tmp_path):
    agent = pg.PPO(seed=0)
    agent.bind(gym.spaces.Box(-1, 1, (3,)), gym.spaces.Discrete(2))
    agent.save(tmp_path / "agent.keras")
    loaded = keras.models.load_model(tmp_path / "agent.keras")
    assert not loaded.compiled
    for one, other in zip(agent.get_weights(), loaded.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    pg.PPO(seed=0, horizon=16).save(tmp_path / "unbuilt.keras")
    assert keras.models.load_model(tmp_path / "unbuilt.keras").horizon == 16
