"""Several heads as one: the policy for Dict and Tuple action spaces, nested to any depth."""

import functools
import math
import operator

import gymnasium
import keras
import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp

from kerasrl_pg.envs.masks import forbid_nothing
from kerasrl_pg.envs.spaces import leaf_name, place
from kerasrl_pg.heads.head import Head, event
from kerasrl_pg.ops import random

tfd = tfp.distributions


class Joint(tfd.AutoCompositeTensorDistribution):
    """Independent parts, by name or by place: an action is a dictionary or a tuple of the parts' actions.

        log p(a) = Σ_k log p_k(a_k),    H(p) = Σ_k H(p_k),    KL(p || q) = Σ_k KL(p_k || q_k)

    Its mode is that of all its parts. A part may be such a distribution again.

    Args:
        parts: Dictionary or tuple of distributions of one batch shape, composite tensors.
    """

    def __init__(self, parts, name="Joint"):
        parameters = dict(locals())
        # As they are, not as wrappers that a tf.Module would make of them.
        self.parts = self._no_dependency(parts)
        super().__init__(
            dtype=self._each(lambda part: part.dtype),
            reparameterization_type=self._each(lambda part: part.reparameterization_type),
            validate_args=False,
            allow_nan_stats=True,
            parameters=parameters,
            name=name,
        )

    @classmethod
    def _parameter_properties(cls, dtype, num_classes=None):
        one_each = tfp.util.BatchedComponentProperties(event_ndims=lambda self: self._each(lambda part: 0))
        return {"parts": one_each}

    def _each(self, function):
        """The nest of what `function` makes of each part."""
        if isinstance(self.parts, dict):
            return {key: function(part) for key, part in self.parts.items()}
        return tuple(function(part) for part in self.parts)

    def _pairs(self, nest):
        """Each part, and what stands in its place in `nest`."""
        places = self.parts if isinstance(self.parts, dict) else range(len(self.parts))
        return [(self.parts[place], nest[place]) for place in places]

    def _batch_shape(self):
        first, *rest = (part.batch_shape for part in tf.nest.flatten(self.parts))
        for shape in rest:
            first = first.merge_with(shape)
        return first

    def _batch_shape_tensor(self):
        return tf.nest.flatten(self.parts)[0].batch_shape_tensor()

    def _event_shape(self):
        return self._each(lambda part: part.event_shape)

    def _event_shape_tensor(self):
        return self._each(lambda part: part.event_shape_tensor())

    def _sample_n(self, n, seed=None):
        seeds = iter(tfp.random.split_seed(seed, n=len(self.parts), salt="Joint"))
        return self._each(lambda part: part.sample(n, seed=next(seeds)))

    def _log_prob(self, actions):
        return tf.add_n([part.log_prob(action) for part, action in self._pairs(actions)])

    def _entropy(self):
        return tf.add_n([part.entropy() for part in tf.nest.flatten(self.parts)])

    def _mode(self):
        return self._each(lambda part: part.mode())


@tfd.RegisterKL(Joint, Joint)
def _kl(p, q, name=None):
    return tf.add_n([part.kl_divergence(other) for part, other in p._pairs(q.parts)])


