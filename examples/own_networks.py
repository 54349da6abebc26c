"""Your own Keras model, one trunk under a Beta policy and a critic: python examples/own_networks.py [steps]"""

import sys

import gymnasium as gym
import keras

import kerasrl_pg as pg

steps = int(sys.argv[1]) if len(sys.argv) > 1 else 100_000
env = "Pendulum-v1"
space = gym.make(env).action_space

observation = keras.Input((3,), name="observation")
x = pg.models.RunningNormalization()(observation)
x = keras.layers.Dense(64, "gelu")(x)
x = keras.layers.LayerNormalization()(x)
x = keras.layers.Dense(64, "gelu")(x)
model = keras.Model(
    observation,
    {"policy": pg.heads.Beta.from_space(space)(x), "value": pg.heads.NormalValue()(x)},
)
model.summary()

agent = pg.PPO(model, horizon=256, minibatch_size=64, gamma=0.9, reward_scaling=True, seed=0)
agent.compile(keras.optimizers.AdamW(1e-3, weight_decay=1e-4, global_clipnorm=0.5))
agent.fit(env, total_steps=steps, num_envs=4)
print(agent.evaluate(env, episodes=20))

distribution = agent(gym.make(env).reset(seed=0)[0][None])  # A TensorFlow Probability distribution.
print(distribution, "entropy", distribution.entropy().numpy())
