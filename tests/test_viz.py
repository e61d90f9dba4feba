"""Plots: what they draw is what the model computes, for every kind of model."""

import io
import sys
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import matplotlib as mpl
import numpy as np
import pytest

import ferrograd as fg
from ferrograd import nn, viz

mpl.use("Agg")
import matplotlib.pyplot as plt

X, Y = (np.asarray(part) for part in fg.datasets.make_moons(n_samples=80, noise=0.1, seed=0))


@pytest.fixture(autouse=True)
def _close() -> Iterator[None]:
    yield
    plt.close("all")


def network(*widths: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for before, after in pairwise(widths):
        layers += [nn.Linear(before, after, dtype=fg.float64), nn.Tanh()]
    return nn.Sequential(*layers[:-1])


def half_plane(rows: Any) -> Any:
    """Class 1 where the first feature is positive."""
    return np.column_stack([-rows[:, 0], rows[:, 0]])


def region_of(ax: Any, x: float, y: float) -> Any:
    """The background's colour at a place."""
    image = ax.images[0]
    left, right, low, high = image.get_extent()
    pixels = np.asarray(image.get_array())
    column = int((x - left) / (right - left) * pixels.shape[1])
    row = int((y - low) / (high - low) * pixels.shape[0])
    return pixels[row, column]


# Decision boundary


def test_regions_have_the_colours_of_their_classes() -> None:
    rows = np.array([[-1.0, -1.0], [-1.0, 1.0], [1.0, -1.0], [1.0, 1.0]])
    ax = viz.decision_boundary(half_plane, rows, [0, 0, 1, 1])
    blue, orange = region_of(ax, -0.9, 0.0), region_of(ax, 0.9, 0.0)
    assert blue[2] > blue[0]
    assert orange[0] > orange[2]
    # Surer further away.
    assert np.ptp(region_of(ax, 0.9, 0.0)) > np.ptp(region_of(ax, 0.1, 0.0))
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["0", "1"]
    assert ax.get_xlim() == (-1.2, 1.2)


def test_every_kind_of_model_gives_the_same_picture() -> None:
    model = network(2, 8, 2)
    trainer = fg.Trainer(model, nn.CrossEntropyLoss(), fg.optim.SGD(model.parameters()))

    def function(rows: Any) -> Any:
        with fg.no_grad():
            return model(fg.tensor(rows))

    pictures = [
        np.asarray(viz.decision_boundary(kind, X, Y, resolution=40).images[0].get_array())
        for kind in (model, trainer, function)
    ]
    np.testing.assert_allclose(pictures[1], pictures[0], atol=1e-12)
    np.testing.assert_allclose(pictures[2], pictures[0], atol=1e-12)
    assert model.training


def test_one_score_is_positive_for_class_1() -> None:
    one = viz.decision_boundary(lambda rows: 2 * rows[:, 0], X, Y, resolution=30)
    two = viz.decision_boundary(half_plane, X, Y, resolution=30)
    np.testing.assert_allclose(
        np.asarray(one.images[0].get_array()), np.asarray(two.images[0].get_array()), atol=1e-12
    )


def test_a_point_has_the_colour_of_its_classs_region() -> None:
    # Also where not every class occurs among the points.
    def three(rows: Any) -> Any:
        return np.column_stack([rows[:, 0] < -1, abs(rows[:, 0]) <= 1, rows[:, 0] > 1]).astype(float) * 9

    rows = np.array([[-2.0, 0.0], [2.0, 1.0]])
    ax = viz.decision_boundary(three, rows, [0, 2])
    texts = [text.get_text() for text in ax.get_legend().get_texts()]
    assert texts == ["0", "1", "2"]
    drawn = [
        np.asarray(found.get_offsets()).tolist() for found in ax.collections if found.get_label()[0] != "_"
    ]
    assert drawn == [[[-2.0, 0.0]], [], [[2.0, 1.0]]]
    for labels in ([1, 3], [0.5, 1], ["a", "b"]):
        with pytest.raises(fg.ConfigError, match=r"y: expected labels of \[0, 1, 2\]"):
            viz.decision_boundary(three, rows, labels)


def test_whole_numbers_have_a_whole_plane_between_them() -> None:
    rows = [[0, 0], [1, 1], [0, 1], [1, 0]]
    pictures = [
        np.asarray(viz.decision_boundary(half_plane, table, resolution=20).images[0].get_array())
        for table in (np.array(rows, np.int64), np.array(rows, np.float64))
    ]
    np.testing.assert_array_equal(*pictures)


def test_a_trainers_probabilities_are_taken_as_such() -> None:
    model = nn.Sequential(nn.Linear(2, 1), nn.Sigmoid())
    with fg.no_grad():
        model[0].weight.copy_(fg.tensor([[4.0, 0.0]]))
        model[0].bias.fill_(-2.0)
    trainer = fg.Trainer(model, nn.BCELoss(), fg.optim.SGD(model.parameters()))
    ax = viz.decision_boundary(trainer, X, Y)
    assert region_of(ax, -1.0, 0.0)[2] > region_of(ax, -1.0, 0.0)[0]
    assert region_of(ax, 1.5, 0.0)[0] > region_of(ax, 1.5, 0.0)[2]


def test_a_network_within_a_module_is_not_taken_for_the_whole() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model, self.head = nn.Linear(2, 7), nn.Linear(7, 3)

        def forward(self, x: fg.Tensor) -> fg.Tensor:
            return self.head(self.model(x))

    with pytest.raises(fg.ConfigError, match="target: expected at most 2, got 3"):
        viz.saliency(Net(), [1.0, 2.0], target=3)


def test_a_model_that_gives_a_number_has_one_score() -> None:
    class Sum(nn.Module):
        def forward(self, x: fg.Tensor) -> fg.Tensor:
            return (3 * x).sum()

    slopes, _ = viz.saliency(Sum(), [1.0, 2.0])
    assert slopes.tolist() == [3.0, 3.0]


def test_every_layer_keeps_its_mode() -> None:
    model = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3), nn.Linear(3, 2)).train()
    model[1].eval()
    with fg.no_grad():
        model[0].weight.add_(0.0)
    viz.decision_boundary(model, X.astype(np.float32), Y, resolution=5)
    viz.hidden_space(model, X.astype(np.float32), Y, lines=3)
    viz.saliency(model, X[0])
    assert [module.training for module in model] == [True, False, True]


