"""Bad input to the Trainer: each row a named error, or the bits of a clean copy; nothing else changes."""

# ruff: noqa: E501 -- a row of a table is a line

import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ferrograd as fg
from ferrograd import nn, optim

N = 12
RNG = np.random.default_rng(2)
X = RNG.integers(0, 4, (N, 4)).astype(np.float64)
Y = RNG.integers(0, 3, N)
TARGET = RNG.normal(size=(N, 2))


class Bench:
    """A classifier and a regressor that have made a step; gradients, modes and state are there to be damaged."""

    def __init__(self) -> None:
        fg.manual_seed(0)
        self.model = nn.Sequential(nn.Linear(4, 5), nn.Dropout(0.2), nn.Linear(5, 3))
        self.trainer = fg.Trainer(
            self.model, nn.CrossEntropyLoss(), optim.Adam(self.model.parameters(), lr=0.01)
        )
        self.line = nn.Linear(4, 2)
        self.regressor = fg.Trainer(
            self.line, nn.MSELoss(), optim.SGD(self.line.parameters(), lr=0.01, momentum=0.9)
        )
        self.loss = nn.CrossEntropyLoss()
        self.model[1].eval()
        self.model(fg.tensor(X).float()).sum().backward()

    def step(self) -> None:
        self.trainer.train_step(X, Y)
        self.regressor.train_step(X, TARGET)
        self.trainer.predict(X)
        self.trainer.evaluate(X, Y)

    def snapshot(self) -> Any:
        found: list[Any] = [fg.get_num_threads(), fg.is_grad_enabled()]
        for trainer in (self.trainer, self.regressor):
            model: Any = trainer.model
            found += [module.training for module in model.modules()]
            for param in model.parameters():
                grad = None if param.grad is None else param.grad.numpy().tobytes()
                found += [param.numpy().tobytes(), param.requires_grad, grad]
            state = trainer.optimizer.state_dict()
            found.append(repr(state["param_groups"]))
            found.append(sorted((n, k, v.numpy().tobytes() if isinstance(v, fg.Tensor) else v)
                                for n, entries in state["state"].items() for k, v in entries.items()))  # fmt: skip
            found += [trainer.l2, trainer.clip_grad_norm]
        return found


Row = tuple[str, Callable[[Bench], Any], Any, str]
Shape, DType, Config = fg.ShapeError, fg.DTypeError, fg.ConfigError
Graph, Label, NonFinite = fg.GraphError, fg.LabelError, fg.NonFiniteError


def quiet(**options: Any) -> dict[str, Any]:
    return {"epochs": 1, "progress": False, **options}


def entries(name: str, x: Any, y: Any, error: Any, text: str) -> Iterator[Row]:
    """The same bad data through every door that takes them."""
    yield f"fit: {name}", lambda b: b.trainer.fit(x, y, **quiet()), error, text
    yield f"train_step: {name}", lambda b: b.trainer.train_step(x, y), error, text
    yield f"evaluate: {name}", lambda b: b.trainer.evaluate(x, y), error, text
    yield f"validation: {name}", lambda b: b.trainer.fit(X, Y, **quiet(validation_data=(x, y))), error, text


def of_X(name: str, x: Any, error: Any, text: str) -> Iterator[Row]:
    yield from entries(name, x, Y, error, text)
    yield f"predict: {name}", lambda b: b.trainer.predict(x), error, text


def with_value(value: float, dtype: str = "float64") -> Any:
    x = X.astype(dtype)
    x[3, 2] = value
    return x


class Sparse:
    """What scipy's matrices look like."""

    nnz, shape = 1, (N, 4)

    def toarray(self) -> Any:
        return X


