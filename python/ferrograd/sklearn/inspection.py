"""What a fitted network is made of and computes: as a module, layer by layer, by its inputs."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from sklearn.utils.validation import check_is_fitted, validate_data

from ferrograd import _core, nn
from ferrograd._core import Tensor
from ferrograd._typing import Array
from ferrograd.autograd import grad, no_grad
from ferrograd.sklearn.activations import OUT, Activation
from ferrograd.threads import threads

__all__ = ["InspectionMixin"]

# Rows at a time: intermediate values are of so many rows, whatever the length of X.
_ROWS = 1024

_MODULES: dict[str, Callable[..., nn.Module]] = {
    "identity": nn.Identity,
    "logistic": nn.Sigmoid,
    "tanh": nn.Tanh,
    "relu": nn.ReLU,
    "leaky_relu": nn.LeakyReLU,
    "elu": nn.ELU,
    "selu": nn.SELU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "softplus": nn.Softplus,
}

_Layer = tuple[Tensor, Tensor, Callable[[Tensor], Tensor]]


def _forward(x: Tensor, layers: list[_Layer]) -> list[Tensor]:
    """Return what each layer gives."""
    found: list[Tensor] = []
    for weight, bias, activation in layers:
        x = activation(x @ weight + bias)
        found.append(x)
    return found


class InspectionMixin:
    """The methods of an estimator that look into its network."""

    coefs_: list[Array]
    intercepts_: list[Array]
    out_activation_: str
    dtype: Any
    n_threads: int | None
    _activations: Callable[[], tuple[Activation, ...]]
    _dropout: Callable[[], tuple[float, ...]]

    def to_module(self) -> nn.Sequential:
        """Return the fitted network as a module with copies of its parameters.

        Returns
        -------
        nn.Sequential
            Maps ``(n_samples, n_features)`` to the scores ``(n_samples, n_outputs)``, before the output
            activation, as `nn.CrossEntropyLoss`, `nn.BCEWithLogitsLoss` and `nn.PoissonNLLLoss` take them:
            ``out_activation_`` of them is what the estimator predicts from. It alternates `nn.Linear`, whose
            weight is the transpose of that of ``coefs_``, with the activations, and has an `nn.Dropout`
            where the estimator drops out; evaluation mode, of the dtype of ``coefs_``.

        Raises
        ------
        NotFittedError
            If the estimator is not fitted.

        Examples
        --------
        >>> import numpy as np
        >>> import ferrograd as fg
        >>> from ferrograd.sklearn import MLPRegressor
        >>> X = np.linspace(-1, 1, 50)[:, None]
        >>> model = MLPRegressor(hidden_layer_sizes=(5,), solver="lbfgs", random_state=0).fit(X, X[:, 0] ** 2)
        >>> module = model.to_module()
        >>> [type(layer).__name__ for layer in module]
        ['Linear', 'ReLU', 'Linear']
        >>> bool(np.allclose(module(fg.tensor(X)).detach().numpy()[:, 0], model.predict(X)))
        True
        """
        check_is_fitted(self)
        kinds, dropout = self._activations(), self._dropout()
        dtype = _core.float32 if self.coefs_[0].dtype == np.float32 else _core.float64
        found: list[nn.Module] = []
        for number, (weight, bias) in enumerate(zip(self.coefs_, self.intercepts_, strict=True)):
            if number:
                name, options = kinds[number - 1]
                found.append(_MODULES[name](**dict(options)))
            if dropout and dropout[number]:
                found.append(nn.Dropout(dropout[number]))
            linear = nn.Linear(weight.shape[0], weight.shape[1], dtype=dtype)
            with no_grad():
                linear.weight.copy_(_core.tensor(np.ascontiguousarray(weight.T), dtype=dtype))
                assert linear.bias is not None
                linear.bias.copy_(_core.tensor(bias, dtype=dtype))
            found.append(linear)
        return nn.Sequential(*found).eval()

    def activations(self, X: Any) -> list[Array]:
        """Return what each layer of the fitted network gives for rows.

        With ``h[0]`` the inputs, layer k gives ``h[k + 1] = f(h[k] @ coefs_[k] + intercepts_[k])``, where f
        is the activation of the layer, for the last one ``out_activation_``.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Inputs.

        Returns
        -------
        list of ndarray of shape (n_samples, n_units)
            One for each hidden layer and one for the output, without the inputs, as in scikit-learn's
            forward pass; dropout has no part in it.

        Raises
        ------
        NotFittedError
            If the estimator is not fitted.
        ValueError
            If X is refused by `predict`.

        Examples
        --------
        >>> import numpy as np
        >>> from ferrograd.sklearn import MLPRegressor
        >>> X = np.linspace(-1, 1, 50)[:, None]
        >>> model = MLPRegressor(hidden_layer_sizes=(5, 4), solver="lbfgs", random_state=0).fit(X, X[:, 0])
        >>> [values.shape for values in model.activations(X)]
        [(50, 5), (50, 4), (50, 1)]
        """
        X, layers, dtype = self._rows_and_layers(X)
        found = [np.empty((X.shape[0], weight.shape[1]), dtype) for weight, _, _ in layers]
        with threads(self.n_threads), no_grad():
            for rows, x in self._blocks(X, layers):
                for values, layer in zip(found, _forward(x, layers), strict=True):
                    values[rows] = layer.numpy()
        return found

    def input_gradient(self, X: Any) -> Array:
        """Return the gradient of the fitted network's outputs by its inputs.

        The outputs are those after the output activation, the last of `activations`: probabilities for
        'log_loss', of the second class if there are two; predictions of a regressor; scores of a hinge loss.
        With the scores z, ``dz/dx = W[-1]^T diag(f'(a[-1])) ... diag(f'(a[0])) W[0]^T``, a the inputs of the
        activations f; an output p has ``dp/dx = sum over j of dp/dz[j] * dz[j]/dx``.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Inputs. A block of rows is computed at a time: apart from the result, memory does not grow with X.

        Returns
        -------
        ndarray of shape (n_samples, n_outputs, n_features) or (n_samples, n_features)
            The latter where the network has one output.

        Raises
        ------
        NotFittedError
            If the estimator is not fitted.
        ValueError
            If X is refused by `predict`.

        Examples
        --------
        >>> import numpy as np
        >>> from ferrograd.sklearn import MLPRegressor
        >>> X = np.random.RandomState(0).uniform(-1, 1, (200, 2))
        >>> y = 3 * X[:, 0] - X[:, 1]
        >>> model = MLPRegressor(activation="identity", solver="lbfgs", alpha=0, random_state=0).fit(X, y)
        >>> (model.input_gradient(X[:2]).round(2) + 0.0).tolist()
        [[3.0, -1.0], [3.0, -1.0]]
        """
        X, layers, dtype = self._rows_and_layers(X)
        outputs = layers[-1][0].shape[1]
        found = np.empty((X.shape[0], outputs, X.shape[1]), dtype)
        with threads(self.n_threads):
            for rows, x in self._blocks(X, layers):
                x.requires_grad_()
                # A row's output depends on no other row: the gradient of the sum holds that of each.
                total = _forward(x, layers)[-1].sum(0)
                for number in range(outputs):
                    [gradient] = grad(total[number], [x], retain_graph=number + 1 < outputs)
                    assert gradient is not None
                    found[rows, number] = gradient.numpy()
        return found[:, 0] if outputs == 1 else found

    def _rows_and_layers(self, X: Any) -> tuple[Any, list[_Layer], Any]:
        """Return checked rows, the layers in the dtype of predictions, and that dtype."""
        check_is_fitted(self)
        X = validate_data(self, X, accept_sparse=["csr", "csc"], reset=False)
        X = X if isinstance(X, np.ndarray) else X.tocsr()
        kind = np.dtype(self.dtype or np.result_type(X.dtype, self.coefs_[0].dtype))
        is_short = kind == np.float32
        dtype = _core.float32 if is_short else _core.float64
        kinds: list[Any] = [*self._activations(), OUT[self.out_activation_]]
        layers: list[_Layer] = [
            (_core.tensor(np.asarray(weight), dtype=dtype), _core.tensor(np.asarray(bias), dtype=dtype), f)
            for weight, bias, f in zip(self.coefs_, self.intercepts_, kinds, strict=True)
        ]
        return X, layers, np.float32 if is_short else np.float64

    @staticmethod
    def _blocks(X: Any, layers: list[_Layer]) -> Iterator[tuple[slice, Tensor]]:
        for start in range(0, X.shape[0], _ROWS):
            rows = slice(start, start + _ROWS)
            block = X[rows] if isinstance(X, np.ndarray) else X[rows].toarray()
            yield rows, _core.tensor(np.ascontiguousarray(block), dtype=layers[0][0].dtype)
