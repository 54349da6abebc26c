"""What stands beside an exported model: its card, example requests, warm-up, and the LiteRT file."""

import hashlib
import json
import subprocess
import sys

import gymnasium as gym
import numpy as np
import pytest
import tensorflow as tf
from google.protobuf import json_format

import kerasrl_pg as pg
from kerasrl_pg.serving import card as cards
from kerasrl_pg.serving import export, requests, verify

S = gym.spaces
ROBOT = S.Dict(robot=S.Box(-1, 1, (3,)), goal=S.Discrete(4))
CASES = {
    "discrete": (S.Box(-1, np.inf, (3,)), S.Discrete(3), {}),
    "gru": (S.Box(-1, 1, (3,)), S.Box(-2, 2, (2,)), {"networks": pg.Networks((8,), memory=pg.models.GRU(5))}),
    "masked": (S.Box(-1, 1, (3,)), S.MultiDiscrete([2, 3]), {"action_masks": "info"}),
    "nested": (ROBOT, S.Dict(a=S.Discrete(2), b=S.Box(-1, 1, (2,))), {}),
}


def made(case):
    observation_space, action_space, settings = CASES[case]
    agent = pg.PPO(seed=7, **{"networks": pg.Networks((8,)), **settings})
    agent.bind(observation_space, action_space)
    rng = np.random.default_rng(0)
    for variable in agent.network_variables:
        variable.assign(rng.normal(size=variable.shape))
    return agent


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """`(agent, folder)` by case, exported with a LiteRT file."""
    root, found = tmp_path_factory.mktemp("exported"), {}
    for case in CASES:
        agent = made(case)
        found[case] = agent, root / case / "1"
        agent.export(root / case / "1", verify=False, litert=True, command="kerasrl-pg train --out=x")
    return found


def beside(folder, name):
    return json.loads((folder / "assets.extra" / name).read_text(encoding="utf8"))


def test_the_card_says_where_a_policy_comes_from(exported):
    agent, folder = exported["discrete"]
    card = beside(folder, "card.json")
    assert (card["agent"], card["environment_steps"], card["seeds"]) == ("PPO", 0, [7])
    assert card["observation_space"]["high"] == "inf" or card["observation_space"]["high"][0] == "inf"
    assert card["action_space"] == {"kind": "Discrete", "n": 3, "start": 0}
    assert card["command"] == "kerasrl-pg train --out=x" and card["return"] is None
    assert card["versions"]["tensorflow"] == tf.__version__
    weights = (folder / "variables" / "variables.data-00000-of-00001").read_bytes()
    assert card["sha256"]["variables/variables.data-00000-of-00001"] == hashlib.sha256(weights).hexdigest()
    files = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert {*card["sha256"]} == files - {"assets.extra/card.json", "assets.extra/card.md"}
    text = (folder / "assets.extra" / "card.md").read_text(encoding="utf8")
    assert "| command | kerasrl-pg train --out=x |" in text and "| return | not known |" in text


def test_a_changed_file_differs_from_the_card(exported, tmp_path):
    folder = tmp_path / "1"
    subprocess.run(["cp", "-r", str(exported["discrete"][1]), str(folder)], check=True)
    assert cards.differences(folder, cards.read_card(folder)) == []
    (folder / "saved_model.pb").write_bytes(b"x")
    (folder / "variables" / "variables.index").unlink()
    assert cards.differences(folder, cards.read_card(folder)) == ["saved_model.pb", "variables/variables.index"]
    (folder / cards.NAME).write_text('{"sha2')
    assert cards.read_card(folder) is None


def test_the_last_evaluation_is_known_while_the_weights_are_the_same(tmp_path):
    agent = pg.A2C(networks=pg.Networks((4,)), seed=0)
    agent.bind(gym.make("CartPole-v1").observation_space, S.Discrete(2))
    result = agent.evaluate("CartPole-v1", episodes=4, seed=5)
    agent.export(tmp_path / "1", verify=False)
    found = beside(tmp_path / "1", "card.json")["return"]
    assert found["mean"] == result["return"] and (found["environment"], found["seed"]) == ("CartPole-v1", 5)
    half = cards.Z * result["return_std"] / np.sqrt(3)
    np.testing.assert_allclose(found["interval"], [result["return"] - half, result["return"] + half], atol=1e-3)
    agent.network_variables[0].assign_add(np.ones_like(agent.network_variables[0]))
    agent.export(tmp_path / "2", verify=False)
    assert beside(tmp_path / "2", "card.json")["return"] is None
    agent.export(
        tmp_path / "3", verify=False, evaluation={"return": 1.0, "return_std": 0.0, "episodes": 1, "seed": np.int64(3)}
    )
    found = beside(tmp_path / "3", "card.json")["return"]
    assert found["interval"] is None and found["seed"] == 3
    with pytest.raises(ValueError, match="`evaluation` must be what `agent.evaluate"):
        agent.export(tmp_path / "4", evaluation={"reward": 1.0})
    assert not (tmp_path / "4").exists()
    unknown = {**result, "return": np.nan, "return_std": np.nan}
    assert cards.return_of(unknown)["mean"] is None  # JSON has no NaN


