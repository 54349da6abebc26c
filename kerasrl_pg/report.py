"""What the lecture notes' section 3.8 looks at when a policy does not learn, as one HTML file."""

import base64
import contextlib
import csv
import html
import io
import math
import tempfile
from pathlib import Path
from typing import NamedTuple

import gymnasium as gym
import numpy as np
import tensorflow as tf

from kerasrl_pg import figures
from kerasrl_pg.checks import check_whole
from kerasrl_pg.envs.vector import Stepper
from kerasrl_pg.rollouts.collect import Collector
from kerasrl_pg.rollouts.evaluate import Tally, play_episodes
from kerasrl_pg.serving.files import write_beside
from kerasrl_pg.training.fitting import opened_to_evaluate
from kerasrl_pg.training.host import Noise

MAX_STEPS = 100_000  # Ours: of an episode, beyond every limit that environments have.
MULTIPLES = (1, 2, 4, 8, 16)
COLOURS = {"random": "#999999", "at initialisation": "#e69f00", "now": "#0072b2"}
LOGS = ("episode_return", "episode_length", "entropy", "kl", "explained_variance", "loss")


class Played(NamedTuple):
    """What one policy did.

    Args:
        returns, lengths: Of its episodes, raw and in steps, lists.
        entropy: Of its actions, in nats; None where it is not known.
        noise: `GradientNoise`, or None.
    """

    returns: list
    lengths: list
    entropy: float | None
    noise: tuple | None = None


class GradientNoise(NamedTuple):
    """How far the gradients of single rollouts are from their mean.

    Args:
        squared_norm: |G|² of the mean gradient, unbiased, so that it may come out below 0.
        variance: tr Σ, the sum of the variances of the entries over rollouts.
        transitions: In a rollout.
    """

    squared_norm: float
    variance: float
    transitions: float

    def cosine(self, times):
        """Between the true gradient and that of a rollout so many times as large; 0 where it is lost in the noise.

        Source: |G| / √(|G|² + tr Σ / times), from McCandlish et al. 2018 (arXiv 1812.06162), section 2.2.

        >>> GradientNoise(4.0, 12.0, 64.0).cosine(1)
        0.5
        """
        signal = max(self.squared_norm, 0.0)
        return math.sqrt(signal / (signal + self.variance / times)) if signal + self.variance else 0.0


def gradient_noise(gradients, transitions):
    """The `GradientNoise` of independent estimates.

    Args:
        gradients: float [K, P], K at least 2.
        transitions: In each.

    >>> gradient_noise(np.array([[1.0, 1.0], [3.0, 1.0]]), 8).variance
    2.0
    """
    count = len(gradients)
    variance = float(np.sum(np.var(gradients, 0, ddof=1)))
    return GradientNoise(float(np.sum(np.mean(gradients, 0) ** 2)) - variance / count, variance, transitions)


def play(agent, env, episodes=20, rollouts=64, seed=0, num_envs=None):
    """Plays a policy by its samples, and differentiates the agent's own loss on what it did.

    Args:
        agent: A compiled agent, built for the environment.
        env: As of `Agent.evaluate`.
        episodes: Of which returns and lengths are kept.
        rollouts: K, at least 2, each one as `fit` would collect; no weight moves.
        seed: Of environments and samples.
        num_envs: N of the rollouts; None for 8.

    Returns:
        `Played`.
    """
    check_whole("episodes", episodes)
    check_whole("rollouts", rollouts, at_least=2)
    networks = agent.actor_critic

    def draws(n):
        return lambda chunk: networks.head.noise(tf.constant([seed, chunk]), (256, n)).numpy()

    with opened_to_evaluate(env, None, episodes) as vector_env:
        n = vector_env.num_envs
        actor = agent._actor_for(n, deterministic=False)
        returns, lengths = play_episodes(
            vector_env, networks.spec, actor, draws(n), episodes, seed, MAX_STEPS, networks.head, networks.mask_key
        )
    entropy, noise = _differentiated(agent, env, rollouts, seed, num_envs or 8)
    return Played(returns.tolist(), lengths.tolist(), entropy, noise)


def _differentiated(agent, env, rollouts, seed, num_envs):
    """The mean entropy and the `GradientNoise` of some rollouts."""
    networks, gradients, entropies, transitions = agent.actor_critic, [], [], []
    with opened_to_evaluate(env, num_envs, num_envs) as vector_env:
        n = vector_env.num_envs
        horizon = agent.rollout_horizon(vector_env)
        noise = Noise(agent.noise_program, seed, horizon, n)
        actor = agent._actor_for(n, deterministic=False)
        collector = Collector(
            vector_env,
            networks.spec,
            networks.head,
            actor,
            noise,
            horizon,
            agent.episodes_per_env,
            seed,
            networks.mask_key,
        )
        for _ in range(rollouts):
            rollout = collector.collect()
            noise.iteration += 1
            found = _gradient(agent, rollout)
            if found is None:
                return None, None
            gradients.append(found[0])
            entropies.append(found[1])
            transitions.append(int(np.sum(rollout.valid)))
    return float(np.mean(entropies)), gradient_noise(np.array(gradients), float(np.mean(transitions)))


