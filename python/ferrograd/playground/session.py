"""What the playground holds: points, a network, and a thread that trains it and publishes pictures."""

import base64
import threading
import time
import warnings
from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

import ferrograd as fg
from ferrograd._core import ConfigError, FerrogradError
from ferrograd._typing import Array
from ferrograd.playground.points import (
    MOST_CLASSES,
    MOST_POINTS,
    SETS,
    Points,
    checked,
    choice,
    coordinates,
    integer,
    make,
    number,
    parse_csv,
    shown,
)

__all__ = ["Session"]

ACTIVATIONS: dict[str, type[fg.nn.Module]] = {
    "elu": fg.nn.ELU,
    "gelu": fg.nn.GELU,
    "leaky_relu": fg.nn.LeakyReLU,
    "relu": fg.nn.ReLU,
    "sigmoid": fg.nn.Sigmoid,
    "softplus": fg.nn.Softplus,
    "tanh": fg.nn.Tanh,
}
LOSSES: dict[str, type[fg.nn.Module]] = {
    "cross_entropy": fg.nn.CrossEntropyLoss,
    "hinge": fg.nn.MulticlassHingeLoss,
    "mse": fg.nn.MSELoss,
}
OPTIMIZERS: dict[str, Callable[..., fg.optim.Optimizer]] = {
    "adagrad": fg.optim.Adagrad,
    "adam": fg.optim.Adam,
    "adamw": fg.optim.AdamW,
    "rmsprop": fg.optim.RMSprop,
    "sgd": fg.optim.SGD,
}
# A page can show as many neurons.
MOST_LAYERS, MOST_UNITS = 5, 24
# Places of the lattice along an axis; a neuron's picture has every second.
LATTICE = 65
# Lines of the plane, each way, that show how a layer bends it, and places on each.
LINES, ON_LINE = 13, 97
# The trainer runs this long at a time: pictures come often enough to move, and calls cost little beside it.
_PIECE_SECONDS = 0.04
# Epochs per second that are shown are those of about so long; the first ones are told sooner.
_RATE_SECONDS, _FIRST_RATE_SECONDS = 1.0, 0.2
_MOST_CURVE_POINTS = 400

_DATA = {
    "set": choice(tuple(SETS)),
    "n_samples": integer(2, MOST_POINTS),
    "noise": number(0.0, 2.0),
    "seed": integer(0, 2**32 - 1),
    "n_classes": integer(2, MOST_CLASSES),
}


def _hidden(name: str, value: Any) -> list[int]:
    if not isinstance(value, list) or len(value) > MOST_LAYERS:
        raise ConfigError(f"{name}: expected a list of at most {MOST_LAYERS} widths, got {shown(value)}")
    width = integer(1, MOST_UNITS)
    return [width(f"{name}[{place}]", units) for place, units in enumerate(value)]


_NETWORK = {
    "hidden": _hidden,
    "activation": choice(tuple(ACTIVATIONS)),
    "seed": integer(0, 2**32 - 1),
    "loss": choice(tuple(LOSSES)),
    "optimizer": choice(tuple(OPTIMIZERS)),
    "lr": number(1e-6, 10.0),
    "l2": number(0.0, 10.0),
    "batch_size": integer(1, MOST_POINTS),
}


