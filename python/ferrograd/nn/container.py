"""Modules that hold modules: a chain that is called, and a list that is not."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Self, overload

from ferrograd._core import DTypeError
from ferrograd.checks import as_list
from ferrograd.nn.module import Module

__all__ = ["ModuleList", "Sequential"]


class _Numbered(Module):
    """Children under the names "0", "1", ..., in order."""

    def _list(self) -> list[Module]:
        return [module for module in self._modules.values() if module is not None]

    def __len__(self) -> int:
        return len(self._modules)

    def __iter__(self) -> Iterator[Module]:
        return iter(self._list())

    @overload
    def __getitem__(self, index: int) -> Module: ...
    @overload
    def __getitem__(self, index: slice) -> Self: ...
    def __getitem__(self, index: int | slice) -> Any:
        if isinstance(index, slice):
            part = type(self)()
            for name, module in list(self._modules.items())[index]:
                part.add_module(str(len(part)) if name.isdigit() else name, module)
            return part
        return self._list()[index]

    def __setitem__(self, index: int, module: Module) -> None:
        self.add_module(list(self._modules)[index], module)

    def append(self, module: Module) -> Self:
        """Add a module at the end; returns the container."""
        self.add_module(str(len(self)), module)
        return self

    def extend(self, modules: Iterable[Module]) -> Self:
        """Add modules at the end; returns the container."""
        for module in modules:
            self.append(module)
        return self


class Sequential(_Numbered):
    """Call modules one after the other, each on the output of the one before.

    Parameters
    ----------
    *args : Module, or one mapping of str to Module
        The chain. Modules are named "0", "1", ...; a mapping gives its own names.

    Examples
    --------
    >>> import ferrograd as fg
    >>> fg.nn.Sequential(fg.nn.Linear(4, 3), fg.nn.ReLU())
    Sequential(
      (0): Linear(in_features=4, out_features=3, bias=True)
      (1): ReLU()
    )
    """

    def __init__(self, *args: Module | Mapping[str, Module]) -> None:
        super().__init__()
        if len(args) == 1 and isinstance(args[0], Mapping):
            for name, module in args[0].items():
                self.add_module(name, module)
            return
        for position, argument in enumerate(args):
            if not isinstance(argument, Module):
                raise DTypeError(f"Sequential: argument {position} must be a Module, got {argument!r}")
            self.add_module(str(position), argument)

    def forward(self, input: Any) -> Any:
        """Pass `input` through the chain."""
        for module in self._modules.values():
            if module is not None:
                input = module(input)
        return input


class ModuleList(_Numbered):
    """A list whose modules are registered; it is indexed and iterated, not called.

    Parameters
    ----------
    modules : iterable of Module, optional
        First content.

    Examples
    --------
    >>> import ferrograd as fg
    >>> layers = fg.nn.ModuleList([fg.nn.Linear(2, 3), fg.nn.Linear(3, 1)])
    >>> len(layers), len(list(layers.parameters()))
    (2, 4)
    """

    def __init__(self, modules: Iterable[Module] = ()) -> None:
        super().__init__()
        self.extend(as_list("ModuleList: modules", "modules", modules))

    def insert(self, index: int, module: Module) -> None:
        """Insert before position `index`."""
        modules = self._list()
        modules.insert(index, module)
        for name in list(self._modules):
            delattr(self, name)
        self.extend(modules)
