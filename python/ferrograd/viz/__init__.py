"""Pictures that help to learn and to debug.

Drawing needs matplotlib (extra ``plot``); texts and numbers do not.
"""

from ferrograd.viz.boundary import boundary_series, decision_boundary, hidden_space
from ferrograd.viz.curves import LossPlot, loss_curves, spark_line
from ferrograd.viz.functions import Paths, activation, optimizer_paths
from ferrograd.viz.images import ConfusionMatrix, confusion_matrix, saliency, weight_images

__all__ = [
    "ConfusionMatrix",
    "LossPlot",
    "Paths",
    "activation",
    "boundary_series",
    "confusion_matrix",
    "decision_boundary",
    "hidden_space",
    "loss_curves",
    "optimizer_paths",
    "saliency",
    "spark_line",
    "weight_images",
]
