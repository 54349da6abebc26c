"""Learning from what another policy did, and judging a policy without playing it.

python examples/stored.py [episodes] [passes] [steps]

A mediocre policy plays CartPole-v1 and is written down in Minari's format. A third policy is judged from that alone, by
importance sampling; then one learns from it, and neither touches the environment, but for the last line.
"""

import os
import sys
import tempfile

import keras
import numpy as np

import kerasrl_pg as pg

EPISODES, PASSES, STEPS = (
    int(sys.argv[i + 1]) if len(sys.argv) > i + 1 else n for i, n in enumerate((300, 20, 18_000))
)
os.environ.setdefault("MINARI_DATASETS_PATH", tempfile.mkdtemp())


def trained(steps):
    agent = pg.A2C(seed=0)
    agent.compile()
    agent.fit("CartPole-v1", total_steps=steps, num_envs=8, verbose=0)
    return agent


mediocre, better = trained(STEPS), trained(STEPS + STEPS // 4)
dataset = pg.data.record(mediocre, "CartPole-v1", "cartpole/mediocre-v0", EPISODES, num_envs=8)
print(f"who acted: {np.mean([len(episode.rewards) for episode in dataset]):.1f}")

for method in ("trajectory", "weighted_per_decision", "doubly_robust"):
    found = pg.data.estimate_return(better, dataset, method)
    low, high = found.interval
    print(
        f"of another, {method}: {found.value:.1f} in [{low:.1f}, {high:.1f}], as from {found.effective_sample_size:.1f}"
    )
print(f"of another, played: {better.evaluate('CartPole-v1', episodes=100, deterministic=False)['return']:.1f}")

clone = pg.BehaviorCloning(seed=1)
clone.compile(keras.optimizers.Adam(3e-3))
clone.fit(dataset, epochs=PASSES, verbose=0)
unknown = pg.data.Trajectories(dataset, behavior=clone)  # As if nobody had written down how likely actions were.

for episodes in (dataset, unknown):
    agent = pg.ImportanceSampling(state_weights=False, gamma=0.95, baseline=pg.baselines.ValueFunction(), seed=1)
    agent.compile(keras.optimizers.Adam(1e-3))
    agent.fit(episodes, epochs=PASSES, verbose=0)
    print(f"learned from it: {agent.evaluate('CartPole-v1', episodes=100)['return']:.1f}")
