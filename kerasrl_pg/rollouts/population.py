"""Playing a population: many members, each with weights of its own for one policy, side by side.

P members play in N environments. Where N is k P, each plays in k of them at once; where P is r N, they play in r rounds
of N. Column c of round r belongs to member (r N + c) // k.
"""

import dataclasses
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from kerasrl_pg import ops
from kerasrl_pg.envs.compiled import Running, advance, begin
from kerasrl_pg.envs.vector import Stepper
from kerasrl_pg.models.normalization import normalizer_inputs, normalizers
from kerasrl_pg.rollouts.collect import allowed, not_finite, nothing_allowed
from kerasrl_pg.rollouts.compiled import masks_of, within
from kerasrl_pg.rollouts.evaluate import check_policy
from kerasrl_pg.rollouts.records import Inputs

PLACE = "population"  # Where what is not finite was found.
FEWER = 4  # Ours: where a quarter of the members is left to play, they go on alone.


class Played(NamedTuple):
    """What became of a population; all tensors.

    Args:
        returns: float32 [P], Σ γ^t r_t of each member, the mean over its episodes, those that were cut off included.
        steps: int64, environment steps of all episodes.
        episode_returns: float32 [..., E], the raw undiscounted returns of finished episodes, E of an environment.
        lengths: int32 [..., E], their steps; 0 where an episode did not finish.
        moments: For each normaliser of the policy, mean, variance and count of what it was given; float64.
        fault: int32 [3], environment, step and kind, counted from 1, of the first fault; 0 where there is none.
        largest: float32, the largest |reward|.
    """

    returns: Any
    steps: Any
    episode_returns: Any
    lengths: Any
    moments: Any
    fault: Any
    largest: Any


@dataclasses.dataclass(frozen=True, eq=False)
class Members:
    """One policy with the weights of many members at once.

    Args:
        networks: The `ActorCritic`, whose policy is played.
        deterministic: Whether members take the mode of their distribution, else a sample.
    """

    networks: Any
    deterministic: bool

    def split(self, weights):
        """Weights float32 [M, D] as the policy's trainable variables are: a list of tensors [M, ...]."""
        variables = self.networks.policy_variables
        parts = tf.split(weights, [int(np.prod(v.shape)) for v in variables], axis=1)
        stacked = []
        for part, variable in zip(parts, variables, strict=True):
            part = tf.cast(tf.reshape(part, [weights.shape[0], *variable.shape]), variable.dtype)
            constraint = getattr(variable, "constraint", None)
            stacked.append(part if constraint is None else tf.vectorized_map(constraint, part))
        return stacked

    def act(self, weights, inputs, noise):
        """What M members do.

        Args:
            weights: From `split`.
            inputs: `Inputs` [N, ...]; the first N / M rows are the first member's, and so on.
            noise: [N, ...] for the head; `()` where deterministic.

        Returns:
            `(env_actions, log_probs, memory)`, each [N, ...].
        """
        networks, head = self.networks, self.networks.head
        fixed = [variable.value for variable in networks.policy.non_trainable_variables]

        def one(arguments):
            values, inputs, noise = arguments
            distribution, memory = networks.recalling(
                lambda x: networks.policy.stateless_call(values, fixed, x)[0], inputs
            )
            distribution = networks.masked(distribution, inputs)
            actions = distribution.mode() if self.deterministic else head.sample(distribution, noise)
            return head.to_env(actions), tf.cast(distribution.log_prob(actions), tf.float32), memory

        count = weights[0].shape[0]
        rows = tf.nest.map_structure(lambda x: tf.reshape(x, [count, -1, *x.shape[1:]]), (inputs, noise))
        outputs = tf.vectorized_map(one, (weights, *rows))
        size = tf.nest.flatten(inputs)[0].shape[0]
        return tf.nest.map_structure(lambda x: tf.reshape(x, [size, *x.shape[2:]]), outputs)

    def no_moments(self):
        """Those of nothing, for each call of a normaliser."""
        zeros = self.networks.spec.zeros(1)
        return [
            (tf.zeros_like(layer.mean.value), tf.zeros_like(layer.mean.value), tf.zeros((), tf.float64))
            for layer, _ in self._given(zeros)
        ]

    def add_moments(self, moments, observations, valid):
        """The moments with those of observations [N, ...] more, but for the rows that are not `valid` [N]."""
        batches = [ops.masked_moments(tf.cast(given, tf.float64), valid) for _, given in self._given(observations)]
        return [ops.merge_moments(*old, *batch) for old, batch in zip(moments, batches, strict=True)]

    def learn(self, moments):
        """Merges moments into the policy's normalisers."""
        for (layer, _), batch in zip(self._given(self.networks.spec.zeros(1)), moments, strict=True):
            layer.merge_moments(*batch)

    def _given(self, observations):
        policy = self.networks.policy
        return normalizer_inputs(policy, observations) if normalizers(policy) else []


