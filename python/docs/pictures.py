"""What the site shows and no file holds: pictures and figures of real runs, made when the site is built."""

import io
import re
import shutil
import tempfile
from collections.abc import Callable
from contextlib import redirect_stdout
from importlib import import_module
from pathlib import Path
from typing import Any

import matplotlib as mpl
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

import ferrograd as fg
from ferrograd import examples, nn

mpl.use("Agg")
import matplotlib.pyplot as plt

ROOT = Path(__file__).parent.parent.parent
# Not a function of one number: what they give depends on the other elements.
OF_SEVERAL = (nn.GLU, nn.Softmax, nn.LogSoftmax, nn.Softmin)


def _like(x: fg.Tensor, value: float) -> fg.Tensor:
    return fg.full(x.shape, value, dtype=x.dtype)


def _row(x: fg.Tensor, *others: float) -> fg.Tensor:
    """A matrix of a row for each element: the element, and constants."""
    return fg.stack([x, *(_like(x, other) for other in others)], dim=1)


def _target(value: float) -> Callable[[Any, fg.Tensor], fg.Tensor]:
    return lambda f, x: f(x, _like(x, value))


def _right_class(f: Any, x: fg.Tensor) -> fg.Tensor:
    return f(_row(x, 0, 0), fg.zeros(*x.shape, dtype=fg.int64))


# Each loss as a function of one number x, and what x is.
INPUT, SCORE, RIGHT = (
    "the input, for the target 0",
    "the score, for the target 1",
    "the score of the right class; two others have 0",
)
LOSSES: dict[str, tuple[str, Callable[[Any, fg.Tensor], fg.Tensor]]] = {
    "MSELoss": (INPUT, _target(0)),
    "HalfSquaredErrorLoss": (
        "the only element of a row, for the target 0",
        lambda f, x: f(_row(x), _row(_like(x, 0))),
    ),
    "L1Loss": (INPUT, _target(0)),
    "SmoothL1Loss": (INPUT, _target(0)),
    "HuberLoss": (INPUT, _target(0)),
    "LogCoshLoss": (INPUT, _target(0)),
    "QuantileLoss": ("the input, for the target 0 and the quantile 0.8", _target(0)),
    "PoissonNLLLoss": ("the logarithm of the rate, for the target 2", _target(2)),
    "GaussianNLLLoss": (
        "the input, for the target 0 and the variance 1",
        lambda f, x: f(x, _like(x, 0), _like(x, 1)),
    ),
    "KLDivLoss": ("the log-probability, for the target 1/2", _target(0.5)),
    "CrossEntropyLoss": (RIGHT, _right_class),
    "NLLLoss": ("the log-probability of the right class", _right_class),
    "BCEWithLogitsLoss": (SCORE, _target(1)),
    "BCELoss": ("the probability, for the target 1", _target(1)),
    "MulticlassHingeLoss": (RIGHT, _right_class),
    "MultiMarginLoss": (RIGHT, _right_class),
    "MarginLoss": (SCORE, _target(1)),
    "SoftMarginLoss": (SCORE, _target(1)),
    "HingeEmbeddingLoss": ("the distance, for a pair that belongs apart (-1)", _target(-1)),
    "MarginRankingLoss": (
        "the first score; the second is 0, the target 1",
        lambda f, x: f(x, _like(x, 0), _like(x, 1)),
    ),
    "CosineEmbeddingLoss": (
        "the angle of the pair, for the target 1",
        lambda f, x: f(fg.stack([x.cos(), x.sin()], dim=1), _row(_like(x, 1), 0), _like(x, 1)),
    ),
    "TripletMarginLoss": (
        "the negative; anchor and positive lie at 0 and 1",
        lambda f, x: f(_row(_like(x, 0)), _row(_like(x, 1)), _row(x)),
    ),
    "MultiLabelMarginLoss": (RIGHT, lambda f, x: f(_row(x, 0, 0), fg.tensor([[0, -1, -1]] * len(x)))),
    "MultiLabelSoftMarginLoss": (
        "the score of the only class, for the target 1",
        lambda f, x: f(_row(x), _row(_like(x, 1))),
    ),
}
# Arguments that have no default, or one that shows little.
SETTINGS: dict[str, dict[str, float]] = {
    "QuantileLoss": {"quantiles": 0.8},
    "Threshold": {"threshold": 1.0, "value": -1.0},
}
INTERVALS = {
    "BCELoss": (0.02, 0.98),
    "KLDivLoss": (-4.0, 0.0),
    "NLLLoss": (-4.0, 0.0),
    "CosineEmbeddingLoss": (-3.0, 3.0),
}


