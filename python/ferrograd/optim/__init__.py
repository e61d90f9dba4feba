"""Optimizers, under PyTorch's names and defaults."""

from ferrograd.optim import lr_scheduler, swa_utils
from ferrograd.optim.adam import Adam, AdamW
from ferrograd.optim.asgd import ASGD
from ferrograd.optim.lbfgs import LBFGS
from ferrograd.optim.moments import Adamax, NAdam, RAdam
from ferrograd.optim.muon import Muon
from ferrograd.optim.optimizer import Optimizer
from ferrograd.optim.roots import Adadelta, Adagrad, RMSprop
from ferrograd.optim.sgd import SGD
from ferrograd.optim.signs import Lion, Rprop

__all__ = [
    "ASGD",
    "LBFGS",
    "SGD",
    "Adadelta",
    "Adagrad",
    "Adam",
    "AdamW",
    "Adamax",
    "Lion",
    "Muon",
    "NAdam",
    "Optimizer",
    "RAdam",
    "RMSprop",
    "Rprop",
    "lr_scheduler",
    "swa_utils",
]