class Playing(NamedTuple):
    """What goes on from one step of a round to the next, of each environment: tensors [N, ...].

    Args:
        running: `Running` environments.
        memory: float32 [N, M], what members remember; `()` where they do not.
        left: int32, episodes that are still to be played.
        discount: float32, γ^t of the present step of the episode.
        raw: float32, raw return of the present episode so far.
        total: float32, Σ γ^t r_t over all episodes so far.
        episode_returns, lengths: [N, E], of finished episodes, as in `Played`.
        steps: int32, steps so far.
        fault: int32 [N, 2], step and kind, counted from 1, of the first fault.
        largest: float32, largest |reward|.
    """

    running: Running
    memory: Any
    left: Any
    discount: Any
    raw: Any
    total: Any
    episode_returns: Any
    lengths: Any
    steps: Any
    fault: Any
    largest: Any


def numbered(seed, number, streams):
    """Seeds int32[2] of a round's random draws, below zero, where the agent's own counter never is.

    Args:
        seed: int32.
        number: int32, of the round in the agent's life.
        streams: How many.
    """
    return [tf.stack([seed, -1 - streams * number - stream]) for stream in range(streams)]


class _RoundNoise(NamedTuple):
    """The random numbers of a round: of actions [T, N, ...], steps [T, N, ...] and resets [N, E, ...]; and whose the
    rows of what is played are, or None for all of them."""

    actions: Any
    steps: Any
    resets: Any
    rows: Any = None

    def of(self, rows):
        """Those of some of the environments."""
        rows = rows if self.rows is None else tf.gather(self.rows, rows)
        return self._replace(rows=rows)

    def at(self, t):
        """Those of step t, and of resets."""
        parts = () if isinstance(self.actions, tuple) else self.actions[t], self.steps[t], self.resets
        if self.rows is None:
            return parts
        return tf.nest.map_structure(lambda x: tf.gather(x, self.rows), parts)


