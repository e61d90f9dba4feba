"""Neural-network backpropagation: a Rust core under a thin Python API."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from ferrograd import autograd, func, nn, ops, optim, random
from ferrograd._core import (
    AnomalyError,
    CheckpointError,
    ConfigError,
    CorruptFileError,
    CycleError,
    Device,
    DeviceError,
    DType,
    DTypeError,
    FerrogradError,
    Generator,
    Graph,
    GraphError,
    InternalError,
    LabelError,
    Node,
    NonFiniteError,
    OutOfRangeError,
    ShapeError,
    Tensor,
    __version__,
    arange,
    bool_,
    empty,
    empty_like,
    eye,
    float32,
    float64,
    full,
    full_like,
    gate,
    get_num_threads,
    get_rng_state,
    info,
    int64,
    linspace,
    manual_seed,
    ones,
    ones_like,
    rand,
    rand_like,
    randint,
    randint_like,
    randn,
    randn_like,
    set_num_threads,
    set_rng_state,
    tensor,
    uint8,
    zeros,
    zeros_like,
)
from ferrograd.anomaly import anomaly_mode
from ferrograd.autograd import enable_grad, is_grad_enabled, no_grad, set_grad_enabled
from ferrograd.io import load
from ferrograd.ops import *  # noqa: F403

if TYPE_CHECKING:
    from ferrograd import datasets, viz
    from ferrograd.backward_trace import Trace, TraceOperand, TraceStep, trace
    from ferrograd.drawing import Drawing, draw
    from ferrograd.gradient_report import GradientReport, ParameterCheck, check_gradients
    from ferrograd.health import ActivationHealth, Finding, HealthReport, ParameterHealth
    from ferrograd.loggers import CSVLogger, JSONLinesLogger
    from ferrograd.plan import Plan
    from ferrograd.trainer import (
        Callback,
        ConvergenceWarning,
        EarlyStopping,
        History,
        Trainer,
        WeightAveraging,
    )

# PyTorch's other names for the dtypes, and for the class of devices.
bool = bool_
double = float64
float = float32
long = int64
device = Device

__all__ = [
    "ActivationHealth",
    "AnomalyError",
    "CSVLogger",
    "Callback",
    "CheckpointError",
    "ConfigError",
    "ConvergenceWarning",
    "CorruptFileError",
    "CycleError",
    "DType",
    "DTypeError",
    "Device",
    "DeviceError",
    "Drawing",
    "EarlyStopping",
    "FerrogradError",
    "Finding",
    "Generator",
    "GradientReport",
    "Graph",
    "GraphError",
    "HealthReport",
    "History",
    "InternalError",
    "JSONLinesLogger",
    "LabelError",
    "Node",
    "NonFiniteError",
    "OutOfRangeError",
    "ParameterCheck",
    "ParameterHealth",
    "Plan",
    "ShapeError",
    "Tensor",
    "Trace",
    "TraceOperand",
    "TraceStep",
    "Trainer",
    "WeightAveraging",
    "__version__",
    "anomaly_mode",
    "arange",
    "autograd",
    "bool",
    "bool_",
    "check_gradients",
    "datasets",
    "device",
    "double",
    "draw",
    "empty",
    "empty_like",
    "enable_grad",
    "eye",
    "float",
    "float32",
    "float64",
    "full",
    "full_like",
    "func",
    "gate",
    "get_num_threads",
    "get_rng_state",
    "info",
    "int64",
    "is_grad_enabled",
    "linspace",
    "load",
    "long",
    "manual_seed",
    "nn",
    "no_grad",
    "ones",
    "ones_like",
    "ops",
    "optim",
    "rand",
    "rand_like",
    "randint",
    "randint_like",
    "randn",
    "randn_like",
    "random",
    "set_grad_enabled",
    "set_num_threads",
    "set_rng_state",
    "tensor",
    "trace",
    "uint8",
    "viz",
    "zeros",
    "zeros_like",
]
__all__ += ops.__all__

# Loaded at first use, so that `import ferrograd` stays quick.
_LAZY = {
    "ActivationHealth": "ferrograd.health",
    "CSVLogger": "ferrograd.loggers",
    "Callback": "ferrograd.trainer",
    "ConvergenceWarning": "ferrograd.trainer",
    "Drawing": "ferrograd.drawing",
    "EarlyStopping": "ferrograd.trainer",
    "Finding": "ferrograd.health",
    "GradientReport": "ferrograd.gradient_report",
    "HealthReport": "ferrograd.health",
    "History": "ferrograd.trainer",
    "JSONLinesLogger": "ferrograd.loggers",
    "ParameterCheck": "ferrograd.gradient_report",
    "ParameterHealth": "ferrograd.health",
    "Plan": "ferrograd.plan",
    "Trace": "ferrograd.backward_trace",
    "TraceOperand": "ferrograd.backward_trace",
    "TraceStep": "ferrograd.backward_trace",
    "Trainer": "ferrograd.trainer",
    "WeightAveraging": "ferrograd.trainer",
    "check_gradients": "ferrograd.gradient_report",
    "datasets": "ferrograd.datasets",
    "draw": "ferrograd.drawing",
    "trace": "ferrograd.backward_trace",
    "viz": "ferrograd.viz",
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'ferrograd' has no attribute {name!r}")
    module = import_module(_LAZY[name])
    return module if _LAZY[name].endswith(f".{name}") else getattr(module, name)
