"""PixelCopter, a flight through a tunnel, as a compiled environment."""

import dataclasses
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
import tensorflow as tf

from kerasrl_pg.envs.compiled import CompiledEnv, Transition
from kerasrl_pg.envs.worlds import whole_number

PIECES = 14  # As many as reach from one side of the picture to the other; as many there are at least.
BATCH = 48  # Pieces are made so many at a time, on one wave.
PIXEL, FRAME = 25, 16  # Places from left to right are in 1/25 of a pixel, of which a frame moves them 16.
CLIMB, FALL, DRAG = -0.56, 0.0576, 0.99  # Pixels a frame, and what is left of the momentum after one.
GONE = (-4 * PIXEL, 24)  # The place and middle of no block.
GREEN = 186  # The grey of the game's colour (120, 240, 80).


class Flight(NamedTuple):
    """Where N copters are.

    Args:
        player: float32 [N, 2], height in pixels from the top, and momentum, downwards.
        terrain: int32 [N, 14, 2], the tunnel's pieces from left to right: place in 1/25 pixel, middle in pixels.
        wave: float32 [N], the frequency that the last piece was made with.
        made: int32 [N], how many pieces were made.
        blocks: int32 [N, 2, 2], the same of the block ahead and of the one passed, `GONE` when out of sight.
    """

    player: Any
    terrain: Any
    wave: Any
    made: Any
    blocks: Any


