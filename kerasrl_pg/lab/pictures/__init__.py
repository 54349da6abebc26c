"""Pictures of the notes' claims, each from one function; `draw` makes them all."""

import time
from pathlib import Path

from kerasrl_pg.lab.pictures.credit import bias_and_variance, variance_of_credit, variance_over_episodes, wrong_critic
from kerasrl_pg.lab.pictures.geometry import balls, clipped_objective, ways
from kerasrl_pg.lab.pictures.steps import local_optimum, probabilities, staleness, step_sizes

PICTURES = {
    "variance_of_credit": variance_of_credit,
    "variance_over_episodes": variance_over_episodes,
    "bias_and_variance": bias_and_variance,
    "wrong_critic": wrong_critic,
    "step_sizes": step_sizes,
    "probabilities": probabilities,
    "local_optimum": local_optimum,
    "staleness": staleness,
    "balls": balls,
    "ways": ways,
    "clipped_objective": clipped_objective,
}


def draw(folder, names=None, verbose=True, overwrite=True):
    """Draws the pictures, one after the other, as `folder/NAME.png`.

    Args:
        folder: Where to; made where it is missing.
        names: Of `PICTURES`; None for all.
        verbose: Whether to print a line for each.
        overwrite: Replace pictures of these names that are there.

    Returns:
        The paths.

    Raises:
        ImportError: If matplotlib is missing.
        ValueError: If there is no picture of a name, or with `overwrite=False` one is there already.

    >>> import tempfile
    >>> [path.name for path in draw(tempfile.mkdtemp(), ["clipped_objective"], verbose=False)]
    ['clipped_objective.png']
    """
    names = [*PICTURES] if names is None else list(names)
    unknown = [name for name in names if name not in PICTURES]
    if unknown:
        raise ValueError(f"`names` must be of {', '.join(PICTURES)}. Received: {', '.join(unknown)}.")
    folder, paths = Path(folder), []
    there = [name for name in names if (folder / f"{name}.png").exists()]
    if there and not overwrite:
        raise ValueError(
            f"`folder` must hold none of the pictures with overwrite=False. Received: {str(folder)!r}, which has "
            f"{there[0]}.png. Name another folder, or replace what is there (--overwrite)."
        )
    for number, name in enumerate(names, 1):
        start = time.perf_counter()
        if verbose:
            print(f"{number} of {len(names)}: {name} ...", end=" ", flush=True)
        paths.append(folder / f"{name}.png")
        PICTURES[name](paths[-1])
        if verbose:
            print(f"{time.perf_counter() - start:.0f} s", flush=True)
    return paths
