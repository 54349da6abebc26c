"""The worlds as gymnasium environments: one at a time, in plain Python, with pictures."""

import dataclasses
import itertools
import math

import gymnasium as gym
import numpy as np

from kerasrl_pg.envs import drawing
from kerasrl_pg.envs.drawing import Canvas
from kerasrl_pg.envs.pixelcopter import PixelCopter
from kerasrl_pg.envs.vacuum import Vacuum
from kerasrl_pg.envs.worlds import Corridor, TabularMDP


class HostEnv(gym.Env):
    """What the worlds have in common: seeds, refusals and three ways of being looked at.

    A world has `begin()`, `move(action)`, which gives reward and whether that is the end, `observation()`, `picture()`
    and perhaps `text()`. They are written apart from the compiled ones, so that `check_equal` has something to compare.

    Args:
        world: The `CompiledEnv` that it is; its spaces are taken.
        render_mode: None, "human" (a window), "rgb_array" (uint8 [height, width, 3]) or, where a world has `text`,
            "ansi".

    Raises:
        ValueError: If there is no such mode.
    """

    metadata = {"render_modes": ["human", "rgb_array", "ansi"], "render_fps": 4}

    def __init__(self, world, render_mode=None):
        if render_mode not in (None, *self.metadata["render_modes"]):
            raise ValueError(
                f"`render_mode` must be None or one of {self.metadata['render_modes']}. "
                f"Received: render_mode={render_mode!r}."
            )
        self.render_mode = render_mode
        self.observation_space = world.observation_space
        self.action_space = world.action_space
        self._begun, self._window, self._clock = False, None, None

    def reset(self, *, seed=None, options=None):
        """A new episode; the same seed gives the same ones from here on.

        Raises:
            ValueError: If there are options, for there are none.
        """
        if options:
            raise ValueError(f"`options` must be None for {type(self).__name__}. Received: options={options!r}.")
        super().reset(seed=seed)
        self._begun = True
        self.begin()
        if self.render_mode == "human":
            self.render()
        return self.observation(), {}

    def step(self, action):
        """One step; a time limit is gymnasium's affair.

        Raises:
            gymnasium.error.ResetNeeded: Before the first `reset`.
            ValueError: If there is no such action.
        """
        if not self._begun:
            raise gym.error.ResetNeeded("Call `reset` before `step`. Received: step first.")
        if not self.action_space.contains(action):
            raise ValueError(f"`action` must be of {self.action_space}. Received: action={action!r}.")
        reward, terminated = self.move(int(action))
        if self.render_mode == "human":
            self.render()
        return self.observation(), reward, terminated, False, {}

    def render(self):
        """What `render_mode` asked for: an array, a text, or None, since a window shows it.

        Raises:
            gymnasium.error.ResetNeeded: Before the first `reset`.
            gymnasium.error.DependencyNotInstalled: If a window is wanted and pygame is missing.
        """
        if self.render_mode is None:
            gym.logger.warn("`render` shows nothing without `render_mode`; give one to `gymnasium.make`.")
            return None
        if not self._begun:
            raise gym.error.ResetNeeded("Call `reset` before `render`. Received: render first.")
        if self.render_mode == "ansi":
            return self.text()
        return self.picture() if self.render_mode == "rgb_array" else self._show(self.picture())

    def _show(self, picture):
        try:
            import pygame
        except ImportError as error:
            raise gym.error.DependencyNotInstalled(
                'A window needs pygame: pip install "gymnasium[classic-control]"'
            ) from error
        if self._window is None:
            pygame.display.init()
            pygame.display.set_caption(type(self).__name__)
            self._window, self._clock = pygame.display.set_mode(picture.shape[1::-1]), pygame.time.Clock()
        pygame.surfarray.blit_array(self._window, picture.swapaxes(0, 1))
        pygame.event.pump()
        pygame.display.flip()
        self._clock.tick(self.metadata["render_fps"])

    def close(self):
        """Closes the window, if there is one."""
        if self._window is not None:
            import pygame

            pygame.display.quit()
            self._window = None


