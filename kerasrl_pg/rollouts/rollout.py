"""The record of what happened: facts only, never edited."""

from typing import Any, NamedTuple


class Rollout(NamedTuple):
    """T steps of N environments, time-major, as they happened.

    Nothing is normalised, scaled, clipped or bootstrapped here; agents compute beside the record.

    Args:
        observations: [T, N, ...] tensor or flat dictionary of tensors, o_t, what the action was chosen from.
        actions: [T, N, ...] raw samples a_t of the policy's distribution, not the copy sent to the environment.
        log_probs: float32 [T, N], log π_old(a_t | o_t), in nats.
        rewards: float32 [T, N], r_t as given by the environment.
        terminated: bool [T, N], the episode ended with this step in a terminal state.
        truncated: bool [T, N], the episode was cut off with this step. Where both are true, it terminated.
        next_observations: [T, N, ...], the true next observations; at an episode's end its final one.
        valid: bool [T, N], False where a row is no transition (an environment's own reset step, or padding).
    """

    observations: Any
    actions: Any
    log_probs: Any
    rewards: Any
    terminated: Any
    truncated: Any
    next_observations: Any
    valid: Any