ROWS: list[Row] = [
    # dtype
    *of_X("complex X", X.astype(complex), DType, "X: expected real numbers, got dtype complex128"),
    *of_X("text X", X.astype(str), DType, "X: expected real numbers, got dtype <U"),
    *of_X("bytes X", X.astype("S"), DType, "X: expected real numbers, got dtype"),
    *of_X("datetime X", X.astype("M8[D]"), DType, "X: expected real numbers, got dtype datetime64"),
    *of_X("timedelta X", X.astype("m8[s]"), DType, "X: expected real numbers, got dtype timedelta64"),
    *of_X("structured X", np.zeros((N, 4), [("a", "f4")]), DType, "X: expected real numbers, got dtype"),
    *of_X("void X", np.zeros((N, 4), "V8"), DType, "X: expected real numbers, got dtype"),
    *of_X("objects X", np.full((N, 4), object()), DType, "X: expected real numbers, got objects"),
    *of_X("None for X", None, DType, "X: expected an array, got None"),
    *of_X("a model for X", nn.Linear(4, 1), DType, "X: expected real numbers, got objects"),
    # layout
    *of_X("ragged X", [[1.0]] * (N - 1) + [[1.0, 2.0]], Shape, "X: expected rows of equal length"),
    *of_X("0-d X", 1.5, Shape, r"X: expected shape \(n_samples, n_features\), got \(\)"),
    *of_X("1-d X", X[:, 0], Shape, r"got \(12,\); use X.reshape\(-1, 1\)"),
    *of_X("too few features", X[:, :3], Shape, r"linear: expected input of shape \(\.\.\., 4\).*\(12, 3\)"),
    *of_X("no features", X[:, :0], Shape, r"linear: expected input of shape \(\.\.\., 4\).*\(12, 0\)"),
    *of_X("3-d X", X[:, :, None], Shape, r"linear: expected input of shape \(\.\.\., 4\).*\(12, 4, 1\)"),
    *of_X("sparse X", Sparse(), DType, r"X: expected a dense array, got a sparse matrix; use X.toarray\(\)"),
    *of_X("masked X", np.ma.masked_array(X, X > 2), Config, r"X: masked elements have no value"),
    *entries("no samples", X[:0], Y[:0], Shape, r"X: expected at least one sample, got shape \(0, 4\)"),
    *entries("nothing at all", np.zeros((0, 0)), Y[:0], Shape, "X: expected at least one sample"),
    ("predict: no samples of a wrong width", lambda b: b.trainer.predict(X[:0, :3]), Shape, "linear"),
    ("predict: 2**46 rows by zero strides", lambda b: b.trainer.predict(np.broadcast_to(X[0], (2**46, 4))), Config, "at most 4294967295 rows"),
    # values
    *of_X("NaN", with_value(np.nan), NonFinite, "X: expected finite values, got NaN in row 3, column 2"),
    *of_X("infinity", with_value(np.inf, "float32"), NonFinite, "X: expected finite values, got inf in row 3, column 2"),
    *of_X("minus infinity in float16", with_value(-np.inf, "float16"), NonFinite, "got -inf in row 3, column 2"),
    *of_X("NaN in longdouble", with_value(np.nan, "longdouble"), NonFinite, "got NaN in row 3, column 2"),
    *of_X("None among objects", np.where(X > 2, None, X), NonFinite, "X: expected finite values, got NaN"),
    *entries("NaN label", X, np.where(Y > 1, np.nan, Y), NonFinite, "y: expected finite values, got NaN in row"),
    # labels
    *entries("label too large", X, Y + 1, Label, r"y: expected class labels in 0\.\.2, got 3 in row \d"),
    *entries("label negative", X, Y - 1, Label, r"y: expected class labels in 0\.\.2, got -1 in row \d"),
    *entries("labels -1 and 1", X, np.where(Y > 1, 1, -1), Label, r"got -1 in row"),
    *entries("gap in labels", X, np.array([0, 5, 9] * 4), Label, "got 5 in row 1"),
    *entries("last label", X, np.r_[Y[:-1], 7], Label, "got 7 in row 11"),
    *entries("label of uint64", X, np.full(N, 2**64 - 1, np.uint64), Label, r"below 2\*\*63, got 18446744073709551615 in row 0"),
    *entries("text labels", X, Y.astype(str), DType, r"y: expected real numbers, got dtype <U.*numpy.unique"),
    *entries("bytes labels", X, Y.astype("S"), DType, "y: expected real numbers, got dtype"),
    *entries("mixed labels", X, np.array([0, "a", None] * 4, object), DType, "y: expected real numbers, got objects"),
    *entries("None for y", X, None, DType, "y: expected an array, got None"),
    *entries("float labels", X, Y.astype(float), Shape, r"cross_entropy: expected a target of shape \(12, 3\)"),
    *entries("fractional labels", X, Y + 0.5, Shape, "cross_entropy: expected a target"),
    *entries("labels as a column", X, Y[:, None], Shape, r"cross_entropy: expected a target of shape \(12,\)"),
    *entries("one-hot integers", X, np.eye(3, dtype=int)[Y], Shape, r"cross_entropy: .*got \(12, 3\)"),
    *entries("too few labels", X, Y[:-1], Shape, r"y: expected 12 rows, as X has, got shape \(11,\)"),
    *entries("a single label", X, 1, Shape, r"y: expected 12 rows, as X has, got shape \(\)"),
    *entries("no labels", X, Y[:0], Shape, r"y: expected 12 rows"),
    *entries("masked labels", X, np.ma.masked_array(Y, Y > 1), Config, "y: masked elements"),
    # targets of a regression
    ("fit: a row for columns", lambda b: b.regressor.fit(X, TARGET[:, 0], **quiet()), Shape, r"\(12, 2\) and \(12,\)"),
    ("fit: integers for columns", lambda b: b.regressor.fit(X, Y, **quiet()), Shape, r"\(12, 2\) and \(12,\)"),
    ("fit: too many columns", lambda b: b.regressor.fit(X, X, **quiet()), Shape, r"\(12, 2\) and \(12, 4\)"),
    ("train_step: text target", lambda b: b.regressor.train_step(X, TARGET.astype(str)), DType, "y: expected real"),
    ("train_step: infinite target", lambda b: b.regressor.train_step(X, TARGET / 0), NonFinite, "y: expected finite"),
    # sample weights and validation data
    *[(f"fit: sample_weight {name}", lambda b, w=w: b.trainer.fit(X, Y, **quiet(sample_weight=w)), error, text)
      for name, w, error, text in [
          ("negative", np.full(N, -1.0), Config, "sample_weight: expected values of at least 0"),
          ("all zero", np.zeros(N), Config, "not all of them 0"),
          ("NaN", np.full(N, np.nan), NonFinite, "sample_weight: expected finite values"),
          ("too short", np.ones(3), Shape, r"sample_weight: expected shape \(12,\), got \(3,\)"),
          ("2-d", np.ones((N, 1)), Shape, "sample_weight: expected shape"),
          ("text", np.full(N, "a"), DType, "sample_weight: expected real numbers"),
      ]],
    ("evaluate: sample_weight too long", lambda b: b.trainer.evaluate(X, Y, np.ones(99)), Shape, r"got \(99,\)"),
    ("fit: validation of one array", lambda b: b.trainer.fit(X, Y, **quiet(validation_data=X)), Config, "validation_data: expected a tuple"),
    ("fit: validation of four", lambda b: b.trainer.fit(X, Y, **quiet(validation_data=(X, Y, Y, Y))), Config, "validation_data"),
    # config
    *[(f"fit: {name}={value!r}", lambda b, o=dict([(name, value)]): b.trainer.fit(X, Y, **quiet(**o)), Config, f"{name}: expected")
      for name, values in {
          "epochs": [-1, 1.5, "3", None, True],
          "batch_size": [0, -1, 2.0, "a", None, False],
          "shuffle": ["yes", 1, None],
          "drop_last": ["no", 0],
          "seed": [-1, 2**64, 0.5, "a", True, np.random.default_rng(0), np.random.RandomState(0)],
          "progress": ["always", 1, None],
      }.items() for value in values],
    *[(f"predict: batch_size={value!r}", lambda b, v=value: b.trainer.predict(X, batch_size=v), Config, "batch_size: expected")
      for value in (0, -5, 1.5, True)],
    ("evaluate: batch_size=0", lambda b: b.trainer.evaluate(X, Y, batch_size=0), Config, "batch_size: expected"),
    *[(f"Trainer: {name}={value!r}", lambda b, o=dict([(name, value)]): fg.Trainer(b.model, b.loss, b.trainer.optimizer, **o),
       Config, f"{name}: expected")
      for name, values in {
          "l2": [-0.1, np.nan, np.inf, "a", True, None],
          "clip_grad_norm": [0, -1.0, np.nan, "a", True],
          "n_threads": [0, -2, 1.5, "a", True, 10**6],
      }.items() for value in values],
    ("Trainer: no model", lambda b: fg.Trainer(None, b.loss, b.trainer.optimizer), Config, "model: expected a Module"),
    ("Trainer: no loss", lambda b: fg.Trainer(b.model, "mse", b.trainer.optimizer), Config, "loss: expected a callable"),
    ("Trainer: no optimizer", lambda b: fg.Trainer(b.model, b.loss, "adam"), Config, "optimizer: expected an Optimizer"),
    ("Trainer: an optimizer class", lambda b: fg.Trainer(b.model, b.loss, optim.Adam), Config, "optimizer: expected"),
    ("Trainer: two dtypes", lambda b: fg.Trainer(b.model, b.loss, optim.SGD([*b.model.parameters(), *nn.Linear(1, 1).double().parameters()])),
     Config, r"parameters of one dtype, got \['float32', 'float64'\]"),
    *[(f"EarlyStopping: {name}={value!r}", lambda b, o=dict([(name, value)]): fg.EarlyStopping(**o), Config, f"{name}: expected")
      for name, value in [("patience", -1), ("patience", 1.5), ("patience", True), ("min_delta", -1), ("min_delta", np.nan), ("mode", "best")]],
    ("fit: an option of the optimizer", lambda b: with_option(b, lr=-1.0), Config, "lr must be a number"),
    # what models and losses return
    ("fit: a model of other rows", lambda b: trainer_of(b, lambda x: b.model(x)[:3]).fit(X, Y, **quiet()), Shape, "model: expected 12 rows for 12 samples"),
    ("fit: a model of a scalar", lambda b: trainer_of(b, lambda x: b.model(x).sum()).fit(X, Y, **quiet()), Shape, "model: expected 12 rows"),
    ("fit: a model of a tuple", lambda b: trainer_of(b, lambda x: (x, x)).fit(X, Y, **quiet()), Config, "model: expected it to return a Tensor, got tuple"),
    ("predict: a model of None", lambda b: trainer_of(b, lambda x: None).predict(X), Config, "got NoneType"),
    ("predict: a model of integers", lambda b: trainer_of(b, lambda x: x.argmax(1)).predict(X), DType, "predict: expected float32 or float64"),
    ("fit: a model without parameters", lambda b: trainer_of(b, lambda x: x[:, :3]).fit(X, Y, **quiet()), Graph, "does not require a gradient"),
    ("fit: a loss of several", lambda b: trainer_of(b, b.model, nn.CrossEntropyLoss(reduction="none")).fit(X, Y, **quiet()), Shape, "loss: expected a scalar"),
    ("fit: a loss of a number", lambda b: trainer_of(b, b.model, lambda s, t: 1.0).fit(X, Y, **quiet()), Shape, "loss: expected a scalar Tensor, got float"),
    ("fit: a loss that detaches", lambda b: trainer_of(b, b.model, lambda s, t: s.detach().sum()).fit(X, Y, **quiet()), Graph, "require"),
    ("fit: weights for a function", lambda b: trainer_of(b, b.model, lambda s, t: s.sum()).fit(X, Y, **quiet(sample_weight=np.ones(N))), Config, "sample_weight: needs a loss"),
    ("fit: a model with an error of its own", lambda b: trainer_of(b, lambda x: {}["mine"]).fit(X, Y, **quiet()), KeyError, "mine"),
    ("fit: a frozen model", lambda b: frozen(b).fit(X, Y, **quiet()), Graph, "none of the optimizer's parameters requires a gradient"),
    # files
    ("load: a missing file", lambda b: b.trainer.load("no-such-file"), fg.CheckpointError, "no-such-file|No such file"),
    ("load: a folder", lambda b: b.trainer.load("."), fg.CorruptFileError, "regular file"),
    ("save: below a missing folder", lambda b: b.trainer.save("no/such/f"), fg.CheckpointError, "No such file"),
]  # fmt: skip


