"""Docstrings of native classes and methods: the stub has their types, the extension module what they say."""

import inspect
from typing import Any

import griffe

from ferrograd import _core


class NativeDocstrings(griffe.Extension):
    """Gives what stands in ``_core.pyi`` the docstring that Python shows for it."""

    def on_package(self, *, pkg: griffe.Module, **kwargs: Any) -> None:
        """Walk the stub once all of the package is read."""
        if pkg.name == "ferrograd":
            _describe(pkg["_core"], _core)


def _describe(node: Any, owner: Any) -> None:
    for name, member in node.members.items():
        # Native classes say that they are of the package: so the module has them as names of the stub's.
        is_foreign = member.is_alias and not member.target_path.startswith("ferrograd.")
        if name.startswith("_") or is_foreign or not hasattr(owner, name):
            continue
        found, target = getattr(owner, name), member.final_target if member.is_alias else member
        text = inspect.getdoc(found) if callable(found) or inspect.isdatadescriptor(found) else None
        if text and target.docstring is None:
            target.docstring = griffe.Docstring(text, parent=target)
        if target.is_class:
            _describe(target, found)
