"""A model's gradients and parameters around a step, under PyTorch's names; `summary` is ours."""

from ferrograd.nn.utils.clipping import clip_grad_norm_, clip_grad_value_
from ferrograd.nn.utils.summary import Layer, Summary, summary
from ferrograd.nn.utils.vectors import parameters_to_vector, vector_to_parameters

__all__ = [
    "Layer",
    "Summary",
    "clip_grad_norm_",
    "clip_grad_value_",
    "parameters_to_vector",
    "summary",
    "vector_to_parameters",
]
