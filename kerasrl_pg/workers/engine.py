"""Ray: begun where none runs, and ended by who began it."""

import contextlib
import os
import signal


def import_ray():
    """The module `ray`.

    Raises:
        ImportError: If it is not installed.
    """
    try:
        import ray
    except ModuleNotFoundError as error:
        if error.name != "ray":
            raise
        raise ImportError(
            '`workers` need Ray. Received: no module named ray. Install it: pip install "kerasrl-pg[ray]".'
        ) from error
    return ray


@contextlib.contextmanager
def running(cpus):
    """Gives the module `ray` while a Ray runs.

    Args:
        cpus: Ray's CPUs that will be asked for. One that is begun here, on this machine alone, has at least so many,
            whether or not there are as many cores: what workers wait for is seldom the core.

    Raises:
        ImportError: If Ray is not installed.
        RuntimeError: If it does not start, or there is none where RAY_ADDRESS says.
    """
    ray = import_ray()
    if ray.is_initialized():
        yield ray
        return
    kind = {} if os.environ.get("RAY_ADDRESS") else {"num_cpus": max(os.cpu_count() or 1, int(-(-cpus // 1)))}
    mine = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(include_dashboard=False, log_to_driver=False, logging_level="error", configure_logging=False, **kind)
    except Exception as error:  # Ray raises all kinds, plain `Exception` among them.
        ray.shutdown()
        where = f"be found at RAY_ADDRESS={os.environ['RAY_ADDRESS']}" if not kind else "start on this machine"
        raise RuntimeError(f"Ray must {where}. Received: {type(error).__name__}: {error}") from error
    if callable(mine):  # Ray puts its own in its place, and a command would no longer save what it has.
        signal.signal(signal.SIGTERM, mine)
    try:
        yield ray
    finally:
        ray.shutdown()


def environment(threads):
    """Environment variables of a worker's process: its threads, and no GPU, which the learner has."""
    names = ("OMP_NUM", "OPENBLAS_NUM", "MKL_NUM", "TF_NUM_INTRAOP", "TF_NUM_INTEROP")
    return {f"{name}_THREADS": str(threads) for name in names} | {
        "TF_CPP_MIN_LOG_LEVEL": "2",
        "CUDA_VISIBLE_DEVICES": "-1",
    }
