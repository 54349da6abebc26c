"""Five seeds of one setting, compiled once: python examples/seeds.py [steps] [folder]"""

import sys
from pathlib import Path

import keras

import kerasrl_pg as pg

steps = int(sys.argv[1]) if len(sys.argv) > 1 else 131_072
folder = Path(sys.argv[2] if len(sys.argv) > 2 else "runs/seeds")
folder.mkdir(parents=True, exist_ok=True)


def make_agent(seed):
    agent = pg.PPO(horizon=64, update_epochs=4, minibatch_size=512, anneal_learning_rate=True, seed=seed)
    # Eight iterations a call of the compiled program; callbacks see the agent between calls.
    agent.compile(keras.optimizers.Adam(3e-3, epsilon=1e-5, global_clipnorm=0.5), steps_per_execution=8)
    return agent


# Trained compiled, judged in gymnasium's own CartPole.
runs = pg.fit_seeds(
    make_agent,
    pg.envs.CartPole(num_envs=32),
    seeds=5,
    evaluation_env="CartPole-v1",
    filepath=folder / "{seed}.keras",
    total_steps=steps,
    epochs=8,
    verbose=0,
)
low, high = runs.interval
print(f"final return, interquartile mean {runs.iqm:.1f} [{low:.1f}, {high:.1f}]")
runs.plot(folder / "seeds.png")
