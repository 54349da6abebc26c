import math
from types import SimpleNamespace

import keras
import numpy as np
import pytest

from kerasrl_pg.callbacks import Budget, LearningRateAnnealing, budget_callbacks


class FakeAgent:
    """What the callbacks see of an agent; `play` is the part of Keras's loop that they steer."""

    def __init__(self, *rates):
        self._runtime = SimpleNamespace(training=SimpleNamespace(steps_taken=0), epoch_is_over=False)
        self._base_learning_rates = list(rates)
        self.optimizers = [keras.optimizers.SGD(rate) for rate in rates]
        self.stop_training = False

    def _optimizers(self):
        return self.optimizers

    def play(self, plan, steps_taken, initial_epoch=0):
        """Steps of each iteration by epoch, and the learning rate of each iteration."""
        for callback in plan.callbacks:
            callback.set_model(self)
            callback.on_train_begin()
        epochs, rates = [], []
        for epoch in range(initial_epoch, plan.epochs):
            epochs.append([])
            for callback in plan.callbacks:
                callback.on_epoch_begin(epoch)
            while not self._runtime.epoch_is_over and len(epochs[-1]) < 1000:
                for callback in plan.callbacks:
                    callback.on_train_batch_begin(len(epochs[-1]))
                rates.append([float(o.learning_rate) for o in self.optimizers])
                self._runtime.training.steps_taken = steps_taken()
                epochs[-1].append(self._runtime.training.steps_taken)
                for callback in plan.callbacks:
                    callback.on_train_batch_end(len(epochs[-1]) - 1)
                if plan.callbacks and not any(isinstance(c, Budget) for c in plan.callbacks):
                    self._runtime.epoch_is_over = len(epochs[-1]) == plan.steps_per_epoch
            for callback in plan.callbacks:
                callback.on_epoch_end(epoch)
            self._runtime.epoch_is_over = False
            if self.stop_training:
                break
        return epochs, rates


def plan(
    total_steps=None, epochs=None, rollout_steps=10, steps_per_epoch=None, initial_epoch=0, anneal=False, whole=False
):
    return budget_callbacks(rollout_steps, total_steps, epochs, steps_per_epoch, initial_epoch, anneal, whole)


@pytest.mark.parametrize(
    "total, epochs, rollout",
    [(100, 10, 10), (109, 10, 10), (70, 3, 10), (1000, 7, 30), (10, 5, 10), (100_000, None, 2048)],
)
def test_the_budget_is_spent_in_equal_shares(total, epochs, rollout):
    made = plan(total, epochs, rollout)
    played, _ = FakeAgent().play(made, lambda: rollout)
    iterations = total // rollout
    assert len(played) == made.epochs == min(epochs or 10, iterations)
    counts = [len(epoch) for epoch in played]
    assert sum(counts) == iterations
    assert np.cumsum(counts).tolist() == [math.ceil(iterations * (e + 1) / made.epochs) for e in range(made.epochs)]
    assert max(counts) == made.steps_per_epoch
    assert max(counts) - min(counts) <= 1


def test_ten_epochs_by_default():
    assert plan(1000).epochs == 10
    assert plan(30).epochs == 3  # as many as there are rollouts
    assert plan(np.int64(1000), np.int32(5)).epochs == 5


@pytest.mark.parametrize("seed", range(5))
def test_shorter_rollouts_never_exceed_the_budget(seed):
    rng = np.random.default_rng(seed)
    made = plan(1000, 4, 50, whole=True)
    assert made.steps_per_epoch is None
    agent = FakeAgent()
    played, _ = agent.play(made, lambda: int(rng.integers(1, 51)))
    spent = np.cumsum([sum(epoch) for epoch in played])
    assert 950 < spent[-1] <= 1000  # another rollout might have exceeded it
    assert agent.stop_training or len(played) == 4
    for epoch, total in enumerate(spent[:-1], start=1):
        assert 250 * epoch <= total < 250 * epoch + 50


