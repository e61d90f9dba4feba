"""What runs around a module's `forward` and in its backward."""

import itertools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ferrograd import _core
from ferrograd._core import ConfigError, GraphError, RemovableHandle, Tensor

if TYPE_CHECKING:
    from ferrograd.nn.module import Module

__all__ = ["Hooks", "drop_idle_hooks", "has_hooks", "hooks_of"]

# Never given twice, so that a trainer can tell what its plan was traced with.
_NUMBERS = itertools.count(1)

# A hook, and whether it is called with keyword arguments too.
_Entry = tuple[Callable[..., Any], bool]


class Hooks:
    """The hooks of a module. It takes the place of `forward`: modules without hooks pay nothing."""

    def __init__(self, module: "Module") -> None:
        self.module = module
        self.before: dict[int, _Entry] = {}
        self.after: dict[int, _Entry] = {}
        self.backward: dict[int, _Entry] = {}

    def copy(self, module: "Module") -> "Hooks":
        """Return the same hooks for a copy of the module."""
        made = Hooks(module)
        made.before, made.after, made.backward = self.before.copy(), self.after.copy(), self.backward.copy()
        return made

    def numbers(self) -> tuple[tuple[int, ...], ...]:
        """Return what tells these hooks from others."""
        return tuple(tuple(kind) for kind in (self.before, self.after, self.backward))

    def add(self, kind: str, hook: Callable[..., Any], prepend: bool, with_kwargs: bool) -> RemovableHandle:
        """Add a hook of a kind, behind or before the others."""
        if not callable(hook):
            raise ConfigError(f"hook: expected a callable, got {type(hook).__name__}")
        hooks: dict[int, _Entry] = getattr(self, kind)
        number, others = next(_NUMBERS), list(hooks.items())
        hooks[number] = (hook, with_kwargs)
        if prepend:
            # Moved behind the new one: the dict stays the one that handles know.
            for other, entry in others:
                del hooks[other]
                hooks[other] = entry
        return RemovableHandle(hooks, number)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the module's `forward` with the hooks around it."""
        module = self.module
        for hook, with_kwargs in list(self.before.values()):
            found = hook(module, args, kwargs) if with_kwargs else hook(module, args)
            if found is None:
                continue
            if with_kwargs:
                args, kwargs = found
            else:
                args = found if isinstance(found, tuple) else (found,)
        flow = _Flow(self) if self.backward and _core.is_grad_enabled() else None
        if flow is not None:
            args = flow.enter(args)
        output = type(module).forward(module, *args, **kwargs)
        for hook, with_kwargs in list(self.after.values()):
            found = hook(module, args, kwargs, output) if with_kwargs else hook(module, args, output)
            output = output if found is None else found
        return output if flow is None else flow.leave(output)


def has_hooks(module: "Module") -> bool:
    """Whether hooks were ever registered."""
    return isinstance(module.__dict__.get("forward"), Hooks)


def drop_idle_hooks(module: "Module") -> None:
    """Give a module whose hooks are all gone its own `forward` back."""
    if has_hooks(module) and not any(hooks_of(module).numbers()):
        del module.__dict__["forward"]


def hooks_of(module: "Module") -> Hooks:
    """Return the hooks of a module, made where there are none."""
    if not has_hooks(module):
        if "forward" in module.__dict__:
            raise ConfigError(f"hook: forward of this {type(module).__name__} was assigned to the object")
        module.__dict__["forward"] = Hooks(module)
    hooks: Hooks = module.__dict__["forward"]
    return hooks


class _Flow:
    """One call of a module that has backward hooks."""

    def __init__(self, hooks: Hooks) -> None:
        self.hooks = hooks
        self.grad_output: tuple[Tensor | None, ...] = ()
        # What the hooks get where no argument wants a gradient.
        self.no_input: tuple[None, ...] | None = None

    def enter(self, args: tuple[Any, ...]) -> tuple[Any, ...]:
        passed = _passed(args, self._run)
        if passed is args:
            self.no_input = (None,) * len(args)
        return passed

    def leave(self, output: Any) -> Any:
        if isinstance(output, tuple):
            return _passed(output, self._keep)
        return _passed((output,), self._keep)[0]

    def _keep(self, grad_output: tuple[Tensor | None, ...]) -> None:
        self.grad_output = grad_output
        if self.no_input is not None:
            self._run(self.no_input)

    def _run(self, grad_input: tuple[Tensor | None, ...]) -> tuple[Tensor | None, ...]:
        for hook, _ in list(self.hooks.backward.values()):
            found = hook(self.hooks.module, grad_input, self.grad_output)
            if found is None:
                continue
            found = found if isinstance(found, tuple) else (found,)
            if len(found) != len(grad_input):
                raise GraphError(
                    f"register_full_backward_hook: expected {len(grad_input)} gradients, got {len(found)}"
                )
            grad_input = found
        return grad_input


def _passed(
    values: tuple[Any, ...],
    arrive: Callable[[tuple[Tensor | None, ...]], tuple[Tensor | None, ...] | None],
) -> tuple[Any, ...]:
    """Return the values with tensors of our own for those that want a gradient.

    Several pass as one vector, so that their gradients arrive together; `arrive` may return others.
    """
    places = [i for i, value in enumerate(values) if isinstance(value, Tensor) and value.requires_grad]
    if not places:
        return values
    count = len(values)
    # The hook holds these, not the tensors: they may be results of the vector, which holds the hook.
    metas = [(values[place].shape, values[place].dtype) for place in places]
    sizes = [values[place].numel() for place in places]
    vector = _core.cat([values[place].flatten() for place in places])

    def pieces(joined: Tensor) -> list[Tensor]:
        parts = zip(joined.split(sizes), metas, strict=True)
        return [part.reshape(shape).to(dtype) for part, (shape, dtype) in parts]

    def hook(grad: Tensor) -> Tensor | None:
        grads: list[Tensor | None] = [None] * count
        for place, piece in zip(places, pieces(grad), strict=True):
            grads[place] = piece
        found = arrive(tuple(grads))
        if found is None or all(new is old for new, old in zip(found, grads, strict=True)):
            return None
        chosen = [found[place] for place in places]
        flat = [
            _core.zeros(size, dtype=grad.dtype) if new is None else new.flatten()
            for new, size in zip(chosen, sizes, strict=True)
        ]
        return _core.cat(flat)

    vector.register_hook(hook)
    passed = list(values)
    for place, piece in zip(places, pieces(vector), strict=True):
        passed[place] = piece
    return tuple(passed)
