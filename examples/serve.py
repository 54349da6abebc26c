"""Serves an exported policy and plays with it there: python examples/serve.py FOLDER ENVIRONMENT [episodes]

FOLDER is one of versions, as `agent.export("saved_models/cartpole/1")` makes. The server here is the stand-in for
development, which `kerasrl-pg serve --model=FOLDER --development` starts as well; without --development the command
starts TensorFlow Serving, of which the rest asks in the same words. `pip install "kerasrl-pg[serving]"` has both.
"""

import sys

import gymnasium as gym
import tensorflow as tf

import kerasrl_pg as pg
from kerasrl_pg.serving.development import DevelopmentServer

folder, env_id = sys.argv[1], sys.argv[2]
episodes = int(sys.argv[3]) if len(sys.argv) > 3 else 10

with DevelopmentServer(folder, grpc_port=0, rest_port=0) as server:
    observation, _ = gym.make(env_id).reset(seed=0)
    for address in (server.grpc_address, server.rest_address):
        with pg.serving.Client(address) as client:
            print(f"{address}: action", client.act(observation))
            drawn = client.predict({"observation": observation[None], "seed": [0, 1]}, "sample")
            print("  a sampled action:", drawn["action"][0], "with log-probability", drawn["log_prob"][0])
    with pg.serving.Client(server.grpc_address) as client:
        result = pg.serving.play(client, env_id, episodes)
        print(f"return over {episodes} episodes: {result['return']:.1f} ± {result['return_std']:.1f}")
    version = server.versions.statuses()[0][0]

# Where nothing but TensorFlow is installed, the folder of a version is enough.
model = tf.saved_model.load(f"{folder}/{version}")
act = model.signatures["serving_default"]
print("TensorFlow alone: action", act(observation=tf.constant(observation[None], tf.float32))["action"].numpy()[0])
