"""The other column of the pages for newcomers runs in the library that it is of, and gives what ours gives.

Cells without code are passed over, and libraries that are not installed: the extra `test` brings all but
PyTorch, which is large.
"""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

PAGES = Path(__file__).parent.parent / "python" / "docs" / "pages" / "coming"
pytestmark = pytest.mark.skipif(not PAGES.is_dir(), reason="the pages of the site are not in the sdist")

# What the names of the other column stand for, where that is not what the page's blocks make.
MICROGRAD = """
from micrograd.engine import Value
from micrograd.nn import MLP
a, b = Value(-4.0), Value(2.0)
"""
# Rows whose values are compared: not those whose weights are drawn, or that only name things.
COMPARED = {"numpy": 9, "sklearn": 1, "torch": 8, "micrograd": 4}
NAMES = {
    "numpy": "",
    "sklearn": "from sklearn.neural_network import MLPClassifier",
    "torch": "",
    "micrograd": "model = MLP(3, [4, 1])\nsum(model([1.0, 1.0, 1.0]) for _ in range(2)).backward()",
}


def blocks_of(text: str) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```$", text, re.M | re.S)


def theirs(library: str, text: str, ours: dict[str, Any]) -> dict[str, Any]:
    """What a reader of a page has in the other library."""
    if library in ("numpy", "sklearn"):
        # The blocks have both.
        names = dict(ours)
        exec(NAMES[library], names)
        return names
    code = "\n".join(blocks_of(text))
    if library == "torch":
        code = code.replace("import ferrograd as torch", "import torch").replace("import ferrograd as fg", "")
        code = code.replace("from ferrograd import", "from torch import").replace("fg.", "torch.")
    if library == "micrograd":
        body = blocks_of(text)[0]
        code = MICROGRAD + re.sub(r"^(import|[ab] = |print).*$", "", body, flags=re.M)
    names = {}
    exec(f"{code}\n{NAMES[library]}", names)
    return names


def told(value: Any) -> Any:
    """What can be compared: numbers, and of other things what both call by one name."""
    if isinstance(value, tuple | list):
        return [told(part) for part in value]
    if isinstance(value, dict):
        return list(value)
    if hasattr(value, "detach"):
        value = value.detach().numpy()
    if isinstance(value, np.ndarray | np.generic | float | int):
        return np.asarray(value).tolist()
    if hasattr(value, "data") and not isinstance(value, memoryview):
        return value.data
    return None


@pytest.mark.parametrize("library", NAMES)
def test_the_other_column_runs_and_says_what_ours_does(library: str) -> None:
    pytest.importorskip(library)
    page = {"torch": "pytorch"}.get(library, library)
    text = (PAGES / f"{page}.md").read_text(encoding="utf-8")
    ours: dict[str, Any] = {}
    exec("\n".join(blocks_of(text)), ours)
    others = theirs(library, text, ours)
    rows = re.findall(r"^\| `(.*)` \| `(.*)` \|$", text, re.M)
    assert len(rows) >= 6
    compared = 0
    for other, own in rows:
        if re.match(r"(from|for|torch\.save)", other):
            exec(other, others)
            exec(own, ours)
            continue
        found, expected = told(eval(own, ours)), told(eval(other, others))
        assert (found is None) == (expected is None), own
        # Weights that are drawn differ, and so does what they make; long fits enlarge rounding.
        if found is None or "clip_grad_norm_" in own or "predict_proba" in own:
            continue
        compared += 1
        first, second = np.asarray(found), np.asarray(expected)
        assert first.shape == second.shape, own
        is_text = first.dtype.kind == "U"
        assert (first == second).all() if is_text else np.allclose(first, second, rtol=1e-5), own
    assert compared == COMPARED[library]
