"""A served policy acts as the agent does, and says in sentences why it does not."""

import socket
import sys

import gymnasium as gym
import numpy as np
import pytest

import kerasrl_pg as pg
from kerasrl_pg.serving import export
from kerasrl_pg.serving.client import flattened

pytest.importorskip("tensorflow_serving.apis")
pytest.importorskip("uvicorn")
from kerasrl_pg.serving.development import DevelopmentServer

S = gym.spaces


class Steps(gym.Env):
    """Each step pays what the action is worth; five to nine steps an episode. Some choices may be forbidden."""

    def __init__(self, observation_space, action_space, masks=False):
        self.observation_space, self.action_space, self._masks = observation_space, action_space, masks

    def _look(self):
        self.observation_space.seed(int(self.np_random.integers(2**31)))
        if not self._masks:
            return self.observation_space.sample(), {}
        mask = self.np_random.random(5) < 0.5
        mask[[0, 2]] = True
        self._mask = tuple(np.split(mask.astype(np.int8), [2]))
        return self.observation_space.sample(), {"action_mask": self._mask}

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self._left = int(self.np_random.integers(5, 10))
        return self._look()

    def step(self, action):
        assert self.action_space.contains(action)
        if self._masks:
            assert all(mask[choice] for mask, choice in zip(self._mask, action, strict=True))
        self._left -= 1
        worth = np.concatenate([np.ravel(part) for part in flattened(action).values()]).astype(float)
        observation, info = self._look()
        return observation, float(np.sin(1 + worth).sum()), self._left == 0, False, info


BOX = S.Box(-1, 1, (3,))
CASES = {
    "continuous": (BOX, S.Box(-2, 2, (2,)), {}),
    "masked": (BOX, S.MultiDiscrete([2, 3]), {"action_masks": "info"}),
    "memory": (BOX, S.Discrete(4), {"networks": pg.Networks((8,), memory=pg.models.GRU(5))}),
    "history": (BOX, S.Discrete(4), {"networks": pg.Networks((8,), memory=pg.models.History(3))}),
    "nested": (
        S.Dict(
            {
                "robot": S.Dict(arm=BOX, image=S.Box(0, 255, (4, 4, 1), np.uint8)),
                "state": S.Discrete(4),
                "seed": S.MultiBinary(2),
            }
        ),
        S.Dict(hand=S.Discrete(3), legs=S.Tuple((S.Box(-1, 1, (2,)), S.Discrete(2)))),
        {},
    ),
}


def made(case):
    """`(agent, env maker)`; the agent's weights are large, so that actions differ."""
    observation_space, action_space, settings = CASES[case]
    agent = pg.PPO(seed=0, **{"networks": pg.Networks((8,)), **settings})
    agent.bind(observation_space, action_space)
    rng = np.random.default_rng(1)
    for variable in agent.network_variables:
        variable.assign(rng.normal(size=variable.shape))
    return agent, lambda: Steps(observation_space, action_space, case == "masked")


class Served(dict):
    """`(agent, env maker, {protocol: client})` by case, served when it is first asked for."""

    def __init__(self, root):
        super().__init__()
        self._root, self.servers = root, []

    def __missing__(self, case):
        agent, env = made(case)
        agent.export(self._root / case / "1", verify=False)
        server = DevelopmentServer(self._root / case, case, grpc_port=0, rest_port=0).start()
        self.servers.append(server)
        clients = {"grpc": server.grpc_address, "rest": server.rest_address}
        self[case] = agent, env, {name: pg.serving.Client(at, model=case) for name, at in clients.items()}
        return self[case]


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    served = Served(tmp_path_factory.mktemp("served"))
    yield served
    for server in served.servers:
        server.stop()


