import numpy as np
import pytest
from gymnasium import spaces

from kerasrl_pg import heads


@pytest.mark.parametrize(
    ("space", "head_class"),
    [
        (spaces.Discrete(3, start=1), heads.Categorical),
        (spaces.MultiDiscrete([3, 2]), heads.MultiCategorical),
        (spaces.MultiBinary(4), heads.Bernoulli),
        (spaces.Box(-1, 1, (2,)), heads.Gaussian),
        (spaces.Box(-np.inf, np.inf, (2,), np.float64), heads.Gaussian),
        (spaces.Box(0, 9, (2,), np.int32), heads.MultiCategorical),
        (spaces.Box(0, 9, (), np.int32), heads.Categorical),
        (spaces.Dict(a=spaces.Discrete(2)), heads.Composite),
        (spaces.Tuple([spaces.Discrete(2), spaces.Dict(b=spaces.MultiBinary(2))]), heads.Composite),
    ],
)
def test_default_head(space, head_class):
    head = heads.default_head(space, kernel_initializer="zeros", name="actor")
    assert type(head) is head_class
    assert head.action_shape == space.shape
    assert head.name == "actor"


@pytest.mark.parametrize("space", [spaces.Text(3), spaces.Sequence(spaces.Discrete(2))])
def test_other_spaces_are_refused_with_a_remedy(space):
    with pytest.raises(ValueError, match="No head is known for this action space.*Received: space=.*Pass head="):
        heads.default_head(space)