def test_classifiers_bring_their_classes() -> None:
    from ferrograd.sklearn import MLPClassifier

    names = np.array(["left", "mid", "right"])[np.digitize(X[:, 0], [0.0, 1.0])]
    for loss in ("log_loss", "hinge"):
        found = MLPClassifier((8,), loss=loss, max_iter=400, tol=0.0, n_iter_no_change=500, random_state=0)
        with pytest.warns(UserWarning, match="Maximum iterations"):
            found.fit(X, names)
        ax = viz.decision_boundary(found, X, names, resolution=30)
        assert [text.get_text() for text in ax.get_legend().get_texts()] == ["left", "mid", "right"]
        with pytest.raises(fg.ConfigError, match=r"y: expected labels of .*got 'up'"):
            viz.decision_boundary(found, X[:1], ["up"])


def test_scikit_learns_own_display_draws_our_estimators() -> None:
    from sklearn.inspection import DecisionBoundaryDisplay

    from ferrograd.sklearn import MLPClassifier

    found = MLPClassifier((8,), solver="lbfgs", max_iter=1000, random_state=0).fit(X, Y)
    for method in ("predict", "predict_proba"):
        display = DecisionBoundaryDisplay.from_estimator(found, X, response_method=method, grid_resolution=20)
        assert display.response.shape[:2] == (20, 20)


def test_a_series_has_a_panel_for_each_value() -> None:
    panels = viz.boundary_series(lambda k: lambda rows: k * half_plane(rows), [1, 5], X, Y, label="k =")
    assert [ax.get_title() for ax in panels] == ["k = 1", "k = 5"]
    assert panels[0].get_legend() is not None
    assert panels[1].get_legend() is None
    _, own = plt.subplots(1, 3)
    with pytest.raises(fg.ConfigError, match=r"axs: expected 2 axes.*got 3"):
        viz.boundary_series(lambda k: half_plane, [1, 2], X, Y, axs=own)
    with pytest.raises(fg.ConfigError, match="values: expected at least one"):
        viz.boundary_series(lambda k: half_plane, [], X, Y)


# Hidden space


def test_points_are_drawn_where_the_layer_puts_them() -> None:
    model = network(2, 3, 2)
    ax = viz.hidden_space(model, X, Y, units=(2, 0), lines=5)
    with fg.no_grad():
        hidden = model[1](model[0](fg.tensor(X))).numpy()
    drawn = np.concatenate([np.asarray(points.get_offsets()) for points in ax.collections])
    expected = np.concatenate([hidden[number == Y][:, [2, 0]] for number in (0, 1)])
    np.testing.assert_allclose(drawn, expected, atol=1e-12)
    assert len(ax.get_lines()) == 10
    assert viz.hidden_space(model, X, layer=-1).get_xlabel() == "unit 0 of Linear"


