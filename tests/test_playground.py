"""The playground without a browser: what a session does, and what the server makes of whatever comes in."""

import base64
import http.client
import json
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ferrograd as fg
from ferrograd.cli import main
from ferrograd.playground.points import MOST_POINTS, parse_csv, read_csv
from ferrograd.playground.server import MOST_BYTES, Server
from ferrograd.playground.session import ACTIVATIONS, LATTICE, LOSSES, OPTIMIZERS, Session
from ferrograd.table import InputError
from serving import serving


@pytest.fixture
def session() -> Iterator[Session]:
    made = Session()
    yield made
    made.close()


@pytest.fixture
def server(session: Session) -> Iterator[Server]:
    with serving(session) as made:
        yield made


def wait_until(holds: Callable[[], bool], seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "it did not come true in time"
        time.sleep(0.01)


def ask(
    server: Server, method: str, path: str, body: Any = None, raw: bytes | None = None, **headers: str
) -> tuple[int, Any]:
    """Return the status and the decoded answer of one request on a connection of its own."""
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=30)
    sent = {"Content-Type": "application/json"} if body is not None or raw is not None else {}
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    content = raw if raw is not None else None if body is None else json.dumps(body).encode()
    connection.request(method, path, content, sent | named)
    response = connection.getresponse()
    text = response.read()
    connection.close()
    kind = response.headers["Content-Type"]
    return response.status, json.loads(text) if text and kind.startswith("application/json") else text


def talk(port: int, *sent: bytes) -> list[bytes]:
    """Send bytes as they are, each on its own connection; return all that comes until these are closed."""
    connections = [socket.create_connection(("127.0.0.1", port), timeout=30) for _ in sent]
    answers = []
    for connection, content in zip(connections, sent, strict=True):
        connection.sendall(content)
        connection.shutdown(socket.SHUT_WR)
    for connection in connections:
        parts = []
        with connection:
            try:
                while part := connection.recv(1 << 16):
                    parts.append(part)
            except ConnectionResetError:
                pass
        answers.append(b"".join(parts))
    return answers


# The session


def test_xor_is_learnt_to_the_last_point(session: Session) -> None:
    session.run({"action": "start", "speed": None})
    wait_until(lambda: session.state()["accuracy"] == 1.0)
    state = session.run({"action": "pause"})
    assert not state["running"]
    assert state["loss"] < 0.2
    curves = state["curves"]
    assert len(curves["epoch"]) == len(curves["loss"]) == len(curves["accuracy"])
    assert curves["epoch"] == sorted(set(curves["epoch"]))
    assert curves["epoch"][-1] <= state["epoch"]


def test_a_paused_session_stays_where_it_is_and_goes_on_from_there(session: Session) -> None:
    session.run({"action": "start", "speed": None})
    wait_until(lambda: session.state()["epoch"] >= 5)
    paused = session.run({"action": "pause"})
    time.sleep(0.2)
    assert session.state() is paused
    session.run({"action": "start"})
    wait_until(lambda: session.state()["epoch"] > paused["epoch"])
    assert session.state()["running"]


def test_a_step_is_one_epoch_of_the_trainer(session: Session) -> None:
    before = session.state()
    after = session.run({"action": "step"})
    assert (before["epoch"], after["epoch"], after["running"]) == (0, 1, False)

    fg.manual_seed(0)
    model = fg.nn.Sequential(
        fg.nn.Linear(2, 8), fg.nn.Tanh(), fg.nn.Linear(8, 8), fg.nn.Tanh(), fg.nn.Linear(8, 2)
    )
    X, y = fg.datasets.make_xor(200, seed=0)
    trainer = fg.Trainer(model, fg.nn.CrossEntropyLoss(), fg.optim.Adam(model.parameters(), lr=0.01))
    history = trainer.fit(X, y, epochs=1, batch_size=16, seed=0, progress=False)
    assert after["loss"] == history.history["loss"][0]
    assert after["accuracy"] == trainer.evaluate(X, y)["accuracy"]


