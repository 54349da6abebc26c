"""The development server, asked by TensorFlow Serving's own generated stubs and by curl."""

import concurrent.futures
import json
import shutil
import subprocess
import threading
import time

import gymnasium as gym
import numpy as np
import pytest
import tensorflow as tf

import kerasrl_pg as pg
from kerasrl_pg.serving.development import DevelopmentServer
from kerasrl_pg.serving.development.versions import Versions

grpc = pytest.importorskip("grpc")
pytest.importorskip("uvicorn")
classification_pb2, get_model_metadata_pb2, get_model_status_pb2, predict_pb2 = (
    pytest.importorskip(f"tensorflow_serving.apis.{name}_pb2")
    for name in ("classification", "get_model_metadata", "get_model_status", "predict")
)
model_service_pb2_grpc, prediction_service_pb2_grpc = (
    pytest.importorskip(f"tensorflow_serving.apis.{name}_service_pb2_grpc") for name in ("model", "prediction")
)

BOX = gym.spaces.Box(-1, 1, (3,))
ROWS = np.random.default_rng(0).uniform(-1, 1, (10_000, 3)).astype(np.float32)


def made(seed, **settings):
    agent = pg.PPO(seed=0, networks=pg.Networks((8,)), **settings)
    agent.bind(BOX, gym.spaces.Box(-2, 2, (2,)) if not settings else gym.spaces.Discrete(3))
    rng = np.random.default_rng(seed)
    for variable in agent.network_variables:
        variable.assign(rng.normal(size=variable.shape))
    return agent


@pytest.fixture(scope="module")
def agents(tmp_path_factory):
    """Two agents that act differently, exported, by version: `(agent, folder)`."""
    root, found = tmp_path_factory.mktemp("exports"), {}
    for version in (1, 2):
        found[version] = made(version), root / str(version)
        found[version][0].export(root / str(version), verify=False)
    assert np.abs(found[1][0].act(ROWS) - found[2][0].act(ROWS)).min(1).max() > 0.1
    return found