@pytest.mark.parametrize("case", CASES)
def test_example_requests_are_answered(exported, case):
    predict_pb2 = pytest.importorskip("tensorflow_serving.apis.predict_pb2")
    _, folder = exported[case]
    signatures = tf.saved_model.load(str(folder)).signatures
    example = json_format.ParseDict(beside(folder, "request_grpc.json"), predict_pb2.PredictRequest())
    assert example.model_spec.signature_name == "serving_default"
    rest = beside(folder, "request_rest.json")["inputs"]
    assert {*rest} == {*example.inputs} == {*signatures["serving_default"].structured_input_signature[1]}
    for name, proto in example.inputs.items():
        np.testing.assert_allclose(rest[name], tf.make_ndarray(proto), rtol=1e-6)
    asked = []
    for request in requests.read_warm_up(folder):
        given = {name: tf.constant(tf.make_ndarray(proto)) for name, proto in request.inputs.items()}
        outputs = signatures[request.model_spec.signature_name](**given)
        assert all(np.isfinite(x.numpy().astype(float)).all() for x in outputs.values())
        asked.append(request.model_spec.signature_name)
    assert {*asked} == {*signatures}


def test_without_tensorflow_serving_api_there_is_no_warm_up(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow_serving.apis", None)
    made("discrete").export(tmp_path / "1", verify=False)
    assert not (tmp_path / "1" / requests.WARM_UP).exists()
    assert "pip install kerasrl-pg[serving]" in beside(tmp_path / "1", "card.json")["warm_up"]
    assert (tmp_path / "1" / requests.GRPC).exists()


@pytest.mark.parametrize("case", CASES)
def test_the_litert_file_acts_alike(exported, case):
    agent, folder = exported[case]
    interpreter = verify.interpreter(str(folder / "assets.extra" / "policy.tflite"))
    runner = interpreter.get_signature_runner("serving_default")
    for size in (1, 50):
        x = export.sample_observations(agent.actor_critic, size)
        given = {"observation": x} if agent.observation_spec.single else dict(x)
        keywords = {}
        if case == "masked":
            given["action_mask"] = np.tile(np.array([True, False, False, True, True]), (size, 1))
            keywords["action_mask"] = (np.tile([1, 0], (size, 1)), np.tile([0, 1, 1], (size, 1)))
        if case == "gru":
            begin = interpreter.get_signature_runner("initial_state")(batch_size=np.int32(size))["state"]
            given["state"] = keywords["state"] = begin + 0.5
        received, expected = runner(**given), agent.act(x, **keywords)
        if case == "gru":
            expected, state = expected
            np.testing.assert_allclose(received["state"], state, atol=1e-5)
        for name, array in agent.head.named(expected).items():
            np.testing.assert_allclose(received[name], array, atol=1e-5)
            assert received[name].dtype == array.dtype
        assert size == 1 or len(np.unique(next(iter(received.values())), axis=0)) > 1


def test_verify_refuses_another_litert_file(exported, tmp_path, monkeypatch):
    agent, folder = exported["discrete"]
    x = export.sample_observations(agent.actor_critic, 64)
    np.savez(tmp_path / "check.npz", input_observation=x, expected_action=agent.act(x))
    other, content = made("discrete"), folder / "assets.extra" / "policy.tflite"
    for variable in other.network_variables:
        variable.assign(-variable)
    other.export(tmp_path / "other", verify=False, litert=True)
    monkeypatch.setattr(sys, "meta_path", list(sys.meta_path))
    monkeypatch.setitem(sys.modules, "keras", sys.modules["keras"])  # Comes back after the test.
    verify.main(str(folder), str(tmp_path / "check.npz"), str(content))
    with pytest.raises(SystemExit, match=r"^LiteRT: [0-9.]+% of the actions differ"):
        verify.main(
            str(folder), str(tmp_path / "check.npz"), str(tmp_path / "other" / "assets.extra" / "policy.tflite")
        )


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_another_process_verifies_the_litert_file(tmp_path, monkeypatch, case):
    agent = made(case)
    agent.export(tmp_path / "1", litert=True)
    for variable in agent.network_variables:
        variable.assign(-variable)
    content = (tmp_path / "1" / "assets.extra" / "policy.tflite").read_bytes()

    def wrong(folder, signatures):
        (folder / "assets.extra" / "policy.tflite").write_bytes(content)

    monkeypatch.setattr(export, "write_litert", wrong)
    with pytest.raises(RuntimeError, match=r"(?s)LiteRT: [0-9.]+% of the actions differ"):
        agent.export(tmp_path / "2", litert=True)
    assert not (tmp_path / "2").exists()


def test_what_litert_cannot_is_refused(tmp_path, monkeypatch):
    def no(*_, **__):
        raise ValueError("'tf.Erfinv' op is neither a custom op nor a flex op")

    monkeypatch.setattr(tf.lite.TFLiteConverter, "from_saved_model", no)
    with pytest.raises(RuntimeError, match="must be made of LiteRT's own operations.*Erfinv.*leave litert=True out"):
        made("discrete").export(tmp_path / "1", litert=True)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("part", ["observation", "action"])
def test_a_part_called_as_what_stands_beside_it_is_refused(tmp_path, part):
    named, plain = S.Dict(state=S.Discrete(4)), S.Discrete(4)
    agent = pg.PPO(networks=pg.Networks((4,), memory=pg.models.GRU(4)), seed=0)
    agent.bind(*((named, plain) if part == "observation" else (plain, named)))
    with pytest.raises(ValueError, match=f"No part of the {part} may be called .*Received: state. Rename it"):
        agent.export(tmp_path / "1")
    assert not list(tmp_path.iterdir())
