import numpy as np
import pytest
import tensorflow as tf

from kerasrl_pg import ops

SEED = tf.constant([7, 11], tf.int32)
DRAWS = {
    "bits": lambda seed: ops.random.bits(seed, (999,)),
    "uniform": lambda seed: ops.random.uniform(seed, (3, 333)),
    "normal": lambda seed: ops.random.normal(seed, (3, 333)),
    "permutations": lambda seed: ops.random.permutations(seed, 3, 100),
}


@pytest.mark.parametrize("name", DRAWS)
def test_eager_graph_and_xla_agree(name):
    draw = DRAWS[name]
    eager = draw(SEED).numpy()
    graph = tf.function(draw, autograph=False)(SEED).numpy()
    xla = tf.function(draw, autograph=False, jit_compile=True)(SEED).numpy()
    np.testing.assert_array_equal(eager, graph)
    if name == "normal":  # XLA has its own erfinv
        np.testing.assert_allclose(graph, xla, rtol=1e-5, atol=1e-6)
    else:
        np.testing.assert_array_equal(graph, xla)


@pytest.mark.parametrize("name", DRAWS)
def test_seed_and_counter_both_matter(name):
    draw = DRAWS[name]
    first = draw(SEED).numpy()
    np.testing.assert_array_equal(first, draw(SEED).numpy())
    assert (first != draw(SEED + [1, 0]).numpy()).any()
    assert (first != draw(SEED + [0, 1]).numpy()).any()


def test_uniform_is_open_and_uniform(monkeypatch):
    u = ops.random.uniform(SEED, (200_000,)).numpy().astype(np.float64)
    standard_error = np.sqrt(1 / 12 / u.size)
    assert abs(u.mean() - 0.5) < 4 * standard_error
    assert abs(u.var() - 1 / 12) < 4 * np.sqrt(1 / 180 / u.size)
    extremes = tf.constant([0, 2**32 - 1], tf.uint32)
    monkeypatch.setattr(ops.random, "bits", lambda seed, shape: extremes)
    np.testing.assert_array_equal(ops.random.uniform(SEED, (2,)), [2.0**-24, 1 - 2.0**-24])
    assert np.isfinite(ops.random.normal(SEED, (2,))).all()


def test_normal_moments():
    z = ops.random.normal(SEED, (200_000,)).numpy().astype(np.float64)
    for power, moment, variance in ((1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96)):
        assert abs((z**power).mean() - moment) < 4 * np.sqrt(variance / z.size)


def test_permutations():
    rows = ops.random.permutations(SEED, 4000, 3).numpy()
    assert rows.dtype == np.int32
    np.testing.assert_array_equal(np.sort(rows, axis=1), np.tile(np.arange(3), (4000, 1)))
    _, counts = np.unique(rows, axis=0, return_counts=True)
    assert counts.shape == (6,)
    assert np.abs(counts - 4000 / 6).max() < 4 * np.sqrt(4000 * 5 / 36)


def test_permutations_are_ordered_by_all_the_bits(monkeypatch):
    """With only those of `uniform` there would be ties, and a bias to the order 0, 1, 2 ..."""
    low_bits = tf.constant([[3, 1, 2]], tf.uint32)
    monkeypatch.setattr(ops.random, "bits", lambda seed, shape: low_bits)
    np.testing.assert_array_equal(ops.random.permutations(SEED, 1, 3), [[1, 2, 0]])
