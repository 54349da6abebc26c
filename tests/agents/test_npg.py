"""The natural policy gradient: its length, its solver, and that it does not see the parametrisation."""

import gymnasium as gym
import keras
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp

import kerasrl_pg as pg
from kerasrl_pg.rollouts import Inputs, Rollout

tfd = tfp.distributions
OBSERVATIONS = gym.spaces.Box(-np.inf, np.inf, (3,), np.float32)
DISCRETE, BOX = gym.spaces.Discrete(3), gym.spaces.Box(-1, 1, (1,), np.float32)


def agent_of(head, method=pg.NPG, policy=None, actions=None, xla=False, **kwargs):
    """An agent with a policy of some twenty parameters, and its train_step, compiled."""
    inputs = keras.Input((3,))
    if policy is None:
        hidden = keras.layers.Dense(3, "tanh", kernel_initializer=keras.initializers.RandomNormal(0.0, 1.0, seed=1))
        policy = keras.Model(inputs, head(hidden(inputs)))
        head.dense.kernel.assign(np.random.default_rng(2).normal(size=head.dense.kernel.shape))
    critic = keras.Model(inputs, pg.heads.NormalValue("zeros")(inputs))
    settings = {"horizon": 64, "minibatch_size": 64, "update_epochs": 1, "seed": 0}
    agent = method(policy, critic, **{**settings, **kwargs})
    agent.compile(keras.optimizers.SGD(0.0), jit_compile=False)
    agent.bind(OBSERVATIONS, actions or (DISCRETE if isinstance(agent_head(policy), pg.heads.Categorical) else BOX))
    return agent, tf.function(agent.train_step, jit_compile=xla, autograph=False)


def agent_head(policy):
    return next(layer for layer in policy._flatten_layers() if isinstance(layer, pg.heads.Head))


def rollout(agent, seed=0, horizon=64):
    """One environment's rollout of random states and rewards, with the policy's own actions."""
    rng = np.random.default_rng(seed)
    observations = rng.normal(size=(horizon, 1, 3)).astype("float32")
    policy = agent.policy(observations[:, 0])
    head = agent_head(agent.policy)
    actions = head.sample(policy, head.noise([seed, 1], (horizon,)))
    no = tf.zeros((horizon, 1), tf.bool)
    return Rollout(
        Inputs(tf.constant(observations)),
        actions[:, None],
        policy.log_prob(actions)[:, None],
        tf.constant(rng.normal(size=(horizon, 1)).astype("float32")),
        ~no,  # Every step an episode of its own, so that advantages are rewards.
        no,
        Inputs(tf.constant(observations)),
        ~no,
    )


def theta(policy):
    return np.concatenate([np.array(w).ravel() for w in policy.trainable_weights])


HEADS = {
    "categorical": lambda: pg.heads.Categorical(3),
    "gaussian": lambda: pg.heads.Gaussian(1, low=-1, high=1),
    "gaussian_state_std": lambda: pg.heads.Gaussian(1, low=-1, high=1, state_dependent_std=True),
    "tanh_gaussian": lambda: pg.heads.TanhGaussian([-1.0], [1.0]),
    "beta": lambda: pg.heads.Beta([-1.0], [1.0]),
    "mixture": lambda: pg.heads.GaussianMixture(1, 2, low=-1, high=1),
}


@pytest.mark.parametrize("name", HEADS)
@pytest.mark.quick("categorical")
def test_step_has_the_divergence_asked_for(name):
    """½ d^T F d = δ, and what is left out is of third order, and small without hidden layers."""
    inputs = keras.Input((3,))
    head = HEADS[name]()
    agent, step = agent_of(None, policy=keras.Model(inputs, head(inputs)), max_kl=1e-4, damping=1e-6, cg_iterations=40)
    data = rollout(agent)
    old = agent.policy(data.inputs.observations[:, 0])
    logs = step(data)
    kl = float(tf.reduce_mean(old.kl_divergence(agent.policy(data.inputs.observations[:, 0]))))
    assert kl == pytest.approx(1e-4, rel=0.1)
    assert float(logs["kl"]) == pytest.approx(kl, rel=1e-2)
    assert float(logs["policy_loss"]) < 0.0


