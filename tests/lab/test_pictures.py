"""The cheap pictures are drawn; the others, with all that they say, by a slow test."""

import builtins

import numpy as np
import pytest

from kerasrl_pg.lab import pictures


def test_drawn(tmp_path, capsys):
    paths = pictures.draw(tmp_path / "new", ["clipped_objective"])
    assert paths[0].read_bytes()[:4] == b"\x89PNG"
    assert "1 of 1: clipped_objective ..." in capsys.readouterr().out
    with pytest.raises(ValueError, match="`names` must be of variance_of_credit"):
        pictures.draw(tmp_path, ["mona_lisa"])
    before = paths[0].read_bytes()
    paths[0].write_bytes(b"mine")
    with pytest.raises(ValueError, match="which has clipped_objective.png. Name another folder"):
        pictures.draw(tmp_path / "new", ["clipped_objective"], overwrite=False)
    assert paths[0].read_bytes() == b"mine"
    assert pictures.draw(tmp_path / "new", ["clipped_objective"])[0].read_bytes() == before


def test_the_clip_is_a_pessimist(tmp_path):
    found = pictures.clipped_objective(tmp_path / "clip.png")
    assert found[1.0].max() == pytest.approx(1.2) and found[-1.0].max() == pytest.approx(-0.8)


@pytest.mark.slow
def test_probabilities_of_one_and_nothing_jump(tmp_path):
    smooth, jumping = pictures.probabilities(tmp_path / "p.png", updates=12)
    assert set(np.unique(jumping)) == {0.0, 1.0}
    assert np.abs(np.diff(jumping, axis=0)).max() == 1.0
    assert np.abs(np.diff(smooth, axis=0)).max() < 0.25


def test_without_matplotlib(tmp_path, monkeypatch):
    real = builtins.__import__

    def without(name, *args, **kwargs):
        if name.startswith("matplotlib"):
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ImportError, match=r"Pictures need matplotlib: pip install kerasrl-pg\[lab\]"):
        pictures.clipped_objective(tmp_path / "clip.png")


@pytest.mark.slow
def test_what_the_pictures_say(tmp_path):
    lifted, unequal, rare = pictures.variance_of_credit(tmp_path / "a.png")
    variances = [lifted[n].variance for n in ("whole return", "reward-to-go", "… less average", "… less V(s)")]
    assert variances == sorted(variances, reverse=True)
    variances = [unequal[n].variance for n in ("reward-to-go", "… less average", "… less weighted average")]
    assert variances == sorted(variances, reverse=True)
    assert rare["… less average"].variance > 10 * rare["reward-to-go"].variance  # The case where a baseline hurts.
    for _, slope in pictures.variance_over_episodes(tmp_path / "b.png").values():
        assert slope == pytest.approx(-1.0, abs=0.05)
    slopes, _ = pictures.step_sizes(tmp_path / "c.png")
    constant, falling = (found.mean(0) for found in slopes.values())
    assert falling[-1] < 0.3 * constant[-1] and falling[-1] < 0.1 * falling[0]
    none, bonus = pictures.local_optimum(tmp_path / "d.png").values()
    assert np.sum(none[:, -1] < 2.0) >= 1 and np.sum(bonus[:, -1] < 2.0) == 0
    for measured, predicted in pictures.wrong_critic(tmp_path / "e.png").values():
        np.testing.assert_allclose(measured, predicted, atol=0.01)


@pytest.mark.slow
def test_stale_gradients_are_off_the_more_the_staler_they_are(tmp_path):
    found = pictures.staleness(tmp_path / "s.png")
    for errors in found.values():
        assert errors[0] == 0.0
        assert (np.diff(errors) > 0.0).all()
    assert found[1.0][8] > found[0.3][8] > found[0.1][8]
