"""Optimizers, under PyTorch's names and defaults."""

from ferrograd.optim.adam import Adam, AdamW
from ferrograd.optim.optimizer import Optimizer
from ferrograd.optim.sgd import SGD

__all__ = ["SGD", "Adam", "AdamW", "Optimizer"]