@pytest.mark.parametrize(
    ("head", "mode"),
    [("categorical", "graph"), ("categorical", "xla"), ("categorical", "eager"), ("gaussian", "graph")],
)
@pytest.mark.quick("gaussian-graph")
def test_conjugate_gradient_steps_as_the_exact_inverse(head, mode):
    steps = []
    for iterations in (100, None):
        agent, step = agent_of(HEADS[head](), cg_iterations=iterations, damping=1e-2, xla=mode == "xla")
        before = theta(agent.policy)
        logs = (agent.train_step if mode == "eager" else step)(rollout(agent))
        assert ("cg_residual" in logs) == (iterations is not None)
        steps.append(theta(agent.policy) - before)
    np.testing.assert_allclose(*steps, atol=2e-3 * np.abs(steps[1]).max())


def test_step_solves_the_explicit_system():
    """Against NumPy: F from outer products of scores under the policy's own expectation, ∇J from the scores taken."""
    agent, step = agent_of(HEADS["categorical"](), max_kl=0.02, damping=0.05, cg_iterations=100)
    data = rollout(agent)
    observations, actions = data.inputs.observations[:, 0], data.actions[:, 0].numpy()
    with tf.GradientTape(persistent=True) as tape:
        log_probs = tf.nn.log_softmax(agent.policy(observations).logits)
    blocks = tape.jacobian(log_probs, [v.value for v in agent.policy.trainable_variables])
    scores = np.concatenate([b.numpy().reshape(64, 3, -1) for b in blocks], axis=2).astype("float64")
    fisher = np.einsum("sa,sap,saq->pq", np.exp(log_probs.numpy().astype("float64")), scores, scores) / 64
    # Nothing bootstraps; the advantage is the reward less the value, standardised.
    advantages = data.rewards[:, 0].numpy() - agent.critic(observations).mean().numpy()
    advantages = (advantages - advantages.mean()) / advantages.std()
    gradient = np.mean(scores[np.arange(64), actions] * advantages[:, None], axis=0)
    direction = np.linalg.solve(fisher + 0.05 * np.eye(len(fisher)), gradient)
    expected = np.sqrt(2 * 0.02 / (gradient @ direction)) * direction
    before = theta(agent.policy)
    step(data)
    np.testing.assert_allclose(theta(agent.policy) - before, expected, atol=1e-3 * np.abs(expected).max())


# Parametrisation independence (notes 3.6.2)


def linear(matrix=None, kernel=None):
    """π = softmax(x A K): `matrix` A is fixed and K trained, so A K is another parametrisation of the same policies."""
    inputs = keras.Input((3,))
    head = pg.heads.Categorical(3)
    mixing = keras.layers.Dense(3, use_bias=False, trainable=False)
    policy = keras.Model(inputs, head(mixing(inputs)))
    mixing.kernel.assign(np.eye(3) if matrix is None else matrix)
    head.dense.kernel.assign(kernel)
    return policy


def change_of_policy(method, policy, **kwargs):
    """How log π changes in one update, [S, actions]."""
    agent, step = agent_of(None, method, policy, **kwargs)
    data = rollout(agent)
    before = tf.nn.log_softmax(policy(data.inputs.observations[:, 0]).logits).numpy()
    step(data)
    return tf.nn.log_softmax(policy(data.inputs.observations[:, 0]).logits).numpy() - before


def angle(a, b):
    return np.degrees(np.arccos(np.clip(np.sum(a * b) / np.linalg.norm(a) / np.linalg.norm(b), -1, 1)))


@pytest.mark.parametrize("iterations", [None, 40])
@pytest.mark.slow
def test_natural_gradient_does_not_see_the_parametrisation(iterations):
    rng = np.random.default_rng(3)
    kernel, matrix = rng.normal(size=(3, 3)), rng.normal(size=(3, 3)) * [[3.0], [1.0], [0.3]]
    twins = linear(kernel=kernel), linear(matrix, np.linalg.solve(matrix, kernel))
    np.testing.assert_allclose(*(p(np.eye(3, dtype="float32")).logits for p in twins), atol=1e-5)
    natural = [change_of_policy(pg.NPG, p, cg_iterations=iterations, damping=0.0) for p in twins]
    np.testing.assert_allclose(*natural, atol=2e-2 * np.abs(natural[0]).max())
    assert angle(*natural) < 1.0
    # Damping measures parameters: the more of it, the more the parametrisation shows.
    twins = linear(kernel=kernel), linear(matrix, np.linalg.solve(matrix, kernel))
    assert angle(*(change_of_policy(pg.NPG, p, cg_iterations=iterations, damping=0.1) for p in twins)) > 10.0
    twins = linear(kernel=kernel), linear(matrix, np.linalg.solve(matrix, kernel))
    plain = [change_of_policy(pg.ConstrainedGradient, p) for p in twins]
    assert angle(*plain) > 20.0


