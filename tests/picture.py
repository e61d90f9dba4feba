"""Where boxes, labels and wires of a picture are: what tests of drawings look at."""

import random
import re
import xml.etree.ElementTree as ET
from itertools import combinations

import ferrograd as fg
from ferrograd.drawing import Drawing
from ferrograd.drawing.collapse import LARGEST
from ferrograd.drawing.vertices import Vertex

SVG = "{http://www.w3.org/2000/svg}"
# Of DejaVu Sans Mono, the widest fixed-width font in use: its advance in widths of an em.
ADVANCE = 0.6021


class Box:
    def __init__(self, x: float, y: float, width: float, height: float, what: str) -> None:
        self.left, self.top, self.right, self.bottom, self.what = x, y, x + width, y + height, what

    def overlaps(self, other: "Box") -> bool:
        apart = self.right <= other.left or other.right <= self.left
        return not (apart or self.bottom <= other.top or other.bottom <= self.top)

    def holds(self, other: "Box") -> bool:
        inside = self.left <= other.left and other.right <= self.right
        return inside and self.top <= other.top and other.bottom <= self.bottom


def geometry(svg: str) -> tuple[Box, list[Box], list[Box], list[tuple[float, float]]]:
    """The view, the boxes of nodes and marks, all texts, and the points of wires."""
    root = ET.fromstring(svg)
    view = Box(*map(float, root.attrib["viewBox"].split()), "view")
    (shift,) = {float(n) for g in root.iter(f"{SVG}g") for n in re.findall(r"[\d.]+", g.get("transform", ""))}
    boxes, labels = [], []
    for rect in root.iter(f"{SVG}rect"):
        if rect.attrib["class"] != "ground":
            x, y, width, height = (float(rect.attrib[key]) for key in ("x", "y", "width", "height"))
            what = "mark" if rect.attrib["class"] == "mark" else "box"
            boxes.append(Box(x + shift, y + shift, width, height, what))
    for text in root.iter(f"{SVG}text"):
        size = 11 if text.attrib["class"] == "note" else 12
        wide = len(text.text or "") * size * ADVANCE
        left = float(text.attrib["x"]) + shift - (wide / 2 if text.attrib["text-anchor"] == "middle" else 0)
        # From the top of capitals to the feet of letters such as g.
        labels.append(
            Box(left, float(text.attrib["y"]) + shift - 0.76 * size, wide, 0.99 * size, text.text or "")
        )
    points = []
    for path in root.iter(f"{SVG}path"):
        if path.attrib["class"] == "wire":
            numbers = [float(n) for n in re.findall(r"-?[\d.]+", path.attrib["d"])]
            points += [(x + shift, y + shift) for x, y in zip(numbers[::2], numbers[1::2], strict=False)]
    return view, boxes, labels, points


def check_geometry(picture: Drawing) -> None:
    view, boxes, labels, points = geometry(picture.svg())
    assert len([box for box in boxes if box.what == "box"]) == len(picture.vertices)
    for one, other in combinations(boxes, 2):
        assert not one.overlaps(other)
    for one, other in combinations(labels, 2):
        assert not one.overlaps(other), (one.what, other.what)
    for label in labels:
        inside = [box for box in boxes if box.overlaps(label)]
        assert all(box.holds(label) for box in inside), label.what
        assert len(inside) <= 1
    assert all(view.holds(item) for item in boxes + labels)
    assert all(0 <= x <= view.right and 0 <= y <= view.bottom for x, y in points)


def random_vertices(seed: int) -> list[Vertex]:
    rng = random.Random(seed)
    count = rng.randrange(1, LARGEST + 1)
    found = []
    for i in range(count):
        sources = tuple(rng.randrange(i) for _ in range(rng.randrange(4))) if i else ()
        label = "".join(rng.choices("abcdefghijkl<>&\"'é", k=rng.randrange(1, 40)))
        kind = rng.choice(["input", "parameter", "constant", "op", "group"])
        note = "n" * rng.randrange(20) if kind == "group" else ""
        value = fg.tensor(rng.uniform(-1e6, 1e6)) if rng.random() < 0.5 else None
        grad = fg.tensor([1.0, rng.random()]) if rng.random() < 0.5 else None
        found.append(Vertex(label, kind, sources, (2, 3), value, grad, note=note))
    return found
