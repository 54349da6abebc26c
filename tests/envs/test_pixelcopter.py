"""PixelCopter, the compiled one beside the one told as in PLE, and by hand."""

import dataclasses

import gymnasium as gym
import numpy as np
import pytest
import tensorflow as tf

from kerasrl_pg.envs import PixelCopter, check_equal
from kerasrl_pg.envs.host import PixelCopterEnv
from kerasrl_pg.ops import random

CLIMB, FALL = 0, 1
HALF = tf.fill((1, 4), 0.5)


def follow(observation):
    """Stays in the middle of the tunnel, or of what a block leaves of it."""
    height, momentum, ceiling, _, distance, block, _ = observation
    middle = height - ceiling + 12
    low, high = middle - 12, middle + 12
    if distance < 24:
        low, high = (low, block - 5) if block - 5 - low > high - block - 5 else (block + 5, high)
    return FALL if height + 4 * momentum < (low + high) / 2 else CLIMB


class Watched(PixelCopterEnv):
    """Notes how many pieces were ever left behind in an episode, and how often a block was passed or hit."""

    furthest = passed = lost_beside_a_block = 0

    def move(self, action):
        before = len(self.blocks)
        reward, lost = super().move(action)
        cls = type(self)
        cls.furthest = max(cls.furthest, self.left)
        cls.passed += len(self.blocks) > before
        cls.lost_beside_a_block += lost and any(350 <= place < 475 for place, _ in self.blocks)
        return reward, lost


@dataclasses.dataclass(frozen=True)
class Unlimited(PixelCopter):
    max_episode_steps: int | None = None


def test_equal_under_random_actions():
    report = check_equal(PixelCopter(), "kerasrl_pg/PixelCopter-v0", steps=2000, resets=1000)
    assert report.terminated > 100


def test_equal_when_played_well():
    Watched.furthest = Watched.passed = Watched.lost_beside_a_block = 0
    report = check_equal(Unlimited(), Watched, steps=6000, policy=follow, resets=100)
    # Past the seams behind the first batch of pieces and behind the second.
    assert Watched.furthest > 96 and Watched.passed > 40 and Watched.lost_beside_a_block > 5
    assert report.reward_difference == 0.0 and report.state_difference < 1e-5


def test_images_are_equal():
    report = check_equal(PixelCopter(pixels=True), "kerasrl_pg/PixelCopterPixels-v0", steps=1000, resets=100)
    assert report.observation_difference == 0.0


def test_equal_on_scattered_flights():
    """What play seldom meets: any height, blocks anywhere, both of them before the player."""
    rng, game, env = np.random.default_rng(0), PixelCopterEnv(), PixelCopter()
    game.reset(seed=0)
    before, after, noise, actions, rewards, ends = [], [], [], [], [], []
    for _ in range(3000):
        game.begin()
        game.height, game.momentum = float(rng.uniform(5, 43)), float(rng.normal())
        if rng.random() < 0.3:  # One that is passed now, or nearly.
            game.blocks = [(int(rng.integers(401, 433)), int(rng.integers(8, 40)))]
        else:
            places = rng.integers(-99, 417), rng.integers(433, 1800)
            game.blocks = [(int(place), int(rng.integers(8, 40))) for place in places]
        for _ in range(rng.integers(20)):
            for piece in game.terrain:
                piece.place -= 16
        game.terrain = [piece for piece in game.terrain if piece.place > -100]
        game.left = 48 - len(game.terrain)
        action = int(rng.integers(2))
        before.append(env.state_of(game))
        reward, over = game.move(action)
        after.append(env.state_of(game))
        noise.append(game.drawn), actions.append(action), rewards.append(reward), ends.append(over)
    before, after = (tf.nest.map_structure(lambda *x: tf.stack(x), *flights) for flights in (before, after))
    found = env.step(before, tf.constant(actions), tf.constant(noise, tf.float32))
    np.testing.assert_array_equal(found.terminated, ends)
    np.testing.assert_array_equal(found.rewards, rewards)
    tf.nest.map_structure(lambda x, y: np.testing.assert_allclose(x, y, atol=1e-5), found.state, after)
    assert 500 < np.sum(ends) < 2500 and set(rewards) >= {-5.0, -4.0, 0.0, 1.0}


def fly(state, actions, noise=HALF):
    rewards = []
    for action in actions:
        state, reward, terminated, _ = PixelCopter().step(state, tf.constant([action]), noise)
        rewards.append(float(reward[0]))
    return state, rewards, bool(terminated[0])


def test_the_flight_by_hand():
    state = PixelCopter().reset(tf.fill((1, 17), 0.5))
    state, _, _ = fly(state, [CLIMB, FALL])
    # (0 - 0.56) 0.99 = -0.5544, then (-0.5544 + 0.0576) 0.99 = -0.491832; heights are their sums.
    np.testing.assert_allclose(state.player, [[24 - 0.5544 - 0.491832, -0.491832]], rtol=1e-6)


