"""Stored episodes: written whole or not at all, read as they were, judged, and what they say of other policies."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import gymnasium as gym
import keras
import numpy as np
import pytest
import tensorflow as tf

import kerasrl_pg as pg
from kerasrl_pg.data import Trajectories, estimate_return, record
from kerasrl_pg.data.estimate import METHODS, _weighted_means
from kerasrl_pg.data.trajectories import along

minari = pytest.importorskip("minari", reason="stored trajectories need Minari")


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    return tmp_path


def agent_for(env, method=pg.A2C, **settings):
    agent = method(networks=pg.Networks((8,), **settings), seed=0)
    agent.bind(env.observation_space, env.action_space)
    return agent


class Everything(gym.Env):
    """Observations and actions of many kinds; episodes of 3 to 6 steps, terminated and truncated by turns."""

    observation_space = gym.spaces.Dict(
        image=gym.spaces.Box(0, 255, (9, 9, 1), np.uint8),
        robot=gym.spaces.Tuple((gym.spaces.Discrete(3, start=2), gym.spaces.Box(-1.0, 1.0, (2,), np.float64))),
        word=gym.spaces.Text(5),
    )
    action_space = gym.spaces.Dict(
        arm=gym.spaces.Tuple((gym.spaces.Box(-0.1, 0.1, (2,), np.float32), gym.spaces.Discrete(3, start=1))),
        hand=gym.spaces.MultiBinary(2),
    )
    number = -1

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.observation_space.seed(int(self.np_random.integers(2**31)))
        self.left, self.number = int(self.np_random.integers(3, 7)), self.number + 1
        return self.observation_space.sample(), {}

    def step(self, action):
        assert self.action_space.contains(action)
        self.left -= 1
        ended = self.left == 0
        return self.observation_space.sample(), float(action["arm"][1]), ended and self.number % 2 > 0, ended, {}


def test_what_is_recorded_is_what_was_played():
    env = Everything()
    agent = agent_for(env)
    dataset = record(agent, Everything, "all/kinds-v0", episodes=7, num_envs=3, seed=4)
    assert dataset.total_episodes == 7 and dataset.observation_space == env.observation_space
    assert dataset.action_space == env.action_space
    for episode in dataset:
        assert 3 <= len(episode.rewards) <= 6
        flags = episode.terminations, episode.truncations
        assert not np.any([f[:-1] for f in flags]) and flags[0][-1] != flags[1][-1]
        np.testing.assert_array_equal(episode.rewards, episode.actions["arm"][1])
        assert env.action_space.contains(tf.nest.map_structure(lambda x: x[0], episode.actions))
        assert env.observation_space["image"].contains(episode.observations["image"][0])
        assert len(episode.infos["log_prob"]) == len(episode.rewards) + 1
    # Read as a rollout, it is what the policy did: the same log-probabilities, of the raw actions.
    rollout = Trajectories(dataset).rollout(range(7), agent.actor_critic)
    inputs, actions = pg.ops.flatten_time((rollout.inputs, rollout.actions))
    found = agent.actor_critic.distribution(inputs).log_prob(actions).numpy().reshape(rollout.valid.shape)
    np.testing.assert_allclose(found[rollout.valid], rollout.log_probs[rollout.valid], rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(
        rollout.inputs.observations["image"][1:][rollout.valid[1:]],
        rollout.next_inputs.observations["image"][:-1][rollout.valid[1:]],
    )
    sent = agent.head.to_env(rollout.actions)
    assert np.abs(sent["arm"][0]).max() <= 0.1 < np.abs(rollout.actions["arm"][0]).max()
    assert rollout.rewards[rollout.valid].sum() == sum(episode.rewards.sum() for episode in dataset)


def test_every_environment_plays_its_share():
    """Or the short episodes, which end first, would be too many."""

    class Long(gym.Env):
        observation_space, action_space = gym.spaces.Box(-1, 1, (1,)), gym.spaces.Discrete(2)
        made = 0

        def __init__(self):
            Long.made += 1
            self.length = 300 if Long.made == 1 else 1

        def reset(self, *, seed=None, options=None):
            super().reset(seed=seed)
            self.steps = 0
            return np.zeros(1, np.float32), {}

        def step(self, action):
            self.steps += 1
            return np.zeros(1, np.float32), 1.0, self.steps == self.length, False, {}

    dataset = record(agent_for(Long), gym.vector.SyncVectorEnv([Long] * 2), "long/ones-v0", episodes=5)
    assert sorted(len(episode.rewards) for episode in dataset) == [1, 1, 300, 300, 300]


@pytest.mark.parametrize("head", [pg.heads.Gaussian, pg.heads.TanhGaussian, pg.heads.Beta])
def test_actions_of_others_are_taken_for_raw_ones(head):
    """Of a dataset without `raw_action`."""
    space = gym.spaces.Box(np.float32([-2, 0]), np.float32([2, 1]))
    made = head.from_space(space)
    actions = space.sample() * 0.9 + 0.05
    np.testing.assert_allclose(made.to_env(made.from_env(actions[None]))[0], actions, atol=1e-4)
    low = made.from_env(space.low[None])
    assert np.isfinite(low).all()
    np.testing.assert_allclose(made.to_env(low)[0], space.low, atol=1e-5)


def stored(name, action_space=None, **changes):
    """A dataset of one CartPole episode, as others make them, with something changed."""
    episode = {
        "observations": np.zeros((4, 4), np.float32),
        "actions": np.array([0, 1, 0]),
        "rewards": np.ones(3),
        "terminations": np.array([False, False, True]),
        "truncations": np.zeros(3, bool),
        "infos": {"log_prob": np.full(4, -0.7)},
        **changes,
    }
    with pytest.warns(UserWarning):
        return minari.create_dataset_from_buffers(
            name,
            [minari.data_collector.EpisodeBuffer(**episode)],
            observation_space=gym.spaces.Box(-10, 10, (4,), np.float32),
            action_space=action_space or gym.spaces.Discrete(2),
        )


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"observations": np.full((4, 4), np.nan, np.float32)}, "`observation` must be finite.*step 0 of episode 0"),
        ({"rewards": np.array([1.0, np.inf, 1.0])}, "`rewards` must be finite. Received: inf in step 1 of episode 0"),
        ({"actions": np.array([0, 1, 2])}, "`actions` must be in Discrete.2.. Received: 2 in step 2 of episode 0"),
        ({"infos": None}, r"must say with which log-probabilities.*infos\['log_prob'\].*BehaviorCloning"),
        ({"infos": {"log_prob": np.array([-1.0, np.nan, 0.0, 0.0])}}, "must be finite. Received: nan in step 1 of"),
        ({"terminations": np.array([False, True, True])}, "must end with its last step. Received: an end in step 1"),
    ],
)
def test_what_is_wrong_in_a_dataset_is_named(changes, sentence):
    dataset = stored("cartpole/wrong-v0", **changes)
    networks = agent_for(gym.make("CartPole-v1").unwrapped).actor_critic
    networks = pg.A2C(networks=pg.Networks((8,)), seed=0)
    networks.bind(dataset.observation_space, dataset.action_space)
    with pytest.raises(ValueError, match=sentence):
        Trajectories(dataset).rollout([0], networks.actor_critic)


def test_an_episode_that_breaks_off_is_truncated():
    dataset = stored("cartpole/broken-v0", terminations=np.zeros(3, bool))
    agent = pg.A2C(networks=pg.Networks((8,)), seed=0)
    agent.bind(dataset.observation_space, dataset.action_space)
    assert Trajectories(dataset).rollout([0], agent.actor_critic).truncated[:, 0].tolist() == [False, False, True]


def test_who_could_not_have_acted_so_is_refused():
    class Certain(pg.heads.Categorical):
        def mask(self, distribution, masks):
            return super().mask(distribution, masks)

    dataset = stored("cartpole/other-v0", infos={"action_mask": np.ones((4, 2), np.int8)})
    behavior = pg.A2C(networks=pg.Networks((8,)), seed=0)
    behavior.bind(dataset.observation_space, dataset.action_space)
    trajectories = Trajectories(dataset, behavior)
    rollout = trajectories.rollout([0], behavior.actor_critic)
    assert (rollout.log_probs[:, 0] < 0.0).all()
    rollout.inputs.masks[1, 0] = [True, False]  # As an environment would that forbids what was done.
    with pytest.raises(ValueError, match="`behavior` must be able to have acted so.*in step 1 of episode 0"):
        trajectories._estimated(rollout, [0])


def test_ids_and_folders(folder):
    env = gym.make("CartPole-v1")
    agent = agent_for(env)
    with pytest.raises(ValueError, match="`dataset_id` must be of the form name-v0"):
        record(agent, "CartPole-v1", "cartpole", episodes=1)
    with pytest.raises(ValueError, match="`episodes` must be a whole number of at least 1"):
        record(agent, "CartPole-v1", "cartpole-v0", episodes=0)
    record(agent, "CartPole-v1", "cartpole-v0", episodes=2)
    with pytest.raises(ValueError, match="`dataset_id` must be new. Received: 'cartpole-v0'"):
        record(agent, "CartPole-v1", "cartpole-v0", episodes=2)
    assert sorted(path.name for path in folder.iterdir() if "cartpole" in path.name) == ["cartpole-v0"]
    assert minari.load_dataset("cartpole-v0").recover_environment().spec.id == "CartPole-v1"
    with pytest.raises(ValueError, match="`env` must end its episodes. Received: one of more than 300 steps"):
        record(agent_for(pg.envs.TabularMDP()), pg.envs.TabularMDP(max_episode_steps=None), "x-v0", 1, max_steps=300)
    with pytest.raises(ValueError, match="`dataset` must be the id of a dataset on this machine"):
        Trajectories("x-v0")
    with pytest.raises(TypeError, match="`behavior` must be a built agent"):
        Trajectories("cartpole-v0", behavior=pg.A2C())


@pytest.mark.slow
def test_a_kill_leaves_nothing_that_loads(folder):
    program = (
        "import kerasrl_pg as pg\n"
        "pg.data.record(pg.A2C(seed=0), 'CartPole-v1', 'cartpole/killed-v0', episodes=1_000_000, num_envs=8)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", program], env=os.environ, stderr=subprocess.DEVNULL)
    part = folder / "cartpole" / ".killed-v0.part" / "data" / "main_data.hdf5"
    try:
        while not (part.exists() and part.stat().st_size > 10_000):
            assert process.poll() is None
            time.sleep(0.05)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    with pytest.raises(ValueError, match="`dataset` must be the id of a dataset on this machine"):
        Trajectories("cartpole/killed-v0")
    env = gym.make("CartPole-v1")
    assert len(record(agent_for(env), "CartPole-v1", "cartpole/killed-v0", episodes=2)) == 2
    assert not Path(part).exists()


def two_policies(folder, episodes):
    """Episodes of a small process by one policy, another policy, what that returns, and what the first does."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MINARI_DATASETS_PATH", str(folder))
        env = pg.envs.TabularMDP(num_envs=50, max_episode_steps=5, num_states=4, num_actions=3, branching=3)
        acted, other = (pg.A2C(networks=pg.models.Tabular(initializer), seed=seed) for seed, initializer in enumerate(
            keras.initializers.RandomNormal(stddev=0.3, seed=s) for s in (1, 2)))  # fmt: skip
        for agent in (acted, other):
            agent.bind(env.observation_space, env.action_space)
        dataset = record(acted, env, "small/acted-v0", episodes=episodes, num_envs=50)
        mdp = pg.lab.MDP.of(env, 1.0)
        yield dataset, other, pg.lab.objective(mdp, other), pg.lab.objective(mdp, acted)