def test_the_boundary_is_what_the_trainer_predicts(session: Session) -> None:
    session.data({"set": "moons"})
    state = [session.run({"action": "step"}) for _ in range(20)][-1]
    seen = np.frombuffer(base64.b64decode(state["boundary"]["classes"]), np.uint8).reshape(LATTICE, LATTICE)
    left, right, bottom, top = state["data"]["view"]
    rows = np.linspace(top, bottom, LATTICE)
    places = [[(x, y) for x in np.linspace(left, right, LATTICE)] for y in rows]
    scores = session._trainer.predict(np.array(places, np.float32).reshape(-1, 2))
    assert set(seen.ravel().tolist()) == {0, 1}
    np.testing.assert_array_equal(seen, scores.argmax(axis=1).reshape(LATTICE, LATTICE))


def test_the_pictures_are_those_of_the_layers(session: Session) -> None:
    session.data({"set": "moons", "n_samples": 30})
    state = session.network({"hidden": [5, 3], "activation": "sigmoid"})
    assert [(layer["name"], len(layer["pictures"])) for layer in state["layers"]] == [
        ("sigmoid 1", 5),
        ("sigmoid 2", 3),
        ("scores", 2),
    ]
    model = session._model
    left, right, bottom, top = state["data"]["view"]
    with fg.no_grad():
        corners = fg.tensor(np.array([[left, bottom], [left, top], [right, top]], np.float32))
        expected = model[:4](corners).numpy()
    hidden = state["hidden"]
    grid = np.frombuffer(base64.b64decode(hidden["grid"]), "<i2").reshape(2, -1, hidden["on_line"], 3)
    found = grid[:, [0, 0, -1], [0, -1, -1]] * (hidden["largest"] / 32767)
    np.testing.assert_allclose(found[0], expected, atol=1e-4)
    np.testing.assert_allclose(found[1][[0, 2]], expected[[0, 2]], atol=1e-4)

    picture = np.frombuffer(base64.b64decode(state["layers"][0]["pictures"][0]), np.uint8)
    side = (LATTICE + 1) // 2
    with fg.no_grad():
        first = model[:2](corners).numpy()[:, 0]
    shown = picture.reshape(side, side)[[-1, 0, 0], [0, 0, -1]] - 128.0
    np.testing.assert_allclose(shown / np.abs(shown).max(), first / first.max(), atol=0.02)


def test_without_hidden_layers_there_is_no_hidden_space(session: Session) -> None:
    state = session.network({"hidden": []})
    assert state["hidden"] is None
    assert [layer["name"] for layer in state["layers"]] == ["scores"]
    assert session.run({"action": "step"})["epoch"] == 1


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_each_loss_and_optimizer_lowers_the_loss(session: Session, loss: str, optimizer: str) -> None:
    session.data({"set": "gauss", "n_samples": 90, "n_classes": 3})
    session.network({"loss": loss, "optimizer": optimizer, "lr": 0.02, "hidden": [8]})
    losses = [session.run({"action": "step"})["loss"] for _ in range(12)]
    assert losses[-1] < 0.95 * losses[0]


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_each_activation_trains(session: Session, activation: str) -> None:
    session.run({"action": "step"})
    state = session.network({"activation": activation, "l2": 0.001})
    assert state["epoch"] == (1 if activation == "tanh" else 0)
    assert isinstance(session._model[1], ACTIVATIONS[activation])
    losses = [session.run({"action": "step"})["loss"] for _ in range(15)]
    assert losses[-1] < losses[0]


def test_the_first_data_are_learned_within_a_few_hundred_epochs(session: Session) -> None:
    assert any(session.run({"action": "step"})["accuracy"] == 1.0 for _ in range(500))


def test_a_long_curve_keeps_places_at_even_distances(session: Session) -> None:
    for epoch in range(1, 5000):
        session._epoch, session._loss = epoch, 1.0
        session._note(0.5)
        gaps = np.diff([place[0] for place in session._curves])
        assert len(session._curves) <= 401
        assert gaps.size == 0 or gaps.max() <= 2 * gaps.min()


def test_what_needs_no_new_weights_goes_on_with_these(session: Session) -> None:
    session.run({"action": "step"})
    weights = session._model.state_dict()["0.weight"].numpy().copy()
    for change in ({"lr": 0.5}, {"l2": 0.1}, {"optimizer": "sgd"}, {"loss": "hinge"}, {"batch_size": 200}):
        assert session.network(change)["epoch"] == 1
        np.testing.assert_array_equal(session._model.state_dict()["0.weight"].numpy(), weights)
    assert session._trainer.optimizer.param_groups[0]["lr"] == 0.5
    assert session.network({"seed": 1})["epoch"] == 0
    assert not np.array_equal(session._model.state_dict()["0.weight"].numpy(), weights)


