"""Train 784-128-10 (ReLU, Adam, batch 128) on MNIST with this library, scikit-learn and numpy, in one run.

    python benches/mnist.py FOLDER [--epochs 5] [--rounds 3] [--threads 2]

FOLDER holds the four IDX files. Each peer runs in a process of its own with its threads pinned by environment
variables; rounds are interleaved and ratios are medians over rounds. Needs the extra `bench`.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time

PEERS = ("ferrograd", "scikit-learn", "numpy")
HIDDEN, CLASSES, BATCH, RATE = 128, 10, 128, 1e-3


def load(folder: str):
    """Return the four arrays, images as float32 in [0, 1]."""
    import numpy as np

    from ferrograd.datasets import load_mnist

    X_train, y_train, X_test, y_test = load_mnist(folder)
    return X_train.astype(np.float32) / 255, y_train.astype(np.int64), X_test.astype(np.float32) / 255, y_test


def run_ferrograd(X, y, epochs: int):
    """The Trainer."""
    import ferrograd as fg

    fg.manual_seed(0)
    model = fg.nn.Sequential(fg.nn.Linear(X.shape[1], HIDDEN), fg.nn.ReLU(), fg.nn.Linear(HIDDEN, CLASSES))
    trainer = fg.Trainer(model, fg.nn.CrossEntropyLoss(), fg.optim.Adam(model.parameters(), lr=RATE))
    start = time.perf_counter()
    trainer.fit(X, y, epochs=epochs, batch_size=BATCH, seed=0)
    seconds = time.perf_counter() - start
    return seconds, lambda X: trainer.predict(X).argmax(1)


def run_sklearn(X, y, epochs: int):
    """MLPClassifier with the same network, optimizer and batches, no penalty, no early stop."""
    import warnings

    from sklearn.neural_network import MLPClassifier

    warnings.simplefilter("ignore")
    model = MLPClassifier(
        (HIDDEN,),
        alpha=0.0,
        batch_size=BATCH,
        learning_rate_init=RATE,
        max_iter=epochs,
        tol=0.0,
        n_iter_no_change=10**9,
        random_state=0,
    )
    start = time.perf_counter()
    model.fit(X, y)
    return time.perf_counter() - start, model.predict


def run_numpy(X, y, epochs: int):
    """A well-written loop: float32, buffers reused, Adam in place."""
    import numpy as np

    rng = np.random.default_rng(0)
    n, inputs = X.shape
    shapes = [(inputs, HIDDEN), (HIDDEN,), (HIDDEN, CLASSES), (CLASSES,)]
    bounds = [inputs**-0.5, inputs**-0.5, HIDDEN**-0.5, HIDDEN**-0.5]
    params = [rng.uniform(-b, b, s).astype(np.float32) for s, b in zip(shapes, bounds, strict=True)]
    first = [np.zeros_like(p) for p in params]
    second = [np.zeros_like(p) for p in params]
    grads = [np.empty_like(p) for p in params]
    scratch = [np.empty_like(p) for p in params]
    step = 0
    start = time.perf_counter()
    for _ in range(epochs):
        order = rng.permutation(n)
        for at in range(0, n, BATCH):
            rows = order[at : at + BATCH]
            x, t = X[rows], y[rows]
            W1, b1, W2, b2 = params
            h = x @ W1
            h += b1
            np.maximum(h, 0, out=h)
            s = h @ W2
            s += b2
            s -= s.max(1, keepdims=True)
            np.exp(s, out=s)
            s /= s.sum(1, keepdims=True)
            s[np.arange(len(t)), t] -= 1
            s /= len(t)
            np.matmul(h.T, s, out=grads[2])
            np.sum(s, 0, out=grads[3])
            d = s @ W2.T
            d *= h > 0
            np.matmul(x.T, d, out=grads[0])
            np.sum(d, 0, out=grads[1])
            step += 1
            rate = RATE * (1 - 0.999**step) ** 0.5 / (1 - 0.9**step)
            for p, g, m, v, u in zip(params, grads, first, second, scratch, strict=True):
                m *= 0.9
                np.multiply(g, 0.1, out=u)
                m += u
                v *= 0.999
                np.multiply(g, g, out=u)
                u *= 0.001
                v += u
                np.sqrt(v, out=u)
                u += 1e-8
                np.divide(m, u, out=u)
                u *= rate
                p -= u
    seconds = time.perf_counter() - start
    W1, b1, W2, b2 = params
    return seconds, lambda X: (np.maximum(X @ W1 + b1, 0) @ W2 + b2).argmax(1)


RUNS = {"ferrograd": run_ferrograd, "scikit-learn": run_sklearn, "numpy": run_numpy}


def child(peer: str, folder: str, epochs: int) -> None:
    """Run one peer and print its result as JSON."""
    X, y, X_test, y_test = load(folder)
    seconds, predict = RUNS[peer](X, y, epochs)
    print(json.dumps({"seconds": seconds, "accuracy": float((predict(X_test) == y_test).mean())}))


def main() -> None:
    """Interleave the peers and print medians."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder")
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--peer", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.peer:
        child(options.peer, options.folder, options.epochs)
        return
    names = ("FERROGRAD_NUM_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    environment = {**os.environ, **{name: str(options.threads) for name in names}}
    results: dict[str, list[dict[str, float]]] = {peer: [] for peer in PEERS}
    for _ in range(options.rounds):
        for peer in PEERS:
            command = [
                sys.executable,
                __file__,
                options.folder,
                "--epochs",
                str(options.epochs),
                "--peer",
                peer,
            ]
            done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
            if done.returncode:
                print(f"{peer}: absent ({done.stderr.strip().splitlines()[-1]})")
                continue
            results[peer].append(json.loads(done.stdout))
    import numpy

    import ferrograd

    machine = platform.processor() or platform.machine()
    versions = (
        f"Python {platform.python_version()}, numpy {numpy.__version__}, ferrograd {ferrograd.__version__}"
    )
    print(f"{machine}, {options.threads} threads, {versions} ({ferrograd.info()['isa']})")
    print(f"medians of {options.rounds} rounds of {options.epochs} epochs")
    print(f"{'':14}{'seconds':>9}{'accuracy':>10}{'ratio':>8}")
    own = [r["seconds"] for r in results["ferrograd"]]
    for peer, runs in results.items():
        if runs:
            seconds = [r["seconds"] for r in runs]
            ratio = statistics.median(s / o for s, o in zip(seconds, own, strict=True))
            accuracy = statistics.median(r["accuracy"] for r in runs)
            print(f"{peer:14}{statistics.median(seconds):9.2f}{accuracy:10.4f}{ratio:8.2f}")


if __name__ == "__main__":
    main()