def trainer_of(bench: Bench, model: Any, loss: Any = None) -> fg.Trainer:
    return fg.Trainer(model, loss or bench.loss, bench.trainer.optimizer)


def frozen(bench: Bench) -> fg.Trainer:
    layer = nn.Linear(4, 3).requires_grad_(False)
    return fg.Trainer(layer, bench.loss, optim.SGD(layer.parameters()))


def with_option(bench: Bench, **options: Any) -> None:
    group = bench.trainer.optimizer.param_groups[0]
    before = dict(group)
    group.update(options)
    try:
        bench.trainer.fit(X, Y, **quiet())
    finally:
        group.update(before)


@pytest.mark.parametrize("is_used", [False, True], ids=["fresh", "used"])
@pytest.mark.parametrize(("call", "error", "text"), [pytest.param(*row[1:], id=row[0]) for row in ROWS])
def test_bad_input_is_named_and_changes_nothing(
    call: Callable[[Bench], Any], error: Any, text: str, is_used: bool
) -> None:
    bench = Bench()
    if is_used:  # steps are compiled then
        bench.step()
    before = bench.snapshot()
    with pytest.raises(error, match=text) as caught, np.errstate(all="ignore"):
        call(bench)
    assert isinstance(caught.value, fg.FerrogradError | MemoryError | KeyError)
    assert not isinstance(caught.value, fg.InternalError)
    assert bench.snapshot() == before
    bench.step()


