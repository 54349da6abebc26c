"""How many workers there are, and what is borne of them."""

import dataclasses

import gymnasium as gym

from kerasrl_pg.checks import check_number, check_whole


@dataclasses.dataclass(frozen=True)
class Workers:
    """What `fit(env, workers=...)` takes; a whole number is `Workers(count)`.

    Ray runs them: the one that `ray.init` has begun, or that RAY_ADDRESS names, and else one of this machine's own,
    which ends with the fit. Ray's way to send what you wrote, environments and layers, is pickle: between your own
    processes, and never to or from a file.

    Args:
        count: K, processes that play, at least 1.
        timeout: Seconds that a worker may take for one rollout, above 0, before it is taken to hang and is replaced.
            60: ours, far above any usual rollout. Its first, for which it compiles, may take `start_timeout`, too.
        restarts: How many times each worker may be replaced, at least 0, where it died, hung, or its environment
            raised; then the others go on without it. 3: ours, for what is transient.
        threads: TensorFlow's threads of each, at least 1. 1: more than one a core make all slower.
        cpus: Ray's CPUs of each, by which it spreads them over a cluster's machines, at least 0. 1.
        start_timeout: Seconds that a worker may take to start, above 0. 180: ours; it imports TensorFlow, which takes 4
            seconds where nothing else does.

    Raises:
        ValueError: If a number is out of its range.

    >>> Workers(4).restarts
    3
    """

    count: int
    timeout: float = 60.0
    restarts: int = 3
    threads: int = 1
    cpus: float = 1.0
    start_timeout: float = 180.0

    def __post_init__(self):
        check_whole("count", self.count)
        check_number("timeout", self.timeout, 0.0, exclusive=True)
        check_whole("restarts", self.restarts, at_least=0)
        check_whole("threads", self.threads)
        check_number("cpus", self.cpus, 0.0)
        check_number("start_timeout", self.start_timeout, 0.0, exclusive=True)


def as_workers(workers):
    """`Workers` of what a user gives for them.

    Raises:
        ValueError: If it is neither a whole number of at least 1 nor `Workers`.
    """
    if isinstance(workers, Workers):
        return workers
    check_whole("workers", workers)
    return Workers(int(workers))


def shares(total, count):
    """How many of `total` environments each of `count` workers has; the first ones one more where it does not divide.

    >>> shares(8, 3)
    [3, 3, 2]
    """
    return [total // count + (index < total % count) for index in range(count)]


def check_env(env):
    """Refuses what cannot be made anew in another process.

    Raises:
        ValueError: If it is an environment itself.
    """
    if isinstance(env, (gym.Env, gym.vector.VectorEnv)):
        raise ValueError(
            "`env` must be a gymnasium id, a function that makes an environment, or a compiled environment, where "
            f"there are `workers`, each of which makes its own. Received: env={env!r}."
        )
