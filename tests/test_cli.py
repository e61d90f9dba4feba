"""The command line, run in this process and once as a program."""

import csv
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ferrograd as fg
from ferrograd.cli import main


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    assert main([str(argument) for argument in arguments]) == 0
    return capsys.readouterr().out


def fails(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """Check that the command ends with code 2 and one line on stderr; return the line."""
    assert main([str(argument) for argument in arguments]) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("ferrograd: error: ")
    assert captured.err.count("\n") == 1
    return captured.err


def write_csv(path: Path, rows: list[list[Any]]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)
    return path


@pytest.fixture
def flowers(tmp_path: Path) -> Path:
    X, y = fg.datasets.make_gauss(120, noise=0.15, n_classes=3, seed=0)
    names = np.array(["iris", "lily", "rose"])[y]
    rows = [[1000 + 50 * a, name, b] for (a, b), name in zip(X.tolist(), names, strict=True)]
    return write_csv(tmp_path / "flowers.csv", [["width", "kind", "height"], *rows])


def test_digits_reach_their_accuracy_and_report_in_json(capsys: pytest.CaptureFixture[str]) -> None:
    lines = [json.loads(line) for line in run(capsys, "train", "--json").splitlines()]
    result = lines[-1]
    assert set(result) == {
        "train_accuracy",
        "test_accuracy",
        "loss",
        "seconds",
        "samples_per_second",
        "seed",
    }
    assert result["test_accuracy"] >= 0.965
    assert result["train_accuracy"] >= 0.99
    assert result["seconds"] < 10
    assert [line["epoch"] for line in lines[:-1]] == list(range(1, 41))
    assert all("loss" in line for line in lines[:-1])


def test_the_same_seed_gives_the_same_result(capsys: pytest.CaptureFixture[str]) -> None:
    def result(seed: int) -> dict[str, Any]:
        line = run(capsys, "train", "--json", "--epochs", 2, "--seed", seed).splitlines()[-1]
        return {name: value for name, value in json.loads(line).items() if "second" not in name}

    assert result(1) == result(1)
    assert result(1)["loss"] != result(2)["loss"]


def test_classes_as_text_are_trained_and_predicted(
    capsys: pytest.CaptureFixture[str], flowers: Path, tmp_path: Path
) -> None:
    model = tmp_path / "model.safetensors"
    out = run(capsys, "train", "--data", flowers, "--target", "kind", "--hidden", "16", "--out", model)
    assert "3 classes" in out
    assert f"wrote {model}" in out
    predicted = run(capsys, "predict", model, "--data", flowers).splitlines()
    with flowers.open(newline="", encoding="utf-8") as file:
        expected = [row["kind"] for row in csv.DictReader(file)]
    assert predicted[0] == "kind"
    assert np.mean([a == b for a, b in zip(predicted[1:], expected, strict=True)]) > 0.95
    run(capsys, "predict", model, "--data", flowers, "--out", tmp_path / "predictions.csv")
    assert (tmp_path / "predictions.csv").read_text(encoding="utf-8").splitlines() == predicted


def test_columns_are_found_by_name(capsys: pytest.CaptureFixture[str], flowers: Path, tmp_path: Path) -> None:
    model = tmp_path / "model.safetensors"
    run(capsys, "train", "--data", flowers, "--target", "kind", "--epochs", 2, "--out", model)
    with flowers.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    moved = write_csv(
        tmp_path / "moved.csv", [["height", "note", "width"], *([r["height"], "-", r["width"]] for r in rows)]
    )
    first = run(capsys, "predict", model, "--data", flowers)
    assert run(capsys, "predict", model, "--data", moved) == first
    without = write_csv(tmp_path / "without.csv", [["width"], [1.0]])
    assert "no column 'height'" in fails(capsys, "predict", model, "--data", without)


def test_values_are_trained_and_predicted_in_their_own_unit(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    x = np.random.default_rng(0).uniform(-1, 1, (300, 2))
    y = 5000 + 300 * x[:, 0] - 200 * x[:, 1]
    np.savez(tmp_path / "plane.npz", X=x, y=y)
    model = tmp_path / "model.safetensors"
    out = run(
        capsys,
        "train",
        "--data",
        tmp_path / "plane.npz",
        "--hidden",
        "none",
        "--epochs",
        200,
        "--out",
        model,
        "--json",
    )
    result = json.loads(out.splitlines()[-1])
    assert result["test_r2"] > 0.99
    predicted = run(capsys, "predict", model, "--data", tmp_path / "plane.npz").splitlines()[1:]
    np.testing.assert_allclose([float(value) for value in predicted], y, atol=30)


def test_model_file_carries_what_prediction_needs(
    capsys: pytest.CaptureFixture[str], flowers: Path, tmp_path: Path
) -> None:
    model = tmp_path / "model.safetensors"
    run(
        capsys,
        "train",
        "--data",
        flowers,
        "--target",
        "kind",
        "--epochs",
        1,
        "--hidden",
        "5,4",
        "--out",
        model,
    )
    assert {name: tensor.shape for name, tensor in fg.load(model).items()} == {
        "0.weight": (5, 2),
        "0.bias": (5,),
        "2.weight": (4, 5),
        "2.bias": (4,),
        "4.weight": (3, 4),
        "4.bias": (3,),
    }


@pytest.mark.parametrize("options", [["--activation", "tanh"], ["--loss", "hinge"], ["--optimizer", "sgd"]])
def test_other_choices_learn_too(capsys: pytest.CaptureFixture[str], options: list[str]) -> None:
    result = json.loads(run(capsys, "train", "--json", *options).splitlines()[-1])
    assert result["test_accuracy"] > 0.93


@pytest.mark.parametrize(
    ("content", "options", "message"),
    [
        (None, [], "no such file"),
        ("", [], "is empty"),
        ("1,2\n3,4\n", [], "line 1: expected a header"),
        ("a,b,a\n1,2,3\n", [], "column 'a' appears twice"),
        ("a,b\n1,2\n3\n", [], "line 3: expected 2 cells, got 1"),
        ("a,b\n1,2\nx,4\n5,6\n7,8\n", [], "line 3: column 'a' should be a number, got 'x'"),
        ("a,b\n1,2\n,4\n5,6\n7,8\n", [], "line 3: column 'a' should be a number, got an empty cell"),
        ("a,b\n1,2\nnan,4\n5,6\n7,8\n", [], "line 3: column 'a' should be a number, got 'nan'"),
        ("a,b\n1,p\n2,q\n3,\n4,p\n", [], "line 4: column 'b' is empty"),
        ("a,b\n1,2\n3,4\n", ["--target", "c"], "no column 'c', there are a, b"),
        ("a,b\n1,0\n2,1\n", [], "too few rows, got 2"),
        ("a,b\n1,p\n2,p\n3,p\n4,q\n", [], "class 'q' of 'b' has only one"),
        ("a,b\n1,p\n2,p\n3,p\n4,p\n", [], "single value, 'p'"),
        ("a,b\n1,p\n2,p\n3,q\n4,q\n", ["--loss", "mse"], "holds text"),
        ("b\n1\n2\n", [], "no column besides the target"),
    ],
)
def test_a_wrong_table_is_one_clear_line(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, content: str | None, options: list[str], message: str
) -> None:
    path = tmp_path / "table.csv"
    if content is not None:
        path.write_text(content, encoding="utf-8")
    assert message in fails(capsys, "train", "--data", path, *options)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"y": np.zeros(8)}, "no array 'X'"),
        ({"X": np.zeros((8, 2))}, "no array 'y'"),
        ({"X": np.zeros(8), "y": np.zeros(8)}, "rows and columns"),
        ({"X": np.zeros((8, 2)), "y": np.zeros(7)}, r"should have shape (8,), has (7,)"),
        ({"X": np.full((8, 2), np.inf), "y": np.zeros(8)}, "holds inf at (0, 0)"),
        ({"X": np.zeros((8, 2), complex), "y": np.zeros(8)}, "complex128"),
    ],
)
def test_a_wrong_archive_is_one_clear_line(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, arrays: dict[str, np.ndarray], message: str
) -> None:
    np.savez(tmp_path / "data.npz", **arrays)
    assert message in fails(capsys, "train", "--data", tmp_path / "data.npz")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "COMMAND"),
        (["fly"], "fly"),
        (["train", "--epochs", "0"], "--epochs"),
        (["train", "--lr", "-1"], "--lr"),
        (["train", "--lr", "nan"], "--lr"),
        (["train", "--hidden", "8,x"], "--hidden"),
        (["train", "--seed", "-3"], "--seed"),
        (["train", "--activation", "step"], "step"),
        (["train", "--loss", "mse"], "for values"),
        (["train", "--target", "y"], "--target needs --data"),
        (["train", "--out", "missing-folder/model.safetensors"], "no folder"),
        (["train", "--mnist", "missing-folder"], "no folder"),
        (["train", "--data", "a.csv", "--mnist", "b"], "not allowed with"),
        (["predict", "missing.safetensors", "--data", "a.csv"], "no such file"),
        (["predict", "model.safetensors"], "--data"),
    ],
)
def test_a_wrong_argument_is_one_clear_line(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    arguments: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert message in fails(capsys, *arguments)


def test_a_file_that_is_no_model_is_refused(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    data = write_csv(tmp_path / "data.csv", [["a"], [1.0]])
    path.write_bytes(b"nothing of the kind")
    fails(capsys, "predict", path, "--data", data)
    fg.nn.Linear(1, 1).save(path)
    assert "was not written by ferrograd train" in fails(capsys, "predict", path, "--data", data)


def test_info_names_version_and_instruction_set(capsys: pytest.CaptureFixture[str]) -> None:
    out = run(capsys, "info")
    assert fg.__version__ in out
    assert str(fg.get_num_threads()) in out


def test_the_module_runs_as_a_program() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "ferrograd", "train", "--epochs", "3", "--json"],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "\r" not in done.stdout
    assert json.loads(done.stdout.splitlines()[-1])["test_accuracy"] > 0.8


def test_import_stays_light() -> None:
    heavy = ("ferrograd.cli", "ferrograd.datasets", "ferrograd.trainer", "sklearn", "tqdm", "matplotlib")
    code = f"import sys, ferrograd; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.strip() == "[]"


def test_a_reader_that_leaves_the_pipe_ends_the_program_quietly(flowers: Path, tmp_path: Path) -> None:
    model = tmp_path / "m.safetensors"
    table = ["--data", str(flowers)]
    assert main(["train", *table, "--target", "kind", "--epochs", "1", "--out", str(model)]) == 0
    command = [sys.executable, "-m", "ferrograd", "predict", str(model), *table]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as program:
        assert program.stdout is not None
        assert program.stderr is not None
        program.stdout.close()
        assert program.stderr.read() == b""
    assert program.returncode == 1
