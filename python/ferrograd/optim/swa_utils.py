"""Averages of a model's weights over training: equal means (SWA) and exponential moving averages (EMA)."""

import copy
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeAlias

from ferrograd import _core
from ferrograd._core import ConfigError, DTypeError, ShapeError, Tensor
from ferrograd._typing import DeviceLike
from ferrograd.autograd import no_grad
from ferrograd.checks import check_int, check_number
from ferrograd.nn.module import Module, in_mode
from ferrograd.nn.normalization import BatchNorm1d
from ferrograd.optim.lr_scheduler.base import LRScheduler, check_optimizer, per_group
from ferrograd.optim.optimizer import Optimizer

__all__ = [
    "SWALR",
    "AveragedModel",
    "get_ema_avg_fn",
    "get_ema_multi_avg_fn",
    "get_swa_avg_fn",
    "get_swa_multi_avg_fn",
    "update_bn",
]

AvgFn: TypeAlias = Callable[[Tensor, Tensor, Tensor], Tensor]
MultiAvgFn: TypeAlias = Callable[[Sequence[Tensor], Sequence[Tensor], Tensor], None]


def get_ema_avg_fn(decay: float = 0.999) -> AvgFn:
    """Return ``(average, value, n) -> decay average + (1 - decay) value``, the exponential moving average.

    Parameters
    ----------
    decay : float, default 0.999
        In [0, 1]: the average looks back over about ``1 / (1 - decay)`` updates.

    Raises
    ------
    ConfigError
        If `decay` is outside [0, 1].

    Examples
    --------
    >>> import ferrograd as fg
    >>> ema = fg.optim.swa_utils.get_ema_avg_fn(0.5)
    >>> ema(fg.tensor(1.0), fg.tensor(2.0), fg.tensor(7)).item()
    1.5
    """
    check_number("decay", decay, low=0.0)
    if decay > 1:
        raise ConfigError(f"decay: expected a number of at most 1, got {decay!r}")

    def ema(average: Tensor, value: Tensor, num_averaged: Tensor) -> Tensor:
        return average * decay + value * (1 - decay)

    return ema


def get_swa_avg_fn() -> AvgFn:
    """Return ``(average, value, n) -> average + (value - average) / (n + 1)``, the mean of n + 1 values.

    Izmailov et al., "Averaging weights leads to wider optima and better generalization", 2018.

    Examples
    --------
    >>> import ferrograd as fg
    >>> swa = fg.optim.swa_utils.get_swa_avg_fn()
    >>> swa(fg.tensor(1.0), fg.tensor(4.0), fg.tensor(2)).item()
    2.0
    """

    def swa(average: Tensor, value: Tensor, num_averaged: Tensor) -> Tensor:
        return average + (value - average) / float(num_averaged.item() + 1)

    return swa


def get_ema_multi_avg_fn(decay: float = 0.999) -> MultiAvgFn:
    """Return `get_ema_avg_fn` for lists of tensors, in place on the first list.

    Examples
    --------
    >>> import ferrograd as fg
    >>> averages = [fg.tensor([1.0]), fg.tensor([2.0])]
    >>> values = [fg.tensor([3.0]), fg.tensor([4.0])]
    >>> fg.optim.swa_utils.get_ema_multi_avg_fn(0.5)(averages, values, fg.tensor(1))
    >>> averages
    [tensor([2.]), tensor([3.])]
    """
    return _for_lists(get_ema_avg_fn(decay))


def get_swa_multi_avg_fn() -> MultiAvgFn:
    """Return `get_swa_avg_fn` for lists of tensors, in place on the first list.

    Examples
    --------
    >>> import ferrograd as fg
    >>> averages = [fg.tensor([1.0]), fg.tensor([2.0])]
    >>> values = [fg.tensor([3.0]), fg.tensor([4.0])]
    >>> fg.optim.swa_utils.get_swa_multi_avg_fn()(averages, values, fg.tensor(1))
    >>> averages
    [tensor([2.]), tensor([3.])]
    """
    return _for_lists(get_swa_avg_fn())


def _for_lists(avg_fn: AvgFn) -> MultiAvgFn:
    def average(averages: Sequence[Tensor], values: Sequence[Tensor], num_averaged: Tensor) -> None:
        with no_grad():
            for mean, value in zip(averages, values, strict=True):
                mean.copy_(avg_fn(mean, value, num_averaged))

    return average