@pytest.fixture(scope="module")
def played(tmp_path_factory):
    yield from two_policies(tmp_path_factory.mktemp("datasets"), 2000)


@pytest.fixture(scope="module")
def played_little(tmp_path_factory):
    yield from two_policies(tmp_path_factory.mktemp("datasets"), 400)


def test_few_episodes_tell_two_policies_apart(played_little):
    dataset, other, truth, behavior = played_little
    found = estimate_return(other, dataset, "doubly_robust")
    low, high = found.interval
    assert low < truth < high < behavior and low < found.value < high and found.episodes == 400


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_the_estimate_is_near_the_truth(played, method):
    dataset, other, truth, behavior = played
    found = estimate_return(other, dataset, method)
    low, high = found.interval
    assert low < truth < high and low < found.value < high and found.episodes == 2000
    assert high - low < abs(truth - behavior) * 2 and 1.0 < found.effective_sample_size < 2000.0


@pytest.mark.slow
def test_intervals_hold_the_truth_as_often_as_they_say(played):
    """Of 20 parts of 50 episodes each; 15 or fewer would be chance once in 3,000 such tests."""
    dataset, other, truth, _ = played
    for method in ("per_decision", "weighted_per_decision", "doubly_robust"):
        held = 0
        for part in range(20):
            some = minari.MinariDataset(dataset.storage, dataset.episode_indices[50 * part : 50 * part + 50])
            low, high = estimate_return(other, some, method, batch_size=50).interval
            held += low < truth < high
        assert held > 15, (method, held)


