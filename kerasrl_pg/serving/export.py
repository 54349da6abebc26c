"""An agent as a SavedModel: tensors in, tensors out, nothing of this library needed to serve it."""

import copy
import os
import shutil
import subprocess
import sys
import uuid
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from kerasrl_pg.models.memory import memories, recall
from kerasrl_pg.rollouts.evaluate import check_policy
from kerasrl_pg.serving.card import make_card, return_of, write_card
from kerasrl_pg.serving.litert import NAME as LITERT
from kerasrl_pg.serving.litert import write_litert
from kerasrl_pg.serving.requests import write_requests

# How much larger than in their space the observations are that an export is verified with besides. Ours.
EXTREMES = (1e2, -1e2, 1e4, -1e4, 1e8, -1e8)


def export_saved_model(networks, filepath, verify=True, masked=False, litert=False, facts=None):
    """Writes the SavedModel beside its place, verifies it, and renames it; see `Agent.export`.

    The version folder appears by one rename, because TensorFlow Serving loads what it finds, half-copied or not.
    Beside the model, `assets.extra/signatures.txt` lists for each endpoint the names of its tensors, for clients of
    TensorFlow's C API.

    Args:
        networks: An `ActorCritic`.
        filepath, verify, litert: Of `Agent.export`.
        masked: Whether policies are asked with an action mask beside the observations.
        facts: What the card is to say of the agent; see `make_card`.
    """
    path = Path(filepath)
    if path.exists():
        raise ValueError(
            f"`filepath` must be a folder that does not exist yet. Received: filepath={str(filepath)!r}. "
            "Choose the next version number; a served version is not overwritten."
        )
    return_of((facts or {}).get("evaluation"))  # Refused before anything is computed.
    _check_finite(networks)
    path.parent.mkdir(parents=True, exist_ok=True)
    # A name that is no number, so that a server watching the folder does not take it for a version.
    temporary = path.with_name(f".exporting-{uuid.uuid4().hex[:8]}")
    try:
        endpoints = Endpoints(networks, masked)
        signatures = endpoints.signatures()
        tf.saved_model.save(endpoints.module(), str(temporary), signatures=signatures)
        (temporary / "assets.extra").mkdir()
        (temporary / "assets.extra" / "signatures.txt").write_text(describe_signatures(temporary), encoding="utf8")
        notes = {"warm_up": write_requests(temporary, endpoints.examples(signatures))}
        if litert:
            notes["litert"] = write_litert(temporary, signatures)
        if verify:
            _verify(networks, temporary, masked, litert)
        write_card(temporary, make_card(networks, temporary, facts, notes))
        os.rename(temporary, path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return str(path)


def _check_finite(networks):
    """Refuses a policy whose weights, or whose answer to zeros, are not finite."""
    for weight in networks.policy.weights:
        if tf.as_dtype(weight.dtype).is_floating and not np.isfinite(keras.ops.convert_to_numpy(weight)).all():
            raise ValueError(
                f"The policy's weights must be finite to be exported. Received: NaN or infinity in {weight.path}. "
                "Load the last good file."
            )
    distribution = networks.policy(networks.spec.zeros(1))
    actions = distribution.mode()
    log_probs = tf.cast(distribution.log_prob(actions), tf.float32).numpy()
    env_actions = tf.nest.map_structure(lambda x: x.numpy(), networks.head.to_env(actions))
    check_policy(log_probs, env_actions, lambda row: "for an observation of zeros")


class Endpoints:
    """What an exported agent answers: each method but `signatures`, `examples` and `module` is an endpoint, tensors to
    tensors.

    Args:
        networks: The `ActorCritic`.
        masked: Whether policies are asked with an action mask beside the observations.
    """

    def __init__(self, networks, masked):
        self._networks, self._masked = networks, masked
        spec, critic = networks.spec, networks.critic
        leaves = [spec.specs] if spec.single else list(spec.specs.values())
        self._inputs = {leaf.name: tf.TensorSpec((None, *leaf.shape), leaf.dtype, name=leaf.name) for leaf in leaves}
        # The layers that remember, by the name of the tensor that holds what they do.
        layers = {"state": memories(networks.policy), "value_state": [] if critic is None else memories(critic)}
        self._memories = {name: each for name, each in layers.items() if each}
        beside = {*self._memories, *(["action_mask"] if masked else [])}
        for what, names in (("observation", self._inputs), ("action", networks.head.named(networks.head.action_spec))):
            if beside & set(names):
                raise ValueError(
                    f"No part of the {what} may be called as what an exported policy takes and gives beside it. "
                    f"Received: {', '.join(sorted(beside & set(names)))}. Rename it with a wrapper of the environment."
                )

    def serving_default(self, **arguments):
        """The action that the policy's mode is."""
        distribution, state = self._distribution(arguments)
        return {**self._named(distribution.mode()), **state}

    def sample(self, seed, **arguments):
        """An action drawn with `seed`, and its log-probability."""
        distribution, state = self._distribution(arguments)
        batch = tf.shape(next(iter(arguments.values())))[0]
        head = self._networks.head
        actions = head.sample(distribution, head.noise(seed, (batch,)))
        return {**self._named(actions), "log_prob": distribution.log_prob(actions), **state}

    def value(self, **arguments):
        """What the critic expects of the return."""
        distribution, state = self._called(self._networks.critic, "value_state", arguments)
        return {"value": distribution.mean(), **state}

    def initial_state(self, batch_size):
        """What is remembered before the first step of so many episodes."""
        return {
            name: tf.concat([layer.beginning(batch_size) for layer in layers], -1)
            for name, layers in self._memories.items()
        }

    def signatures(self):
        """The endpoints there are, as concrete functions by name."""
        asked = dict(self._inputs)
        if self._masked:
            shape = None, *self._networks.head.mask_shape
            asked["action_mask"] = tf.TensorSpec(shape, tf.bool, name="action_mask")
        asked |= self._state("state")
        seed = tf.TensorSpec((2,), tf.int32, name="seed")
        found = {
            "serving_default": _concrete(self.serving_default, **asked),
            "sample": _concrete(self.sample, **asked, seed=seed),
        }
        if self._networks.critic is not None:
            found["value"] = _concrete(self.value, **self._inputs, **self._state("value_state"))
        if self._memories:
            batch_size = tf.TensorSpec((), tf.int32, name="batch_size")
            found["initial_state"] = _concrete(self.initial_state, batch_size=batch_size)
        return found

    def examples(self, signatures):
        """What each endpoint can be asked with: arrays by the name of the input, by the name of the endpoint."""
        observations = sample_observations(self._networks, 1)
        given = {"observation": observations} if self._networks.spec.single else dict(observations)
        if self._networks.mask_key is not None:  # A sample of which may allow nothing.
            given[self._networks.mask_key] = np.ones_like(given[self._networks.mask_key])
        given |= {name: array.numpy() for name, array in self.initial_state(1).items()}
        given |= {"seed": np.int32([0, 0]), "batch_size": np.int32(1)}
        if self._masked:
            given["action_mask"] = np.ones((1, *self._networks.head.mask_shape), bool)
        return {
            name: {spec.name: given[spec.name] for spec in tf.nest.flatten(function.structured_input_signature)}
            for name, function in signatures.items()
        }

    def module(self):
        """A `tf.Module` that holds the variables of both networks, each once."""
        module = tf.Module()
        variables = {id(v): v.value for model in self._networks.models for v in model.variables}
        module.network_variables = list(variables.values())
        return module

    def _state(self, name):
        """The spec of a tensor of what is remembered, by its name; none where nothing is."""
        if name not in self._memories:
            return {}
        size = sum(layer.size for layer in self._memories[name])
        return {name: tf.TensorSpec((None, size), tf.float32, name=name)}

    def _observations(self, arguments):
        if self._networks.spec.single:
            return arguments["observation"]
        return {name: arguments[name] for name in self._inputs}

    def _called(self, model, name, arguments):
        """What a model gives, and its state after it by its name."""
        observations = self._observations(arguments)
        if name not in self._memories:
            return model(observations), {}
        starts = tf.zeros(tf.shape(arguments[name])[:1], tf.bool)
        result, state = recall(lambda: model(observations), self._memories[name], arguments[name], starts)
        return result, {name: state}

    def _distribution(self, arguments):
        networks = self._networks
        distribution, state = self._called(networks.policy, "state", arguments)
        masks = arguments["action_mask"] if self._masked else ()
        return networks.masked(distribution, networks.inputs(self._observations(arguments), masks)), state

    def _named(self, actions):
        head = self._networks.head
        return {name: tf.identity(leaf) for name, leaf in head.named(head.to_env(actions)).items()}


def _concrete(function, **specs):
    return tf.function(function, autograph=False).get_concrete_function(**specs)


def describe_signatures(folder):
    """One line for each tensor: signature, input or output, argument, tensor name, dtype, shape (-1 where free)."""
    from tensorflow.core.protobuf import saved_model_pb2

    proto = saved_model_pb2.SavedModel()
    proto.ParseFromString((Path(folder) / "saved_model.pb").read_bytes())
    lines = []
    for name, signature in sorted(proto.meta_graphs[0].signature_def.items()):
        for kind, tensors in (("input", signature.inputs), ("output", signature.outputs)):
            for argument, info in sorted(tensors.items()):
                if not info.name or name.startswith("__"):
                    continue
                sizes = [str(dim.size) for dim in info.tensor_shape.dim]
                shape = ",".join(sizes) or "scalar"
                lines.append(f"{name} {kind} {argument} {info.name} {tf.as_dtype(info.dtype).name} {shape}\n")
    return "".join(lines)


def sample_observations(networks, count, seed=0):
    """`count` observations drawn from the agent's observation space, flattened and batched."""
    spec = networks.spec
    space = copy.deepcopy(networks.observation_space)  # Seeding it must not touch the environment's own.
    space.seed(seed)
    rows = [spec.flatten(space.sample()) for _ in range(count)]
    if spec.single:
        return np.stack(rows).astype(spec.specs.dtype.as_numpy_dtype)
    return {
        name: np.stack([row[name] for row in rows]).astype(leaf.dtype.as_numpy_dtype)
        for name, leaf in spec.specs.items()
    }


def _enlarged(observations):
    """The observations, and after them the same ones as large as `EXTREMES`; those of integers as they are."""

    def leaf(x):
        if x.dtype.kind != "f":
            return np.concatenate([x] * (1 + len(EXTREMES)))
        largest = np.finfo(x.dtype).max
        larger = [np.clip(x.astype(np.float64) * size, -largest, largest) for size in EXTREMES]
        return np.concatenate([x, *larger]).astype(x.dtype)

    return tf.nest.map_structure(leaf, observations)


def _verify(networks, folder, masked, litert):
    observations = _enlarged(sample_observations(networks, 64))
    named = {"observation": observations} if networks.spec.single else dict(observations)
    inputs = networks.inputs(observations)
    if masked:
        rows = len(next(iter(named.values())))
        masks = np.random.default_rng(0).random((rows, *networks.head.mask_shape)) < 0.7
        named["action_mask"] = masks | networks.head.all_masked(masks)[:, None]
        inputs = inputs._replace(masks=named["action_mask"])
    if networks.policy_memory_size:
        rows = len(next(iter(named.values())))
        state = np.random.default_rng(1).uniform(-1, 1, (rows, networks.policy_memory_size)).astype(np.float32)
        named["state"] = state
        inputs = inputs._replace(memory=state)
    distribution, memory = networks.step(tf.nest.map_structure(tf.constant, inputs))
    actions = networks.head.named(networks.head.to_env(distribution.mode()))
    if networks.policy_memory_size:
        actions["state"] = memory
    expected = {f"expected_{k}": v.numpy() for k, v in actions.items()}
    check = folder / "check.npz"
    np.savez(check, **{f"input_{name}": array for name, array in named.items()}, **expected, mild=64)
    try:
        # -I: nothing of the caller's environment or folder is importable but what is installed.
        script = Path(__file__).with_name("verify.py")
        run = subprocess.run(
            [sys.executable, "-I", str(script), str(folder), str(check), *([str(folder / LITERT)] if litert else [])],
            capture_output=True,
            text=True,
            env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "-1"},
        )
    finally:
        check.unlink()
    if run.returncode:
        raise RuntimeError(
            "The exported model, loaded by TensorFlow alone in another process, must give the agent's actions. "
            f"Received: {run.stderr.strip()[-2000:] or run.stdout.strip()}. Nothing was left at the destination."
        )
