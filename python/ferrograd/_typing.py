"""Type aliases of the Python layer: what is accepted where a tensor, a dtype or a path is asked for."""

import os
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from ferrograd._core import Device, DType, Tensor

TensorLike: TypeAlias = Tensor | npt.ArrayLike
DTypeLike: TypeAlias = DType | np.dtype[Any] | type[np.generic] | type[bool] | type[int] | type[float] | str
DeviceLike: TypeAlias = Device | str
PathLike: TypeAlias = str | os.PathLike[str]
Array: TypeAlias = npt.NDArray[Any]
