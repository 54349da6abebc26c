"""Schedules: what falls with the updates, or with the share of the budget: python examples/schedules.py [steps]"""

import sys

import keras

import kerasrl_pg as pg
from kerasrl_pg.schedules import InverseSquareRoot, OverBudget, linear

STEPS = int(sys.argv[1]) if len(sys.argv) > 1 else 100_000

agent = pg.PPO(
    horizon=64,
    minibatch_size=256,
    clip_ratio=linear(0.3, 0.1),  # In a straight line over the budget, whatever `fit` is given.
    entropy_coef=OverBudget(keras.optimizers.schedules.PiecewiseConstantDecay([0.5], [0.01, 0.0])),  # Off half-way.
    value_coef=keras.optimizers.schedules.ExponentialDecay(1.0, decay_steps=100, decay_rate=0.5),  # Of the iteration.
    estimator=pg.estimators.GAE(OverBudget(keras.optimizers.schedules.CosineDecay(1.0, 1.0, alpha=0.9))),  # 1 to 0.9.
    seed=0,
)
# η_t = η₀/√t, t the optimizer's own steps (chapter 4.2). Over the budget: the agent's `anneal_learning_rate`.
agent.compile(keras.optimizers.Adam(InverseSquareRoot(1e-2), epsilon=1e-5, global_clipnorm=0.5))
history = agent.fit("CartPole-v1", total_steps=STEPS, num_envs=8, verbose=0).history

names = ["env_steps", "episode_return", "clip_ratio", "entropy_coef", "value_coef", "gae_lambda", "learning_rate"]
print(" ".join(f"{name:>14}" for name in names))
for row in zip(*(history[name] for name in names), strict=True):
    print(" ".join(f"{value:14.5g}" for value in row))
print(agent.evaluate("CartPole-v1", episodes=20))
