"""A planted circle, found again: logistic regression on ``z = (x1 - w1)^2 + (x2 - w2)^2 - w0^2``.

Shows that a model is any function of tensors: three numbers are learnt by 999 steps of plain
gradient descent.
"""

from collections.abc import Sequence

import numpy as np

import ferrograd as fg
from ferrograd.examples.pictures import Parser, save

CENTRE, RADIUS = np.array([1.0, -0.5]), 3.0


def main(argv: Sequence[str] | None = None) -> None:
    """Label points inside and outside, fit, and print the circle that was found."""
    out = Parser(__doc__).parse_args(argv).out

    # A grid, so that the best circle is the planted one without an error of sampling.
    X = np.stack(np.meshgrid(*[np.linspace(-6, 6, 40)] * 2), axis=-1).reshape(-1, 2)
    y = (((X - CENTRE) ** 2).sum(axis=1) > RADIUS**2).astype(np.float64)

    points = fg.tensor(X)
    w = fg.tensor([1.0, 0.0, 0.0], dtype=fg.float64, requires_grad=True)
    loss_of = fg.nn.BCEWithLogitsLoss()
    optimizer = fg.optim.SGD([w], lr=0.1)

    def score(points: fg.Tensor) -> fg.Tensor:
        return (points[:, 0] - w[1]).square() + (points[:, 1] - w[2]).square() - w[0].square()

    for step in range(999):
        loss = loss_of(score(points), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step in (0, 9, 99, 998):
            radius, x, y0 = w.tolist()
            circle = f"centre ({x:.3f}, {y0:.3f})  radius {radius:.3f}"
            print(f"step {step + 1:3}  loss {loss.item():.4f}  {circle}")
    print(f"planted: centre ({CENTRE[0]:.3f}, {CENTRE[1]:.3f}), radius {RADIUS:.3f}")

    if out:
        save(
            fg.viz.decision_boundary(lambda rows: score(fg.tensor(rows)).detach(), X, y.astype(int)),
            out / "circle.png",
        )


if __name__ == "__main__":
    main()