@keras.saving.register_keras_serializable("kerasrl_pg")
class Composite(Head):
    """Several heads, each for its part of the action, independent given the features.

    The raw action is a dictionary or a tuple of the parts' raw actions, nested as the space; so is what the environment
    gets, each part in its own space's dtype. Noise, parameters and masks are one flat tensor each, the parts' one
    behind the other, in the order of the sorted keys, which is `tf.nest`'s too, whatever the space's order.

    A mask is nested as the action, too: `read_mask` takes a dictionary or tuple with None, or in a dictionary nothing,
    for parts that are not masked.

    Args:
        heads: Dictionary or tuple of heads, or of further dictionaries and tuples. No head twice.
        **kwargs: `name` and the rest of `keras.layers.Layer`.

    Raises:
        ValueError: If `heads` is empty or holds anything but heads, keys are not all texts or all whole numbers, one
            head stands in two places, or two parts get the same name (see `named`).

    >>> import gymnasium as gym
    >>> from kerasrl_pg.heads import Composite
    >>> space = gym.spaces.Dict(move=gym.spaces.Discrete(4), aim=gym.spaces.Box(-1, 1, (2,)))
    >>> head = Composite.from_space(space)
    >>> policy = head(tf.zeros([1, 8]))
    >>> actions = head.sample(policy, head.noise([0, 1], [1]))
    >>> {key: tuple(action.shape) for key, action in actions.items()}
    {'aim': (1, 2), 'move': (1,)}
    >>> round(float(policy.entropy()[0]), 4)  # 1 + log 2π + log 4
    4.2242
    >>> head.read_mask({"move": [1, 0, 0, 1]})
    array([ True, False, False,  True])
    """

    action_dtype = None

    def __init__(self, heads, **kwargs):
        super().__init__((), None, **kwargs)
        if not isinstance(heads, (dict, tuple, list)) or not heads:
            raise ValueError(
                f"`heads` must be a dictionary or a tuple of heads, of at least one. Received: heads={heads!r}."
            )
        if isinstance(heads, dict):
            if not any(all(isinstance(key, kind) for key in heads) for kind in (str, int)):
                raise ValueError(
                    "`heads` must have keys that are all texts, or all whole numbers, for them to have an order. "
                    f"Received: the keys {list(heads)}. Rename them in the action space."
                )
            self.heads = {key: _as_head(heads[key]) for key in sorted(heads)}
        else:
            self.heads = tuple(_as_head(part) for part in heads)
        self._check_leaves()
        parts = [part for _, part in self._items()]
        self.action_shape = None
        self.num_parameters = sum(part.num_parameters for part in parts)
        self.noise_shape = (sum(math.prod(part.noise_shape) for part in parts),)
        maskable = [part.mask_shape[0] for part in parts if part.mask_shape is not None]
        self.mask_shape = (sum(maskable),) if maskable else None

    def _check_leaves(self):
        paths, seen = {}, set()
        for path, leaf in self.leaves():
            name = action_name(path)
            if name in paths:
                raise ValueError(
                    f"Two parts of the action get the same name '{name}'. "
                    f"Received: heads{place(paths[name])} and heads{place(path)}. Rename a key of the action space."
                )
            if id(leaf) in seen:
                raise ValueError(
                    f"`heads` must hold each head once, since each part has weights of its own. Received: {leaf!r} "
                    f"a second time, as heads{place(path)}. Make another."
                )
            paths[name] = path
            seen.add(id(leaf))

    @classmethod
    def from_space(cls, space, kernel_initializer=None, use_bias=True, **kwargs):
        """The composite of the default heads of a Dict or Tuple space's parts.

        Args:
            space: Gymnasium space.
            kernel_initializer: Of all parts, each with a seed of its own made from the initializer's.
            use_bias: Of all parts.
            **kwargs: For the constructor.

        Raises:
            ValueError: For other spaces, and where a part has no head.
        """
        from kerasrl_pg.heads.default import default_head  # which imports this

        if isinstance(space, gymnasium.spaces.Dict):
            parts = space.spaces
        elif isinstance(space, gymnasium.spaces.Tuple):
            parts = dict(enumerate(space.spaces))
        else:
            raise cls._refuse("a gymnasium.spaces.Dict or Tuple", space)
        heads = {}
        for number, key in enumerate(parts):
            try:
                initializer = _another(kernel_initializer, number)
                name = leaf_name((key,))
                heads[key] = default_head(parts[key], kernel_initializer=initializer, use_bias=use_bias, name=name)
            except ValueError as error:
                raise ValueError(f"{error} That is the part {key!r} of {space}.") from None
        return cls(heads if isinstance(space, gymnasium.spaces.Dict) else tuple(heads.values()), **kwargs)

    def _items(self):
        """The parts with their keys or places, in the order of all flat tensors."""
        return list(self.heads.items() if isinstance(self.heads, dict) else enumerate(self.heads))

    def _nest(self, values):
        """One value a part, in their order, nested as an action."""
        if isinstance(self.heads, dict):
            return dict(zip(self.heads, values, strict=True))
        return tuple(values)

    def _split(self, flat, sizes):
        return tf.split(flat, sizes, axis=-1) if len(sizes) > 1 else [flat]

    def leaves(self):
        """The heads at the ends of the nest, in order.

        Returns:
            List of pairs (path, head), a path being the keys and places that lead to the head.

        >>> from kerasrl_pg.heads import Bernoulli, Categorical, Composite
        >>> head = Composite({"legs": (Categorical(2), Categorical(3)), "hand": Bernoulli(5)})
        >>> [path for path, _ in head.leaves()]
        [('hand',), ('legs', 0), ('legs', 1)]
        """
        pairs = []
        for key, part in self._items():
            below = part.leaves() if isinstance(part, Composite) else [((), part)]
            pairs += [((key, *path), leaf) for path, leaf in below]
        return pairs

    def scheduled(self):
        return {f"std_{action_name(path)}": leaf for path, leaf in self.leaves() if leaf.scheduled()}

    def named(self, actions):
        """The leaves of an action by their names.

        A name joins the path by `_`; places of a tuple are called `item0`, `item1`, ..., as those of observations are
        (see `envs.ObservationSpec`). `log_prob`, which a served model gives beside them, becomes `log_prob_`.

        Args:
            actions: Raw or of the environment, or whatever is nested as `action_spec`.

        Returns:
            A flat dictionary.

        >>> from kerasrl_pg.heads import Bernoulli, Categorical, Composite
        >>> head = Composite({"legs": (Categorical(2), Categorical(3)), "hand": Bernoulli(5)})
        >>> list(head.named(head.action_spec))
        ['hand', 'legs_item0', 'legs_item1']
        """
        return {action_name(path): functools.reduce(operator.getitem, path, actions) for path, _ in self.leaves()}

    @property
    def action_spec(self):
        return self._nest([part.action_spec for _, part in self._items()])

    def take_env_dtype(self, space):
        for key, part in self._items():
            part.take_env_dtype(space[key])

    def build(self, input_shape):
        for _, part in self._items():
            if not part.built:
                part.build(input_shape)

    def parameters(self, features):
        """Features [..., F] to [..., P]: the parts' parameters, one behind the other."""
        outputs = [part.parameters(features) for _, part in self._items()]
        self.built = True
        for (key, part), output in zip(self._items(), outputs, strict=True):
            if output.shape[-1] != part.num_parameters:
                raise ValueError(
                    "A head's `num_parameters` must be the last size of what its `parameters` gives. Received: "
                    f"num_parameters={part.num_parameters}, {output.shape[-1]} parameters, from heads[{key!r}]. "
                    "Set the attribute in its constructor."
                )
        return tf.concat(outputs, axis=-1)

    def distribution(self, parameters):
        parts = [part for _, part in self._items()]
        split = self._split(parameters, [part.num_parameters for part in parts])
        return Joint(self._nest([part.distribution(own) for part, own in zip(parts, split, strict=True)]))

    def compute_output_spec(self, features):
        # A layer gives a functional model one distribution, for which one tensor must stand, though an action be many.
        return keras.KerasTensor((*features.shape[:-1], self.num_parameters), "float32")

    def noise(self, seed, shape):
        """Float32 [*shape, K]: the noise of each part, of a seed of its own, flattened."""
        items = self._items()
        seeds = tf.bitcast(random.bits(seed, (len(items), 2)), tf.int32)
        drawn = [part.noise(seeds[i], shape) for i, (_, part) in enumerate(items)]
        sizes = [math.prod(part.noise_shape) for _, part in items]
        return tf.concat([tf.reshape(z, [*shape, size]) for z, size in zip(drawn, sizes, strict=True)], axis=-1)

    def sample(self, distribution, noise):
        split = self._split(noise, [math.prod(part.noise_shape) for _, part in self._items()])
        return self._nest(
            [
                part.sample(distribution.parts[key], event(own, part.noise_shape))
                for (key, part), own in zip(self._items(), split, strict=True)
            ]
        )

    def to_env(self, actions):
        return self._nest([part.to_env(actions[key]) for key, part in self._items()])

    def from_env(self, actions):
        return self._nest([part.from_env(actions[key]) for key, part in self._items()])

    def _masked_items(self, masks):
        """The parts that take masks with their keys, and their parts of `masks`."""
        if self.mask_shape is None:
            raise self._maskless()
        items, start = [], 0
        for key, part in self._items():
            if part.mask_shape is not None:
                items.append((key, part, masks[..., start : start + part.mask_shape[0]]))
                start += part.mask_shape[0]
        return items

    def mask(self, distribution, masks):
        masked = {key: part.mask(distribution.parts[key], own) for key, part, own in self._masked_items(masks)}
        return Joint(self._nest([masked.get(key, distribution.parts[key]) for key, _ in self._items()]))

    def all_masked(self, masks):
        return functools.reduce(operator.or_, [part.all_masked(own) for _, part, own in self._masked_items(masks)])

    def _read_mask(self, mask):
        keys = [key for key, _ in self._items()]
        if isinstance(self.heads, dict):
            # Beside each entry a vector environment's `info` has another, which says who gave it.
            fits = isinstance(mask, dict) and set(mask) <= {*keys, *(f"_{key}" for key in keys)}
            wanted, given = f"a dictionary with keys of {keys}", mask
        else:
            fits = isinstance(mask, (tuple, list)) and len(mask) == len(keys)
            wanted, given = f"a tuple of {len(keys)}", dict(enumerate(mask)) if fits else None
        if not fits:
            raise ValueError(
                f"`action_mask` must be nested as the action space: {wanted}, with None for what is not masked. "
                f"Received: {mask!r}. Repair the environment's mask."
            )
        arrays = {}
        for key, part in self._items():
            if not forbid_nothing(given.get(key)):
                try:
                    arrays[key] = part.read_mask(given[key])
                except ValueError as error:
                    raise ValueError(f"{error} That is the mask of {key!r}.") from None
        shapes = {key: array.shape[:-1] for key, array in arrays.items()}
        if len(set(shapes.values())) > 1:
            raise ValueError(
                "`action_mask` must be of one batch shape for all parts. "
                f"Received: {shapes}. Repair the environment's mask."
            )
        batch = next(iter(shapes.values()), ())
        for key, part in self._items():
            if key not in arrays and part.mask_shape is not None:
                arrays[key] = np.ones((*batch, *part.mask_shape), bool)
        return np.concatenate([arrays[key] for key, part in self._items() if part.mask_shape is not None], axis=-1)

    def _joined(self, masks, num_envs):
        given, tensors = masks if isinstance(masks, dict) else dict(enumerate(masks)), []
        if unknown := [key for key in given if key not in dict(self._items())]:
            raise ValueError(f"`action_masks` must name parts of the action. Received: {unknown[0]!r}. Rename it.")
        for key, part in self._items():
            if not forbid_nothing(given.get(key)):
                tensors.append(part._joined(given[key], num_envs))
            elif part.mask_shape is not None:
                tensors.append(tf.ones((num_envs, *part.mask_shape), tf.bool))
        return tf.concat(tensors, -1)

    def get_config(self):
        # Keras turns the keys of dictionaries into texts, and remembers built shapes beside a layer's settings.
        parts = [[key, _described(part)] for key, part in self._items()]
        kind = "dict" if isinstance(self.heads, dict) else "tuple"
        return {**keras.layers.Layer.get_config(self), "heads": {"kind": kind, "parts": parts}}

    @classmethod
    def from_config(cls, config):
        config = dict(config)
        described = config.pop("heads")
        parts = {key: keras.saving.deserialize_keras_object(part) for key, part in described["parts"]}
        return cls(parts if described["kind"] == "dict" else tuple(parts.values()), **config)


def _as_head(part):
    if isinstance(part, Head):
        return part
    if isinstance(part, (dict, tuple, list)):
        return Composite(part)
    raise ValueError(
        f"`heads` must hold layers of kerasrl_pg.heads, nested in dictionaries and tuples. Received: {part!r}."
    )


def action_name(path):
    """The name under which a served model gives the part of a nested action that a path leads to.

    >>> action_name(("legs", 0)), action_name(("log_prob",))
    ('legs_item0', 'log_prob_')
    """
    name = leaf_name(path)
    return "log_prob_" if name == "log_prob" else name


def _described(layer):
    config = keras.saving.serialize_keras_object(layer)
    config.pop("build_config", None)
    return config


def _another(initializer, number):
    """An initializer like the given one, with a seed for the part of this number.

    One instance gives equal shapes equal weights, and so parts of one kind one policy to start from.
    """
    initializer = keras.initializers.get(initializer)
    if not hasattr(initializer, "get_config"):
        return initializer
    config = initializer.get_config()
    if isinstance(config.get("seed"), int):
        entropy = [config["seed"] % 2**63, number]
        config["seed"] = int(np.random.SeedSequence(entropy).generate_state(1)[0])
    return type(initializer).from_config(config)