class Session:
    """Points, a network and its training, changed by checked requests and seen as a state.

    One lock guards what is changed; a state is made whole and then published, so that looking never waits for
    training.

    Parameters
    ----------
    points : Points, optional
        What to begin with; 200 points of XOR by default.

    Examples
    --------
    >>> from ferrograd.playground.session import Session
    >>> session = Session()
    >>> state = session.run({"action": "step"})
    >>> state["epoch"], state["running"]
    (1, False)
    >>> session.close()
    """

    def __init__(self, points: Points | None = None) -> None:
        self._lock = threading.Condition()
        self._is_closed = False
        self._is_running = False
        self._speed: float | None = 60.0
        self._message = "ready"
        self._data: dict[str, Any] = {"set": "xor", "n_samples": 200, "noise": 0.0, "seed": 0, "n_classes": 2}
        self._network: dict[str, Any] = {
            "hidden": [8, 8],
            "activation": "tanh",
            "seed": 0,
            "loss": "cross_entropy",
            "optimizer": "adam",
            "lr": 0.01,
            "l2": 0.0,
            "batch_size": 16,
        }
        if points is None:
            points = make(self._data["set"], **{k: v for k, v in self._data.items() if k != "set"})
        else:
            self._data["set"] = "csv"
        self._points = points
        self._version = 0
        self._state: dict[str, Any] = {}
        self._restart()
        self._publish()
        self._thread = threading.Thread(target=self._train, name="ferrograd-playground", daemon=True)
        self._thread.start()

    def state(self) -> dict[str, Any]:
        """Return what is to be seen, as JSON can hold it; never changed after it was returned."""
        return self._state

    def close(self) -> None:
        """End the thread, after the piece that it trains."""
        with self._lock:
            self._is_closed = True
            self._lock.notify_all()
        self._thread.join(timeout=5.0)

    # Requests

    def data(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """Change the points: see the package's ``POST /api/data``.

        Raises
        ------
        ConfigError
            If a field is unknown or out of range; nothing was changed then.
        """
        ways = {"set": self._make, "add": self._add, "remove": self._remove, "clear": self._clear}
        ways["csv"] = self._csv
        asked = [way for way in ways if way in body]
        if len(asked) != 1:
            got = " and ".join(asked) or "none"
            raise ConfigError(f"expected one of the fields {', '.join(ways)}, got {got}")
        if asked != ["set"] and len(body) > 1:
            other = next(name for name in body if name != asked[0])
            raise ConfigError(f"{other[:40]}: unknown field beside {asked[0]}")
        with self._lock:
            ways[asked[0]](body)
            if self._is_running and not self._can_train():
                self._is_running = False
                self._message = "paused: no points"
            return self._publish()

    def network(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """Change the network or how it trains: see the package's ``POST /api/network``.

        Raises
        ------
        ConfigError
            If a field is unknown or out of range; nothing was changed then.
        """
        asked = checked(body, _NETWORK)
        with self._lock:
            changed = {name for name, value in asked.items() if value != self._network[name]}
            self._network = self._network | asked
            if changed & {"hidden", "activation", "seed"}:
                self._restart()
                self._message = "new weights"
            elif changed & {"loss", "optimizer", "l2"}:
                self._new_trainer()
            elif "lr" in changed:
                for group in self._trainer.optimizer.param_groups:
                    group["lr"] = self._network["lr"]
            return self._publish()

    def run(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """Start, pause, make one epoch or begin anew: see the package's ``POST /api/run``.

        Raises
        ------
        ConfigError
            If a field is unknown or out of range, or there is no point to train on; nothing was changed then.
        """
        rate = number(0.1, 1e6)
        asked = checked(
            body,
            {
                "action": choice(("start", "pause", "step", "reset")),
                "speed": lambda name, value: None if value is None else rate(name, value),
            },
        )
        if "action" not in asked:
            raise ConfigError("action: expected one of start, pause, step, reset, got nothing")
        action = asked["action"]
        with self._lock:
            if action in ("start", "step") and not self._can_train():
                raise ConfigError(f"action: {action} needs points, there are none")
            self._speed = asked.get("speed", self._speed)
            self._is_running = action == "start"
            if action == "reset":
                self._restart()
                self._message = "new weights"
            elif action == "step":
                self._message = "one epoch"
                self._fit(1)
            else:
                self._message = "training" if self._is_running else "paused"
            self._lock.notify_all()
            return self._publish()

    def _make(self, body: Mapping[str, Any]) -> None:
        asked = checked(body, _DATA)
        other = {"noise": SETS[asked["set"]]} if asked["set"] != self._data["set"] else {}
        data = self._data | other | asked
        self._points = make(data["set"], data["n_samples"], data["noise"], data["seed"], data["n_classes"])
        self._data = data
        self._message = f"{len(self._points.xy)} points of {data['set']}"
        self._restart()

    def _csv(self, body: Mapping[str, Any]) -> None:
        text = body["csv"]
        if not isinstance(text, str):
            raise ConfigError(f"csv: expected text, got {shown(text)}")
        self._points = parse_csv(text)
        self._data = self._data | {"set": "csv"}
        self._message = f"{len(self._points.xy)} points of the table"
        self._restart()

    def _add(self, body: Mapping[str, Any]) -> None:
        x, y, found = coordinates("add", body["add"], 3)
        found = integer(0, MOST_CLASSES - 1)("add: class", found)
        if len(self._points.xy) >= MOST_POINTS:
            raise ConfigError(f"add: expected at most {MOST_POINTS} points, there are as many")
        outputs = self._n_outputs()
        self._points = self._points.with_point(x, y, found)
        self._message = f"added class {self._points.names[found]} at {x:.3g}, {y:.3g}"
        if self._n_outputs() != outputs:
            self._restart()
            self._message += "; new weights for one more class"

    def _remove(self, body: Mapping[str, Any]) -> None:
        x, y = coordinates("remove", body["remove"])
        if not len(self._points.xy):
            raise ConfigError("remove: expected a point to remove, there is none")
        near = self._points.nearest(x, y)
        (x, y), found = self._points.xy[near], self._points.classes[near]
        self._points = self._points.only(np.arange(len(self._points.xy)) != near)
        self._message = f"removed class {self._points.names[found]} at {x:.3g}, {y:.3g}"

    def _clear(self, body: Mapping[str, Any]) -> None:
        if body["clear"] is not True:
            raise ConfigError(f"clear: expected true, got {shown(body['clear'])}")
        self._points = self._points.only(np.zeros(len(self._points.xy), dtype=np.bool_))
        self._message = "no points: add some"

    # Training; all of it under the lock

    def _can_train(self) -> bool:
        return len(self._points.xy) > 0

    def _n_outputs(self) -> int:
        return max(2, len(self._points.names))

    def _restart(self) -> None:
        network = self._network
        fg.manual_seed(network["seed"])
        model = fg.nn.Sequential()
        for inputs, outputs in pairwise([2, *network["hidden"], self._n_outputs()]):
            if len(model):
                model.append(ACTIVATIONS[network["activation"]]())
            model.append(fg.nn.Linear(inputs, outputs))
        self._model = model
        self._epoch = 0
        self._loss: float | None = None
        self._piece, self._rate = 1, 0.0
        self._curves: list[tuple[int, float, float]] = []
        self._every = 1
        self._new_trainer()

    def _new_trainer(self) -> None:
        network = self._network
        optimizer = OPTIMIZERS[network["optimizer"]](self._model.parameters(), lr=network["lr"])
        self._trainer = fg.Trainer(self._model, LOSSES[network["loss"]](), optimizer, l2=network["l2"])

    def _fit(self, epochs: int) -> bool:
        """Train for so many epochs and note how it went; False if that has come to an end."""
        classes = self._points.classes
        target: Array = classes
        if self._network["loss"] == "mse":
            target = np.eye(self._n_outputs(), dtype=np.float32)[classes]
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", fg.ConvergenceWarning)
            history = self._trainer.fit(
                self._points.scaled(self._points.xy),
                target,
                epochs=epochs,
                batch_size=self._network["batch_size"],
                seed=self._network["seed"] + self._epoch,
                progress=False,
            )
        losses = history.history.get("loss", [])
        self._epoch += len(losses)
        if losses:
            self._loss = float(losses[-1])
        if len(losses) == epochs:
            return True
        self._message = str(caught[0].message) if caught else "training stopped"
        return False

    def _train(self) -> None:
        """Train while it is wanted: the body of the thread."""
        since, before = time.perf_counter(), 0
        with self._lock:
            while not self._is_closed:
                if not self._is_running:
                    self._lock.wait()
                    since, before = time.perf_counter(), self._epoch
                    self._rate = 0.0
                    continue
                start = time.perf_counter()
                speed = self._speed
                epochs = self._piece
                if speed is not None:
                    epochs = max(1, min(epochs, round(speed * _PIECE_SECONDS)))
                try:
                    self._is_running = self._fit(epochs)
                    if self._epoch < before:
                        since, before = start, 0
                    now = time.perf_counter()
                    took = now - start
                    if took < _PIECE_SECONDS / 2:
                        self._piece = min(2 * epochs, 1000)
                    elif took > 2 * _PIECE_SECONDS:
                        self._piece = max(1, epochs // 2)
                    if now - since > (_RATE_SECONDS if self._rate else _FIRST_RATE_SECONDS):
                        self._rate = (self._epoch - before) / (now - since)
                        since, before = now, self._epoch
                    self._publish()
                except Exception as error:  # The thread must live on: what happened is shown instead.
                    self._is_running = False
                    kind = "" if isinstance(error, FerrogradError) else f"{type(error).__name__}: "
                    self._message = f"training stopped: {kind}{error}"
                    self._state = self._state | {"running": False, "message": self._message}
                    continue
                # Even at full speed, for a moment: requests wait for the lock.
                rest = 0.002 if speed is None else max(0.002, epochs / speed - (time.perf_counter() - start))
                self._lock.wait(timeout=rest)

    # What is seen

    def _publish(self) -> dict[str, Any]:
        points, network = self._points, self._network
        left, right, bottom, top = points.view
        across, down = np.linspace(left, right, LATTICE), np.linspace(top, bottom, LATTICE)
        lattice = np.stack(np.meshgrid(across, down), axis=-1)
        seen = self._outputs(points.scaled(lattice.reshape(-1, 2)))
        of_points = self._outputs(points.scaled(points.xy))
        small = [layer.reshape(LATTICE, LATTICE, -1)[::2, ::2] for layer in seen]
        accuracy = float((of_points[-1].argmax(axis=1) == points.classes).mean()) if len(points.xy) else None
        self._note(accuracy)
        hidden = None
        if network["hidden"]:
            lines = self._outputs(points.scaled(_grid(points.view)))[-2]
            largest = max(_largest(lines), _largest(of_points[-2]))
            hidden = {
                "units": network["hidden"][-1],
                "largest": largest,
                "on_line": ON_LINE,
                "grid": _signed(lines, largest, np.int16, 32767),
                "points": _signed(of_points[-2], largest, np.int16, 32767),
            }
        names = [f"{network['activation']} {place + 1}" for place in range(len(network["hidden"]))]
        self._version += 1
        self._state = {
            "version": self._version,
            "running": self._is_running,
            "speed": self._speed,
            "message": self._message,
            "epoch": self._epoch,
            "epochs_per_second": round(self._rate, 1),
            "loss": self._loss,
            "accuracy": accuracy,
            "data": self._data
            | {
                "names": list(points.names),
                "view": list(points.view),
                "points": [
                    [round(x, 6), round(y, 6), found]
                    for (x, y), found in zip(points.xy.tolist(), points.classes.tolist(), strict=True)
                ],
            },
            "network": network,
            "choices": {
                "set": list(SETS),
                "activation": list(ACTIVATIONS),
                "loss": list(LOSSES),
                "optimizer": list(OPTIMIZERS),
            },
            "curves": {
                name: [place[column] for place in self._curves]
                for column, name in enumerate(("epoch", "loss", "accuracy"))
            },
            "boundary": {"size": LATTICE} | _regions(seen[-1]),
            "layers": [
                {
                    "name": name,
                    "pictures": [
                        _signed(layer[..., unit], _largest(layer[..., unit]), np.uint8, 127)
                        for unit in range(layer.shape[-1])
                    ],
                }
                for name, layer in zip([*names, "scores"], [*small[1:-1:2], small[-1]], strict=True)
            ],
            "hidden": hidden,
        }
        return self._state

    def _outputs(self, rows: npt.NDArray[np.float32]) -> list[Array]:
        """Return what each layer makes of the rows."""
        results: list[Array] = []
        with fg.no_grad():
            value: Any = fg.tensor(rows)
            for layer in self._model.children():
                value = layer(value)
                results.append(value.numpy())
        return results

    def _note(self, accuracy: float | None) -> None:
        """Add to the curves; where they grow long, keep every second place."""
        if self._loss is None or accuracy is None:
            return
        if self._curves and self._epoch < self._curves[-1][0] + self._every:
            return
        self._curves.append((self._epoch, self._loss, accuracy))
        if len(self._curves) > _MOST_CURVE_POINTS:
            self._curves = self._curves[::2]
            # As far apart as those that are kept.
            self._every = max(1, 2 * self._curves[-1][0] // _MOST_CURVE_POINTS)


def _grid(view: tuple[float, float, float, float]) -> Array:
    """Return the places (2 * LINES * ON_LINE, 2) of upright and of level lines of a plane."""
    left, right, bottom, top = view
    x, y = np.linspace(left, right, ON_LINE), np.linspace(bottom, top, ON_LINE)
    every = (ON_LINE - 1) // (LINES - 1)
    level = np.stack(np.meshgrid(x, y[::every]), axis=-1)
    upright = np.stack(np.meshgrid(y, x[::every])[::-1], axis=-1)
    return np.concatenate([upright, level]).reshape(-1, 2)


def _regions(scores: Array) -> dict[str, str]:
    """Return the class of each place and by how much its probability leads, from 0 to 255."""
    scores = np.nan_to_num(scores.astype(np.float64), nan=0.0, posinf=1e30, neginf=-1e30)
    shares = np.exp(scores - scores.max(axis=1, keepdims=True))
    shares /= shares.sum(axis=1, keepdims=True)
    guess = 1.0 / scores.shape[1]
    lead = np.clip((shares.max(axis=1) - guess) / (1.0 - guess), 0.0, 1.0)
    return {
        "classes": _encoded(shares.argmax(axis=1).astype(np.uint8)),
        "strength": _encoded(np.rint(255 * lead).astype(np.uint8)),
    }


def _largest(values: Array) -> float:
    """Return the largest finite magnitude, 1 where there is none."""
    finite = np.abs(values[np.isfinite(values)])
    return float(finite.max()) if finite.size and finite.max() > 0 else 1.0


def _signed(values: Array, largest: float, dtype: Any, levels: int) -> str:
    """Return values as integers: `largest` is `levels`, zero is 0, or 128 where the integers have no sign."""
    scaled = np.clip(np.nan_to_num(values / largest), -1.0, 1.0)
    zero = 128 if dtype is np.uint8 else 0
    return _encoded(np.rint(zero + levels * scaled).astype(np.dtype(dtype).newbyteorder("<")))


def _encoded(values: Array) -> str:
    return base64.b64encode(np.ascontiguousarray(values).tobytes()).decode("ascii")
