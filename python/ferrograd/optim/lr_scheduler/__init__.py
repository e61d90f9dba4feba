"""Schedules of the learning rate, under PyTorch's names and defaults."""

from ferrograd.optim.lr_scheduler.base import LRScheduler
from ferrograd.optim.lr_scheduler.batches import CyclicLR, OneCycleLR, WarmupCosineLR
from ferrograd.optim.lr_scheduler.combined import ChainedScheduler, SequentialLR
from ferrograd.optim.lr_scheduler.epochs import (
    ConstantLR,
    CosineAnnealingLR,
    CosineAnnealingWarmRestarts,
    ExponentialLR,
    LambdaLR,
    LinearLR,
    MultiplicativeLR,
    MultiStepLR,
    PolynomialLR,
    StepLR,
)
from ferrograd.optim.lr_scheduler.plateau import ReduceLROnPlateau

__all__ = [
    "ChainedScheduler",
    "ConstantLR",
    "CosineAnnealingLR",
    "CosineAnnealingWarmRestarts",
    "CyclicLR",
    "ExponentialLR",
    "LRScheduler",
    "LambdaLR",
    "LinearLR",
    "MultiStepLR",
    "MultiplicativeLR",
    "OneCycleLR",
    "PolynomialLR",
    "ReduceLROnPlateau",
    "SequentialLR",
    "StepLR",
    "WarmupCosineLR",
]
