"""Tabular and linear policies beside value iteration, and scores of described actions beside one logit an action.

    .venv/bin/python benchmarks/policy_classes.py
    .venv/bin/python benchmarks/policy_classes.py --case=taxi-tabular --seeds=5

Worlds: gymnasium's toy texts, of which the transition tables are learnt from inside the compiled program
(`pg.lab.MDPEnv`), and a shop with 1,000 goods, a contextual bandit. Every (case, seed) is a process of its own, with
one TensorFlow thread, which trains and then plays 1,000 deterministic episodes, of toy texts in gymnasium's own; where
there is a table, the deterministic policy's return is computed from it, too. Each finished run is written to
`results/policy_classes.json` at once, and not run again; at the end `results/policy_classes.md` is made.
"""

import argparse
import dataclasses
import json
import time
from pathlib import Path

import gymnasium as gym
import keras
import numpy as np
import tensorflow as tf
from records import Records, origin, run_all, run_apart
from throughput import machine

import kerasrl_pg as pg

RESULTS = Path(__file__).parent / "results" / "policy_classes.json"
EPISODES, GAMMA = 1000, 0.99
# By world: gymnasium's id and the time limit, which is the environment's own but for CliffWalking's, which has none.
WORLDS = {"frozen_lake": ("FrozenLake-v1", 100), "cliff": ("CliffWalking-v1", 200), "taxi": ("Taxi-v4", 200)}
# By case: world, policy, and the steps.
CASES = {
    **{
        f"{world}-{policy}": (world, policy, steps)
        for world in WORLDS
        for policy, steps in (("value iteration", 0), ("tabular", 1_048_576), ("linear", 1_048_576))
    },
    "shop-scored": ("shop", "scored", 65_536),
    "shop-networks": ("shop", "networks", 65_536),
    "shop-networks-long": ("shop", "networks", 524_288),
}
SEEDS = 5
TABLES = {"num_envs": 128, "horizon": 64, "damping": 0.001, "learning_rate": 0.05}
SETTINGS = {
    "frozen_lake": {**TABLES, "max_kl": 0.02, "entropy_coef": 0.1},
    "cliff": {**TABLES, "max_kl": 0.01, "entropy_coef": 0.4},
    "taxi": {**TABLES, "max_kl": 0.05, "entropy_coef": 0.2},
    "shop": {"num_envs": 128, "horizon": 8, "minibatch_size": 256, "update_epochs": 4, "learning_rate": 0.01},
}
# What was tried first, on seed 0 unless said: returns of the deterministic policy.
TRIED = {
    "PPO, 32 environments, 4 passes of 512, Adam 0.05, no bonus": "FrozenLake tabular 0.728, linear 0.730 (300,000 "
    "steps); CliffWalking -17 and -17 (300,000), with bonuses, scaled rewards and other rates -15 to -17; Taxi linear "
    "7.93, tabular -188 (500,000); Taxi tabular with scaled rewards, Adam 0.1 and a bonus of 0.02 -14.3 (1,000,000). "
    "With a bonus that falls from 5 to 0, λ = 0.5 and advantages as they are, CliffWalking tabular -13 (500,000).",
    "TRPO as below, radius 0.05, no bonus": "FrozenLake 0.639 and 0.711 (500,000), CliffWalking -15 and -17 (500,000), "
    "Taxi 7.903 (1,000,000) and 7.93 (500,000): the policy is certain before it has seen enough.",
    "TRPO, radius 0.05, the bonus falling from 0.1 or 0.2": "FrozenLake 0.740 and 0.740, 0.728 and 0.740 (524,288); "
    "CliffWalking -15, four times (524,288); Taxi 7.923 and 7.93, 7.93 and 7.93 (1,048,576 and 524,288).",
    "TRPO, CliffWalking, radius 0.02, the bonus falling from 0.2": "-13 and -15 (524,288).",
    "TRPO, FrozenLake, radius 0.02 or 0.05, the bonus falling from 0.1, seed 1": "0.730 and 0.730 (tabular, 524,288); "
    "the settings below were seen on seeds 0 and 1 of FrozenLake and CliffWalking before the runs of the table.",
    "the shop, where what is paid is the cosine itself": "one logit an action learns it, too: in 4 dimensions 0.936 of "
    "0.987 at best, in 16 0.565 of 0.714, after 524,288 steps 0.576; scored 0.987, and 0.702 after 32,768 steps.",
    "the shop, one logit an action, Adam 0.003": "0.423 (65,536 steps).",
    "the shop, one logit an action, Adam 0.03": "0.522 (65,536 steps).",
}
RECORDS = Records(RESULTS, lambda record: (list(CASES).index(record["case"]), record["seed"]))


