"""Three classes of policies, and what θ is in each: python examples/policy_classes.py [steps]

A frozen lake that does not slip: from the corner, past four holes, to the corner opposite. Behind it, the moves that a
network has learnt to score are exchanged for others.
"""

import sys

import gymnasium as gym
import keras
import numpy as np

import kerasrl_pg as pg

steps = int(sys.argv[1]) if len(sys.argv) > 1 else 65_536
lake = pg.lab.MDP.of(gym.make("FrozenLake-v1", is_slippery=False), gamma=0.95)
env = pg.lab.MDPEnv(num_envs=32, mdp=lake)
MOVES = np.array([(0, -1), (1, 0), (0, 1), (-1, 0)])  # Rows and columns: what describes left, down, right and up.


@keras.saving.register_keras_serializable("policy_classes")
def enters(cells):
    """φ(s, a): the cell that a move leads to, [B, 4, 16]."""
    return keras.ops.take(lake.transitions.astype("float32"), cells, axis=0)


def train(networks):
    agent = pg.PPO(networks=networks, gamma=0.95, horizon=32, minibatch_size=256, update_epochs=4, seed=0)
    agent.compile(keras.optimizers.Adam(0.02, epsilon=1e-5))
    agent.fit(env, total_steps=steps, epochs=4, verbose=0)
    theta = [tuple(v.shape) for v in agent.policy.trainable_variables]
    print(f"\n{type(networks).__name__}: θ {theta}, return {agent.evaluate(env, episodes=20)['return']:.2f}")
    return agent


tabular = train(pg.models.Tabular())  # θ[s, a]
theta = tabular.head.dense.kernel.numpy()
print("θ of the first cell:", theta[0].round(2))
arrows = np.array([*"←↓→↑"])[theta.argmax(-1)]
ends = lake.terminal.any((0, 1)) if lake.terminal.ndim == 3 else lake.terminal
for row in np.where(ends, "·", arrows).reshape(4, 4):
    print(" ".join(row))

linear = train(pg.models.Linear(enters))  # θᵀ φ(s, a): here a number for each cell that may be entered
print(linear.head.dense.kernel.numpy().reshape(4, 4).round(1))

scored = train(pg.models.Scored(MOVES, hidden_units=(32,)))  # f_θ(s, a), a network of the cell and of what a move is
king = np.array([(r, c) for r in (-1, 0, 1) for c in (-1, 0, 1) if (r, c) != (0, 0)])
other, _ = pg.models.Scored(king, hidden_units=(32,)).build(env.observation_space, gym.spaces.Discrete(8), seed=0)
other.set_weights(scored.policy.get_weights())  # No weight depends on how many moves there are.
for move, probability in zip(king, other(np.int32([0])).probs_parameter().numpy()[0], strict=True):
    print(f"first cell, move {move}: {probability:.3f}")
