"""Layers, activations, losses and initialisation, under PyTorch's names and defaults."""

from ferrograd.nn import (
    activations,
    branches,
    container,
    criteria,
    functional,
    init,
    layers,
    lookup,
    losses,
    margin_losses,
    noise,
    normalization,
    piecewise,
    regression_losses,
    scaling,
    tables,
    utils,
)
from ferrograd.nn.activations import *  # noqa: F403
from ferrograd.nn.branches import *  # noqa: F403
from ferrograd.nn.container import *  # noqa: F403
from ferrograd.nn.criteria import *  # noqa: F403
from ferrograd.nn.layers import *  # noqa: F403
from ferrograd.nn.lookup import *  # noqa: F403
from ferrograd.nn.losses import *  # noqa: F403
from ferrograd.nn.margin_losses import *  # noqa: F403
from ferrograd.nn.module import Module
from ferrograd.nn.noise import *  # noqa: F403
from ferrograd.nn.normalization import *  # noqa: F403
from ferrograd.nn.parameter import Parameter
from ferrograd.nn.piecewise import *  # noqa: F403
from ferrograd.nn.regression_losses import *  # noqa: F403
from ferrograd.nn.scaling import *  # noqa: F403
from ferrograd.nn.tables import *  # noqa: F403

__all__ = [
    "Module",
    "Parameter",
    "functional",
    "init",
    "utils",
    *activations.__all__,
    *branches.__all__,
    *container.__all__,
    *criteria.__all__,
    *layers.__all__,
    *lookup.__all__,
    *losses.__all__,
    *margin_losses.__all__,
    *noise.__all__,
    *normalization.__all__,
    *piecewise.__all__,
    *regression_losses.__all__,
    *scaling.__all__,
    *tables.__all__,
]
