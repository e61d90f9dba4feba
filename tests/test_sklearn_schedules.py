"""Schedules of the estimators' rates, and the library's callbacks around their fits."""

import copy
import pickle
import warnings
from typing import Any

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.datasets import load_iris
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils._param_validation import InvalidParameterError

import ferrograd as fg
from ferrograd.optim import lr_scheduler
from ferrograd.sklearn import MLPClassifier, MLPRegressor

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

X, y = load_iris(return_X_y=True)
BOTH = pytest.mark.parametrize("kind", [MLPClassifier, MLPRegressor])

SCHEDULES: dict[str, Any] = {
    "cosine": "cosine",
    "cosine from warm": ("cosine", {"warmup_steps": 7, "start_factor": 0.3, "eta_min": 1e-3}),
    "onecycle": "onecycle",
    "onecycle by lines": ("onecycle", {"max_lr": 0.05, "anneal_strategy": "linear", "three_phase": True}),
    "plateau": ("plateau", {"patience": 0, "factor": 0.6, "threshold": 0.3}),
}
EACH = pytest.mark.parametrize("name", SCHEDULES)
EPOCHS, BATCH, RATE = 12, 40, 0.02


def fitted(kind: Any, name: str, **options: Any) -> Any:
    shared = {"max_iter": EPOCHS, "batch_size": BATCH, "learning_rate_init": RATE, "random_state": 0}
    return kind(**{"hidden_layer_sizes": (7,), **shared, "lr_schedule": SCHEDULES[name], **options}).fit(X, y)


def made(name: str, optimizer: fg.optim.Optimizer, momentum: bool) -> lr_scheduler.LRScheduler:
    """Return the schedule of `ferrograd.optim` that the estimator's is."""
    given = SCHEDULES[name]
    base, options = (given, {}) if isinstance(given, str) else given
    total = EPOCHS * 4
    if base == "cosine":
        return lr_scheduler.WarmupCosineLR(optimizer, **{"warmup_steps": 4, "total_steps": total, **options})
    if base == "onecycle":
        own = {"max_lr": RATE, "total_steps": total, "cycle_momentum": momentum}
        return lr_scheduler.OneCycleLR(optimizer, **{**own, **options})
    return lr_scheduler.ReduceLROnPlateau(optimizer, **options)


@pytest.mark.parametrize("solver", ["sgd", "adam"])
@EACH
def test_training_is_that_of_optimizer_and_schedule(name: str, solver: str) -> None:
    shared = {
        "solver": solver,
        "momentum": 0.0,
        "epsilon": 1e-30,
        "alpha": 0.0,
        "shuffle": False,
        "activation": "tanh",
    }
    start = MLPRegressor(hidden_layer_sizes=(7,))
    start.set_params(**shared, random_state=0, max_iter=1, batch_size=BATCH, learning_rate_init=1e-300).fit(
        X, y
    )
    module = start.to_module().train()
    if solver == "sgd":
        optimizer: fg.optim.Optimizer = fg.optim.SGD(module.parameters(), lr=RATE)
    else:
        optimizer = fg.optim.Adam(module.parameters(), lr=RATE, eps=1e-30)
    schedule = made(name, optimizer, momentum=solver == "adam")
    losses = []
    for _ in range(EPOCHS):
        total = 0.0
        for first in range(0, 150, BATCH):
            rows = slice(first, first + BATCH)
            target = fg.tensor(y[rows, None].astype(float))
            loss = (module(fg.tensor(X[rows])) - target).square().mean() / 2
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            if schedule.per_batch:
                schedule.step()
            total += loss.item() * len(target)
        losses.append(total / 150)
        if not schedule.per_batch:
            schedule.step(losses[-1])
    model = fitted(MLPRegressor, name, **shared)
    np.testing.assert_allclose(model.loss_curve_, losses, rtol=1e-9)
    assert model._optimizer.rate == pytest.approx(schedule.get_last_lr()[0], rel=1e-12, abs=1e-18)
    if name == "plateau":
        assert model._optimizer.rate < RATE