def test_the_rewards_by_hand():
    # The first piece stands at 2 and goes at -4: 6 pixels, 0.64 a frame; the next four pixels after it, and so on.
    state, rewards, _ = fly(PixelCopter().reset(tf.fill((1, 17), 0.5)), [FALL] * 8 + [CLIMB] + [FALL] * 8)
    assert [t for t, reward in enumerate(rewards, 1) if reward] == [10, 16]
    # A block comes from 60 to 16 in 68.75 frames; with it the 17th frame's reward is that of the block alone.
    block = tf.constant([[[25 * 16 + 16, 39], [-100, 24]]])
    after = PixelCopter().step(state._replace(blocks=block), tf.constant([FALL]), HALF)
    assert float(after.rewards[0]) == 1.0
    assert after.state.blocks.numpy().tolist() == [[[25 * 60, 24], [400, 39]]]


@pytest.mark.parametrize(("action", "middle", "start"), [(FALL, 34, 38.0), (CLIMB, 12, 11.0)])
def test_the_rims_kill_where_they_are(action, middle, start):
    # The tunnel is where the rim, at 42 or at 6, comes before its wall.
    state = PixelCopter().reset(tf.fill((1, 17), 0.5))
    terrain = state.terrain * [1, 0] + [0, middle]
    heights, over = [start], False
    state = state._replace(player=tf.constant([[start, 0.0]]), terrain=terrain)
    while not over:
        state, rewards, over = fly(state, [action])
        heights.append(float(state.player[0, 0]))
    inside = [6 <= height <= 42 for height in heights]
    assert inside == [True] * (len(inside) - 1) + [False] and len(inside) > 3 and rewards == [-5.0]


@pytest.mark.parametrize(("height", "over"), [(14.41, False), (14.39, True), (35.99, False), (36.01, True)])
def test_the_walls_kill_where_they_are(height, over):
    # Around a middle of 24: 2.4 below the ceiling at 12, and at the floor at 36.
    state = PixelCopter().reset(tf.fill((1, 17), 0.5))
    state = state._replace(terrain=state.terrain * [1, 0] + [0, 24])
    momentum = -0.0576  # Which falling takes away.
    player = tf.constant([[height, momentum]])
    assert fly(state._replace(player=player), [FALL])[2] == over


@pytest.mark.parametrize(
    ("place", "middle", "over"),
    [(14, 24, True), (13.9, 24, False), (18.9, 24, True), (19, 24, False), (16, 28, True), (16, 29, False)]
    + [(16, 19, True), (16, 18, False)],
)
def test_blocks_kill_where_they_are(place, middle, over):
    # The player's pixels are 15 and 16 across, 23 and 24 down; a block's are place - 2 ... + 1, middle - 4 ... + 4.
    state = PixelCopter().reset(tf.fill((1, 17), 0.5))
    blocks = tf.constant([[[25 * 60, 24], [round(25 * place) + 16, middle]]])
    state = state._replace(player=tf.constant([[24.0, -0.0576]]), blocks=blocks)
    assert fly(state, [FALL])[2] == over


def test_new_pieces_and_blocks_are_distributed_as_in_ple():
    n = 4000
    noise = random.uniform([0, 3], (n, 17))
    state = PixelCopter().reset(noise)
    place, middle = state.blocks[:, 0, 0].numpy() / 25, state.blocks[:, 0, 1].numpy()
    assert set(place) == set(range(48, 72))
    assert set(middle) == {*range(8, 20), 24, *range(29, 40)}
    wave = state.wave.numpy()
    assert 0.08375 < wave.min() < 0.084 and 0.1035 < wave.max() < 0.10375
    shift = 0.5 * noise[:, :14].numpy()
    birth = 2 + 4 * np.arange(14)
    np.testing.assert_array_equal(state.terrain[:, :, 0], np.broadcast_to(25 * birth, (n, 14)))
    expected = (24 + 6 * np.sin(wave[:, None].astype(float) * birth + shift)).astype(int)
    assert np.mean(state.terrain[:, :, 1] == expected) > 0.9999  # Float32 rounds otherwise at a whole pixel.
    assert expected.min() == 18 and expected.max() == 29 and np.max(state.terrain[:, :, 1]) == 29


def test_an_image_by_hand():
    game = PixelCopter(pixels=True)
    state = game.reset(tf.fill((1, 17), 0.5))
    state = state._replace(
        terrain=state.terrain * [1, 0] + [0, 24], blocks=tf.constant([[[25 * 30, 24], [25 * -3, 24]]])
    )
    image = game.observe(state)[0, :, :, 0].numpy()
    expected = np.zeros((48, 48), int)
    expected[:12] = expected[36:] = 186
    expected[20:29, 28:32] = 186
    expected[23:25, 15:17] = 255
    np.testing.assert_array_equal(image, expected)


def test_numbers_and_images_have_spaces_of_their_own():
    assert PixelCopter().observation_space.shape == (7,)
    assert PixelCopter(pixels=True).observation_space == gym.spaces.Box(0, 255, (48, 48, 1), np.uint8)
    with pytest.raises(ValueError, match="`pixels` must be True or False. Received: pixels=1"):
        PixelCopter(pixels=1)
