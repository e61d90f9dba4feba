"""1,797 real handwritten digits, learnt to 96 % in a second or two.

Shows the `Trainer`: whole epochs run natively. Then the reports: summary, health, confusion, a spark line.
"""

from collections.abc import Sequence

import ferrograd as fg
from ferrograd.examples.pictures import Parser, save


def main(argv: Sequence[str] | None = None) -> None:
    """Train, and print what was trained and how well."""
    out = Parser(__doc__).parse_args(argv).out

    X, y = fg.datasets.load_digits()
    X_train, X_test, y_train, y_test = fg.datasets.train_test_split(X / 16, y, seed=0, stratify=y)

    fg.manual_seed(0)
    model = fg.nn.Sequential(fg.nn.Linear(64, 128), fg.nn.ReLU(), fg.nn.Dropout(0.1), fg.nn.Linear(128, 10))
    print(fg.nn.utils.summary(model, (1, 64)))

    trainer = fg.Trainer(
        model, fg.nn.CrossEntropyLoss(), fg.optim.AdamW(model.parameters(), lr=0.003), clip_grad_norm=5.0
    )
    history = trainer.fit(
        X_train, y_train, epochs=30, batch_size=32, seed=0, validation_data=(X_test, y_test), progress=False
    )
    print("validation loss", fg.viz.spark_line(history.history["val_loss"]))
    print(trainer.health(X_train, y_train))

    confusion = fg.viz.confusion_matrix(y_test, trainer.predict(X_test).argmax(axis=1))
    print(confusion)
    print(f"test accuracy {confusion.accuracy:.3f}")

    if out:
        save(fg.viz.loss_curves(history), out / "digits_loss.png")
        save(confusion.plot(), out / "digits_confusion.png")
        fg.viz.weight_images(model[0].weight[:20], shape=(8, 8)).savefig(out / "digits_weights.png")


if __name__ == "__main__":
    main()
