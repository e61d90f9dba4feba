"""`Embedding` and its function: lookups, gradients, lengths of rows, by numpy and in a plan."""

import copy
from typing import Any

import numpy as np
import pytest

import ferrograd as fg
from ferrograd import nn, optim
from ferrograd.nn.functional import embedding

RNG = np.random.default_rng(6)
TABLE = RNG.normal(size=(5, 3))
ROWS = np.array([[4, 1, 4], [0, 4, 1]])
UPSTREAM = RNG.normal(size=(2, 3, 3))


def table() -> fg.Tensor:
    return fg.tensor(TABLE, requires_grad=True)


def summed(upstream: Any = UPSTREAM) -> Any:
    expected = np.zeros_like(TABLE)
    np.add.at(expected, ROWS, upstream)
    return expected


def shortened(values: Any, max_norm: float, p: float = 2.0) -> Any:
    """As PyTorch's `embedding_renorm_`: the rows in use alone."""
    found = values.copy()
    for row in np.unique(ROWS):
        size = np.linalg.norm(values[row], p)
        if size > max_norm:
            found[row] = values[row] * (max_norm / (size + 1e-7))
    return found


@pytest.mark.parametrize("padding", [None, 1, -1])
def test_rows_and_the_sums_of_their_gradients(padding: int | None) -> None:
    weight = table()
    found = embedding(ROWS, weight, padding)
    found.backward(UPSTREAM)
    np.testing.assert_array_equal(found.numpy(), TABLE[ROWS])
    expected = summed()
    if padding is not None:
        expected[padding] = 0
    assert weight.grad is not None
    np.testing.assert_allclose(weight.grad.numpy(), expected, rtol=1e-14)


def test_a_gradient_by_frequency_is_the_mean_of_the_uses() -> None:
    weight = table()
    found = embedding(ROWS, weight, scale_grad_by_freq=True)
    found.backward(UPSTREAM)
    np.testing.assert_array_equal(found.numpy(), TABLE[ROWS])
    uses = np.bincount(ROWS.ravel(), minlength=5)
    assert weight.grad is not None
    np.testing.assert_allclose(
        weight.grad.numpy(), summed() / np.maximum(uses, 1)[:, None], rtol=1e-14, atol=1e-15
    )


@pytest.mark.parametrize("p", [1.0, 2.0, 3.0, np.inf])
def test_long_rows_that_are_used_are_shortened_in_place(p: float) -> None:
    weight, expected = table(), shortened(TABLE, 0.7, p)
    assert not np.allclose(expected, TABLE)
    found = embedding(ROWS, weight, max_norm=0.7, norm_type=p)
    found.backward(UPSTREAM)
    np.testing.assert_allclose(weight.detach().numpy(), expected, rtol=1e-14)
    np.testing.assert_array_equal(found.numpy(), weight.detach().numpy()[ROWS])
    assert weight.grad is not None
    np.testing.assert_allclose(weight.grad.numpy(), summed(), rtol=1e-14, atol=1e-15)
    unused = [row for row in range(5) if row not in ROWS]
    np.testing.assert_array_equal(weight.detach().numpy()[unused], TABLE[unused])


def test_short_rows_stay() -> None:
    weight = table()
    embedding(ROWS, weight, max_norm=100.0)
    np.testing.assert_array_equal(weight.detach().numpy(), TABLE)


def test_gradients_of_both_orders_match_differences() -> None:
    weight = table()
    assert fg.autograd.gradcheck(lambda w: embedding(ROWS, w).sin(), weight)
    assert fg.autograd.gradgradcheck(lambda w: embedding(ROWS, w).sin(), weight)


OPTIONS: list[dict[str, Any]] = [
    {},
    {"padding_idx": 2},
    {"max_norm": 0.8},
    {"max_norm": 0.8, "norm_type": 1.0, "padding_idx": 0},
    {"scale_grad_by_freq": True},
    {"scale_grad_by_freq": True, "max_norm": 0.5},
]


def model_of(dtype: Any, options: dict[str, Any]) -> nn.Module:
    fg.manual_seed(2)
    return nn.Sequential(nn.Embedding(7, 4, **options), nn.Flatten(), nn.Linear(12, 2)).to(dtype)


@pytest.mark.parametrize("dtype", [fg.float32, fg.float64], ids=lambda dtype: dtype.name)
@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_a_plan_has_the_bits_of_eager_steps(options: dict[str, Any], accumulate: int, dtype: Any) -> None:
    x = RNG.integers(0, 7, (22, 3))
    y = RNG.normal(size=(22, 2)).astype(dtype.name)
    models = [model_of(dtype, options) for _ in range(2)]
    optimizers = [fg.optim.SGD(model.parameters(), lr=0.5, momentum=0.9) for model in models]
    fg.Trainer(models[0], nn.MSELoss(), optimizers[0]).fit(
        x, y, epochs=3, batch_size=8, shuffle=False, progress=False, accumulate=accumulate
    )
    groups = [[0, 8], [16]] if accumulate == 2 else [[0], [8], [16]]
    for starts in groups * 3:
        optimizers[1].zero_grad()
        for start in starts:
            rows = slice(start, start + 8)
            (nn.MSELoss()(models[1](x[rows]), y[rows]) / len(starts)).backward()
        optimizers[1].step()
    for one, other in zip(*(model.parameters() for model in models), strict=True):
        assert one.detach().numpy().tobytes() == other.detach().numpy().tobytes()