class Unmasked(gym.Wrapper):
    """Says nothing of the actions that Taxi thinks useless, which agents would otherwise heed."""

    def reset(self, **kwargs):
        observation, _ = super().reset(**kwargs)
        return observation, {}

    def step(self, action):
        return *super().step(action)[:-1], {}


def game(world):
    """gymnasium's environment, with its time limit."""
    name, limit = WORLDS[world]
    return Unmasked(gym.make(name, max_episode_steps=limit))


def features_of(world):
    """φ(s, a) of each state and action, float32 [S, A, p]; the optimal policy is linear in each."""
    env = game(world).unwrapped
    if world == "frozen_lake":  # p(s' | s, a), so that θ is to order the cells as V does.
        return pg.lab.MDP.of(env, GAMMA, None).transitions.astype("float32")
    if world == "cliff":  # The cell that is entered, before a fall leads back to the start.
        rows, columns = np.divmod(np.arange(48)[:, None], 12)
        rows = np.clip(rows + [-1, 0, 1, 0], 0, 3)
        columns = np.clip(columns + [0, 1, 0, -1], 0, 11)
        return np.eye(48, dtype="float32")[12 * rows + columns]
    phi = np.zeros((500, 6, 102), "float32")  # The cell that is entered, by where to go, and whether the action serves.
    for state in range(500):
        _, _, passenger, destination = env.decode(state)
        goal = destination if passenger == 4 else passenger
        for action in range(6):
            ((_, following, _, delivered),) = env.P[state][action]
            row, column, then, _ = env.decode(following)
            phi[state, action, 25 * goal + 5 * row + column] = 1.0
            serves = delivered or (passenger < 4 and then == 4)
            phi[state, action, 100:] = action >= 4 and serves, action >= 4 and not serves
    return phi


@keras.saving.register_keras_serializable("policy_classes")
class Looked(keras.layers.Layer):
    """φ(s, ·) of a table, by the state's number."""

    def __init__(self, world, **kwargs):
        super().__init__(**kwargs)
        self.world, self.table = world, features_of(world)

    def call(self, states):
        return keras.ops.take(self.table, states, axis=0)

    def get_config(self):
        return {**super().get_config(), "world": self.world}


def goods():
    """What describes 1,000 goods, unit vectors [1000, 8], and how what is asked for turns into them, [8, 8]."""
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(1000, 8))
    turn = np.linalg.qr(rng.normal(size=(8, 8)))[0]
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype("float32"), turn.astype("float32")


@dataclasses.dataclass(frozen=True)
class Shop(pg.envs.CompiledEnv):
    """Someone asks, a uniform direction in 8 dimensions; 1 is paid for one of 1,000 goods that is near what they mean.

    What they mean is what they ask, turned by a rotation that nobody is told; near is a cosine above 0.7.
    """

    max_episode_steps: int | None = 1

    observation_space = gym.spaces.Box(-1.0, 1.0, (8,))
    action_space = gym.spaces.Discrete(1000)
    reset_noise = 8

    def reset(self, noise):
        asked = tf.math.ndtri(noise)
        return asked / tf.norm(asked, axis=-1, keepdims=True)

    def observe(self, state):
        return tf.clip_by_value(state, -1.0, 1.0)  # Rounding may leave 1.0000001.

    def step(self, state, actions, noise):
        vectors, turn = goods()
        paid = tf.cast(tf.reduce_sum(tf.gather(vectors, actions) * (state @ turn), -1) > 0.7, tf.float32)
        return pg.envs.Transition(state, paid, tf.ones_like(paid, tf.bool))


