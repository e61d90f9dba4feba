"""L-BFGS: the quasi-Newton method of small problems and full batches."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from ferrograd import _core
from ferrograd._core import ConfigError, ShapeError, Tensor
from ferrograd.autograd import enable_grad, no_grad
from ferrograd.checks import check_int
from ferrograd.optim.optimizer import Optimizer, ParamsLike, check_rates, floats

__all__ = ["LBFGS"]

_NUMBERS = ("t", "H_diag", "n_iter", "func_evals")


class LBFGS(Optimizer):
    """Steps along an approximation of Newton's direction, ``p = p - t H g``; for full batches.

    H approximates the inverse of the second derivatives by the last `history_size` pairs of differences ``s``
    of p and ``y`` of g: ``H = (I - r s y^T) H (I - r y s^T) + r s s^T`` with ``r = 1 / (y s)``, from ``H = (y
    s) / (y y) I`` for the last pair (Nocedal, "Updating quasi-Newton matrices with limited storage", 1980).
    With `line_search_fn` "strong_wolfe" t is searched for until the loss has fallen enough and the slope is
    small.

    All parameters are one vector, kept in float64 whatever their dtype. Where two losses differ by no more
    than rounding, which in float32 is 1e-7 of their terms, slopes say which is lower (the approximate Wolfe
    conditions of Hager and Zhang, 2005), so that the minimum is found to the accuracy of the gradient. Each
    batch makes a step of its own, in `Trainer.fit` too, and the pairs go from one to the next as in PyTorch.
    Those between batches hold the noise of both: give `Trainer.fit` a ``batch_size`` of all rows.

    Parameters
    ----------
    params : iterable of Tensor, or of dict
        Leaves to train; one group.
    lr : float, default 1
        Length of a step, or the first that the line search tries.
    max_iter : int, default 20
        Iterations of a step.
    max_eval : int, optional
        Evaluations of a step after which no iteration begins, by default ``max_iter * 5 // 4``.
    tolerance_grad : float, default 1e-07
        A step ends when no element of g is larger.
    tolerance_change : float, default 1e-09
        A step ends when loss or p change by less.
    history_size : int, default 100
        Pairs that are kept.
    line_search_fn : {"strong_wolfe"}, optional
        How t is found; without it t is `lr`.

    Raises
    ------
    ConfigError
        If an option is out of range, or there is more than one group.

    Examples
    --------
    >>> import ferrograd as fg
    >>> p = fg.tensor([3.0, -4.0], dtype=fg.float64, requires_grad=True)
    >>> optimizer = fg.optim.LBFGS([p], line_search_fn="strong_wolfe")
    >>> def closure():
    ...     optimizer.zero_grad()
    ...     loss = (p - 1).square().sum()
    ...     loss.backward()
    ...     return loss
    >>> optimizer.step(closure).item()
    29.0
    >>> [round(value, 6) for value in p.tolist()]
    [1.0, 1.0]
    """

    buffers = ("d", "prev_flat_grad", "old_dirs", "old_stps", "ro")
    scalars = _NUMBERS
    is_element_wise = False
    evaluates_again = True

    def __init__(
        self,
        params: ParamsLike,
        lr: float = 1,
        max_iter: int = 20,
        max_eval: int | None = None,
        tolerance_grad: float = 1e-7,
        tolerance_change: float = 1e-9,
        history_size: int = 100,
        line_search_fn: str | None = None,
    ) -> None:
        check_int("LBFGS: max_iter", max_iter, low=1)
        defaults = {
            "lr": lr,
            "max_iter": max_iter,
            "max_eval": max_iter * 5 // 4 if max_eval is None else max_eval,
            "tolerance_grad": tolerance_grad,
            "tolerance_change": tolerance_change,
            "history_size": history_size,
            "line_search_fn": line_search_fn,
        }
        super().__init__(params, defaults)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Take the one group.

        Raises
        ------
        ConfigError
            If there is a group already.
        """
        if self.param_groups:
            raise ConfigError("LBFGS: params must be one group, got a second")
        super().add_param_group(param_group)

    def check_group(self, group: Mapping[str, Any]) -> None:
        """Raise `ConfigError` if an option is out of range."""
        check_rates("LBFGS", group, "lr", "tolerance_grad", "tolerance_change")
        for name in ("max_iter", "max_eval", "history_size"):
            check_int(f"LBFGS: {name}", group[name], low=1)
        if group["line_search_fn"] not in (None, "strong_wolfe"):
            found = group["line_search_fn"]
            raise ConfigError(f"LBFGS: line_search_fn must be 'strong_wolfe' or None, got {found!r}")

    def buffer_names(self, group: Mapping[str, Any]) -> tuple[str, ...]:
        """Return no names: nothing is remembered of a single parameter."""
        return ()

    def native_options(self) -> dict[str, Any]:
        """Return the options in the native form."""
        group = self.param_groups[0]
        return {
            **floats(group, "lr", "tolerance_grad", "tolerance_change"),
            **{name: group[name] for name in ("max_iter", "max_eval", "history_size")},
            "strong_wolfe": group["line_search_fn"] is not None,
            "loss_eps": max(float(np.finfo(param.dtype.name).eps) for param in group["params"]),
        }

    def native_memory(self) -> dict[str, Any]:
        """Return what goes from step to step: the state, which belongs to the first parameter."""
        memory: dict[str, Any] = self.state.setdefault(self._params()[0], {})
        return memory

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Make up to `max_iter` iterations.

        Parameters
        ----------
        closure : callable
            Computes the loss and its gradients anew; called for each evaluation, with recording on.

        Returns
        -------
        object
            What `closure` returned first.

        Raises
        ------
        ConfigError
            If there is no closure.
        """
        if closure is None:
            raise ConfigError("LBFGS: step needs a closure, got None")
        self.check_group(self.param_groups[0])
        params = self._params()
        returned: list[Any] = []

        def evaluate() -> tuple[float, list[Tensor | None]]:
            with enable_grad():
                loss = closure()
            if not returned:
                returned.append(loss)
            return float(loss), [param.grad for param in params]

        memory = dict(self.state.get(params[0], {}))
        with no_grad():
            _core.lbfgs_step(self.native_options(), memory, params, evaluate)
        self.state[params[0]] = memory
        self._watch()
        return returned[0]

    def hand_over(self, engine: _core.Engine, params: list[Tensor], rates: Tensor | None) -> None:
        """Make a native loop make this optimizer's steps."""
        engine.set_rules([])
        engine.set_minimizer(self.native_options(), self.native_memory())

    def take_back(self, engine: _core.Engine, params: list[Tensor], updated: list[int], made: int) -> None:
        """Take over what the native loop remembers."""
        engine.remember(self.native_memory())

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Take over options and memory; everything is checked before anything is written."""
        super().load_state_dict(state_dict)
        for state in self.state.values():
            del state["step"]

    def load_buffer(self, place: str, key: str, tensor: Tensor, param: Tensor) -> Tensor:
        """Return a part of the memory as it is kept; raise `ShapeError` if it is that of another model."""
        size = sum(member.numel() for member in self._params())
        if tensor.ndim == 0 or (key != "ro" and tensor.shape[-1] != size):
            raise ShapeError(f"{place}: expected {size} parameters, got shape {tensor.shape}")
        return tensor.to(_core.float64).clone()
