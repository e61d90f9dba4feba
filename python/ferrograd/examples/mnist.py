"""MNIST from its four IDX files, 60,000 images of 28 by 28 pixels.

Shows that bytes go in as they are: the native loop converts them row by row, and the model divides
them by 255.
"""

import time
from collections.abc import Sequence

import ferrograd as fg
from ferrograd.examples.pictures import Parser


def main(argv: Sequence[str] | None = None) -> None:
    """Read the files, train, and print the accuracy after each epoch."""
    parser = Parser(__doc__)
    parser.add_argument(
        "folder", nargs="?", help="holds train-images-idx3-ubyte and the others, or their .gz"
    )
    parser.add_argument("--epochs", type=int, default=5)
    arguments = parser.parse_args(argv)
    if arguments.folder is None:
        parser.error("which folder holds the IDX files of MNIST? They do not come with the package")
    if arguments.epochs < 1:
        parser.error(f"--epochs must be at least 1, got {arguments.epochs}")
    try:
        X_train, y_train, X_test, y_test = fg.datasets.load_mnist(arguments.folder)
    except fg.FerrogradError as error:
        parser.error(str(error))

    fg.manual_seed(0)
    model = fg.nn.Sequential(
        fg.nn.MulConstant(1 / 255), fg.nn.Linear(X_train.shape[1], 128), fg.nn.ReLU(), fg.nn.Linear(128, 10)
    )
    trainer = fg.Trainer(model, fg.nn.CrossEntropyLoss(), fg.optim.Adam(model.parameters(), lr=0.001))
    for epoch in range(arguments.epochs):
        started = time.perf_counter()
        history = trainer.fit(X_train, y_train, epochs=1, batch_size=128, seed=epoch, progress=False)
        seconds = time.perf_counter() - started
        accuracy = trainer.evaluate(X_test, y_test)["accuracy"]
        loss = history.history["loss"][-1]
        print(f"epoch {epoch + 1}  loss {loss:.4f}  test accuracy {accuracy:.4f}  {seconds:.1f} s")

    if arguments.out and X_train.shape[1] == 28 * 28:
        figure = fg.viz.weight_images(model[1].weight[:32], shape=(28, 28))
        figure.savefig(arguments.out / "mnist_weights.png")


if __name__ == "__main__":
    main()
