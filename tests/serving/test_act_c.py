import shutil
import subprocess
from importlib import resources

import keras
import numpy as np
import pytest
import tensorflow as tf

import kerasrl_pg as pg
from kerasrl_pg.serving import describe_signatures

GCC = shutil.which("gcc")
pytestmark = pytest.mark.skipif(GCC is None, reason="act.c needs gcc, which is not on the PATH")


@pytest.fixture(scope="module")
def act(tmp_path_factory):
    """The compiled program."""
    program = tmp_path_factory.mktemp("act") / "act"
    tensorflow = tf.sysconfig.get_lib()
    source = resources.files("kerasrl_pg") / "serving" / "act.c"
    libraries = ["-l:libtensorflow_cc.so.2", "-l:libtensorflow_framework.so.2"]
    build = [GCC, "-O2", "-Wall", "-Wextra", "-Werror", f"-I{tf.sysconfig.get_include()}"]
    build += [str(source), "-o", str(program), f"-L{tensorflow}", *libraries]
    run = subprocess.run([*build, f"-Wl,-rpath,{tensorflow}"], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    return str(program)


def export_toy(folder, shape, choose):
    """A random network from observations of `shape` to five numbers, `choose` to actions."""
    rng = np.random.default_rng(0)
    module = tf.Module()
    module.kernel = tf.Variable(rng.normal(size=(int(np.prod(shape)), 5)).astype("float32"))
    observations = tf.TensorSpec((None, *shape), tf.float32, name="observation")

    @tf.function(input_signature=[observations])
    def serve(observation):
        features = tf.reshape(observation, (tf.shape(observation)[0], -1))
        return {"action": choose(tf.tanh(features @ module.kernel))}

    @tf.function(input_signature=[observations, tf.TensorSpec((2,), tf.int32, name="seed")])
    def sample(observation, seed):
        # Another signature, and one with more outputs, so that names in the graph get numbers.
        action = serve(observation)["action"]
        return {"action": action + tf.cast(seed[0], action.dtype), "log_prob": observation[:, 0]}

    signatures = {"sample": sample, "serving_default": serve}
    tf.saved_model.save(module, str(folder), signatures=signatures)
    describe(folder)
    return str(folder)


def describe(folder):
    (folder / "assets.extra").mkdir()
    text = describe_signatures(folder)
    (folder / "assets.extra" / "signatures.txt").write_text(text, encoding="utf8")


def run(act, *arguments, stdin=b""):
    arguments = [act, *map(str, arguments)]
    return subprocess.run(arguments, input=stdin, capture_output=True, timeout=120)


def numbers(done):
    assert done.returncode == 0, done.stderr.decode()
    return np.array([line.split() for line in done.stdout.decode().splitlines()], "float64")


CASES = {
    "box": ((4,), lambda logits: 3.0 * logits),
    "discrete": ((4,), lambda logits: tf.argmax(logits, -1, tf.int32)),
    "discrete_int64": ((2, 3), lambda logits: tf.argmax(logits, -1)),
    "binary": ((2, 3), lambda logits: tf.cast(logits > 0.0, tf.int8)),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.quick("discrete_int64")
def test_gives_the_saved_models_actions(act, tmp_path, case):
    shape, choose = CASES[case]
    model = export_toy(tmp_path / "1", shape, choose)
    rng = np.random.default_rng(1)
    observations = rng.normal(size=(1000, *shape)).astype("float32")
    served = tf.saved_model.load(model).signatures["serving_default"]
    expected = served(observation=tf.constant(observations))["action"].numpy().reshape(1000, -1)
    assert len(np.unique(expected, axis=0)) > 1

    file = tmp_path / "observations.f32"
    file.write_bytes(observations.tobytes())
    whole = numbers(run(act, model, file, 1000))
    by_64 = numbers(run(act, model, "-", 64, stdin=observations.tobytes()))  # 1000 = 15 * 64 + 40
    single = numbers(run(act, model, stdin=observations[:100].tobytes()))
    # Another batch size is another order of summation: rounding, and no more.
    np.testing.assert_allclose(whole, expected, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(by_64, expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(single, expected[:100], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("head", [pg.heads.Gaussian, pg.heads.TanhGaussian, pg.heads.Beta])
@pytest.mark.quick("TanhGaussian")
def test_gives_a_trained_agents_actions(act, tmp_path, head):
    """Normaliser and action bounds included: Pendulum's torques lie in [-2, 2]."""
    networks = pg.Networks((16,), normalize_observations=True, head=head)
    agent = pg.PPO(networks=networks, horizon=32, minibatch_size=32, update_epochs=2, seed=0)
    agent.compile(keras.optimizers.Adam(0.1), jit_compile=False)
    agent.fit("Pendulum-v1", epochs=1, steps_per_epoch=4, num_envs=2, verbose=0)
    model = agent.export(tmp_path / "1", verify=False)
    observations = np.random.default_rng(1).normal(size=(1000, 3), scale=[1.0, 1.0, 8.0]).astype("float32")
    expected = agent.act(observations)
    assert np.ptp(expected) > 0.1 and np.abs(expected).max() <= 2.0
    received = numbers(run(act, model, "-", 100, stdin=observations.tobytes()))
    np.testing.assert_allclose(received, expected, rtol=1e-4, atol=1e-5)


def test_answers_each_observation_as_it_arrives(act, tmp_path):
    model = export_toy(tmp_path / "1", *CASES["discrete"])
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([act, model], **pipes) as program:
        for value in (-1.0, 0.5):
            program.stdin.write(np.full(4, value, "float32").tobytes())
            program.stdin.flush()
            assert program.stdout.readline().strip() in b"0 1 2 3 4".split()
        program.stdin.close()
        assert program.wait(60) == 0


@pytest.mark.parametrize(
    ("arguments", "stdin", "sentence"),
    [
        (["{missing}"], b"", "MODEL must be a folder that agent.export wrote"),
        (["{model}", "{missing}"], b"", "OBSERVATIONS must be a readable file"),
        (["{model}", "-", "0"], b"", "BATCH must be a whole number of at least 1. Received: 0"),
        (["{model}"], bytes(18), "of 4 float32 numbers. Left over: 2 bytes."),
        ([], b"", "Usage: act MODEL"),
    ],
)
def test_mistakes_get_a_sentence(act, tmp_path, arguments, stdin, sentence):
    model = export_toy(tmp_path / "1", *CASES["box"])
    names = {"model": model, "missing": tmp_path / "missing"}
    done = run(act, *(argument.format(**names) for argument in arguments), stdin=stdin)
    assert done.returncode == 1
    assert sentence in done.stderr.decode()


@pytest.mark.parametrize(
    ("specs", "sentence"),
    [
        ({"left": (None, 2), "right": (None, 3)}, "policies that observe one tensor"),
        ({"observation": (None, None)}, "known sizes after it. Received: shape -1,-1."),
        ({"observation": ()}, "known sizes after it. Received: shape scalar."),
    ],
)
def test_refuses_observations_it_cannot_fill(act, tmp_path, specs, sentence):
    def serve(**observations):
        return {"action": sum(tf.reduce_sum(x) for x in observations.values())}

    inputs = {name: tf.TensorSpec(shape, tf.float32, name=name) for name, shape in specs.items()}
    serve = tf.function(serve).get_concrete_function(**inputs)
    tf.saved_model.save(tf.Module(), str(tmp_path / "1"), signatures={"serving_default": serve})
    describe(tmp_path / "1")
    done = run(act, tmp_path / "1")
    assert done.returncode == 1
    assert sentence in done.stderr.decode()


def test_refuses_other_dtypes(act, tmp_path):
    pixels = tf.TensorSpec((None, 4), tf.uint8, name="observation")
    serve = tf.function(lambda observation: {"action": observation[:, 0]})
    serve = serve.get_concrete_function(observation=pixels)
    tf.saved_model.save(tf.Module(), str(tmp_path / "1"), signatures={"serving_default": serve})
    describe(tmp_path / "1")
    done = run(act, tmp_path / "1")
    assert done.returncode == 1
    assert "float32 observations. Received: observation of dtype uint8" in done.stderr.decode()
