"""The laboratory: how good is an estimate of the gradient? Measured against the exact one, for a policy of your own.

python examples/laboratory.py [SAMPLES]
"""

import sys

import keras
import numpy as np

import kerasrl_pg as pg

GAMMA, SAMPLES = 0.9, int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
env = pg.envs.TabularMDP(num_envs=8, max_episode_steps=10, num_states=5, num_actions=3, seed=1)  # 8 episodes a rollout.


def make_agent(**settings):
    """The same softmax policy each time, with what is to be compared."""
    agent = pg.REINFORCE(networks=pg.Networks(()), gamma=GAMMA, discounted_gradient=True, seed=0, **settings)
    agent.compile(keras.optimizers.SGD(0.1))
    return agent


# Exact: the process solved, and the gradient of J in float64.
mdp = pg.lab.MDP.of(env, gamma=GAMMA)
agent = make_agent()
agent.bind(env.observation_space, env.action_space)
exact = pg.lab.policy_gradient(mdp, agent)
print(
    f"J = {pg.lab.objective(mdp, agent):.4f}, at best {mdp.optimal_values()[0]:.4f}; |∇J| = {np.linalg.norm(exact):.4f}"
)

# Measured: that many rollouts, each through the agent's own loss.
found = pg.lab.sweep(
    make_agent, env, samples=SAMPLES, baseline=[None, pg.baselines.AverageReturn(), pg.baselines.TimeDependent()]
)
print(pg.lab.table(found))

# The value function as baseline is as good as the critic: here exact, then wrong, with one step of reward.
for error in (0.0, 1.0):
    critic = pg.A2C(
        networks=pg.Networks(()), gamma=GAMMA, horizon=10, estimator=pg.estimators.TD0(), entropy_coef=0.0, seed=0
    )
    critic.compile(keras.optimizers.SGD(0.1))
    critic.bind(env.observation_space, env.action_space)
    table = pg.lab.PolicyTable(critic, mdp.observations)
    values = mdp.replace(horizon=None).evaluate(table.probabilities()).values
    kernel = critic.critic.trainable_variables[0]
    kernel.assign((values + error * np.random.default_rng(0).normal(size=5)).reshape(-1, 1))
    measured = pg.lab.measure(critic, env, samples=SAMPLES)
    predicted = pg.lab.Expectation(critic, mdp, rows=10).predicted() - measured.exact
    print(
        f"TD(0), critic off by {error:g}: |bias| {max(measured.squared_bias, 0) ** 0.5:.5f}, "
        f"predicted {np.linalg.norm(predicted):.5f}, unbiased: {measured.unbiased}"
    )