def test_the_same_seed_gives_the_same_start(session: Session) -> None:
    first = session.network({"seed": 7})["boundary"]
    session.run({"action": "step"})
    assert session.run({"action": "reset"})["boundary"] == first


def test_points_come_and_go(session: Session) -> None:
    session.data({"clear": True})
    with pytest.raises(fg.ConfigError, match="start needs points"):
        session.run({"action": "start"})
    with pytest.raises(fg.ConfigError, match="remove: expected a point"):
        session.data({"remove": [0, 0]})
    session.data({"add": [0.5, 0.5, 0]})
    state = session.data({"add": [-3, 4.0, 1]})
    assert state["data"]["points"] == [[0.5, 0.5, 0], [-3.0, 4.0, 1]]
    assert (state["data"]["view"][0], state["data"]["view"][3]) == (-3.0, 4.0)
    assert session.data({"remove": [0.4, 0.4]})["data"]["points"] == [[-3.0, 4.0, 1]]


def test_a_new_class_gets_an_output(session: Session) -> None:
    session.run({"action": "step"})
    state = session.data({"add": [0, 0, 4]})
    assert state["data"]["names"] == ["0", "1", "2", "3", "4"]
    assert (state["epoch"], len(state["layers"][-1]["pictures"])) == (0, 5)
    assert session.run({"action": "step"})["epoch"] == 1


def test_a_new_class_beside_a_tables_numbers_has_a_name_of_its_own(session: Session) -> None:
    session.data({"csv": "0,0,1\n1,1,2\n"})
    assert session.data({"add": [0, 1, 3]})["data"]["names"] == ["1", "2", "new 2", "3"]


def test_points_are_added_while_it_trains_and_it_goes_on(session: Session) -> None:
    session.run({"action": "start", "speed": None})
    for number in range(20):
        session.data({"add": [number / 10, 0.5, number % 2]})
    before = session.state()["epoch"]
    wait_until(lambda: session.state()["epoch"] > before)
    assert session.state()["running"]
    assert not session.data({"clear": True})["running"]


def test_a_divergence_pauses_with_the_trainers_words(session: Session) -> None:
    session.network({"optimizer": "sgd", "lr": 10.0, "loss": "mse", "activation": "relu", "hidden": [24] * 5})
    session.run({"action": "start", "speed": None})
    wait_until(lambda: not session.state()["running"])
    assert "the loss became" in session.state()["message"]
    assert session.run({"action": "reset"})["epoch"] == 0


def test_the_speed_is_kept(session: Session) -> None:
    start = time.monotonic()
    session.run({"action": "start", "speed": 20})
    wait_until(lambda: session.state()["epoch"] >= 10)
    assert time.monotonic() - start > 0.35
    wait_until(lambda: 0 < session.state()["epochs_per_second"] < 30)


