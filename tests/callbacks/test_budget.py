import math
from types import SimpleNamespace

import keras
import numpy as np
import pytest
import tensorflow as tf

from kerasrl_pg.callbacks import Budget
from kerasrl_pg.training.optimizers import Annealing


class FakeAgent:
    """What the budget sees of an agent; `play` is the part of Keras's loop that it steers."""

    def __init__(self, *rates):
        self.optimizers = [SimpleNamespace(learning_rate=keras.Variable(rate)) for rate in rates]
        self.progress = keras.Variable([0, 0], dtype="int64")
        self.stop_training = False

    def play(self, budget, steps_taken, initial_epoch=0):
        """Steps of each iteration by epoch and execution, and the learning rates of each iteration."""
        progress = budget.progress_at(initial_epoch)
        self.progress.assign(progress)
        budget.set_model(self)
        budget.on_train_begin()
        epochs, rates = [], []
        for epoch in range(initial_epoch, budget.epochs):
            epochs.append([])
            budget.on_epoch_begin(epoch)
            while not budget.epoch_is_over and len(epochs[-1]) < 1000:
                epochs[-1].append([])
                for _ in range(budget.iterations(progress)):
                    self.progress.assign(progress)
                    annealing = tf.constant(budget.annealing(), tf.int64)
                    with Annealing(self.optimizers).annealed(self.progress.value, annealing):
                        rates.append([float(o.learning_rate) for o in self.optimizers])
                    epochs[-1][-1].append(steps_taken())
                    progress = [progress[0] + 1, progress[1] + epochs[-1][-1][-1]]
                budget.spend(progress)
            budget.on_epoch_end(epoch)
            if self.stop_training:
                break
        return epochs, rates


def steps(epochs):
    """Environment steps of each epoch."""
    return [sum(map(sum, epoch)) for epoch in epochs]