class Softplus(pg.heads.Gaussian):
    """σ = log(1 + e^x) in place of e^x: the same normal distributions, parametrised nonlinearly differently."""

    def build(self, input_shape):
        super().build(input_shape)
        self.log_std.assign(tf.math.log(tf.math.expm1(tf.exp(self.log_std.value))))
        self.log_std.constraint = None

    def distribution(self, parameters):
        loc, x = tf.split(parameters, 2, axis=-1)
        return tfd.Independent(tfd.Normal(loc, tf.nn.softplus(x)), 1)


@pytest.mark.slow
def test_nor_does_it_see_a_nonlinear_one():
    """Its first-order change is the same, so here the step is short; at σ = 4.5 the coordinates differ most."""
    changes = {}
    for method, kwargs in (
        (pg.NPG, {"max_kl": 1e-5, "damping": 0.0, "cg_iterations": None}),
        (pg.ConstrainedGradient, {"max_squared_norm": 1e-8}),
    ):
        changes[method] = []
        for head_class in (pg.heads.Gaussian, Softplus):
            inputs, head = keras.Input((3,)), head_class(1, low=-1, high=1, initial_log_std=1.5)
            agent, step = agent_of(None, method, keras.Model(inputs, head(inputs)), BOX, **kwargs)
            data = rollout(agent)
            normal = agent.policy(data.inputs.observations[:, 0]).distribution
            step(data)
            new = agent.policy(data.inputs.observations[:, 0]).distribution
            loc = (new.loc - normal.loc) / normal.scale
            changes[method].append(np.concatenate([loc, tf.math.log(new.scale / normal.scale)], axis=1))
    assert angle(*changes[pg.NPG]) < 3.0
    assert angle(*changes[pg.ConstrainedGradient]) > 5.0


# Corners


def test_singular_fisher_matrix_without_damping():
    """A softmax of logits is singular: adding to all of them changes nothing. Both solvers agree on the policy."""
    changes = [
        change_of_policy(pg.NPG, linear(kernel=np.eye(3)), damping=0.0, cg_iterations=iterations, max_kl=1e-3)
        for iterations in (None, 30)
    ]
    assert np.abs(changes[0]).max() > 1e-2
    np.testing.assert_allclose(*changes, atol=1e-2 * np.abs(changes[0]).max())


def agent_weights(agent, values):
    """A vector as the list of the policy's weights."""
    shapes = [w.shape for w in agent.policy.trainable_weights]
    cuts = np.cumsum([int(np.prod(shape)) for shape in shapes])[:-1]
    return [part.reshape(shape) for part, shape in zip(np.split(values, cuts), shapes, strict=True)]


@pytest.mark.parametrize(("fraction", "anew"), [(0.25, True), (1.0, False)])
def test_rows_of_the_fisher_matrix_are_drawn_anew(fraction, anew):
    agent, step = agent_of(HEADS["categorical"](), fisher_fraction=fraction)
    start, data, changes = theta(agent.policy), rollout(agent), []
    for _ in range(2):
        agent.policy.set_weights(agent_weights(agent, start))
        step(data)
        changes.append(theta(agent.policy) - start)
    assert (angle(*changes) > 1.0) == anew


@pytest.mark.parametrize("fraction", [0.25, 0.5])
@pytest.mark.quick("0.25")
def test_fisher_matrix_of_a_part_of_the_rows(fraction):
    seen = []

    class Watching(pg.NPG):
        def divergence(self, old, new, actions):
            seen.append(actions.shape[0])
            return super().divergence(old, new, actions)

    agent, step = agent_of(HEADS["categorical"](), Watching, fisher_fraction=fraction)
    data, before = rollout(agent), theta(agent.policy)
    logs = step(data)
    assert set(seen) == {64, int(64 * fraction)}
    assert 1e-3 < float(logs["kl"]) < 0.05
    whole, step = agent_of(HEADS["categorical"]())
    step(data)
    assert angle(theta(agent.policy) - before, theta(whole.policy) - before) < 45.0
    assert not np.array_equal(theta(agent.policy), theta(whole.policy))


