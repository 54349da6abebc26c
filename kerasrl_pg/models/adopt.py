"""Taking in a policy and a critic, built here or the user's own: what they must be, and their heads."""

import gymnasium as gym
import keras
import numpy as np
import tensorflow as tf

from kerasrl_pg.heads import Head, ValueHead
from kerasrl_pg.heads.head import heads_of
from kerasrl_pg.models.actor_critic import ActorCritic, regularized
from kerasrl_pg.models.architecture import Architecture
from kerasrl_pg.models.normalization import normalizer_inputs, normalizers


def check_networks(policy, critic, networks):
    """Refuses what an agent cannot take for its networks; arguments of `Agent`."""
    for argument, model in {"policy": policy, "critic": critic}.items():
        if model is not None and not isinstance(model, keras.Layer):
            raise TypeError(
                f"`{argument}` must be a Keras model that ends in a head of kerasrl_pg.heads, or None for what "
                f"`networks` says. Received: {argument}={model!r}."
            )
    if networks is not None and not isinstance(networks, Architecture):
        raise TypeError(
            "`networks` must be a kerasrl_pg.Networks, or a policy class of kerasrl_pg.models, such as Tabular(). "
            f"Received: networks={networks!r}."
        )
    if policy is not None and networks is not None:
        raise ValueError(
            "`networks` says what to build where no `policy` is given, so only one of them may be given. "
            f"Received: policy={policy!r}, networks={networks!r}."
        )
    if policy is None and critic is not None:
        raise ValueError(
            "`critic` must come with a `policy` of your own. Received: critic alone. Pass both, or neither."
        )


def adopt(policy, critic, spec, action_space, needs_critic=True, action_masks=None):
    """Checks networks against an environment and finds their heads.

    A policy and a critic that share layers must be one functional model with two outputs, because two separately saved
    models lose the sharing when they are loaded.

    Args:
        policy: Keras model that ends in a `Head`, or a functional model with outputs "policy" and "value".
        critic: Keras model that ends in a `ValueHead`, or None.
        spec: The `ObservationSpec` of the environment.
        action_space: Its action space.
        needs_critic: Whether the method has a critic; where False, a critic is left out.
        action_masks: The leaf of the observations that holds action masks; None for `action_mask`, where that is one;
            "info" for none of them.

    Returns:
        An `ActorCritic`, called once, so that its weights exist.

    Raises:
        ValueError: If a head or a critic is missing, the policy's actions are not of `action_space`, two models share
            layers, a model has losses other than its weights' regularizers, or a `RunningNormalization` stands where
            it could not learn.
    """
    shared = None
    if isinstance(getattr(policy, "output", None), dict):
        shared, (policy, critic) = policy, _parted(policy, critic)
    if not needs_critic:
        critic = None
    elif critic is None:
        raise ValueError(
            "`critic` must be given with your own `policy`, since this agent needs one. Received: critic=None. "
            "Pass a Keras model that ends in heads.NormalValue(), or a policy with outputs 'policy' and 'value'."
        )
    zeros = spec.zeros(1)
    distribution = policy(zeros)
    head = _find_head(policy, Head, "policy")
    critic_head = None
    if critic is not None:
        critic(zeros)
        critic_head = _find_head(critic, ValueHead, "critic")
        if shared is None:
            _check_apart(policy, critic)
    for argument, model in (("policy", policy), ("critic", critic)):
        if model is not None:
            _check_losses(argument, model)
            _check_normalizers(argument, model, spec)
    head.take_env_dtype(action_space)
    action = _refused_action(head, distribution, action_space)
    if action is not None:
        raise ValueError(
            f"`policy` must give actions of the environment's space {action_space}. "
            f"Received: {action!r} from its head {head!r}. "
            "Take heads.default_head(action_space), or another head made by its from_space(action_space)."
        )
    key = _mask_key(head, spec, action_masks)
    return ActorCritic(policy, critic, shared, head, critic_head, spec, spec.space, action_space, key)


def _parted(shared, critic):
    """Policy and critic of a model with two outputs; `critic` is what was given beside it, which must be None."""
    if critic is not None or set(shared.output) != {"policy", "value"}:
        raise ValueError(
            "A `policy` with several outputs must name them 'policy' and 'value', and comes without a `critic`. "
            f"Received: outputs {sorted(shared.output)}, critic={critic!r}."
        )
    return (
        keras.Model(shared.input, shared.output["policy"], name="policy"),
        keras.Model(shared.input, shared.output["value"], name="critic"),
    )