@pytest.mark.parametrize("solver", ["sgd", "adam"])
@EACH
@BOTH
def test_epochs_that_are_watched_have_the_same_rates(kind: Any, name: str, solver: str) -> None:
    model = fitted(kind, name, solver=solver)
    watched = fitted(kind, name, solver=solver, callbacks=[fg.History()])
    assert watched.loss_curve_ == model.loss_curve_
    assert model.loss_curve_ != fitted(kind, name, solver=solver, lr_schedule="constant").loss_curve_
    assert (watched.coefs_[0] == model.coefs_[0]).all()
    if solver == "adam":
        assert fitted(kind, name, n_threads=1).loss_curve_ == model.loss_curve_


def test_a_long_fit_hands_its_rates_over_in_parts(monkeypatch: Any) -> None:
    whole = fitted(MLPClassifier, "onecycle")
    monkeypatch.setattr("ferrograd.sklearn.schedules._UPDATES", 20)
    assert fitted(MLPClassifier, "onecycle").loss_curve_ == whole.loss_curve_


@EACH
def test_every_schedule_learns_and_one_that_is_constant_changes_nothing(name: str) -> None:
    model = fitted(MLPClassifier, name, max_iter=100, standardize=True)
    # The plateau's rate soon falls to nothing.
    assert model.score(X, y) > (0.8 if name == "plateau" else 0.93)
    plain = fitted(MLPClassifier, name, lr_schedule=None)
    assert fitted(MLPClassifier, name, lr_schedule="constant").loss_curve_ == plain.loss_curve_


@EACH
def test_a_schedule_over_all_epochs_is_meant_to_end(name: str) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert fitted(MLPClassifier, name).n_iter_ == EPOCHS
    assert [w.category for w in caught] == ([ConvergenceWarning] if name == "plateau" else [])


def test_a_plateau_is_that_of_the_validation_loss_where_there_is_one() -> None:
    options = {"lr_schedule": ("plateau", {"patience": 0, "threshold": 0.0, "factor": 0.5}), "solver": "sgd"}
    model = MLPRegressor(
        hidden_layer_sizes=(5,), max_iter=9, random_state=0, learning_rate_init=0.001, **options
    )
    # Targets of other signs: what is learned makes their loss larger.
    model.fit(X, y, X_val=X, y_val=-y)
    assert (np.diff(model.validation_loss_curve_)[1:] > 0).any()
    bad = sum(
        b >= min(model.validation_loss_curve_[:n]) for n, b in enumerate(model.validation_loss_curve_) if n
    )
    assert model._optimizer.rate == pytest.approx(0.001 * 0.5**bad)


@EACH
def test_partial_fit_goes_on_in_the_schedule(name: str, tmp_path: Any) -> None:
    whole = fitted(MLPClassifier, name, shuffle=False, tol=0.0)
    options = {"max_iter": EPOCHS, "batch_size": BATCH, "learning_rate_init": RATE, "random_state": 0}
    model = MLPClassifier((7,), **options, shuffle=False, lr_schedule=SCHEDULES[name])
    for epoch in range(EPOCHS):
        model.partial_fit(X, y, classes=[0, 1, 2])
        if epoch == 4:
            model.save(tmp_path / "model")
            model = MLPClassifier.load(tmp_path / "model")
        elif epoch == 6:
            model = pickle.loads(pickle.dumps(model))
    assert model.loss_curve_ == whole.loss_curve_
    if "onecycle" in name:
        before, curve = copy.deepcopy(model._optimizer), list(model.loss_curve_)
        with pytest.raises(fg.ConfigError, match="lr_schedule: OneCycleLR: total_steps is 48, got 52 steps"):
            model.partial_fit(X, y)
        assert model.loss_curve_ == curve
        assert (model._optimizer.rate, model._optimizer.t) == (before.rate, before.t)
    else:
        assert len(model.partial_fit(X, y).loss_curve_) == EPOCHS + 1
    # A fit begins anew.
    assert model.set_params(random_state=0).fit(X, y).loss_curve_ == whole.loss_curve_