class StudentT(pg.heads.Gaussian):
    """A head whose distributions have no KL divergence in closed form."""

    def distribution(self, parameters):
        loc, log_std = tf.split(parameters, 2, axis=-1)
        return tfd.Independent(tfd.StudentT(5.0, loc, tf.exp(log_std)), 1)

    def sample(self, distribution, noise):
        return distribution.distribution.loc + distribution.distribution.scale * noise


def student():
    return StudentT(1, low=-1, high=1)


@pytest.mark.parametrize("method", [pg.NPG, pg.TRPO, pg.PPOPenalty])
@pytest.mark.quick("NPG")
def test_a_head_without_kl_divergence_needs_an_estimator_chosen(method):
    sentence = "`kl_estimator` must be 'sampled' for a head .* Received: kl_estimator=None"
    inputs = keras.Input((3,))
    policy, value = student()(inputs), pg.heads.NormalValue()(inputs)
    critic = keras.Model(inputs, value)
    with pytest.raises(ValueError, match=sentence):  # at construction
        method(keras.Model(inputs, policy), critic)
    with pytest.raises(ValueError, match=sentence):
        method(keras.Model(inputs, {"policy": policy, "value": value}))
    head = student()
    with pytest.raises(ValueError, match=sentence):
        method(networks=pg.Networks(head=head))
    assert not head.built
    with pytest.raises(ValueError, match=sentence):  # a class has no distribution before it has a space
        method(networks=pg.Networks(head=StudentT)).bind(OBSERVATIONS, BOX)

    class Later(keras.Model):
        """Knows its inputs only when it sees them."""

        def __init__(self):
            super().__init__()
            self.head = student()

        def call(self, x):
            return self.head(x)

    with pytest.raises(ValueError, match=sentence):
        method(Later(), critic).bind(OBSERVATIONS, BOX)
    agent, step = agent_of(student(), method, actions=BOX, kl_estimator="sampled")
    agent.compile(keras.optimizers.SGD(0.01), jit_compile=False)
    data, before = rollout(agent), theta(agent.policy)
    logs = step(data)
    assert np.abs(theta(agent.policy) - before).max() > 0
    log_ratio = agent.policy(data.inputs.observations[:, 0]).log_prob(data.actions[:, 0]) - data.log_probs[:, 0]
    expected = np.mean(np.expm1(log_ratio.numpy().astype("float64")) - log_ratio)
    assert float(logs["kl"]) == pytest.approx(expected, rel=1e-2, abs=1e-6)


def test_sampled_and_exact_fisher_point_nearly_alike():
    steps = []
    for estimator in (None, "sampled"):
        agent, step = agent_of(HEADS["gaussian"](), kl_estimator=estimator, horizon=4096, minibatch_size=4096)
        before = theta(agent.policy)
        step(rollout(agent, horizon=4096))
        steps.append(theta(agent.policy) - before)
    assert 0.0 < angle(*steps) < 20.0


class Untold:
    """A distribution that TFP knows no tensors of."""

    def __init__(self, inner):
        self.inner = inner

    def __getattr__(self, name):
        return getattr(self.inner, name)


class Opaque(pg.heads.Categorical):
    def distribution(self, parameters):
        return Untold(super().distribution(parameters))