def test_estimates_are_refused_where_they_cannot_be(played_little):
    dataset, other, *_ = played_little
    with pytest.raises(ValueError, match="`method` must be"):
        estimate_return(other, dataset, "plain")
    reinforce = pg.REINFORCE(networks=pg.models.Tabular(), seed=0)
    reinforce.bind(dataset.observation_space, dataset.action_space)
    with pytest.raises(ValueError, match='`method` must be another than "doubly_robust" of an agent without a critic'):
        estimate_return(reinforce, dataset, "doubly_robust")
    with pytest.raises(ValueError, match="`dataset`"):
        estimate_return(agent_for(gym.make("CartPole-v1")), dataset)


def test_two_do_not_record_one_dataset(folder):
    """Neither in one process nor in two; and who was refused leaves the other's alone."""
    told = []

    class Recording(gym.Env):
        observation_space, action_space = gym.spaces.Box(-1, 1, (1,)), gym.spaces.Discrete(2)

        def reset(self, *, seed=None, options=None):
            super().reset(seed=seed)
            return np.zeros(1, np.float32), {}

        def step(self, action):
            if not told:
                with pytest.raises(ValueError, match="`dataset_id` must be one that nobody else is recording"):
                    record(agent_for(Recording), "CartPole-v1", "both/same-v0", episodes=1)
                told.append(True)
            return np.zeros(1, np.float32), 1.0, True, False, {}

    assert len(record(agent_for(Recording), Recording, "both/same-v0", episodes=2)) == 2 and told
    assert sorted(path.name for path in (folder / "both").iterdir() if "same" in path.name) == ["same-v0"]


