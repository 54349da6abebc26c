"""The equations of the policy gradient, as pure TensorFlow functions."""

from kerasrl_pg.ops import random
from kerasrl_pg.ops.baseline import average_baseline, time_dependent_baseline
from kerasrl_pg.ops.policy_gradient import (
    clip_fraction,
    clipped_objective,
    entropy_estimate,
    gradient_discount,
    importance_objective,
    importance_ratio,
    kl_k1,
    kl_k2,
    kl_k3,
    score_function_objective,
)
from kerasrl_pg.ops.returns import (
    discounted_accumulator,
    discounted_sum,
    episode_ends,
    gae,
    n_step_advantages,
    rewards_to_go,
    steps_in_episode,
    td_errors,
    whole_returns,
)
from kerasrl_pg.ops.shapes import (
    check_same_shape,
    flatten_time,
    masked_mean,
    masked_moments,
    standardize,
)
from kerasrl_pg.ops.statistics import merge_moments, normalize, scale_rewards
from kerasrl_pg.ops.value import clipped_squared_error, explained_variance, squared_error

__all__ = [
    "average_baseline",
    "check_same_shape",
    "clip_fraction",
    "clipped_objective",
    "clipped_squared_error",
    "discounted_accumulator",
    "discounted_sum",
    "entropy_estimate",
    "episode_ends",
    "explained_variance",
    "flatten_time",
    "gae",
    "gradient_discount",
    "importance_objective",
    "importance_ratio",
    "kl_k1",
    "kl_k2",
    "kl_k3",
    "masked_mean",
    "masked_moments",
    "merge_moments",
    "n_step_advantages",
    "normalize",
    "random",
    "rewards_to_go",
    "scale_rewards",
    "score_function_objective",
    "squared_error",
    "standardize",
    "steps_in_episode",
    "td_errors",
    "time_dependent_baseline",
    "whole_returns",
]