class VacuumEnv(HostEnv):
    """`Vacuum` for gymnasium: `gymnasium.make("kerasrl_pg/Vacuum-v0")`.

    Args:
        render_mode: As in `HostEnv`.

    Attributes:
        cell: Row and column of the present cell.

    >>> import gymnasium as gym
    >>> env = gym.make("kerasrl_pg/Vacuum-v0", render_mode="ansi")
    >>> observation, info = env.reset(seed=1)
    >>> observation, reward, *_ = env.step(1)
    >>> print(env.render())
    #######
    #..o..#
    #H#D#H#
    #######
    """

    # A wall, a free cell, the dust and a hamster.
    MAP = ("#######", "#.....#", "#H#D#H#", "#######")

    def __init__(self, render_mode=None):
        super().__init__(Vacuum(), render_mode)

    def _place(self, down=0, right=0):
        """What is so far from the present cell."""
        row, column = self.cell
        return self.MAP[1 + row + down][1 + column + right]

    def begin(self):
        self.cell = (0, (0, 1, 3, 4)[self.np_random.integers(4)])

    def move(self, action):
        down, right = ((-1, 0), (0, 1), (1, 0), (0, -1))[action]
        if self._place(down, right) != "#":
            self.cell = (self.cell[0] + down, self.cell[1] + right)
        here = self._place()
        return {".": 0.0, "D": 1.0, "H": -5.0}[here] - 0.05, here != "."

    def observation(self):
        around = (self._place(-1, 0), self._place(0, 1), self._place(1, 0), self._place(0, -1))
        return np.array([place == "#" for place in around], np.int8)

    def text(self):
        rows = [list(row) for row in self.MAP]
        rows[1 + self.cell[0]][1 + self.cell[1]] = "o"
        return "\n".join("".join(row) for row in rows)

    def picture(self):
        """uint8 [256, 448, 3]; the two cells that look alike have floors of one colour."""
        canvas = Canvas(7, 4, 64, colour=drawing.INK)
        for row, places in enumerate(self.MAP):
            for column, place in enumerate(places):
                if place == "#":
                    continue
                alike = (row, column) in ((1, 2), (1, 4))
                floor = drawing.SKY if alike else drawing.PAPER
                canvas.rectangle(column + 0.03, row + 0.03, column + 0.97, row + 0.97, floor)
                if place == "D":
                    for x, y, radius in ((0.3, 0.62, 0.11), (0.5, 0.45, 0.15), (0.68, 0.66, 0.13), (0.42, 0.78, 0.08)):
                        canvas.disc(column + x, row + y, radius, drawing.GREY)
                elif place == "H":
                    _hamster(canvas, column + 0.5, row + 0.55)
        row, column = self.cell
        x, y = column + 1.5, row + 1.5
        canvas.line(x, y - 0.05, x + 0.3, y - 0.42, 0.07, drawing.GREY)
        canvas.disc(x, y, 0.3, drawing.VERMILION)
        canvas.disc(x, y, 0.15, drawing.YELLOW)
        return canvas.image()


def _hamster(canvas, x, y):
    for side in (-1, 1):
        canvas.disc(x + side * 0.22, y - 0.24, 0.1, drawing.ORANGE)
    canvas.disc(x, y, 0.32, drawing.ORANGE)
    canvas.disc(x, y + 0.1, 0.17, drawing.PAPER)
    for side in (-1, 1):
        canvas.disc(x + side * 0.13, y - 0.1, 0.05, drawing.INK)
    canvas.disc(x, y + 0.03, 0.045, drawing.VERMILION)