@pytest.mark.parametrize(
    ("model", "options", "message"),
    [
        (network(2, 3, 2), {"layer": 3}, "layer: expected at most 2, got 3"),
        (network(2, 3, 2), {"units": (0, 3)}, "units: expected at most 2, got 3"),
        (network(2, 3, 2), {"lines": 1}, "lines: expected at least 2, got 1"),
        (nn.Linear(2, 2), {}, "nn.Sequential of at least two layers, got Linear"),
        (half_plane, {}, "expected a Module, a Trainer of one or a fitted estimator"),
    ],
)
def test_layers_that_are_not_there_are_refused(model: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(fg.ConfigError, match=message):
        viz.hidden_space(model, X, Y, **options)


def test_weights_of_a_model_are_those_of_its_first_linear_layer() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(6, 4), nn.Tanh(), nn.Linear(4, 2))
    trainer = fg.Trainer(model, nn.CrossEntropyLoss(), fg.optim.SGD(model.parameters()))
    for subject in (model, trainer, model[1]):
        panels = viz.weight_images(subject, shape=(2, 3)).axes[:4]
        images = [np.asarray(panel.images[0].get_array()).ravel() for panel in panels]
        np.testing.assert_array_equal(images, model[1].weight.detach().numpy())


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: viz.decision_boundary(half_plane, X[:, :1]),
            fg.ShapeError,
            r"X: expected .*\(n_samples, 2\)",
        ),
        (
            lambda: viz.decision_boundary(half_plane, X, Y[:3]),
            fg.ShapeError,
            "y: expected a label for each of 80",
        ),
        (
            lambda: viz.decision_boundary(3, X, Y),
            fg.ConfigError,
            "model: expected a fitted classifier.* got int",
        ),
        (
            lambda: viz.decision_boundary(half_plane, X, resolution=1),
            fg.ConfigError,
            "resolution: expected at least 2",
        ),
        (lambda: viz.decision_boundary(half_plane, X, margin=-1.0), fg.ConfigError, "margin"),
        (
            lambda: viz.decision_boundary(lambda rows: rows * np.nan, X, resolution=5),
            fg.NonFiniteError,
            "model: expected scores, got NaN at 25 of 25 places",
        ),
        (
            lambda: viz.decision_boundary(half_plane, [[-1e308, 0.0], [1e308, 0.0]]),
            fg.NonFiniteError,
            "X: expected points of a finite extent",
        ),
        (lambda: viz.boundary_series(3, [1], X, Y), fg.ConfigError, "fit: expected a function, got 3"),
        (lambda: viz.weight_images(np.full((2, 4), np.nan)), fg.NonFiniteError, "weights: expected finite"),
        (
            lambda: viz.weight_images(nn.Tanh()),
            fg.ConfigError,
            "weights: expected a model with a Linear layer, got Tanh without",
        ),
        (lambda: viz.loss_curves(3.0), fg.ConfigError, "record: expected a History.* got float"),
        (lambda: viz.loss_curves({}), fg.ConfigError, "at least one curve, got none"),
        (lambda: viz.spark_line([1.0], width=0), fg.ConfigError, "width: expected at least 1"),
        (lambda: viz.LossPlot(interval=-1), fg.ConfigError, "interval"),
        (lambda: viz.weight_images(np.ones(3)), fg.ShapeError, r"weights: expected \(n_units, n_inputs\)"),
        (
            lambda: viz.weight_images(np.ones((2, 6)), shape=(2, 2)),
            fg.ShapeError,
            "shape: expected 6 elements, got 2 x 2",
        ),
        (
            lambda: viz.weight_images(np.ones((2, 4)), titles="a"),
            fg.ConfigError,
            "titles: expected 2.* got 1",
        ),
        (lambda: viz.confusion_matrix([0, 1], [0]), fg.ShapeError, "y_true, y_pred: expected one shape"),
        (
            lambda: viz.confusion_matrix([0], [2], labels=[0, 1]),
            fg.ConfigError,
            "y_pred: expected one of .* got 2",
        ),
        (
            lambda: viz.saliency(nn.Linear(4, 2), np.ones(4), target=2),
            fg.ConfigError,
            "target: expected at most 1",
        ),
        (lambda: viz.saliency(nn.Linear(4, 2), np.ones((1, 2, 2))), fg.ShapeError, "x: expected one sample"),
        (
            lambda: viz.saliency(nn.Linear(4, 2), np.ones(4), shape=(3, 1)),
            fg.ShapeError,
            "shape: expected 4 elements",
        ),
        (
            lambda: viz.activation("linears"),
            fg.ConfigError,
            "function: expected a name of nn.functional, got 'linears'",
        ),
        (lambda: viz.activation("relu", low=1, high=1), fg.ConfigError, "low < high"),
        (
            lambda: viz.activation(lambda x: x.sum()),
            fg.ConfigError,
            "expected a value for each of 501 elements",
        ),
        (
            lambda: viz.optimizer_paths("hill"),
            fg.ConfigError,
            "surface: expected 'saddle', 'valley' or a function",
        ),
        (
            lambda: viz.optimizer_paths(lambda x, y: x + y),
            fg.ConfigError,
            "start: expected 2 finite numbers, got None",
        ),
        (lambda: viz.optimizer_paths(optimizers={}), fg.ConfigError, "optimizers: expected at least one"),
        (lambda: viz.optimizer_paths(steps=0), fg.ConfigError, "steps: expected at least 1"),
        (
            lambda: viz.optimizer_paths(start="ab"),
            fg.ConfigError,
            "start: expected 2 finite numbers, got 'ab'",
        ),
        (lambda: viz.optimizer_paths(view=(1, 2, 3)), fg.ConfigError, "view: expected 4 finite numbers"),
        (lambda: viz.optimizer_paths([1]), fg.ConfigError, "surface: expected 'saddle'"),
        (
            lambda: viz.activation(3),
            fg.ConfigError,
            "function: expected a name, a layer or a function, got 3",
        ),
        (lambda: viz.activation("linear"), fg.ConfigError, "function: expected one of a Tensor alone"),
        (lambda: viz.activation("relu", high=float("inf")), fg.ConfigError, "high"),
        (lambda: viz.spark_line("abc"), fg.ConfigError, "values: expected numbers, got 'abc'"),
        (lambda: viz.loss_curves([-1.0], log=True), fg.ConfigError, "log: expected a loss above 0"),
        (lambda: viz.LossPlot(stream=3), fg.ConfigError, "stream: expected a text stream, got 3"),
        (
            lambda: viz.hidden_space(network(2, 3, 2), X, units=(0,)),
            fg.ConfigError,
            "units: expected the numbers",
        ),
        (lambda: viz.decision_boundary(half_plane, [[0.0, np.nan]]), fg.NonFiniteError, "X"),
        (
            lambda: viz.decision_boundary(lambda rows: rows[:1], X),
            fg.ShapeError,
            "model: expected scores of shape",
        ),
        (lambda: viz.confusion_matrix([0], [0], labels=3), fg.ConfigError, "labels: expected a sequence"),
        (
            lambda: viz.confusion_matrix([0], [0], labels=[0, 0]),
            fg.ConfigError,
            "labels: expected each class once",
        ),
        (
            lambda: viz.weight_images(np.ones((2, 4)), shape=4),
            fg.ConfigError,
            "shape: expected height and width",
        ),
        (
            lambda: viz.saliency(nn.Linear(2, 3), np.ones((5, 2))),
            fg.ShapeError,
            "x: expected one sample, for",
        ),
        (lambda: viz.saliency(nn.Linear(2, 3), [np.nan, 1]), fg.NonFiniteError, "x"),
    ],
)
def test_bad_input_is_named(call: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()


# Curves


def test_a_spark_line_is_the_curve() -> None:
    assert viz.spark_line([0, 1, 2, 3, 4, 5, 6, 7]) == "▁▂▃▄▅▆▇█"
    assert viz.spark_line([1.0, 1.0]) == "▁▁"
    assert viz.spark_line([2.0, float("nan"), 1.0, float("inf")]) == "█?▁?"
    assert viz.spark_line([0.0] * 50 + [1.0] * 50, width=4) == "▁▁██"
    assert viz.spark_line([]) == ""
    assert viz.spark_line([-1e308, 1e308]) == "▁█"
    assert viz.spark_line([1e308] * 200, width=2) == "▁▁"


def test_losses_and_scores_have_an_axis_each() -> None:
    model = network(2, 4, 2)
    trainer = fg.Trainer(model, nn.CrossEntropyLoss(), fg.optim.SGD(model.parameters(), lr=0.1))
    history = trainer.fit(X, Y, epochs=3, validation_data=(X, Y), seed=0, progress=False)
    ax = viz.loss_curves(history)
    right = ax.figure.axes[1]
    drawn = {line.get_label(): list(line.get_ydata()) for side in (ax, right) for line in side.get_lines()}
    assert drawn == history.history
    assert [line.get_label() for line in right.get_lines()] == ["accuracy", "val_accuracy"]
    assert list(ax.get_lines()[0].get_xdata()) == [1, 2, 3]


def test_an_estimators_curves_are_drawn() -> None:
    from ferrograd.sklearn import MLPRegressor

    found = MLPRegressor(hidden_layer_sizes=(4,), max_iter=5, early_stopping=True, random_state=0)
    with pytest.warns(UserWarning, match="Maximum iterations"):
        found.fit(X, X[:, 0])
    ax = viz.loss_curves(found)
    assert list(ax.get_lines()[0].get_ydata()) == found.loss_curve_
    assert ax.figure.axes[1].get_lines()[0].get_label() == "validation score"


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_live_plot_writes_a_spark_line_to_a_terminal_only() -> None:
    model = network(2, 4, 2)
    trainer = fg.Trainer(model, nn.CrossEntropyLoss(), fg.optim.SGD(model.parameters(), lr=0.1))
    terminal, file = _Terminal(), io.StringIO()
    for stream in (terminal, file):
        plot = viz.LossPlot(interval=0.0, stream=stream)
        history = trainer.fit(X, Y, epochs=4, seed=0, callbacks=[plot], progress=False)
        assert plot.history.history == history.history
    lines = terminal.getvalue().split("\r")
    assert len(lines) == 1 + 4 + 1
    assert lines[-1].startswith("loss █")
    assert lines[-1].endswith("\n")
    assert file.getvalue() == ""


def test_a_live_plot_in_a_notebook_updates_one_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[Any] = []

    class Handle:
        def update(self, figure: Any) -> None:
            shown.append(figure)

    def display(figure: Any, display_id: bool) -> Handle:
        assert display_id
        shown.append(figure)
        return Handle()

    module = type(sys)("IPython.display")
    module.display = display  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "IPython", type(sys)("IPython"))
    monkeypatch.setitem(sys.modules, "IPython.display", module)
    monkeypatch.setitem(sys.modules, "ipykernel", type(sys)("ipykernel"))
    model = network(2, 4, 2)
    trainer = fg.Trainer(model, nn.CrossEntropyLoss(), fg.optim.SGD(model.parameters(), lr=0.1))
    plot = viz.LossPlot(interval=0.0)
    trainer.fit(X, Y, epochs=3, seed=0, callbacks=[plot], progress=False)
    assert len(shown) == 4
    assert len(shown[-1].axes[0].get_lines()[0].get_xdata()) == 3
    assert not plt.get_fignums()