WRONG: list[tuple[str, Any, str]] = [
    ("data", {}, "expected one of the fields set, add, remove, clear, csv, got none"),
    ("data", {"set": "moons", "clear": True}, "got set and clear"),
    ("data", {"set": "torus"}, "set: expected one of circles, gauss, moons, spiral, xor, got 'torus'"),
    ("data", {"set": "moons", "n_samples": 1}, "n_samples: expected an integer from 2 to 2000, got 1"),
    ("data", {"set": "moons", "n_samples": True}, "n_samples: expected an integer"),
    ("data", {"set": "moons", "noise": float("nan")}, "noise: expected a number from 0 to 2, got nan"),
    ("data", {"set": "moons", "seed": 10**400}, "got an integer of more than 20 digits"),
    ("data", {"set": "gauss", "n_classes": 9}, "n_classes: expected an integer from 2 to 8, got 9"),
    ("data", {"set": "moons", "colour": 1}, "colour: unknown field"),
    ("data", {"add": [1, 2]}, r"add: expected \[x, y, class\], got \[1, 2\]"),
    ("data", {"add": [1, "2", 0]}, "add: y: expected a number"),
    ("data", {"add": [1, 2e6, 0]}, "add: y: expected a number from -1e\\+06 to 1e\\+06, got 2000000.0"),
    ("data", {"add": [1, 2, 8]}, "add: class: expected an integer from 0 to 7, got 8"),
    ("data", {"add": [1, 2, 0], "seed": 1}, "seed: unknown field beside add"),
    ("data", {"remove": "all"}, r"remove: expected \[x, y\], got 'all'"),
    ("data", {"clear": 1}, "clear: expected true, got 1"),
    ("data", {"csv": 3}, "csv: expected text, got 3"),
    ("data", {"csv": "1,2,a\n1,x,b\n"}, "csv, line 2: cell 2: expected a number"),
    ("network", {"hidden": 8}, "hidden: expected a list of at most 5 widths, got 8"),
    ("network", {"hidden": [8, 25]}, r"hidden\[1\]: expected an integer from 1 to 24, got 25"),
    ("network", {"hidden": [8] * 6}, "hidden: expected a list of at most 5 widths"),
    ("network", {"activation": None}, "activation: expected one of elu, .* got None"),
    ("network", {"lr": 0}, "lr: expected a number from 1e-06 to 10, got 0"),
    ("network", {"l2": -1}, "l2: expected a number from 0 to 10, got -1"),
    ("network", {"batch_size": 1.5}, "batch_size: expected an integer from 1 to 2000, got 1.5"),
    ("network", {"hidden": [4], "lr": "x"}, "lr: expected a number"),
    ("network", {"depth": 3}, "depth: unknown field, expected some of hidden"),
    ("run", {}, "action: expected one of start, pause, step, reset, got nothing"),
    ("run", {"action": "stop"}, "action: expected one of start, pause, step, reset, got 'stop'"),
    ("run", {"action": "start", "speed": 0}, "speed: expected a number from 0.1 to 1e\\+06, got 0"),
]


@pytest.mark.parametrize(("name", "body", "message"), WRONG)
def test_bad_input_is_named_and_changes_nothing(session: Session, name: str, body: Any, message: str) -> None:
    before = session.state()
    with pytest.raises(fg.ConfigError, match=message):
        getattr(session, name)(body)
    assert session.state() is before
    assert session.run({"action": "pause"}) | {"version": 0, "message": ""} == before | {
        "version": 0,
        "message": "",
    }


# Tables


def test_a_table_is_scaled_for_the_network_and_shown_as_it_is(session: Session) -> None:
    rows = "".join(
        f"{1000 + 10 * x},{y / 1e3},{'b' if x > 5 else 'a'}\n" for x in range(10) for y in range(4)
    )
    state = session.data({"csv": "width, height, kind\n" + rows})
    assert state["data"]["set"] == "csv"
    assert state["data"]["names"] == ["a", "b"]
    assert state["data"]["points"][0] == [1000.0, 0.0, 0]
    assert state["data"]["view"][1] > 1090
    session.run({"action": "start", "speed": None})
    wait_until(lambda: session.state()["accuracy"] == 1.0)


def test_classes_that_are_numbers_are_in_their_order() -> None:
    points = parse_csv("1,2,10\n3,4,9\n\n5,6,10\n")
    assert points.names == ("9", "10")
    assert points.classes.tolist() == [1, 0, 1]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "expected rows of at least 2 classes, got no row"),
        ("x,y,kind\n", "got no row"),
        ("1,2,a\n3,4,a\n", "got only 'a'"),
        ("x,y,kind\n1,2,a\n3,b\n", "line 3: expected 3 cells .* got 2"),
        ("1,2,a\n3,,b\n", "line 2: cell 2: expected a number within 1e6 of 0, got ''"),
        ("1,2,a\ninf,4,b\n", "line 2: cell 1: expected a number within 1e6 of 0, got 'inf'"),
        ("2e6,3e6,a\n1,2,b\n", "line 1: cell 1: expected a number within 1e6 of 0, got '2e6'"),
        ("1,2,a\n3,4, \n", "line 2: cell 3: expected a class, got an empty cell"),
        ('1,2,a\n3,4,"b\n', "line 2: "),
        ("".join(f"1,2,{n}\n" for n in range(9)), "line 9: expected at most 8 classes"),
        ("1,2,a\n" * (MOST_POINTS + 1), f"line {MOST_POINTS + 1}: expected at most {MOST_POINTS} points"),
    ],
)
def test_a_bad_table_is_refused_by_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(fg.ConfigError, match=message):
        parse_csv(text)
    path = tmp_path / "table.csv"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match=message) as caught:
        read_csv(path)
    assert str(path) in str(caught.value)


# The server


