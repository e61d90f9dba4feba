"""Files of estimators: safetensors with parameters as JSON; nothing in them is run."""

import json
import math
from dataclasses import asdict
from typing import Any, Self

import numpy as np
from sklearn.preprocessing import LabelBinarizer

from ferrograd import _core
from ferrograd._core import ConfigError, CorruptFileError, Tensor
from ferrograd._typing import PathLike
from ferrograd.sklearn.activations import OUT_NAMES, out_activation
from ferrograd.sklearn.conversion import STATE, kind_of
from ferrograd.sklearn.network import parameters_of
from ferrograd.sklearn.solvers import Adam, Sgd

__all__ = ["StorageMixin"]

# Where the file's metadata holds what is not a tensor.
_KEY = "ferrograd.sklearn"
_SAVED = {*STATE, "validation_loss_curve_"}
_OPTIMIZERS: dict[str, type[Any]] = {"sgd": Sgd, "adam": Adam}
_Tensors = dict[str, Tensor]


def _encode(value: Any, name: str, tensors: _Tensors) -> Any:
    """Return what JSON can hold of a value; its floating-point arrays go to `tensors`."""
    if isinstance(value, np.generic) and value.dtype.kind in "biufU":
        value = value.item()
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else {"float": repr(value)}
    if isinstance(value, list | tuple):
        parts = [_encode(part, f"{name}.{number}", tensors) for number, part in enumerate(value)]
        return parts if isinstance(value, list) else {"tuple": parts}
    if isinstance(value, dict):
        items = [
            [_encode(part, f"{name}.{number}", tensors) for part in item]
            for number, item in enumerate(value.items())
        ]
        return {"dict": items}
    if isinstance(value, np.ndarray) and value.dtype in (np.float32, np.float64):
        tensors[name] = _core.tensor(np.ascontiguousarray(value))
        return {"tensor": name}
    if isinstance(value, np.ndarray) and value.dtype.kind in "biufUO":
        kind = "O" if value.dtype.kind == "O" else value.dtype.str
        return {"array": _encode(value.tolist(), name, tensors), "dtype": kind}
    if isinstance(value, type) and value in (np.float32, np.float64):
        return {"type": value.__name__}
    if isinstance(value, np.random.RandomState):
        state: Any = value.get_state(legacy=False)
        if state["bit_generator"] == "MT19937":
            words = state["state"]["key"].tolist(), state["state"]["pos"]
            return {"RandomState": [*words, state["has_gauss"], state["gauss"]]}
    expected = "numbers, strings, arrays of them or a RandomState on MT19937"
    raise ConfigError(f"save: {name}: expected {expected}, got {value!r}")


def _decode(coded: Any, tensors: _Tensors) -> Any:
    """Return the value of what `_encode` gave."""
    if isinstance(coded, list):
        return [_decode(part, tensors) for part in coded]
    if not isinstance(coded, dict):
        return coded
    [kind, *_] = coded
    content = coded[kind]
    if kind == "float":
        return float(content)
    if kind == "tuple":
        return tuple(_decode(part, tensors) for part in content)
    if kind == "dict":
        return {_decode(key, tensors): _decode(value, tensors) for key, value in content}
    if kind == "tensor":
        return tensors[content].numpy().copy()
    if kind == "array":
        return np.array(_decode(content, tensors), dtype=coded["dtype"])
    if kind == "type":
        return {"float32": np.float32, "float64": np.float64}[content]
    if kind == "RandomState":
        words, *rest = content
        found = np.random.RandomState(0)
        found.set_state(("MT19937", np.array(words, np.uint32), *rest))
        return found
    raise ValueError(f"{kind!r} is no kind of value")


