"""What a policy does, as a film."""

from pathlib import Path

import gymnasium as gym
import keras
import numpy as np

from kerasrl_pg.checks import check_whole
from kerasrl_pg.serving.files import write_beside


def film(agent, env, filepath, episodes=1, max_steps=1000, deterministic=True, seed=0):
    """Plays episodes and writes what they look like.

    Args:
        agent: A built agent.
        env: A gymnasium id, or a function of `render_mode` that makes an environment which renders `rgb_array`.
        filepath: Ending in `.gif`, or `.mp4`, which needs the extra `[video]`.
        episodes: How many, one after the other.
        max_steps: The most steps of all of them together. 1000: ours, half a minute.
        deterministic: Whether by the policy's mode.
        seed: Of the environment and the actions.

    Returns:
        The returns of the episodes, a list; the last one is cut where `max_steps` end it.

    Raises:
        ValueError: If the environment gives no pictures, or the file has another ending.
        ImportError: If the extra is missing.

    >>> import tempfile
    >>> import kerasrl_pg as pg
    >>> agent = pg.A2C(seed=0)
    >>> agent.bind(pg.envs.Vacuum().observation_space, pg.envs.Vacuum().action_space)
    >>> len(film(agent, "kerasrl_pg/Vacuum-v0", f"{tempfile.mkdtemp()}/vacuum.gif", max_steps=20))
    1
    """
    path = Path(filepath)
    if path.suffix not in WRITERS:
        raise ValueError(f"`filepath` must end in .gif or .mp4. Received: {str(filepath)!r}.")
    check_whole("episodes", episodes)
    check_whole("max_steps", max_steps)
    made = gym.make(env, render_mode="rgb_array") if isinstance(env, str) else env(render_mode="rgb_array")
    try:
        frames, returns = _played(agent, made, episodes, max_steps, deterministic, seed)
        rate = made.metadata.get("render_fps", 30)
    finally:
        made.close()
    if len(frames) == 0 or not isinstance(frames[0], np.ndarray):
        raise ValueError(f"`env` must render 'rgb_array'. Received: {env!r}, which gave {type(frames[0]).__name__}.")
    write_beside(path, path.suffix, lambda part: WRITERS[path.suffix](part, frames, rate), _not_empty)
    return returns


def play(agent, env, episodes=1, deterministic=True, seed=0):
    """Plays episodes in an environment that is already made, step by step, and gives their returns.

    Args:
        agent: A built agent.
        env: A gymnasium `Env`, such as one with `render_mode="human"`.
        episodes, deterministic, seed: As of `film`.
    """
    return _played(agent, env, episodes, float("inf"), deterministic, seed, frames=False)[1]


def _played(agent, env, episodes, max_steps, deterministic, seed, frames=True):
    shown, returns, steps = [], [], 0
    for episode in range(episodes):
        observation, info = env.reset(seed=seed + episode)
        state, over = None, False
        returns.append(0.0)
        while not over and steps < max_steps:
            if frames:
                shown.append(env.render())
            drawn = None if deterministic else np.random.SeedSequence([seed, steps]).generate_state(1)[0] >> 1
            action, state = _act(agent, observation, info, state, deterministic, drawn)
            observation, reward, terminated, truncated, info = env.step(action)
            returns[-1] += float(reward)
            over, steps = terminated or truncated, steps + 1
        if frames:
            shown.append(env.render())
    return shown, returns


def _act(agent, observation, info, state, deterministic, seed):
    """An action, and what the policy remembers, or None."""
    how = {"deterministic": deterministic, "seed": seed}
    if agent.action_masks == "info":
        how["action_mask"] = info["action_mask"]
    if agent.actor_critic.policy_memory_size:
        return agent.act(observation, state=state, **how)
    return agent.act(observation, **how), None


def _gif(path, frames, rate):
    try:
        from PIL import Image
    except ImportError as error:
        raise ImportError("GIFs need Pillow: pip install kerasrl-pg[video]") from error
    images = [Image.fromarray(frame).quantize() for frame in frames]
    # Browsers do not show more than 50 frames a second.
    every = max(1, round(rate / 50))
    images[0].save(path, "GIF", save_all=True, append_images=images[every::every], duration=1000 * every / rate, loop=0)


def _mp4(path, frames, rate):
    try:
        import imageio.v2 as imageio
        import imageio_ffmpeg  # noqa: F401  (brings ffmpeg)
    except ImportError as error:
        raise ImportError("MP4 films need imageio-ffmpeg: pip install kerasrl-pg[video]; or write a .gif.") from error
    even = [frame[: frame.shape[0] // 2 * 2, : frame.shape[1] // 2 * 2] for frame in frames]  # As H.264 wants them.
    imageio.mimwrite(path, even, "FFMPEG", fps=rate, codec="libx264", macro_block_size=2, ffmpeg_log_level="error")


def _not_empty(path):
    if Path(path).stat().st_size == 0:
        raise OSError("The film cannot be read back. Is the disk full?")


WRITERS = {".gif": _gif, ".mp4": _mp4}


class Video(keras.callbacks.Callback):
    """Films the policy when training begins, every so many environment steps, and at the end.

    Args:
        env: As of `film`.
        folder: Where: `step-00010240.gif` and so on.
        every: Environment steps between films, at least 1; after the iteration that reaches them.
        suffix: ".gif" or ".mp4".
        **how: Further arguments of `film`.

    Raises:
        ValueError: If an argument is out of range.

    >>> Video("kerasrl_pg/Vacuum-v0", "videos", every=10_000).every
    10000
    """

    def __init__(self, env, folder, every, suffix=".gif", **how):
        super().__init__()
        check_whole("every", every)
        if suffix not in WRITERS:
            raise ValueError(f"`suffix` must be '.gif' or '.mp4'. Received: suffix={suffix!r}.")
        self.env, self.folder, self.every, self.suffix, self.how = env, Path(folder), every, suffix, how

    def _film(self):
        steps = int(self.model.env_steps)
        film(self.model, self.env, self.folder / f"step-{steps:08d}{self.suffix}", **self.how)
        self._next = (steps // self.every + 1) * self.every
        self._last = steps

    def on_train_begin(self, logs=None):
        self._film()

    def on_train_batch_end(self, batch, logs=None):
        if int(self.model.env_steps) >= self._next:
            self._film()

    def on_train_end(self, logs=None):
        if int(self.model.env_steps) > self._last:
            self._film()