def make_agent(case, seed):
    """The agent, and how many environments it learns from at once."""
    world, policy, steps = CASES[case]
    settings = dict(SETTINGS[world])
    num_envs, rate = settings.pop("num_envs"), settings.pop("learning_rate")
    if world == "shop":
        networks = pg.models.Scored(goods()[0], (64,)) if policy == "scored" else pg.Networks((64,))
        agent = pg.PPO(networks=networks, seed=seed, **settings)
        agent.compile(keras.optimizers.Adam(rate, epsilon=1e-5, global_clipnorm=0.5))
        return agent, num_envs
    networks = pg.models.Linear(Looked(world)) if policy == "linear" else pg.models.Tabular()
    iterations = steps // (num_envs * settings["horizon"])
    bonus = keras.optimizers.schedules.PolynomialDecay(settings.pop("entropy_coef"), iterations, 0.0)
    agent = pg.TRPO(networks=networks, gamma=GAMMA, entropy_coef=bonus, seed=seed, **settings)
    agent.compile(keras.optimizers.Adam(rate, epsilon=1e-5), steps_per_execution=8)
    return agent, num_envs


def planned(world):
    """An agent whose table holds the policy that value iteration finds at the same γ."""
    mdp = pg.lab.MDP.of(game(world), GAMMA, None)
    best = np.eye(mdp.shape[1])[mdp.optimal_policy()]
    agent = pg.TRPO(networks=pg.models.Tabular(10.0 * best), seed=0)
    agent.bind(gym.spaces.Discrete(mdp.shape[0]), gym.spaces.Discrete(mdp.shape[1]))
    return agent


def train(case, seed):
    """One run, in this process; its record."""
    world, policy, steps = CASES[case]
    record, start = {"case": case, "seed": seed}, time.perf_counter()
    if policy == "value iteration":
        agent = planned(world)
    else:
        agent, num_envs = make_agent(case, seed)
        mdp = None if world == "shop" else pg.lab.MDP.of(game(world), GAMMA)
        env = Shop(num_envs=num_envs) if mdp is None else pg.lab.MDPEnv(num_envs=num_envs, mdp=mdp)
        history = agent.fit(env, total_steps=steps, epochs=16, verbose=0).history
        record.update({name: history[name] for name in ("env_steps", "episode_return", "entropy")})
    record["seconds"] = round(time.perf_counter() - start, 1)
    played = Shop() if world == "shop" else lambda: game(world)
    record["evaluation"] = agent.evaluate(played, episodes=EPISODES, seed=1_000_000 + 1000 * seed)
    record["parameters"] = int(sum(np.prod(v.shape) for v in agent.policy.trainable_variables))
    if world != "shop":
        mdp = pg.lab.MDP.of(game(world), 1.0)
        chosen = pg.lab.PolicyTable(agent, mdp.observations).probabilities().argmax(-1)
        record["exact"] = mdp.evaluate(np.eye(mdp.shape[1])[chosen]).objective
    return {**record, **origin()}


def at_best(world):
    """The most that any policy can expect of an episode, of the shop estimated from 100,000 questions."""
    if world != "shop":  # Backward induction: this policy may look at the clock.
        return pg.lab.MDP.of(game(world), 1.0).optimal_values()[0]
    vectors, turn = goods()
    asked = np.random.default_rng(1).normal(size=(100_000, 8))
    asked /= np.linalg.norm(asked, axis=1, keepdims=True)
    return float(np.mean([(part @ turn @ vectors.T).max(1) > 0.7 for part in np.split(asked, 100)]))


