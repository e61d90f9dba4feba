"""Base of the optimizers: parameter groups, state per parameter, saving and loading. Updates are native."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, ClassVar, TypeAlias

from ferrograd import _core
from ferrograd._core import AnomalyError, ConfigError, ShapeError, Tensor
from ferrograd.autograd import enable_grad, no_grad
from ferrograd.checks import as_list, check_callable
from ferrograd.convert import operand

__all__ = ["Optimizer", "ParamsLike"]

ParamsLike: TypeAlias = Iterable[Tensor] | Iterable[dict[str, Any]]


class Optimizer(ABC):
    """Base class: a subclass names its state and defines `check_group` and `rule`.

    Parameters
    ----------
    params : iterable of Tensor, or of dict
        Leaves to train; or groups ``{"params": [...], "lr": ...}`` with options of their own.
    defaults : dict
        Options of groups that do not give them.

    Attributes
    ----------
    param_groups : list of dict
        Each holds ``"params"``, a list of tensors, and the options; options may be changed between steps.
    state : dict
        For each parameter that has been updated, a dict of tensors and a step count.

    Notes
    -----
    Gradient accumulation: `backward` adds to the gradients, so several small batches make one step of a
    large one. With losses that are means over k batches of one size, divide each by k:

    >>> import ferrograd as fg
    >>> model = fg.nn.Linear(3, 1)
    >>> optimizer, loss = fg.optim.SGD(model.parameters(), lr=0.1), fg.nn.MSELoss()
    >>> x, y = fg.randn(8, 3), fg.randn(8, 1)
    >>> for part in range(4):
    ...     rows = slice(2 * part, 2 * part + 2)
    ...     (loss(model(x[rows]), y[rows]) / 4).backward()
    >>> optimizer.step()
    >>> optimizer.zero_grad()

    Layers that mix rows, such as batch normalisation, see the small batches. ``Trainer.fit(accumulate=4)``
    does the same without Python.
    """

    def __init__(self, params: ParamsLike, defaults: dict[str, Any]) -> None:
        self.defaults = defaults
        self.param_groups: list[dict[str, Any]] = []
        self.state: dict[Tensor, dict[str, Any]] = {}
        if isinstance(params, Tensor | Mapping):
            raise ConfigError(
                f"{self._name()}: params must be several tensors or dicts, got one {type(params).__name__}"
            )
        groups: list[Any] = as_list(f"{self._name()}: params", "tensors or dicts", params)
        if not groups:
            raise ConfigError(f"{self._name()}: params is empty")
        if not isinstance(groups[0], dict):
            groups = [{"params": groups}]
        for group in groups:
            self.add_param_group(group)

    # What a subclass defines

    buffers: ClassVar[tuple[str, ...]] = ()
    """Names of the tensors that the state of a parameter may have, in the order an update takes them."""

    scalars: ClassVar[tuple[str, ...]] = ()
    """Names of the numbers, beside ``step``, that an update hands to the next."""

    is_element_wise: ClassVar[bool] = True
    """Whether an element's update depends on its own gradient alone."""

    evaluates_again: ClassVar[bool] = False
    """Whether a step asks for losses and gradients at several points."""

    @abstractmethod
    def check_group(self, group: Mapping[str, Any]) -> None:
        """Raise `ConfigError` if an option of the group is out of range; the message names it."""

    def buffer_names(self, group: Mapping[str, Any]) -> tuple[str, ...]:
        """Return the names of the buffers that an update uses, in the order it takes them."""
        return self.buffers

    def fresh_buffer(self, name: str, group: Mapping[str, Any], param: Tensor) -> Tensor:
        """Return a buffer as it is before the first update: zeros in the shape of the parameter."""
        return _core.zeros_like(param)

    def fresh_scalars(self, group: Mapping[str, Any]) -> dict[str, float]:
        """Return the scalars as they are before the first update."""
        return {}

    def rule(self, group: Mapping[str, Any], param: Tensor) -> dict[str, Any]:
        """Return the next update of a parameter in the native form: ``"kind"`` and the kernel's options.

        An optimizer whose `step` sees all parameters at once has none.
        """
        raise ConfigError(f"{self._name()}: expected a rule for single parameters, it has none")

    # What is common

    def init_state(self, param: Tensor) -> dict[str, Any]:
        """Return the state of a parameter, created if there is none: ``step``, scalars and buffers.

        Without buffers there is no state.
        """
        return self._state_of(self._group_of(param), param)

    def _state_of(self, group: Mapping[str, Any], param: Tensor) -> dict[str, Any]:
        state = self.state.get(param)
        names = self.buffer_names(group)
        if state is None:
            if not names:
                return {}
            state = self.state[param] = {"step": 0, **self.fresh_scalars(group)}
        for name in names:
            if name not in state:
                state[name] = self.fresh_buffer(name, group, param)
        return state

    def update_group(self, group: dict[str, Any], params: list[Tensor], grads: list[Tensor]) -> None:
        """Update the parameters of a group that have a gradient, in place."""
        names = self.buffer_names(group)
        states = [self._state_of(group, param) for param in params]
        # One rule for all, but where a parameter got its first gradient later than others.
        together: dict[tuple[Any, ...], list[int]] = {}
        for row, (param, state) in enumerate(zip(params, states, strict=True)):
            numbers = [state[name] for name in ("step", *self.scalars) if name in state]
            shape = () if self.is_element_wise else param.shape
            together.setdefault((*numbers, shape), []).append(row)
        for rows in together.values():
            carried = _core.optimizer_update(
                self.rule(group, params[rows[0]]),
                [params[row] for row in rows],
                [grads[row] for row in rows],
                [[states[row][name] for row in rows] for name in names],
            )
            for row in rows:
                self.count_steps(params[row], 1, carried)

    def state_tensors(self, param: Tensor) -> list[Tensor]:
        """Return the buffers of a parameter that its updates use, created if there are none."""
        names = self.buffer_names(self._group_of(param))
        state = self.init_state(param)
        return [state[name] for name in names]

    def steps_of(self, param: Tensor) -> int:
        """Return how often a parameter was updated, where the state counts it; else 0."""
        return int(self.state.get(param, {}).get("step", 0))

    def count_steps(self, param: Tensor, made: int, carried: Sequence[float] = ()) -> None:
        """Add updates to the count of a parameter, and take over the scalars of the last one."""
        state = self.state.get(param, {})
        if "step" in state:
            state["step"] += made
        state.update(zip(self.scalars, carried, strict=False))

    def hand_over(self, engine: _core.Engine, params: list[Tensor], rates: Tensor | None) -> None:
        """Set a native loop's rules, one for each parameter, and perhaps their rates in each batch."""
        engine.set_minimizer(None)
        # Step counts differ where a parameter joined later.
        groups = {id(param): group for group in self.param_groups for param in group["params"]}
        engine.set_rules([self.rule(groups[id(param)], param) for param in params], rates)

    def take_back(self, engine: _core.Engine, params: list[Tensor], updated: list[int], made: int) -> None:
        """Count the steps that a native loop made."""
        carried = engine.carried()
        for number in updated:
            self.count_steps(params[number], made, carried[number])

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group of parameters, for instance layers that are unfrozen later.

        Parameters
        ----------
        param_group : dict
            ``"params"``: a tensor or an iterable of tensors; further keys are options.

        Raises
        ------
        ConfigError
            If a parameter is no leaf tensor of floating dtype, is in a group already, or an option is unknown
            or out of range.
        """
        name = self._name()
        if not isinstance(param_group, dict) or "params" not in param_group:
            raise ConfigError(
                f"{name}: a parameter group is a dict with the key 'params', got {param_group!r}"
            )
        given = param_group["params"]
        params = [given] if isinstance(given, Tensor) else as_list(f"{name}: params", "tensors", given)
        known = {id(param) for group in self.param_groups for param in group["params"]}
        for position, param in enumerate(params):
            if not isinstance(param, Tensor):
                raise ConfigError(f"{name}: params[{position}] must be a Tensor, got {type(param).__name__}")
            if not param.is_leaf:
                raise ConfigError(
                    f"{name}: params[{position}] is the result of {param.op}, only leaves can be trained"
                )
            if not param.dtype.is_floating_point:
                raise ConfigError(f"{name}: params[{position}] must be floating, got {param.dtype.name}")
            if id(param) in known:
                raise ConfigError(f"{name}: params[{position}] appears twice")
            known.add(id(param))
        unknown = sorted(set(param_group) - {"params"} - set(self.defaults))
        if unknown:
            raise ConfigError(
                f"{name}: unknown option {unknown[0]!r}, expected one of {sorted(self.defaults)}"
            )
        group = {"params": params, **self.defaults, **{k: v for k, v in param_group.items() if k != "params"}}
        self.check_group(group)
        self.param_groups.append(group)

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Clear the gradients of all parameters: to None, or to zeros where one is set."""
        for group in self.param_groups:
            for param in group["params"]:
                if set_to_none:
                    param.grad = None
                elif param.grad is not None:
                    param.grad = _core.zeros_like(param.grad)

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Update every parameter that has a gradient.

        Parameters
        ----------
        closure : callable, optional
            Computes the loss and its gradients anew; called once, before the update, with recording on.

        Returns
        -------
        object
            What `closure` returned, or None.
        """
        loss = None
        if closure is not None:
            check_callable(f"{self._name()}.step: closure", closure)
            with enable_grad():
                loss = closure()
        for group in self.param_groups:
            self.check_group(group)
        with no_grad():
            for group in self.param_groups:
                trained = [param for param in group["params"] if param.grad is not None]
                if trained:
                    self.update_group(group, trained, [param.grad for param in trained])
        self._watch()
        return loss

    def _watch(self) -> None:
        """Raise `AnomalyError` in `anomaly_mode` if an update has left a parameter that is not finite."""
        if _core.get_anomaly_mode() is None:
            return
        try:
            _core.watch_update(list(self._params()))
        except AnomalyError as error:
            number, error.layer = error.layer, None
            error.args = (f"{error.args[0]} (parameter {number} of the optimizer)",)
            raise

    def state_dict(self) -> dict[str, Any]:
        """Return options and state, in PyTorch's form.

        Returns
        -------
        dict
            ``"param_groups"``: the groups with the numbers of their parameters; ``"state"``: state by number.
            Tensors share storage with the optimizer.
        """
        numbers = {id(param): number for number, param in enumerate(self._params())}
        return {
            "state": {numbers[id(param)]: dict(state) for param, state in self.state.items()},
            "param_groups": [
                {
                    **{key: value for key, value in group.items() if key != "params"},
                    "params": [numbers[id(param)] for param in group["params"]],
                }
                for group in self.param_groups
            ],
        }

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Take over options and state. Everything is checked before anything is written.

        Parameters
        ----------
        state_dict : mapping
            As `state_dict` returns it; tensors may be numpy arrays.

        Raises
        ------
        ConfigError
            If groups, their sizes or the names of the state differ.
        ShapeError
            If a buffer does not have its parameter's shape.
        """
        name = f"load_state_dict of {self._name()}"
        if not isinstance(state_dict, Mapping) or not {"param_groups", "state"} <= set(state_dict):
            raise ConfigError(f"{name}: expected a dict with the keys 'param_groups' and 'state'")
        groups, states = state_dict["param_groups"], state_dict["state"]
        expected = [len(group["params"]) for group in self.param_groups]
        got = [len(group["params"]) for group in groups]
        if expected != got:
            raise ConfigError(f"{name}: expected parameter groups of sizes {expected}, got {got}")
        loaded_groups = []
        for group, loaded in zip(self.param_groups, groups, strict=True):
            options = {key: loaded[key] for key in (*self.defaults, "initial_lr") if key in loaded}
            loaded_groups.append({**group, **options})
            self.check_group(loaded_groups[-1])

        numbered = [number for group in groups for number in group["params"]]
        params = dict(zip(numbered, self._params(), strict=True))
        loaded_state: dict[Tensor, dict[str, Any]] = {}
        known = ("step", *self.scalars, *self.buffers)
        for number, entries in states.items():
            if number not in params:
                raise ConfigError(f"{name}: state for parameter {number!r}, which is in no group")
            param = params[number]
            state: dict[str, Any] = {}
            for key, value in entries.items():
                if key not in known:
                    raise ConfigError(f"{name}: expected state of names {', '.join(known)}, got {key!r}")
                if value is None:  # PyTorch's momentum buffer without momentum
                    continue
                if key not in self.buffers:  # PyTorch keeps numbers as tensors
                    scalar = value if isinstance(value, int | float) else operand(key, value).item()
                    is_count = key == "step" or isinstance(scalar, int)
                    state[key] = int(scalar) if is_count else float(scalar)
                    continue
                place = f"{name}: {key} of parameter {number}"
                state[key] = self.load_buffer(place, key, operand(key, value).detach(), param)
            if state:
                # PyTorch's SGD counts no steps: where there is a buffer the first one was made.
                loaded_state[param] = {"step": 1, **state}
        for group, loaded in zip(self.param_groups, loaded_groups, strict=True):
            group.update(loaded)
        self.state = loaded_state

    def load_buffer(self, place: str, key: str, tensor: Tensor, param: Tensor) -> Tensor:
        """Return a state dict's buffer as it is kept; raise `ShapeError` if it is another model's."""
        if tensor.shape != param.shape:
            raise ShapeError(f"{place}: expected {param.shape}, got {tensor.shape}")
        return tensor.to(param.dtype).clone()

    def __repr__(self) -> str:
        lines = [f"{self._name()} ("]
        for number, group in enumerate(self.param_groups):
            lines.append(f"Parameter Group {number}")
            lines += [f"    {key}: {group[key]}" for key in sorted(group) if key != "params"]
        return "\n".join([*lines, ")"])

    def _name(self) -> str:
        return type(self).__name__

    def _params(self) -> list[Tensor]:
        return [param for group in self.param_groups for param in group["params"]]

    def _group_of(self, param: Tensor) -> dict[str, Any]:
        for group in self.param_groups:
            if any(param is member for member in group["params"]):
                return group
        raise ConfigError(f"{self._name()}: the tensor is in no parameter group")


