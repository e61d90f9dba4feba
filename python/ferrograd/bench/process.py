"""The parent's end of a worker: starts it with its threads pinned, asks, and ends it."""

import json
import os
import subprocess
import sys
from typing import Any

from ferrograd._core import FerrogradError


class WorkerError(FerrogradError):
    """A worker could not do what it was asked; the library's own words."""


class AbsentError(WorkerError):
    """The library of a worker is not installed."""


def usable_cpus() -> list[int]:
    """Return the CPUs that this process may use, or as many numbers where the system does not tell."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


class Worker:
    """A process in which one library computes, on the first CPUs that this process may use.

    Parameters
    ----------
    peer : str
        A name of `ferrograd.bench.peers.PEERS`.
    threads : int
        CPUs and threads that it gets.
    verbose : bool, default False
        Whether its error output is shown.

    Raises
    ------
    AbsentError
        If the library is not installed.
    """

    def __init__(self, peer: str, threads: int, *, verbose: bool = False) -> None:
        self.peer = peer
        count = str(threads)
        environment = os.environ | {
            "FERROGRAD_NUM_THREADS": count,
            "OMP_NUM_THREADS": count,
            "OPENBLAS_NUM_THREADS": count,
            "MKL_NUM_THREADS": count,
            "VECLIB_MAXIMUM_THREADS": count,
            # XLA sizes its pool by this and by the affinity mask.
            "NPROC": count,
            "XLA_FLAGS": f"--xla_cpu_multi_thread_eigen={'true' if threads > 1 else 'false'}",
            # CPUs are compared, also where there is an accelerator.
            "JAX_PLATFORMS": "cpu",
            "CUDA_VISIBLE_DEVICES": "",
        }
        before = set(usable_cpus())
        try:
            # Inherited: set in the worker it would come too late for threads that numpy has started.
            _set_cpus(set(usable_cpus()[:threads]))
            self._process = subprocess.Popen(
                [sys.executable, "-m", "ferrograd.bench.worker", peer, count],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=None if verbose else subprocess.DEVNULL,
                env=environment,
                text=True,
                encoding="utf-8",
            )
        finally:
            _set_cpus(before)
        try:
            self.versions: dict[str, str] = self._answer()["versions"]
        except WorkerError:
            self.close()
            raise

    def ask(self, do: str, **arguments: Any) -> dict[str, Any]:
        """Have a method of `ferrograd.bench.worker.Session` called, and wait.

        Raises
        ------
        WorkerError
            If the library raised, or the process ended.
        """
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps({"do": do, **arguments}) + "\n")
            self._process.stdin.flush()
        except OSError as error:
            raise WorkerError(f"the process has ended: {error.strerror}") from error
        return self._answer()

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                try:
                    pipe.close()
                except OSError:
                    # A request that nobody read any more.
                    continue

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise WorkerError(f"the process ended with code {self._process.wait()}")
        reply: dict[str, Any] = json.loads(line)
        if "absent" in reply:
            raise AbsentError(reply["absent"])
        if "error" in reply:
            raise WorkerError(reply["error"])
        return reply


def _set_cpus(cpus: set[int]) -> None:
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, cpus)