@pytest.mark.parametrize("per_execution", [1, 3, 100])
@pytest.mark.parametrize(
    "total_steps, epochs, rollout",
    [(100, 10, 10), (109, 10, 10), (70, 3, 10), (1000, 7, 30), (10, 5, 10), (100_000, None, 2048)],
)
def test_the_budget_is_spent_in_equal_shares(total_steps, epochs, rollout, per_execution):
    budget = Budget(rollout, total_steps, epochs, steps_per_execution=per_execution)
    played, _ = FakeAgent().play(budget, lambda: rollout)
    iterations = total_steps // rollout
    assert len(played) == budget.epochs == min(epochs or 10, iterations)
    counts = [s // rollout for s in steps(played)]
    assert np.cumsum(counts).tolist() == [math.ceil(iterations * (e + 1) / budget.epochs) for e in range(budget.epochs)]
    assert max(counts) - min(counts) <= 1
    assert max(map(len, played)) == budget.executions_per_epoch
    assert max(len(execution) for epoch in played for execution in epoch) <= per_execution


def test_ten_epochs_by_default():
    assert Budget(10, 1000).epochs == 10
    assert Budget(10, 30).epochs == 3  # as many as there are rollouts
    assert Budget(10, np.int64(1000), np.int32(5)).epochs == 5


@pytest.mark.parametrize("per_execution", [1, 4])
@pytest.mark.parametrize("seed", range(5))
def test_shorter_rollouts_never_exceed_the_budget(seed, per_execution):
    rng = np.random.default_rng(seed)
    budget = Budget(50, 1000, 4, whole_episodes=True, steps_per_execution=per_execution)
    assert budget.executions_per_epoch is None
    agent = FakeAgent()
    played, _ = agent.play(budget, lambda: int(rng.integers(1, 51)))
    spent = np.cumsum(steps(played))
    assert 950 < spent[-1] <= 1000  # another rollout might have exceeded it
    assert agent.stop_training or len(played) == 4
    for epoch, reached in enumerate(spent[:-1], start=1):
        assert 250 * epoch <= reached < 250 * epoch + 50


def test_a_resumed_fit_takes_the_rest():
    played, _ = FakeAgent().play(Budget(10, 100, 5), lambda: 10, initial_epoch=3)
    assert steps(played) == [20, 20]


def test_a_second_fit_has_a_budget_of_its_own():
    budget, agent = Budget(10, 40, 2), FakeAgent()
    first, _ = agent.play(budget, lambda: 10)
    agent.stop_training = False
    second, _ = agent.play(budget, lambda: 10)
    assert first == second == [[[10], [10]], [[10], [10]]]


@pytest.mark.parametrize("per_execution, executions", [(1, [1, 1, 1, 1]), (3, [3, 1]), (9, [4])])
def test_epochs_of_given_length(per_execution, executions):
    budget = Budget(10, epochs=3, steps_per_epoch=4, steps_per_execution=per_execution)
    played, _ = FakeAgent().play(budget, lambda: 7)
    assert [[len(execution) for execution in epoch] for epoch in played] == [executions] * 3
    assert budget.executions_per_epoch == len(executions)


@pytest.mark.parametrize("budget", [Budget(10, 100, 5), Budget(10, epochs=5, steps_per_epoch=2)])
def test_the_epoch_that_a_checkpoint_lies_in(budget):
    assert [budget.epoch_at(budget.progress_at(epoch)) for epoch in range(6)] == [0, 1, 2, 3, 4, 5]
    assert budget.epoch_at([5, 50]) == 2


def test_a_checkpoint_within_an_epoch_leaves_the_rest_of_it():
    budget, agent = Budget(10, epochs=3, steps_per_epoch=4), FakeAgent()
    budget.progress_at = lambda epoch: [6, 60]
    played, _ = agent.play(budget, lambda: 10, initial_epoch=1)
    assert steps(played) == [20, 40]


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
        Budget(10, **kwargs)


@pytest.mark.parametrize("per_execution", [1, 3])
@pytest.mark.parametrize("kwargs", [{"total_steps": 87, "epochs": 3}, {"epochs": 2, "steps_per_epoch": 4}])
def test_the_learning_rate_falls_linearly_to_0(kwargs, per_execution):
    _, rates = FakeAgent(0.5, 0.1).play(Budget(10, **kwargs, steps_per_execution=per_execution), lambda: 10)
    expected = (1 - np.arange(8) / 8)[:, None] * [0.5, 0.1]
    np.testing.assert_allclose(rates, expected, rtol=1e-6)


@pytest.mark.parametrize("kwargs", [{"total_steps": 80, "epochs": 4}, {"epochs": 4, "steps_per_epoch": 2}])
def test_a_resumed_fit_goes_on_with_the_rate_where_it_was(kwargs):
    _, rates = FakeAgent(0.5).play(Budget(10, **kwargs), lambda: 10, initial_epoch=3)
    np.testing.assert_allclose(np.ravel(rates), [0.5 * 2 / 8, 0.5 * 1 / 8], rtol=1e-6)


def test_with_shorter_rollouts_the_rate_follows_the_steps():
    # Many more rollouts than total_steps // rollout_steps: the rate must not be 0 before the budget is spent.
    played, rates = FakeAgent(1.0).play(Budget(100, 1000, 4, whole_episodes=True), lambda: 20)
    assert sum(steps(played)) == 920
    np.testing.assert_allclose(np.ravel(rates), 1 - 20 * np.arange(46) / 1000, rtol=1e-5)


def test_the_rate_is_never_negative():
    agent = FakeAgent(0.5)
    for done, expected in ((0, 0.5), (1, 0.0), (2, 0.0)):
        agent.progress.assign([done, 0])
        with Annealing(agent.optimizers).annealed(agent.progress.value, tf.constant([1, 0], tf.int64)):
            assert float(agent.optimizers[0].learning_rate) == expected
        assert float(agent.optimizers[0].learning_rate) == 0.5
