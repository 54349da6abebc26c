import keras
import numpy as np
import pytest
import tensorflow as tf

from kerasrl_pg.heads import HistogramValue, NormalValue, ValueHead
from kerasrl_pg.heads.value import bin_edges, hl_gauss

HEADS = {
    "normal": lambda **kwargs: NormalValue(**kwargs),
    "histogram": lambda **kwargs: HistogramValue(-3.0, 5.0, num_bins=11, **kwargs),
}
all_value_heads = pytest.mark.parametrize("name", HEADS)


def features(*shape):
    return np.random.default_rng(0).normal(size=(*shape, 4)).astype("float32")


@all_value_heads
@pytest.mark.parametrize("batch", [(6,), (3, 2)])
def test_values_have_the_batch_shape(name, batch):
    head = HEADS[name]()
    value = head(features(*batch))
    assert isinstance(head, ValueHead)
    assert value.event_shape == ()
    assert value.mean().shape == value.batch_shape == batch
    loss = head.loss(value, np.ones(batch, "float32"))
    assert loss.shape == batch
    assert loss.dtype == tf.float32


@all_value_heads
def test_model_saves_and_loads(name, tmp_path):
    inputs = keras.Input((4,))
    model = keras.Model(inputs, HEADS[name](name="value")(keras.layers.Dense(8, "tanh")(inputs)))
    assert model.output_shape == (None,)
    model.save(tmp_path / "critic.keras")
    loaded = keras.models.load_model(tmp_path / "critic.keras")
    np.testing.assert_allclose(loaded(features(5)).mean(), model(features(5)).mean(), atol=1e-6)
    assert loaded.get_layer("value").get_config() == model.get_layer("value").get_config()
    sequential = keras.Sequential([keras.Input((4,)), HEADS[name]()])
    assert tf.function(sequential)(features(5)).mean().shape == (5,)


@all_value_heads
def test_eager_graph_and_xla_agree(name):
    head = HEADS[name]()
    parameters, returns = head.parameters(features(6)), np.linspace(-4, 6, 6, dtype="float32")

    def everything(parameters):
        with tf.GradientTape() as tape:
            tape.watch(parameters)
            value = head.distribution(parameters)
            loss = head.loss(value, returns)
        return value.mean(), value.log_prob(returns), loss, tape.gradient(loss, parameters)

    eager = everything(parameters)
    for compiled in (tf.function(everything), tf.function(everything, jit_compile=True)):
        for ours, expected in zip(compiled(parameters), eager, strict=True):
            np.testing.assert_allclose(ours, expected, rtol=1e-4, atol=1e-5)


@all_value_heads
def test_loss_learns_the_mean_of_the_returns(name):
    """Two returns, 0 and 2, are equally frequent: the value must become 1."""
    head = HEADS[name]()
    x, returns = np.ones([2, 4], "float32"), np.float32([0, 2])
    head(x)
    optimizer = keras.optimizers.Adam(0.1)
    optimizer.build(head.trainable_variables)

    @tf.function(jit_compile=True)
    def fit():
        for _ in tf.range(400):
            with tf.GradientTape() as tape:
                loss = tf.reduce_mean(head.loss(head(x), returns))
            gradients = tape.gradient(loss, [v.value for v in head.trainable_variables])
            optimizer.apply(gradients, head.trainable_variables)

    fit()
    np.testing.assert_allclose(head(x).mean(), [1, 1], atol=0.02)


@all_value_heads
def test_no_gradient_flows_into_the_returns(name):
    head = HEADS[name]()
    returns = tf.ones([2])
    with tf.GradientTape() as tape:
        tape.watch(returns)
        loss = head.loss(head(features(2)), returns)
    assert tape.gradient(loss, returns) is None


@all_value_heads
def test_shapes_that_would_broadcast_are_refused(name):
    head = HEADS[name]()
    with pytest.raises(ValueError, match=r"`returns` must have the shape.*Received: returns.shape=\(6, 1\)"):
        head.loss(head(features(6)), np.ones([6, 1]))