def _gradient(agent, rollout):
    """The policy's part of the gradient [P], and the entropy; None for a method without a loss."""
    try:
        gradients, logs = agent.gradients(rollout)
    except NotImplementedError:
        return None
    policy = {id(variable) for variable in agent.actor_critic.policy_variables}
    flat = []
    for name, (_, variables) in agent.moves().items():
        pairs = zip(gradients[name], variables, strict=True)
        flat += [np.ravel(gradient) for gradient, variable in pairs if id(variable) in policy]
    return np.concatenate(flat).astype("float64"), float(logs.get("entropy", math.nan))


def play_at_random(spec, env, episodes=20, seed=0):
    """Plays actions drawn evenly from the action space.

    Args:
        spec: `ObservationSpec` of the environment.
        env, episodes, seed: As of `play`.

    Returns:
        `Played`.
    """
    with opened_to_evaluate(env, None, episodes) as vector_env:
        space = vector_env.single_action_space
        stepper = Stepper(vector_env, spec)
        stepper.reset(seed)
        vector_env.action_space.seed(seed)
        tally = Tally(vector_env.num_envs, episodes, MAX_STEPS)
        while tally.wanting:
            tally.add(stepper.step(vector_env.action_space.sample()), lambda row: f"from environment {row}")
    return Played(list(tally.returns), list(tally.lengths), _even_entropy(space))


def _even_entropy(space):
    """Entropy in nats of an even draw, or None of a space without one."""
    if isinstance(space, gym.spaces.Discrete):
        return math.log(space.n)
    if isinstance(space, gym.spaces.MultiDiscrete):
        return float(np.sum(np.log(space.nvec)))
    if isinstance(space, gym.spaces.MultiBinary):
        return float(np.prod(space.shape)) * math.log(2.0)
    if isinstance(space, gym.spaces.Box) and space.is_bounded() and np.issubdtype(space.dtype, np.floating):
        return float(np.sum(np.log(space.high - space.low)))
    return None


def report(run, agent, filepath, *, history=None, films=(), episodes=20, rollouts=64, seed=0):
    """Writes one HTML file, with everything in it, that says how a run did.

    Returns, lengths and entropy of the actions at initialisation, beside a policy that draws evenly and the trained
    one; the learning curves; what a larger rollout would do to the noise of the gradient; and what the policy
    looks like at the start and now.

    Args:
        run: The `Run`.
        agent: The trained agent.
        filepath: Ending in `.html`.
        history: Path of the run's `history.csv`, or None.
        films: Paths of GIFs made while it trained, oldest first; else the policy is filmed at the start and now, where
            the environment has pictures.
        episodes, rollouts, seed: As of `play`.

    Returns:
        The path.

    Raises:
        ImportError: If matplotlib is missing.
        ValueError: If an argument is out of range.

    Source: lecture notes, section 3.8.

    >>> import tempfile
    >>> import kerasrl_pg as pg
    >>> run = pg.Run(pg.A2C, "kerasrl_pg/Vacuum-v0", total_steps=80, num_envs=2)
    >>> path = report(run, run.train(seed=0, verbose=0), f"{tempfile.mkdtemp()}/vacuum.html", episodes=4, rollouts=2)
    >>> "at initialisation" in path.read_text()
    True
    """
    env = run.make_env()
    fresh = run.agent()
    fresh.bind(*agent.spaces)
    fresh.action_masks = agent.action_masks
    policies = {"at initialisation": fresh, "now": agent}
    played = {name: play(policy, env, episodes, rollouts, seed, run.num_envs) for name, policy in policies.items()}
    if not agent.action_masks:
        played = {"random": play_at_random(agent.observation_spec, env, episodes, seed), **played}
    parts = [_table(played), _picture(_returns(played))]
    if history is not None and Path(history).exists():
        parts += ["<h2>Learning curves</h2>", _picture(_curves(history))]
    parts += ["<h2>What a larger rollout would do</h2>", *_noise(played)]
    parts += ["<h2>What it looks like</h2>", *_films(films, policies, env, seed)]
    title = f"{run.method.__name__} on {run.env_name}, {int(agent.env_steps):,} steps"
    text = PAGE.format(title=html.escape(title), body="\n".join(parts), settings=html.escape(_settings(run)))
    path = Path(filepath)
    write_beside(path, ".html", lambda part: Path(part).write_text(text, encoding="utf8"), _whole)
    return path


PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title><style>
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 56rem; margin: 2rem auto; padding: 0 1rem; color: #222 }}
h1, h2 {{ font-weight: 600 }} img {{ max-width: 100% }} td, th {{ padding: .2rem 1rem .2rem 0; text-align: right }}
td:first-child, th:first-child {{ text-align: left }} figure {{ display: inline-block; margin: 0 1rem 0 0 }}
pre {{ background: #f5f5f5; padding: 1rem; overflow: auto }}
</style></head><body>
<h1>{title}</h1>
<h2>At initialisation, beside a random policy, and now</h2>
{body}
<h2>Settings</h2>
<pre>{settings}</pre>
</body></html>
"""


def _whole(path):
    if not Path(path).read_text(encoding="utf8").rstrip().endswith("</html>"):
        raise OSError("The report cannot be read back. Is the disk full?")


def _settings(run):
    from kerasrl_pg.run import render

    return render(run.to_dict())


def _table(played):
    rows = ["<tr><th>policy</th><th>return</th><th>length, steps</th><th>entropy, nats</th></tr>"]
    for name, one in played.items():
        cells = [
            f"{np.mean(v):.1f} ± {np.std(v):.1f}" if len(v) else "no episode ended" for v in (one.returns, one.lengths)
        ]
        entropy = "" if one.entropy is None or math.isnan(one.entropy) else f"{one.entropy:.3f}"
        rows.append(f"<tr><td>{name}</td><td>{cells[0]}</td><td>{cells[1]}</td><td>{entropy}</td></tr>")
    episodes = max(len(one.returns) for one in played.values())
    return f"<table>{''.join(rows)}</table><p>Mean ± deviation of {episodes} episodes each, actions sampled.</p>"


def _returns(played):
    figure = figures.figure(7, 2.6, extra="plot")
    left, right = figure.subplots(1, 2)
    for axes, field, label in ((left, "returns", "return"), (right, "lengths", "length (steps)")):
        for row, (name, one) in enumerate(played.items()):
            values = getattr(one, field)
            axes.scatter(values, np.full(len(values), row), s=14, alpha=0.5, color=COLOURS[name])
            if values:
                axes.plot([np.mean(values)] * 2, [row - 0.3, row + 0.3], color=COLOURS[name], linewidth=3)
        axes.set(xlabel=label, yticks=range(len(played)), yticklabels=list(played), ylim=(-0.6, len(played) - 0.4))
    return figure


def _curves(history):
    with open(history, newline="", encoding="utf8") as file:
        rows = list(csv.DictReader(file))
    names = [name for name in LOGS if rows and rows[0].get(name) not in (None, "", "NA")]
    figure = figures.figure(7, 2.0 * math.ceil(max(len(names), 1) / 2), extra="plot")
    for axes, name in zip(np.ravel(figure.subplots(math.ceil(max(len(names), 1) / 2), 2)), names, strict=False):
        values = [float(row[name]) if row[name] not in ("", "NA") else math.nan for row in rows]
        axes.plot([float(row["env_steps"]) for row in rows], values, color=COLOURS["now"])
        axes.set(xlabel="environment steps", ylabel=name.replace("_", " "))
        axes.grid(alpha=0.3)
    for axes in figure.axes[len(names) :]:
        axes.set_axis_off()
    return figure


def _noise(played):
    known = {name: one.noise for name, one in played.items() if one.noise is not None}
    if not known:
        return ["<p>This method has no loss to differentiate.</p>"]
    figure = figures.figure(7, 2.6, extra="plot")
    axes = figure.subplots(subplot_kw={"xlabel": "rollouts put together", "ylabel": "cosine", "ylim": (0, 1.02)})
    for name, noise in known.items():
        axes.plot(MULTIPLES, [noise.cosine(k) for k in MULTIPLES], marker="o", color=COLOURS[name], label=name)
    axes.set_xscale("log", base=2)
    axes.set_xticks(MULTIPLES, [f"{k}x" for k in MULTIPLES])
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    lost = [name for name, noise in known.items() if noise.squared_norm <= 0.0]
    said = (
        f" {' and '.join(lost).capitalize()}, the mean of these rollouts cannot be told from 0: either nothing is left "
        "to be learned, or far more steps are needed to see it."
        if lost
        else ""
    )
    transitions = next(iter(known.values())).transitions
    return [
        f"<p>How well the gradient of one rollout ({transitions:,.0f} transitions) points where the true one does, and "
        f"that of several together: cosine, of the policy's weights.{said}</p>",
        _picture(figure),
    ]


def _films(films, policies, env, seed):
    from kerasrl_pg.callbacks.video import film

    films = list(films)
    if len(films) > 3:
        films = [films[0], films[len(films) // 2], films[-1]]
    if films:
        return [_embedded(Path(path).read_bytes(), "gif", Path(path).stem) for path in films]
    if hasattr(env, "num_envs"):
        return ["<p>A compiled environment has no pictures.</p>"]
    shown = []
    with tempfile.TemporaryDirectory() as folder:
        for name, agent in policies.items():
            path = Path(folder) / "film.gif"
            with contextlib.suppress(ValueError, ImportError, gym.error.Error):
                film(agent, env, path, max_steps=200, seed=seed)
                shown.append(_embedded(path.read_bytes(), "gif", name))
    return shown or ["<p>The environment has no pictures, or the extra [video] is missing.</p>"]


def _picture(figure):
    content = io.BytesIO()
    figure.savefig(content, dpi=figures.DPI, format="png")
    return _embedded(content.getvalue(), "png")


def _embedded(content, kind, caption=""):
    text = base64.b64encode(content).decode()
    below = f"<figcaption>{html.escape(caption)}</figcaption>" if caption else ""
    return f'<figure><img alt="{html.escape(caption)}" src="data:image/{kind};base64,{text}">{below}</figure>'
