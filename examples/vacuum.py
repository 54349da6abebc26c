"""A vacuum cleaner that sees only walls: python examples/vacuum.py [steps] [folder]

Two of its cells look alike and want opposite actions. Who does not remember has to draw, and learns to.
"""

import sys
from pathlib import Path

import gymnasium as gym
import keras
import numpy as np
from matplotlib.figure import Figure
from PIL import Image

import kerasrl_pg as pg

steps = int(sys.argv[1]) if len(sys.argv) > 1 else 300_000
folder = Path(sys.argv[2] if len(sys.argv) > 2 else "runs/vacuum")
folder.mkdir(parents=True, exist_ok=True)
world = pg.envs.Vacuum(num_envs=64)

# Exact: the best that sees walls and does not draw, the best that sees walls, the best that sees its cell.
mdp = pg.lab.MDP.of(world, gamma=1.0)
stuck, actions = mdp.memoryless_actions()
returns = {"deterministic, exact": stuck, "drawing, exact": mdp.memoryless_policy()[0]}
returns["seeing its cell, exact"] = mdp.optimal_values()[0]


def train(name, **networks):
    networks = pg.Networks(hidden_units=(32,), **networks)
    agent = pg.PPO(networks=networks, horizon=64, minibatch_size=512, update_epochs=4, seed=0)
    agent.compile(keras.optimizers.Adam(3e-3, epsilon=1e-5, global_clipnorm=0.5))
    agent.fit(world, total_steps=steps, epochs=5, verbose=0)
    returns[name] = agent.evaluate(world, episodes=steps // 60, deterministic=False)["return"]
    return agent


drawing, remembering = train("drawing, learned"), train("remembering, learned", memory=pg.models.GRU(32))
print("\n".join(f"{name:24}{value:7.3f}" for name, value in returns.items()))
figure = Figure(figsize=(7, 2.4), layout="constrained")
axes = figure.subplots(subplot_kw={"xlabel": "return", "xlim": (-1.2, 1.2)})
axes.bar_label(axes.barh([*returns], [*returns.values()], color="#56b4e9"), fmt="{:.3f}", padding=3)
figure.savefig(folder / "vacuum.png", dpi=130)

# The three at work, from the cell where the deterministic one goes to and fro for ever.
fixed = {tuple(seen): action for seen, action in zip(mdp.observations, actions, strict=True)}
acts = [lambda seen, _: (fixed[tuple(seen)], None), lambda seen, _: (drawing.act(seen, deterministic=False), None)]
shown = []
for act in [*acts, lambda seen, state: remembering.act(seen, state=state)]:
    env, state = gym.make("kerasrl_pg/Vacuum-v0", render_mode="rgb_array").unwrapped, None
    env.reset(seed=0)
    env.cell = (0, 1 if actions[1] == 3 else 3)
    shown.append([env.render()])
    for _ in range(15):
        if env.cell[0] == 0:  # Else it is in a dead end, and the episode is over.
            action, state = act(env.observation(), state)
            env.step(action)
        shown[-1].append(env.render())
frames = [Image.fromarray(np.concatenate(three)) for three in zip(*shown, strict=True)]
frames[0].save(folder / "vacuum.gif", save_all=True, append_images=frames[1:], duration=500)
