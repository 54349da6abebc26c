import gymnasium
import numpy as np
import pytest
import tensorflow as tf

from kerasrl_pg import heads
from kerasrl_pg.heads.box import clip, rescale

MAX = float(np.finfo("float32").max)


@pytest.mark.parametrize("bounds", [(-2.0, 2.0), (-0.1, 0.7), (1e-3, 1e30), (-MAX, MAX), (-1.0, MAX), (-MAX, -1.0)])
def test_rescale_covers_the_interval_however_wide(bounds):
    low, high = np.float32(bounds)
    x = np.float32([0.0, 0.25, 0.5, 0.75, 1.0])
    exact = np.float64(low) + np.float64(x) * (np.float64(high) - np.float64(low))
    np.testing.assert_allclose(rescale(x, low, high), exact, rtol=1e-6, atol=1e-6 * np.abs(bounds).min())


def test_halving_changes_no_bit_of_ordinary_actions():
    rng = np.random.default_rng(0)
    x, low = np.float32(rng.uniform(size=1000)), np.float32(rng.normal(size=1000))
    high = low + np.float32(rng.exponential(size=1000))
    np.testing.assert_array_equal(rescale(x, low, high), low + x * (high - low))


@pytest.mark.parametrize("head_class", [heads.TanhGaussian, heads.Beta])
def test_bounds_whose_width_overflows_send_more_than_the_upper_one(head_class):
    head = head_class([-MAX], [MAX])
    actions = head.to_env(head.sample(head(np.zeros((20, 3))), head.noise([0, 1], (20,)))).numpy()
    assert np.isfinite(actions).all()
    assert len(np.unique(actions)) == 20
    assert actions.min() < 0 < actions.max()


def test_clip_holds_after_the_cast():
    actions = np.float32([-9.0, 0.0, 9.0])
    for dtype in ("float16", "float32", "float64"):
        clipped = clip(actions, np.float32(-0.1), np.float32(0.3), dtype)
        assert clipped.dtype == dtype
        assert np.float32(-0.1) <= clipped.numpy().min() <= clipped.numpy().max() <= np.float32(0.3)
    assert clip(actions, np.float32(-1), np.float32(1), None).dtype == tf.float32


def test_unbounded_float16_actions_are_finite():
    head = heads.Gaussian.from_space(gymnasium.spaces.Box(-np.inf, np.inf, (1,), np.float16))
    actions = head.to_env([[1e6], [-1e6], [1.5]]).numpy()
    np.testing.assert_array_equal(actions, np.float16([[65504], [-65504], [1.5]]))


def test_bounds_beyond_float32_end_where_float32_does():
    space = gymnasium.spaces.Box(-1e300, 1e300, (1,), np.float64)
    head = heads.Beta.from_space(space)
    assert head.to_env([[0.75]]).numpy() == pytest.approx(MAX / 2)
    assert head.to_env([[0.75]]).dtype == tf.float64