def same(received, expected):
    for name, array in received.items() if isinstance(received, dict) else [("action", received)]:
        wanted = expected[name] if isinstance(expected, dict) else expected
        assert np.shape(array) == np.shape(wanted) and array.dtype == wanted.dtype
        np.testing.assert_allclose(array, wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("protocol", ["grpc", "rest"])
@pytest.mark.parametrize("case", CASES)
@pytest.mark.quick("memory-rest", "masked-grpc")
def test_acts_as_the_agent_does(served, case, protocol):
    agent, _, clients = served[case]
    client = clients[protocol]
    batch = agent.observation_spec.nested(export.sample_observations(agent.actor_critic, 20, seed=3))
    first = {name: part[0] for name, part in flattened(batch).items()}
    one = first["observation"] if "observation" in first else _row(batch)
    masks = (np.tile([1, 0], (20, 1)), np.tile([0, 1, 1], (20, 1)))
    for deterministic in (True, False):
        keywords = {"deterministic": deterministic, "seed": 5}
        for observation, mask in ((batch, masks), (one, tuple(part[0] for part in masks))):
            more = {"action_mask": mask} if case == "masked" else {}
            received = client.act(observation, **keywords, **more)
            expected = agent.act(observation, **keywords, **more)
            if client.memory_size:
                (received, after), (expected, state) = received, expected
                np.testing.assert_allclose(after, state, atol=1e-5)
                received_next, expected_next = (
                    each.act(observation, state=state, **keywords)[1] for each in (client, agent)
                )
                np.testing.assert_allclose(received_next, expected_next, atol=1e-5)
                assert not np.allclose(received_next, after)
            same(received, agent.head.named(expected) if case == "nested" else expected)


def _row(batch):
    return {k: _row(part) if isinstance(part, dict) else part[0] for k, part in batch.items()}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.quick("masked", "memory")
def test_episodes_with_a_served_policy_return_what_the_agents_do(served, case):
    agent, env, clients = served[case]
    expected = agent.evaluate(env, episodes=12, seed=4, num_envs=5)
    played = pg.serving.play(clients["grpc"], env, episodes=12, seed=4, num_envs=5)
    assert expected["return_std"] > 0.1
    assert played == (pytest.approx(expected, rel=1e-5) if case in ("continuous", "nested") else expected)
    drawn = pg.serving.play(clients["rest"], env, episodes=12, deterministic=False, seed=4, num_envs=5)
    assert drawn["deterministic"] == 0.0 and drawn["return"] != played["return"]


def test_cartpole_is_balanced_through_the_server_as_by_the_agent(tmp_path):
    agent = pg.A2C(networks=pg.Networks(()), seed=0)
    agent.bind(gym.make("CartPole-v1").observation_space, S.Discrete(2))
    agent.policy.trainable_variables[0].assign([[-0.1, 0.1], [-1.0, 1.0], [-1.0, 1.0], [-1.0, 1.0]])
    agent.export(tmp_path / "1", verify=False)
    expected = agent.evaluate("CartPole-v1", episodes=4)
    server = DevelopmentServer(tmp_path, grpc_port=0, rest_port=0)
    with server, pg.serving.Client(server.grpc_address) as client:
        assert pg.serving.play(client, "CartPole-v1", episodes=4) == expected
    assert expected["return"] > 50


def test_masks_must_be_given_where_the_policy_was_trained_with_them(served):
    with pytest.raises(ValueError, match="`env` must give action masks.*does not"):
        pg.serving.play(served["masked"][2]["grpc"], lambda: Steps(BOX, S.MultiDiscrete([2, 3])), episodes=1)
    with pytest.raises(ValueError, match="`env` must not give action masks.*that does."):
        pg.serving.play(served["memory"][2]["grpc"], lambda: Steps(BOX, S.MultiDiscrete([2, 3]), True), episodes=1)


def test_predict_asks_any_endpoint(served):
    agent, _, clients = served["continuous"]
    x = export.sample_observations(agent.actor_critic, 4)
    values = agent.forward(agent.actor_critic.inputs(x))[1].mean()
    for client in clients.values():
        np.testing.assert_allclose(client.predict({"observation": x}, "value")["value"], values, rtol=1e-4)
        assert set(client.predict({"observation": x.tolist(), "seed": [0, 1]}, "sample")) == {"action", "log_prob"}
        assert client.signatures["serving_default"]["inputs"]["observation"] == (np.dtype("float32"), (None, 3))


X = np.zeros(3, np.float32)
MISTAKES = [
    ("continuous", lambda c: c.act([1.0, 2.0]), ValueError, r"must have shape \(3,\), or a batch of it"),
    ("continuous", lambda c: c.act([1.0, np.nan, 2.0]), ValueError, "`observation` must be finite. Received: nan"),
    ("continuous", lambda c: c.act([1.0, 1e39, 2.0]), ValueError, "must be within float32"),
    ("continuous", lambda c: c.act(["a", "b", "c"]), ValueError, "must be numbers of shape"),
    ("continuous", lambda c: c.act(X, action_mask=[1]), ValueError, "`action_mask` must be None"),
    ("continuous", lambda c: c.act(X, state=[1]), ValueError, "`state` must be None"),
    ("continuous", lambda c: c.act(X, deterministic=False, seed=0.5), ValueError, "`seed` must be a whole number"),
    ("continuous", lambda c: c.predict({"observation": X[None]}, "valeu"), LookupError, "must be one of .*'valeu'"),
    (
        "continuous",
        lambda c: c.predict({"x": X[None]}),
        ValueError,
        "`inputs` of 'serving_default' must be observation",
    ),
    ("masked", lambda c: c.act(X), ValueError, "`action_mask` must be given to this policy"),
    ("masked", lambda c: c.act(X, action_mask=[0] * 5), ValueError, "must allow something. Received: none for"),
    ("masked", lambda c: c.act(X, action_mask=[1] * 4), ValueError, "must be 5 zeros and ones for each of 1"),
    ("masked", lambda c: c.act(X[None], action_mask=np.ones((5, 1))), ValueError, "must be 5 zeros and ones"),
    ("continuous", lambda c: c.act([[0.0] * 3, [0.0]]), ValueError, "must be rows of one length"),
    ("memory", lambda c: c.act(X, state=np.zeros(4)), ValueError, r"`state` must be numbers of shape \[B, 5\]"),
    ("nested", lambda c: c.act({"robot": X}), ValueError, "must have the parts .*robot_arm.*Received: robot"),
]


@pytest.mark.parametrize(("case", "call", "kind", "sentence"), MISTAKES, ids=range(len(MISTAKES)))
def test_mistakes_are_refused_before_the_server_is_asked(served, case, call, kind, sentence):
    with pytest.raises(kind, match=sentence):
        call(served[case][2]["grpc"])


@pytest.mark.parametrize("protocol", ["grpc", "rest"])
def test_what_the_server_answers_is_a_sentence(served, protocol):
    known = served["continuous"][2][protocol]
    with pytest.raises(LookupError, match=r"Servable not found for request: Latest\(other\).*'continuous'"):
        pg.serving.Client(known.address, model="other").act(X)
    with pytest.raises(LookupError, match=r"Specific\(continuous, 7\)"):
        pg.serving.Client(known.address, model="continuous", version=7).act(X)
    assert pg.serving.Client(known.address, model="continuous", version=1).act(X).shape == (2,)
    known._signatures = None
    with pytest.raises(ValueError, match="must accept what it is asked. Received: `observation` must be float32"):
        known._transport.predict({"observation": np.zeros((1, 2), np.float32)}, "serving_default", {"action": 0})


def test_nobody_there_and_nobody_answering():
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        for address in (f"127.0.0.1:{port}", f"http://127.0.0.1:{port}"):
            with pytest.raises(TimeoutError, match="must answer within timeout=0.2 seconds"):
                pg.serving.Client(address, timeout=0.2).act(X)
    for address in (f"127.0.0.1:{port}", f"http://127.0.0.1:{port}"):
        with pytest.raises(ConnectionError, match="must be there to be asked.*kerasrl-pg serve"):
            pg.serving.Client(address, timeout=5.0).act(X)


def test_arguments_and_extras():
    for given, sentence in (
        ({"address": ""}, "`address` must be 'host:8500' or"),
        ({"address": "x:1", "timeout": 0}, "`timeout` must be"),
        ({"address": "x:1", "version": "1"}, "`version` must be"),
        ({"address": "x:1", "model": ""}, "`model` must be a name"),
    ):
        with pytest.raises(ValueError, match=sentence):
            pg.serving.Client(**given)


def test_without_grpc_the_extra_is_named(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "tensorflow_serving.apis", None)
    with pytest.raises(ImportError, match=r"pip install kerasrl-pg\[serving\]"):
        pg.serving.Client("localhost:8500")
    pg.serving.Client("http://localhost:8501")
    with pytest.raises(ImportError, match=r"pip install kerasrl-pg\[serving\]"):
        DevelopmentServer(tmp_path)