def test_a_prediction_shortens_but_leaves_the_table() -> None:
    model = model_of(fg.float64, {"max_norm": 0.5})
    before = copy.deepcopy(model.state_dict())
    trainer = fg.Trainer(model, nn.MSELoss(), fg.optim.SGD(model.parameters(), lr=0.1))
    x = RNG.integers(0, 7, (22, 3))
    found = trainer.predict(x)
    assert all(np.array_equal(before[name].numpy(), v.numpy()) for name, v in model.state_dict().items())
    np.testing.assert_array_equal(found, model.eval()(x).detach().numpy())


class Tied(nn.Module):
    """Scores of all rows by their likeness to the mean of those that are looked up."""

    def __init__(self, is_last: bool) -> None:
        super().__init__()
        fg.manual_seed(2)
        self.rows, self.is_last = nn.Embedding(7, 4, max_norm=0.5).double(), is_last

    def forward(self, x: fg.Tensor) -> fg.Tensor:
        if not self.is_last:
            return self.rows(x).mean(1) @ self.rows.weight.T
        weight = self.rows.weight * 1
        return self.rows(x).mean(1) @ weight.T


def test_a_table_that_is_used_again_trains_where_the_lookup_comes_last() -> None:
    x, y = RNG.integers(0, 7, (16, 3)), RNG.normal(size=(16, 7))
    models = [Tied(True), Tied(True)]
    optimizers = [fg.optim.SGD(model.parameters(), lr=0.5, momentum=0.9) for model in models]
    options = {"epochs": 3, "batch_size": 8, "shuffle": False, "progress": False}
    fg.Trainer(models[0], nn.MSELoss(), optimizers[0]).fit(x, y, **options)  # type: ignore[arg-type]
    for start in [0, 8] * 3:
        optimizers[1].zero_grad()
        nn.MSELoss()(models[1](fg.tensor(x[start : start + 8])), y[start : start + 8]).backward()
        optimizers[1].step()
    found, expected = (model.rows.weight.detach().numpy() for model in models)
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    model = Tied(False)
    trainer = fg.Trainer(model, nn.MSELoss(), fg.optim.SGD(model.parameters(), lr=0.5))
    with pytest.raises(
        fg.GraphError, match=r"a parameter is read after the model has changed it.*weight_decay"
    ):
        trainer.fit(x, y, **options)  # type: ignore[arg-type]


def test_lbfgs_refuses_a_table_that_moves_by_itself() -> None:
    model = model_of(fg.float64, {"max_norm": 0.5})
    trainer = fg.Trainer(model, nn.MSELoss(), fg.optim.LBFGS(model.parameters()))
    with pytest.raises(fg.GraphError, match="changes its parameters"):
        trainer.fit(RNG.integers(0, 7, (8, 3)), RNG.normal(size=(8, 2)), epochs=1, progress=False)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sparse": True}, "sparse must be False"),
        ({"max_norm": 0.0}, "max_norm must be a number above 0"),
        ({"max_norm": float("nan")}, "max_norm"),
        ({"max_norm": float("inf")}, "max_norm"),
        ({"norm_type": 0}, "norm_type"),
        ({"norm_type": "2"}, "norm_type"),
        ({"padding_idx": 5}, "padding_idx must be at least -5 and below 5"),
        ({"padding_idx": 1.0}, "padding_idx must be an integer"),
    ],
)
def test_the_option_that_is_wrong_is_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(fg.ConfigError, match=f"embedding: {message}"):
        embedding(ROWS, table(), **options)
    with pytest.raises(fg.ConfigError, match=f"Embedding: {message}"):
        nn.Embedding(5, 3, **options)


def test_numbers_are_whole_and_can_be_told_apart() -> None:
    with pytest.raises(fg.DTypeError, match="embedding: expected whole numbers of rows, got"):
        embedding([0.5], table())
    with pytest.raises(IndexError, match="5"):
        embedding([5], table())
    with pytest.raises(fg.ShapeError, match=r"weight of shape \(rows, width\), got \(5,\)"):
        embedding([0], fg.ones(5))
    wide = fg.zeros(1, 1).expand(2**24 + 1, 1)
    assert embedding([2**24], wide).shape == (1, 1)
    with pytest.raises(fg.DTypeError, match="float32 names 16777216 rows, the table has 16777217"):
        embedding(fg.tensor([1.0]), wide)


@pytest.mark.parametrize("number", [-1, -3, 3])
def test_numbers_outside_the_table_are_refused_in_plans_too(number: int) -> None:
    table = nn.Embedding(3, 2)
    with pytest.raises(fg.OutOfRangeError, match=f"index {number}"):
        table(fg.tensor([0, number]))
    model = nn.Sequential(table, nn.Flatten(), nn.Linear(2, 2))
    trainer = fg.Trainer(model, nn.CrossEntropyLoss(), optim.SGD(model.parameters(), lr=0.1))
    X = np.array([[0], [number], [1], [2]])
    with pytest.raises(fg.OutOfRangeError, match=f"index {number}"):
        trainer.fit(X, np.array([0, 1, 0, 1]), epochs=1, batch_size=4, progress=False)
    with pytest.raises(fg.OutOfRangeError, match=f"index {number}"):
        nn.SparseLinear(3, 2)(([0, 1], [number], [1.0]))