@dataclasses.dataclass(frozen=True)
class PixelCopter(CompiledEnv):
    """PixelCopter of the PyGame Learning Environment: a helicopter in a winding tunnel, past blocks.

    The field has 48 x 48 pixels, and a frame is a thirtieth of a second. Action 0 climbs, 1 falls. Each piece of the
    tunnel that is left behind pays 1, about every sixth frame, and each block 1; whoever touches a wall, a block or the
    rim loses 5, and the episode ends.

    The observation is PLE's, in pixels and in the order of its dictionary: the player's height from the top and its
    momentum, its distance from ceiling and floor, the distance of the next block, and that block's middle and middle
    + 9, which PLE calls top and bottom. As images: uint8 [48, 48, 1], the greys of the game, where the tunnel's walls
    are drawn where they kill; of the momentum nothing is seen, which is a question for `Networks(memory=)`.

    Args:
        num_envs: N.
        max_episode_steps: 1000: ours, since PLE has no limit and a perfect player no end; some 175 points.
        pixels: Observations are images.

    Raises:
        ValueError: If `pixels` is no truth value.

    Source: PLE, `ple/games/pixelcopter.py`, at 48 x 48 pixels and 30 frames a second. There places are sums of floats,
    whose rounding decides where a piece is at a whole pixel; here they are exact.

    >>> game = PixelCopter(num_envs=2)
    >>> state = game.reset(tf.fill((2, 17), 0.5))
    >>> game.observe(state)[0].numpy()
    array([24.,  0.,  7., 17., 44., 24., 33.], dtype=float32)
    >>> game.step(state, tf.constant([0, 1]), tf.fill((2, 4), 0.5)).state.player.numpy().round(3)
    array([[23.446, -0.554],
           [24.057,  0.057]], dtype=float32)
    """

    max_episode_steps: int | None = 1000
    pixels: bool = False

    action_space = gym.spaces.Discrete(2)
    reset_noise = PIECES + 3
    step_noise = 4

    def __post_init__(self):
        super().__post_init__()
        if not isinstance(self.pixels, bool):
            raise ValueError(f"`pixels` must be True or False. Received: pixels={self.pixels!r}.")

    @property
    def observation_space(self):
        if self.pixels:
            return gym.spaces.Box(0, 255, (48, 48, 1), np.uint8)
        return gym.spaces.Box(-48.0, 96.0, (7,))  # Ours: more than can be reached.

    def reset(self, noise):
        n, index = noise.shape[0], tf.range(PIECES)
        wave = _frequency(noise[:, PIECES])
        birth = 2 + 4 * index[None]
        place = tf.tile(PIXEL * birth, [n, 1])
        terrain = tf.stack([place, _middle(wave[:, None], birth, noise[:, :PIECES])], -1)
        block = _block(noise[:, PIECES + 1 :])
        gone = tf.tile([GONE], [n, 1])
        player = tf.tile([[24.0, 0.0]], [n, 1])
        return Flight(player, terrain, wave, tf.fill([n], PIECES), tf.stack([block, gone], 1))

    def observe(self, state):
        return self._image(state) if self.pixels else self._numbers(state)

    def _numbers(self, state):
        height, momentum = tf.unstack(state.player, axis=-1)
        # Of the pieces that reach over the player, the first: there always is one.
        first = tf.argmax(_over(state.terrain[:, :, 0]), -1, tf.int32)
        middle = tf.cast(tf.gather(state.terrain[:, :, 1], first, batch_dims=1), tf.float32)
        ahead = tf.cast(state.blocks[:, 0], tf.float32)
        distance, block = ahead[:, 0] / PIXEL - 16.0, ahead[:, 1]
        seen = [height, momentum, height - (middle - 12.0), middle + 12.0 - height, distance, block, block + 9.0]
        return tf.stack(seen, -1)

    def _image(self, state):
        row, column = tf.range(48)[None, :, None], tf.range(48)
        # The walls above and below each column, of the pieces that reach over it.
        place, middle = tf.truncatediv(state.terrain[:, :, :1], PIXEL), state.terrain[:, :, 1:]
        over = (column >= place - 2) & (column < place + 2)
        ceiling = tf.reduce_max(tf.where(over, middle - 12, 0), 1)
        floor = tf.reduce_min(tf.where(over, middle + 12, 48), 1)
        green = (row < ceiling[:, None]) | (row >= floor[:, None])
        for which in range(2):
            x, y = tf.truncatediv(state.blocks[:, which, 0], PIXEL), state.blocks[:, which, 1]
            x, y = x[:, None, None], y[:, None, None]
            green |= (column >= x - 2) & (column < x + 2) & (row >= y - 4) & (row < y + 5)
        y = tf.cast(state.player[:, 0], tf.int32)[:, None, None]
        white = (column >= 15) & (column < 17) & (row >= y - 1) & (row < y + 1)
        image = tf.where(white, 255, tf.where(green, GREEN, 0))
        return tf.cast(image, tf.uint8)[..., None]

    def step(self, state, actions, noise):
        momentum = (state.player[:, 1] + tf.where(actions == 0, CLIMB, FALL)) * DRAG
        height = state.player[:, 0] + momentum
        place, middle = state.terrain[:, :, 0] - FRAME, state.terrain[:, :, 1]
        blocks = state.blocks - tf.constant([FRAME, 0])
        blocks = tf.where(blocks[:, :, :1] <= GONE[0], tf.constant(GONE), blocks)

        # Rectangles are of whole pixels, the player 2 x 2 around its middle and a block 4 x 9.
        apart = tf.cast(height, tf.int32)[:, None] - blocks[:, :, 1]
        struck = _over(blocks[:, :, 0]) & (apart > -5) & (apart < 6)
        y, walls = height[:, None], tf.cast(middle, tf.float32)
        scraped = _over(place) & ((y - 2.4 <= walls - 12.0) | (y >= walls + 12.0))
        terminated = tf.reduce_any(struck, -1) | tf.reduce_any(scraped, -1) | (height < 6.0) | (height > 42.0)

        # The block before is out of sight whenever one is passed, for it had the time from 48 pixels to 16.
        passed = blocks[:, 0, 0] <= 16 * PIXEL
        following = tf.stack([_block(noise[:, 2:]), blocks[:, 0]], 1)
        blocks = tf.where(passed[:, None, None], following, blocks)

        # With the piece before the last 13 of a batch the next batch begins, at a place of its own.
        left = place[:, 0] <= GONE[0]
        index = state.made % BATCH
        begins = left & (index == 0)
        wave = tf.where(begins, _frequency(noise[:, 1]), state.wave)
        birth = tf.where(state.made < BATCH, 2, 50) + 4 * index
        last = tf.where(index == 0, 50 * PIXEL, place[:, -1] + 4 * PIXEL)
        new = tf.stack([last, _middle(wave, birth, noise[:, 0])], -1)
        terrain = tf.stack([place, middle], -1)
        terrain = tf.where(left[:, None, None], tf.concat([terrain[:, 1:], new[:, None]], 1), terrain)

        count = tf.cast(passed, tf.float32) + tf.cast(left, tf.float32)
        rewards = count - tf.where(terminated, 5.0, 0.0)
        player = tf.stack([height, momentum], -1)
        return Transition(
            Flight(player, terrain, wave, state.made + tf.cast(left, tf.int32), blocks), rewards, terminated
        )

    def state_of(self, env):
        """From this package's own gymnasium environment."""
        pieces = env.terrain[:PIECES]
        return Flight(
            np.array([env.height, env.momentum], np.float32),
            np.array([(piece.place, piece.middle) for piece in pieces], np.int32),
            np.float32(pieces[-1].wave),
            np.int32(env.left + PIECES),
            np.array([env.blocks[-1], env.blocks[0] if len(env.blocks) > 1 else GONE], np.int32),
        )


def _over(place):
    """Whether what is 4 pixels wide reaches over the player's two, from its place in 1/25 pixel."""
    return (place >= 14 * PIXEL) & (place < 19 * PIXEL)


def _frequency(noise):
    return 4.5 / 48 + 0.02 * noise - 0.01


def _middle(wave, birth, noise):
    """The middle of a piece of the tunnel that was made at a place, in whole pixels."""
    middle = tf.cast(24.0 + 6.0 * tf.sin(wave * tf.cast(birth, tf.float32) + 0.5 * noise), tf.int32)
    return tf.minimum(middle, 29)  # 30 is float32's rounding.


def _block(noise):
    """A new block's place and middle, int32 [N, 2], of noise [N, 2]."""
    aside = whole_number(noise[:, 1], 24) - 12
    return tf.stack([PIXEL * (48 + whole_number(noise[:, 0], 24)), 24 + aside + 4 * tf.sign(aside)], -1)
