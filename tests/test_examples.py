"""The examples run as a user runs them, and what they print is what they are there to show."""

import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest

import ferrograd as fg
from ferrograd import examples

NAMES = re.findall(r"^\d\. `(\w+)`", examples.__doc__ or "", re.M)


def run(name: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "error", "-m", f"ferrograd.examples.{name}", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=100)


def printed(name: str, *arguments: object) -> str:
    done = run(name, *arguments)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def number(text: str, before: str) -> float:
    return float(re.findall(rf"{re.escape(before)} *(-?[\d.]+)", text)[-1])


def pictures(folder: Path) -> set[str]:
    """The names of what was written, none of it empty."""
    assert all(path.stat().st_size > 2000 for path in folder.iterdir())
    return {path.name for path in folder.iterdir()}


def test_the_list_of_examples_is_complete() -> None:
    folder = Path(examples.__path__[0])
    assert {path.stem for path in folder.glob("*.py")} - {"__init__", "pictures"} == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_the_help_says_what_an_example_shows(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    module = import_module(f"ferrograd.examples.{name}")
    with pytest.raises(SystemExit, match="0"):
        module.main(["--help"])
    text = capsys.readouterr().out
    assert module.__doc__.splitlines()[2] in text
    assert "--out FOLDER" in text


def test_xor(tmp_path: Path) -> None:
    text = printed("xor", "--out", tmp_path / "new")
    assert number(text, "accuracy") == 1
    assert number(text, "0 xor 1 =") > 0.9 > 0.1 > number(text, "1 xor 1 =")
    assert pictures(tmp_path / "new") == {"xor_boundary.png", "xor_hidden.png", "xor_graph.svg"}


def test_digits(tmp_path: Path) -> None:
    text = printed("digits", "--out", tmp_path)
    assert number(text, "test accuracy") >= 0.96
    assert pictures(tmp_path) == {"digits_loss.png", "digits_confusion.png", "digits_weights.png"}


def test_mnist(tmp_path: Path) -> None:
    # The packaged digits, three times as large in a frame of two pixels, in MNIST's format.
    X, y = fg.datasets.load_digits()
    images = np.pad(np.kron(X.reshape(-1, 8, 8) * 15.9, np.ones((3, 3))), ((0, 0), (2, 2), (2, 2)))
    for part, rows in (("train", slice(300, None)), ("t10k", slice(300))):
        for kind, array in (("images-idx3", images[rows]), ("labels-idx1", y[rows])):
            sizes = np.array(array.shape, dtype=">u4").tobytes()
            content = bytes((0, 0, 8, array.ndim)) + sizes + array.astype(np.uint8).tobytes()
            (tmp_path / f"{part}-{kind}-ubyte").write_bytes(content)
    text = printed("mnist", tmp_path, "--epochs", 8, "--out", tmp_path / "out")
    assert len(re.findall("^epoch", text, re.M)) == 8
    assert number(text, "test accuracy") > 0.9
    assert pictures(tmp_path / "out") == {"mnist_weights.png"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "which folder holds the IDX files"),
        (("missing",), "no folder 'missing'"),
        (("missing", "--epochs", "0"), "--epochs must be at least 1, got 0"),
    ],
)
def test_mnist_says_what_it_lacks(arguments: tuple[str, ...], message: str) -> None:
    done = run("mnist", *arguments)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    done = run("xor", "--out", tmp_path / "file")
    assert done.returncode == 2
    assert "file' is no folder to write to" in done.stderr


def test_circle(tmp_path: Path) -> None:
    text = printed("circle", "--out", tmp_path)
    x, y, radius = map(float, re.findall(r"centre \((\S+), (\S+)\)  radius (\S+)", text)[-1])
    assert max(abs(x - 1), abs(y + 0.5), abs(abs(radius) - 3)) < 0.05
    assert pictures(tmp_path) == {"circle.png"}


def test_optimizer_paths(tmp_path: Path) -> None:
    saddle, valley = printed("optimizer_paths", "--out", tmp_path).split("valley")
    ends = {
        (name, text is valley): float(loss)
        for text in (saddle, valley)
        for name, loss in re.findall(r"^(\w+) +\S+ +\S+ +(\S+)$", text, re.M)
    }
    assert len(ends) == 14
    # Adam leaves the saddle and comes down the valley, plain descent does neither.
    assert ends["Adam", False] < -1 < ends["SGD", False]
    assert ends["Adam", True] < 0.2 < ends["SGD", True]
    assert pictures(tmp_path) == {"paths_saddle.png", "paths_valley.png"}


def test_custom_op(tmp_path: Path) -> None:
    text = printed("custom_op", "--out", tmp_path)
    assert "sin(x) / x: tensor(nan" in text
    assert "Sinc: tensor(0., " in text
    assert text.count("agree with differences: True") == 2
    assert number(text, "largest error of the trained network") < 0.15
    assert pictures(tmp_path) == {"custom_op.png"}


def test_random_dag(tmp_path: Path) -> None:
    text = printed("random_dag", "--out", tmp_path)
    assert number(text, "test accuracy") > 0.94
    # Each starts at 1/2.
    assert number(text, "weight") > 0.55
    assert pictures(tmp_path) == {"random_dag.svg"}


def test_tabular(tmp_path: Path) -> None:
    pytest.importorskip("sklearn")
    text = printed("tabular", "--out", tmp_path)
    ours, theirs = re.findall(r"in 5 folds: (.*)", text)
    assert ours == theirs
    assert min(map(float, ours.split())) > 0.9
    assert number(text, "test accuracy") > 0.94
    assert pictures(tmp_path) == {"tabular_loss.png"}
