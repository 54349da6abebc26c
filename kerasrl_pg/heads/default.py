"""Which head a space gets when the user names none."""

import gymnasium

from kerasrl_pg.heads.bernoulli import Bernoulli
from kerasrl_pg.heads.box import is_box, is_integer_box
from kerasrl_pg.heads.categorical import Categorical, MultiCategorical
from kerasrl_pg.heads.composite import Composite
from kerasrl_pg.heads.gaussian import Gaussian


def default_head(space, **kwargs):
    """The ordinary head for a gymnasium action space.

    Discrete: `Categorical`; MultiDiscrete: `MultiCategorical`; MultiBinary: `Bernoulli`; Box of
    floats: `Gaussian`, clipped to the box when acting, which is what the PPO literature reports on; Box of
    few integers: `MultiCategorical`, or `Categorical` where its shape is (); Dict and Tuple: `Composite` of these.

    Args:
        space: Action space of one environment.
        **kwargs: For the head's constructor.

    Raises:
        ValueError: For any other space, and a Box of more integers than a softmax is for.

    >>> import gymnasium
    >>> from kerasrl_pg.heads import default_head
    >>> default_head(gymnasium.spaces.Discrete(4)).num_actions
    4
    """
    spaces = gymnasium.spaces
    if isinstance(space, spaces.Discrete):
        return Categorical.from_space(space, **kwargs)
    if isinstance(space, spaces.MultiDiscrete):
        return MultiCategorical.from_space(space, **kwargs)
    if isinstance(space, spaces.MultiBinary):
        return Bernoulli.from_space(space, **kwargs)
    if is_box(space):
        return Gaussian.from_space(space, **kwargs)
    if is_integer_box(space):
        return (MultiCategorical if space.shape else Categorical).from_space(space, **kwargs)
    if isinstance(space, (spaces.Dict, spaces.Tuple)):
        return Composite.from_space(space, **kwargs)
    raise ValueError(
        "No head is known for this action space; Discrete, MultiDiscrete, MultiBinary, Box, and Dict and Tuple of "
        f"these have one. Received: space={space}. Pass head= (a subclass of heads.Head) or your "
        "own policy, or flatten the environment's actions."
    )
