"""Where a NaN is born: the mode that looks at the result of every operation."""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Self

from ferrograd import _core
from ferrograd._core import AnomalyError, Tensor
from ferrograd.checks import check_bool
from ferrograd.nn.module import Module

__all__ = ["anomaly_mode", "name_update", "named_calls"]


class anomaly_mode:
    """Raise `AnomalyError` where the first NaN is made, in a result or a gradient: a ``with`` block.

    The error says which operation, in the layer of which dotted name, forward or backward, and the ranges of
    what went in. Around `Trainer.fit` it names epoch and batch too; the loop stays native, with a look behind
    each operation, and the numbers stay the same. Model and optimizer are then as before the step that
    failed, as nothing is updated before all gradients were seen. Only where the update itself overflows, by a
    rate that is too large, are they left behind it.

    Eager ``optimizer.step()`` is looked at too, after the whole step: the message counts the parameters of
    the optimizer. Inside a `Function` each operation of forward is looked at, and the gradient that backward
    returns.

    The mode is one of this thread, as `no_grad`. It costs a reading of each result; outside the block nothing
    is looked at. A NaN that is masked later, as in ``where(x > 0, x.log(), 0)``, is one too.

    Parameters
    ----------
    check_inf : bool, default False
        Whether infinity is an anomaly too: a NaN often begins as one.

    Raises
    ------
    ConfigError
        If `check_inf` is no bool.
    AnomalyError
        Inside; a `NonFiniteError` with the attributes ``op``, ``phase`` ("forward", "backward", "jvp" or
        "update"), ``layer`` (None outside modules), ``at`` and ``value`` (where, and what), ``epoch`` and
        ``batch`` (None outside a trainer) and ``inputs``, the tensors that the operation was computed from:
        in backward the gradient, then what was saved.

    See Also
    --------
    ConvergenceWarning : what a trainer gives without the mode where the loss is not finite.

    Examples
    --------
    >>> import ferrograd as fg
    >>> x = fg.tensor([1.0, -1.0])
    >>> with fg.anomaly_mode():
    ...     x.log().sum()
    Traceback (most recent call last):
        ...
    ferrograd.AnomalyError: log: the result is NaN at (1,); operand 0: float32 (2,) from -1.0 to 1.0
    """

    def __init__(self, check_inf: bool = False) -> None:
        check_bool("check_inf", check_inf)
        self._mode = bool(check_inf)
        self._previous: list[bool | None] = []

    def __enter__(self) -> Self:
        _watch_calls(+1)
        self._previous.append(_core.set_anomaly_mode(self._mode))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        _core.set_anomaly_mode(self._previous.pop())
        _watch_calls(-1)


@contextmanager
def named_calls() -> Iterator[None]:
    """Tell the engine the names of the modules that are called inside."""
    _watch_calls(+1)
    try:
        yield
    finally:
        _watch_calls(-1)


class _Calls(threading.local):
    """The names of the modules inside the outermost one that is being called."""

    names: dict[int, str] | None = None


_calls = _Calls()
_plain_call = Module.__dict__["__call__"]
_lock = threading.Lock()
_open_modes = 0


def _watch_calls(change: int) -> None:
    """Put `_watched` in the place of a module's call while a mode is open: calls cost no more elsewhere."""
    global _open_modes
    with _lock:
        _open_modes += change
        type.__setattr__(Module, "__call__", _watched if _open_modes else _plain_call)


def _watched(self: Module, *args: Any, **kwargs: Any) -> Any:
    """Call `forward`, and let anomalies inside carry the module's name."""
    outermost = _calls.names is None
    if _calls.names is None:
        _calls.names = {id(module): name for name, module in self.named_modules()}
    _core.enter_layer(_calls.names.get(id(self)) or type(self).__name__)
    try:
        return self.forward(*args, **kwargs)
    finally:
        _core.leave_layer()
        if outermost:
            _calls.names = None


def name_update(error: AnomalyError, model: Any, params: Sequence[Tensor]) -> None:
    """Say which parameter of the model an update has overflown."""
    param = params[int(error.layer or 0)]
    named = model.named_parameters() if isinstance(model, Module) else ()
    error.layer = next((name for name, other in named if other is param), None)
    error.args = (f"{error.args[0]} (parameter {error.layer or 'without a name'})",)
