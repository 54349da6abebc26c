"""How long a call takes."""

import statistics
import time


def milliseconds(call, repeats=20):
    """The median of its calls, after three that do not count."""
    for _ in range(3):
        call()
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - start)
    return 1000 * statistics.median(seconds)
