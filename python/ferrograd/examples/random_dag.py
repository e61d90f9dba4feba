"""A network wired at random, trained on digits.

Shows that nothing depends on layers in a row: 16 nodes, joined by random edges, with a learnt weight for
each. The `Trainer` compiles it as any other model; the picture shows what runs.
"""

from collections.abc import Sequence

import ferrograd as fg
from ferrograd.examples.pictures import Parser


def main(argv: Sequence[str] | None = None) -> None:
    """Wire, train, and print the accuracy and the edges that weigh most."""
    out = Parser(__doc__).parse_args(argv).out

    X, y = fg.datasets.load_digits()
    X_train, X_test, y_train, y_test = fg.datasets.train_test_split(X / 16, y, seed=0, stratify=y)

    fg.manual_seed(0)
    model = fg.nn.RandomDAG(64, 10, nodes=16, width=32, p=0.25, seed=1)
    count = sum(parameter.numel() for parameter in model.parameters())
    print(f"{model.nodes} nodes, {len(model.edges)} edges, {count} parameters")

    trainer = fg.Trainer(model, fg.nn.CrossEntropyLoss(), fg.optim.Adam(model.parameters(), lr=0.003))
    trainer.fit(X_train, y_train, epochs=30, batch_size=32, seed=0, progress=False)
    print(f"test accuracy {trainer.evaluate(X_test, y_test)['accuracy']:.3f}")

    weights = model.mix.detach().sigmoid().tolist()
    heaviest = sorted(zip(weights, model.edges, strict=False), reverse=True)[:3]
    for weight, (source, target) in heaviest:
        print(f"edge {source:2} -> {target:2}  weight {weight:.3f}")

    if out:
        fg.draw(model, values=False, grads=False).save(out / "random_dag.svg")


if __name__ == "__main__":
    main()