# Images


def test_each_unit_is_an_image_on_one_scale() -> None:
    layer = nn.Linear(12, 3)
    figure = viz.weight_images(layer, shape=(3, 4), titles=["a", "b", "c"])
    weights = layer.weight.detach().numpy()
    panels = [ax for ax in figure.axes if ax.get_title()]
    for panel, row in zip(panels, weights, strict=True):
        np.testing.assert_array_equal(np.asarray(panel.images[0].get_array()), row.reshape(3, 4))
        assert panel.images[0].get_clim() == (-abs(weights).max(), abs(weights).max())
    assert [panel.get_title() for panel in panels] == ["a", "b", "c"]


def test_an_estimators_first_weights_are_drawn() -> None:
    from ferrograd.sklearn import MLPClassifier

    found = MLPClassifier((5,), solver="lbfgs", max_iter=500, random_state=0).fit(X, Y)
    figure = viz.weight_images(found)
    assert len([ax for ax in figure.axes if ax.get_title()]) == 5
    np.testing.assert_array_equal(np.asarray(figure.axes[1].images[0].get_array())[0], found.coefs_[0][:, 1])


def test_confusions_are_counted_as_scikit_learn_counts_them() -> None:
    from sklearn.metrics import confusion_matrix

    rng = np.random.default_rng(0)
    true, predicted = rng.integers(0, 4, 50), rng.integers(0, 4, 50)
    found = viz.confusion_matrix(true, fg.tensor(predicted))
    np.testing.assert_array_equal(found.counts, confusion_matrix(true, predicted))
    assert found.to_dict()["counts"] == found.counts.tolist()
    assert found.to_dict()["accuracy"] == (true == predicted).mean()
    turned = viz.confusion_matrix(true, predicted, labels=[3, 2, 1, 0])
    np.testing.assert_array_equal(turned.counts, found.counts[::-1, ::-1])
    ax = found.plot()
    assert sorted(text.get_text() for text in ax.texts) == sorted(str(c) for c in found.counts.flat if c)


