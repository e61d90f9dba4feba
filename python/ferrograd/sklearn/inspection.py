"""What a fitted network is made of and computes: as a module, layer by layer, by its inputs."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from sklearn.utils.validation import check_is_fitted

from ferrograd import _core, nn
from ferrograd._core import Tensor
from ferrograd._typing import Array
from ferrograd.autograd import grad, no_grad
from ferrograd.sklearn.activations import Activation, Out
from ferrograd.sklearn.network import NORMS, Layers, Network, parameters_of
from ferrograd.threads import threads

__all__ = ["InspectionMixin", "folded"]

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


def folded(estimator: Any) -> tuple[list[Array], list[Array]]:
    """Return weights and biases of the network of inputs that are not standardized: it is in the first layer.

    ``(x - m) / s @ W + b = x @ (W / s) + (b - (m / s) @ W)``.
    """
    coefs, intercepts = list(estimator.coefs_), list(estimator.intercepts_)
    if "scale_" in vars(estimator):
        scale = estimator.scale_.astype(float)
        coefs[0] = (estimator.coefs_[0] / scale[:, None]).astype(estimator.coefs_[0].dtype)
        shift = (estimator.mean_ / scale) @ estimator.coefs_[0]
        intercepts[0] = (estimator.intercepts_[0] - shift).astype(estimator.intercepts_[0].dtype)
    return coefs, intercepts


def _set(module: nn.Module, arrays: dict[str, Array], dtype: _core.DType) -> None:
    """Give a module's parameters and buffers values."""
    state = module.state_dict()
    with no_grad():
        for name, array in arrays.items():
            state[name].copy_(_core.tensor(np.ascontiguousarray(array), dtype=dtype))


class InspectionMixin:
    """The methods of an estimator that look into its network."""

    coefs_: list[Array]
    intercepts_: list[Array]
    normalizations_: list[dict[str, Array]]
    mean_: Array
    scale_: Array
    out_activation_: Out
    _out: Callable[[], Activation]
    dtype: Any
    n_threads: int | None
    _layers: Callable[[], Layers]
    _check_rows: Callable[[Any], Any]
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
            where the estimator drops out, an `nn.BatchNorm1d` or `nn.LayerNorm` where it normalises, and an
            `nn.Maxout` in place of weight and activation for 'maxout'; evaluation mode, of the dtype of
            ``coefs_``. What `standardize` does is in the first weight and bias, ``W / scale_`` and
            ``b - (mean_ / scale_) @ W``; with `input_dropout` an `nn.Bias` and an `nn.CMul` do it.

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
        layers, dropout = self._layers(), self._dropout()
        coefs, intercepts = folded(self)
        dtype = _core.float32 if coefs[0].dtype == np.float32 else _core.float64
        found: list[nn.Module] = []
        if layers.is_standardized and dropout and dropout[0]:
            # What is dropped are inputs that are standardized.
            coefs, intercepts = self.coefs_, self.intercepts_
            found = [nn.Bias(len(self.mean_), dtype=dtype), nn.CMul(len(self.scale_), dtype=dtype)]
            for module, arrays in zip(
                found, ({"bias": -self.mean_}, {"weight": 1 / self.scale_}), strict=True
            ):
                _set(module.requires_grad_(False), arrays, dtype)
        for number, (weight, bias) in enumerate(zip(coefs, intercepts, strict=True)):
            if dropout and dropout[number]:
                found.append(nn.Dropout(dropout[number]))
            kind = layers.activations[number] if number < len(layers.activations) else Activation("identity")
            linear = nn.Linear(weight.shape[0], weight.shape[1], dtype=dtype)
            _set(linear, {"weight": weight.T, "bias": bias}, dtype)
            norms = []
            if layers.normalization and number < len(layers.activations):
                arrays = self.normalizations_[number]
                norms = [NORMS[layers.normalization](len(arrays["weight"]), dtype=dtype)]
                _set(norms[0], arrays, dtype)
            if kind.name == "maxout":
                maxout = nn.Maxout(weight.shape[0], weight.shape[1] // kind.pieces, kind.pieces)
                maxout.linear = linear
                found += [maxout, *norms]
            elif number < len(layers.activations):
                found += [linear, *norms, _MODULES[kind.name](**dict(kind.parameters))]
            else:
                found.append(linear)
        return nn.Sequential(*found).eval()

    def activations(self, X: Any) -> list[Array]:
        """Return what each layer of the fitted network gives for rows.

        With ``h[0]`` the inputs, standardized if the estimator does so, layer k gives
        ``h[k + 1] = f(h[k] @ coefs_[k] + intercepts_[k])``, where f is the activation of the layer with its
        normalisation, for the last one ``out_activation_``.

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
        X, network, dtype = self._rows_and_network(X)
        widths = [*(weight.shape[0] for weight in self.coefs_[1:]), self.coefs_[-1].shape[1]]
        found = [np.empty((X.shape[0], width), dtype) for width in widths]
        with threads(self.n_threads), no_grad():
            for rows, x in self._blocks(X, network):
                *hidden, scores = network.outputs(x)
                for values, layer in zip(found, [*hidden, self._out()(scores)], strict=True):
                    values[rows] = layer.numpy()
        return found

    def input_gradient(self, X: Any) -> Array:
        """Return the gradient of the fitted network's outputs by its inputs.

        The outputs are those after the output activation, the last of `activations`: probabilities for
        'log_loss', of the second class if there are two; predictions of a regressor; scores of a hinge loss.
        Without normalisation the scores z have ``dz/dx = W[-1]^T diag(f'(a[-1])) ... diag(f'(a[0])) W[0]^T``,
        a the inputs of the activations f, over ``scale_`` where rows are standardized; an output p has
        ``dp/dx = sum over j of dp/dz[j] * dz[j]/dx``.

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
        X, network, dtype = self._rows_and_network(X)
        outputs = self.coefs_[-1].shape[1]
        found = np.empty((X.shape[0], outputs, X.shape[1]), dtype)
        with threads(self.n_threads):
            for rows, x in self._blocks(X, network):
                x.requires_grad_()
                # A row's output depends on no other row: the gradient of the sum holds that of each.
                total = self._out()(network.outputs(x)[-1]).sum(0)
                for number in range(outputs):
                    [gradient] = grad(total[number], [x], retain_graph=number + 1 < outputs)
                    assert gradient is not None
                    found[rows, number] = gradient.numpy()
        return found[:, 0] if outputs == 1 else found

    def _rows_and_network(self, X: Any) -> tuple[Any, Network, Any]:
        """Return checked rows, the network in the dtype of predictions, and that dtype."""
        check_is_fitted(self)
        X = self._check_rows(X)
        X = X if isinstance(X, np.ndarray) else X.tocsr()
        kind = np.dtype(self.dtype or np.result_type(X.dtype, self.coefs_[0].dtype))
        is_short = kind == np.float32
        trained, others = parameters_of(self)
        network = Network(self._layers(), trained + others, _core.float32 if is_short else _core.float64)
        return X, network, np.float32 if is_short else np.float64

    @staticmethod
    def _blocks(X: Any, network: Network) -> Iterator[tuple[slice, Tensor]]:
        for start in range(0, X.shape[0], _ROWS):
            rows = slice(start, start + _ROWS)
            block = X[rows] if isinstance(X, np.ndarray) else X[rows].toarray()
            yield rows, _core.tensor(np.ascontiguousarray(block), dtype=network.parameters[0].dtype)