LAYERS = {
    "float64": lambda: keras.layers.Dense(4, "tanh", dtype="float64"),
    "mixed_bfloat16": lambda: keras.layers.Dense(4, "tanh", dtype="mixed_bfloat16"),
    "dropout": lambda: keras.layers.Dropout(0.9),
    "batch_normalization": lambda: keras.layers.BatchNormalization(),
}


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.quick("mixed_bfloat16", "batch_normalization")
def test_layers_of_every_kind(name):
    """Whatever their precision; and as at inference, so that the ratio starts at 1 and no statistics move."""
    inputs, head = keras.Input((3,)), pg.heads.Categorical(3)
    policy = keras.Model(inputs, head(LAYERS[name]()(inputs)))
    head.dense.kernel.assign(np.random.default_rng(0).normal(size=head.dense.kernel.shape))
    agent, step = agent_of(head, pg.TRPO, policy, max_kl=1e-3)
    before, data = theta(policy), rollout(agent)
    kept = [np.array(w) for w in policy.non_trainable_weights if "seed" not in w.path]
    logs = step(data)
    assert float(logs["rejected"]) == 0.0 and 0.0 < float(logs["kl"]) <= 1e-3
    assert not np.array_equal(before, theta(policy))
    np.testing.assert_array_equal(kept, [np.array(w) for w in policy.non_trainable_weights if "seed" not in w.path])
    agent.max_kl = 1e-30  # No fraction fits: everything is put back.
    before = theta(policy)
    assert float(agent.train_step(data)["rejected"]) == 1.0
    assert before.tobytes() == theta(policy).tobytes()


@pytest.mark.parametrize("frozen", ["policy", "critic"])
def test_nothing_to_train_is_refused(frozen):
    inputs = keras.Input((3,))
    models = {
        "policy": keras.Model(inputs, pg.heads.Categorical(3)(inputs)),
        "critic": keras.Model(inputs, pg.heads.NormalValue()(inputs)),
    }
    models[frozen].trainable = False
    for method in (pg.NPG, pg.PPOPenalty) if frozen == "policy" else (pg.NPG,):
        agent = method(**models, horizon=64, minibatch_size=64)
        agent.compile(jit_compile=False)
        agent.bind(OBSERVATIONS, DISCRETE)  # To load and judge it there is no need to train.
        with pytest.raises(ValueError, match=f"`{frozen}` must have weights to train. Received"):
            agent.check_rollout(64, 1)


def test_observations_of_several_parts():
    """Also where F is taken from a part of the rows, of every part the same."""
    space = gym.spaces.Dict({"place": OBSERVATIONS, "kind": gym.spaces.Discrete(4)})
    agent = pg.NPG(fisher_fraction=0.5, horizon=64, minibatch_size=64, networks=pg.Networks((4,)), seed=0)
    agent.compile(jit_compile=False)
    agent.bind(space, DISCRETE)
    rng = np.random.default_rng(0)
    observations = {
        "place": tf.constant(rng.normal(size=(64, 1, 3)), tf.float32),
        "kind": tf.constant(rng.integers(4, size=(64, 1)), tf.int32),
    }
    actions, no = tf.constant(rng.integers(3, size=(64, 1)), tf.int32), tf.zeros((64, 1), tf.bool)
    rewards = tf.constant(rng.normal(size=(64, 1)), tf.float32)
    logs = tf.function(agent.train_step, autograph=False)(
        Rollout(Inputs(observations), actions, rewards, rewards, ~no, no, Inputs(observations), ~no)
    )
    assert float(logs["rejected"]) == 0.0 and 1e-3 < float(logs["kl"]) < 0.05


def test_a_distribution_not_made_of_tensors_is_refused():
    inputs = keras.Input((3,))
    policy = keras.Model(inputs, Opaque(3)(inputs))
    with pytest.raises(ValueError, match="`policy` must give a distribution made of float tensors"):
        agent_of(None, policy=policy, actions=DISCRETE)


def test_exact_inverse_of_a_large_policy_is_refused():
    agent = pg.NPG(cg_iterations=None)
    with pytest.raises(ValueError, match="`cg_iterations` must be a whole number for a policy of more than 500"):
        agent.bind(OBSERVATIONS, DISCRETE)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"max_kl": -0.1}, r"`max_kl` must be a number in \(0.0, inf\). Received: max_kl=-0.1"),
        ({"max_kl": None}, "`max_kl` must be a number .*Received: max_kl=None"),
        ({"cg_iterations": 0}, "`cg_iterations` must be a whole number .*Received: cg_iterations=0"),
        ({"damping": -1.0}, "`damping` must be a number .*Received: damping=-1.0"),
        ({"fisher_fraction": 0.0}, "`fisher_fraction` must be a number .*Received: fisher_fraction=0.0"),
        ({"fisher_fraction": 2.0}, "`fisher_fraction` must be a number .*Received: fisher_fraction=2.0"),
        ({"fisher_fraction": 0.5, "damping": 0.0}, "`damping` must be positive .*Received: damping=0.0, fisher_f"),
        ({"max_kl": float("inf")}, "`max_kl` must be a number .*Received: max_kl=inf"),
        ({"damping": float("nan")}, "`damping` must be a number .*Received: damping=nan"),
        (
            {"kl_estimator": "sampled", "entropy_coef": 0.1, "damping": 0.0},
            "`damping` must be positive .*kl_estimator=",
        ),
        ({"kl_estimator": "k1"}, "`kl_estimator` must be 'sampled' or None. Received: kl_estimator='k1'"),
    ],
)
def test_refused_at_construction_by_name(settings, sentence):
    with pytest.raises(ValueError, match=sentence):
        pg.NPG(**settings)


