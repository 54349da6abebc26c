"""A3C beside A2C on the same budget, with workers of Ray: python examples/a3c.py [workers] [steps]"""

import sys

import kerasrl_pg as pg

workers = int(sys.argv[1]) if len(sys.argv) > 1 else 2
steps = int(sys.argv[2]) if len(sys.argv) > 2 else 200_000

for agent in (pg.A3C(seed=0), pg.A2C(seed=0)):
    agent.compile()
    asynchronous = isinstance(agent, pg.A3C)
    history = agent.fit(
        "CartPole-v1",
        total_steps=steps,
        num_envs=8 * workers if asynchronous else 8,  # Eight environments behind each gradient.
        epochs=5,
        verbose=2,
        **({"workers": workers} if asynchronous else {}),
    ).history
    found = agent.evaluate("CartPole-v1", episodes=20)["return"]
    stale = f", staleness {sum(history['staleness']) / 5:.2f}" if asynchronous else ""
    print(f"{type(agent).__name__}: return {found:.1f}, {history['steps_per_second'][-1]:,.0f} steps/s{stale}")