def test_actions_that_another_head_drew_are_refused():
    """Their log-probabilities are those of other numbers."""
    env = pg.envs.Pendulum(num_envs=2)
    acted = agent_for(env)
    dataset = record(acted, "Pendulum-v1", "pendulum/gaussian-v0", episodes=1)
    other = pg.A2C(networks=pg.Networks((8,), head=pg.heads.TanhGaussian), seed=0)
    other.bind(env.observation_space, env.action_space)
    with pytest.raises(ValueError, match="head, TanhGaussian, sends. Received: another.*in step 0 of episode 0"):
        Trajectories(dataset).rollout([0], other.actor_critic)
    Trajectories(dataset).rollout([0], acted.actor_critic)


def test_raw_actions_of_another_shape_are_refused():
    dataset = stored("cartpole/shape-v0", infos={"log_prob": np.zeros(4), "raw_action": np.zeros((4, 2), int)})
    agent = pg.A2C(networks=pg.Networks((8,)), seed=0)
    agent.bind(dataset.observation_space, dataset.action_space)
    with pytest.raises(ValueError, match="`actions` must be such as the policy's head, Categorical, sends"):
        Trajectories(dataset).rollout([0], agent.actor_critic)


def test_actions_that_masks_forbid_are_refused():
    masks = np.array([[1, 1], [1, 0], [1, 1], [1, 1]], np.int8)  # The second action is 1.
    dataset = stored("cartpole/forbidden-v0", infos={"log_prob": np.full(4, -0.7), "action_mask": masks})
    agent = pg.A2C(networks=pg.Networks((8,)), seed=0)
    agent.bind(dataset.observation_space, dataset.action_space)
    with pytest.raises(ValueError, match="`actions` must be such as the masks allow. Received: 1, which is forbidden"):
        Trajectories(dataset).rollout([0], agent.actor_critic)


def test_masks_may_be_nested_as_composite_actions_are():
    go = np.array([[1, 0], [0, 1], [1, 1], [1, 1]], np.int8)
    dataset = stored(
        "cartpole/nested-v0",
        action_space=gym.spaces.Dict(go=gym.spaces.Discrete(2), aim=gym.spaces.Discrete(3)),
        actions={"go": np.array([0, 1, 0]), "aim": np.array([2, 1, 0])},
        infos={"log_prob": np.full(4, -0.7), "action_mask": {"go": go}},
    )
    agent = pg.A2C(networks=pg.Networks((8,)), action_masks="info", seed=0)
    agent.bind(dataset.observation_space, dataset.action_space)
    masks = Trajectories(dataset).rollout([0], agent.actor_critic).inputs.masks[:, 0]
    np.testing.assert_array_equal(masks, np.bool_([[1, 1, 1, 1, 0], [1, 1, 1, 0, 1], [1, 1, 1, 1, 1]]))


