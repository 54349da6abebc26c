"""The verbs of files: what an agent saves, loads and exports."""

from pathlib import Path

import keras

from kerasrl_pg.checks import knows_its_arguments
from kerasrl_pg.envs.spaces import space_to_config
from kerasrl_pg.saving import checkpoint
from kerasrl_pg.saving.weights import InMemory, seal, spaces_from_configs
from kerasrl_pg.serving.card import digest
from kerasrl_pg.serving.export import export_saved_model
from kerasrl_pg.serving.files import verify_weights, verify_zip, write_beside
from kerasrl_pg.settings import Configured, deserialized, serialize, settings


class Saved(Configured):
    """A built agent on disk: `save`, `save_weights`, `load_weights`, `export`, and Keras's hooks for them."""

    def save(self, filepath, overwrite=True, **kwargs):
        """Saves all that training needs to go on: networks, optimizer, schedules, normalisers, counters, random state.

        Written beside `filepath`, read back, then renamed: an older file is never lost to a crash or a full disk.

        Args:
            filepath: Path ending in `.keras`.
            overwrite: Replace an existing file without asking.
            kwargs: Keras's own, but for `zipped=False`.

        Raises:
            ValueError: If the path does not end in `.keras`.
        """
        if kwargs.get("zipped") is False:
            raise ValueError("`zipped` must be left out: an agent is one `.keras` file. Received: zipped=False.")
        save = super().save
        write_beside(
            filepath, ".keras", lambda path: checkpoint.write(path, save, ".keras", **kwargs), verify_zip, overwrite
        )

    def save_weights(self, filepath, overwrite=True, max_shard_size=None):
        """Saves weights, optimizer, counters and random state to a `.weights.h5` file, by rename as `save` does.

        The file begins with the checksum of what follows, which `load_weights` verifies; h5py and Keras skip it.

        Args:
            filepath: Path ending in `.weights.h5`.
            overwrite: Replace an existing file without asking.
            max_shard_size: Keras's, which must be left out: an agent's weights are one file.

        Raises:
            ValueError: If the path does not end in `.weights.h5`, or the agent is not built.
        """
        if max_shard_size is not None:
            raise ValueError(
                "`max_shard_size` must be left out: an agent's weights are one file. "
                f"Received: max_shard_size={max_shard_size!r}."
            )
        self._assert_built("save_weights")

        def write(path):
            Path(path).write_bytes(seal(self.weights_content()))

        write_beside(filepath, ".weights.h5", write, verify_weights, overwrite)

    def weights_content(self):
        """What `save_weights` writes, without its seal, as bytes."""
        file = InMemory(".weights.h5")
        super().save_weights(file)
        return file.getvalue()

    def load_weights(self, filepath, skip_mismatch=False, **kwargs):
        """Loads what `save_weights` or `save` saved; an agent not built yet is built first, for the spaces in the file.

        The file is read once, and its checksum, its contents, the spaces and every weight's shape are looked at before
        a weight changes. Files of versions without a checksum still load, unverified. The optimizer's weights are
        skipped, with Keras's warning, where they are another optimizer's.

        Args:
            filepath: A `.weights.h5` or `.keras` file.
            skip_mismatch: Take what fits, of whatever agent.
            kwargs: Keras's own.

        Raises:
            ValueError: If the file holds the weights of an agent of another method, other networks or other spaces, or
                what Keras never writes. The agent is as it was.
            OSError: If the file cannot be read or is damaged. The agent is as it was.
        """
        load = super().load_weights
        checkpoint.load_weights(
            self,
            self._rooms.episodes,
            filepath,
            lambda file: load(file, skip_mismatch, **kwargs),
            strict=not (skip_mismatch or kwargs),
        )

    def likeness(self):
        """Another agent of the same settings, which shares the models that were given to this one."""
        own = settings(type(self))
        return type(self)(**{n: getattr(self, n) if n in own else value for n, value in self._given.items()})

    def set_weights(self, weights):
        """Keras's `set_weights`; while a fit runs it leaves the counters and the random state alone."""
        # At its beginning, too: a warm start is no checkpoint of this fit, as those that `load_weights` restores.
        kept = self._spent(begun=False)
        super().set_weights(weights)
        for variable, value in kept:
            variable.assign(value)

    def _spent(self, begun=True):
        """Pairs of what counts a running fit, or numbers its random draws, and its value; none before and after.

        Were they set back within a fit, it would exceed its budget and draw the same numbers again.
        """
        fit = self._rooms.fit
        if fit is None or (begun and fit.progress is None):  # Not begun: a checkpoint may be restored.
            return []
        return [(variable, variable.numpy()) for variable in self._rooms.counters]

    def save_own_variables(self, store):
        """Keras's hook: the agent's own weights, the spaces it was built for, and where compiled episodes stand."""
        super().save_own_variables(store)
        if self.spaces[0] is not None:
            store["spaces"] = checkpoint.spaces_text(self.spaces)
        self._rooms.episodes.save(store, self._rooms.reward_carries)

    def load_own_variables(self, store):
        """Keras's hook: the agent's own weights and the compiled episodes; `load_weights` has read the spaces."""
        kept = self._spent()
        before = self._rooms.episodes.kept
        self._rooms.episodes.load(store)
        super().load_own_variables({name: store[name] for name in list(store.keys()) if name.isdigit()})
        for variable, value in kept:
            variable.assign(value)
        if kept:  # The fit goes on with the episodes it is in.
            self._rooms.episodes.kept = before

    @knows_its_arguments
    def export(self, filepath, verify=True, litert=False, evaluation=None, command=None):
        """Exports the policy as a SavedModel for TensorFlow Serving, which needs neither this library nor TFP.

        Endpoints, with named inputs, free batch size, normaliser and action bounds inside: `serving_default`
        (observations -> `action`, what the environment accepts), `sample` (observations and `seed` int32[2] ->
        `action`, `log_prob`), and `value` (observations -> `value`) where there is a critic. Of nested actions each
        leaf is an output, named as the leaves of observations are. Where the agent was trained with
        `info["action_mask"]`, the first two have an input `action_mask`, bool [B, ...]. Those of a policy with memory
        take and give its `state`, `value` the critic's `value_state`, and `initial_state` (`batch_size` -> both) says
        with what an episode begins.

        In `assets.extra` beside the model stand `card.json` and `card.md` (spaces, agent, environment steps, seed,
        return with its 95 % interval, versions, command, SHA-256 of every file), `request_rest.json` and
        `request_grpc.json` (a request to `serving_default`; the second is a `PredictRequest` in protobuf's JSON), where
        `tensorflow-serving-api` is installed the requests that TensorFlow Serving warms up with, and `signatures.txt`.

        Args:
            filepath: Version folder to make, such as `saved_models/cartpole/1`; it must not exist.
            verify: Whether another process, which can import neither kerasrl_pg nor TFP, loads it and must give this
                agent's actions on 64 observations, and on those up to 10⁸ times as large, before the folder appears, by
                rename.
            litert: Whether to write `assets.extra/policy.tflite`, too, for LiteRT on devices: `serving_default` and
                `initial_state`, with the same names of tensors and free batch size, verified as the model is.
            evaluation: What `evaluate` returned, for the card; None for that of the last call, if the policy's weights
                are still the same.
            command: What made the policy, for the card.

        Returns:
            The path.

        Raises:
            ValueError: If the agent is not built, a weight of the policy is not finite, `evaluation` is none, or the
                folder exists.
            RuntimeError: If the exported model's actions differ, or LiteRT lacks an operation of the policy.
        """
        self._assert_built("export")
        known = self._rooms.evaluated
        if evaluation is None and known is not None and known[0] == digest(self.policy.variables):
            evaluation = known[1]
        facts = {
            "agent": type(self).__name__,
            "settings": {name: value for name, value in self.settings_values().items() if value is not None},
            "environment_steps": int(self.env_steps.numpy()),
            "seeds": [self.seed],
            "evaluation": evaluation,
            "command": command,
        }
        masked = self.action_masks == "info"
        return export_saved_model(self.actor_critic, filepath, verify, masked, litert, facts)

    def get_config(self):
        """The settings, the networks and the spaces, as plain JSON."""
        policy = self.shared_model if self.shared_model is not None else self.policy
        critic = None if self.shared_model is not None else self.critic
        spaces = [space and space_to_config(space) for space in self.spaces]
        return {
            **self.settings_config(self.known),
            "name": self.name,
            "policy": policy and serialize(policy),
            "critic": critic and serialize(critic),
            "networks": serialize(self._networks) if self._own_networks else None,
            "reward_scaling": self.reward_scaling is not None,
            "observation_space": spaces[0],
            "action_space": spaces[1],
        }

    @classmethod
    def from_config(cls, config):
        """An agent from `get_config`'s dictionary, built if the saved one was."""
        config = deserialized(config)
        spaces = [config.pop("observation_space"), config.pop("action_space")]
        policy, critic, networks = (config.pop(name) for name in ("policy", "critic", "networks"))
        given = config.get("arguments", ["policy", "networks"])
        if networks is None and "policy" in given:
            agent = cls.from_settings({**config, "policy": policy, "critic": critic}, cls.known)
        else:
            agent = cls.from_settings({**config, "networks": networks} if "networks" in given else config, cls.known)
            agent._networks = agent._networks if networks is None else networks
            if policy is not None:
                agent._take_networks(policy, critic)
        agent.random_state.assign([agent.seed, 0])  # Which may have been set after the constructor.
        agent._take_settings()
        if spaces[0] is not None:
            agent.bind(*spaces_from_configs(spaces))
        return agent

    def get_compile_config(self):
        """The optimizers and compiler settings, as plain JSON; empty before `compile`."""
        if not self.compiled:
            return {}
        serialize = keras.saving.serialize_keras_object
        return {
            "optimizer": serialize(self.optimizer),
            "critic_optimizer": self.critic_optimizer and serialize(self.critic_optimizer),
            "jit_compile": self._jit_setting,
            "run_eagerly": self.run_eagerly,
            "steps_per_execution": self._iterations_per_execution,
            "learning_rates": self._compiled_learning_rates,
        }

    def compile_from_config(self, config):
        """Compiles as `get_compile_config` says; Keras calls it when it loads an agent."""
        config = {
            name: keras.saving.deserialize_keras_object(value) if isinstance(value, dict) else value
            for name, value in config.items()
        }
        compiled = config.pop("learning_rates", None)
        # Earlier versions left the annealed rate in the optimizer, and kept here what it was annealed from.
        self._unannealed_learning_rates = config.pop("base_learning_rates", None)
        self.compile(**config)
        self._compiled_learning_rates = compiled or self._unannealed_learning_rates
