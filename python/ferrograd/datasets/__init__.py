"""Data to learn from: real digits in the package, MNIST from files, points in the plane, and a split."""

from ferrograd.datasets.files import MNIST, load_digits, load_mnist
from ferrograd.datasets.split import train_test_split
from ferrograd.datasets.synthetic import (
    Dataset,
    make_circles,
    make_gauss,
    make_moons,
    make_spiral,
    make_xor,
)

__all__ = [
    "MNIST",
    "Dataset",
    "load_digits",
    "load_mnist",
    "make_circles",
    "make_gauss",
    "make_moons",
    "make_spiral",
    "make_xor",
    "train_test_split",
]
