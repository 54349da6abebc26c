"""The verbs of a policy: bind it to an environment, act, evaluate, predict."""

import contextlib

import keras
import numpy as np
import tensorflow as tf

from kerasrl_pg.checks import check_whole, knows_its_arguments, refuse_unknown
from kerasrl_pg.envs.spaces import ObservationSpec, check_same_space
from kerasrl_pg.envs.vector import name_of
from kerasrl_pg.models.adopt import adopt
from kerasrl_pg.rollouts.evaluate import check_policy, evaluate_policy, opened_to_evaluate
from kerasrl_pg.rollouts.records import Inputs
from kerasrl_pg.saving.saved import Saved
from kerasrl_pg.serving.card import digest
from kerasrl_pg.training import mirrored, refusals
from kerasrl_pg.training.actors import Actors


class Acting(Actors, refusals.Refusals, Saved):
    """An agent's policy in use: `bind`, `act`, `evaluate`, `predict`."""

    def bind(self, observation_space, action_space, argument="env"):
        """Builds the networks for these spaces, or checks that they are the ones the agent was built for.

        `fit` calls it; call it yourself to look at the networks before training.

        Args:
            observation_space, action_space: Of one environment, gymnasium spaces.
            argument: The caller's name for the environment, for error sentences.

        Raises:
            ValueError: If the spaces differ from the agent's, have no network or head, or do not fit the given policy.

        >>> import gymnasium as gym
        >>> import kerasrl_pg as pg
        >>> agent = pg.PPO(seed=0)
        >>> agent.bind(gym.spaces.Box(-1, 1, (3,)), gym.spaces.Discrete(2))
        >>> agent.act([0.1, 0.2, 0.3]) in (0, 1)
        True
        """
        if self.actor_critic is not None:
            check_same_space(argument, self.actor_critic.observation_space, observation_space)
            check_same_space(argument, self.actor_critic.action_space, action_space, bounds=True)
            return
        mirrored.check_outside(self._rooms.strategy, "bind")
        policy, critic = given = self.policy, self.critic
        spec = ObservationSpec(observation_space)
        if policy is None:
            with mirrored.scope(self._rooms.strategy):
                policy, critic = self._networks.build(observation_space, action_space, self.seed)
        mirrored.check_networks(self._rooms.strategy, filter(None, given))
        self._rooms.actor_critic = networks = adopt(
            policy, critic, spec, action_space, self.needs_critic, self.action_masks
        )
        self._take_networks(networks.policy, networks.critic, networks.shared)
        try:
            self.check_settings()
            self._build_optimizers()
            self.build_state()
        except Exception:  # Or the next call would take the agent for built, and check nothing.
            self._take_networks(*given)
            self._rooms.actor_critic = None
            raise
        self.built = True
        for model in (self.policy, self.critic, self.shared_model):
            if isinstance(model, keras.Model):
                model.predict = refusals.predict_of_a_network

    def build_state(self):
        """Adds the weights that a method keeps beside the networks', once these are there."""

    def _take_networks(self, policy, critic, shared=None):
        constructed, self._constructed = vars(self).get("_constructed", False), False
        self.policy, self.critic, self.shared_model = policy, critic, shared
        self._constructed = constructed

    @property
    def actor_critic(self):
        """Policy, critic, heads and spaces as one `ActorCritic`; None before the agent is built."""
        return self._rooms.actor_critic

    @property
    def network_variables(self):
        """Trainable variables of policy and critic, each once."""
        return self.actor_critic.variables

    @property
    def head(self):
        """The policy's head; None before the agent is built."""
        return self.actor_critic and self.actor_critic.head

    @property
    def critic_head(self):
        """The critic's head; None without critic or before the agent is built."""
        return self.actor_critic and self.actor_critic.critic_head

    @property
    def observation_spec(self):
        """The `ObservationSpec` of the environment the agent was built for; None before."""
        return self.actor_critic and self.actor_critic.spec

    @property
    def spaces(self):
        """`(observation_space, action_space)` the agent was built for; None in it before."""
        networks = self.actor_critic
        return (None, None) if networks is None else (networks.observation_space, networks.action_space)

    def forget_episodes(self):
        """Lets the next fit on a compiled environment start with new episodes."""
        self._rooms.episodes.kept = None

    def take_episodes(self, other):
        """Lets the next fit on a compiled environment go on with another agent's episodes, if it has some."""
        self._rooms.episodes.kept = other._rooms.episodes.kept

    def call(self, observations):
        """The policy's distribution for observations [B, ...], over what they allow where they hold masks."""
        if self.actor_critic is None:
            return self.policy(observations)
        return self.actor_critic.distribution(self.actor_critic.inputs(observations))

    def evaluate(
        self,
        env=None,
        episodes=100,
        deterministic=True,
        seed=None,
        num_envs=None,
        max_steps=200_000,
        *,
        x=None,
        callbacks=None,
        **kwargs,
    ):
        """Plays whole episodes with the policy as it stands; nothing learns and no statistics move.

        Each environment plays the same number of episodes (the first ones one more where they do not divide), since
        counting the first to finish would favour short episodes.

        Args:
            env: As for `fit`; a vector environment is reset.
            episodes: How many, at least 1. 100, as gymnasium's registry counts a task solved.
            deterministic: The mode of the policy, else samples.
            seed: Of environments and samples; None derives it from the agent's seed, without moving its random state.
            num_envs: Environments side by side where they are made here; min(episodes, 8): ours, more rarely pays in
                one process.
            max_steps: Steps that an episode may take, at least 1, or None for any number. Where one takes more, its
                return is unknown: all of them are given as NaN, with a warning. 200,000: ours, above the 108,000
                frames of an Atari game, the longest usual limit, and some seconds where steps are cheap.
            x, callbacks, kwargs: Keras's own, used when `fit` validates.

        Returns:
            A dictionary: `return`, `return_std`, `return_min`, `return_max` (raw reward, undiscounted), `length`
            (steps), `episodes`, `deterministic` (1.0 or 0.0).

        Raises:
            ValueError: If the agent is not built, the environment does not fit, or an observation, a reward or what
                the policy makes of it is not finite.
            RuntimeError: If the environment raises.
        """
        validation = self._rooms.fit and self._rooms.fit.validation
        if x is not None and validation is not None:  # Keras asks, in `fit`.
            callbacks.on_test_begin()
            logs = self._evaluate(validation.env, validation.episodes, deterministic, None, validation.max_steps)
            callbacks.on_test_end(logs)
            return logs
        unknown = {**kwargs, **({} if x is None else {"x": x}), **({} if callbacks is None else {"callbacks": 0})}
        known = ["env", "episodes", "deterministic", "seed", "num_envs", "max_steps"]
        refuse_unknown("evaluate", known, unknown, {"n_envs": "It is `num_envs`."})
        check_whole("episodes", episodes)
        check_whole("seed", seed, at_least=0, at_most=2**31 - 1, optional=True)
        check_whole("max_steps", max_steps, optional=True)
        self._assert_built("evaluate")
        with opened_to_evaluate(env, num_envs, episodes) as vector_env:
            self.bind(vector_env.single_observation_space, vector_env.single_action_space)
            result = self._evaluate(vector_env, episodes, deterministic, seed, max_steps)
        played = {"environment": name_of(env), "seed": self.seed + 1 if seed is None else seed}
        self._rooms.evaluated = digest(self.policy.variables), {**result, **played}
        return result

    def _evaluate(self, vector_env, episodes, deterministic, seed, max_steps):
        seed = self.seed + 1 if seed is None else seed
        actor = self._actor_for(vector_env.num_envs, deterministic)
        return evaluate_policy(self.actor_critic, actor, vector_env, episodes, deterministic, seed, max_steps)

    @knows_its_arguments
    def act(self, observations, deterministic=True, seed=None, action_mask=None, state=None):
        """The action(s) the environment accepts, for one observation or a batch.

        A policy with memory gives its state, too, for the next step of the same episode.

        Args:
            observations: One observation of the environment's space, or a batch of them.
            deterministic: The mode, else a sample.
            seed: Of the sample; None takes the agent's random state, and moves it.
            action_mask: What is allowed, as the environment's `info["action_mask"]`, for one or for a batch; needed
                where the agent was trained with such.
            state: Of a policy with memory: what the last call gave, float32 [size] or [B, size]; None where episodes
                begin.

        Returns:
            One action, or a batch, as NumPy; of a policy with memory, `(action, state)`.

        Raises:
            ValueError: If the agent is not built, an observation is none of its space or not finite, the state is not
                the policy's, or what the policy makes of them is not finite.

        >>> import gymnasium as gym
        >>> import kerasrl_pg as pg
        >>> agent = pg.PPO(networks=pg.Networks(memory=pg.models.GRU(8)), seed=0)
        >>> agent.bind(gym.spaces.Box(-1, 1, (3,)), gym.spaces.Discrete(2))
        >>> action, state = agent.act([0.1, 0.2, 0.3])
        >>> action, state = agent.act([0.2, 0.2, 0.3], state=state)
        """
        self._assert_built("act")
        spec = self.observation_spec
        size = spec.batch_size(observations, _given)
        batched = size is not None
        flat = spec.read(observations if batched else [observations], size if batched else 1, _given, rows=not batched)
        spec.check_finite(flat, _given)
        seed = (self.next_seed() if seed is None else tf.constant([int(seed), 0])) if not deterministic else None
        starts, memory = self._recalled(size, state)
        log_probs, env_actions, memory = self._act(
            flat, size, seed, self._allowed(flat, size, action_mask), starts, memory
        )
        check_policy(log_probs, env_actions, _given)
        answer = env_actions if isinstance(memory, tuple) else (env_actions, memory)
        return answer if batched else tf.nest.map_structure(lambda x: x[0], answer)

    def _recalled(self, size, state):
        """`(starts, memory)` of `act`, of the policy alone; `()` of both without memory."""
        remembered, rows = self.actor_critic.policy_memory_size, size or 1
        if state is not None:
            state = np.asarray(state, np.float32)
            wanted = (remembered,) if size is None else (size, remembered)
            if not remembered or state.shape != wanted:
                wanted = f"of shape {wanted}" if remembered else "None for a policy without memory"
                raise ValueError(f"`state` must be {wanted}. Received: one of shape {state.shape}.")
        if not remembered:
            return (), ()
        memory = np.zeros((rows, remembered), np.float32) if state is None else state.reshape(rows, remembered)
        return np.full(rows, state is None), memory

    def _allowed(self, observations, size, action_mask):
        """The masks of `act`, bool [B, ...], or None."""
        networks = self.actor_critic
        if action_mask is None and self.action_masks == "info":
            raise ValueError(
                "`action_mask` must be given, since the agent was trained with info['action_mask']. Received: None. "
                "Pass the environment's, or ones."
            )
        if networks.mask_key is not None:
            masks = networks.inputs(observations).masks
        elif action_mask is None:
            return None
        else:
            masks = networks.head.read_mask(action_mask).reshape(size or 1, *networks.head.mask_shape)
        nothing = networks.head.all_masked(masks)
        if nothing.any():
            raise ValueError(f"`action_mask` must allow something. Received: none {_given(int(nothing.argmax()))}.")
        return masks

    def _act(self, observations, size, seed, masks, starts, memory):
        """`(log_probs, env_actions, memory)` of a batch of observations, or of a single one where `size` is None."""
        if size is None:  # The one size that is asked for again and again, and worth a program of its own.
            actor = self.actor(1, seed is None, masks is not None)
            actor.sync()
            actor.memory = memory
            with contextlib.suppress(ValueError):  # Of what is not finite, which is said below in words of `act`.
                noise = seed if seed is None else self.noise_program((1,))(seed).numpy()
                return *actor(observations, noise, masks, None if actor.memory_size == 0 else starts)[1:], actor.memory
        inputs = Inputs(observations, () if masks is None else masks, starts, memory)
        distribution, memory = self.actor_critic.step(tf.nest.map_structure(tf.constant, inputs))
        if seed is None:
            actions = distribution.mode()
        else:
            actions = self.head.sample(distribution, self.head.noise(seed, (size or 1,)))
        env_actions = tf.nest.map_structure(lambda x: x.numpy(), self.head.to_env(actions))
        log_probs = tf.cast(distribution.log_prob(actions), tf.float32).numpy()
        return log_probs, env_actions, tf.nest.map_structure(lambda x: x.numpy(), memory)

    def predict_step(self, data):
        """Keras's hook: the deterministic actions for a batch of observations."""
        observations, _, _ = keras.utils.unpack_x_y_sample_weight(data)
        return self.head.to_env(self.call(observations).mode())

    def predict(self, x, *args, **kwargs):
        """Keras's `predict`: the deterministic actions for a batch of observations; see `act`.

        Raises:
            ValueError: If the agent is not built, `x` is one observation, or masks or memory would have to come
                beside it.
        """
        self._assert_built("predict")
        if self.actor_critic.policy_memory_size:
            raise ValueError(
                "`predict` must be of a policy without memory. Received: one that remembers the steps of an episode. "
                "Call `act(x, state=...)`."
            )
        if self.action_masks == "info":
            raise ValueError(
                "`predict` must be of an agent whose observations say what is allowed. Received: one that was trained "
                "with info['action_mask']. Call `act(x, action_mask=...)`."
            )
        is_data = isinstance(x, (tf.data.Dataset, keras.utils.PyDataset)) or hasattr(x, "__next__")
        if not is_data and not self._is_batch(x):
            raise ValueError(
                "`x` must be a batch of observations. Received: a single one. Call `act`, which takes one or a batch."
            )
        return super().predict(x, *args, **kwargs)

    def _is_batch(self, observations):
        try:
            return self.observation_spec.batch_size(observations, _given) is not None
        except (KeyError, TypeError, IndexError):  # Not nested as the space, but as Keras's model takes it.
            return True

    def _assert_built(self, what):
        if self.actor_critic is None:
            raise ValueError(
                f"The agent must be built before `{what}`. Received: an agent that has not seen an environment. "
                "Call `fit(env)`, load a saved agent, or call `bind(observation_space, action_space)`."
            )


def _given(row):
    """Where what `act` got comes from, for sentences."""
    return f"for observation {row or 0} of `act`"