def test_a_schedule_keeps_the_length_that_it_has_begun_with() -> None:
    schedule = ("cosine", {"warmup_steps": 20, "eta_min": 1e-4})
    model = MLPRegressor(max_iter=10, batch_size=15, lr_schedule=schedule, random_state=0).partial_fit(X, y)
    rates = [model._optimizer.rate]
    for _ in range(5):
        # One update a call, less than the warm-up; and what else is set now is for the next fit.
        model.set_params(batch_size=10, max_iter=2, lr_schedule="onecycle").partial_fit(X[:10], y[:10])
        rates.append(model._optimizer.rate)
    assert rates == pytest.approx([0.001 * n / 20 for n in range(10, 16)])
    with pytest.raises(InvalidParameterError, match="'lr_schedule' parameter of MLPRegressor must be one of"):
        model.set_params(lr_schedule="step").partial_fit(X[:10], y[:10])
    model.set_params(solver="sgd", lr_schedule=None).partial_fit(X[:10], y[:10])
    assert model._optimizer.rate == pytest.approx(0.001 * 16 / 20)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (
            {"lr_schedule": "step"},
            "one of 'constant', 'cosine', 'onecycle', 'plateau', one of them with a dict",
        ),
        ({"lr_schedule": ("cosine", 3)}, "one of 'constant', 'cosine'"),
        (
            {"lr_schedule": ("cosine", {"gamma": 1})},
            r"'cosine' with options among \['warmup_steps', .* Got 'gamma'",
        ),
        ({"lr_schedule": ("plateau", {"mode": "max"})}, "'plateau' with options among .* Got 'mode'"),
        ({"lr_schedule": ("plateau", {"factor": 2})}, r"'plateau' with options that it takes \(.*factor"),
        (
            {"lr_schedule": ("cosine", {"warmup_steps": 10**9})},
            r"'cosine' with options that it takes \(.*total_steps",
        ),
        (
            {"lr_schedule": ("onecycle", {"pct_start": "x"})},
            r"'onecycle' with options that it takes \(.*pct_start",
        ),
        (
            {"lr_schedule": "cosine", "solver": "sgd", "learning_rate": "adaptive"},
            "None with learning_rate='adaptive'",
        ),
        (
            {"lr_schedule": ("onecycle", {"cycle_momentum": True}), "solver": "sgd", "momentum": 0.0},
            "'onecycle' without cycle_momentum where momentum is 0",
        ),
        ({"lr_schedule": 0.1}, "an instance of 'str'"),
        ({"lr_schedule": "step", "solver": "lbfgs"}, "one of 'constant'"),
    ],
)
@pytest.mark.parametrize("is_fitted", [False, True])
def test_a_schedule_that_is_none_is_refused_and_changes_nothing(
    options: Any, text: str, is_fitted: bool
) -> None:
    model = MLPClassifier(max_iter=2, random_state=0)
    before = model.fit(X, y).predict(X) if is_fitted else None
    model.set_params(**options)
    state = dict(vars(model))
    with pytest.raises(
        InvalidParameterError, match=f"The 'lr_schedule' parameter of MLPClassifier must be {text}"
    ):
        model.fit(X, y)
    assert vars(model) == state
    if is_fitted:
        np.testing.assert_array_equal(model.predict(X), before)


def test_momenta_of_1_and_rates_of_lbfgs_are_let_be() -> None:
    for options in ({"solver": "sgd", "momentum": 1.0, "learning_rate_init": 1e-4}, {"solver": "lbfgs"}):
        shared = {"max_iter": 5, "random_state": 0, **options}
        model = MLPClassifier(**shared, lr_schedule=("cosine", {"warmup_steps": 0})).fit(X, y)
        assert model.predict(X).shape == (150,)
        same = model.loss_ == MLPClassifier(**shared).fit(X, y).loss_
        assert same == (options["solver"] == "lbfgs")


# Callbacks


