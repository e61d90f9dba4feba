"""Layers, activations, losses and initialisation, under PyTorch's names and defaults."""

from ferrograd.nn import functional, init
from ferrograd.nn.activations import (
    ELU,
    LeakyReLU,
    LogSoftmax,
    PReLU,
    ReLU,
    Sigmoid,
    Softmax,
    Softplus,
    Tanh,
)
from ferrograd.nn.container import ModuleList, Sequential
from ferrograd.nn.layers import Dropout, Flatten, Identity, Linear, Maxout
from ferrograd.nn.losses import (
    BCELoss,
    BCEWithLogitsLoss,
    CrossEntropyLoss,
    HalfSquaredErrorLoss,
    L1Loss,
    Loss,
    MSELoss,
    MulticlassHingeLoss,
    MultiMarginLoss,
)
from ferrograd.nn.module import Module
from ferrograd.nn.parameter import Parameter

__all__ = [
    "ELU",
    "BCELoss",
    "BCEWithLogitsLoss",
    "CrossEntropyLoss",
    "Dropout",
    "Flatten",
    "HalfSquaredErrorLoss",
    "Identity",
    "L1Loss",
    "LeakyReLU",
    "Linear",
    "LogSoftmax",
    "Loss",
    "MSELoss",
    "Maxout",
    "Module",
    "ModuleList",
    "MultiMarginLoss",
    "MulticlassHingeLoss",
    "PReLU",
    "Parameter",
    "ReLU",
    "Sequential",
    "Sigmoid",
    "Softmax",
    "Softplus",
    "Tanh",
    "functional",
    "init",
]