def layouts(values: Any, folder: Path) -> Iterator[tuple[str, Any]]:
    """The same numbers, which are small integers, in every dtype and layout."""
    names = "float16 float32 float64 longdouble int8 int16 int32 int64 uint8 uint16 uint32 uint64 >f2 >f4 >f8 >i2 >i8 >u8"
    yield from ((name, values.astype(name)) for name in names.split() if name[-2] != "f" or values.ndim == 2)
    yield "object", values.astype(object)
    wide = np.zeros((2 * len(values), *(3 * n for n in values.shape[1:])), values.dtype)
    steps = wide[(slice(None, None, 2), *[slice(1, None, 3)] * (values.ndim - 1))]
    steps[...] = values
    yield "steps", steps
    yield "negative strides", values[::-1].copy()[::-1]
    yield "fortran", np.asfortranarray(values)
    yield (
        "unaligned",
        np.frombuffer(b"x" + values.tobytes(), np.uint8)[1:].view(values.dtype).reshape(values.shape),
    )
    read_only = values.copy()
    read_only.flags.writeable = False
    yield "read-only", read_only
    path = folder / f"{values.ndim}.npy"
    np.save(path, values)
    yield "memmap r", np.load(path, mmap_mode="r")
    yield "memmap c", np.load(path, mmap_mode="c")
    yield "masked without a mask", np.ma.masked_array(values)
    yield "list", values.tolist()
    yield "tuple", tuple(values.tolist())
    yield "tensor", fg.tensor(values)
    yield "array interface", type("Holder", (), {"__array__": lambda self, dtype=None, copy=None: values})()
    if values.ndim == 2:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", PendingDeprecationWarning)
            yield "matrix", np.matrix(values)
        yield "list of arrays", list(values)