def test_the_page_comes_whole_with_a_strict_policy(server: Server) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=30)
    connection.request("GET", "/")
    response = connection.getresponse()
    page = response.read().decode()
    policy = response.headers["Content-Security-Policy"]
    connection.close()
    assert response.status == 200
    assert page.rstrip().endswith("</html>")
    assert "http://" not in page
    assert "https://" not in page
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert response.headers["X-Content-Type-Options"] == "nosniff"


def test_requests_change_the_session_and_answer_with_it(server: Server, session: Session) -> None:
    assert ask(server, "POST", "/api/data", {"set": "moons", "n_samples": 12})[1]["data"]["n_samples"] == 12
    assert ask(server, "POST", "/api/network", {"hidden": [3]})[1]["network"]["hidden"] == [3]
    status, state = ask(server, "POST", "/api/run", {"action": "step"})
    assert (status, state["epoch"]) == (200, 1)
    assert ask(server, "GET", "/api/state") == (200, session.state())
    version = state["version"]
    assert ask(server, "GET", f"/api/state?since={version}") == (200, {"version": version})
    assert ask(server, "GET", f"/api/state?since={version - 1}") == (200, session.state())


def test_a_connection_serves_request_after_request(server: Server) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=30)
    epochs = []
    for _ in range(3):
        connection.request("POST", "/api/run", b'{"action": "step"}', {"Content-Type": "application/json"})
        epochs.append(json.loads(connection.getresponse().read())["epoch"])
    connection.close()
    assert epochs == [1, 2, 3]


REFUSED: list[tuple[int, str, dict[str, Any]]] = [
    (400, "lr: expected a number", {"path": "/api/network", "body": {"lr": "fast"}}),
    (400, "body: expected JSON in UTF-8", {"path": "/api/run", "raw": b"{"}),
    (400, "NaN is no JSON", {"path": "/api/network", "raw": b'{"lr": NaN}'}),
    (400, "body: expected JSON in UTF-8", {"path": "/api/run", "raw": b"\xff\xfe"}),
    (400, "body: expected JSON in UTF-8", {"path": "/api/run", "raw": b"[" * 200_000}),
    (400, "body: expected JSON in UTF-8", {"path": "/api/network", "raw": b'{"lr": ' + b"1" * 5000 + b"}"}),
    (400, "body: expected a JSON object, got [1]", {"path": "/api/run", "body": [1]}),
    (400, "since: expected a version, got 'x'", {"method": "GET", "path": "/api/state?since=x"}),
    (403, "Host: expected 127.0.0.1", {"path": "/api/run", "body": {"action": "step"}, "Host": "evil.test"}),
    (403, "Host: expected 127.0.0.1", {"method": "GET", "path": "/", "Host": "127.0.0.1"}),
    (403, "Origin: expected http", {"path": "/api/run", "body": {"action": "step"}, "Origin": "null"}),
    (403, "got 'http://evil.test'", {"path": "/api/run", "body": {}, "Origin": "http://evil.test"}),
    (404, "path: expected one of /,", {"method": "GET", "path": "/etc/passwd"}),
    (404, "path: expected one of /,", {"method": "GET", "path": "/../page.html"}),
    (404, "path: expected one of /,", {"path": "/api/nothing", "body": {}}),
    (405, "method: expected POST for /api/run, got GET", {"method": "GET", "path": "/api/run"}),
    (405, "method: expected GET for /, got POST", {"path": "/", "body": {}}),
    (405, "method: expected GET for /api/state, got DELETE", {"method": "DELETE", "path": "/api/state"}),
    (413, f"expected at most {MOST_BYTES} bytes", {"path": "/api/data", "raw": b" " * (MOST_BYTES + 1)}),
    (415, "got 'text/plain'", {"path": "/api/run", "body": {"action": "step"}, "Content_Type": "text/plain"}),
    (501, "Unsupported method ('BREW')", {"method": "BREW", "path": "/"}),
]


@pytest.mark.parametrize(("status", "message", "request_"), REFUSED)
def test_what_is_refused_is_told_and_changes_nothing(
    server: Server, session: Session, status: int, message: str, request_: dict[str, Any]
) -> None:
    before = session.state()
    found, answer = ask(server, **({"method": "POST"} | request_))
    assert found == status
    assert message in answer["error"]
    assert "Traceback" not in answer["error"]
    assert session.state() is before


