"""`ferrograd bench`: a quick run with numpy, what it refuses, and a peer that computes something else."""

import itertools
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ferrograd.bench import machine, peers, report, sweep
from ferrograd.bench.compare import Options, agrees, measure
from ferrograd.bench.peers.numpy_loop import NumpyLoop
from ferrograd.bench.peers.trainer import Trainer
from ferrograd.bench.problem import TABLE, Problem, mean_loss
from ferrograd.bench.process import AbsentError, Worker, WorkerError
from ferrograd.cli import main

TINY = "4-8-3:16"


def fails(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(["bench", *arguments]) == 2
    error = capsys.readouterr().err
    assert error.startswith("ferrograd: error: ")
    return error


def test_a_quick_run_reports_equal_losses_and_a_ratio(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    arguments = ["--quick", "--rows", f"{TINY},{TINY}:adam", "--peers", "numpy", "--threads", "1"]
    assert main(["bench", *arguments, "--out", str(tmp_path / "results")]) == 0
    out = capsys.readouterr().out
    results = json.loads((tmp_path / "results" / "results.json").read_text(encoding="utf-8"))
    assert results["peers"] == ["ferrograd", "numpy"]
    assert set(results["versions"]) == {"ferrograd", "numpy"}
    assert results["peak"] > 0
    assert results["triad"] > 0
    for row in results["rows"]:
        assert row["checked_steps"] == 50
        assert row["loss"] < row["initial_loss"]
        for found in row["peers"].values():
            assert found["loss"] == pytest.approx(row["loss"], rel=1e-4)
            assert len(found["seconds"]) == results["rounds"] == 3
            assert min(found["seconds"]) > 0
        assert row["best"] == "numpy"
        assert row["ratio_at_peak"] == pytest.approx(row["ratio"] * row["share_of_peak"])
        assert any(part["flop"] for part in row["profile"]["parts"])
        assert sum(part["share"] for part in row["profile"]["parts"]) == pytest.approx(1)
        assert re.search(rf"{row['name']} .*\bmatmul\S* \d+% \(\d+%\)", out)
        assert row["name"] in out


@pytest.mark.parametrize("mode", peers.MODES)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", [TINY, "5-3:1", f"{TINY}:adam", "6-7-5-4:3"])
def test_ours_and_numpy_train_alike(name: str, dtype: str, mode: str) -> None:
    problem = Problem.parse(name, dtype)
    data = problem.make()
    losses = []
    for kind in (Trainer, NumpyLoop):
        peer = kind(problem, data, mode, 1)
        peer.train(5, 2)
        peer.reset()
        peer.train(7, 3)
        assert [weight.dtype for weight in peer.weights()] == [np.dtype(dtype)] * len(data.weights)
        losses.append(mean_loss(peer.weights(), data))
    assert losses[0] == pytest.approx(losses[1], rel=1e-5 if dtype == "float32" else 1e-12)
    assert losses[0] != pytest.approx(mean_loss(data.weights, data), rel=1e-3)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--rows", "784:64"], "rows: expected WIDTHS:BATCH[:adam]"),
        (["--rows", "784-10"], "rows: expected WIDTHS:BATCH[:adam]"),
        (["--rows", "784-10:64:lion"], "rows: expected WIDTHS:BATCH[:adam]"),
        (["--rows", "784-1:64"], "at least 2 classes"),
        (["--peers", "theano"], "peers: expected some of numpy"),
        (["--threads", "0"], "threads: expected 1 to"),
        (["--rounds", "0"], "rounds: expected a positive number"),
        (["--sweep", "0"], "sweep: expected a positive number"),
        (["--sweep", "3", "--rows", TINY], "not allowed with"),
        (["--sweep", "3", "--minutes", "0"], "minutes: expected a positive number"),
        (["--sweep", "3", "--minutes", "nan"], "minutes: expected a positive number"),
        (["--sweep", "3", "--seed", "-2"], "seed: expected no negative number, got -2"),
        (["--mode", "epoch"], "--mode"),
        (["--out", __file__], "is not a folder"),
        (["--out", f"{__file__}/results"], "cannot be made: Not a directory"),
    ],
)
def test_wrong_arguments_are_named(
    capsys: pytest.CaptureFixture[str], arguments: list[str], words: str
) -> None:
    assert words in fails(capsys, *arguments)


class Stub:
    """Answers like a worker: a loss after training, and a time for a step."""

    def __init__(self, loss: float, seconds: float) -> None:
        self.loss, self.seconds = loss, seconds
        self.asked: list[str] = []

    def ask(self, do: str, **arguments: Any) -> dict[str, Any]:
        self.asked.append(do)
        if do == "check" and not np.isfinite(self.loss):
            raise WorkerError("ArithmeticError: the loss is nan")
        answers: dict[str, dict[str, Any]] = {
            "check": {"initial": 2.0, "loss": self.loss},
            "prepare": {"steps": 100},
            "time": {"seconds": self.seconds},
            "peak": {"fma_float32": 1e11, "fma_float64": 5e10},
        }
        return answers.get(do, {})