class CorridorEnv(HostEnv):
    """`Corridor` for gymnasium: `gymnasium.make("kerasrl_pg/Corridor-v0", length=6)`.

    Args:
        length: Number of places, at least 2.
        render_mode: As in `HostEnv`.

    Attributes:
        place: Where it is, 0 ... length - 1.

    >>> env = CorridorEnv(length=4, render_mode="ansi")
    >>> env.reset()[0], env.step(1)[:3], env.render()
    (0, (1, -1.0, False), '.o.G')
    """

    def __init__(self, length=6, render_mode=None):
        super().__init__(Corridor(length=length), render_mode)
        self.length = length

    def begin(self):
        self.place = 0

    def move(self, action):
        self.place = max(self.place + (1 if action else -1), 0)
        return -1.0, self.place == self.length - 1

    def observation(self):
        return self.place

    def text(self):
        return "".join("o" if at == self.place else "G" if at == self.length - 1 else "." for at in range(self.length))

    def picture(self):
        """uint8 [128, 64 (length + 1), 3], with a flag at the right end."""
        canvas = Canvas(self.length + 1, 2, 64, colour=drawing.INK)
        for at in range(self.length):
            canvas.rectangle(at + 0.53, 0.53, at + 1.47, 1.47, drawing.PAPER)
        flag = self.length - 0.12
        canvas.rectangle(flag, 0.62, flag + 0.32, 0.88, drawing.GREEN)
        canvas.line(flag, 0.65, flag, 1.35, 0.05, drawing.INK)
        canvas.disc(self.place + 1, 1.05, 0.28, drawing.VERMILION)
        return canvas.image()


class RandomMDPEnv(HostEnv):
    """`TabularMDP` for gymnasium: `gymnasium.make("kerasrl_pg/RandomMDP-v0", num_states=5, seed=0)`.

    Args:
        num_states, num_actions, branching, seed: As in `TabularMDP`; `seed` is the process's, `reset(seed=)` the
            episodes'.
        render_mode: As in `HostEnv`.

    Attributes:
        state: The present state.
        drawn: float32 [1], what chance gave to the last step.

    >>> env = RandomMDPEnv(num_states=3, num_actions=2, render_mode="ansi")
    >>> observation, info = env.reset(seed=0)
    >>> print(env.render())
    state 2
      action 0: to 1 with 0.67, to 2 with 0.33
      action 1: to 0 with 0.65, to 2 with 0.35
    """

    def __init__(self, num_states=5, num_actions=3, branching=2, seed=0, render_mode=None):
        world = TabularMDP(num_states=num_states, num_actions=num_actions, branching=branching, seed=seed)
        super().__init__(world, render_mode)
        self.num_states = num_states
        self._following, self._probabilities, self._rewards = world.branches
        self._cumulative = np.cumsum(self._probabilities, -1)[..., :-1].astype(np.float32)

    def begin(self):
        self.state, self._before, self.drawn = int(self.np_random.integers(self.num_states)), None, None

    def move(self, action):
        self.drawn = self.np_random.random(1, np.float32)
        place = self.state, action
        branch = np.searchsorted(self._cumulative[place], self.drawn[0])
        self._before, self.state = self.state, int(self._following[place][branch])
        return float(self._rewards[place][branch]), False

    def observation(self):
        return self.state

    def text(self):
        lines = [f"state {self.state}"]
        for action, branches in enumerate(
            zip(self._following[self.state], self._probabilities[self.state], strict=True)
        ):
            told = ", ".join(f"to {state} with {p:.2f}" for state, p in zip(*branches, strict=True))
            lines.append(f"  action {action}: {told}")
        return "\n".join(lines)

    def picture(self):
        """uint8 [480, 480, 3]: the states on a circle, and where the present one leads, thicker where likelier."""
        canvas = Canvas(10, 10, 48)
        angles = 2 * np.pi * np.arange(self.num_states) / self.num_states
        x, y = 5 + 3.8 * np.sin(angles), 5 - 3.8 * np.cos(angles)
        colours = (drawing.BLUE, drawing.ORANGE, drawing.GREEN, drawing.SKY, drawing.VERMILION, drawing.YELLOW)
        radius = min(0.55, 9 / self.num_states)
        here, actions = self.state, len(self._following[self.state])
        for action in range(actions):
            # Side by side, where two actions lead to one state.
            aside = 0.2 * (action - (actions - 1) / 2)
            for there, p in zip(self._following[here, action], self._probabilities[here, action], strict=True):
                if there == here:
                    canvas.disc(x[here], y[here], radius + 0.06 + 0.1 * p, colours[action % 6])
                along = np.array([x[there] - x[here], y[there] - y[here]])
                dx, dy = aside * np.array([-along[1], along[0]]) / max(np.hypot(*along), 1e-9)
                width = 0.03 + 0.15 * p
                canvas.line(x[here] + dx, y[here] + dy, x[there] + dx, y[there] + dy, width, colours[action % 6])
        for state in range(self.num_states):
            colour = drawing.VERMILION if state == here else drawing.GREY if state == self._before else drawing.PAPER
            canvas.disc(x[state], y[state], radius, drawing.INK)
            canvas.disc(x[state], y[state], 0.88 * radius, colour)
            canvas.number(x[state], y[state], state, 0.8 * radius, drawing.INK)
        return canvas.image()


