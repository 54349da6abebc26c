"""A policy that remembers: python examples/memory.py [steps]

In a T-maze a sign at the beginning of a corridor says which way to turn at its end, 10 steps later.
"""

import sys

import keras

import kerasrl_pg as pg

steps = int(sys.argv[1]) if len(sys.argv) > 1 else 150_000
maze = pg.envs.TMaze(num_envs=32, length=10)

for memory in (pg.models.GRU(32, span=20), None):
    networks = pg.Networks(hidden_units=(32,), memory=memory)
    agent = pg.PPO(horizon=32, minibatch_size=256, entropy_coef=0.01, networks=networks, seed=0)
    agent.compile(keras.optimizers.Adam(1e-3, global_clipnorm=0.5))
    agent.fit(maze, total_steps=steps, epochs=5, verbose=0)
    print("with memory:" if memory else "without:", agent.evaluate(maze, episodes=200)["return"])
    if memory:
        remembering = agent

# Acting by hand: the state that a step gives is the next one's, and None begins an episode.
vector_env = pg.envs.CompiledVectorEnv(pg.envs.TMaze(num_envs=1, length=10))
observations, _ = vector_env.reset(seed=3)
print("the sign:", observations[0, 0])
state, ended = None, False
while not ended:
    actions, state = remembering.act(observations, state=state)
    observations, rewards, terminated, truncated, _ = vector_env.step(actions)
    ended = terminated[0] or truncated[0]
print("turned", "left" if actions[0] == 1 else "right", "for a reward of", rewards[0])
