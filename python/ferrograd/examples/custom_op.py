"""``sinc(x) = sin(x) / x`` with a derivative of its own.

Written with operations, its gradient at 0 is 0/0. `autograd.Function` takes a backward written by hand, here
with the series near 0; `gradcheck` compares it with differences, and a network learns with it.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

import ferrograd as fg
from ferrograd.examples.pictures import Parser, save


def _without_zero(x: fg.Tensor) -> tuple[fg.Tensor, fg.Tensor]:
    """Where x is too small to divide by, and x with 1 at those places."""
    # There two terms of the series are as exact as the quotient, in which most digits cancel nearer to 0.
    small = x.abs() < 1e-2
    return small, fg.where(small, 1.0, x)


class Sinc(fg.autograd.Function):
    """Sin(x) / x, and 1 at 0; the derivative is (cos(x) - sinc(x)) / x."""

    @staticmethod
    def forward(ctx: Any, x: fg.Tensor) -> Any:
        """Compute the value, and keep x."""
        ctx.save_for_backward(x)
        small, divisor = _without_zero(x)
        return fg.where(small, 1 - x**2 / 6 + x**4 / 120, x.sin() / divisor)

    @staticmethod
    def backward(ctx: Any, *upstream: fg.Tensor) -> Any:
        """Return the upstream gradient times the derivative, made of operations: it can be derived again."""
        (x,) = ctx.saved_tensors
        small, divisor = _without_zero(x)
        slope = fg.where(small, x**3 / 30 - x / 3, (x.cos() - x.sin() / divisor) / divisor)
        return upstream[0] * slope


def sinc(x: fg.Tensor) -> Any:
    """Sin(x) / x, element by element."""
    return Sinc.apply(x)


def main(argv: Sequence[str] | None = None) -> None:
    """Compare both gradients at 0, check ours, and train with it."""
    out = Parser(__doc__).parse_args(argv).out

    zero = fg.tensor(0.0, dtype=fg.float64, requires_grad=True)
    print("gradient at 0 of sin(x) / x:", fg.autograd.grad(zero.sin() / zero, zero)[0])
    print("gradient at 0 of Sinc:", fg.autograd.grad(sinc(zero), zero)[0])

    x = fg.tensor([-9.0, -1.5, -0.02, -0.005, 0.0, 0.001, 0.5, 4.0], dtype=fg.float64, requires_grad=True)
    print("first derivatives agree with differences:", fg.autograd.gradcheck(sinc, x))
    print("second derivatives agree with differences:", fg.autograd.gradgradcheck(sinc, x))

    fg.manual_seed(0)
    inner, outer = fg.nn.Linear(1, 16), fg.nn.Linear(16, 1)
    parameters = [*inner.parameters(), *outer.parameters()]
    trainer = fg.Trainer(
        lambda rows: outer(sinc(inner(rows))), fg.nn.MSELoss(), fg.optim.Adam(parameters, lr=0.02)
    )
    X = np.linspace(-3, 3, 200, dtype=np.float32)[:, None]
    y = np.exp(-X * X) * np.cos(4 * X)
    trainer.fit(X, y, epochs=400, batch_size=20, seed=0, progress=False)
    print(f"largest error of the trained network {np.abs(trainer.predict(X) - y).max():.3f}")

    if out:
        save(fg.viz.activation(sinc, low=-12.0, high=12.0), out / "custom_op.png")


if __name__ == "__main__":
    main()
