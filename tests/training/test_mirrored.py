"""Two devices under MirroredStrategy end in the weights of one."""

import contextlib
import json
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

import kerasrl_pg as pg
from kerasrl_pg.training import mirrored

SCRIPT = Path(__file__).parent / "two_devices.py"
MORE = ["a2c-decreasing", "a2c-memory", "ppo", "ppo-memory", "ppo-batch", "ppo-stops"]
MORE += ["ppo-normalized", "ppo-regularized"]


def run(folder, names):
    command = [sys.executable, str(SCRIPT), str(folder), *names]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


def assert_same(fitted):
    """Rounding apart, while the fit has moved the weights much further."""
    assert fitted["difference"] < 1e-6
    assert fitted["moved"] > 1e-3
    assert fitted["traces"] == 1


SENTENCES = {
    "TRPO": "Received: TRPO",
    "REINFORCE": "Received: REINFORCE",
    "A3C": "Received: A3C",
    "HillClimbing": "Received: HillClimbing",
    "XLA": "`jit_compile` must be 'auto' or False under MirroredStrategy",
    "inside": "`fit` must be called outside of",
    "outside": "`optimizer` must be made in the scope",
    "odd": "a multiple of 2 rows",
}


def test_two_devices_end_in_the_weights_of_one(tmp_path):
    """In one test, for the sake of one process."""
    results = run(tmp_path, ["a2c", "invalid_rows"])
    assert_same(results["a2c"])
    assert results["invalid_rows"]["difference"] < 1e-6  # Devices with few valid rows count for less.
    assert results["invalid_rows"]["logs"] < 1e-5


@pytest.mark.slow
def test_the_whole_gradient_is_clipped_and_what_does_not_fit_is_refused(tmp_path):
    results = run(tmp_path, ["clipped", "refused"])
    assert results["clipped"] < 1e-6
    for what, sentence in SENTENCES.items():
        assert sentence in results["refused"][what]


def test_other_strategies_are_refused_by_name():
    with tf.distribute.OneDeviceStrategy("CPU:0").scope(), pytest.raises(ValueError, match="OneDeviceStrategy"):
        pg.PPO()


def test_one_device_is_treated_like_several():
    """Without virtual devices there is one; nothing but the scope may differ."""
    weights = []
    for strategy in (None, tf.distribute.MirroredStrategy(["CPU:0"])):
        with strategy.scope() if strategy else contextlib.nullcontext():
            agent = pg.A2C(networks=pg.Networks((8,)), seed=0)
            agent.compile()
        agent.fit("CartPole-v1", total_steps=40, num_envs=4, epochs=1, verbose=0)
        weights.append(agent.get_weights())
    for one, other in zip(*weights, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)
    with strategy.scope(), pytest.raises(ValueError, match="`fit` must be called outside"):
        agent.fit("CartPole-v1", total_steps=40, num_envs=4, verbose=0)
    observations = keras.Input((4,))
    networks = [keras.Model(observations, h(observations)) for h in (pg.heads.Categorical(2), pg.heads.NormalValue())]
    with strategy.scope():
        agent = pg.A2C(*networks, seed=0)
        agent.compile()
    with pytest.raises(ValueError, match="`policy` and `critic` must be made in the scope"):
        agent.fit("CartPole-v1", total_steps=40, num_envs=4, verbose=0)


def test_shares_need_rows_for_each_device():
    class Three:
        num_replicas_in_sync = 3

    no = tf.zeros(8, tf.bool)
    samples = pg.rollouts.Samples(pg.rollouts.Inputs(tf.zeros((8, 2))), no, no, no, no, no, no)
    with pytest.raises(ValueError, match="a multiple of 3 rows.*Received: 8"):
        mirrored.check_divided(Three(), samples)


@pytest.mark.slow
def test_more_settings_end_in_the_weights_of_one(tmp_path):
    results = run(tmp_path, MORE)
    for case in MORE:
        assert_same(results[case])


@pytest.mark.slow
def test_two_devices_save_load_export_and_play_compiled(tmp_path):
    results = run(tmp_path, ["kept", "compiled_env"])
    assert results["compiled_env"] < 1e-6
    kept = results["kept"]
    assert kept["loaded"] == 0.0  # And what goes on on one device goes where two go.
    assert kept["trained"] < 1e-6
    assert kept["served"] == [kept["action"]]
    assert kept["played"][0] == kept["played"][1]
