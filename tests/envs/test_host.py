"""The worlds in gymnasium's registry: its own checks, equality with the compiled ones, pictures, refusals."""

import sys
import warnings

import gymnasium as gym
import keras
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

import kerasrl_pg as pg
from kerasrl_pg import envs
from kerasrl_pg.envs import drawing, host
from kerasrl_pg.envs.registration import WORLDS, register

COMPILED = {
    "Vacuum": envs.Vacuum(),
    "Corridor": envs.Corridor(),
    "RandomMDP": envs.TabularMDP(),
    "PixelCopter": envs.PixelCopter(),
    "PixelCopterPixels": envs.PixelCopter(pixels=True),
}

every_world = pytest.mark.parametrize("name", WORLDS)


@pytest.fixture(autouse=True)
def no_display(monkeypatch):
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")


def make(name, **kwargs):
    return gym.make(f"kerasrl_pg/{name}-v0", **kwargs)


@every_world
def test_gymnasiums_checks_find_nothing(name):
    pytest.importorskip("pygame")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(make(name).unwrapped)


@every_world
def test_registered_as_the_compiled_one(name):
    env = make(name)
    assert env.spec.max_episode_steps == COMPILED[name].max_episode_steps
    assert env.observation_space == COMPILED[name].observation_space
    assert env.action_space == COMPILED[name].action_space


def test_registering_again_changes_nothing():
    before = dict(gym.registry)
    register()
    assert dict(gym.registry) == before
    assert {name for name in before if name.startswith("kerasrl_pg/")} == {f"kerasrl_pg/{name}-v0" for name in WORLDS}


@pytest.mark.parametrize("settings", [{}, {"length": 9}])
def test_the_corridor_is_the_compiled_one(settings):
    world = envs.Corridor(**settings)
    assert envs.check_equal(world, lambda: make("Corridor", **settings), steps=1000, resets=100).terminated > 5


@pytest.mark.parametrize("settings", [{}, {"num_states": 12, "num_actions": 2, "branching": 5, "seed": 3}])
def test_the_random_process_is_the_compiled_one(settings):
    world = envs.TabularMDP(**settings)
    report = envs.check_equal(world, lambda: make("RandomMDP", **settings), steps=2000, resets=1000)
    assert report.truncated == 20 and report.state_difference == 0.0


def test_a_process_of_one_branch_is_certain():
    settings = {"branching": 1, "num_states": 3}
    envs.check_equal(envs.TabularMDP(**settings), lambda: make("RandomMDP", **settings), steps=200, resets=100)


@every_world
def test_a_seed_gives_the_same_episodes(name):
    def played(seed):
        env = make(name)
        observations = [env.reset(seed=seed)[0]]
        env.action_space.seed(0)
        for _ in range(300):
            observation, reward, terminated, truncated, _ = env.step(env.action_space.sample())
            observations += [observation, reward]
            if terminated or truncated:
                observations.append(env.reset()[0])
        return np.concatenate([np.ravel(x) for x in observations])

    first = played(3)
    np.testing.assert_array_equal(first, played(3))
    other = played(4)
    assert name == "Corridor" or len(other) != len(first) or np.any(other != first)


@pytest.mark.quick("Vacuum")
@every_world
def test_an_agent_learns_from_the_id(name):
    agent = pg.A2C(networks=pg.Networks((4,)), horizon=4, seed=0)
    agent.compile(keras.optimizers.Adam(), jit_compile=False)
    history = agent.fit(f"kerasrl_pg/{name}-v0", num_envs=2, epochs=1, steps_per_epoch=2, verbose=0).history
    assert history["env_steps"] == [16.0]
    assert agent.spaces == (COMPILED[name].observation_space, COMPILED[name].action_space)


SIZES = {"Vacuum": (256, 448), "Corridor": (128, 448), "RandomMDP": (480, 480)}


@every_world
def test_pictures(name):
    env = make(name, render_mode="rgb_array")
    env.reset(seed=1)
    env.step(0)
    first = env.render()
    assert first.dtype == np.uint8 and first.shape == (*SIZES.get(name, (480, 480)), 3)
    colours = {tuple(colour) for colour in first.reshape(-1, 3).tolist()}
    assert {drawing.VERMILION, drawing.INK, drawing.PAPER} <= colours
    env.step(1)
    assert np.any(env.render() != first)