class AveragedModel(Module):
    """A copy of a model that holds an average of its weights.

    Each `update_parameters` takes the model's present weights into the average; the first copies them. The
    average itself is called, saved and evaluated like any model, and is not trained. Averages of running
    statistics of batch normalisation do not fit the averaged weights: call `update_bn` before use. A
    `Trainer` updates it after each epoch by the callback `ferrograd.WeightAveraging`.

    Parameters
    ----------
    model : Module
        Copied.
    device : optional
        None or "cpu".
    avg_fn : callable, optional
        ``(average, value, num_averaged) -> new average`` for one parameter; the equal mean (SWA) by default.
    multi_avg_fn : callable, optional
        ``(averages, values, num_averaged)``, in place on the averages, for all parameters in one call.
    use_buffers : bool, default False
        Whether floating buffers are averaged too; otherwise, and for others, the latest values are copied.

    Attributes
    ----------
    module : Module
        The copy.
    n_averaged : Tensor of shape (), int64
        Updates so far; saved with the weights.

    Raises
    ------
    ConfigError
        If both functions are given, or `model` is no Module.

    Examples
    --------
    >>> import ferrograd as fg
    >>> model = fg.nn.Linear(1, 1, bias=False)
    >>> averaged = fg.optim.swa_utils.AveragedModel(model)
    >>> for value in (1.0, 2.0, 6.0):
    ...     fg.nn.utils.vector_to_parameters(fg.tensor([value]), model.parameters())
    ...     averaged.update_parameters(model)
    >>> averaged(fg.tensor([[1.0]])).item()
    3.0
    """

    module: Module
    n_averaged: Tensor

    def __init__(
        self,
        model: Module,
        device: DeviceLike | None = None,
        avg_fn: AvgFn | None = None,
        multi_avg_fn: MultiAvgFn | None = None,
        use_buffers: bool = False,
    ) -> None:
        super().__init__()
        if not isinstance(model, Module):
            raise ConfigError(f"AveragedModel: model must be a Module, got {type(model).__name__}")
        if avg_fn is not None and multi_avg_fn is not None:
            raise ConfigError("AveragedModel: give avg_fn or multi_avg_fn, not both")
        self.module = copy.deepcopy(model)
        self.register_buffer("n_averaged", _core.zeros((), dtype="int64", device=device))
        self.avg_fn = avg_fn
        self.multi_avg_fn = multi_avg_fn
        self.use_buffers = use_buffers

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Call the averaged copy."""
        return self.module(*args, **kwargs)

    @no_grad()
    def update_parameters(self, model: Module) -> None:
        """Take the model's present weights into the average.

        Raises
        ------
        ShapeError
            If the model has other parameters or buffers than the one that was copied; nothing was changed.
        """
        averages = [param.detach() for param in self.module.parameters()]
        values = [param.detach() for param in model.parameters()]
        ours, theirs = list(self.module.buffers()), list(model.buffers())
        shapes = [tensor.shape for tensor in (*averages, *ours)]
        if shapes != [tensor.shape for tensor in (*values, *theirs)]:
            raise ShapeError("update_parameters: the model has other parameters or buffers than the average")
        copied = list(zip(ours, theirs, strict=True))
        if self.use_buffers:
            pairs = [pair for pair in copied if pair[0].dtype.is_floating_point]
            copied = [pair for pair in copied if not pair[0].dtype.is_floating_point]
            averages += [average for average, _ in pairs]
            values += [value for _, value in pairs]
        if self.n_averaged.item() == 0:
            copied += zip(averages, values, strict=True)
        elif self.multi_avg_fn is not None:
            self.multi_avg_fn(averages, values, self.n_averaged)
        else:
            avg_fn = self.avg_fn or get_swa_avg_fn()
            # All before the first is written: a function that fails leaves the average as it was.
            found = [avg_fn(*pair, self.n_averaged) for pair in zip(averages, values, strict=True)]
            copied += zip(averages, found, strict=True)
        for target, value in copied:
            target.copy_(value)
        self.n_averaged.add_(1)


class SWALR(LRScheduler):
    """From the present rate to `swa_lr` in `anneal_epochs` steps, where it stays while weights are averaged.

    ``lr_t = (1 - a_t) lr + a_t swa_lr`` with ``a_t = (1 - cos(pi s)) / 2`` or ``a_t = s``, ``s = min(1, t /
    anneal_epochs)``, and lr the rate without this schedule, which is found from the rate before, so that it
    goes together with others (Izmailov et al., "Averaging weights leads to wider optima and better
    generalization", 2018).

    Parameters
    ----------
    optimizer : Optimizer
        Its groups' rates are set.
    swa_lr : float, or list of float
        The last rate; one for all groups, or one for each.
    anneal_epochs : int, default 10
        Steps of the change; 0 for none.
    anneal_strategy : {"cos", "linear"}, default "cos"
        Its form.
    last_epoch : int, default -1
        Steps made before, where an optimizer with ``"initial_lr"`` in its groups is taken over.

    Raises
    ------
    ConfigError
        If an option is out of range.

    Examples
    --------
    >>> import ferrograd as fg
    >>> p = fg.tensor([1.0], requires_grad=True)
    >>> optimizer = fg.optim.SGD([p], lr=0.8)
    >>> schedule = fg.optim.swa_utils.SWALR(optimizer, 0.2, anneal_epochs=3, anneal_strategy="linear")
    >>> schedule.upcoming(5)[:, 0, 0].round(4).tolist()
    [0.8, 0.6, 0.4, 0.2, 0.2]
    """

    def __init__(
        self,
        optimizer: Optimizer,
        swa_lr: float | Sequence[float],
        anneal_epochs: int = 10,
        anneal_strategy: str = "cos",
        last_epoch: int = -1,
    ) -> None:
        self.swa_lrs = per_group("SWALR", "swa_lr", swa_lr, check_optimizer("SWALR", optimizer))
        check_int("SWALR: anneal_epochs", anneal_epochs, low=0)
        if anneal_strategy not in ("cos", "linear"):
            raise ConfigError(f"SWALR: anneal_strategy must be 'cos' or 'linear', got {anneal_strategy!r}")
        self.anneal_epochs = anneal_epochs
        self.anneal_strategy = anneal_strategy
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        """Return the rates after `last_epoch` steps."""
        before, now = self._share(self.last_epoch - 1), self._share(self.last_epoch)
        pairs = zip(self._rates(), self.swa_lrs, strict=True)
        # At the end of the change nothing is left of the rate without it.
        without = [last if before == 1 else (rate - before * last) / (1 - before) for rate, last in pairs]
        return [now * last + (1 - now) * rate for rate, last in zip(without, self.swa_lrs, strict=True)]

    def _share(self, steps: int) -> float:
        """Return how much of `swa_lr` is in the rate after so many steps."""
        # Without a change the first rate is the last one already; there is none before it.
        if self.anneal_epochs == 0:
            return float(steps >= 0)
        share = min(1.0, max(0.0, steps / self.anneal_epochs))
        return share if self.anneal_strategy == "linear" else (1 - math.cos(math.pi * share)) / 2

    def _first(self) -> list[float]:
        # In a `SequentialLR` it goes on from the part before.
        return self.swa_lrs if self.anneal_epochs == 0 else self._rates()


@no_grad()
def update_bn(loader: Iterable[Any], model: Module, device: DeviceLike | None = None) -> None:
    """Compute the running statistics of batch normalisation anew, as the mean over the batches of `loader`.

    Parameters
    ----------
    loader : iterable
        Batches: what the model is called with, or tuples that begin with it.
    model : Module
        Called with each batch in training mode; every module is back in its own mode afterwards.
    device : optional
        None or "cpu"; there is no other.

    Raises
    ------
    DeviceError
        If there is no such device.
    Exception
        Whatever the model raises; the statistics are then as they were.

    Examples
    --------
    >>> import ferrograd as fg
    >>> layer = fg.nn.BatchNorm1d(1)
    >>> fg.optim.swa_utils.update_bn([fg.tensor([[0.0], [2.0]]), fg.tensor([[4.0], [6.0]])], layer)
    >>> layer.running_mean.tolist(), layer.momentum
    ([3.0], 0.1)
    """
    _core.zeros(0, device=device)
    if not isinstance(model, Module):
        raise DTypeError(f"update_bn: model must be a Module, got {model!r}")
    norms = [module for module in model.modules() if isinstance(module, BatchNorm1d)]
    norms = [module for module in norms if module.track_running_stats]
    if not norms:
        return
    momenta = [module.momentum for module in norms]
    before = [(buffer, buffer.clone()) for module in norms for buffer in module.buffers()]
    try:
        for module in norms:
            module.momentum = None
            for buffer in module.buffers():
                buffer.fill_(1 if buffer is module.running_var else 0)
        with in_mode(model, training=True):
            for batch in loader:
                model(batch[0] if isinstance(batch, tuple | list) else batch)
    except BaseException:
        for buffer, value in before:
            buffer.copy_(value)
        raise
    finally:
        for module, momentum in zip(norms, momenta, strict=True):
            module.momentum = momentum
