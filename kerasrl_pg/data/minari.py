"""Minari, where it is installed."""


def minari():
    """The package `minari`.

    Raises:
        ImportError: If it is missing, with what to install.
    """
    try:
        import minari
    except ImportError as error:
        raise ImportError("Stored trajectories need Minari: pip install kerasrl-pg[minari]") from error
    return minari