@all_value_heads
def test_config_and_default_initializer(name):
    head = HEADS[name]()
    again = type(head).from_config(head.get_config())
    assert again.get_config() == head.get_config()
    assert head.kernel_initializer.gain == 1.0


def test_normal_loss_is_half_the_squared_error():
    head = NormalValue()
    value = head.distribution(np.float32([[1.0], [-2.0]]))
    np.testing.assert_allclose(head.loss(value, [3.0, -2.0]), [2.0, 0.0])
    constant = 0.5 * np.log(2 * np.pi)
    np.testing.assert_allclose(-value.log_prob([3.0, -2.0]), [2.0 + constant, constant], rtol=1e-6)


def test_hl_gauss_masses_by_numerical_integration():
    edges = bin_edges(-1, 1, 10)
    y, sigma = 0.33, 0.15
    x = (np.arange(400_000) + 0.5) / 200_000 - 1
    masses = np.exp(-0.5 * ((x - y) / sigma) ** 2).reshape(10, -1).sum(-1)
    np.testing.assert_allclose(hl_gauss([y], edges, sigma)[0], masses / masses.sum(), atol=1e-6)


def test_hl_gauss_keeps_the_mean():
    """The errors stated in its docstring, in bins, with sigma = ¾ bin."""
    edges = bin_edges(0, 51, 51)
    centres = (edges[1:] + edges[:-1]) / 2

    def error(returns):
        returns = np.float32(returns)
        return np.abs((hl_gauss(returns, edges, 0.75) * centres).numpy().sum(-1) - returns)

    assert error(np.linspace(5, 46, 83)).max() < 3e-5  # 5e-6 and the rounding of float32
    assert error([3 * 0.75, 51 - 3 * 0.75]).max() < 0.004
    np.testing.assert_allclose(error([0, 51]), 0.69, atol=0.01)
    np.testing.assert_array_equal(hl_gauss([-9.0, 99.0], edges, 0.75), hl_gauss([0.0, 51.0], edges, 0.75))


def test_histogram_loss_is_the_cross_entropy():
    head = HistogramValue(-2.0, 2.0, num_bins=8)
    assert head.sigma == pytest.approx(0.75 * 0.5)
    logits = np.random.default_rng(0).normal(size=(3, 8)).astype("float32")
    value = head.distribution(logits)
    p = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    targets = hl_gauss([0.1, 1.0, -5.0], bin_edges(-2, 2, 8), head.sigma).numpy()
    np.testing.assert_allclose(head.loss(value, [0.1, 1.0, -5.0]), -(targets * np.log(p)).sum(-1), rtol=1e-5)
    np.testing.assert_allclose(value.mean(), (p * np.linspace(-1.75, 1.75, 8)).sum(-1), rtol=1e-4, atol=1e-6)


def test_histogram_loss_at_its_minimum():
    head = HistogramValue(0.0, 51.0)
    targets = hl_gauss([25.5], bin_edges(0, 51, 51), head.sigma)
    loss = head.loss(head.distribution(tf.math.log(targets + 1e-12)), [25.5])
    np.testing.assert_allclose(loss, [1.20], atol=0.005)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"low": 1.0, "high": 1.0}, r"`high` must be a number in \(1.0, inf\). Received: high=1.0"),
        (
            {"low": 0.0, "high": 1.0, "num_bins": 1},
            "`num_bins` must be a whole number of at least 2. Received: num_bins=1",
        ),
        (
            {"low": 0.0, "high": 1.0, "sigma": 0.0},
            r"`sigma` must be a number in \(0.0, inf\), or None. Received: sigma=0.0",
        ),
    ],
)
def test_refuses(arguments, sentence):
    with pytest.raises(ValueError, match=sentence):
        HistogramValue(**arguments)