def test_saliency_is_the_gradient_by_centred_differences() -> None:
    model = network(9, 5, 3)
    sample = np.linspace(-1, 1, 9)
    slopes, ax = viz.saliency(model, sample, target=1)

    def score(x: Any) -> float:
        with fg.no_grad():
            return float(model(fg.tensor(x[None]))[0, 1].item())

    steps = 1e-6 * np.eye(9)
    numeric = [(score(sample + step) - score(sample - step)) / 2e-6 for step in steps]
    np.testing.assert_allclose(slopes, np.abs(numeric), atol=1e-8)
    assert np.asarray(ax.images[0].get_array()).shape == (3, 3)
    with fg.no_grad():
        best = int(model(fg.tensor(sample[None])).numpy().argmax())
    assert viz.saliency(model, sample)[1].get_title() == f"slope of score {best}"


# Functions


@pytest.mark.parametrize("function", ["softplus", nn.ELU(alpha=0.5), fg.ops.tanh])
def test_an_activation_is_drawn_with_its_slope(function: Any) -> None:
    ax = viz.activation(function, low=-2.0, high=2.0, count=401)
    value, slope = (line for line in ax.get_lines() if not line.get_label().startswith("_"))
    x, y = value.get_xdata(), value.get_ydata()
    numeric = np.gradient(y, x)
    # Away from the kink.
    far = np.abs(x) > 0.02
    np.testing.assert_allclose(slope.get_ydata()[far][1:-1], numeric[far][1:-1], atol=1e-4)


