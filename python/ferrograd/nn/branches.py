"""Modules that join what several modules return, and the builder of randomly wired networks."""

import numpy as np

from ferrograd import _core
from ferrograd._core import ConfigError, ShapeError, Tensor
from ferrograd._typing import DeviceLike, DTypeLike, TensorLike
from ferrograd.checks import check_int
from ferrograd.convert import operand
from ferrograd.nn.container import ModuleList, Sequential
from ferrograd.nn.functional import check_probability
from ferrograd.nn.layers import Linear, check_count
from ferrograd.nn.module import Module
from ferrograd.nn.parameter import Parameter

__all__ = ["Concat", "Parallel", "RandomDAG", "Residual"]


# A bit for each pair of nodes is drawn.
_MOST_NODES = 2**16


class Residual(Sequential):
    """``y = x + f(x)``, f the chain of the modules given; the gradient is ``g + f'(x) g``.

    He et al., "Deep Residual Learning for Image Recognition", 2015.

    Parameters
    ----------
    *args : Module, or one mapping of str to Module
        As for `Sequential`; the chain keeps the shape.

    Raises
    ------
    ShapeError
        When called, if the chain changes the shape.

    Examples
    --------
    >>> import ferrograd as fg
    >>> fg.nn.Residual(fg.nn.Linear(3, 3), fg.nn.ReLU())(fg.ones(2, 3)).shape
    (2, 3)
    """

    def forward(self, input: TensorLike) -> Tensor:
        """Return a tensor of the input's shape."""
        x = operand("input", input)
        y: Tensor = super().forward(x)
        if y.shape != x.shape:
            raise ShapeError(f"Residual: expected the chain to keep shape {x.shape}, got {y.shape}")
        return x + y


class Concat(ModuleList):
    """Give the input to several branches and join what they return; the input's gradients add up.

    Parameters
    ----------
    *branches : Module
        At least one.
    dim : int, default 1
        The dimension along which the results are joined.

    Raises
    ------
    ConfigError
        If there is no branch.

    Examples
    --------
    >>> import ferrograd as fg
    >>> fg.nn.Concat(fg.nn.Linear(3, 2), fg.nn.Linear(3, 4))(fg.ones(5, 3)).shape
    (5, 6)
    """

    def __init__(self, *branches: Module, dim: int = 1) -> None:
        if not branches:
            raise ConfigError("Concat: expected at least one branch")
        super().__init__(branches)
        self.dim = dim

    def forward(self, input: TensorLike) -> Tensor:
        """Return the branches' results side by side."""
        x = operand("input", input)
        return _core.cat([branch(x) for branch in self], self.dim)

    def extra_repr(self) -> str:
        """Return the dimension."""
        return f"dim={self.dim}"


class Parallel(ModuleList):
    """Give the i-th slice of the input to the i-th branch and join what they return.

    Parameters
    ----------
    *branches : Module
        As many as the input is long along `input_dim`.
    input_dim : int, default 1
        The dimension that is taken apart; the slices lack it.
    output_dim : int, default 1
        The dimension along which the results are joined.

    Raises
    ------
    ConfigError
        If there is no branch.
    ShapeError
        When called, if the input has not a slice for each branch.

    Examples
    --------
    >>> import ferrograd as fg
    >>> fg.nn.Parallel(fg.nn.Linear(3, 2), fg.nn.Linear(3, 4))(fg.ones(5, 2, 3)).shape
    (5, 6)
    """

    def __init__(self, *branches: Module, input_dim: int = 1, output_dim: int = 1) -> None:
        if not branches:
            raise ConfigError("Parallel: expected at least one branch")
        super().__init__(branches)
        self.input_dim = input_dim
        self.output_dim = output_dim

    def forward(self, input: TensorLike) -> Tensor:
        """Return the branches' results side by side."""
        x = operand("input", input)
        if not -x.ndim <= self.input_dim < x.ndim or x.shape[self.input_dim] != len(self):
            raise ShapeError(
                f"Parallel: expected length {len(self)} in dimension {self.input_dim}, got shape {x.shape}"
            )
        before = (slice(None),) * (self.input_dim % x.ndim)
        results = [branch(x[(*before, number)]) for number, branch in enumerate(self)]
        return _core.cat(results, self.output_dim)

    def extra_repr(self) -> str:
        """Return the dimensions."""
        return f"input_dim={self.input_dim}, output_dim={self.output_dim}"


