"""Predicting few rows repeats the last plan: every change of the model is seen, every bit is the plan's."""

import copy
import threading
from typing import Any

import numpy as np
import pytest

import ferrograd as fg
from ferrograd import nn


def make(model: Any, **options: Any) -> fg.Trainer:
    loss = nn.CrossEntropyLoss()
    params = list(model.parameters()) or [nn.Parameter(fg.zeros(1))]
    return fg.Trainer(model, loss, fg.optim.SGD(params, lr=0.1), **options)


def chain(slope: float = 0.1) -> nn.Sequential:
    fg.manual_seed(0)
    return nn.Sequential(
        nn.Linear(4, 8), nn.LeakyReLU(slope), nn.Dropout(0.5), nn.Linear(8, 3), nn.PReLU(), nn.Linear(3, 2)
    )


X = np.random.default_rng(0).normal(size=(40, 4)).astype(np.float32)


def expected(model: Any, rows: Any) -> Any:
    was = model.training
    with fg.no_grad():
        result = model.eval()(fg.tensor(rows)).numpy()
    model.train(was)
    return result


def is_repeated(trainer: fg.Trainer, rows: Any) -> bool:
    """Whether the next prediction takes the short way."""
    return trainer._predict_again(rows) is not None


@pytest.mark.parametrize("rows", [1, 2, 16])
def test_repeated_prediction_has_the_bits_of_all_other_ways(rows: int) -> None:
    model = chain()
    trainer = make(model)
    whole = trainer.predict(X)
    trainer.predict(X[:rows])
    assert is_repeated(trainer, X[:rows])
    again = trainer.predict(X[:rows])
    assert again.dtype == np.float32
    assert again.shape == (rows, 2)
    assert (again == whole[:rows]).all()
    assert (again == expected(model, X[:rows])).all()
    assert (again == trainer.predict(X[:rows], batch_size=7)).all()
    one = make(model, n_threads=1)
    one.predict(X[:rows])
    assert (again == one.predict(X[:rows])).all()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_rows_of_either_float_dtype_and_any_strides(dtype: Any) -> None:
    trainer = make(chain())
    table = np.asfortranarray(np.tile(X, (1, 2)).astype(dtype))
    wanted = trainer.predict(X[:2])
    for rows in (table[:2, :4], np.ascontiguousarray(table[:2, :4]), table[::-1][-2:, 4:][::-1]):
        trainer.predict(rows)
        assert is_repeated(trainer, rows)
        assert (trainer.predict(rows) == wanted).all()


def test_results_do_not_share_memory() -> None:
    trainer = make(chain())
    first, second = trainer.predict(X[:1]), trainer.predict(X[:1])
    kept = first.copy()
    second += 1
    trainer.predict(X[1:2])
    assert (first == kept).all()


def replaced_layer(model: Any) -> None:
    model[0] = nn.Linear(4, 8)


def replaced_parameter(model: Any) -> None:
    model[0].weight = nn.Parameter(fg.randn(8, 4))


def replaced_by_one_of_equal_value(model: Any) -> None:
    # Equal now, changed later: the plan must read the new one.
    model[4].weight = nn.Parameter(model[4].weight.detach().clone())
    with fg.no_grad():
        model[4].weight.fill_(3.0)


def weight_in_place(model: Any) -> None:
    with fg.no_grad():
        model[0].weight *= 2


def other_slope(model: Any) -> None:
    model[1].negative_slope = 0.7


def bias_removed(model: Any) -> None:
    model[3].bias = None


def layer_appended(model: Any) -> None:
    model.append(nn.Tanh())


def layer_removed(model: Any) -> None:
    model._modules.popitem()


def loaded_state(model: Any) -> None:
    model.load_state_dict({name: value * 1.5 for name, value in model.state_dict().items()})


def slope_behind_setattr(model: Any) -> None:
    vars(model[1])["negative_slope"] = 0.9


CHANGES = [
    replaced_layer,
    replaced_parameter,
    replaced_by_one_of_equal_value,
    weight_in_place,
    other_slope,
    bias_removed,
    layer_appended,
    layer_removed,
    loaded_state,
    slope_behind_setattr,
]


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_the_next_prediction_sees_every_change(change: Any) -> None:
    model = chain()
    trainer = make(model)
    trainer.predict(X[:1])
    before = trainer.predict(X[:1])
    assert is_repeated(trainer, X[:1])
    change(model)
    after = trainer.predict(X[:1])
    assert after.shape != before.shape or (after != before).any()
    assert (after == expected(model, X[:1])).all()
    assert (trainer.predict(X[:1]) == after).all()


def test_modes_and_dropout_change_no_prediction() -> None:
    model = chain()
    trainer = make(model)
    wanted = trainer.predict(X[:1])
    for change in (model.eval, model.train, lambda: setattr(model[2], "p", 0.9), model.eval):
        change()
        modes = [module.training for module in model.modules()]
        assert (trainer.predict(X[:1]) == wanted).all()
        assert (trainer.predict(X[:1]) == wanted).all()
        assert [module.training for module in model.modules()] == modes


