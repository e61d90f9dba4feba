"""A function's value at some inputs, recorded so that its derivatives there can be asked for."""

from collections.abc import Callable, Sequence

import numpy as np

from ferrograd import _core
from ferrograd._core import DTypeError, GraphError, ShapeError, Tensor


class Recorded:
    """The value of `func` at `inputs`.

    Attributes
    ----------
    variables : list of Tensor
        What `func` was called with: new nodes, so that a variable of an outer derivative stays apart from
        that of an inner one. They are connected to the inputs where `connects` and an input requires a
        gradient.
    outputs : list of Tensor
        What it returned.
    """

    def __init__(
        self,
        owner: str,
        func: Callable[[list[Tensor]], list[Tensor]],
        inputs: Sequence[Tensor],
        *,
        connects: bool,
    ) -> None:
        self.owner = owner
        for position, x in enumerate(inputs):
            if not x.dtype.is_floating_point:
                raise DTypeError(f"{owner}: input {position} must be float32 or float64, got {x.dtype.name}")
        previous = _core.set_grad_enabled(True)
        try:
            self.variables = [
                x.clone() if connects and x.requires_grad else x.detach().requires_grad_() for x in inputs
            ]
            self.outputs = func(self.variables)
        finally:
            _core.set_grad_enabled(previous)

    def scalar(self) -> Tensor:
        """Return the only output, of one element."""
        if len(self.outputs) != 1 or self.outputs[0].numel() != 1:
            got = ", ".join(str(tuple(y.shape)) for y in self.outputs)
            raise ShapeError(f"{self.owner}: the function must return one tensor of one element, got {got}")
        return self.outputs[0]

    def slopes(self, strict: bool = False) -> list[Tensor]:
        """Return the gradient of the only output, recorded."""
        return self.pull([self.scalar()], None, create_graph=True, strict=strict)

    def pull(
        self,
        outputs: Sequence[Tensor],
        cotangents: Sequence[Tensor] | None,
        *,
        create_graph: bool,
        strict: bool = False,
    ) -> list[Tensor]:
        """Return the product of the Jacobian of `outputs` with `cotangents` from the left, by variable."""
        seeds = [None] * len(outputs) if cotangents is None else cotangents
        pairs = [(y, seed) for y, seed in zip(outputs, seeds, strict=True) if y.requires_grad]
        if strict and len(pairs) < len(outputs):
            position = next(i for i, y in enumerate(outputs) if not y.requires_grad)
            raise GraphError(f"{self.owner}: output {position} depends on no input, which strict refuses")
        if not pairs:
            return [_core.zeros_like(x) for x in self.variables]
        found = _core.grad(
            [y for y, _ in pairs],
            self.variables,
            None if cotangents is None else [seed for _, seed in pairs],
            retain_graph=True,
            create_graph=create_graph,
            allow_unused=True,
        )
        return self._filled(found, self.variables, "no output depends on input {}", strict)

    def push(
        self,
        outputs: Sequence[Tensor],
        tangents: Sequence[Tensor],
        *,
        create_graph: bool,
        strict: bool = False,
    ) -> list[Tensor]:
        """Return the product of the Jacobian of `outputs` with `tangents` from the right, by output."""
        found = _core.jvp(outputs, self.variables, tangents, create_graph)
        return self._filled(found, outputs, "output {} depends on no input", strict)

    def _filled(
        self, found: Sequence[Tensor | None], like: Sequence[Tensor], text: str, strict: bool
    ) -> list[Tensor]:
        """Zeros for what does not depend on the inputs."""
        missing = [position for position, part in enumerate(found) if part is None]
        if strict and missing:
            raise GraphError(f"{self.owner}: {text.format(missing[0])}, which strict refuses")
        return [_core.zeros_like(x) if part is None else part for part, x in zip(found, like, strict=True)]

    def jacobians(
        self, outputs: Sequence[Tensor], *, create_graph: bool, strict: bool = False
    ) -> list[list[Tensor]]:
        """For each of `outputs` and each variable the derivatives, of both shapes one after the other.

        One backward pass for each element of the outputs.
        """

        def of(y: Tensor) -> list[Tensor]:
            # What cannot fit is refused here, with its size, and not after hours.
            whole = [_core.empty(*y.shape, *x.shape, dtype=x.dtype) for x in self.variables]
            rows = []
            for i in range(y.numel()):
                unit = np.zeros(y.shape)
                unit.flat[i] = 1.0
                seed = _core.tensor(unit, dtype=y.dtype)
                rows.append(self.pull([y], [seed], create_graph=create_graph, strict=strict))
            if not rows:
                return whole
            return [
                _core.stack(column).reshape((*y.shape, *x.shape))
                for column, x in zip(zip(*rows, strict=True), self.variables, strict=True)
            ]

        return [of(y) for y in outputs]
