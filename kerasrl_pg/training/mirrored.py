"""Several devices: under `tf.distribute.MirroredStrategy` each step down a loss is shared among them."""

import contextlib

import tensorflow as tf

from kerasrl_pg.rollouts.records import take
from kerasrl_pg.training import optimizers


def check_strategy(agent):
    """Refuses a strategy that an agent cannot be made under, by name.

    Args:
        agent: The agent, made under `tf.distribute.get_strategy()`.

    Raises:
        ValueError: If the strategy is none that mirrors, or the method's loss is no mean over rows.
    """
    if not tf.distribute.has_strategy():
        return
    strategy = tf.distribute.get_strategy()
    if not isinstance(strategy, tf.distribute.MirroredStrategy):
        raise ValueError(
            "The strategy of an agent must be tf.distribute.MirroredStrategy, or none. Received: "
            f"{type(strategy).__name__}. For other processes and machines, leave it and give `workers` to `fit`."
        )
    if not agent.loss_is_mean:
        raise ValueError(
            "Under MirroredStrategy an agent must be PPO or A2C, whose loss is a mean over rows, or a method that sets "
            f"`loss_is_mean`. Received: {type(agent).__name__}. Make it outside of the strategy's scope."
        )


def check_under_strategy(strategy, jit_compile, optimizers):
    """Refuses what does not go together with an agent's strategy.

    Raises:
        ValueError: If XLA is asked for, or an optimizer was made outside of the strategy's scope.
    """
    if not is_mirrored(strategy):
        return
    if jit_compile not in ("auto", False):
        raise ValueError(
            "`jit_compile` must be 'auto' or False under MirroredStrategy, since XLA compiles for one device. "
            "Received: jit_compile=True."
        )
    for optimizer in optimizers:
        if not isinstance(optimizer.iterations.value, tf.distribute.DistributedValues):
            raise ValueError(
                "`optimizer` must be made in the scope of the agent's MirroredStrategy, as its weights are. Received: "
                f"{optimizer!r}, made outside. Make it and compile under `with strategy.scope():`."
            )


def is_mirrored(strategy):
    """Whether an agent's weights stand on a strategy's devices; one device is treated like several."""
    return isinstance(strategy, tf.distribute.MirroredStrategy)


def scope(strategy):
    """Where an agent's weights are made: its strategy's scope."""
    return strategy.scope() if is_mirrored(strategy) else contextlib.nullcontext()


def check_networks(strategy, models):
    """Refuses networks that were made outside of the scope of the agent's strategy.

    Raises:
        ValueError: As said.
    """
    for model in models if is_mirrored(strategy) else ():
        if not all(isinstance(v.value, tf.distribute.DistributedValues) for v in model.trainable_variables):
            raise ValueError(
                "`policy` and `critic` must be made in the scope of the agent's MirroredStrategy. Received: "
                f"{model.name!r}, made outside. Make them under `with strategy.scope():`, too."
            )


def check_outside(strategy, verb):
    """Refuses to do what `verb` does inside of the strategy's scope.

    Raises:
        ValueError: As said.
    """
    if is_mirrored(strategy) and tf.distribute.has_strategy():
        raise ValueError(
            f"`{verb}` must be called outside of `with strategy.scope():`, where weights are made and nothing is "
            "computed. Received: a call inside. Make and compile the agent in the scope, and do the rest after it."
        )


def check_divided(strategy, samples):
    """Refuses rows that do not divide among the devices.

    Raises:
        ValueError: As said.
    """
    devices, length = strategy.num_replicas_in_sync, samples.inputs.length
    sequences = samples.valid.shape[0] // length
    if sequences % devices:
        what = "rows" if length == 1 else f"sequences of {length} rows"
        raise ValueError(
            f"Each step of the optimizer must be on a multiple of {devices} {what}, one share for each device of the "
            f"strategy. Received: {sequences}. Change `minibatch_size`, `horizon` or `num_envs`."
        )


def descend(strategy, loss, samples, moves):
    """One step of each move's optimizer down a loss that is a mean over valid rows, each device on its share.

    With V_d valid rows of V on device d, the loss is sum_d (V_d / V) loss_d, and so are its gradient and its logs.
    Gradients are added before the optimizer sees them, so that it clips what it would clip on one device.

    Args:
        strategy: The `MirroredStrategy`.
        loss: Function from `Samples` to `(loss, logs)`; means over valid rows, and what does not depend on them.
        samples: `Samples` [B, ...]; B, or the number of sequences, must be a multiple of the devices.
        moves: A list of moves.

    Returns:
        The logs, with `loss`.

    Raises:
        ValueError: If they are none.
    """
    check_divided(strategy, samples)
    devices, length = strategy.num_replicas_in_sync, samples.inputs.length
    share = samples.valid.shape[0] // length // devices
    everything = tf.reduce_sum(tf.cast(samples.valid, tf.float32))

    def of_one_device():
        device = tf.distribute.get_replica_context().replica_id_in_sync_group
        mine = take(samples, tf.range(share) + device * share, length)
        weight = tf.math.divide_no_nan(tf.reduce_sum(tf.cast(mine.valid, tf.float32)), everything)
        with tf.GradientTape() as tape:
            value, logs = loss(mine)
            part = weight * value
        found = optimizers.gradients(tape, part, moves)
        return found, {"loss": part, **{name: weight * tf.cast(x, tf.float32) for name, x in logs.items()}}

    parts = strategy.run(of_one_device)
    found, logs = tf.nest.map_structure(lambda x: strategy.reduce(tf.distribute.ReduceOp.SUM, x, axis=None), parts)
    for move, mine in zip(moves, found, strict=True):
        optimizers.apply(move, mine)
    return logs