def _mask_key(head, spec, asked):
    """The leaf of the observations that is an action mask of this head, or None."""
    if asked == "info":
        if head.mask_shape is None:
            raise ValueError(f"`action_masks` must be None for a head without masks. Received: 'info', head {head!r}.")
        return None
    key = "action_mask" if asked is None else asked
    size = None if head.mask_shape is None else int(np.prod(head.mask_shape))
    space = None if spec.single else spec.leaves.get(key)
    if (
        space is not None
        and int(np.prod(space.shape)) == size
        and (
            isinstance(space, gym.spaces.MultiBinary)
            or (isinstance(space, gym.spaces.Box) and space.dtype.kind in "biu")
        )
    ):
        return key
    if asked is not None or (space is not None and size is not None):
        raise ValueError(
            "`action_masks` must be 'info', or name a leaf of the observations, a MultiBinary or an integer Box, of as "
            f"many numbers as the head has choices, {size}. Received: action_masks={asked!r}, observation space "
            f"{spec.space}, head {head!r}. "
            + ("" if asked else "Its leaf `action_mask` is none: say action_masks='info' if it is not meant to be.")
        )
    return None


def _check_apart(policy, critic):
    theirs = {id(weight) for weight in critic.weights}
    common = [weight.path for weight in policy.weights if id(weight) in theirs]
    if common:
        raise ValueError(
            "`policy` and `critic` must share no layers as two models, since they would not be saved as one. "
            f"Received: both hold {', '.join(common)}. Pass one functional model with outputs 'policy' and 'value' as "
            "`policy`; of a trained agent, its `shared_model`."
        )


def _check_losses(argument, model):
    others = len(model.losses) - len(regularized(model.trainable_weights))
    if others > 0:
        raise ValueError(
            f"`{argument}` must have no losses of its own but its weights' regularizers, since a method's loss is its "
            f"own. Received: {others} from `activity_regularizer` or `add_loss`, {model!r}."
        )


def _check_normalizers(argument, model, spec):
    layers = normalizers(model)
    if not layers:
        return
    trainable = model.trainable_variables
    with tf.GradientTape(persistent=True) as tape:
        pairs = normalizer_inputs(model, spec.zeros(2))
    for layer in layers:
        name = f"`{argument}`'s RunningNormalization {layer.name!r}"
        if layer.key is not None and (spec.single or layer.key not in spec.leaves):
            leaves = "are one tensor" if spec.single else f"have the leaves {', '.join(spec.leaves)}"
            raise ValueError(
                f"{name} must have a `key` that is None or names a leaf of the observations, which {leaves}. "
                f"Received: key={layer.key!r}. Leave it out: the layer learns what it is given."
            )
        inputs = [x for each, x in pairs if each is layer]
        if not inputs or not all(tf.executing_eagerly() and hasattr(x, "numpy") and x.shape[0] == 2 for x in inputs):
            raise ValueError(
                f"{name} must be called by the model with one row for each observation, outside of `tf.function`, of "
                "loops and of layers that split or join rows, or it could not learn. Received: "
                f"{'inputs of shape ' + str([tuple(x.shape) for x in inputs]) if inputs else 'no call'} for two "
                "observations. Put it behind an input of the model."
            )
        for x in inputs:
            gradients = tape.gradient(x, [v.value for v in trainable])
            moving = [v.path for v, gradient in zip(trainable, gradients, strict=True) if gradient is not None]
            if moving:
                raise ValueError(
                    f"{name} must stand before every trainable layer, since it keeps the moments of all that it was "
                    f"ever given, and what a trained layer gives drifts. Received: behind {', '.join(moving)}. "
                    "Put it behind an input of the model, or a LayerNormalization here."
                )


def _refused_action(head, distribution, space):
    """An action of a policy that is not of the action space, or None."""
    # Too many choices show in samples only; the mode is one choice.
    drawn = head.sample(distribution, head.noise(tf.constant([0, 0]), (256, 1)))
    for raw in (distribution.mode(), tf.nest.map_structure(lambda x: x[:, 0], drawn)):
        batch = tf.nest.map_structure(lambda x: x.numpy(), head.to_env(raw))
        for row in range(len(tf.nest.flatten(batch)[0])):
            action = _as_in(space, batch, row)
            if not space.contains(action):
                return action
    return None


def _as_in(space, batch, row):
    """One action of a batch, as the space has it: gymnasium wants tuples, arrays and scalars each in their place."""
    if isinstance(space, gym.spaces.Dict) and isinstance(batch, dict) and set(batch) == set(space.spaces):
        return {key: _as_in(part, batch[key], row) for key, part in space.spaces.items()}
    if isinstance(space, gym.spaces.Tuple) and isinstance(batch, tuple) and len(batch) == len(space.spaces):
        return tuple(_as_in(part, each, row) for part, each in zip(space.spaces, batch, strict=True))
    if tf.nest.is_nested(batch):
        return tf.nest.map_structure(lambda x: x[row], batch)
    return np.asarray(batch[row]) if isinstance(space, gym.spaces.Box) else batch[row]


def _find_head(model, kind, argument):
    heads = heads_of(model, kind)
    if len(heads) != 1:
        raise ValueError(
            f"`{argument}` must contain exactly one {kind.__name__} of kerasrl_pg.heads, as its last layer. "
            f"Received: {len(heads)} in {model!r}."
        )
    return heads[0]
