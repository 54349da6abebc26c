"""From nothing to a served policy: python examples/cartpole.py [steps] [folder]"""

import sys

import keras

import kerasrl_pg as pg

steps = int(sys.argv[1]) if len(sys.argv) > 1 else 100_000
folder = sys.argv[2] if len(sys.argv) > 2 else "runs/example"

agent = pg.PPO(horizon=128, minibatch_size=128, anneal_learning_rate=True, seed=0)
agent.compile(optimizer=keras.optimizers.Adam(1e-3, epsilon=1e-5, global_clipnorm=0.5))
agent.fit("CartPole-v1", total_steps=steps, num_envs=8, epochs=10)
print(agent.evaluate("CartPole-v1", episodes=100))

agent.save(f"{folder}/cartpole.keras")  # keras.models.load_model(...).fit(...) goes on from here
print(agent.export(f"{folder}/cartpole/1"))  # for TensorFlow Serving
