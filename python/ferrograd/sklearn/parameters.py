"""The documentation of the parameters that both estimators take."""

__all__ = ["documented"]

_SHARED = """
    hidden_layer_sizes : array-like of shape (n_layers - 2,) or int, default=(100,)
        Widths of the hidden layers.
    activation : str, (str, dict) or list of them, default='relu'
        Of the hidden layers: 'identity', 'logistic', 'tanh' or 'relu', and beyond scikit-learn's
        'leaky_relu', 'elu', 'selu', 'gelu', 'silu', 'softplus', 'maxout'; with a dict of the parameters that
        the function of that name in `ferrograd.nn.functional` takes; or a list with one for each hidden
        layer. A unit of a 'maxout' is the largest of `pieces` (2 by default) affine maps, whose weights are
        as many neighbouring columns of ``coefs_``.
    solver : {'lbfgs', 'sgd', 'adam'}, default='adam'
        'lbfgs' is SciPy's L-BFGS-B over all rows at once; the others are native and go by mini-batches.
    alpha : float, default=0.0001
        Adds ``alpha / 2 * sum(W ** 2) / n`` to a batch's loss, over all weights but no biases; n is the
        number of its rows, or the sum of their weights. The gradient is ``alpha * W / n``.
    batch_size : int or 'auto', default='auto'
        Rows in a mini-batch; 'auto' is ``min(200, n_samples)``. The last batch of an epoch may be short.
    learning_rate : {'constant', 'invscaling', 'adaptive'}, default='constant'
        For 'sgd'. 'invscaling' sets the rate to ``learning_rate_init / (t_ + 1) ** power_t`` after each
        epoch; 'adaptive' divides it by 5 where training would have stopped, until it is at most 1e-6.
    learning_rate_init : float, default=0.001
        The first rate.
    power_t : float, default=0.5
        The exponent of 'invscaling'.
    max_iter : int, default=200
        Epochs at most; iterations for 'lbfgs'.
    shuffle : bool, default=True
        Whether each epoch has an order of its own.
    random_state : int, RandomState or None, default=None
        Draws initial weights, the validation split and the orders as scikit-learn does. A RandomState goes on
        from where the fit has left it, also after an error; None is numpy's global one.
    tol : float, default=1e-4
        What counts as better for `n_iter_no_change`; the largest gradient at which 'lbfgs' stops.
    verbose : bool, default=False
        Whether to print the loss of each epoch.
    warm_start : bool, default=False
        Whether `fit` goes on from the present weights, with a new optimizer.
    momentum : float, default=0.9
        For 'sgd': ``v = momentum * v - rate * g``, ``W += v``.
    nesterovs_momentum : bool, default=True
        For 'sgd': ``W += momentum * v - rate * g`` with the new v.
    early_stopping : bool, default=False
        Whether to set a share of the rows aside, to stop by their score, and to restore the best weights.
    validation_fraction : float, default=0.1
        That share.
    beta_1, beta_2 : float, default=0.9, 0.999
        For 'adam': decay of the means of gradients and of their squares.
    epsilon : float, default=1e-8
        For 'adam': ``W -= rate * sqrt(1 - beta_2 ** t) / (1 - beta_1 ** t) * m / (sqrt(v) + epsilon)``.
    n_iter_no_change : int or np.inf, default=10
        Training stops after more than so many epochs in a row that are not better by `tol`.
    max_fun : int, default=15000
        Evaluations at most, for 'lbfgs'.
"""