@dataclasses.dataclass(slots=True)
class Piece:
    """A piece of the tunnel: its place in 1/25 pixel, its middle in pixels, and of what wave and shift it is."""

    place: int
    middle: int
    wave: float
    shift: float


class PixelCopterEnv(HostEnv):
    """`PixelCopter` for gymnasium: `gymnasium.make("kerasrl_pg/PixelCopter-v0")`, `"kerasrl_pg/PixelCopterPixels-v0"`.

    Told as in PLE: lists of pieces and blocks, whole batches made at a time.

    Args:
        pixels: Observations are images.
        render_mode: As in `HostEnv`, but there is no text.

    Attributes:
        height, momentum: The player's.
        terrain, left: The pieces there are, and how many were left behind.
        blocks: `(place, middle)` of each.

    >>> import gymnasium as gym
    >>> env = gym.make("kerasrl_pg/PixelCopter-v0")
    >>> observation, info = env.reset(seed=0)
    >>> observation.shape, env.step(0)[1:4]
    ((7,), (0.0, False, False))
    """

    metadata = {"render_modes": ["human", "rgb_array"], "render_fps": 30}

    def __init__(self, pixels=False, render_mode=None):
        super().__init__(PixelCopter(pixels=pixels), render_mode)
        self.pixels = pixels

    @property
    def drawn(self):
        """What chance gave last, as the compiled one's noise [4]."""
        newest, (place, middle) = self.terrain[13], self.blocks[-1]
        aside = middle - 24
        aside += 4 if aside < 0 else -4 if aside > 0 else 0
        wave = (newest.wave - 4.5 / 48 + 0.01) / 0.02
        return [newest.shift / 0.5, wave, (place / 25 - 48 + 0.5) / 24, (aside + 12.5) / 24]

    def begin(self):
        self.height, self.momentum = 24.0, 0.0
        self.terrain, self.left, self.blocks = [], 0, []
        self._add_terrain(0, 192)
        self._add_block()

    def _add_terrain(self, start, end):
        wave = 4.5 / 48 + self.np_random.uniform(-0.01, 0.01)
        places = range(start + 2, end + 2, 4)
        for place, shift in zip(places, self.np_random.uniform(0.0, 0.5, len(places)).tolist(), strict=True):
            middle = int(24 + 6 * math.sin(wave * place + shift))
            self.terrain.append(Piece(25 * place, middle, wave, shift))

    def _add_block(self):
        place, aside = int(self.np_random.integers(48, 72)), int(self.np_random.integers(-12, 12))
        self.blocks.append((25 * place, 24 + aside + (4 if aside > 0 else -4 if aside < 0 else 0)))

    def move(self, action):
        self.momentum = (self.momentum + (0.0576 if action else -0.56)) * 0.99
        self.height += self.momentum
        self.blocks = [(place - 16, middle) for place, middle in self.blocks]
        for piece in self.terrain:
            piece.place -= 16

        lost = not 6.0 <= self.height <= 42.0
        for place, middle in self.blocks:
            top = middle - 4
            beside = place // 25 + 2 <= 15 or place // 25 - 2 >= 17
            lost |= not beside and int(self.height) + 1 > top and int(self.height) - 1 < top + 9
        for middle in self._around():
            lost |= self.height - 2.4 <= middle - 12 or self.height >= middle + 12

        reward = -5.0 if lost else 0.0
        if len(self.blocks) == 1 and self.blocks[0][0] <= 400:
            reward += 1.0
            self._add_block()
        self.blocks = [block for block in self.blocks if block[0] > -100]
        if self.terrain[0].place <= -100:
            reward += 1.0
            self.left += 1
            del self.terrain[0]
        if len(self.terrain) <= 13:
            self._add_terrain(48, 240)
        return reward, lost

    def _around(self):
        """The middles of the pieces that are over the player's two pixels, from left to right."""
        near = itertools.takewhile(lambda piece: piece.place // 25 - 2 < 17, self.terrain)
        return [piece.middle for piece in near if piece.place // 25 + 2 > 15]

    def observation(self):
        if self.pixels:
            return self._image()
        middle = self._around()[0]
        place, block = min(block for block in self.blocks if block[0] > 400)
        gap = self.height - (middle - 12), middle + 12 - self.height
        return np.array([self.height, self.momentum, *gap, place / 25 - 16, block, block + 9], np.float32)

    def _image(self):
        image = np.zeros((48, 48, 1), np.uint8)
        seen = [piece for piece in self.terrain if piece.place < 1250]
        boxes = [(piece.place, 0, piece.middle - 12) for piece in seen]
        boxes += [(piece.place, piece.middle + 12, 48) for piece in seen]
        boxes += [(place, middle - 4, middle + 5) for place, middle in self.blocks]
        for place, top, bottom in boxes:
            column = int(place / 25)
            image[max(top, 0) : max(bottom, 0), max(column - 2, 0) : max(column + 2, 0)] = 186
        row = int(self.height)
        image[max(row - 1, 0) : max(row + 1, 0), 15:17] = 255
        return image

    def picture(self):
        """uint8 [480, 480, 3]."""
        canvas = Canvas(48, 48, 10)
        for piece in self.terrain:
            left, right = piece.place / 25 - 2, piece.place / 25 + 2.05
            canvas.rectangle(left, 0, right, piece.middle - 12, drawing.BLUE)
            canvas.rectangle(left, piece.middle + 12, right, 48, drawing.BLUE)
        for place, middle in self.blocks:
            x = place / 25
            canvas.rectangle(x - 2, middle - 4, x + 2, middle + 5, drawing.INK)
            canvas.rectangle(x - 1.7, middle - 3.7, x + 1.7, middle + 4.7, drawing.ORANGE)
        x, y = 16, self.height
        canvas.line(x - 3.4, y - 0.4, x, y, 0.45, drawing.INK)
        canvas.line(x - 3.4, y - 1.2, x - 3.4, y + 0.4, 0.35, drawing.INK)
        canvas.line(x, y - 1.8, x, y, 0.35, drawing.INK)
        canvas.line(x - 2.1, y - 1.8, x + 2.1, y - 1.8, 0.35, drawing.INK)
        canvas.disc(x, y, 1.3, drawing.INK)
        canvas.disc(x, y, 1.05, drawing.VERMILION)
        canvas.disc(x + 0.45, y - 0.25, 0.45, drawing.PAPER)
        return canvas.image()
