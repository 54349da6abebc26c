import math

import pytest

from kerasrl_pg.tuning.stopping import Evaluations, Median, MedianStopping, Share


class Model:
    stop_training = False
    env_steps = 7


def stopping(returns, curves, warmup=1, least=3):
    callback = MedianStopping(curves, warmup, least)
    callback.set_model(Model())
    for epoch, value in enumerate(returns):
        callback.on_epoch_end(epoch, {"val_return": value})
        if callback.model.stop_training:
            return epoch, callback.stopped
    return None, callback.stopped


CURVES = [[0.0, 100.0], [10.0, 30.0], [4.0, 6.0]]  # Means 0, 10, 4, then 50, 20, 5.


def test_a_trial_ends_where_its_best_is_below_the_median_of_the_others_means():
    assert stopping([3.9, 0.0], CURVES)[0] == 0
    assert stopping([4.0, 19.0], CURVES)[0] == 1  # Not below 4, but 19 is below 20.
    assert stopping([4.0, 20.0], CURVES) == (None, None)
    assert stopping([25.0, 0.0], CURVES) == (None, None)  # Its best counts.
    assert "3.9, is below the median of the trials before it, 4.0" in stopping([3.9], CURVES)[1]


def test_it_waits_for_the_warmup_and_for_enough_trials():
    assert stopping([0.0, 0.0], CURVES, warmup=2)[0] == 1
    assert stopping([-1.0, -1.0], CURVES, least=4) == (None, None)
    short = [[100.0], *CURVES[:2]]  # Only two have come to the second epoch.
    assert stopping([50.0, 0.0], short) == (None, None)


def test_the_part_of_the_epochs():
    assert [Median(0.5).callback([], epochs).warmup for epochs in (1, 5, 10)] == [1, 3, 5]
    for arguments in ({"warmup": 0.0}, {"warmup": 1.5}, {"least": 0}):
        with pytest.raises(ValueError, match="must be"):
            Median(**arguments)


@pytest.mark.parametrize(("share", "of", "epochs", "last"), [(1, 3, 3, 0), (1, 9, 9, 0), (3, 9, 9, 2), (1, 3, 2, 0)])
def test_a_share_is_a_part_of_what_fit_makes_of_the_epochs(share, of, epochs, last):
    callback = Share(share, of)
    callback.set_model(Model())
    callback.set_params({"epochs": epochs})
    for epoch in range(epochs):
        callback.on_epoch_begin(epoch)
        assert not callback.model.stop_training
        callback.on_epoch_end(epoch)
        if callback.model.stop_training:
            assert epoch == last
            return
    raise AssertionError("It did not end.")


def test_an_evaluation_without_a_return_is_an_error():
    class Endless(Model):
        def evaluate(self, *args, **kwargs):
            return {"return": math.nan}

    callback = Evaluations(None, 1, 0)
    callback.set_model(Endless())
    with pytest.raises(ValueError, match="must be finite. Received: nan, after 7 environment steps"):
        callback.on_epoch_end(0, {})