class RandomDAG(Module):
    """A randomly wired network: nodes of linear map and ReLU, joined by random edges without a loop.

    A node's input is the sum of the results of the nodes that lead to it, each times the sigmoid of a learned
    number; a node without such takes the projected input. The results of nodes that lead nowhere are summed
    the same way and projected to the output. After Xie et al., "Exploring Randomly Wired Neural Networks for
    Image Recognition", 2019.

    Parameters
    ----------
    in_features, out_features : int
        Lengths of the last dimension of input and output.
    nodes : int, default 32
        Number of nodes.
    width : int, default 32
        Length of the nodes' results.
    p : float, default 0.2
        Probability of each edge from an earlier to a later node.
    seed : int, default 0
        Fixes the edges; weights are drawn from `manual_seed`'s generator.
    device, dtype : optional
        As for `Linear`.

    Attributes
    ----------
    edges : tuple of (int, int)
        From node, to node, the first one the smaller.
    mix : Parameter, shape (merges,)
        Zeros at first; number i belongs to edge i, those behind the edges to the output's summands.

    Raises
    ------
    ConfigError
        If a number is no count or `p` no probability.

    Examples
    --------
    >>> import ferrograd as fg
    >>> model = fg.nn.RandomDAG(4, 3, nodes=8, width=6)
    >>> model(fg.ones(2, 4)).shape
    (2, 3)
    """

    edges: tuple[tuple[int, int], ...]
    mix: Parameter

    def __init__(
        self,
        in_features: int,
        out_features: int,
        nodes: int = 32,
        width: int = 32,
        p: float = 0.2,
        seed: int = 0,
        device: DeviceLike | None = None,
        dtype: DTypeLike | None = None,
    ) -> None:
        super().__init__()
        self.nodes = check_count("RandomDAG", "nodes", nodes)
        if self.nodes > _MOST_NODES:
            raise ConfigError(f"RandomDAG: nodes must be at most {_MOST_NODES}, got {nodes!r}")
        self.width = check_count("RandomDAG", "width", width)
        self.p = check_probability("RandomDAG", p)
        check_int("seed", seed, low=0)
        drawn = np.random.default_rng(seed).random((self.nodes, self.nodes)) < p
        sources, targets = np.nonzero(np.triu(drawn, 1))
        order = np.lexsort((sources, targets))
        self.edges = tuple(zip(sources[order].tolist(), targets[order].tolist(), strict=True))
        ends = np.setdiff1d(np.arange(self.nodes), sources)
        self.ends = tuple(ends.tolist())
        n_merges = len(self.edges) + len(self.ends)
        self.mix = Parameter(_core.full((n_merges,), 0.0, dtype=dtype, device=device))
        self.first = Linear(in_features, self.width, device=device, dtype=dtype)
        self.layers = ModuleList(
            [Linear(self.width, self.width, device=device, dtype=dtype) for _ in range(self.nodes)]
        )
        self.last = Linear(self.width, out_features, device=device, dtype=dtype)

    def forward(self, input: TensorLike) -> Tensor:
        """Map ``(..., in_features)`` to ``(..., out_features)``."""
        projected: Tensor = self.first(input)
        shares = self.mix.sigmoid()
        merged: dict[int, Tensor] = {}
        results: list[Tensor] = []
        number = 0
        for node, layer in enumerate(self.layers):
            while number < len(self.edges) and self.edges[number][1] == node:
                part = results[self.edges[number][0]] * shares[number]
                merged[node] = merged[node] + part if node in merged else part
                number += 1
            results.append(layer(merged.get(node, projected)).relu())
        parts = [results[node] * shares[number + i] for i, node in enumerate(self.ends)]
        total = parts[0]
        for part in parts[1:]:
            total = total + part
        output: Tensor = self.last(total)
        return output

    def extra_repr(self) -> str:
        """Return the sizes."""
        return f"nodes={self.nodes}, edges={len(self.edges)}, width={self.width}"