def on_files(files: Files, config: Any) -> Files:
    """Add the pictures, and the pages that are lists of them, to the files of the site."""

    def add(path: str, content: str | bytes) -> None:
        files.append(File.generated(config, path, content=content))

    add("activations.md", _activations(add))
    add("losses.md", _losses(add))
    add("examples.md", _examples(add))
    for name, picture in _engine().items():
        add(f"pictures/{name}.svg", picture)
    add("pictures/results.png", (ROOT / "benches/results.png").read_bytes())
    return files


def on_page_markdown(markdown: str, page: Page, config: Any, files: Files) -> str:
    """Put in what is written once: README sections, ``<!-- README: heading -->``, and a module's own text."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")

    def section(found: re.Match[str]) -> str:
        text = re.search(rf"^## {re.escape(found[1])}\n(.*?)(?=^## |\Z)", readme, re.M | re.S)
        if text is None:
            raise ValueError(f"{page.file.src_path}: the README has no section {found[1]!r}")
        up = "../" * page.file.src_path.count("/")
        own = text[1].strip().replace("python/docs/pages/", up)
        return own.replace("benches/results.png", f"{up}pictures/results.png")

    def told(found: re.Match[str]) -> str:
        return f"```text\n{(import_module(found[1]).__doc__ or '').strip()}\n```"

    markdown = re.sub(r"^<!-- HELP: (.*) -->$", told, markdown, flags=re.M)
    return re.sub(r"^<!-- README: (.*) -->$", section, markdown, flags=re.M)


def _svg(drawn: Any) -> bytes:
    """The picture that axes lie in, without the date, so that a site built again is the same."""
    buffer = io.BytesIO()
    drawn.figure.savefig(buffer, format="svg", metadata={"Date": None})
    plt.close(drawn.figure)
    return buffer.getvalue()


def _curve(function: Any, name: str) -> bytes:
    low, high = INTERVALS.get(name, (-4.0, 4.0))
    _, ax = plt.subplots(figsize=(4.6, 3.0), layout="constrained")
    return _svg(fg.viz.activation(function, low=low, high=high, ax=ax))


def _summary(kind: Any) -> str:
    """The first line of a docstring, with what it refers to as a link."""
    line = (kind.__doc__ or "").strip().splitlines()[0]
    return re.sub(r"`(functional\.\w+)`", r"[`\1`][ferrograd.nn.\1]", line)


def _entry(name: str, about: str) -> str:
    title = f"### [`{name}`][ferrograd.nn.{name}] {{ #{name.lower()} }}"
    picture = f"![{name} and its derivative](pictures/{name}.svg)"
    return f"{title}\n\n{_summary(getattr(nn, name))} {about}\n\n{picture}\n"


def _activations(add: Callable[[str, str | bytes], None]) -> str:
    kinds = [
        getattr(nn, name)
        for module in (nn.activations, nn.piecewise)
        for name in module.__all__
        if getattr(nn, name) not in OF_SEVERAL
    ]
    entries = []
    for kind in sorted(kinds, key=lambda kind: kind.__name__.lower()):
        layer = kind(**SETTINGS.get(kind.__name__, {})).double().eval()
        add(f"pictures/{kind.__name__}.svg", _curve(layer, kind.__name__))
        entries.append(_entry(kind.__name__, ""))
    others = ", ".join(f"[`{kind.__name__}`][ferrograd.nn.{kind.__name__}]" for kind in OF_SEVERAL)
    return _page("activations", entries, others=others)


def _losses(add: Callable[[str, str | bytes], None]) -> str:
    modules = (nn.losses, nn.margin_losses, nn.regression_losses)
    missing = {name for module in modules for name in module.__all__} - set(LOSSES) - {"Loss"}
    if missing:
        raise ValueError(f"pictures.py: LOSSES lacks {', '.join(sorted(missing))}")
    entries = []
    for name, (meaning, of) in LOSSES.items():
        loss = getattr(nn, name)(reduction="none", **SETTINGS.get(name, {}))

        def function(x: fg.Tensor, of: Any = of, loss: Any = loss) -> fg.Tensor:
            return of(loss, x).reshape(-1)

        function.__name__ = name
        add(f"pictures/{name}.svg", _curve(function, name))
        entries.append(_entry(name, f"In the picture, x is {meaning}."))
    return _page("losses", entries)


def _page(name: str, entries: list[str], **more: str) -> str:
    head = (Path(__file__).parent / f"{name}.md").read_text(encoding="utf-8").format(**more)
    cells = "\n".join(f'<div markdown="1">\n\n{entry}\n</div>' for entry in entries)
    return f'{head}\n<div class="pair" markdown="1">\n{cells}\n</div>\n'


def _examples(add: Callable[[str, str | bytes], None]) -> str:
    """Run each example but mnist, whose files are not here, and show all that there is of it."""
    listed = re.findall(r"^(\d\.) `(\w+)`(.*)", examples.__doc__ or "", re.M)
    contents = "\n".join(f"{number} [{name}](#{name}){about}" for number, name, about in listed)
    parts = [(Path(__file__).parent / "examples.md").read_text(encoding="utf-8").format(contents=contents)]
    for _, name, _ in listed:
        module = import_module(f"ferrograd.examples.{name}")
        text = (module.__doc__ or "").strip()
        parts.append(f"## {name}\n\n{text}\n\n```sh\npython -m ferrograd.examples.{name}\n```\n")
        if name != "mnist":
            folder = Path(tempfile.mkdtemp())
            with redirect_stdout(io.StringIO()) as printed:
                module.main(["--out", str(folder)])
            plt.close("all")
            parts.append(f"```text\n{printed.getvalue().rstrip()}\n```\n")
            # Graphs are wide, plots stand beside each other.
            for kind, form in (("png", "pair"), ("svg", "wide")):
                parts.append(f'<div class="{form}" markdown="1">\n')
                for path in sorted(folder.glob(f"*.{kind}")):
                    add(f"pictures/{path.name}", path.read_bytes())
                    parts.append(f"![{path.stem.replace('_', ' ')}](pictures/{path.name})\n")
                parts.append("</div>\n")
            shutil.rmtree(folder)
        source = Path(module.__file__ or "").read_text(encoding="utf-8")
        parts.append(f'??? example "The whole program"\n\n    ```py\n{_indented(source)}\n    ```\n')
    return "\n".join(parts)


def _indented(text: str) -> str:
    return "\n".join(f"    {line}" if line else "" for line in text.rstrip().splitlines())


def _engine() -> dict[str, str]:
    """The pictures of the page on the engine."""
    x, y, z = (fg.tensor(value, requires_grad=True) for value in (-2.0, 5.0, -4.0))
    fg.manual_seed(0)
    model = nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 2))
    trainer = fg.Trainer(model, nn.CrossEntropyLoss(), fg.optim.Adam(model.parameters()))
    X, labels = fg.datasets.make_moons(n_samples=64, seed=0)
    trainer.fit(X, labels, epochs=1, batch_size=32, seed=0, progress=False)
    return {
        "engine_gates": fg.draw(lambda: (x + y) * z, names={"x": x, "y": y, "z": z}).svg(),
        "engine_network": fg.draw(model).svg(),
        "engine_plan": fg.draw(trainer.plan).svg(),
    }