def _check(estimator: Any) -> None:
    """Refuse fitted attributes that contradict each other."""
    weights, biases = estimator.coefs_, estimator.intercepts_
    pieces = [kind.pieces for kind in estimator._layers().activations]
    # Columns of the weights, and units, of which a maxout has fewer.
    columns = [bias.shape[0] for bias in biases]
    widths = [weights[0].shape[0], *(size // n for size, n in zip(columns, [*pieces, 1], strict=True))]
    ends = estimator.n_features_in_, estimator.n_outputs_
    norms = [array for norm in vars(estimator).get("normalizations_", []) for array in norm.values()]
    owners = [width for width in widths[1:-1] for _ in range(len(norms) // max(len(pieces), 1))]
    scaling = [vars(estimator)[name] for name in ("mean_", "scale_") if name in vars(estimator)]
    if (
        [weight.shape for weight in weights] != list(zip(widths, columns, strict=False))
        or [n * width for n, width in zip([*pieces, 1], widths[1:], strict=True)] != columns
        or any(bias.ndim != 1 for bias in biases)
        or (widths[0], widths[-1]) != ends
        or estimator.n_layers_ != len(widths)
        or [array.shape for array in norms] != [(width,) for width in owners]
        or [array.shape for array in scaling] != [(widths[0],)] * (2 if scaling else 0)
    ):
        raise ValueError(f"widths {widths} do not go with {ends} inputs and outputs")
    out_activation("estimator", estimator.out_activation_, ("softmax", *OUT_NAMES))
    if kind_of(type(estimator)) == "MLPClassifier":
        known = estimator._label_binarizer.classes_
        if not isinstance(estimator.classes_, np.ndarray) or estimator.classes_.tolist() != known.tolist():
            raise ValueError("the labels are damaged")
    if "_optimizer" in vars(estimator):
        shapes = [array.shape for array in parameters_of(estimator)[0]]
        optimizer = estimator._optimizer
        states = [optimizer.velocities] if isinstance(optimizer, Sgd) else optimizer.states
        if any([array.shape for array in state] != shapes for state in states):
            raise ValueError("the optimizer's state does not go with the parameters")


class StorageMixin:
    """The methods of an estimator that write it to a file and read it."""

    def save(self, path: PathLike) -> None:
        """Write the estimator to a safetensors file, atomically.

        Weights, biases and the optimizer's state are its tensors; parameters, labels and what else a fit has
        left are JSON in its metadata. Callbacks are not saved.

        Parameters
        ----------
        path : str or path-like
            The file; one that is there is replaced.

        Raises
        ------
        ConfigError
            If a parameter or a label is of a kind that the file does not hold: a callable, or a RandomState
            on another generator than MT19937. The message names it.
        CheckpointError
            If the file cannot be written.

        Examples
        --------
        >>> import pathlib, tempfile
        >>> import numpy as np
        >>> from ferrograd.sklearn import MLPRegressor
        >>> X = np.linspace(-1, 1, 50)[:, None]
        >>> model = MLPRegressor(hidden_layer_sizes=(5,), solver="lbfgs", random_state=0).fit(X, X[:, 0] ** 2)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = pathlib.Path(folder) / "model.safetensors"
        ...     model.save(path)
        ...     bool((MLPRegressor.load(path).predict(X) == model.predict(X)).all())
        True
        """
        tensors: _Tensors = {}
        own: Any = self
        fitted = {name: value for name, value in vars(self).items() if name in _SAVED}
        if "_label_binarizer" in fitted:
            fitted["_label_binarizer"] = vars(fitted["_label_binarizer"])
        if "_optimizer" in vars(self):
            fitted["_optimizer"] = asdict(own._optimizer)
        content = {
            "class": kind_of(type(self)),
            "optimizer": "sgd" if isinstance(vars(self).get("_optimizer"), Sgd) else "adam",
            "parameters": {
                name: _encode(value, name, tensors)
                for name, value in own.get_params(deep=False).items()
                if name != "callbacks"
            },
            "fitted": {name: _encode(value, name, tensors) for name, value in fitted.items()},
        }
        _core.save_tensors(path, tensors, {_KEY: json.dumps(content, allow_nan=False)})

    @classmethod
    def load(cls, path: PathLike) -> Self:
        """Read an estimator that `save` wrote.

        Parameters
        ----------
        path : str or path-like
            The file. Nothing in it is run.

        Returns
        -------
        MLPClassifier or MLPRegressor
            With the same parameters, and the same predictions to the bit; `partial_fit` and `warm_start` go
            on as they would have in the one that was saved.

        Raises
        ------
        CheckpointError
            If the file cannot be read.
        CorruptFileError
            If it is damaged or holds no estimator.
        ConfigError
            If it holds an estimator of the other class.

        Examples
        --------
        >>> import pathlib, tempfile
        >>> from ferrograd.sklearn import MLPClassifier
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = pathlib.Path(folder) / "model.safetensors"
        ...     MLPClassifier((8,), alpha=0.1).save(path)
        ...     MLPClassifier.load(path)
        MLPClassifier(alpha=0.1, hidden_layer_sizes=(8,))
        """
        tensors, metadata = _core.load_tensors(path)
        try:
            content = json.loads(metadata[_KEY])
            kind = content["class"]
            if kind == kind_of(cls):
                return cls._restored(content, tensors)
        except (AttributeError, LookupError, OverflowError, RecursionError, TypeError, ValueError) as error:
            raise CorruptFileError(f"{path}: no estimator's file: {error!r}") from error
        raise ConfigError(f"load: {path}: expected a file of {kind_of(cls)}, got one of {kind}")

    @classmethod
    def _restored(cls, content: dict[str, Any], tensors: _Tensors) -> Self:
        found = cls(**{name: _decode(value, tensors) for name, value in content["parameters"].items()})
        fitted = {name: _decode(value, tensors) for name, value in content["fitted"].items()}
        unknown = sorted(fitted.keys() - _SAVED - {"_optimizer"})
        if unknown:
            raise ValueError(f"{unknown[0]!r} is no fitted attribute")
        if "_label_binarizer" in fitted:
            binarizer, entries = LabelBinarizer(), fitted["_label_binarizer"]
            known = {*vars(binarizer), "classes_", "y_type_", "sparse_input_"}
            if entries.keys() != known or not isinstance(entries["classes_"], np.ndarray):
                raise ValueError("the labels are damaged")
            vars(binarizer).update(entries)
            fitted["_label_binarizer"] = binarizer
        if "_optimizer" in fitted:
            fitted["_optimizer"] = _OPTIMIZERS[content["optimizer"]](**fitted["_optimizer"])
        vars(found).update(fitted)
        if fitted:
            _check(found)
        return found
