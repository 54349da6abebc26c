"""Plays with an exported policy and TensorFlow alone: python examples/serve.py FOLDER ENVIRONMENT [episodes]

The same folder, under a name, is what TensorFlow Serving takes:
    tensorflow_model_server --rest_api_port=8501 --model_name=cartpole --model_base_path=$PWD/runs/cartpole/saved_model
    curl -d '{"inputs": {"observation": [[0.0, 0.1, 0.0, -0.1]]}}' localhost:8501/v1/models/cartpole:predict
"""

import sys

import gymnasium as gym
import tensorflow as tf

folder, env_id = sys.argv[1], sys.argv[2]
episodes = int(sys.argv[3]) if len(sys.argv) > 3 else 10

model = tf.saved_model.load(folder)
act, sample = model.signatures["serving_default"], model.signatures["sample"]
env = gym.make(env_id)
for episode in range(episodes):
    observation, _ = env.reset(seed=episode)
    total, ended = 0.0, False
    while not ended:
        action = act(observation=tf.constant(observation[None], tf.float32))["action"].numpy()[0]
        observation, reward, terminated, truncated, _ = env.step(action)
        total, ended = total + reward, terminated or truncated
    print(f"episode {episode}: return {total:.1f}")

drawn = sample(observation=tf.constant(observation[None], tf.float32), seed=tf.constant([0, 1]))
print("a sampled action:", drawn["action"].numpy()[0], "with log-probability", drawn["log_prob"].numpy()[0])