def test_radius_may_be_a_schedule():
    agent, step = agent_of(
        HEADS["categorical"](), max_kl=keras.optimizers.schedules.PiecewiseConstantDecay([0], [1e-2, 1e-5])
    )
    first = float(step(rollout(agent))["kl"])
    agent.iterations.assign(1)
    assert float(step(rollout(agent))["kl"]) < 1e-2 * first
    assert pg.NPG.from_config(agent.get_config()).get_config() == agent.get_config()


def test_damping_may_be_a_schedule():
    schedule = keras.optimizers.schedules.PiecewiseConstantDecay([0], [1e-3, 10.0])
    agent, step = agent_of(HEADS["categorical"](), damping=schedule)
    start, changes = theta(agent.policy), []
    for iteration, damping in enumerate([1e-3, 10.0]):
        constant, constant_step = agent_of(HEADS["categorical"](), damping=damping)
        for each, each_step in ((agent, step), (constant, constant_step)):
            each.policy.set_weights(agent_weights(each, start))
            each.iterations.assign(iteration)
            each_step(rollout(each))
            changes.append(theta(each.policy) - start)
    np.testing.assert_allclose(changes[0], changes[1], rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(changes[2], changes[3], rtol=1e-4, atol=1e-6)
    assert angle(changes[0], changes[2]) > 5.0


@pytest.mark.parametrize(
    "settings", [{"fisher_fraction": 0.1}, {"kl_estimator": "sampled", "entropy_coef": 0.1}], ids=["part", "sampled"]
)
@pytest.mark.parametrize("method", [pg.NPG, pg.TRPO])
@pytest.mark.quick("NPG-part")
def test_no_step_where_a_schedule_has_ended_the_damping_that_is_needed(method, settings):
    damping = keras.optimizers.schedules.PolynomialDecay(0.1, 1, 0.0)
    agent, step = agent_of(HEADS["categorical"](), method, damping=damping, **settings)
    data = rollout(agent)
    assert float(step(data)["rejected"]) == 0.0
    agent.iterations.assign(1)
    before = theta(agent.policy)
    assert float(step(data)["rejected"]) == 1.0
    assert theta(agent.policy).tobytes() == before.tobytes()


@pytest.mark.parametrize("early", [True, False])
def test_a_regularized_policy_needs_damping(early):
    """Its gradient may point where F is 0; refused as soon as the weights are known."""
    layer = keras.layers.Dense(3, kernel_regularizer="l2")
    inputs = keras.Input((3,))
    critic = keras.Model(inputs, pg.heads.NormalValue()(inputs))
    if early:
        policy = keras.Model(inputs, pg.heads.Categorical(3)(layer(inputs)))
    else:
        policy = keras.Sequential([layer, pg.heads.Categorical(3)])
    with pytest.raises(ValueError, match="`damping` must be positive .* regularizers, .*Received: damping=0.0"):
        agent = pg.NPG(policy, critic, damping=0.0)
        assert not early
        agent.bind(OBSERVATIONS, DISCRETE)


@pytest.mark.slow
@pytest.mark.parametrize("method", [pg.NPG, pg.TRPO])
def test_solves_cartpole(method):
    agent = method(seed=0)
    agent.compile()
    agent.fit("CartPole-v1", total_steps=100_000, num_envs=8, verbose=0)
    assert agent.evaluate("CartPole-v1", episodes=100)["return"] > 475.0
