"""A served policy in the loop: episodes whose actions come from a server."""

import gymnasium as gym
import numpy as np

from kerasrl_pg.checks import check_whole
from kerasrl_pg.envs.spaces import ObservationSpec
from kerasrl_pg.heads import default_head
from kerasrl_pg.heads.composite import action_name
from kerasrl_pg.rollouts.evaluate import opened_to_evaluate, play_episodes, summary


def play(client, env, episodes=100, deterministic=True, seed=1, num_envs=None, max_steps=200_000):
    """Evaluates a served policy: `Agent.evaluate`, but that each action is asked of the server.

    The same episodes with the same seed give the returns of `Agent.evaluate`, but for rounding, where a continuous
    action's last digits count. With `deterministic=False` they are other draws of the same policy.

    Args:
        client: A `Client`.
        env: As for `Agent.evaluate`.
        episodes: How many, at least 1.
        deterministic: The policy's mode, from the endpoint `serving_default`, else draws, from `sample`.
        seed: Of environments and draws. 1: what `Agent.evaluate` takes for an agent of seed 0.
        num_envs: Environments side by side, whose observations are one request; min(episodes, 8), as there.
        max_steps: Steps that an episode may take, or None.

    Returns:
        A dictionary, as of `Agent.evaluate`.

    Raises:
        ValueError: If the environment is not of the policy's kind, or what it or the policy gives is not finite.
        ConnectionError, TimeoutError, LookupError, RuntimeError: As of `Client`.
    """
    check_whole("episodes", episodes)
    check_whole("seed", seed, at_least=0, at_most=2**31 - 1)
    check_whole("max_steps", max_steps, optional=True)
    with opened_to_evaluate(env, num_envs, episodes) as vector_env:
        spec = ObservationSpec(vector_env.single_observation_space)
        player = Player(client, spec, vector_env.single_action_space, vector_env.num_envs, deterministic, seed)
        return summary(
            lambda: play_episodes(
                vector_env, spec, player.choose, lambda chunk: None, episodes, seed, max_steps, player.head
            ),
            episodes,
            deterministic,
        )


class Player:
    """A served policy as `play_episodes` wants an actor.

    Args:
        client, deterministic, seed: Of `play`.
        spec: The `ObservationSpec` of the environments.
        action_space: Of one of them.
        num_envs: How many.

    Attributes:
        head: What reads the environments' action masks.
        masked: Whether the policy takes masks.
        memory_size: Numbers that it remembers of one environment.
    """

    def __init__(self, client, spec, action_space, num_envs, deterministic, seed):
        self._client, self._spec, self._action_space = client, spec, action_space
        self._num_envs, self._deterministic, self._seed = num_envs, deterministic, seed
        self.head = default_head(action_space)
        self.masked, self.memory_size = client.takes_masks, client.memory_size
        self._state, self._steps = None, 0

    def choose(self, gives_masks):
        """This one, if the environments give masks where the policy takes them, and only there."""
        if gives_masks != self.masked:
            wanted = "give" if self.masked else "not give"
            raise ValueError(
                f"`env` must {wanted} action masks, as the served policy was trained. Received: an environment that "
                f"does{'' if gives_masks else ' not'}."
            )
        return self

    def sync(self, place):
        """Nothing: the server has the weights."""

    def __call__(self, observations, noise, masks, starts):
        """`(None, zeros, env_actions)` of N observations, as an `Actor`."""
        given = observations if self._spec.single else dict(observations)
        keywords = {"deterministic": self._deterministic, "action_mask": masks if self.masked else None}
        if not self._deterministic:
            keywords["seed"] = (self._seed, self._steps)
        if self.memory_size:
            keywords["state"] = self._remembered(starts)
        answer = self._client.act(given, **keywords)
        if self.memory_size:
            answer, self._state = answer
        self._steps += 1
        return None, np.zeros(self._num_envs, np.float32), _nested(self._action_space, answer)

    def _remembered(self, starts):
        beginning = self._client.initial_state(self._num_envs)
        return beginning if self._state is None else np.where(starts[:, None], beginning, self._state)


def _nested(space, actions, path=()):
    """Actions as the space nests them, of what a served policy gives."""
    if not isinstance(actions, dict):
        if not isinstance(space, (gym.spaces.Dict, gym.spaces.Tuple)):
            return actions
        actions = {"action": actions}  # A nested action of one part, by that name.
    if isinstance(space, gym.spaces.Dict):
        return {key: _nested(part, actions, (*path, key)) for key, part in space.spaces.items()}
    if isinstance(space, gym.spaces.Tuple):
        return tuple(_nested(part, actions, (*path, number)) for number, part in enumerate(space.spaces))
    return actions[action_name(path)]