class Record(fg.Callback):
    """Writes down what it is told."""

    def __init__(self, stop_after: int | None = None) -> None:
        self.seen: list[Any] = []
        self.stop_after = stop_after

    def on_train_begin(self, logs: Any) -> None:
        self.seen.append("begin")

    def on_train_end(self, logs: Any) -> None:
        self.seen.append("end")

    def on_epoch_begin(self, epoch: int, logs: Any) -> None:
        self.seen.append(epoch)

    def on_epoch_end(self, epoch: int, logs: Any) -> None:
        self.seen.append(sorted(logs))
        assert self.trainer.model.predict(X).shape == (150,)
        assert self.trainer.model.n_iter_ == epoch + 1 or self.trainer.model.solver == "lbfgs"
        self.trainer.stop_training = epoch + 1 == self.stop_after


class Kept(fg.Callback):
    """Keeps the weights of each epoch."""

    def __init__(self) -> None:
        self.coefs: dict[int, list[Any]] = {}

    def on_epoch_end(self, epoch: int, logs: Any) -> None:
        self.coefs[epoch] = [array.copy() for array in self.trainer.model.coefs_]


@pytest.mark.parametrize("solver", ["sgd", "adam", "lbfgs"])
@BOTH
def test_callbacks_are_told_of_each_epoch_and_may_stop(kind: Any, solver: str) -> None:
    record, history = Record(3), fg.History()
    model = kind(solver=solver, max_iter=10, random_state=0, callbacks=[record, history]).fit(X, y)
    epochs = [part for epoch in range(3) for part in (epoch, ["loss"])]

    assert record.seen == ["begin", *epochs, "end"]
    assert model.n_iter_ == 3
    expected = kind(solver=solver, max_iter=3, random_state=0).fit(X, y)
    np.testing.assert_array_equal(model.coefs_[0], expected.coefs_[0])
    if solver == "lbfgs":
        assert history.history["loss"][-1] == model.loss_
    else:
        assert history.history["loss"] == model.loss_curve_
    assert not hasattr(record, "trainer")


def test_logs_have_what_the_validation_gives() -> None:
    history = fg.History()
    model = MLPClassifier(max_iter=4, random_state=0, early_stopping=True, callbacks=[history])
    model.fit(X, y, X_val=X[::3], y_val=y[::3])
    assert history.history["val_loss"] == model.validation_loss_curve_
    assert history.history["val_score"] == model.validation_scores_
    model.set_params(early_stopping=False).partial_fit(X, y)
    assert history.epoch == [0, 1, 2, 3, 0]
    assert "val_loss" not in list(history.history)[2:]


@pytest.mark.parametrize("solver", ["adam", "lbfgs"])
def test_early_stopping_of_the_library_restores_the_best_weights(solver: str) -> None:
    stop, kept = fg.EarlyStopping(monitor="loss", patience=2, restore_best_weights=True), Kept()
    options = {"learning_rate_init": 0.5, "max_iter": 100, "random_state": 0, "solver": solver, "tol": 1e-12}
    model = MLPRegressor(**options, callbacks=[kept, stop]).fit(X, y)
    assert stop.best_epoch is not None
    assert all((a == b).all() for a, b in zip(model.coefs_, kept.coefs[stop.best_epoch], strict=True))
    if solver == "adam":
        assert stop.stopped_epoch == model.n_iter_ - 1 == stop.best_epoch + 2
    # A copy holds neither the fit nor the estimator.
    assert clone(model).callbacks[1].patience == 2
    assert (pickle.loads(pickle.dumps(model)).predict(X) == model.predict(X)).all()


@pytest.mark.parametrize(
    "network", [{"normalization": "batch"}, {"normalization": "layer"}, {"standardize": True}]
)
def test_what_normalises_is_restored_with_the_weights(network: dict[str, Any]) -> None:
    stop, history = fg.EarlyStopping(patience=3, restore_best_weights=True), fg.History()
    options = {"learning_rate_init": 0.2, "max_iter": 60, "random_state": 0, "callbacks": [stop, history]}
    model = MLPRegressor(**options, **network).fit(X, y, X_val=X[::3], y_val=y[::3])
    assert stop.best_epoch is not None
    assert stop.best_epoch < model.n_iter_ - 1
    expected = 0.5 * np.mean((model.predict(X[::3]) - y[::3]) ** 2)
    assert stop.best == pytest.approx(expected, rel=1e-9)


