"""KL divergences of an update: closed form and estimate, and rows that a distribution can be made of again."""

import numpy as np
import pytest
import tensorflow as tf

from kerasrl_pg import heads
from kerasrl_pg.agents.divergence import divergence, of_rows, rows_of

HEADS = {
    "categorical": lambda: heads.Categorical(3),
    "bernoulli": lambda: heads.Bernoulli((2,)),
    "gaussian": lambda: heads.Gaussian((2,)),
    "state_dependent": lambda: heads.Gaussian((2,), state_dependent_std=True),
    "beta": lambda: heads.Beta([-1.0, -1.0], [1.0, 1.0]),
}


def distributions(name, rows):
    head = HEADS[name]()
    head.build((None, 3))
    rng = np.random.default_rng(0)
    parameters = rng.normal(size=(2, rows, head.num_parameters)).astype("float32")
    return head, [head.distribution(tf.constant(each)) for each in parameters]


@pytest.mark.parametrize("name", HEADS)
def test_the_estimate_has_the_closed_forms_mean(name):
    _, (old, new) = distributions(name, 1)
    actions = old.sample(200_000, seed=(1, 2))
    exact = float(divergence(old, new, None, None)[0])
    estimates = divergence(old, new, actions, "sampled").numpy()[:, 0]
    assert (estimates >= -1e-6).all()
    assert abs(estimates.mean() - exact) < 5 * estimates.std() / np.sqrt(len(estimates)) + 1e-4


@pytest.mark.parametrize("name", HEADS)
def test_rows_make_the_distribution_again_or_some_of_it(name):
    head, (old, new) = distributions(name, 4)
    rows = rows_of(old, head)
    np.testing.assert_allclose(of_rows(rows, head).kl_divergence(new), old.kl_divergence(new), rtol=1e-5, atol=1e-6)
    some = of_rows(tuple(row[1:3] for row in rows), head)
    actions = old.sample(seed=(1, 2))
    np.testing.assert_allclose(some.log_prob(actions[1:3]), old.log_prob(actions)[1:3], rtol=1e-5, atol=1e-6)
