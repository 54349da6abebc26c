"""How far an update moves the policy, by three rules: python examples/trust_region.py [iterations]

The constrained gradient's step has one length in parameters, the natural gradient's one KL divergence in second order,
and TRPO's line search makes that a promise.
"""

import sys

import numpy as np

import kerasrl_pg as pg

iterations = int(sys.argv[1]) if len(sys.argv) > 1 else 100
bound = 0.01  # nats
env = pg.envs.CartPole(num_envs=8)

print("method                KL of an update: median, greatest   above the bound   return")
for method, settings in (
    (pg.ConstrainedGradient, {"max_squared_norm": 0.01}),
    (pg.NPG, {"max_kl": bound, "damping": 1e-3}),
    (pg.TRPO, {"max_kl": bound, "damping": 1e-3}),
):
    agent = method(horizon=128, seed=0, **settings)
    agent.compile(jit_compile=False)  # A hundred updates take less time than XLA would to compile them.
    # One iteration an epoch, so that the history holds every update.
    history = agent.fit(env, epochs=iterations, steps_per_epoch=1, verbose=0).history
    kl = np.array(history["kl"])
    print(
        f"{method.__name__:20}  {np.median(kl):.4f}, {kl.max():.4f} nats"
        f"{np.mean(kl > bound):25.0%}{history['episode_return'][-1]:15.0f}"
    )
