"""Policy and critic heads: Keras layers whose call returns a TFP distribution."""

from kerasrl_pg.heads.bernoulli import Bernoulli
from kerasrl_pg.heads.beta import Beta
from kerasrl_pg.heads.categorical import Categorical, MultiCategorical
from kerasrl_pg.heads.composite import Composite
from kerasrl_pg.heads.default import default_head
from kerasrl_pg.heads.gaussian import Gaussian
from kerasrl_pg.heads.gaussian_mixture import GaussianMixture
from kerasrl_pg.heads.head import Head, heads_of, noting
from kerasrl_pg.heads.scored_categorical import ScoredCategorical
from kerasrl_pg.heads.tanh_gaussian import TanhGaussian
from kerasrl_pg.heads.value import HistogramValue, NormalValue, ValueHead

__all__ = [
    "Bernoulli",
    "Beta",
    "Categorical",
    "Composite",
    "Gaussian",
    "GaussianMixture",
    "Head",
    "HistogramValue",
    "MultiCategorical",
    "NormalValue",
    "ScoredCategorical",
    "TanhGaussian",
    "ValueHead",
    "default_head",
    "heads_of",
    "noting",
]