def test_a_callback_may_change_the_rate() -> None:
    class Halve(fg.Callback):
        def on_epoch_end(self, epoch: int, logs: Any) -> None:
            self.trainer.optimizer.param_groups[0]["lr"] *= 0.5

    options = {"hidden_layer_sizes": (5,), "max_iter": 6, "random_state": 0, "solver": "sgd"}
    model = MLPRegressor(**options, callbacks=[Halve()]).fit(X, y)
    assert model._optimizer.learning_rate == pytest.approx(0.001 * 0.5**6)
    plateau = (
        "plateau",
        {"patience": 0, "factor": 0.5, "threshold": 1e9, "threshold_mode": "abs", "eps": 0.0},
    )
    other = MLPRegressor(**options, lr_schedule=plateau).fit(X, y)
    assert model.loss_curve_[:2] == other.loss_curve_[:2]
    assert model.loss_curve_ != MLPRegressor(**options).fit(X, y).loss_curve_


@pytest.mark.parametrize("is_fitted", [False, True])
@pytest.mark.parametrize("event", ["on_train_begin", "on_epoch_begin", "on_epoch_end", "on_train_end"])
def test_an_error_in_a_callback_ends_the_fit_and_changes_nothing(event: str, is_fitted: bool) -> None:
    class Fails(fg.Callback):
        pass

    def fail(self: Any, *arguments: Any) -> None:
        raise LookupError(event)

    setattr(Fails, event, fail)
    model = MLPClassifier(max_iter=3, random_state=0)
    before = model.fit(X, y).predict_proba(X) if is_fitted else None
    failing = Fails()
    model.set_params(callbacks=[failing])
    state = dict(vars(model))
    with pytest.raises(LookupError, match=event):
        model.fit(X + 1, y)
    assert vars(model) == state
    assert not hasattr(failing, "trainer")
    if is_fitted:
        np.testing.assert_array_equal(model.predict_proba(X), before)


@BOTH
def test_callbacks_that_are_none_are_refused(kind: Any) -> None:
    for given in ([print], ["x"], [fg.History]):
        with pytest.raises(
            InvalidParameterError, match=r"'callbacks' parameter of .* a list of ferrograd\.Callback"
        ):
            kind(callbacks=given).fit(X, y)
    with pytest.raises(InvalidParameterError, match="'callbacks' parameter of"):
        kind(callbacks=fg.History()).fit(X, y)
    averaged = fg.optim.swa_utils.AveragedModel(fg.nn.Linear(2, 1))
    with pytest.raises(fg.ConfigError, match="expected a trainer of a Module, got one of MLP"):
        kind(callbacks=[fg.WeightAveraging(averaged)]).fit(X, y)


@BOTH
def test_callbacks_stay_behind_in_files_and_in_scikit_learns_class(kind: Any, tmp_path: Any) -> None:
    model = kind(max_iter=2, random_state=0, callbacks=[fg.History()]).fit(X, y)
    model.save(tmp_path / "model")
    assert kind.load(tmp_path / "model").callbacks is None
    np.testing.assert_allclose(model.to_sklearn().predict(X), model.predict(X), rtol=1e-9)
    with pytest.raises(fg.ConfigError, match=r"to_sklearn: lr_schedule: expected None"):
        kind(lr_schedule="cosine").to_sklearn()


def test_both_kinds_of_callbacks_may_look_on() -> None:
    pytest.importorskip("sklearn.callback")
    from sklearn.callback import ScoringMonitor

    history = fg.History()
    model = MLPClassifier(max_iter=3, random_state=0, callbacks=[history])
    model.set_callbacks(ScoringMonitor(scoring="accuracy")).fit(X, y)
    assert history.epoch == [0, 1, 2]