def results(x: Any, y: Any) -> list[Any]:
    bench = Bench()
    loss = bench.trainer.train_step(x, y)
    history = bench.trainer.fit(x, y, epochs=2, batch_size=5, seed=1, progress=False, validation_data=(x, y))
    return [
        loss,
        history.history,
        bench.trainer.evaluate(x, y),
        bench.trainer.predict(x).tobytes(),
        bench.snapshot(),
    ]


def test_every_dtype_and_layout_of_x_has_the_bits_of_the_copy(tmp_path: Path) -> None:
    expected = results(X, Y)
    for name, x in layouts(X, tmp_path):
        assert results(x, Y) == expected, name


def test_every_dtype_and_layout_of_labels_has_the_bits_of_the_copy(tmp_path: Path) -> None:
    expected = results(X, Y)
    for name, y in layouts(Y, tmp_path):
        if "float" not in name and name != "longdouble":
            assert results(X, y) == expected, name


def test_bool_labels_are_two_classes() -> None:
    assert results(X, Y > 1) == results(X, (Y > 1).astype(int))


def test_one_sample_and_fewer_samples_than_a_batch() -> None:
    for rows in (1, 3):
        bench = Bench()
        history = bench.trainer.fit(
            X[:rows], Y[:rows], epochs=2, batch_size=64, drop_last=True, progress=False
        )
        assert len(history.history["loss"]) == 2
        assert bench.trainer.predict(X[:rows], batch_size=10**12).shape == (rows, 3)