RAW: list[tuple[bytes, bytes]] = [
    (b"POST /api/run HTTP/1.1\r\nHost: H\r\nContent-Type: application/json\r\n\r\n", b" 411 "),
    (b"POST /api/run HTTP/1.1\r\nHost: H\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", b" 411 "),
    (b"POST /api/run HTTP/1.1\r\nHost: H\r\nContent-Length: -5\r\n\r\n", b" 400 "),
    (b"POST /api/run HTTP/1.1\r\nHost: H\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}", b" 400 "),
    (b"POST /api/run HTTP/1.1\r\nHost: H\r\nContent-Length: 9\r\n\r\n{}", b" 400 "),
    (b"GET / HTTP/1.1\r\n\r\n", b" 403 "),
    (b"GET / HTTP/1.1\r\nHost: H\r\nHost: H\r\n\r\n", b" 403 "),
    (b"GET /" + b"a" * 70_000 + b" HTTP/1.1\r\nHost: H\r\n\r\n", b" 414 "),
    (b"GET / HTTP/1.1\r\nHost: H\r\n" + b"X: y\r\n" * 200 + b"\r\n", b" 431 "),
    (b"GET / HTTP/9.9\r\nHost: H\r\n\r\n", b" 505 "),
    (b"GET\r\n\r\n", b" 400 "),
    (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 hello\r\n\r\n", b" 400 "),
]


@pytest.mark.parametrize(("sent", "status"), RAW)
def test_raw_requests_get_one_json_error(server: Server, sent: bytes, status: bytes) -> None:
    port = server.server_port
    (answer,) = talk(port, sent.replace(b"Host: H", f"Host: localhost:{port}".encode()))
    first, _, rest = answer.partition(b"\r\n")
    assert first.startswith(b"HTTP/1.1")
    assert status in first
    assert list(json.loads(rest.partition(b"\r\n\r\n")[2])) == ["error"]


def test_a_defect_of_ours_is_no_traceback_for_the_client(
    server: Server, session: Session, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(session, "run", lambda body: body.no_such_thing)
    assert ask(server, "POST", "/api/run", {}) == (500, {"error": "internal error; the terminal says more"})
    assert "AttributeError" in capsys.readouterr().err


def test_slow_clients_are_cut_off_and_hinder_nobody(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ferrograd.playground.server.PATIENCE_SECONDS", 0.5)
    monkeypatch.setattr("ferrograd.playground.server.MOST_CONNECTIONS", 21)
    with serving(session) as server:
        clients = [socket.create_connection(("127.0.0.1", server.server_port)) for _ in range(20)]
        for client in clients:
            client.sendall(b"GET / HTTP/1.1\r\nX-Slow: ")
        start = time.monotonic()
        while time.monotonic() - start < 1.0:
            for client in clients:
                try:
                    client.sendall(b"a")
                except OSError:
                    continue
            assert ask(server, "GET", "/api/state?since=0")[0] == 200
            time.sleep(0.05)
        wait_until(lambda: not server.since)
        assert ask(server, "GET", "/api/state")[0] == 200
        for client in clients:
            client.close()


# The process


@contextmanager
def process(*options: str) -> Iterator[tuple["subprocess.Popen[str]", int]]:
    """Run the command, and yield it with the port that it says."""
    command = [sys.executable, "-u", "-m", "ferrograd", "playground", "--no-browser", *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as program:
        assert program.stdout is not None
        try:
            line = program.stdout.readline()
            yield program, int(line.split("127.0.0.1:")[1].split("/")[0])
        finally:
            program.kill()


def malformed(count: int, port: int) -> Iterator[bytes]:
    """Yield requests that are wrong in one of many ways, the same each time."""
    draw = random.Random(0)
    host = f"Host: 127.0.0.1:{port}\r\n".encode()
    body = b'{"action": "step"}'
    for _ in range(count):
        kind = draw.randrange(8)
        junk = draw.randbytes(draw.randrange(1, 60))
        if kind == 0:
            yield junk + b"\r\n\r\n"
        elif kind == 1:
            yield b"GET /" + junk.hex().encode() + b" HTTP/1.1\r\n" + host + b"\r\n"
        elif kind == 2:
            yield b"POST /api/run HTTP/1.1\r\n" + host + b"Content-Length: " + junk + b"\r\n\r\n"
        elif kind == 3:
            length = str(len(junk)).encode()
            yield b"POST /api/data HTTP/1.1\r\n" + host + b"Content-Length: " + length + b"\r\n\r\n" + junk
        elif kind == 4:
            yield b"POST /api/run HTTP/1.1\r\nHost: evil.test\r\nContent-Length: 18\r\n\r\n" + body
        elif kind == 5:
            yield b"POST /api/run HTTP/1.1\r\n" + host + b"Content-Length: 99\r\n\r\n" + body
        elif kind == 6:
            yield b"GET / HTTP/1.1\r\n" + junk + b"\r\n\r\n"
        else:
            yield (b"POST /api/run HTTP/1.1\r\n" + host + body)[: draw.randrange(1, 60)]


def test_ten_thousand_malformed_requests_leave_it_running() -> None:
    with process("--port", "0") as (program, port):
        requests = list(malformed(10_000, port))
        for first in range(0, len(requests), 40):
            for answer in talk(port, *requests[first : first + 40]):
                assert b" 200 " not in answer.partition(b"\r\n")[0]
                assert b"Traceback" not in answer
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        connection.request("POST", "/api/run", b'{"action": "step"}', {"Content-Type": "application/json"})
        state = json.loads(connection.getresponse().read())
        connection.close()
        assert (state["epoch"], state["accuracy"] > 0.4) == (1, True)
        assert program.poll() is None
        program.send_signal(signal.SIGINT)
        assert program.communicate(timeout=10)[1] == ""


def test_ctrl_c_stops_it_at_once_while_it_trains_and_a_client_hangs() -> None:
    with process("--port", "0") as (program, port):
        with socket.create_connection(("127.0.0.1", port)) as hanging:
            hanging.sendall(b"POST /api/run HTTP/1.1\r\n")
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
            body = json.dumps({"action": "start", "speed": None}).encode()
            connection.request("POST", "/api/run", body, {"Content-Type": "application/json"})
            assert connection.getresponse().status == 200
            start = time.monotonic()
            program.send_signal(signal.SIGINT)
            out, err = program.communicate(timeout=30)
            took = time.monotonic() - start
            connection.close()
        assert (program.returncode, out, err) == (0, "ferrograd playground: stopped\n", "")
        assert took < 3


def test_it_opens_the_browser_at_its_address(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    opened: list[str] = []

    def open_and_interrupt(url: str) -> None:
        opened.append(url)
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr("webbrowser.open", open_and_interrupt)
    assert main(["playground", "--port", "0"]) == 0
    out = capsys.readouterr().out
    assert opened[0] in out.splitlines()[0]
    assert out.endswith("stopped\n")


def test_a_taken_port_is_told_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert main(["playground", "--no-browser", "--port", str(port)]) == 2
    err = capsys.readouterr().err
    assert err.startswith(f"ferrograd: error: --port: {port} on the loopback address cannot be used: ")
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--port", "65536"], "expected an integer from 0 to 65535, got '65536'"),
        (["--port", "http"], "expected an integer from 0 to 65535, got 'http'"),
        (["--data", "no-such.csv"], "no-such.csv: cannot be read: "),
    ],
)
def test_bad_options_are_told_in_one_line(
    capsys: pytest.CaptureFixture[str], options: list[str], message: str
) -> None:
    assert main(["playground", "--no-browser", *options]) == 2
    err = capsys.readouterr().err
    assert err.startswith("ferrograd: error: ")
    assert message in err
    assert err.count("\n") == 1


def test_a_table_of_the_users_is_what_it_begins_with(tmp_path: Path) -> None:
    path = tmp_path / "mine.csv"
    path.write_text("a,b,kind\n1,2,rose\n3,4,tulip\n", encoding="utf-8")
    with process("--port", "0", "--data", str(path)) as (_, port):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        connection.request("GET", "/api/state")
        data = json.loads(connection.getresponse().read())["data"]
        connection.close()
    assert (data["set"], data["names"], len(data["points"])) == ("csv", ["rose", "tulip"], 2)


def test_it_listens_on_the_loopback_address_only(server: Server) -> None:
    assert server.socket.getsockname()[0] == "127.0.0.1"


def test_the_command_line_does_not_load_what_serves() -> None:
    code = (
        "import sys, ferrograd.cli\n"
        "print([n for n in sys.modules if n == 'http.server' or n.startswith('ferrograd.playground.') "
        "and n != 'ferrograd.playground.command'])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