def test_a_resumed_fit_takes_the_rest():
    played, _ = FakeAgent().play(plan(100, 5, initial_epoch=3), lambda: 10, initial_epoch=3)
    assert [len(epoch) for epoch in played] == [2, 2]


def test_a_second_fit_has_a_budget_of_its_own():
    made, agent = plan(40, 2), FakeAgent()
    first, _ = agent.play(made, lambda: 10)
    agent.stop_training = False
    second, _ = agent.play(made, lambda: 10)
    assert first == second == [[10, 10], [10, 10]]


def test_epochs_of_given_length_need_no_budget():
    assert plan(None, 3, steps_per_epoch=4) == (3, 4, [])


@pytest.mark.parametrize(
    "kwargs, sentence",
    [
        (
            {},
            "The budget must be `total_steps`, or `epochs` and `steps_per_epoch` together. Received: total_steps=None",
        ),
        ({"epochs": 3}, "The budget must be .* epochs=3, steps_per_epoch=None"),
        ({"steps_per_epoch": 3}, "The budget must be .* epochs=None, steps_per_epoch=3"),
        (
            {"total_steps": 100, "steps_per_epoch": 5},
            "`steps_per_epoch` must be left out with `total_steps`.*Received: total_steps=100, steps_per_epoch=5",
        ),
        (
            {"total_steps": 9},
            "`total_steps` must be at least one rollout, horizon x num_envs = 10. Received: total_steps=9. Give",
        ),
        ({"total_steps": 0}, "`total_steps` must be a whole number of at least 1. Received: total_steps=0"),
        ({"total_steps": 1e5}, "`total_steps` must be a whole number of at least 1. Received: total_steps=100000.0"),
        ({"total_steps": 100, "epochs": -1}, "`epochs` must be a whole number of at least 1. Received: epochs=-1"),
        ({"epochs": 2, "steps_per_epoch": 0.5}, "`steps_per_epoch` must be .* Received: steps_per_epoch=0.5"),
    ],
)
def test_wrong_budgets_are_refused(kwargs, sentence):
    with pytest.raises(ValueError, match=sentence):
        plan(**kwargs)


@pytest.mark.parametrize("kwargs", [{"total_steps": 87, "epochs": 3}, {"epochs": 2, "steps_per_epoch": 4}])
def test_the_learning_rate_falls_linearly_to_0(kwargs):
    _, rates = FakeAgent(0.5, 0.1).play(plan(**kwargs, anneal=True), lambda: 10)
    expected = (1 - np.arange(8) / 8)[:, None] * [0.5, 0.1]
    np.testing.assert_allclose(rates, expected, rtol=1e-6)


@pytest.mark.parametrize("kwargs", [{"total_steps": 80, "epochs": 4}, {"epochs": 4, "steps_per_epoch": 2}])
def test_a_resumed_fit_goes_on_with_the_rate_where_it_was(kwargs):
    _, rates = FakeAgent(0.5).play(plan(**kwargs, anneal=True, initial_epoch=3), lambda: 10, initial_epoch=3)
    np.testing.assert_allclose(np.ravel(rates), [0.5 * 2 / 8, 0.5 * 1 / 8], rtol=1e-6)


def test_with_shorter_rollouts_the_rate_follows_the_steps():
    agent = FakeAgent(1.0)
    # Many more rollouts than total_steps // rollout_steps: the rate must not be 0 before the budget is spent.
    played, rates = agent.play(plan(1000, 4, 100, anneal=True, whole=True), lambda: 20)
    assert sum(map(sum, played)) == 920
    np.testing.assert_allclose(np.ravel(rates), 1 - 20 * np.arange(46) / 1000, rtol=1e-5)


def test_the_rate_is_never_negative():
    callback, agent = LearningRateAnnealing(1), FakeAgent(0.5)
    callback.set_model(agent)
    for expected in (0.5, 0.0, 0.0):
        callback.on_train_batch_begin(0)
        assert float(agent.optimizers[0].learning_rate) == expected
        callback.on_train_batch_end(0)
