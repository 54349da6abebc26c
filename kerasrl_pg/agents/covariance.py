"""A normal distribution of weights that learns its covariance: CMA-ES, by the package `cma`."""

import numpy as np

LARGEST = 1000  # Ours: with so many weights an update of a full covariance takes half a second.


def cma():
    """The package `cma`.

    Raises:
        ImportError: If it is missing, with what to install.
    """
    try:
        import cma
    except ImportError as error:
        raise ImportError("Evolution strategies with a covariance need cma: pip install kerasrl-pg[cma]") from error
    return cma


class Adaptation:
    """N(θ, σ² C), and what CMA-ES remembers of its way, as weights of an agent.

    The package keeps these in one object for a whole search. Here each iteration makes it anew from the weights, so
    that a search that was saved, loaded or undone goes on as one never stopped; `tests/agents/test_search.py` compares
    the two, bit for bit.

    Args:
        size: D, how many weights are searched.
        full: Whether C is any covariance, float64 [D, D], else a diagonal one, which is kept as the roots of its
            diagonal, float64 [D].
        noise: σ to begin with.
        add: Function `(name, shape, dtype)` that gives a weight of the agent, of zeros.

    Attributes:
        began: σ to begin with.
    """

    def __init__(self, size, full, noise, add):
        self._full, self.began = full, noise
        self.noise = add("noise_scale", (), "float64")
        self.noise.assign(noise)
        self.told = add("told", (), "int64")
        self.path, self.noise_path = add("path", (size,), "float64"), add("noise_path", (size,), "float64")
        self.shape = add("covariance", (size, size) if full else (size,), "float64")

    def ask(self, theta, noise):
        """A population around θ.

        Args:
            theta: float [D].
            noise: float [P, D], standard normal.

        Returns:
            `(strategy, members)`: what `tell` wants, and float64 [P, D].
        """
        package = cma()
        strategy = package.CMAEvolutionStrategy(
            np.asarray(theta, np.float64),
            float(self.noise),
            {
                "popsize": len(noise),
                "randn": lambda *shape: np.asarray(noise, np.float64).reshape(shape),
                "seed": np.nan,  # Or NumPy's would be set.
                "CMA_diagonal": not self._full,
                # What it would take by itself above 300 dimensions adds members of its own.
                "AdaptSigma": package.sigma_adaptation.CMAAdaptSigmaCSA,
                "conditioncov_alleviate": False,  # It would change what is searched, not where.
                "verbose": -9,
                "verb_log": 0,
                "verb_disp": 0,
            },
        )
        if int(self.told):
            strategy.pc, strategy.adapt_sigma.ps = np.array(self.path), np.array(self.noise_path)
            if self._full:
                strategy.sm.C = np.array(self.shape)
                strategy.sm.update_now(-1)
            else:
                strategy.sigma_vec *= np.array(self.shape)
        members = np.asarray(strategy.ask())
        strategy.countiter, strategy.mean_old = int(self.told), strategy.mean
        return strategy, members

    def tell(self, strategy, members, objectives):
        """Learns from a population.

        Args:
            strategy, members: From `ask`.
            objectives: float [P], the more the better.

        Returns:
            float64 [D], θ afterwards.
        """
        strategy.tell(list(members), [-float(value) for value in objectives])
        self.noise.assign(strategy.sigma)
        self.told.assign(strategy.countiter)
        self.path.assign(strategy.pc)
        self.noise_path.assign(strategy.adapt_sigma.ps)
        self.shape.assign(strategy.sm.C if self._full else strategy.sigma_vec.scaling)
        return strategy.mean
