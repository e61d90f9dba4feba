"""XOR, which no straight line parts, learnt by two layers.

Shows the eager API: parameters, a loss, `backward`, an optimizer, and what the hidden layer makes of
the plane.
"""

from collections.abc import Sequence

import numpy as np

import ferrograd as fg
from ferrograd.examples.pictures import Parser, save


def main(argv: Sequence[str] | None = None) -> None:
    """Train and print the four answers."""
    out = Parser(__doc__).parse_args(argv).out

    X = np.array([[0, 0], [0, 1], [1, 0], [1, 1]], dtype=np.float32)
    y = np.array([0, 1, 1, 0], dtype=np.float32)

    fg.manual_seed(0)
    model = fg.nn.Sequential(fg.nn.Linear(2, 2), fg.nn.Tanh(), fg.nn.Linear(2, 1))
    loss_of = fg.nn.BCEWithLogitsLoss()
    optimizer = fg.optim.Adam(model.parameters(), lr=0.05)

    for step in range(301):
        loss = loss_of(model(X).reshape(-1), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % 50 == 0:
            print(f"step {step:3}  loss {loss.item():.4f}")

    with fg.no_grad():
        probabilities = model(X).sigmoid().reshape(-1).numpy()
    for (a, b), probability in zip(X, probabilities, strict=True):
        print(f"{a:.0f} xor {b:.0f} = {probability:.3f}")
    print(f"accuracy {np.mean((probabilities > 0.5) == y):.2f}")

    if out:
        save(fg.viz.decision_boundary(model, X, y.astype(int), margin=0.5), out / "xor_boundary.png")
        save(fg.viz.hidden_space(model, X, y.astype(int)), out / "xor_hidden.png")
        fg.draw(model, inputs=X).save(out / "xor_graph.svg")


if __name__ == "__main__":
    main()
