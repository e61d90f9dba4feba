"""What is done with a model's gradients and parameters around a step, under PyTorch's names."""

from ferrograd.nn.utils.clipping import clip_grad_norm_, clip_grad_value_
from ferrograd.nn.utils.vectors import parameters_to_vector, vector_to_parameters

__all__ = ["clip_grad_norm_", "clip_grad_value_", "parameters_to_vector", "vector_to_parameters"]