def test_masks_in_tuples_are_read_as_minari_writes_them():
    aim = np.array([[0, 0, 1], [0, 1, 0], [1, 0, 1], [1, 1, 1]], np.int8)
    dataset = stored(
        "cartpole/tuples-v0",
        action_space=gym.spaces.Tuple((gym.spaces.Discrete(2), gym.spaces.Discrete(3))),
        actions=(np.array([0, 1, 0]), np.array([2, 1, 0])),
        infos={
            "log_prob": np.full(4, -0.7),
            "action_mask": (np.ones((4, 2), np.int8), aim),
        },
    )
    agent = pg.A2C(networks=pg.Networks((8,)), action_masks="info", seed=0)
    agent.bind(dataset.observation_space, dataset.action_space)
    masks = Trajectories(dataset).rollout([0], agent.actor_critic).inputs.masks[:, 0]
    np.testing.assert_array_equal(masks, np.concatenate([np.ones((3, 2)), aim[:3]], -1) > 0)


def test_small_datasets_are_read_once(monkeypatch):
    dataset = stored("cartpole/once-v0")
    agent = pg.A2C(networks=pg.Networks((8,)), seed=0)
    agent.bind(dataset.observation_space, dataset.action_space)
    for kept, reads in ((2**20, 1), (10, 4)):  # Once more, for whether there are masks.
        monkeypatch.setattr("kerasrl_pg.data.trajectories.KEPT", kept)
        trajectories, seen = Trajectories(dataset), []
        monkeypatch.setattr(minari.MinariDataset, "__getitem__", counted(seen))
        for _ in range(3):
            trajectories.rollout([0], agent.actor_critic)
        monkeypatch.undo()
        assert len(seen) == reads


def counted(seen, read=minari.MinariDataset.__getitem__):
    return lambda dataset, number: seen.append(number) or read(dataset, number)


def test_memory_goes_along_stored_episodes():
    """What networks remember is that of each episode replayed from its first step, in what they value, too."""
    env = pg.envs.TabularMDP(num_envs=2, max_episode_steps=5)
    acted = pg.A2C(networks=pg.Networks((6,), memory=pg.models.GRU(4)), seed=0)
    dataset = record(acted, env, "memory/acted-v0", episodes=4, num_envs=2)
    networks = acted.actor_critic
    rollout = Trajectories(dataset).rollout(range(4), networks)
    found = along(networks, rollout)
    values = networks.values(found.inputs).numpy()
    after = networks.values(found.next_inputs).numpy()
    for column in range(4):
        memory = np.zeros((1, networks.memory_size), "float32")
        length = int(rollout.valid[:, column].sum())
        for t in range(length):
            inputs = pg.rollouts.Inputs(rollout.inputs.observations[t, column : column + 1], (), [t == 0], memory)
            assert values[t, column] == pytest.approx(float(networks.value_distribution(inputs).mean()[0]), abs=1e-5)
            _, memory = networks.step(inputs)
        last = pg.rollouts.Inputs(rollout.next_inputs.observations[length - 1, column : column + 1], (), (), memory)
        assert after[length - 1, column] == pytest.approx(float(networks.value_distribution(last).mean()[0]), abs=1e-5)
    assert np.abs(values - networks.values(rollout.inputs)).max() > 1e-3  # As if each step began an episode.


@pytest.mark.parametrize("steps", [1, 3])
def test_the_jackknife_leaves_out_one_after_the_other(steps):
    rng = np.random.default_rng(0)
    weights, rewards = np.exp(rng.normal(size=(steps, 6))), rng.normal(size=(steps, 6))
    weights[0, 2] = 1e20  # Of nearly all the weight: differences would have no digit left.
    value, without = _weighted_means(weights, rewards)

    def mean(w, r):
        return ((w * r).sum(1) / w.sum(1)).sum()

    assert value == pytest.approx(mean(weights, rewards))
    for i in range(6):
        others = [j for j in range(6) if j != i]
        assert without[i] == pytest.approx(mean(weights[:, others], rewards[:, others]))