def test_training_between_predictions_is_seen() -> None:
    model = chain()
    trainer = make(model)
    y = np.arange(40) % 2
    for _ in range(3):
        before = trainer.predict(X[:1])
        trainer.fit(X, y, epochs=1, batch_size=8, progress=False)
        after = trainer.predict(X[:1])
        assert (after != before).any()
        assert (after == expected(model, X[:1])).all()


def test_another_model_in_the_same_trainer_is_seen() -> None:
    trainer = make(chain())
    trainer.predict(X[:1])
    trainer.model = nn.Sequential(nn.Linear(4, 5))
    assert (trainer.predict(X[:1]) == expected(trainer.model, X[:1])).all()


def test_float64_models() -> None:
    model = chain().double()
    trainer = make(model)
    rows = X[:2].astype(np.float64)
    trainer.predict(rows)
    assert is_repeated(trainer, rows)
    assert trainer.predict(rows).dtype == np.float64
    assert (trainer.predict(rows) == expected(model, rows)).all()


class Listed(nn.Module):
    """Its forward reads a list, which changes without an assignment."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(4, 2)
        self.factors = [1.0]

    def forward(self, x: Any) -> Any:
        return self.inner(x) * self.factors[0]

    def extra_repr(self) -> str:
        return f"factors={self.factors}"


def test_a_model_that_can_change_unnoticed_is_looked_at_each_time() -> None:
    model = Listed()
    trainer = make(model)
    before = trainer.predict(X[:1])
    assert not is_repeated(trainer, X[:1])
    model.factors[0] = 2.0
    assert (trainer.predict(X[:1]) == 2 * before).all()


def test_a_plain_function_is_a_model_too() -> None:
    layer = nn.Linear(4, 2)

    def model(x: Any) -> Any:
        return layer(x).relu()

    trainer = fg.Trainer(model, nn.CrossEntropyLoss(), fg.optim.SGD(layer.parameters(), lr=0.1))
    first = trainer.predict(X[:1])
    assert is_repeated(trainer, X[:1])
    assert (trainer.predict(X[:1]) == first).all()


BAD = [
    (np.array([[1.0, np.nan, 0.0, 0.0]], np.float32), fg.NonFiniteError, "NaN in row 0, column 1"),
    (np.array([[1.0, 0.0, 0.0, -np.inf]]), fg.NonFiniteError, "-inf in row 0, column 3"),
    (X[0], fg.ShapeError, "n_samples, n_features"),
    (X[:1, :3], fg.ShapeError, "linear"),
    (X[:1].astype(complex), fg.DTypeError, "complex"),
    (None, fg.DTypeError, "None"),
]


@pytest.mark.parametrize(("rows", "error", "text"), BAD)
def test_bad_rows_are_refused_as_before(rows: Any, error: Any, text: str) -> None:
    trainer = make(chain())
    wanted = trainer.predict(X[:1])
    trainer.predict(X[:1])
    with pytest.raises(error, match=text):
        trainer.predict(rows)
    assert (trainer.predict(X[:1]) == wanted).all()


def test_other_rows_take_the_long_way() -> None:
    trainer = make(chain())
    wanted = trainer.predict(X[:1])
    for rows in (X[:1].tolist(), X[:1].astype(">f4"), fg.tensor(X[:1]), np.ma.masked_array(X[:1])):
        assert not is_repeated(trainer, rows)
        assert (trainer.predict(rows) == wanted).all()
    assert trainer.predict(X[:0]).shape == (0, 2)


def test_predictions_from_threads() -> None:
    model = chain()
    trainer = make(model)
    wanted = trainer.predict(X)
    wrong = []

    def work(row: int) -> None:
        for _ in range(50):
            if (trainer.predict(X[row : row + 1]) != wanted[row]).any():
                wrong.append(row)

    threads = [threading.Thread(target=work, args=(row,)) for row in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


# What the short way rests on: attributes of modules.


def test_a_shallow_copy_has_registries_of_its_own() -> None:
    layer = nn.Linear(2, 2)
    twin = copy.copy(layer)
    assert twin.weight is layer.weight
    twin.weight = nn.Parameter(fg.zeros(2, 2))
    twin.extra = nn.Linear(1, 1)
    assert layer.weight is dict(layer.named_parameters())["weight"] is not twin.weight
    assert not hasattr(layer, "extra")


def test_a_property_of_a_subclass_hides_the_parameter() -> None:
    class Tied(nn.Linear):
        @property
        def weight(self) -> Any:
            return fg.ones(2, 2)

        @weight.setter
        def weight(self, value: Any) -> None:
            raise AssertionError("registered, not set")

    layer = Tied(2, 2, bias=False)
    assert layer(fg.tensor([[1.0, 2.0]])).tolist() == [[3.0, 3.0]]
    trainer = make(layer)
    assert trainer.predict(np.array([[1.0, 2.0]])).tolist() == [[3.0, 3.0]]
    assert not is_repeated(trainer, np.array([[1.0, 2.0]]))


def test_names_of_methods_stay_methods() -> None:
    model = nn.Sequential({"train": nn.Linear(2, 2), "eval": nn.ReLU()})
    assert model.train() is model
    assert not model.eval().training
    assert len(list(model.parameters())) == 2
