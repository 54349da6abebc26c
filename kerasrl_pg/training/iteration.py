"""What an iteration does to an agent's weights, whatever collected the rollout."""

from collections.abc import Callable
from typing import Any, NamedTuple

import tensorflow as tf

from kerasrl_pg import ops
from kerasrl_pg.training.optimizers import Annealing
from kerasrl_pg.training.undo import NotFinite, undo_unless_finite


def counter(add_weight, name, shape=(), dtype="int64"):
    """A weight, of zeros, that an agent keeps beside its networks' and no gradient moves; `add_weight` is Keras's."""
    return add_weight(name=name, shape=shape, dtype=dtype, trainable=False, initializer="zeros")


class Counters(NamedTuple):
    """Where an agent stands; Keras variables, saved with its weights.

    Args:
        random_state: int32[2], its seed and how many more it has drawn.
        iterations, env_steps: int64, of its whole life.
        progress: int64[2], both, of its present fit.
    """

    random_state: Any
    iterations: Any
    env_steps: Any
    progress: Any

    @classmethod
    def weights(cls, add_weight, seed):
        """Those of a new agent, made by its `add_weight`, so that every checkpoint holds them."""
        random_state = counter(add_weight, "random_state", (2,), "int32")
        random_state.assign([seed, 0])
        names = {"iterations": (), "env_steps": (), "progress": (2,)}
        return cls(random_state, *(counter(add_weight, name, shape) for name, shape in names.items()))

    def add(self, steps):
        """Counts an iteration of so many environment steps, int64."""
        self.iterations.assign_add(1)
        self.env_steps.assign_add(steps)
        self.progress.assign_add(tf.stack([1, steps]))

    def waste(self, steps):
        """Counts environment steps that were played for nothing."""
        self.env_steps.assign_add(steps)
        self.progress.assign_add([0, steps])

    def numbers(self):
        """int64[4]: iterations, environment steps, and those of the present fit."""
        return tf.concat([[self.iterations.value, self.env_steps.value], self.progress.value], 0)


class Iteration(NamedTuple):
    """One iteration's update, on any kind of environment.

    Args:
        train_step: The method: a function from a `Rollout` of tensors to a dictionary of scalar logs.
        learn_rewards: Function from the `Rollout`, called before it: what scales rewards learns them.
        networks: The `ActorCritic`.
        coefficients: Function that gives the present values of what follows a schedule, a dictionary of scalars.
        set_noise: Function that sets what the next rollout is played with and no update trains.
        annealing: The `Annealing` of the learning rates.
        counters: `Counters`.
        variables: `tf.Variable`s, all that an iteration may change.
    """

    train_step: Callable
    learn_rewards: Callable
    networks: Any
    coefficients: Callable
    set_noise: Callable
    annealing: Annealing
    counters: Counters
    variables: list

    def learn(self, rollout, steps_taken, annealing):
        """Learns from a rollout.

        Args:
            rollout: A `Rollout` of tensors.
            steps_taken: int64, environment steps of the rollout.
            annealing: int64[2], from `Budget.annealing`.

        Returns:
            The method's logs, and what followed a schedule in this update: coefficients, `learning_rate`.
        """
        followed = self.coefficients()
        with self.annealing.annealed(self.counters.progress.value, annealing) as rate:
            self.learn_rewards(rollout)
            logs = self.train_step(rollout)
        # After the update, so that the rollout's log-probabilities stay those of the policy that collected it.
        self.networks.update_normalizers(ops.flatten_time(rollout.inputs), tf.reshape(rollout.valid, [-1]))
        self.counters.add(steps_taken)
        self.set_noise()
        return {name: tf.cast(value, tf.float32) for name, value in {**followed, **logs, **rate}.items()}

    def undone_unless_finite(self, attempt):
        """`undo_unless_finite` of all that an iteration may change."""
        return undo_unless_finite(attempt, self.variables)

    def called(self, variable):
        """A variable's name, and whose it is."""
        models = {"policy": self.networks.policy, "critic": self.networks.critic}
        owners = [n for n, model in models.items() if model and any(v.value is variable for v in model.variables)]
        return f"`{variable.name.removesuffix(':0')}`{''.join(f' of the {owner}' for owner in owners[:1])}"

    def search(self, play, members, annealing):
        """Plays a population, and improves on it; for a method without gradients.

        Args:
            play: Function from the members' weights [P, D] to what became of them, `Played`.
            members: The `Members`.
            annealing: int64[2], from `Budget.annealing`.

        Returns:
            `(logs, played)`: the method's logs and what followed a schedule, and the `Played`.
        """
        followed, populations = self.coefficients(), []

        def once(weights):
            if populations:
                raise ValueError("`play` must be called once in an iteration. Received: a second call.")
            populations.append(play(weights))
            return populations[0].returns

        with self.annealing.annealed(self.counters.progress.value, annealing) as rate:
            logs = self.train_step(once)
        (played,) = populations
        # After it, so that all members were played with one and the same.
        members.learn(played.moments)
        self.counters.add(played.steps)
        self.set_noise()
        returns = {"mean_return": tf.reduce_mean(played.returns), "best_return": tf.reduce_max(played.returns)}
        return {name: tf.cast(x, tf.float32) for name, x in {**followed, **logs, **returns, **rate}.items()}, played

    def receive(self, gradients, merge, steps_taken, annealing):
        """Steps along gradients that somebody else has computed.

        Args:
            gradients: What `train_step` takes here: lists of tensors, by the parts that optimizers move.
            merge: Function that merges what they have seen into the statistics.
            steps_taken: int64, environment steps behind them.
            annealing: int64[2], from `Budget.annealing`.

        Returns:
            What followed a schedule, float32 scalars by name.
        """
        followed = self.coefficients()
        with self.annealing.annealed(self.counters.progress.value, annealing) as rate:
            self.train_step(gradients)
        merge()
        self.counters.add(steps_taken)
        self.set_noise()
        return {name: tf.cast(value, tf.float32) for name, value in {**followed, **rate}.items()}

    def not_finite(self, bad, names, largest):
        """The error of an update that was undone because of its `bad`-th tensor.

        Args:
            bad: From `undo_unless_finite`, whose witnesses were the logs.
            names: Of the logs.
            largest: The largest |reward| of what it learned from.
        """
        floats = [v for v in self.variables if v.dtype.is_floating]
        before = next((variable for variable in floats if not ops.all_finite(variable)), None)
        if before is not None:  # What was there before the update is there again.
            return NotFinite(
                f"{self.called(before)} must be finite. Received: a weight that was NaN or infinite before this "
                "update. Load good weights, or make a new agent."
            )
        what = f"`{names[bad - 1]}`" if bad <= len(names) else self.called(floats[bad - 1 - len(names)])
        return NotFinite(
            f"{what} must be finite after an update. Received: NaN or infinity in iteration "
            f"{self.counters.iterations.numpy() + 1}, whose largest |reward| is {float(largest):g}. The update was "
            "undone: the agent keeps the weights of its last finished update. Lower the learning rate, clip gradients "
            "(global_clipnorm), or scale rewards and observations."
        )


def largest_reward(rollout):
    """The largest |reward| of a `Rollout`."""
    return tf.reduce_max(tf.abs(tf.where(rollout.valid, rollout.rewards, 0.0)))
