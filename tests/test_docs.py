"""What the README and the docstrings show is what happens."""

import doctest
import importlib
import pkgutil
import re
import subprocess
import sys
from pathlib import Path

import pytest

import ferrograd as fg

README = Path(__file__).parent.parent / "README.md"
# A peer's module is imported only where its library is installed.
MODULES = [
    name
    for _, name, _ in pkgutil.walk_packages(fg.__path__, "ferrograd.")
    if name.rpartition(".")[2] not in ("_core", "__main__") and not name.startswith("ferrograd.bench.peers.")
]


@pytest.mark.parametrize("name", MODULES)
def test_the_examples_of_a_module_print_what_they_say(name: str) -> None:
    results = doctest.testmod(importlib.import_module(name), optionflags=doctest.NORMALIZE_WHITESPACE)
    assert results.failed == 0


def test_there_are_examples() -> None:
    finder = doctest.DocTestFinder()
    found = [test for name in MODULES for test in finder.find(importlib.import_module(name))]
    assert sum(len(test.examples) for test in found) >= 40


def test_the_example_of_the_readme_prints_what_it_says() -> None:
    blocks = re.findall(r"^```(python|text)\n(.*?)^```", README.read_text(encoding="utf-8"), re.M | re.S)
    assert [kind for kind, _ in blocks[:2]] == ["python", "text"]
    run = subprocess.run(
        [sys.executable, "-W", "error", "-c", blocks[0][1]], capture_output=True, text=True, check=True
    )
    assert run.stdout == blocks[1][1]


def test_every_public_name_is_documented() -> None:
    spaces = (
        fg,
        fg.nn,
        fg.nn.functional,
        fg.nn.init,
        fg.nn.utils,
        fg.optim,
        fg.optim.lr_scheduler,
        fg.optim.swa_utils,
        fg.autograd,
        fg.autograd.functional,
        fg.func,
        fg.datasets,
    )
    missing = [name for space in spaces for name in space.__all__ if not getattr(space, name).__doc__]
    assert missing == []
