"""The exported policies in saved_models/ do what their card says."""

from pathlib import Path

import gymnasium as gym
import numpy as np
import tensorflow as tf

SAVED_MODELS = Path(__file__).parents[1] / "saved_models"


def test_cartpole():
    act = tf.saved_model.load(str(SAVED_MODELS / "cartpole" / "1")).signatures["serving_default"]
    envs = gym.make_vec("CartPole-v1", 4, vectorization_mode="sync")
    observations, _ = envs.reset(seed=7)
    for step in range(500):
        observations, _, terminated, truncated, _ = envs.step(
            act(observation=tf.constant(observations))["action"].numpy()
        )
        assert not terminated.any(), f"a pole fell in step {step}"
    assert np.all(truncated)


def test_every_model_has_its_row_in_the_card():
    card = (SAVED_MODELS / "README.md").read_text(encoding="utf8")
    for model in SAVED_MODELS.glob("*/*/saved_model.pb"):
        assert f"`{model.parent.parent.name}/{model.parent.name}`" in card
