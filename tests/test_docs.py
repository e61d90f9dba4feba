"""What the README and the docstrings show is what happens."""

import doctest
import importlib
import inspect
import pkgutil
import re
import subprocess
import sys
from pathlib import Path

import pytest

import ferrograd as fg
import ferrograd.sklearn

README = Path(__file__).parent.parent / "README.md"
# The pages of the site are not in the sdist.
SITE = Path(__file__).parent.parent / "python" / "docs" / "pages"
PAGES = [
    page for page in (README, *sorted(SITE.rglob("*.md"))) if "```python" in page.read_text(encoding="utf-8")
]
MARK = "-- end of a part --"
# A peer's module is imported only where its library is installed. The native classes say that they are of the
# package.
MODULES = [
    "ferrograd",
    *(
        name
        for _, name, _ in pkgutil.walk_packages(fg.__path__, "ferrograd.")
        if name.rpartition(".")[2] != "__main__" and not name.startswith("ferrograd.bench.peers.")
    ),
]
SPACES = (
    fg,
    fg.ops,
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
    fg.random,
    fg.viz,
    fg.sklearn,
)
# They read files that do not come with the package.
WITHOUT_EXAMPLE = {fg.datasets.MNIST, fg.datasets.load_mnist}
PUBLIC = {
    f"{space.__name__}.{name}": getattr(space, name)
    for space in SPACES
    for name in space.__all__
    if callable(getattr(space, name))
}


@pytest.mark.parametrize("name", MODULES)
def test_the_examples_of_a_module_print_what_they_say(name: str) -> None:
    # As a user's file runs them, without the names of the module.
    module, flags = importlib.import_module(name), doctest.NORMALIZE_WHITESPACE
    results = doctest.testmod(module, globs={"__name__": "__main__"}, optionflags=flags)
    assert results.failed == 0


@pytest.mark.parametrize("name", PUBLIC)
def test_every_public_class_and_function_has_an_example(name: str) -> None:
    public = PUBLIC[name]
    if public not in WITHOUT_EXAMPLE and not (isinstance(public, type) and issubclass(public, Exception)):
        assert ">>> " in (public.__doc__ or "")


def test_the_examples_of_public_names_are_among_those_that_run() -> None:
    finder = doctest.DocTestFinder()
    found = [test for name in MODULES for test in finder.find(importlib.import_module(name))]
    run = {test.name.rpartition(".")[2] for test in found if test.examples}
    assert {public.__name__ for public in PUBLIC.values() if ">>> " in (public.__doc__ or "")} <= run


def programs_of(page: Path) -> tuple[list[str], list[str]]:
    """The Python of a page: its blocks, then our side of its tables; and what each is said to print."""
    text = page.read_text(encoding="utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```\n(?:\n```text\n(.*?)^```$)?", text, re.M | re.S)
    tables = re.findall(r"^\|[^|\n]*\| ferrograd \|\n\|[-|]+\|\n((?:\|.*\n)+)", text, re.M)
    cells = [re.fullmatch(r"\|.*\| `(.*)` \|", row) for table in tables for row in table.splitlines()]
    assert all(cells), f"{page}: a row without code"
    assert bool(cells) == (" ferrograd |" in text)
    return [code for code, _ in blocks] + [cell[1] for cell in cells if cell], [out for _, out in blocks]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_code_of_a_page_prints_what_it_says(page: Path) -> None:
    programs, expected = programs_of(page)
    # One program, as a reader types it, with a mark where a part ends.
    whole = "".join(f"{program}\nprint({MARK!r})\n" for program in programs)
    run = subprocess.run([sys.executable, "-W", "error", "-c", whole], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    printed = run.stdout.split(f"{MARK}\n")
    for out, said in zip(printed, expected, strict=False):
        assert out == said or not said


def test_the_first_example_of_the_readme_says_what_it_prints() -> None:
    assert programs_of(README)[1][0].startswith("test accuracy")


@pytest.mark.skipif(not SITE.is_dir(), reason="the pages of the site are not in the sdist")
def test_the_pages_of_the_api_have_everything_public() -> None:
    pages = "\n".join(page.read_text(encoding="utf-8") for page in (SITE / "api").glob("*.md"))
    shown = set(re.findall(r"^::: (\S+)$", pages, re.M))
    # Some have several names, and a page of a module has all that it holds.
    found = {id(public) for name, public in PUBLIC.items() if {name, name.rpartition(".")[0]} & shown}
    assert [name for name, public in PUBLIC.items() if id(public) not in found] == []


def test_every_public_name_and_method_is_documented() -> None:
    missing = [f"{space.__name__}.{name}" for space in SPACES for name in space.__all__]
    missing = [name for name in missing if not _documented(name)]
    for name, public in PUBLIC.items():
        if isinstance(public, type):
            missing += [
                f"{name}.{method}"
                for method in vars(public)
                if not method.startswith("_") and not inspect.getdoc(getattr(public, method))
            ]
    assert missing == []


def _documented(name: str) -> bool:
    space, _, own = name.rpartition(".")
    return bool(getattr(importlib.import_module(space), own).__doc__)
