"""Searching for a policy without gradients: python examples/search.py [steps]

Hill climbing, annealing and evolution strategies on CartPole-v1, at equal environment steps: those of every member of
every population count. The populations play side by side in one compiled program; the policies found then play in
gymnasium's own environment. The policies are linear, so that there are ten weights to be found.
"""

import importlib.util
import sys

import keras

import kerasrl_pg as pg

STEPS = int(sys.argv[1]) if len(sys.argv) > 1 else 100_000


def strategies(**settings):
    return pg.EvolutionStrategies(population_size=16, noise=0.3, networks=pg.Networks(()), seed=0, **settings)


agents = {
    "hill climbing": pg.HillClimbing(networks=pg.Networks(()), seed=0),
    "simulated annealing": pg.SimulatedAnnealing(networks=pg.Networks(()), seed=0),
    "evolution strategies": strategies(),
}
agents["evolution strategies"].compile(keras.optimizers.Adam(0.1))  # The others have nothing to be compiled with.
if importlib.util.find_spec("cma"):
    agents["the same, with a full covariance"] = strategies(covariance="full")

for name, agent in agents.items():
    history = agent.fit(pg.envs.CartPole(num_envs=16), total_steps=STEPS, epochs=5, verbose=0).history
    population = ", ".join(f"{value:.0f}" for value in history["mean_return"])
    found = agent.evaluate("CartPole-v1", episodes=20)["return"]
    print(f"{name}: populations of {population}; the policy found {found:.1f}")
