"""Reading of model files; modules and trainers write them."""

from ferrograd import _core
from ferrograd._core import Tensor
from ferrograd._typing import PathLike
from ferrograd.checks import check_path

__all__ = ["load"]


def load(path: PathLike) -> dict[str, Tensor]:
    """Read the tensors of a safetensors file.

    Parameters
    ----------
    path : str or path-like
        A file written by `Module.save`, by a trainer or by any other program.

    Returns
    -------
    dict of str to Tensor
        New leaves that require no gradient.

    Raises
    ------
    CheckpointError
        If the file cannot be read.
    CorruptFileError
        If it is no valid safetensors file.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> import ferrograd as fg
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = pathlib.Path(folder) / "model.safetensors"
    ...     fg.nn.Linear(2, 3).save(path)
    ...     {name: tensor.shape for name, tensor in sorted(fg.load(path).items())}
    {'bias': (3,), 'weight': (3, 2)}
    """
    tensors, _ = _core.load_tensors(check_path("load", path))
    return tensors
