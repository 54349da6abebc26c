"""What users of Keras and of other libraries call, and what to call here."""

VERBS = {
    "learn": "Call `fit(env, total_steps=...)`.",
    "train": "Call `fit(env, total_steps=...)`.",
    "get_action": "Call `act(observations)`.",
    "choose_action": "Call `act(observations)`.",
    "select_action": "Call `act(observations)`.",
    "set_parameters": "Call `load_weights(filepath)` or `set_weights(weights)`.",
    "get_parameters": "Call `save_weights(filepath)` or `get_weights()`.",
    "set_env": "Give the environment to `fit`.",
    "load": "Call `keras.models.load_model(filepath)`.",
}


def predict_of_a_network(*args, **kwargs):
    """Stands for `predict` of an agent's policy and critic."""
    raise NotImplementedError(
        "`predict` of an agent's network has no arrays to give, since the network's outputs are distributions. Call "
        "`agent.predict(x)` or `agent.act(x)` for actions, or the network itself, as `agent.policy(x).mode()`."
    )


class Refusals:
    """Verbs of Keras that mean nothing to an agent, and those of other libraries, in sentences."""

    def train_on_batch(self, *args, **kwargs):
        """Refused: an agent trains on rollouts of its own policy, not on data."""
        raise NotImplementedError(
            "`train_on_batch` has nothing to train on, since an agent learns from what its own policy does. Call `fit` "
            "with an environment, or `train_on` with a Rollout of your own."
        )

    def test_on_batch(self, *args, **kwargs):
        """Refused: an agent is judged by the episodes it plays, not on data."""
        raise NotImplementedError(
            "`test_on_batch` has nothing to compare with, since an agent is judged by episodes. Call `evaluate` with "
            "an environment."
        )

    def __getattr__(self, name):
        if name in VERBS:
            raise AttributeError(f"`{type(self).__name__}` has no `{name}`. {VERBS[name]}")
        return object.__getattribute__(self, name)  # Raises again, in its own words.
