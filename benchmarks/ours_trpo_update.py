"""kerasrl_pg's TRPO updates, timed: `ours_trpo_update.py CASE_JSON`, prints one JSON line, as the peer does."""

import json
import sys
import time

import gymnasium
import keras
import numpy as np
import tensorflow as tf

import kerasrl_pg as pg


def collect(agent, env, steps, seed):
    """A rollout [steps, 1] of the agent's policy, stepped by hand."""
    rows = []
    observation, _ = env.reset(seed=seed)
    for step in range(steps):
        policy = agent.policy(tf.constant(observation[None], tf.float32))
        action = agent.head.sample(policy, agent.head.noise([seed, step], (1,)))
        following, reward, terminated, truncated, _ = env.step(agent.head.to_env(action).numpy()[0])
        rows.append(
            (observation, action[0], policy.log_prob(action)[0], reward, terminated, truncated, following, True)
        )
        observation = env.reset()[0] if terminated or truncated else following
    columns = [np.array(column)[:, None] for column in zip(*rows, strict=True)]
    columns = [column.astype("float32") if column.dtype == "float64" else column for column in columns]
    rollout = pg.rollouts.Rollout(*map(tf.constant, columns))
    inputs, following = (pg.rollouts.Inputs(x) for x in (rollout.inputs, rollout.next_inputs))
    return rollout._replace(inputs=inputs, next_inputs=following)


def main(case):
    agent = pg.TRPO(
        horizon=case["samples"],
        networks=pg.Networks(hidden_units=(64, 64)),
        gamma=case["gamma"],
        estimator=pg.estimators.GAE(case["gae_lambda"]),
        max_kl=case["max_kl"],
        cg_iterations=case["cg_iterations"],
        damping=case["damping"],
        backtracks=case["backtracks"],
        backtrack_ratio=case["backtrack_ratio"],
        update_epochs=case["critic_passes"],
        minibatch_size=case["minibatch_size"],
        seed=case["seed"],
    )
    agent.compile(keras.optimizers.Adam(case["learning_rate"]))
    env = gymnasium.make(case["env"])
    agent.bind(env.observation_space, env.action_space)
    rollout = collect(agent, env, case["samples"], case["seed"])
    update = tf.function(agent.train_step, jit_compile=agent.compiled_with_xla, autograph=False)
    variables = [*agent.variables, *agent.optimizer.variables]
    start = [variable.numpy() for variable in variables]
    seconds, logs = [], {}
    for _ in range(case["warmup"] + case["updates"]):
        # Always the first update, so that every side does it on a rollout of its own policy.
        for variable, value in zip(variables, start, strict=True):
            variable.assign(value)
        started = time.perf_counter()
        logs = {name: float(value) for name, value in update(rollout).items()}
        seconds.append(time.perf_counter() - started)
    report = {
        "seconds": seconds[case["warmup"] :],
        "first_call": seconds[0],
        "kl": logs["kl"],
        "step_fraction": logs["step_fraction"],
        "versions": {"kerasrl-pg": pg.__version__, "tensorflow": tf.__version__, "keras": keras.__version__},
    }
    print(json.dumps(report))


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
