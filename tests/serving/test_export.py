import subprocess
import sys
from types import SimpleNamespace

import gymnasium as gym
import numpy as np
import pytest
import tensorflow as tf

import kerasrl_pg as pg
from kerasrl_pg.models import normalizers
from kerasrl_pg.serving import describe_signatures, export, sample_observations, verify

S = gym.spaces
SPACES = {
    "cartpole": (
        S.Box(np.float32([-4.8, -np.inf, -0.42, -np.inf]), np.float32([4.8, np.inf, 0.42, np.inf])),
        S.Discrete(2),
    ),
    "pendulum": (S.Box(np.float32([-1, -1, -8]), np.float32([1, 1, 8])), S.Box(-2, 2, (1,))),
    "nested": (
        S.Dict(
            {
                "goal": S.Discrete(4, start=1),
                "robot": S.Dict({"arm pos": S.Box(-1, 1, (2,)), "image": S.Box(0, 255, (6, 6, 2), np.uint8)}),
                "seed": S.MultiBinary(3),
            }
        ),
        S.MultiDiscrete([2, 3], start=[5, 0]),
    ),
}
SEED = [3, 7]
BATCHES = (1, 3, 50, 1000)


def make_agent(name):
    """A bound agent, no weight and no statistic of which is what it was when made."""
    agent = pg.PPO(networks=pg.Networks(hidden_units=(8,), normalize_observations=name != "cartpole"), seed=0)
    agent.bind(*SPACES[name])
    rng = np.random.default_rng(1)
    for model in (agent.policy, agent.critic):
        for variable in model.trainable_variables:
            variable.assign(0.7 * rng.normal(size=variable.shape))
        for layer in normalizers(model):
            layer.mean.assign(rng.normal(size=layer.mean.shape))
            layer.variance.assign(rng.uniform(0.2, 3.0, layer.variance.shape))
    return agent


@pytest.fixture(scope="module")
def agents():
    return {name: make_agent(name) for name in SPACES}


# Run by Python alone: what it can import is what a server has.
SERVER = """
import sys

class Forbid:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("kerasrl_pg", "tensorflow_probability", "tf_keras", "gymnasium"):
            raise ImportError(name)

sys.meta_path.insert(0, Forbid())
sys.modules["keras"] = None
import numpy as np
import tensorflow as tf

for folder in sys.argv[1:]:
    inputs = np.load(folder + "/inputs.npz")
    signatures = tf.saved_model.load(folder + "/model/1").signatures
    outputs = {}
    for size in (1, 3, 50, 1000):
        x = {name: tf.constant(inputs[name][:size]) for name in inputs.files}
        for endpoint in ("serving_default", "sample", "value"):
            more = {"seed": tf.constant([3, 7])} if endpoint == "sample" else {}
            for name, value in signatures[endpoint](**x, **more).items():
                outputs[f"{endpoint} {name} {size}"] = value.numpy()
    np.savez(folder + "/outputs.npz", **outputs)
    print(sorted(signatures))
for name in ("kerasrl_pg", "tensorflow_probability"):
    assert name not in sys.modules
"""


