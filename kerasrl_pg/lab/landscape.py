"""J over two parameters, and the ways that methods take on it."""

from typing import NamedTuple

import keras
import numpy as np

from kerasrl_pg.checks import check_whole
from kerasrl_pg.lab.policy import assign, parameters, table_of


class Landscape(NamedTuple):
    """J over a plane of parameters, θ = centre + x d₁ + y d₂.

    Args:
        x, y: float64 [n], the plane's coordinates.
        objective: float64 [n, n], J, row by row of y.
        centre: float64 [P].
        directions: float64 [2, P].
    """

    x: np.ndarray
    y: np.ndarray
    objective: np.ndarray
    centre: np.ndarray
    directions: np.ndarray

    def project(self, thetas):
        """Where parameters [..., P] lie in the plane, the nearest point of it: [..., 2]."""
        return (np.asarray(thetas) - self.centre) @ np.linalg.pinv(self.directions)


def landscape(mdp, policy, x=(-4.0, 4.0), y=(-4.0, 4.0), points=41, directions=None, centre=None):
    """J, exact, over a plane of a policy's parameters.

    Args:
        mdp: An `MDP`.
        policy: A built agent, a Keras model that ends in a head, or a `PolicyTable`.
        x, y: From where to where.
        points: n, along either.
        directions: Two vectors [2, P], d₁ and d₂; None for the axes of a policy that has two parameters.
        centre: [P]; None for 0 in a policy that has two parameters, and else for its weights as they stand.

    Returns:
        A `Landscape`.

    Raises:
        ValueError: If a policy of more parameters is given no directions.

    >>> import kerasrl_pg as pg
    >>> mdp = pg.lab.MDP([[[1.0], [1.0]]], [[0.0, 2.0]], [1.0], gamma=0.5)
    >>> agent = pg.REINFORCE(networks=pg.Networks(()), horizon=1, seed=0)
    >>> agent.bind(pg.lab.MDPEnv(mdp=mdp).observation_space, pg.lab.MDPEnv(mdp=mdp).action_space)
    >>> found = landscape(mdp, agent, points=3, directions=[[0, 0, 1, 0], [0, 0, 0, 1]], centre=[0.0] * 4)
    >>> found.objective.round(1).tolist()
    [[2.0, 0.1, 0.0], [3.9, 2.0, 0.1], [4.0, 3.9, 2.0]]
    """
    check_whole("points", points, at_least=2)
    table = table_of(policy, mdp)
    size = len(table.theta)
    if directions is None and size != 2:
        raise ValueError(
            f"`directions` must be two vectors [2, {size}] for a policy of {size} parameters. Received: None."
        )
    if centre is None:
        centre = table.theta if directions is not None else np.zeros(2)
    directions = np.eye(2) if directions is None else np.asarray(directions, np.float64)
    centre = np.asarray(centre, np.float64)
    x, y = np.linspace(*x, points), np.linspace(*y, points)

    def objective(a, b):
        return mdp.evaluate(table.probabilities(centre + a * directions[0] + b * directions[1])).objective

    return Landscape(x, y, np.array([[objective(a, b) for a in x] for b in y]), centre, directions)


class Follow(keras.callbacks.Callback):
    """Notes a policy's parameters before the first epoch and after each one: `thetas`, a list of float64 [P]."""

    def on_train_begin(self, logs=None):
        self.thetas = [parameters(self.model.policy.trainable_variables)]

    def on_epoch_end(self, epoch, logs=None):
        self.thetas.append(parameters(self.model.policy.trainable_variables))


def paths(agents, env, iterations, start=None):
    """The ways that agents take through their parameters, each by its own `fit`.

    With many environments a rollout's chance is small, and the ways are the methods' own.

    Args:
        agents: A dictionary of compiled agents with policies of the same kind.
        env: A `CompiledEnv`.
        iterations: How many updates of each, at least 1.
        start: float [P], the weights that all policies begin with; None for those they have.

    Returns:
        A dictionary of float64 [iterations + 1, P] by the agents' names.

    >>> import keras
    >>> import kerasrl_pg as pg
    >>> agent = pg.REINFORCE(networks=pg.Networks(()), seed=0)
    >>> agent.compile(keras.optimizers.SGD(0.1), jit_compile=False)
    >>> env = pg.envs.Corridor(num_envs=4, length=3, max_episode_steps=5)
    >>> paths({"gradient": agent}, env, iterations=2)["gradient"].shape
    (3, 8)
    """
    check_whole("iterations", iterations)
    found = {}
    for name, agent in agents.items():
        agent.bind(env.observation_space, env.action_space)
        if start is not None:
            assign(agent.policy.trainable_variables, start)
        follow = Follow()
        agent.fit(env, epochs=iterations, steps_per_epoch=1, callbacks=[follow], verbose=0)
        found[name] = np.stack(follow.thetas)
    return found
