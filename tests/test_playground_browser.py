"""The playground's page in a real browser: Debian's Chromium, driven by Playwright."""

import os
import re
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ferrograd.playground.server import Server
from ferrograd.playground.session import Session
from serving import serving

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright (from PyPI) is not installed")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="chromium (Debian's package) is not installed")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_api.sync_playwright() as playwright:
        # Its sandbox needs rights that a container's root user has not.
        launched = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield launched
        launched.close()


@pytest.fixture
def server() -> Iterator[Server]:
    session = Session()
    with serving(session) as made:
        yield made
    session.close()


@pytest.fixture(params=["light", "dark"])
def scheme(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def page(browser: Any, server: Server) -> Iterator[Any]:
    yield from opened(browser, server, "light")


@pytest.fixture
def page_in_scheme(browser: Any, server: Server, scheme: str) -> Iterator[Any]:
    yield from opened(browser, server, scheme)


def opened(browser: Any, server: Server, scheme: str) -> Iterator[Any]:
    """Yield the page, shown; afterwards nothing may have gone wrong or have been asked for elsewhere."""
    made = browser.new_page(viewport={"width": 1280, "height": 800}, color_scheme=scheme)
    made.set_default_timeout(60_000)
    wrong: list[str] = []
    made.on("pageerror", lambda error: wrong.append(str(error)))
    made.on("console", lambda message: wrong.append(message.text) if message.type == "error" else None)
    made.on("request", lambda sent: None if sent.url.startswith(server.url) else wrong.append(sent.url))
    made.goto(server.url)
    until(made, "document.getElementById('accuracy').textContent.includes('%')")
    yield made
    made.close()
    # Chromium notes each answer of an error, which a test may have asked for.
    assert [text for text in wrong if "status of 400" not in text and not text.startswith("data:")] == []


def until(page: Any, expression: str, seconds: float = 60.0) -> None:
    """Wait until JavaScript is true; Playwright's own wait needs an `eval` that the page's policy forbids."""
    deadline = time.monotonic() + seconds
    while not page.evaluate(expression):
        assert time.monotonic() < deadline, f"{expression} did not come true; {page.text_content('#status')}"
        page.wait_for_timeout(20)


def reads(page: Any, name: str, start: str) -> None:
    """Wait until the text of an element starts so."""
    until(page, f"document.getElementById({name!r}).textContent.startsWith({start!r})")


def epoch(page: Any) -> int:
    return int(page.text_content("#epoch"))


def at(page: Any, server: Server, across: float, up: float) -> tuple[dict[str, float], list[float]]:
    """Return a place of the plane by shares of its sides: on the canvas, and in the points' units."""
    box = page.locator("#plane").bounding_box()
    left, right, bottom, top = server.session.state()["data"]["view"]
    on_canvas = {"x": across * box["width"], "y": (1 - up) * box["height"]}
    return on_canvas, [left + across * (right - left), bottom + up * (top - bottom)]


def test_points_are_added_and_removed_with_the_mouse(page: Any, server: Server) -> None:
    before = server.session.state()["data"]["points"]
    on_canvas, place = at(page, server, 0.25, 0.9)
    page.check("#classes input[value='1']")
    page.click("#plane", position=on_canvas)
    reads(page, "status", "added class 1 at")
    *others, (x, y, kind) = server.session.state()["data"]["points"]
    assert others == before
    assert (x, y, kind) == (pytest.approx(place[0], abs=0.01), pytest.approx(place[1], abs=0.01), 1)
    page.click("#plane", position=on_canvas, modifiers=["Shift"])
    reads(page, "status", "removed class 1")
    assert server.session.state()["data"]["points"] == before


def test_points_are_added_and_removed_with_the_keyboard(page: Any, server: Server) -> None:
    before = server.session.state()["data"]["points"]
    page.focus("#clear")
    for _ in range(20):  # To the plane, by the keyboard alone.
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.id") == "plane":
            break
    for key in ("2", "ArrowRight", "ArrowRight", "Shift+ArrowUp", "Enter"):
        page.keyboard.press(key)
    reads(page, "status", "added class 2 at")
    _, place = at(page, server, 0.54, 0.6)
    assert server.session.state()["data"]["points"][-1] == [*(pytest.approx(v, abs=1e-5) for v in place), 2]
    assert page.is_checked("#classes input[value='2']")
    page.keyboard.press("Delete")
    reads(page, "status", "removed class 2")
    assert server.session.state()["data"]["points"] == before


def test_xor_is_trained_to_the_end_paused_changed_and_resumed(page: Any, tmp_path: Path) -> None:
    page.select_option("#set", "xor")
    page.select_option("#speed", "")
    page.click("#toggle")
    reads(page, "accuracy", "100.0 %")
    reads(page, "toggle", "Pause")
    assert re.search(r"100 percent", page.text_content("#announce"))
    shot = Path(os.environ.get("FERROGRAD_SCREENSHOTS", tmp_path)) / "playground.png"
    page.screenshot(path=str(shot))
    assert shot.stat().st_size > 20_000

    page.click("#toggle")
    reads(page, "status", "paused")
    page.wait_for_timeout(300)
    paused = epoch(page)
    page.wait_for_timeout(400)
    assert epoch(page) == paused > 0

    page.click("#toggle")
    until(page, f"Number(document.getElementById('epoch').textContent) > {paused}")

    page.select_option("#activation", "relu")
    until(page, "document.querySelector('#neurons h3').textContent === 'relu 1'")
    reads(page, "accuracy", "100.0 %")
    assert page.text_content("#toggle") == "Pause"
    page.click("#reset")
    reads(page, "epoch", "0")
    page.click("#step")
    reads(page, "epoch", "1")


def test_d17_boundary_and_hidden_space_change_while_it_trains(page: Any) -> None:
    pixels = "id => document.getElementById(id).toDataURL()"
    before = {name: page.evaluate(pixels, name) for name in ("plane", "curves", "warp")}
    neuron = "document.querySelector('#neurons canvas').toDataURL()"
    first = page.evaluate(neuron)
    page.click("#toggle")
    until(page, "Number(document.getElementById('epoch').textContent) > 20")
    for name, picture in before.items():
        assert page.evaluate(pixels, name) != picture, name
    assert page.evaluate(neuron) != first
    warp = page.evaluate(pixels, "warp")
    page.click("#toggle")
    page.select_option("#unit-y", "3")
    assert page.evaluate(pixels, "warp") != warp


def test_the_users_table_is_read_and_a_bad_one_named_by_line(page: Any, tmp_path: Path) -> None:
    path = tmp_path / "mine.csv"
    path.write_text("a,b,kind\n1,2,rose\n3,4,tulip\n", encoding="utf-8")
    page.set_input_files("#csv", str(path))
    reads(page, "status", "2 points of the table")
    assert "rose" in page.text_content("#classes")
    path.write_text("0,0,1\n1,1,2\n", encoding="utf-8")
    page.set_input_files("#csv", str(path))
    until(page, "document.querySelectorAll('#classes span')[0].textContent === '1'")
    page.focus("#plane")
    page.keyboard.press("2")
    assert page.is_checked("#classes input[value='1']")
    path.write_text("1,2,rose\n3,tulip\n", encoding="utf-8")
    page.set_input_files("#csv", str(path))
    reads(page, "status", "csv, line 2: expected 3")
    assert page.input_value("#set") == "csv"


def test_a_wrong_value_is_marked_and_told(page: Any) -> None:
    page.fill("#hidden", "8, x")
    page.press("#hidden", "Tab")
    reads(page, "status", "hidden[1]: expected")
    assert page.get_attribute("#hidden", "aria-invalid") == "true"
    page.fill("#hidden", "4")
    page.press("#hidden", "Tab")
    until(page, "document.querySelectorAll('#neurons canvas').length === 6")
    assert page.get_attribute("#hidden", "aria-invalid") is None


def test_every_control_has_a_name_and_nothing_overlaps_or_is_cut(page_in_scheme: Any) -> None:
    page = page_in_scheme
    nameless = page.evaluate(
        """() => [...document.querySelectorAll("button, input, select, canvas[role]")].filter(
            e => !(e.getAttribute("aria-label") || e.textContent.trim() && e.tagName === "BUTTON"
                   || (e.labels && e.labels.length && e.labels[0].textContent.trim()))).map(e => e.id)"""
    )
    assert nameless == []
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    cut = page.evaluate(
        """() => [...document.querySelectorAll("section, fieldset, button, label, h2, dd, p")].filter(
            e => e.scrollWidth > e.clientWidth + 1 && getComputedStyle(e).display !== "inline"
        ).map(e => e.outerHTML)"""
    )
    assert cut == []
    overlapping = page.evaluate(
        """() => {
            const boxes = [...document.querySelectorAll(
                "header > *, #status, main fieldset:not(.classes), section, footer"
            )].map(e => [e.id || e.textContent.trim().slice(0, 20), e.getBoundingClientRect()]);
            return boxes.flatMap(([a, p], i) => boxes.slice(i + 1).filter(([, q]) =>
                p.left < q.right - 1 && q.left < p.right - 1 && p.top < q.bottom - 1 && q.top < p.bottom - 1)
                .map(([b]) => [a, b]));
        }"""
    )
    assert overlapping == []