def test_a_constant_column_denormals_and_minus_zero_are_numbers() -> None:
    x = X.copy()
    x[:, 0] = 7.0
    x[:, 1] = 5e-324
    x[:, 2] = -0.0
    bench = Bench()
    assert np.isfinite(bench.trainer.fit(x, Y, epochs=2, progress=False).history["loss"]).all()


@pytest.mark.parametrize("value", [1e300, np.finfo(np.float64).max, 3e38])
def test_numbers_beyond_float32_stop_training_and_change_nothing(value: float) -> None:
    bench = Bench()
    bench.step()
    before = bench.snapshot()
    with pytest.warns(fg.ConvergenceWarning, match="the loss became (nan|inf) in epoch 0, batch 0"):
        assert bench.regressor.fit(with_value(value), TARGET, **quiet()).history == {}
    with pytest.warns(fg.ConvergenceWarning, match="the step was not made"):
        assert not np.isfinite(bench.regressor.train_step(with_value(value), TARGET))
    assert not np.isfinite(bench.regressor.evaluate(with_value(value), TARGET)["loss"])
    assert bench.snapshot() == before


def test_frames_equal_their_arrays() -> None:
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(X, columns=list("abcd"))
    assert results(frame, pandas.Series(Y)) == results(X, Y)


def test_sparse_matrices_are_refused_by_name() -> None:
    sparse = pytest.importorskip("scipy.sparse")
    for form in (sparse.csr_matrix, sparse.csc_matrix, sparse.coo_matrix, sparse.csr_array):
        with pytest.raises(fg.DTypeError, match="sparse matrix"):
            Bench().trainer.predict(form(X))


@pytest.mark.parametrize("watcher", [lambda epoch, logs: None, fg.EarlyStopping], ids=["function", "class"])
def test_what_is_no_callback_is_refused_before_training(watcher: object) -> None:
    model = fg.nn.Linear(2, 2)
    before = model.weight.tolist()
    trainer = fg.Trainer(model, fg.nn.CrossEntropyLoss(), fg.optim.SGD(model.parameters(), lr=0.1))
    with pytest.raises(fg.ConfigError, match=r"callbacks: expected objects of ferrograd\.Callback"):
        trainer.fit(np.ones((2, 2)), [0, 1], callbacks=[watcher], progress=False)  # type: ignore[list-item]
    assert model.weight.tolist() == before
