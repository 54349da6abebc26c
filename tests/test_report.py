"""The report's figures are what they say, and its file stands alone."""

import re

import gymnasium as gym
import numpy as np
import pytest

import kerasrl_pg as pg
from kerasrl_pg import report

pytest.importorskip("matplotlib")


def test_gradient_noise_is_unbiased():
    """Of normal estimates around a mean of norm 5, with variance 3 in each of four entries."""
    rng = np.random.default_rng(0)
    drawn = rng.normal([3.0, 4.0, 0.0, 0.0], np.sqrt(3.0), (4000, 8, 4))
    found = [report.gradient_noise(estimates, 16) for estimates in drawn]
    for field, exact in (("squared_norm", 25.0), ("variance", 12.0)):
        values = [getattr(one, field) for one in found]
        assert abs(np.mean(values) - exact) < 4 * np.std(values) / np.sqrt(len(values))
    exact = report.GradientNoise(25.0, 12.0, 16)
    assert exact.cosine(1) == pytest.approx(5.0 / np.sqrt(37.0)) and exact.cosine(1e9) == pytest.approx(1.0)
    assert report.GradientNoise(-1.0, 12.0, 16).cosine(4) == 0.0


@pytest.mark.slow
def test_the_gradient_is_the_agents_own():
    """Of the policy's weights alone, as the update would get it; no weight moves."""
    agent = pg.A2C(networks=pg.Networks((4,)), horizon=8, seed=0)
    agent.compile(jit_compile=False)
    env = gym.make("CartPole-v1")
    agent.bind(env.observation_space, env.action_space)
    before = [w.copy() for w in agent.get_weights()]
    played = report.play(agent, "CartPole-v1", episodes=3, rollouts=4, num_envs=2)
    assert len(played.returns) == len(played.lengths) == 3 and played.returns == [float(n) for n in played.lengths]
    assert played.entropy == pytest.approx(np.log(2.0), abs=0.01) and played.noise.transitions <= 16
    assert played.noise.variance > 0.0
    for old, new in zip(before, agent.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
    # Between episodes of its own reward, the mean of many is no noise: more rollouts tell more of it.
    many = report.play(agent, "CartPole-v1", episodes=1, rollouts=200, num_envs=8).noise
    assert many.squared_norm > 0.0 and many.cosine(16) > many.cosine(1)


def test_actions_drawn_evenly():
    spec = pg.envs.ObservationSpec(gym.make("CartPole-v1").observation_space)
    played = report.play_at_random(spec, "CartPole-v1", episodes=400)
    assert len(played.returns) == 400 and played.entropy == pytest.approx(np.log(2.0))
    assert np.mean(played.returns) == pytest.approx(22.0, abs=2.0)  # What is known of CartPole.


@pytest.mark.parametrize(
    "space, entropy",
    [
        (gym.spaces.Box(-1.0, 3.0, (2,)), 2 * np.log(4.0)),
        (gym.spaces.Box(-np.inf, np.inf, (2,)), None),
        (gym.spaces.MultiDiscrete([2, 3]), np.log(6.0)),
        (gym.spaces.MultiBinary(3), np.log(8.0)),
    ],
)
def test_entropy_of_an_even_draw(space, entropy):
    assert report._even_entropy(space) == (None if entropy is None else pytest.approx(entropy))


@pytest.mark.slow
def test_one_file_holds_it_all(tmp_path):
    run = pg.Run(pg.A2C, "kerasrl_pg/Vacuum-v0", 160, num_envs=4, settings={"horizon": 8}, seed=0)
    import keras

    history = keras.callbacks.CSVLogger(tmp_path / "history.csv")
    agent = run.train(verbose=0, epochs=5, callbacks=history)
    path = report.report(run, agent, tmp_path / "a.html", history=tmp_path / "history.csv", episodes=4, rollouts=3)
    text = path.read_text(encoding="utf8")
    assert text.count("data:image/png;base64,") == 3 and text.count("data:image/gif;base64,") == 2
    assert not re.search(r"(src|href)=.(?!data:)", text)  # It opens from disk, alone.
    assert "A2C on kerasrl_pg/Vacuum-v0, 160 steps" in text and "horizon: 8" in text
    for name in ("random", "at initialisation", "now"):
        assert f"<td>{name}</td>" in text
    with pytest.raises(ValueError, match="`filepath` must end in '.html'"):
        report.report(run, agent, tmp_path / "a.txt", episodes=1, rollouts=2)


@pytest.mark.slow
def test_a_compiled_environment_has_no_pictures(tmp_path):
    run = pg.Run(pg.TRPO, {"Vacuum": {"num_envs": 4}}, 32, settings={"horizon": 8, "minibatch_size": 8}, seed=0)
    path = report.report(run, run.train(verbose=0), tmp_path / "b.html", episodes=4, rollouts=3)
    assert "A compiled environment has no pictures" in path.read_text(encoding="utf8")