@pytest.fixture(scope="module")
def served(agents, tmp_path_factory):
    """`(observations, outputs)` of each exported agent, computed by TensorFlow alone in one other process."""
    root = tmp_path_factory.mktemp("served")
    observations = {}
    for name, agent in agents.items():
        assert agent.export(root / name / "model" / "1", verify=False) == str(root / name / "model" / "1")
        x = observations[name] = sample_observations(agent.actor_critic, 1000)
        np.savez(root / name / "inputs.npz", **(x if isinstance(x, dict) else {"observation": x}))
    command = [sys.executable, "-I", "-c", SERVER, *(str(root / name) for name in agents)]
    run = subprocess.run(command, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr[-2000:]
    assert run.stdout.splitlines() == ["['sample', 'serving_default', 'value']"] * len(agents)
    return {name: (observations[name], np.load(root / name / "outputs.npz")) for name in agents}


def assert_equal(received, expected):
    assert received.shape == expected.shape
    assert received.dtype == expected.dtype
    if received.dtype.kind == "f":
        np.testing.assert_allclose(received, expected, rtol=1e-5, atol=1e-5)
    else:
        np.testing.assert_array_equal(received, expected)


@pytest.mark.parametrize("name", SPACES)
def test_tensorflow_alone_gives_the_agents_actions(agents, served, name):
    x, outputs = served[name]
    expected = agents[name].act(x if isinstance(x, np.ndarray) else nested(x))
    for size in BATCHES:
        assert_equal(outputs[f"serving_default action {size}"], expected[:size])
    # The comparison would see something: actions vary, and where they have bounds they reach them.
    assert len(np.unique(expected, axis=0)) >= 2
    if name == "pendulum":
        assert len(np.unique(expected)) > 100
        assert np.abs(expected).max() == 2
    space = agents[name].spaces[1]
    assert all(space.contains(action if action.ndim else action[()]) for action in expected)


@pytest.mark.parametrize("name", SPACES)
def test_the_other_endpoints(agents, served, name):
    agent, (x, outputs) = agents[name], served[name]
    distribution, values = agent.forward(agent.actor_critic.inputs(tf.nest.map_structure(tf.constant, x)))
    for size in BATCHES:
        np.testing.assert_allclose(outputs[f"value value {size}"], values.mean()[:size], rtol=1e-4, atol=1e-5)
    actions = agent.head.sample(distribution, agent.head.noise(SEED, (1000,)))
    assert_equal(outputs["sample action 1000"], agent.head.to_env(actions).numpy())
    np.testing.assert_allclose(outputs["sample log_prob 1000"], distribution.log_prob(actions), rtol=1e-4, atol=1e-4)
    assert not np.array_equal(outputs["sample action 1000"], outputs["serving_default action 1000"])


def nested(flat):
    """The flat dictionary as the space nests it."""
    return {
        "goal": flat["goal"],
        "robot": {"arm pos": flat["robot_arm_pos"], "image": flat["robot_image"]},
        "seed": flat["seed_"],
    }


def test_another_process_verifies_before_the_folder_appears(agents, tmp_path, monkeypatch):
    path, seen = tmp_path / "models" / "1", []
    real = subprocess.run

    def run(command, **kwargs):
        seen.append((path.exists(), [p.name for p in path.parent.iterdir()], command[:2]))
        return real(command, **kwargs)

    monkeypatch.setattr(export.subprocess, "run", run)
    agents["pendulum"].export(path)
    ((there, names, command),) = seen
    assert not there
    assert len(names) == 1
    assert not names[0].isdigit()  # no version to a server that watches the folder
    assert command == [sys.executable, "-I"]
    assert [p.name for p in path.parent.iterdir()] == ["1"]
    assert not list(path.rglob("check.npz"))
    text = (path / "assets.extra" / "signatures.txt").read_text(encoding="utf8")
    assert text == describe_signatures(path)
    assert [line.split()[:3] + line.split()[4:] for line in text.splitlines()] == [
        ["sample", "input", "observation", "float32", "-1,3"],
        ["sample", "input", "seed", "int32", "2"],
        ["sample", "output", "action", "float32", "-1,1"],
        ["sample", "output", "log_prob", "float32", "-1"],
        ["serving_default", "input", "observation", "float32", "-1,3"],
        ["serving_default", "output", "action", "float32", "-1,1"],
        ["value", "input", "observation", "float32", "-1,3"],
        ["value", "output", "value", "float32", "-1"],
    ]


def test_nothing_is_left_where_verification_fails(agents, tmp_path, monkeypatch):
    failed = SimpleNamespace(returncode=1, stderr="12.5% of the actions differ", stdout="")
    monkeypatch.setattr(export.subprocess, "run", lambda *_, **__: failed)
    with pytest.raises(
        RuntimeError, match="must give the agent's actions. Received: 12.5% of the actions differ.*Nothing"
    ):
        agents["cartpole"].export(tmp_path / "1")
    assert not list(tmp_path.iterdir())


def test_nothing_is_left_where_saving_fails(agents, tmp_path, monkeypatch):
    def half(module, folder, signatures):
        (tmp_path / folder).mkdir()
        raise OSError("the disk is full")

    monkeypatch.setattr(export.tf.saved_model, "save", half)
    with pytest.raises(OSError, match="the disk is full"):
        agents["cartpole"].export(tmp_path / "1")
    assert not list(tmp_path.iterdir())


def test_an_existing_folder_is_refused(agents, tmp_path):
    (tmp_path / "1").mkdir()
    with pytest.raises(
        ValueError, match="`filepath` must be a folder that does not exist yet. Received: .* Choose the next"
    ):
        agents["cartpole"].export(tmp_path / "1")
    assert not list((tmp_path / "1").iterdir())


def test_an_agent_without_networks_is_refused(tmp_path):
    with pytest.raises(ValueError, match="The agent must be built before `export`"):
        pg.PPO(seed=0).export(tmp_path / "1")


def test_without_critic_there_is_no_value(tmp_path):
    agent = pg.REINFORCE(networks=pg.Networks(hidden_units=()), seed=0)
    agent.bind(*SPACES["cartpole"])
    agent.export(tmp_path / "1", verify=False)
    assert {line.split()[0] for line in describe_signatures(tmp_path / "1").splitlines()} == {
        "sample",
        "serving_default",
    }


@pytest.fixture(scope="module")
def exported(agents, tmp_path_factory):
    """`(folder, inputs, actions)` of an exported agent with continuous and one with discrete actions."""
    root = tmp_path_factory.mktemp("exported")
    result = {}
    for name in ("cartpole", "pendulum"):
        agents[name].export(root / name, verify=False)
        x = sample_observations(agents[name].actor_critic, 64)
        result[name] = str(root / name), x, agents[name].act(x)
    return result


@pytest.fixture
def run_verify(exported, tmp_path, monkeypatch):
    """Function of an agent's name and the actions to expect, which runs `verify.main` in this process."""

    def run(name, expected, **more):
        folder, x, _ = exported[name]
        np.savez(tmp_path / "check.npz", input_observation=x, expected_action=expected, **more)
        monkeypatch.setattr(sys, "meta_path", list(sys.meta_path))
        monkeypatch.setitem(sys.modules, "keras", sys.modules["keras"])  # Comes back after the test.
        verify.main(folder, str(tmp_path / "check.npz"))

    return run


@pytest.mark.parametrize("name", ["cartpole", "pendulum"])
def test_verify_accepts_the_agents_actions(exported, run_verify, name):
    run_verify(name, exported[name][2])


def test_verify_makes_this_library_unimportable(exported, run_verify, monkeypatch):
    for name in [n for n in sys.modules if n.partition(".")[0] == "kerasrl_pg"]:
        monkeypatch.delitem(sys.modules, name)
    run_verify("cartpole", exported["cartpole"][2])
    with pytest.raises(ImportError, match="kerasrl_pg must not be needed to serve a policy"):
        import kerasrl_pg  # noqa: F401
    with pytest.raises(ImportError):
        import keras  # noqa: F401


def change(actions, rows, by):
    changed = actions.copy()
    changed[:rows] += np.asarray(by, changed.dtype)
    return changed


def test_verify_refuses_wrong_actions(exported, run_verify):
    discrete, continuous = exported["cartpole"][2], exported["pendulum"][2]
    run_verify("cartpole", change(discrete, 1, 1))  # a near tie may fall either way
    with pytest.raises(SystemExit, match=r"3.1% of the actions differ, first: expected \d, received \d"):
        run_verify("cartpole", change(discrete, 2, 1))
    run_verify("pendulum", change(continuous, 64, 1e-6))
    for rows in (1, 64):
        with pytest.raises(SystemExit, match=f"{rows / 64:.1%} of the actions differ, first: expected .*, received"):
            run_verify("pendulum", change(continuous, rows, 0.01))
    with pytest.raises(SystemExit, match=r"Expected actions float64\(64, 1\), received float32\(64, 1\)"):
        run_verify("pendulum", continuous.astype(float))
    with pytest.raises(SystemExit, match=r"Expected actions float32\(64,\), received float32\(64, 1\)"):
        run_verify("pendulum", continuous[:, 0])


def test_verify_refuses_what_differs_for_extreme_observations_only(exported, run_verify):
    actions = exported["pendulum"][2]
    run_verify("pendulum", actions, mild=32)
    changed = actions.copy()
    changed[32:] += np.float32(0.01)
    with pytest.raises(SystemExit, match=r"50.0% of the actions differ"):
        run_verify("pendulum", changed, mild=32)


def test_extreme_observations_are_tried():
    x = {"robot": np.float32([[1.0, -2.0], [3e38, 0.0]]), "goal": np.int32([1, 2])}
    more = export._enlarged(x)
    assert len(more["robot"]) == len(more["goal"]) == 2 * (1 + len(export.EXTREMES))
    assert np.isfinite(more["robot"]).all()
    assert more["robot"].min() < -1e8 and more["robot"].max() > 1e8
    assert set(more["goal"].tolist()) == {1, 2}


def test_a_policy_that_is_not_finite_is_not_exported(tmp_path):
    agent = make_agent("cartpole")
    kernel = agent.policy.trainable_variables[0]
    kernel.assign(np.full(kernel.shape, np.nan))
    with pytest.raises(ValueError, match="must be finite to be exported. Received: NaN or infinity in .*kernel"):
        agent.export(tmp_path / "1")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("space", [S.Discrete(3, dtype=np.int32), S.Box(-0.1, 0.3, (2,), np.float16)], ids=str)
def test_exports_and_act_give_the_spaces_dtype(tmp_path, space):
    agent = pg.REINFORCE(networks=pg.Networks(hidden_units=()), seed=0)
    agent.bind(SPACES["pendulum"][0], space)
    x = sample_observations(agent.actor_critic, 3)
    assert agent.act(x).dtype == space.dtype
    assert space.contains(agent.act(x[0]))
    agent.export(tmp_path / "1", verify=False)
    lines = [line.split() for line in describe_signatures(tmp_path / "1").splitlines()]
    assert {line[4] for line in lines if line[1:3] == ["output", "action"]} == {space.dtype.name}


def test_sampling_observations_leaves_the_environments_space_alone(agents):
    space = agents["cartpole"].spaces[0]
    space.seed(5)
    expected = [space.sample() for _ in range(2)][1]
    space.seed(5)
    space.sample()
    first = sample_observations(agents["cartpole"].actor_critic, 4)
    np.testing.assert_array_equal(space.sample(), expected)
    np.testing.assert_array_equal(sample_observations(agents["cartpole"].actor_critic, 4), first)
    assert not np.array_equal(sample_observations(agents["cartpole"].actor_critic, 4, seed=1), first)


def test_sampled_observations_have_the_networks_dtypes(agents):
    x = sample_observations(agents["nested"].actor_critic, 2)
    assert {name: (a.shape, a.dtype.name) for name, a in x.items()} == {
        "goal": ((2,), "int32"),
        "robot_arm_pos": ((2, 2), "float32"),
        "robot_image": ((2, 6, 6, 2), "uint8"),
        "seed_": ((2, 3), "float32"),
    }