def check_range(
    owner: str, name: str, value: Any, low: float = 0.0, high: float = math.inf, has_high: bool = False
) -> None:
    """Raise `ConfigError` unless `value` is a finite number in [low, high), or [low, high] if `has_high`."""
    is_number = hasattr(value, "__float__") and not isinstance(value, bool | Tensor)
    if (
        not is_number
        or not math.isfinite(value)
        or value < low
        or value > high
        or (value == high and not has_high)
    ):
        interval = f"[{low:g}, {high:g}{']' if has_high else ')'}"
        raise ConfigError(f"{owner}: {name} must be a number in {interval}, got {value!r}")


def check_flag(owner: str, name: str, value: Any) -> None:
    """Raise `ConfigError` unless `value` is a bool."""
    if not isinstance(value, bool):
        raise ConfigError(f"{owner}: {name} must be a bool, got {value!r}")


def check_rates(owner: str, group: Mapping[str, Any], *names: str) -> None:
    """Raise `ConfigError` unless these options are finite numbers of at least 0."""
    for name in names:
        check_range(owner, name, group[name])


def check_pair(
    owner: str, name: str, value: Any, low: float = 0.0, high: float = 1.0, has_high: bool = False
) -> None:
    """Raise `ConfigError` unless `value` is a pair of numbers, each in the interval of `check_range`."""
    if not isinstance(value, tuple | list) or len(value) != 2:
        raise ConfigError(f"{owner}: {name} must be two numbers, got {value!r}")
    for position, number in enumerate(value):
        check_range(owner, f"{name}[{position}]", number, low, high, has_high)


def floats(group: Mapping[str, Any], *names: str) -> dict[str, float]:
    """Return options as numbers of the kernel."""
    return {name: float(group[name]) for name in names}
