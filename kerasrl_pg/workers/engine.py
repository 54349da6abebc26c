"""Ray: begun where none runs, and ended by who began it."""

import contextlib
import os


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
    """
    ray = import_ray()
    if ray.is_initialized():
        yield ray
        return
    kind = {} if os.environ.get("RAY_ADDRESS") else {"num_cpus": max(os.cpu_count() or 1, int(-(-cpus // 1)))}
    ray.init(include_dashboard=False, log_to_driver=False, logging_level="error", configure_logging=False, **kind)
    try:
        yield ray
    finally:
        ray.shutdown()