@dataclasses.dataclass(frozen=True, eq=False)
class CompiledPlay:
    """Plays populations on a compiled environment; a TensorFlow function, to be traced into a program.

    Args:
        env: A `CompiledEnv`.
        members: `Members`.
        horizon: T, the most steps that an environment's episodes may take together.
        episodes: E, episodes of each environment.
        gamma: γ.
    """

    env: Any
    members: Members
    horizon: int
    episodes: int
    gamma: float

    def __call__(self, weights, seed, number):
        """Plays a population.

        Args:
            weights: float32 [P, D].
            seed: int32, of environments and samples.
            number: int, of the population, which numbers its random draws.

        Returns:
            `Played`.
        """
        size, n, number = weights.shape[0], self.env.num_envs, tf.cast(number, tf.int32)
        if n >= size:
            return self._round(weights, seed, number)
        rounds = size // n
        weights = tf.reshape(weights, [rounds, n, -1])
        like = tf.nest.map_structure(tf.TensorSpec.from_tensor, self._nothing(n))
        return merged(
            tf.map_fn(
                lambda each: self._round(each[0], seed, each[1]),
                (weights, number * rounds + tf.range(rounds)),
                fn_output_signature=like,
            )
        )

    def _nothing(self, members):
        """What a round of so many members gives, of zeros."""
        zeros = tf.zeros((self.env.num_envs, self.episodes))
        lengths, moments = tf.cast(zeros, tf.int32), self.members.no_moments()
        return Played(
            tf.zeros(members), tf.zeros((), tf.int64), zeros, lengths, moments, tf.zeros(3, tf.int32), tf.zeros(())
        )

    def _round(self, weights, seed, number):
        """Plays members of `weights` [M, D], all at once."""
        env, n, members, networks = self.env, self.env.num_envs, self.members, self.members.networks
        seeds = numbered(seed, number, 3)
        noise = _RoundNoise(
            () if members.deterministic else networks.head.noise(seeds[0], (self.horizon, n)),
            ops.random.uniform(seeds[1], (self.horizon, n, env.step_noise)),
            ops.random.uniform(seeds[2], (n, self.episodes, env.reset_noise)),
        )
        zeros, ints, memory = tf.zeros(n), tf.zeros(n, tf.int32), networks.policy_memory_size
        playing = Playing(
            running=begin(env, noise.resets[:, 0]),
            memory=tf.zeros((n, memory)) if memory else (),
            left=ints + self.episodes,
            discount=zeros + 1.0,
            raw=zeros,
            total=zeros,
            episode_returns=tf.zeros((n, self.episodes)),
            lengths=tf.zeros((n, self.episodes), tf.int32),
            steps=ints,
            fault=tf.zeros((n, 2), tf.int32),
            largest=zeros,
        )
        split = members.split(weights)
        _, playing, moments = self._played_out(tf.constant(0), playing, members.no_moments(), split, noise)
        return self._summed_up(playing, moments, weights.shape[0])

    def _played_out(self, t, playing, moments, weights, noise):
        """Plays from step t on until all members have played; the step, `Playing` and moments then.

        Where few are left to play, they go on by themselves, so that the others' waiting costs little.
        """
        count, n = weights[0].shape[0], playing.left.shape[0]
        few = count // FEWER

        def going(members):
            return tf.reduce_any(tf.reshape(members.left > 0, [count, -1]), 1)

        def cond(t, playing, moments):
            return (t < self.horizon) & (tf.reduce_sum(tf.cast(going(playing), tf.int32)) > few)

        def body(t, playing, moments):
            return t + 1, *self._step(t, playing, moments, weights, noise)

        t, playing, moments = tf.while_loop(cond, body, (t, playing, moments))
        if few == 0:
            return t, playing, moments
        _, chosen = tf.math.top_k(tf.cast(going(playing), tf.int32), few)
        rows = tf.reshape(chosen[:, None] * (n // count) + tf.range(n // count), [-1])
        some = tf.nest.map_structure(lambda x: tf.gather(x, rows), playing)
        theirs = [tf.gather(x, chosen) for x in weights]
        t, some, moments = self._played_out(t, some, moments, theirs, noise.of(rows))
        back = tf.nest.map_structure(lambda x, y: tf.tensor_scatter_nd_update(x, rows[:, None], y), playing, some)
        return t, back, moments

    def _step(self, t, playing, moments, weights, noise):
        """What goes on from step t, and the moments with what was seen in it."""
        n, networks = playing.left.shape[0], self.members.networks
        env = self.env if n == self.env.num_envs else dataclasses.replace(self.env, num_envs=n)
        running, valid = playing.running, playing.left > 0
        starts = () if isinstance(playing.memory, tuple) else running.lengths == 0
        inputs = networks.inputs(
            running.observations, masks_of(env, networks.head, running.state), starts, playing.memory
        )
        actions, steps, resets = noise.at(t)
        env_actions, log_probs, memory = self.members.act(weights, inputs, actions)
        # An environment's e-th episode begins with the e-th row of noise, in whatever step.
        episode = tf.minimum(self.episodes - playing.left, self.episodes - 1)
        fresh = tf.gather(resets, tf.minimum(episode + 1, self.episodes - 1), batch_dims=1)
        following, outcome = advance(env, running, env_actions, steps, fresh)
        rewards, ended = tf.where(valid, outcome.rewards, 0.0), outcome.ended & valid
        raw = playing.raw + rewards
        place = (tf.range(self.episodes) == episode[:, None]) & ended[:, None]
        kind = tf.where(valid & (playing.fault[:, 1] == 0), self._faults(env, inputs, log_probs, outcome), 0)
        fault = tf.where((kind > 0)[:, None], tf.stack([tf.fill([n], t + 1), kind], -1), playing.fault)
        return Playing(
            running=following,
            memory=memory,
            left=playing.left - tf.cast(ended, tf.int32),
            discount=tf.where(outcome.ended, 1.0, playing.discount * self.gamma),
            raw=tf.where(outcome.ended, 0.0, raw),
            total=playing.total + playing.discount * rewards,
            episode_returns=tf.where(place, raw[:, None], playing.episode_returns),
            lengths=tf.where(place, running.lengths[:, None] + 1, playing.lengths),
            steps=playing.steps + tf.cast(valid, tf.int32),
            fault=fault,
            largest=tf.maximum(playing.largest, tf.abs(rewards)),
        ), self.members.add_moments(moments, inputs.observations, valid)

    def _faults(self, env, inputs, log_probs, outcome):
        """int32 [N], the kind of fault in a step, counted from 1, or 0."""
        n = env.num_envs
        seen = within(env, tf.nest.map_structure(lambda x: x[None], inputs.observations))
        for leaf in tf.nest.flatten(inputs.observations):
            if leaf.dtype.is_floating:
                seen &= tf.reduce_all(tf.math.is_finite(tf.reshape(leaf, [n, -1])), 1)
        nothing = () if isinstance(inputs.masks, tuple) else self.members.networks.head.all_masked(inputs.masks)
        faults = ~seen, nothing, tf.math.is_nan(log_probs), ~tf.math.is_finite(outcome.rewards)
        kind = tf.zeros(n, tf.int32)
        for number, fault in reversed([*enumerate(faults, 1)]):
            kind = kind if isinstance(fault, tuple) else tf.where(fault, number, kind)
        return kind

    def _summed_up(self, playing, moments, members):
        cut = (playing.left > 0) & (playing.running.lengths > 0)
        trajectories = self.episodes - playing.left + tf.cast(cut, tf.int32)
        totals, trajectories = (
            tf.reduce_sum(tf.reshape(x, [members, -1]), 1) for x in (playing.total, tf.cast(trajectories, tf.float32))
        )
        at = tf.where(playing.fault[:, 1] > 0, playing.fault[:, 0], tf.int32.max)
        first = tf.argmin(at, output_type=tf.int32)  # Where there is none, one whose kind is 0.
        return Played(
            returns=totals / trajectories,
            steps=tf.reduce_sum(tf.cast(playing.steps, tf.int64)),
            episode_returns=playing.episode_returns,
            lengths=playing.lengths,
            moments=moments,
            fault=tf.concat([first[None], playing.fault[first]], 0),
            largest=tf.reduce_max(playing.largest),
        )


def check_fault(fault):
    """Refuses a population in which an environment gave, or a member computed, what no return can be made of.

    Args:
        fault: Of `Played`.

    Raises:
        ValueError: Naming what, and the environment and the step of the first.
    """
    env, step, kind = fault.numpy().tolist()
    if kind == 2:
        raise nothing_allowed(f"from environment {env} in step {step - 1} of a member of the population")
    if kind:
        name = {1: "observations", 3: "log_probs", 4: "rewards"}[kind]
        raise not_finite(name, step - 1, env, place=PLACE)


def merged(played):
    """`Played` of a population from those of its rounds, whose tensors are stacked along a first axis."""
    moments = []
    for mean, variance, count in played.moments:
        one = mean[0], variance[0], count[0]
        for each in range(1, mean.shape[0]):
            one = ops.merge_moments(*one, mean[each], variance[each], count[each])
        moments.append(one)
    first = tf.argmax(played.fault[:, 2] > 0, output_type=tf.int32)
    return Played(
        tf.reshape(played.returns, [-1]),
        tf.reduce_sum(played.steps),
        tf.reshape(played.episode_returns, [-1, played.lengths.shape[-1]]),
        tf.reshape(played.lengths, [-1, played.lengths.shape[-1]]),
        moments,
        played.fault[first],
        tf.reduce_max(played.largest),
    )


class HostPlay:
    """Plays populations on environments in Python.

    Args:
        env: A `VectorEnv` of N environments.
        members: `Members`.
        horizon, episodes, gamma: As of `CompiledPlay`.
        program: Function `(key, make)` giving a compiled program of the agent, as `Programs.get`.
        note_masks: Function that is told whether the environments give action masks.
    """

    def __init__(self, env, members, horizon, episodes, gamma, program, note_masks):
        self._stepper = Stepper(env, members.networks.spec)
        self._members, self._program, self._note_masks = members, program, note_masks
        self._horizon, self._episodes, self._gamma, self._n = horizon, episodes, gamma, env.num_envs

    def __call__(self, weights, seed, number):
        """Plays a population; arguments and `Played` as of `CompiledPlay`, whose `fault` is none here.

        Raises:
            ValueError: If an observation, a reward or what a member makes of it is not finite, or the environment gives
                anything else that it must not (see `Stepper`); the sentence says what and where.
            RuntimeError: If the environment raised.
        """
        rounds = max(1, weights.shape[0] // self._n)
        parts = np.split(weights.numpy(), rounds)
        played = [self._round(part, seed, int(number) * rounds + r) for r, part in enumerate(parts)]
        return merged(tf.nest.map_structure(lambda *x: tf.stack(x), *played))

    def _round(self, weights, seed, number):
        """Plays members of `weights` [M, D], all at once."""
        members, networks, n, horizon = self._members, self._members.networks, self._n, self._horizon
        seeds = numbered(seed, number, 2)
        noise = () if members.deterministic else networks.head.noise(seeds[0], (horizon, n)).numpy()
        # Of each population its own, so that a resumed run meets the same.
        observations = self._stepper.reset(int(ops.random.bits(seeds[1], ())) >> 1)
        masked = networks.mask_key is not None or self._stepper.gives_masks
        self._note_masks(masked)
        split = members.split(tf.constant(weights))
        act = self._program(("act", len(weights), n, masked), lambda: (members.act, []))[0]
        tally = _Tally(n, self._episodes, self._gamma)
        remembered = networks.policy_memory_size
        starts, memory, moments = np.ones(n, bool), np.zeros((n, remembered), np.float32), members.no_moments()

        def where(row):
            return f"from environment {row} in step {tally.rows} of the {PLACE}"

        while tally.rows < horizon and tally.playing.any():
            networks.spec.check_finite(observations, where)
            masks = ()
            if masked:
                masks = allowed(self._stepper, networks.head, networks.mask_key, observations, where)
            draws = () if members.deterministic else noise[tally.steps, np.arange(n)]
            inputs = Inputs(observations, masks, *((starts, memory) if remembered else ((), ())))
            outputs = act(split, *tf.nest.map_structure(tf.constant, (inputs, draws)))
            env_actions, log_probs, memory = tf.nest.map_structure(lambda x: x.numpy(), outputs)
            check_policy(log_probs, env_actions, where)
            step = self._stepper.step(env_actions, tally.playing)
            moments = self._with(moments, observations, tally.add(step))
            observations, starts = step.observations, step.starts
        steps = int(tally.steps.sum()) if self._stepper.waits else tally.stepped
        return tally.played(len(weights), steps, moments)

    def _with(self, moments, observations, valid):
        """The moments with those of what has been seen in valid rows."""
        if not moments:
            return moments
        add = self._program(("moments",), lambda: (self._members.add_moments, []))[0]
        return add(moments, tf.nest.map_structure(tf.constant, observations), tf.constant(valid))


class _Tally:
    """What is counted in a round on environments in Python.

    Args:
        num_envs: N.
        episodes: E, of each environment.
        gamma: γ.

    Attributes:
        rows: Steps of the vector so far.
        steps: [N], those of the environments' episodes that count.
        stepped: Environment steps, those of environments that waited included.
    """

    def __init__(self, num_envs, episodes, gamma):
        self._gamma, self._episodes = gamma, episodes
        self.rows = self.stepped = 0
        self.steps, self._left = np.zeros(num_envs, int), np.full(num_envs, episodes)
        self._raw, self._total, self._discount = np.zeros(num_envs), np.zeros(num_envs), np.ones(num_envs)
        self._length = np.zeros(num_envs, int)
        self._returns, self._lengths = np.zeros((num_envs, episodes)), np.zeros((num_envs, episodes), int)
        self._largest = 0.0

    @property
    def playing(self):
        """bool [N], which environments have episodes left."""
        return self._left > 0

    def add(self, step):
        """Adds a `Step`; bool [N], the rows that count."""
        there = np.ones(len(self._left), bool) if step.valid is None else step.valid
        valid = there & self.playing
        rewards = np.where(valid, step.rewards, 0.0)
        if not (np.abs(rewards) <= np.finfo(np.float32).max).all():
            row = int((~(np.abs(rewards) <= np.finfo(np.float32).max)).argmax())
            raise not_finite("rewards", self.rows, row, rewards[row], PLACE)
        self.rows, self.stepped, self.steps = self.rows + 1, self.stepped + int(there.sum()), self.steps + valid
        self._raw += rewards
        self._total += self._discount * rewards
        self._length += valid
        self._discount = np.where(valid, self._discount * self._gamma, self._discount)
        self._largest = max(self._largest, float(np.abs(rewards).max()))
        for row in np.flatnonzero(step.ended & valid):
            place = self._episodes - self._left[row]
            self._returns[row, place], self._lengths[row, place] = self._raw[row], self._length[row]
            self._raw[row], self._length[row], self._discount[row] = 0.0, 0, 1.0
            self._left[row] -= 1
        return valid

    def played(self, members, steps, moments):
        """`Played`, of so many members and environment steps."""
        trajectories = self._episodes - self._left + (self.playing & (self._length > 0))
        totals, trajectories = (x.reshape(members, -1).sum(1) for x in (self._total, trajectories))
        return Played(
            returns=tf.constant(totals / trajectories, tf.float32),
            steps=tf.constant(steps, tf.int64),
            episode_returns=tf.constant(self._returns, tf.float32),
            lengths=tf.constant(self._lengths, tf.int32),
            moments=moments,
            fault=tf.zeros(3, tf.int32),
            largest=tf.constant(self._largest, tf.float32),
        )