def test_where_things_are_in_pictures():
    env = make("Vacuum", render_mode="rgb_array").unwrapped
    env.reset(seed=0)
    env.cell = (0, 2)
    picture = env.render()
    assert tuple(picture[96, 224]) == drawing.YELLOW  # the middle of the vacuum cleaner
    assert tuple(picture[70, 134]) == tuple(picture[70, 262]) == drawing.SKY  # floors that look alike
    assert tuple(picture[170, 96]) == drawing.PAPER and tuple(picture[148, 96]) == drawing.ORANGE  # a hamster
    assert tuple(picture[160, 160]) == drawing.INK  # a wall
    env = make("Corridor", render_mode="rgb_array").unwrapped
    env.reset(seed=0)
    for place in range(6):
        env.place = place
        assert tuple(env.render()[67, 64 * (place + 1)]) == drawing.VERMILION
    env = make("PixelCopter", render_mode="rgb_array").unwrapped
    env.reset(seed=0)
    env.blocks = [(25 * 30, 24)]
    picture = env.render()
    assert tuple(picture[242, 158]) == drawing.VERMILION and tuple(picture[245, 300]) == drawing.ORANGE
    ceiling = env.terrain[5].middle - 12  # At 22 pixels.
    assert tuple(picture[10 * ceiling - 2, 221]) == drawing.BLUE
    assert tuple(picture[10 * ceiling + 2, 221]) == drawing.PAPER
    env = make("RandomMDP", render_mode="rgb_array").unwrapped
    env.reset(seed=0)
    env.state, env._before = 0, 1
    picture = env.render()
    assert tuple(picture[40, 240]) == drawing.VERMILION  # at the top, above its number
    # A fifth of the circle on.
    x, y = 240 + 182.4 * np.sin(0.4 * np.pi), 240 - 182.4 * np.cos(0.4 * np.pi)
    assert tuple(picture[round(y) - 17, round(x)]) == drawing.GREY


def test_texts():
    env = make("Vacuum", render_mode="ansi")
    env.reset(seed=0)
    env.unwrapped.cell = (0, 4)
    assert env.render() == "#######\n#....o#\n#H#D#H#\n#######"
    env.step(2)
    assert env.render() == "#######\n#.....#\n#H#D#o#\n#######"
    env = make("RandomMDP", render_mode="ansi", num_states=2, num_actions=1, branching=1)
    env.reset(seed=0)
    assert env.render().startswith(f"state {env.unwrapped.state}\n  action 0: to ")


@every_world
def test_a_window(name):
    pygame = pytest.importorskip("pygame")
    env = make(name, render_mode="human")
    env.unwrapped.metadata = {**env.unwrapped.metadata, "render_fps": 1000}
    env.reset(seed=0)
    env.step(1)
    assert env.render() is None
    shown = pygame.surfarray.array3d(pygame.display.get_surface()).swapaxes(0, 1)
    np.testing.assert_array_equal(shown, env.unwrapped.picture())
    env.close()
    assert pygame.display.get_surface() is None
    env.close()  # again


def test_a_window_without_pygame(monkeypatch):
    monkeypatch.setitem(sys.modules, "pygame", None)
    with pytest.raises(gym.error.DependencyNotInstalled, match=r'pip install "gymnasium\[classic-control\]"'):
        make("Corridor", render_mode="human").reset()


def test_refusals():
    env = host.VacuumEnv()
    with pytest.raises(gym.error.ResetNeeded, match="Call `reset` before `step`"):
        env.step(0)
    with pytest.raises(gym.error.ResetNeeded, match="Call `reset` before `render`"):
        host.VacuumEnv(render_mode="ansi").render()
    with pytest.raises(ValueError, match="`options` must be None for VacuumEnv. Received: options={'cell': 3}"):
        env.reset(options={"cell": 3})
    env.reset(seed=0)
    with pytest.raises(ValueError, match=r"`action` must be of Discrete\(4\). Received: action=4"):
        env.step(4)
    with pytest.warns(UserWarning, match="`render` shows nothing without `render_mode`"):
        assert env.render() is None
    with pytest.raises(ValueError, match="`render_mode` must be None or one of .* Received: render_mode='ansi'"):
        host.PixelCopterEnv(render_mode="ansi")
    with pytest.raises(ValueError, match="`length` must be a whole number of at least 2. Received: length=1"):
        make("Corridor", length=1)


def test_the_equality_check_sees_other_chance():
    class Deaf(host.RandomMDPEnv):
        def move(self, action):
            moved = super().move(action)
            self.drawn = 1 - self.drawn
            return moved

    with pytest.raises(ValueError, match="of the environment must be the reference's"):
        envs.check_equal(envs.time_limit(envs.TabularMDP(), None), Deaf, steps=200, resets=100)
