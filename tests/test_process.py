"""Facts about a whole process: what the environment chooses, stacks, pipes."""

import os
import subprocess
import sys
import threading
from pathlib import Path

import ferrograd as fg

PACKAGE = str(Path(fg.__file__).resolve().parent.parent)


def run(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join([PACKAGE, os.environ.get("PYTHONPATH", "")])
    return subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": path, **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_a_chain_of_a_million_nodes_is_built_walked_backward_and_freed_on_a_2_mb_stack() -> None:
    found: list[float] = []

    def chain() -> None:
        x = fg.tensor(1.0, dtype=fg.float64, requires_grad=True)
        y = x
        for _ in range(1_000_000):
            y = y + 1.0
        y.backward()
        assert x.grad is not None
        found.extend([y.item(), x.grad.item()])
        del y

    before = threading.stack_size(2 << 20)
    try:
        thread = threading.Thread(target=chain)
        thread.start()
        thread.join()
    finally:
        threading.stack_size(before)
    assert found == [1_000_001.0, 1.0]


def test_an_unsupported_instruction_set_is_an_error_that_names_what_the_cpu_has() -> None:
    done = run("import ferrograd", FERROGRAD_ISA="mmx")
    assert done.returncode != 0
    assert "ConfigError" in done.stderr
    assert "portable" in done.stderr
    assert "mmx" in done.stderr


def test_a_forced_instruction_set_is_used() -> None:
    for isa in fg.info()["isa_supported"]:
        done = run("import ferrograd as fg; print(fg.info()['isa'])", FERROGRAD_ISA=isa)
        assert done.stdout.strip() == isa, done.stderr


def test_threads_come_from_the_environment() -> None:
    code = "import ferrograd as fg; print(fg.get_num_threads())"
    assert run(code, FERROGRAD_NUM_THREADS="1").stdout.strip() == "1"
    assert run(code, FERROGRAD_NUM_THREADS="", OMP_NUM_THREADS="1").stdout.strip() == "1"
    # A number above the cores that this process may use would only make threads wait for each other.
    cores = len(os.sched_getaffinity(0))
    assert int(run(code, FERROGRAD_NUM_THREADS="1000", OMP_NUM_THREADS="").stdout) <= cores


def test_training_is_silent_in_a_pipe() -> None:
    code = """
import numpy as np, ferrograd as fg
model = fg.nn.Linear(2, 2)
trainer = fg.Trainer(model, fg.nn.CrossEntropyLoss(), fg.optim.SGD(model.parameters()))
trainer.fit(np.ones((8, 2)), np.zeros(8, int), epochs=3)
"""
    done = run(code)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