def table(groups):
    """`policy_classes.md`, from records by case."""

    def told(values):
        each = ", ".join(f"{value:.4g}" for value in values)
        return f"{np.mean(values):.4g} | {min(values):.4g} | {each}"

    lines = [
        "# Policy classes",
        "",
        f"Return of the final deterministic policy. Played: mean of {EPISODES:,} episodes a seed, undiscounted, on new "
        "environments, of toy texts gymnasium's own with their time limits. Computed: what the same policy can expect "
        "there, from the environment's table. At best: the optimum under the time limit, by backward induction; "
        "that policy looks at the clock, which no other here does. Value iteration: the best policy without time limit "
        f"at γ = {GAMMA}, put in a table and played on the same seeds.",
        "",
        "| environment, limit | policy | θ | steps | at best | computed, mean | worst | each seed | played, mean "
        "| worst | each seed | seconds a run |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: | --- | ---: | ---: | --- | ---: |",
    ]
    best = {world: at_best(world) for world in SETTINGS}
    for name, records in groups.items():
        world, policy, steps = CASES[name]
        env = "the shop, 1" if world == "shop" else ", ".join(map(str, WORLDS[world]))
        computed = told([r["exact"] for r in records]) if "exact" in records[0] else "- | - | -"
        played = told([r["evaluation"]["return"] for r in records])
        few = "" if len(records) >= SEEDS else f", not yet {SEEDS} seeds"
        lines.append(
            f"| {env} | {policy}{few} | {records[0]['parameters']:,} | {steps or '-':{',' if steps else ''}} "
            f"| {best[world]:.4g} | {computed} | {played} | {np.mean([r['seconds'] for r in records]):.0f} |"
        )
    lines += [
        "",
        "FrozenLake-v1 is slippery, 4x4. Taxi-v3 is refused by this gymnasium, which names Taxi-v4 instead, and "
        "CliffWalking-v0, CliffWalking-v1. Taxi's `info['action_mask']` is hidden, in training and in play.",
        "",
        "Tabular is θ[s, a]. Linear is θᵀ φ(s, a), and φ: for FrozenLake the probabilities of the next cell (16); for "
        "CliffWalking the cell that is entered, before a fall (48); for Taxi the cell that is entered, by the place "
        "to go to (the passenger's, then the destination: 4 x 25), whether the action picks up or delivers, and "
        "whether it tries to in vain. In each an optimal policy is linear, by what is known of the environment.",
        "",
        "The shop: someone asks, a uniform direction x in 8 dimensions; 1,000 goods are unit vectors z_a; 1 is paid "
        "where the cosine of z_a and Rx is above 0.7, R a rotation that is not told. Scored sees z_a, one network of a "
        "layer of 64 for all goods; Networks has the same layer over x and one logit an action.",
        "",
        "How it went, mean return of training's episodes (sampled actions) in sixteen equal shares of the steps, mean "
        "of the seeds:",
        "",
    ]
    for name, records in groups.items():
        if CASES[name][2]:
            curve = np.mean([r["episode_return"] for r in records], 0)
            lines.append(f"- {name}: {', '.join(f'{value:.3g}' for value in curve)}")
    lines += [
        "",
        "Settings beside the defaults; toy texts TRPO, whose `learning_rate` is the critic's, γ = 0.99, the bonus "
        "`entropy_coef` falling linearly to 0 over the run; the shop PPO, Adam, epsilon 1e-5 and gradient norm 0.5:",
        "",
    ]
    lines += [f"- {w}: {', '.join(f'{key} {value}' for key, value in s.items())}" for w, s in SETTINGS.items()]
    everything = [record for records in groups.values() for record in records]
    versions = sorted({f"{k} {v}" for record in everything for k, v in record["versions"].items()})
    host = machine()
    lines += [
        "",
        "What else was tried, on seed 0 unless said:",
        "",
        *(f"- {name}: {result}" for name, result in TRIED.items()),
        "",
        f"One TensorFlow thread a run, {host['cpu']}, {host['cpus']} CPUs shared with other work, to which the seconds "
        f"are due. {min(r['date'] for r in everything)} to {max(r['date'] for r in everything)}, Python "
        f"{host['python']}, {', '.join(versions)}.",
        "",
        "    python benchmarks/policy_classes.py",
    ]
    return "\n".join(lines) + "\n"


def report():
    records = RECORDS.load()
    groups = {name: [record for record in records if record["case"] == name] for name in CASES}
    RESULTS.with_suffix(".md").write_text(table({name: group for name, group in groups.items() if group}))


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--case", choices=list(CASES), action="append", help="default: all")
    parser.add_argument("--seeds", type=int, default=SEEDS, help="how many, 0 for the report only")
    parser.add_argument("--processes", type=int, default=1, help="runs side by side")
    parser.add_argument("--only_seed", type=int, help=argparse.SUPPRESS)  # a run's own process
    arguments = parser.parse_args()
    if arguments.only_seed is not None:
        print(json.dumps(train(arguments.case[0], arguments.only_seed)))
        return
    done = {(record["case"], record["seed"]) for record in RECORDS.load()}
    runs = [(name, seed) for seed in range(arguments.seeds) for name in arguments.case or CASES]

    def run(name, seed):
        record = run_apart(__file__, [f"--case={name}", f"--only_seed={seed}"])
        RECORDS.add(record)
        told = f"{record['evaluation']['return']:.4f}, computed {record.get('exact', np.nan):.4f}"
        print(f"{name}, seed {seed}: {told} ({record['seconds']:.0f} s)", flush=True)

    try:
        run_all(run, [each for each in runs if each not in done], arguments.processes)
    finally:
        report()


if __name__ == "__main__":
    main()