def test_only_peers_that_agree_are_timed() -> None:
    workers = {
        "ferrograd": Stub(1.0, 2e-6),
        "numpy": Stub(1.001, 8e-6),
        "jax": Stub(1.1, 1e-6),
        "torch": Stub(float("nan"), 1e-6),
    }
    row = measure(workers, Stub(1.0, 1.0), Problem.parse(TINY), Options(rounds=3))
    assert "disagrees: loss 1.1, expected 1" in row["peers"]["jax"]["error"]
    assert "the loss is nan" in row["peers"]["torch"]["error"]
    for name in ("jax", "torch"):
        assert "time" not in workers[name].asked
    assert workers["numpy"].asked.count("time") == 3
    assert row["best"] == "numpy"
    assert row["ratio"] == pytest.approx(0.25)
    assert row["share_of_peak"] == pytest.approx(row["flop"] / 2e-6 / 1e11)


def test_the_check_sees_a_rate_that_is_off_by_two_percent() -> None:
    problem = Problem.parse("64-64-10:64")
    data = problem.make()
    peer = NumpyLoop(problem, data, "loop", 1)
    peer.train(50, 1)
    exact = {"initial": mean_loss(data.weights, data), "loss": mean_loss(peer.weights(), data)}
    peer.scale *= 1.02
    peer.reset()
    peer.train(50, 1)
    assert not agrees(mean_loss(peer.weights(), data), exact, "float32")


def test_a_worker_says_what_went_wrong_and_goes_on() -> None:
    worker = Worker("numpy", 1)
    try:
        with pytest.raises(WorkerError, match=r"TypeError: .*no_such_field"):
            worker.ask("load", problem={"widths": [2, 2], "no_such_field": 1}, mode="loop")
        assert worker.ask("load", problem={"widths": [2, 2], "batch": 4}, mode="loop") == {}
        assert worker.ask("check", steps=3)["loss"] > 0
        worker._process.kill()
        with pytest.raises(WorkerError, match="ended"):
            worker.ask("check", steps=3)
    finally:
        worker.close()


def test_a_library_that_is_missing_is_absent(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "jax").mkdir()
    (tmp_path / "jax" / "__init__.py").write_text("raise ModuleNotFoundError('none here')", encoding="utf-8")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=":")
    with pytest.raises(AbsentError, match="none here"):
        Worker("jax", 1)


def test_flop_leaves_out_the_first_data_gradient() -> None:
    problem = Problem.parse("784-128-10:64")
    assert problem.flop == 6 * 64 * (784 * 128 + 128 * 10) - 2 * 64 * 784 * 128
    assert problem.name == "784-128-10:64"
    assert all(Problem.parse(name).name == name for name in TABLE)


def test_a_sweep_is_drawn_from_its_seed_and_summarised() -> None:
    first, second = (list(itertools.islice(sweep.draw(seed, "float32"), 50)) for seed in (3, 3))
    assert first == second
    assert {len(problem.widths) for problem in first} == {2, 3, 4, 5, 6}
    assert all(2 <= width <= 4096 for problem in first for width in problem.widths)
    rows = [{"name": name, "ratio": ratio, "best": "jax"} for name, ratio in (("a", 0.5), ("b", 2.0))]
    found = sweep.summarise(rows)
    assert found["worst"] == 2.0
    assert found["geometric_mean"] == pytest.approx(1.0)
    assert found["misses"] == [("b", 2.0, "jax")]


def test_rows_that_were_not_measured_are_listed() -> None:
    results = {
        "machine": {"cpu": "C", "cpus": 2, "system": "S", "load": 0.1, "python": "3.11"},
        "threads": 2,
        "dtype": "float32",
        "mode": "loop",
        "rounds": 7,
        "peers": ["ferrograd", "jax"],
        "absent": {"torch": "No module named 'torch'"},
        "versions": {"ferrograd": "0.1.0"},
        "peak": 1e11,
        "triad": 1e10,
        "stolen": None,
        "rows": [
            {
                "name": TINY,
                "flop": 1000,
                "checked_steps": 9,
                "peers": {"jax": {"error": "disagrees"}},
            }
        ],
    }
    text = "\n".join(report.lines(results))
    assert "absent: torch (No module named 'torch')" in text
    assert f"{TINY}: jax was not timed: disagrees" in text
    assert f"{TINY}: losses were compared after 9 steps, not 50" in text


def test_the_command_is_told_without_the_folder_of_its_results() -> None:
    words = ["/some/where/compare.py", "--rows", "2-2:4", "--out", "here", "--threads", "1", "--out=there"]
    assert machine.command(words) == "compare.py --rows 2-2:4 --threads 1"
