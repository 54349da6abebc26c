"""A reader's batches go through all stored episodes once a pass, wherever it begins."""

import types

import numpy as np
import pytest

from kerasrl_pg.training.stored import Reader, Stored


class Numbers:
    """Trajectories that give, for rollouts, the numbers that were asked for; the n-th has n + 1 steps of reward 0.5."""

    def __init__(self, count):
        self.count = count

    def __len__(self):
        return self.count

    def rollout(self, numbers, networks, log_probs):
        lengths = np.array(numbers) + 1
        valid = np.arange(self.count)[:, None] < lengths
        return types.SimpleNamespace(numbers=numbers, valid=valid, rewards=np.full(valid.shape, 0.5))


def batches(reader, start, count):
    found = []
    for reader.iteration in range(start, start + count):
        found.append([int(n) for n in reader.collect().numbers])
    return found


@pytest.mark.parametrize("count", [2, 3, 7, 10])
def test_a_pass_after_the_other_each_in_an_order_of_its_own(count):
    reader = Reader(Numbers(7), None, False, count, seed=3)
    numbers = sum(batches(reader, 0, 7), [])
    passes = [numbers[k : k + 7] for k in range(0, len(numbers), 7)]
    assert all(sorted(each) == list(range(7)) for each in passes) and len(passes) == count
    assert len({tuple(each) for each in passes}) == count
    assert numbers != sum(batches(Reader(Numbers(7), None, False, count, seed=4), 0, 7), [])


def test_a_resumed_reader_reads_what_the_first_would_have():
    whole = batches(Reader(Numbers(5), None, False, 3, seed=0), 0, 6)
    assert whole[4:] == batches(Reader(Numbers(5), None, False, 3, seed=0), 4, 2)


def test_it_counts_stored_steps_and_returns():
    reader = Reader(Numbers(4), None, False, 4, seed=0)
    assert sorted(batches(reader, 0, 1)[0]) == [0, 1, 2, 3] and reader.steps_taken == 1 + 2 + 3 + 4
    assert sorted(reader.statistics.finished) == [(0.5, 1), (1.0, 2), (1.5, 3), (2.0, 4)]
    assert Stored(Numbers(7), 3).batches == 3 and Stored(Numbers(6), 3).batches == 2
