"""Module: the base of every layer and model. It finds parameters, saves and loads, and prints as a tree."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from operator import attrgetter
from types import BuiltinFunctionType, FunctionType
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from ferrograd import _core
from ferrograd._core import ConfigError, DTypeError, RemovableHandle, ShapeError, Tensor
from ferrograd._typing import DTypeLike, PathLike, TensorLike
from ferrograd.autograd import no_grad
from ferrograd.checks import check_callable, check_path
from ferrograd.nn.hooks import drop_idle_hooks, has_hooks, hooks_of
from ferrograd.nn.parameter import Parameter
from ferrograd.ops import as_tensor

__all__ = ["IncompatibleKeys", "Module", "attributes", "in_mode", "signature"]

# Attributes of a module that hold its parameters, buffers and children by name.
_REGISTRIES = ("_parameters", "_buffers", "_modules")


class IncompatibleKeys(NamedTuple):
    """What `Module.load_state_dict` did not match; both lists are empty after a strict load."""

    missing_keys: list[str]
    unexpected_keys: list[str]


# Types whose values do not change: a module's other attributes may change without being assigned.
_FIXED = (int, float, str, bytes, type(None), type, FunctionType, BuiltinFunctionType, Tensor, _core.DType)


class Module:
    """Base class of layers and models.

    A subclass calls ``super().__init__()``, assigns parameters and other modules as attributes, and defines
    `forward`. Everything assigned is found by `parameters`, `state_dict` and the rest, in order of
    assignment.

    Attributes
    ----------
    training : bool
        True after construction and `train`, False after `eval`; read by layers such as `Dropout`.

    Examples
    --------
    >>> import ferrograd as fg
    >>> class Residual(fg.nn.Module):
    ...     def __init__(self, width):
    ...         super().__init__()
    ...         self.inner = fg.nn.Linear(width, width)
    ...
    ...     def forward(self, x):
    ...         return x + self.inner(x).relu()
    >>> [name for name, _ in Residual(3).named_parameters()]
    ['inner.weight', 'inner.bias']
    """

    training: bool

    def __init__(self) -> None:
        fields = self.__dict__
        fields["_parameters"] = {}
        fields["_buffers"] = {}
        fields["_modules"] = {}
        fields["_non_persistent"] = set()
        self.training = True

    # Attributes

    def __setattr__(self, name: str, value: Any) -> None:
        if isinstance(value, Parameter):
            self.register_parameter(name, value)
        elif isinstance(value, Module):
            self.add_module(name, value)
        elif name in self._registry("_parameters"):
            if value is not None:
                raise DTypeError(
                    f"{name}: a parameter can be replaced by a Parameter or None, got {type(value)!r}"
                )
            self._register("_parameters", name, None)
        elif name in self._registry("_modules"):
            if value is not None:
                raise DTypeError(f"{name}: a module can be replaced by a Module or None, got {type(value)!r}")
            self._register("_modules", name, None)
        elif name in self._registry("_buffers"):
            if value is not None and not isinstance(value, Tensor):
                raise DTypeError(f"{name}: a buffer can be replaced by a Tensor or None, got {type(value)!r}")
            self._register("_buffers", name, value)
        else:
            object.__setattr__(self, name, value)

    def __getattr__(self, name: str) -> Any:
        # Called only where ordinary lookup failed.
        raise AttributeError(f"{type(self).__name__} has no attribute {name!r}")

    def __delattr__(self, name: str) -> None:
        for registry in _REGISTRIES:
            if name in self._registry(registry):
                del self.__dict__[registry][name]
                self.__dict__.pop(name, None)
                self._non_persistent.discard(name)
                return
        object.__delattr__(self, name)

    def __copy__(self) -> Self:
        # Registries of its own: what is assigned to the copy must not reach the original.
        made = type(self).__new__(type(self))
        for name, value in self.__dict__.items():
            made.__dict__[name] = value.copy() if name in (*_REGISTRIES, "_non_persistent") else value
        if has_hooks(self):
            made.__dict__["forward"] = hooks_of(self).copy(made)
        return made

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *self._parameters, *self._buffers, *self._modules})

    def _registry(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] | None = self.__dict__.get(name)
        return {} if found is None else found

    def _register(self, registry: str, name: str, value: Any) -> None:
        if registry not in self.__dict__:
            raise AttributeError(f"{type(self).__name__}: call super().__init__() before assigning {name!r}")
        if not isinstance(name, str) or not name or "." in name:
            raise ConfigError(
                f"{type(self).__name__}: a name is a non-empty string without dots, got {name!r}"
            )
        for other in _REGISTRIES:
            if other != registry:
                self.__dict__[other].pop(name, None)
        self.__dict__[registry][name] = value
        # Here too, for ordinary lookup: `__getattr__` would cost a layer more than its product with one row.
        # What the class defines under a name stays visible.
        if not any(name in vars(base) for base in type(self).__mro__):
            self.__dict__[name] = value

    def register_parameter(self, name: str, param: Parameter | None) -> None:
        """Add a parameter under `name`; None keeps the name without a value, as in a layer without bias."""
        if param is not None and not isinstance(param, Parameter):
            raise DTypeError(f"register_parameter: {name} must be a Parameter or None, got {type(param)!r}")
        self._register("_parameters", name, param)

    def register_buffer(self, name: str, tensor: Tensor | None, persistent: bool = True) -> None:
        """Add a tensor that is saved with the module but not trained.

        Parameters
        ----------
        name : str
            Attribute name.
        tensor : Tensor or None
            The value.
        persistent : bool, default True
            Whether it is part of `state_dict`.
        """
        if tensor is not None and not isinstance(tensor, Tensor):
            raise DTypeError(f"register_buffer: {name} must be a Tensor or None, got {type(tensor)!r}")
        self._register("_buffers", name, tensor)
        if persistent:
            self._non_persistent.discard(name)
        else:
            self._non_persistent.add(name)

    def add_module(self, name: str, module: "Module | None") -> None:
        """Add a child module under `name`."""
        if module is not None and not isinstance(module, Module):
            raise DTypeError(f"add_module: {name} must be a Module or None, got {type(module)!r}")
        self._register("_modules", name, module)

    # Calling

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Compute the output; every subclass that is called defines it."""
        raise NotImplementedError(f"{type(self).__name__} defines no forward")

    if TYPE_CHECKING:

        def __call__(self, *args: Any, **kwargs: Any) -> Any:
            """Call `forward`."""

    else:
        # Python then calls `forward` itself: a method that passes its arguments on takes three times as long.
        __call__ = property(attrgetter("forward"), doc="Call `forward`.")

    # Hooks

    def register_forward_pre_hook(
        self, hook: Callable[..., Any], *, prepend: bool = False, with_kwargs: bool = False
    ) -> RemovableHandle:
        """Call ``hook(module, args)`` before each `forward`; what it returns takes the arguments' place.

        A call of ``forward`` by its name runs the hooks too. A `Trainer` runs them once, while the step is
        traced: their operations are part of every step, their prints are not. The step is traced anew when
        hooks come or go.

        Parameters
        ----------
        hook : callable
            Returns None to change nothing, a tuple of arguments, or a single argument.
        prepend : bool, default False
            Whether it runs before the other hooks of its kind.
        with_kwargs : bool, default False
            Whether it is called as ``hook(module, args, kwargs)`` and returns None or both.

        Returns
        -------
        RemovableHandle
            Its ``remove`` takes the hook away; it is a ``with`` block too.

        Raises
        ------
        ConfigError
            If `hook` cannot be called.

        Examples
        --------
        >>> import ferrograd as fg
        >>> layer = fg.nn.Identity()
        >>> with layer.register_forward_pre_hook(lambda module, args: args[0] * 2):
        ...     layer(fg.tensor([1.0])).tolist()
        [2.0]
        >>> layer(fg.tensor([1.0])).tolist()
        [1.0]
        """
        return hooks_of(self).add("before", hook, prepend, with_kwargs)

    def register_forward_hook(
        self, hook: Callable[..., Any], *, prepend: bool = False, with_kwargs: bool = False
    ) -> RemovableHandle:
        """Call ``hook(module, args, output)`` after each `forward`; what it returns takes the output's place.

        Parameters, traces and the handle are those of `register_forward_pre_hook`; with `with_kwargs` it is
        called as ``hook(module, args, kwargs, output)``.

        Examples
        --------
        >>> import ferrograd as fg
        >>> model = fg.nn.Sequential(fg.nn.Linear(2, 3), fg.nn.ReLU())
        >>> shapes = []
        >>> handle = model[0].register_forward_hook(lambda module, args, output: shapes.append(output.shape))
        >>> _ = model(fg.zeros(5, 2))
        >>> shapes
        [(5, 3)]
        >>> handle.remove()
        """
        return hooks_of(self).add("after", hook, prepend, with_kwargs)

    def register_full_backward_hook(self, hook: Callable[..., Any], prepend: bool = False) -> RemovableHandle:
        """Call ``hook(module, grad_input, grad_output)`` in each backward through a call of the module.

        Both are tuples: the gradients of the positional arguments (None for one that wants none) and of the
        outputs. It runs once the gradients of the arguments are known; where no argument wants one, once
        those of the outputs are. Traces and the handle are those of `register_forward_pre_hook`.

        Parameters
        ----------
        hook : callable
            Returns None, or new gradients of the arguments: a tuple as long as `grad_input`, or a tensor for
            a single argument.
        prepend : bool, default False
            Whether it runs before the other hooks of its kind.

        Returns
        -------
        RemovableHandle
            As for `register_forward_pre_hook`.

        Raises
        ------
        ConfigError
            If `hook` cannot be called.
        GraphError
            In backward, if it returns another number of gradients.

        Examples
        --------
        >>> import ferrograd as fg
        >>> layer = fg.nn.Tanh()
        >>> x = fg.tensor([0.0], requires_grad=True)
        >>> with layer.register_full_backward_hook(lambda module, grad_input, grad_output: grad_input[0] * 5):
        ...     layer(x).backward()
        >>> x.grad.tolist()
        [5.0]
        """
        return hooks_of(self).add("backward", hook, prepend, False)

    # Walking

    def named_children(self) -> Iterator[tuple[str, "Module"]]:
        """Yield direct children with their names; a module assigned twice comes once."""
        seen: set[int] = set()
        for name, module in self._modules.items():
            if module is not None and id(module) not in seen:
                seen.add(id(module))
                yield name, module

    def children(self) -> Iterator["Module"]:
        """Yield direct children."""
        for _, module in self.named_children():
            yield module

    def named_modules(self, prefix: str = "") -> Iterator[tuple[str, "Module"]]:
        """Yield this module and all below it, parents first, each once, with dotted names."""
        seen: set[int] = set()
        pending: list[tuple[str, Module]] = [(prefix, self)]
        while pending:
            name, module = pending.pop()
            if id(module) in seen:
                continue
            seen.add(id(module))
            yield name, module
            below = [
                (f"{name}.{key}" if name else key, child)
                for key, child in module._modules.items()
                if child is not None
            ]
            pending.extend(reversed(below))

    def modules(self) -> Iterator["Module"]:
        """Yield this module and all below it, parents first, each once."""
        for _, module in self.named_modules():
            yield module

    def _named_tensors(self, registry: str, prefix: str, recurse: bool) -> Iterator[tuple[str, Any]]:
        seen: set[int] = set()
        for path, module in self.named_modules(prefix) if recurse else [(prefix, self)]:
            for name, tensor in module.__dict__[registry].items():
                if tensor is not None and id(tensor) not in seen:
                    seen.add(id(tensor))
                    yield (f"{path}.{name}" if path else name), tensor

    def named_parameters(self, prefix: str = "", recurse: bool = True) -> Iterator[tuple[str, Parameter]]:
        """Yield parameters with dotted names; a parameter shared by several modules comes once."""
        return self._named_tensors("_parameters", prefix, recurse)

    def parameters(self, recurse: bool = True) -> Iterator[Parameter]:
        """Yield parameters, each once; what an optimizer is given."""
        for _, parameter in self.named_parameters(recurse=recurse):
            yield parameter

    def named_buffers(self, prefix: str = "", recurse: bool = True) -> Iterator[tuple[str, Tensor]]:
        """Yield buffers with dotted names, each once."""
        return self._named_tensors("_buffers", prefix, recurse)

    def buffers(self, recurse: bool = True) -> Iterator[Tensor]:
        """Yield buffers, each once."""
        for _, buffer in self.named_buffers(recurse=recurse):
            yield buffer

    # Modes

    def train(self, mode: bool = True) -> Self:
        """Set training mode here and below; returns the module."""
        if not isinstance(mode, bool):
            raise ConfigError(f"train: mode must be a bool, got {mode!r}")
        for module in self.modules():
            module.training = mode
        return self

    def eval(self) -> Self:
        """Set evaluation mode here and below: dropout is the identity. Returns the module."""
        return self.train(False)

    def requires_grad_(self, requires_grad: bool = True) -> Self:
        """Train or freeze every parameter; returns the module."""
        for parameter in self.parameters():
            parameter.requires_grad_(requires_grad)
        return self

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Clear the gradients of all parameters: to None, or to zeros where one is set."""
        for parameter in self.parameters():
            if set_to_none:
                parameter.grad = None
            elif parameter.grad is not None:
                parameter.grad = _core.zeros_like(parameter.grad)

    def clear_state(self) -> Self:
        """Free what calls and backward passes have left here and below: gradients; returns the module.

        Values between the layers belong to the tensors that a call returned, and are freed with them.
        """
        self.zero_grad()
        return self

    def apply(self, fn: Callable[["Module"], Any]) -> Self:
        """Call `fn` on every module, children before parents, as for initialisation; returns the module."""
        check_callable("apply: fn", fn)
        for child in self.children():
            child.apply(fn)
        fn(self)
        return self

    def to(self, dtype: DTypeLike) -> Self:
        """Convert floating parameters and buffers to another floating dtype; returns the module.

        A tensor's dtype is fixed, so parameters of another dtype are replaced by new ones: build the
        optimizer afterwards. Parameters shared by several modules stay shared.

        Raises
        ------
        DTypeError
            If `dtype` is not float32 or float64.
        """
        if not _core.zeros(0, dtype=dtype).dtype.is_floating_point:
            raise DTypeError(f"to: a module converts to float32 or float64, got {dtype!r}")
        converted: dict[int, Tensor] = {}
        for module in self.modules():
            for name, parameter in module._parameters.items():
                if parameter is not None and parameter.dtype.is_floating_point and parameter.dtype != dtype:
                    if id(parameter) not in converted:
                        trained = Parameter(parameter.detach().to(dtype), parameter.requires_grad)
                        if parameter.grad is not None:
                            trained.grad = parameter.grad.detach().to(dtype)
                        converted[id(parameter)] = trained
                    module._register("_parameters", name, converted[id(parameter)])
            for name, buffer in module._buffers.items():
                if buffer is not None and buffer.dtype.is_floating_point and buffer.dtype != dtype:
                    replacement = converted.setdefault(id(buffer), buffer.detach().to(dtype))
                    module._register("_buffers", name, replacement)
        return self

    def float(self) -> Self:
        """Convert to float32; see `to`."""
        return self.to(_core.float32)

    def double(self) -> Self:
        """Convert to float64; see `to`."""
        return self.to(_core.float64)

    # State

    def state_dict(self, prefix: str = "") -> dict[str, Tensor]:
        """Return parameters and persistent buffers by dotted name.

        Returns
        -------
        dict of str to Tensor
            Detached tensors that share storage with the module: a later step changes them. Copy to keep them.
            A parameter shared by several modules appears under each of its names.
        """
        state: dict[str, Tensor] = {}
        self._collect_state(state, prefix)
        return state

    def _collect_state(self, state: dict[str, Tensor], prefix: str) -> None:
        for name, parameter in self._parameters.items():
            if parameter is not None:
                state[prefix + name] = parameter.detach()
        for name, buffer in self._buffers.items():
            if buffer is not None and name not in self._non_persistent:
                state[prefix + name] = buffer.detach()
        for name, module in self._modules.items():
            if module is not None:
                module._collect_state(state, f"{prefix}{name}.")

    def load_state_dict(self, state_dict: Mapping[str, TensorLike], strict: bool = True) -> IncompatibleKeys:
        """Copy values into the parameters and buffers. Everything is checked before anything is written.

        Parameters
        ----------
        state_dict : mapping of str to Tensor or array_like
            As `state_dict` returns it. Values are converted to the dtype of their target.
        strict : bool, default True
            Whether the names must agree exactly.

        Returns
        -------
        IncompatibleKeys
            Named tuple ``(missing_keys, unexpected_keys)``.

        Raises
        ------
        ConfigError
            If names are missing or unexpected; the message lists all of them, and wrong shapes too.
        ShapeError
            If all names agree but shapes differ, strict or not.
        """
        own = self.state_dict()
        if not isinstance(state_dict, Mapping):
            raise DTypeError(f"load_state_dict: expected a dict of names and tensors, got {state_dict!r}")
        missing = [name for name in own if name not in state_dict]
        unexpected = [name for name in state_dict if name not in own]
        problems = []
        if strict and missing:
            problems.append(f"missing keys: {', '.join(missing)}")
        if strict and unexpected:
            problems.append(f"unexpected keys: {', '.join(unexpected)}")
        has_wrong_names = bool(problems)

        values = {}
        for name, target in own.items():
            if name not in state_dict:
                continue
            value = as_tensor(state_dict[name]).detach()
            if value.shape != target.shape:
                problems.append(f"{name}: expected shape {target.shape}, got {value.shape}")
            # Converted now, so that a dtype that cannot be converted is found before anything is written; the
            # clone keeps a state that aliases this module from changing while it is copied.
            values[name] = value.to(target.dtype).clone()
        if problems:
            message = f"load_state_dict of {type(self).__name__}: {'; '.join(problems)}"
            raise ConfigError(message) if has_wrong_names else ShapeError(message)
        with no_grad():
            for name, value in values.items():
                own[name].copy_(value)
        return IncompatibleKeys(missing, unexpected)

    def save(self, path: PathLike) -> None:
        """Write `state_dict` to a safetensors file, atomically: a reader sees the old file or the new one.

        Raises
        ------
        CheckpointError
            If the file cannot be written.
        """
        _core.save_tensors(check_path("save", path), self.state_dict(), {"ferrograd.kind": "module"})

    def load(self, path: PathLike, strict: bool = True) -> IncompatibleKeys:
        """Read a safetensors file into this module; see `load_state_dict` for what is checked.

        Raises
        ------
        CheckpointError
            If the file cannot be read.
        CorruptFileError
            If it is no valid safetensors file.
        """
        tensors, _ = _core.load_tensors(check_path("load", path))
        return self.load_state_dict(tensors, strict)

    # Printing

    def extra_repr(self) -> str:
        """Return what stands between the parentheses of the printed module."""
        return ""

    def __repr__(self) -> str:
        lines = []
        for name, module in self._modules.items():
            lines.append(f"({name}): " + repr(module).replace("\n", "\n  "))
        extra = self.extra_repr()
        if not lines:
            return f"{type(self).__name__}({extra})"
        if extra:
            lines.insert(0, extra)
        return f"{type(self).__name__}(\n  " + "\n  ".join(lines) + "\n)"


@contextmanager
def in_mode(model: Module, *, training: bool) -> Iterator[None]:
    """Put a model in training or evaluation mode, and every module back in its own afterwards."""
    before = [(module, module.training) for module in model.modules()]
    try:
        model.train(training)
        yield
    finally:
        for module, mode in before:
            module.training = mode


def signature(model: Module) -> Any:
    """Return what a trace of the model depends on: its modules, their options, parameters and buffers."""
    modules = []
    for module in model.modules():
        drop_idle_hooks(module)
        options = {
            name: value for name, value in vars(module).items() if isinstance(value, int | float | str)
        }
        modules.append((id(module), options, hooks_of(module).numbers() if has_hooks(module) else ()))
    params = [
        (id(param), param.requires_grad, param.dtype, param._hooks_version) for param in model.parameters()
    ]
    buffers = [id(buffer) for buffer in model.buffers()]
    return (modules, params, buffers, repr(model))


def attributes(model: Module) -> list[dict[str, Any]] | None:
    """Return the dicts whose entries make a model what it is; None if some value may change unnoticed."""
    found: list[dict[str, Any]] = []
    for module in model.modules():
        drop_idle_hooks(module)
        fields = vars(module)
        for name, value in fields.items():
            if name not in (*_REGISTRIES, "_non_persistent") and not isinstance(value, (*_FIXED, Module)):
                return None
        if any(name not in fields for registry in _REGISTRIES for name in fields[registry]):
            return None
        # A chain calls what is registered; parameters and buffers are read as attributes.
        found += [fields, fields["_modules"]] if fields["_modules"] else [fields]
    return found
