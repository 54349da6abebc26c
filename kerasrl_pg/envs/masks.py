"""Action masks as environments nest them: as the actions, with None for what is not masked."""


def map_masks(function, masks):
    """`function` of every mask of a nest; lists become tuples.

    >>> map_masks(str, {"move": 3, "arm": [None, 4]})
    {'move': '3', 'arm': (None, '4')}
    """
    if isinstance(masks, dict):
        return {key: map_masks(function, part) for key, part in masks.items()}
    if isinstance(masks, (tuple, list)):
        return tuple(map_masks(function, part) for part in masks)
    return None if masks is None else function(masks)


def forbid_nothing(masks):
    """Whether there is no mask in a nest at all.

    >>> forbid_nothing({"move": None, "arm": (None, [])}), forbid_nothing((None, 3))
    (True, False)
    """
    if isinstance(masks, dict):
        masks = tuple(masks.values())
    return masks is None or (isinstance(masks, (tuple, list)) and all(map(forbid_nothing, masks)))