_OWN = """
    dropout : float or list of float, default=0.0
        For 'sgd' and 'adam': share of each hidden layer's outputs that is set to 0 in training, the others
        grow by ``1 / (1 - dropout)``; one for all layers, or one each. `random_state` draws a seed for it.
    input_dropout : float, default=0.0
        The same of the inputs.
    weight_decay : float, default=0.0
        For 'sgd' and 'adam': ``W -= rate * weight_decay * W`` before each step, apart from the gradient; over
        weights but no biases.
    early_stopping_metric : 'loss', str, callable or None, default=None
        What `early_stopping` goes by: the validation loss, negative; a scorer or its name; None is the
        accuracy or R squared.
    dtype : {'float32', 'float64'} or None, default=None
        Of weights and arithmetic, whatever that of X; None takes that of X. X is converted batch by batch.
    coefs_init, intercepts_init : list of array-like, default=None
        Initial weights of shape (n_inputs, n_outputs) and biases of shape (n_outputs,) of each layer, in
        place of drawn ones.
    clip_norm : float or None, default=None
        For 'sgd' and 'adam': the largest Euclidean norm of the whole gradient; a longer one is scaled down.
    max_time : float or None, default=None
        Seconds after which training stops, at the end of the epoch (of the iteration for 'lbfgs').
    n_threads : int or None, default=None
        Threads at most, by default those of `ferrograd.set_num_threads`; no result changes.
    normalization : {'batch', 'layer'} or None, default=None
        Of what each hidden layer's activation is given, of a 'maxout' of what it gives: by
        `ferrograd.nn.BatchNorm1d`, for 'sgd' and 'adam', or by `ferrograd.nn.LayerNorm`, with their learned
        weights and biases, which no penalty or decay touches; the arrays are in `normalizations_`, from where
        `warm_start` and `partial_fit` go on. Predictions take the running means and variances of 'batch'. It
        needs two rows in each batch.
    out_activation : str, (str, dict) or None, default=None
        Of the output, in place of the one that goes with the loss; the loss is of what it gives. A dict has
        the parameters that the function of that name takes, as for `activation`. A fit that goes on from
        another keeps it. {out}
    l1 : float, default=0.0
        Adds ``l1 * sum(abs(W)) / n`` to a batch's loss, with the weights and n of `alpha`. The gradient is
        ``l1 * sign(W) / n``, 0 at 0: weights come near to 0 but seldom to it.
    standardize : bool, default=False
        Whether X less `mean_` over `scale_` is trained on: means and standard deviations, by `sample_weight`,
        of the rows of the first `fit` or `partial_fit` (without those set aside), as scikit-learn's
        StandardScaler takes them. `warm_start` and later calls keep them, and predictions apply them; to
        sparse rows too, batch by batch.
    lr_schedule : str, (str, dict) or None, default=None
        For 'sgd', whose `learning_rate` is then 'constant', and 'adam': 'cosine', 'onecycle' or 'plateau',
        with a dict of options of `WarmupCosineLR`, `OneCycleLR` or `ReduceLROnPlateau`, which are in
        `ferrograd.optim.lr_scheduler`; 'constant' is none. The first two have a rate for each update inside
        the native epochs, over `max_iter` epochs in all, of which the last gives no ConvergenceWarning then:
        'cosine' rises to `learning_rate_init` for a tenth of the updates and falls to 0; of 'onecycle' it is
        the largest rate. 'plateau' follows the validation loss, if there is one, else the training loss,
        after each epoch, which then run one by one. `fit` begins anew; `partial_fit` goes on in the schedule
        of the first call, after whose end 'cosine' keeps its last rate and 'onecycle' refuses.
    callbacks : list of ferrograd.Callback or None, default=None
        Told of the fit and each epoch, for 'lbfgs' each iteration: `logs` has 'loss', 'val_loss' where there
        is a validation loss, and with `early_stopping` 'val_score'. Their `trainer` stands for this fit: it
        has `model`, the estimator, `optimizer`, whose rate is followed, and `stop_training`. Epochs then run
        one by one; a call of `partial_fit` is a training of one. `set_callbacks` sets scikit-learn's own.
"""

_FITTED = """
    loss_, best_loss_ : float
        The last loss of an epoch and the lowest; the latter is None with `early_stopping`.
    loss_curve_ : list of float
        For each epoch the mean over the rows of the batches' losses before their updates, penalty included.
        Not there for 'lbfgs'.
    validation_scores_, best_validation_score_ : list of float, float
        Scores of the rows set aside; None without `early_stopping`.
    t_ : int
        Rows that training has seen.
    validation_loss_curve_ : list of float
        Loss of the validation data after each epoch, where `fit` was given some or 'loss' is the metric.
    coefs_ : list of ndarray of shape (n_inputs, n_outputs)
        Weights of each layer; they may be changed.
    intercepts_ : list of ndarray of shape (n_outputs,)
        Biases of each layer.
    n_features_in_, n_outputs_, n_layers_ : int
        Columns of X and of y, and layers, the inputs counted.
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Names of the columns, where X has names that are strings.
    n_iter_ : int
        Epochs, or iterations, of the last fit.
    out_activation_ : str or (str, dict)
        Of the last layer; with a dict where there are parameters.
    normalizations_ : list of dict of ndarray of shape (n_units,)
        With `normalization`, for each hidden layer 'weight' and 'bias', and of 'batch' 'running_mean' and
        'running_var'.
    mean_, scale_ : ndarray of shape (n_features_in_,)
        With `standardize`.
"""


# What `out_activation` may be.
_OUT = {
    "MLPClassifier": """With a
        hinge loss 'tanh', 'leaky_relu', 'elu', 'selu', 'gelu' or 'silu'; with 'log_loss' there is no other
        than its own, 'softmax' for more than two classes, else 'logistic'.""",
    "MLPRegressor": """One of
        'exp' and the names of `activation` but 'maxout'; with 'poisson' 'exp', 'softplus' or 'logistic'.""",
}


def documented(cls: type) -> type:
    """Put the shared parameters and attributes into a class's docstring."""
    if cls.__doc__ is not None:
        own = _OWN.replace("{out}", _OUT[cls.__name__])
        for place, text in (("shared", _SHARED), ("own", own), ("fitted", _FITTED)):
            cls.__doc__ = cls.__doc__.replace(f"\n    {{{place}}}\n", text)
    return cls