def test_a_constant_has_no_slope() -> None:
    ax = viz.activation(lambda x: fg.ones(x.shape[0]))
    assert not ax.get_lines()[-1].get_ydata().any()


def test_an_optimizer_that_evaluates_several_times_has_a_path_too() -> None:
    found = viz.optimizer_paths("valley", {"L-BFGS": lambda p: fg.optim.LBFGS(p, lr=0.5)}, steps=10)
    assert found.losses["L-BFGS"][-1] < 0.01 * found.losses["L-BFGS"][0]


def test_paths_are_those_of_the_optimizers() -> None:
    found = viz.optimizer_paths("valley", {"SGD": lambda p: fg.optim.SGD(p, lr=0.1)}, steps=4)
    place, expected = np.array([-8.0, 1.0]), []
    for _ in range(5):
        expected.append(place)
        place = place - 0.1 * np.array([0.01, 2.0]) * place
    np.testing.assert_allclose(found.paths["SGD"], expected, rtol=1e-12)
    np.testing.assert_allclose(found.losses["SGD"][-1], 0.005 * expected[-1][0] ** 2 + expected[-1][1] ** 2)
    assert found.to_dict()["SGD"]["path"][0] == [-8.0, 1.0]


def test_paths_are_drawn_whole_and_step_by_step() -> None:
    found = viz.optimizer_paths(lambda x, y: x * x + 3 * y * y, start=(1.0, 1.0), steps=10)
    ax = found.plot()
    names = [text.get_text() for text in ax.get_legend().get_texts()]
    assert (
        names
        == list(found.paths)
        == ["SGD", "momentum", "Nesterov", "Adagrad", "Adadelta", "RMSprop", "Adam"]
    )
    animation = found.animate()
    heads = animation._func(7)[1::2]  # type: ignore[attr-defined]
    for head, path in zip(heads, found.paths.values(), strict=True):
        assert [head.get_xdata()[0], head.get_ydata()[0]] == list(path[7])
    animation._draw_was_started = True  # type: ignore[attr-defined]


# Without matplotlib


def test_texts_need_no_matplotlib_and_pictures_name_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    assert "accuracy 1.0000" in str(viz.confusion_matrix([0, 1], [0, 1]))
    assert "Adam" in str(viz.optimizer_paths(steps=2))
    for draw in (
        lambda: viz.loss_curves([1.0]),
        lambda: viz.decision_boundary(half_plane, X),
        lambda: viz.weight_images(np.ones((2, 4))),
        lambda: viz.confusion_matrix([0], [0]).plot(),
        lambda: viz.optimizer_paths(steps=1).animate(),
    ):
        with pytest.raises(ImportError, match=r"needs matplotlib: pip install 'ferrograd\[plot\]'"):
            draw()
