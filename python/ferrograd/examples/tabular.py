"""A table of 178 wines in a pipeline of scikit-learn (extra ``sklearn``).

Shows the estimators in place of scikit-learn's: the same scores for the same `random_state`, and a search
over settings that scikit-learn does not have.
"""

from collections.abc import Sequence
from typing import Any

from ferrograd.examples.pictures import Parser, save
from ferrograd.sklearn import MLPClassifier


def main(argv: Sequence[str] | None = None) -> None:
    """Cross-validate both classifiers, search, and print the scores."""
    from sklearn.datasets import load_wine
    from sklearn.model_selection import GridSearchCV, cross_val_score, train_test_split
    from sklearn.neural_network import MLPClassifier as Theirs
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    out = Parser(__doc__).parse_args(argv).out
    X, y = load_wine(return_X_y=True)

    settings: dict[str, Any] = {
        "hidden_layer_sizes": (16,),
        "solver": "lbfgs",
        "max_iter": 200,
        "random_state": 0,
    }
    for name, kind in (("ferrograd", MLPClassifier), ("scikit-learn", Theirs)):
        scores = cross_val_score(make_pipeline(StandardScaler(), kind(**settings)), X, y, cv=5)
        print(f"{name:13} accuracy in 5 folds: {' '.join(f'{score:.3f}' for score in scores)}")

    X_train, X_test, y_train, y_test = train_test_split(X, y, test_size=0.3, random_state=0, stratify=y)
    search = GridSearchCV(
        make_pipeline(
            StandardScaler(), MLPClassifier((16,), learning_rate_init=0.01, max_iter=500, random_state=0)
        ),
        {"mlpclassifier__activation": ["relu", "tanh"], "mlpclassifier__dropout": [0.0, 0.2]},
        cv=3,
    )
    search.fit(X_train, y_train)
    for setting, value in search.best_params_.items():
        print(f"best {setting.removeprefix('mlpclassifier__')}: {value}")
    print(f"test accuracy {search.score(X_test, y_test):.3f}")

    if out:
        import ferrograd as fg

        save(fg.viz.loss_curves(search.best_estimator_[-1]), out / "tabular_loss.png")


if __name__ == "__main__":
    main()