@pytest.fixture(scope="module")
def server(agents, tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    shutil.copytree(agents[1][1], folder / "1")
    with DevelopmentServer(folder, "robot", grpc_port=0, rest_port=0) as server:
        yield server


@pytest.fixture(scope="module")
def masked(tmp_path_factory):
    """A server of a policy that takes masks."""
    folder = tmp_path_factory.mktemp("masked")
    made(1, action_masks="info").export(folder / "1", verify=False)
    with DevelopmentServer(folder, grpc_port=0, rest_port=0) as server:
        yield server


def channel(server):
    options = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
    return grpc.insecure_channel(server.grpc_address, options)


def request(rows, model="robot", signature="serving_default", version=None, **more):
    found = predict_pb2.PredictRequest()
    found.model_spec.name, found.model_spec.signature_name = model, signature
    if version is not None:
        found.model_spec.version.value = version
    for name, array in {"observation": rows, **more}.items():
        found.inputs[name].CopyFrom(tf.make_tensor_proto(array))
    return found


def curl(server, path, data=None, *more):
    """`(status, JSON)`."""
    command = ["curl", "-s", "-m", "60", "-w", "\\n%{http_code}", server.rest_address + path, *more]
    command += [] if data is None else ["--data-binary", "@-"]
    done = subprocess.run(command, input=data, capture_output=True, timeout=90)
    body, _, code = done.stdout.decode().rpartition("\n")
    return int(code), json.loads(body)


def test_the_official_stubs_get_the_agents_actions(server, agents):
    with channel(server) as to:
        stub = prediction_service_pb2_grpc.PredictionServiceStub(to)
        answer = stub.Predict(request(ROWS), timeout=60)
        np.testing.assert_allclose(tf.make_ndarray(answer.outputs["action"]), agents[1][0].act(ROWS), atol=1e-5)
        spec = answer.model_spec
        assert (spec.name, spec.signature_name, spec.version.value) == ("robot", "serving_default", 1)
        asked = request(ROWS[:2], signature="sample", seed=np.int32([0, 1]))
        asked.output_filter.append("log_prob")
        assert list(stub.Predict(asked, timeout=60).outputs) == ["log_prob"]
        found = stub.GetModelMetadata(
            get_model_metadata_pb2.GetModelMetadataRequest(
                model_spec=asked.model_spec, metadata_field=["signature_def"]
            )
        )
        signatures = get_model_metadata_pb2.SignatureDefMap()
        found.metadata["signature_def"].Unpack(signatures)
        assert set(signatures.signature_def) == {"serving_default", "sample", "value"}
        shape = signatures.signature_def["serving_default"].inputs["observation"].tensor_shape
        assert [dim.size for dim in shape.dim] == [-1, 3]
        status = model_service_pb2_grpc.ModelServiceStub(to).GetModelStatus(
            get_model_status_pb2.GetModelStatusRequest(model_spec=asked.model_spec)
        )
        (one,) = status.model_version_status
        assert (one.version, one.state, one.status.error_code) == (
            1,
            get_model_status_pb2.ModelVersionStatus.AVAILABLE,
            0,
        )
        with pytest.raises(grpc.RpcError) as error:
            stub.Classify(classification_pb2.ClassificationRequest())
        assert error.value.code() == grpc.StatusCode.UNIMPLEMENTED


def test_curl_gets_the_agents_actions_by_column_and_by_row(server, agents):
    x, expected = ROWS[:3].tolist(), agents[1][0].act(ROWS[:3])
    columns = ({"inputs": {"observation": x}}, {"inputs": x, "signature_name": "serving_default"})
    rows = ({"instances": x}, {"instances": [{"observation": each} for each in x]})
    for body, key in [*((body, "outputs") for body in columns), *((body, "predictions") for body in rows)]:
        for path in ("/v1/models/robot:predict", "/v1/models/robot/versions/1:predict"):
            code, answer = curl(server, path, json.dumps(body).encode())
            assert code == 200 and list(answer) == [key]
            np.testing.assert_allclose(answer[key], expected, atol=1e-5)
    body = {"signature_name": "sample", "inputs": {"observation": x, "seed": [0, 1]}}
    code, answer = curl(server, "/v1/models/robot:predict", json.dumps(body).encode())
    assert code == 200 and set(answer["outputs"]) == {"action", "log_prob"}
    body = {"signature_name": "value", "instances": x}
    assert len(curl(server, "/v1/models/robot:predict", json.dumps(body).encode())[1]["predictions"]) == 3


def test_rows_of_several_inputs(masked):
    x = [{"observation": ROWS[0].tolist(), "action_mask": mask} for mask in np.eye(3, dtype=bool).tolist()]
    code, answer = curl(masked, "/v1/models/default:predict", json.dumps({"instances": x}).encode())
    assert (code, answer) == (200, {"predictions": [0, 1, 2]})


def test_status_metadata_and_health(server):
    status = {"version": "1", "state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}}
    for path in ("/v1/models/robot", "/v1/models/robot/versions/1"):
        assert curl(server, path) == (200, {"model_version_status": [status]})
    code, answer = curl(server, "/v1/models/robot/metadata")
    assert code == 200 and answer["model_spec"] == {"name": "robot", "signature_name": "", "version": "1"}
    found = answer["metadata"]["signature_def"]["signature_def"]["serving_default"]["inputs"]["observation"]
    assert found["dtype"] == "DT_FLOAT" and [dim["size"] for dim in found["tensor_shape"]["dim"]] == ["-1", "3"]
    assert curl(server, "/health") == (200, {"status": "AVAILABLE", "model": "robot", "version": "1"})
    for path in ("/v1/models/other", "/v1/models/robot/versions/9", "/v1/models/other/metadata"):
        assert curl(server, path)[0] == 404
    assert curl(server, "/nothing") == (404, {"error": "There is nothing at this URL."})
    assert curl(server, "/health", None, "-X", "DELETE") == (
        405,
        {"error": "This URL must be asked by another method."},
    )


BODIES = [
    b"",
    b"{",
    b"\xff\xfe",
    b"[]",
    b"null",
    b"{}",
    b'{"inputs": null}',
    b'{"instances": []}',
    b'{"instances": 1}',
    b'{"instances": [[0, 0, 0]], "inputs": [[0, 0, 0]]}',
    b'{"inputs": [[0, 0]]}',
    b'{"inputs": [0, 0, 0]}',
    b'{"inputs": [[0, 0, 0], [0, 0]]}',
    b'{"inputs": [["a", "b", "c"]]}',
    b'{"inputs": [[true, true, false]]}',
    b'{"inputs": [[null, 0, 0]]}',
    b'{"inputs": [[NaN, 0, 0]]}',
    b'{"inputs": [[Infinity, 0, 0]]}',
    b'{"inputs": [[1e999, 0, 0]]}',
    b'{"inputs": [[1e300, 0, 0]]}',
    b'{"inputs": [[1' + b"0" * 400 + b", 0, 0]]}",
    b'{"inputs": [[{"b64": "AAAA"}, 0, 0]]}',
    b'{"inputs": {"observation": [[0, 0, 0]], "more": [[0]]}}',
    b'{"inputs": {"obs": [[0, 0, 0]]}}',
    b'{"instances": [{"observation": [0, 0, 0]}, {"obs": [0, 0, 0]}]}',
    b'{"instances": [{"observation": [0, 0, 0]}, [0, 0, 0]]}',
    b'{"instances": [[0, 0, 0]], "signature_name": "nothing"}',
    b'{"instances": [[0, 0, 0]], "signature_name": 1}',
    b'{"instances": [{"observation": [0, 0, 0], "seed": [0, 1]}], "signature_name": "sample"}',
    b'{"inputs": {"observation": [[0, 0, 0]], "seed": [0.5, 1]}, "signature_name": "sample"}',
    b'{"inputs": {"observation": [[0, 0, 0]], "seed": [99999999999, 1]}, "signature_name": "sample"}',
    b'{"inputs": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    b'{"inputs": ' + b"[" * 500 + b"]" * 500 + b"}",
]


def test_malformed_requests_get_a_sentence_and_the_next_one_its_answer(server):
    import requests

    with requests.Session() as session:
        for body in BODIES:
            answer = session.post(server.rest_address + "/v1/models/robot:predict", data=body, timeout=60)
            assert answer.status_code == 400, (body[:80], answer.text)
            assert list(answer.json()) == ["error"] and "Traceback" not in answer.text
    code, answer = curl(server, "/v1/models/robot:predict", b'{"inputs": [[0, 0, 0')
    assert code == 400 and answer["error"].startswith("JSON Parse error")
    assert curl(server, "/v1/models/robot:predict", b'{"inputs": [[0, 0, 0]]}')[0] == 200


def half():
    found = request(ROWS[:2])
    found.inputs["observation"].tensor_content = b"\0" * 7
    return found


def huge():
    found = request(ROWS[:1])
    found.inputs["observation"].tensor_shape.dim[0].size = 10**12
    found.inputs["observation"].tensor_content, found.inputs["observation"].float_val[:] = b"", [1.0]
    return found


def labelled():
    found = request(ROWS[:1])
    found.model_spec.version_label = "stable"
    return found


def test_messages_that_do_not_fit_are_refused(server, masked):
    nan = np.float32([[0, np.nan, 0]])
    invalid, missing = grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND
    cases = [
        (server, half(), invalid, "must be a tensor"),
        (server, huge(), invalid, "must hold at most"),
        (server, labelled(), invalid, "by number"),
        (server, request(ROWS[:2, :2]), invalid, r"`observation` must be float32 of shape \[None, 3\].*\[2, 2\]"),
        (server, request(ROWS[0]), invalid, r"Received: float32 of shape \[3\]"),
        (server, request(ROWS[:2].astype(float)), invalid, "Received: float64"),
        (server, request([[b"a", b"b", b"c"]]), invalid, "Received: object"),
        (server, request(nan), invalid, "must be finite"),
        (server, request(ROWS[:1], action_mask=[[True] * 3]), invalid, "the inputs must be observation"),
        (server, request(ROWS[:1], signature="other"), invalid, "'other' not found"),
        (server, request(ROWS[:1], model="other"), missing, r"Latest\(other\).*'robot'"),
        (server, request(ROWS[:1], version=9), missing, r"Specific\(robot, 9\)"),
        (masked, request(ROWS[:3], "default", action_mask=[[True] * 3]), invalid, "as many rows"),
        (masked, request(ROWS[:2], "default", action_mask=[[True] * 3, [False] * 3]), invalid, "must allow something"),
        (masked, request(ROWS[:3], "default"), invalid, "the inputs must be action_mask, observation"),
    ]
    for asked, message, code, sentence in cases:
        with channel(asked) as to:
            stub = prediction_service_pb2_grpc.PredictionServiceStub(to)
            with pytest.raises(grpc.RpcError, match=sentence) as error:
                stub.Predict(message, timeout=60)
            assert error.value.code() == code
    with channel(server) as to:
        stub = prediction_service_pb2_grpc.PredictionServiceStub(to)
        assert len(tf.make_ndarray(stub.Predict(request(ROWS[:1]), timeout=60).outputs["action"])) == 1


def test_ten_thousand_rows_by_rest(server, agents):
    client = pg.serving.Client(server.rest_address, model="robot", timeout=60)
    np.testing.assert_allclose(client.act(ROWS), agents[1][0].act(ROWS), atol=1e-5)


@pytest.mark.parametrize("protocol", ["grpc_address", "rest_address"])
@pytest.mark.quick("grpc_address")
def test_a_hundred_clients_at_once(server, agents, protocol):
    expected, ready = agents[1][0].act(ROWS[:100]), threading.Barrier(100)

    def ask(number):
        with pg.serving.Client(getattr(server, protocol), model="robot", timeout=60) as client:
            ready.wait()
            return [client.act(ROWS[number]) for _ in range(3)]

    with concurrent.futures.ThreadPoolExecutor(100) as pool:
        for number, answers in enumerate(pool.map(ask, range(100))):
            np.testing.assert_allclose(answers, [expected[number]] * 3, atol=1e-5)


class Load:
    """Threads that go on asking, and keep by version what was answered wrong."""

    def __init__(self, server, agents, threads=4):
        self.expected = {version: agent.act(ROWS[:50]) for version, (agent, _) in agents.items()}
        self.server, self.wrong, self.versions, self._stop = server, [], [], threading.Event()
        self._threads = [threading.Thread(target=self._ask, args=(number,)) for number in range(threads)]

    def _ask(self, number):
        rng = np.random.default_rng(number)
        with channel(self.server) as to:
            stub = prediction_service_pb2_grpc.PredictionServiceStub(to)
            while not self._stop.is_set():
                row = int(rng.integers(50))
                try:
                    answer = stub.Predict(request(ROWS[row : row + 1], "default"), timeout=60)
                    version, action = answer.model_spec.version.value, tf.make_ndarray(answer.outputs["action"])[0]
                    self.versions.append(version)
                    if not np.allclose(action, self.expected[version][row], atol=1e-5):
                        self.wrong.append((version, action))
                except Exception as error:
                    self.wrong.append(error)

    def until(self, version, seconds=60):
        """Waits until a version answers, and forgets what came before."""
        end = time.monotonic() + seconds
        while version not in self.versions[-8:]:
            assert time.monotonic() < end and not self.wrong, (self.wrong[:3], self.versions[-8:])
            time.sleep(0.01)

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self._stop.set()
        for thread in self._threads:
            thread.join()


def test_a_version_half_copied_and_one_withdrawn_under_load(agents, tmp_path):
    said = []
    shutil.copytree(agents[1][1], tmp_path / "1")
    server = DevelopmentServer(tmp_path, grpc_port=0, rest_port=0, poll_seconds=0.05, say=said.append)
    with server, Load(server, agents) as load:
        load.until(1)
        files = sorted(path for path in agents[2][1].rglob("*") if path.is_file())
        for number, file in enumerate(files):  # As a slow copy makes them, each file in two halves.
            place = tmp_path / "2" / file.relative_to(agents[2][1])
            place.parent.mkdir(parents=True, exist_ok=True)
            content = file.read_bytes()
            for part in (content[: len(content) // 2], content):
                place.write_bytes(part)
                time.sleep(0.08)
            assert number == len(files) - 1 or 2 not in load.versions
        load.until(2)
        shutil.rmtree(tmp_path / "2")
        load.until(1)
        shutil.copytree(agents[2][1], tmp_path / ".copying")
        (tmp_path / ".copying").rename(tmp_path / "3")  # As `export` does it.
        load.expected[3] = load.expected[2]
        load.until(3)
        states = {number: state for number, state, _ in server.versions.statuses()}
    assert load.wrong == [] and len(load.versions) > 50
    assert states == {1: 50, 2: 50, 3: 30}
    wanted = ["Version 1 is served.", "Version 2 is served.", "Version 1 is dropped.", "Version 1 is served."]
    assert [sentence for sentence in said if "cannot" in sentence] == [] and said[:3] == wanted[:3]


def test_a_version_in_use_is_dropped_when_its_last_request_ends(agents, tmp_path):
    shutil.copytree(agents[1][1], tmp_path / "1")
    versions = Versions(tmp_path)
    versions.look()
    with versions.using() as version:
        shutil.rmtree(tmp_path / "1")
        versions.look()
        assert versions.statuses() == [(1, 40, "")]
        with versions.using() as other:
            assert other is None  # No new request gets it.
        assert version.functions["value"](observation=ROWS[:2])["value"].shape == (2,)
    assert versions.statuses() == [(1, 50, "")] and not version.functions


def test_what_cannot_be_loaded_leaves_the_one_before(agents, tmp_path):
    shutil.copytree(agents[1][1], tmp_path / "1")
    (tmp_path / "2").mkdir()
    (tmp_path / "2" / "saved_model.pb").write_bytes(b"no model")
    (tmp_path / "03").mkdir()
    (tmp_path / "4").write_text("no folder")
    versions = Versions(tmp_path, settle_seconds=0.05)
    for _ in range(3):
        versions.look()
        time.sleep(0.06)
    (two, one) = versions.statuses()
    assert one == (1, 30, "") and two[:2] == (2, 50) and two[2]
    with versions.using() as version:
        assert version.number == 1
    shutil.rmtree(tmp_path / "2")  # Repaired, without a card.
    shutil.copytree(agents[2][1], tmp_path / "2")
    (tmp_path / "2" / "assets.extra" / "card.json").unlink()
    versions.look()
    assert versions.statuses()[1][1] == 30  # It may not be all yet.
    time.sleep(0.06)
    versions.look()
    assert versions.statuses() == [(2, 30, ""), (1, 50, "")]


def test_an_empty_folder_waits_for_its_first_version(agents, tmp_path):
    with DevelopmentServer(tmp_path, grpc_port=0, rest_port=0, poll_seconds=0.05) as server:
        assert curl(server, "/health")[0] == 503
        assert curl(server, "/v1/models/default:predict", b'{"inputs": [[0, 0, 0]]}')[0] == 404
        shutil.copytree(agents[1][1], tmp_path / "1")
        end = time.monotonic() + 30
        while curl(server, "/health")[0] != 200:
            assert time.monotonic() < end


def test_a_port_that_is_taken(server, tmp_path):
    for name, address in (("grpc_port", server.grpc_address), ("rest_port", server.rest_address)):
        ports = {"grpc_port": 0, "rest_port": 0, name: int(address.rpartition(":")[2])}
        with pytest.raises(OSError, match="port must be free. Received: 127.0.0.1:.*Choose another"):
            DevelopmentServer(tmp_path, **ports).start()


def test_a_folder_that_is_none(agents, tmp_path):
    with pytest.raises(FileNotFoundError, match="must be a folder of versions"):
        DevelopmentServer(tmp_path / "nothing")
    with pytest.raises(ValueError, match="must be a folder of versions, such as .*which is a version"):
        DevelopmentServer(agents[1][1])
