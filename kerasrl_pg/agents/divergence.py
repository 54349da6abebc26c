"""KL divergences of a policy's update, in closed form or by the actions taken, and which policies have which."""

import keras
import tensorflow as tf

from kerasrl_pg import ops
from kerasrl_pg.checks import check_choice
from kerasrl_pg.heads import Head


def divergence(old, new, actions, kl_estimator):
    """KL(old || new) by observation.

    Args:
        old, new: Distributions over raw actions, batch [B].
        actions: [B, ...], drawn from `old`.
        kl_estimator: None for the closed form, "sampled" for the estimator (r - 1) - log r on `actions`.

    Returns:
        float [B], nats. Gradients flow.

    >>> import tensorflow_probability as tfp
    >>> old, new = tfp.distributions.Bernoulli(logits=[0.0]), tfp.distributions.Bernoulli(logits=[1.0])
    >>> [f"{divergence(old, new, tf.constant([1]), how)[0]:.3f}" for how in (None, "sampled")]
    ['0.120', '0.082']
    """
    if kl_estimator == "sampled":
        return ops.kl_k3(new.log_prob(actions), old.log_prob(actions))
    return old.kl_divergence(new)


def rows_of(distribution, head):
    """What a head's distribution has of each row, so that minibatches can be drawn of it.

    Args:
        distribution: Of `head`, batch [B].
        head: A `Head`.

    Returns:
        Tuple of tensors [B, ...]; `of_rows` makes a distribution of them, or of some rows of each.
    """
    parts = tf.nest.flatten(distribution, expand_composites=True)
    return tuple(part for part, by_row in zip(parts, _templates(head)[1], strict=True) if by_row)


def of_rows(rows, head):
    """The distribution that rows of `rows_of` describe."""
    (template, by_row), rows = _templates(head), iter(rows)
    parts = tf.nest.flatten(template, expand_composites=True)
    parts = [next(rows) if each else part for part, each in zip(parts, by_row, strict=True)]
    return tf.nest.pack_sequence_as(template, parts, expand_composites=True)


def _templates(head):
    """A distribution of one row, and of which of its tensors there is one for each row; others are constants."""
    one, two = (head.distribution(tf.zeros((size, head.num_parameters))) for size in (1, 2))
    pairs = zip(*(tf.nest.flatten(each, expand_composites=True) for each in (one, two)), strict=True)
    return one, [a.shape != b.shape for a, b in pairs]


def check_kl_estimator(name, value):
    """Refuses, by a ValueError, what is neither "sampled" nor None."""
    check_choice(name, value, ("sampled", None))


def check_kl(distribution, kl_estimator):
    """Refuses a policy whose distributions have no KL divergence, unless it is to be estimated.

    Args:
        distribution: What the policy gives.
        kl_estimator: The agent's setting.

    Raises:
        ValueError: As said; also where the distribution is not made of tensors.
    """
    parts = tf.nest.flatten(distribution, expand_composites=True)
    if not all(tf.is_tensor(part) and part.dtype.is_floating for part in parts):
        raise ValueError(
            "`policy` must give a distribution made of float tensors, one of TFP's composite tensors such as an "
            f"AutoCompositeTensorDistribution. Received: {distribution!r}."
        )
    if kl_estimator is None:
        try:
            distribution.kl_divergence(distribution)
        except NotImplementedError:
            raise ValueError(
                "`kl_estimator` must be 'sampled' for a head whose distributions have no KL divergence in closed form. "
                f"Received: kl_estimator=None, {distribution!r}."
            ) from None


def check_policy_kl(agent):
    """`check_kl` of an agent's policy, as soon as its distributions are known.

    Before the agent is built those are known of a functional model, whose inputs are, and of the head layer that
    networks are to be built with.

    Args:
        agent: An agent with the setting `kl_estimator`.

    Raises:
        ValueError: As `check_kl`.
    """
    policy, networks, kl_estimator = agent.policy, agent._networks, agent.kl_estimator
    if agent.head is not None:
        check_kl(policy(agent.observation_spec.zeros(1)), kl_estimator)
        return
    leaves = tf.nest.flatten(getattr(policy, "input", None))
    if all(isinstance(leaf, keras.KerasTensor) and None not in leaf.shape[1:] for leaf in leaves):
        output = policy(tf.nest.map_structure(lambda leaf: tf.zeros((1, *leaf.shape[1:]), leaf.dtype), policy.input))
        check_kl(output["policy"] if isinstance(output, dict) else output, kl_estimator)
    elif policy is None and isinstance(networks.head, Head):
        try:
            head = type(networks.head).from_config(networks.head.get_config())
        except (TypeError, NotImplementedError):
            return  # a head that cannot be copied, nor saved
        check_kl(head(tf.zeros((1, 1))), kl_estimator)
