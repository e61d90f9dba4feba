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
        if member.is_alias or not hasattr(owner, name):
            continue
        found = getattr(owner, name)
        text = inspect.getdoc(found) if callable(found) or inspect.isdatadescriptor(found) else None
        if text and member.docstring is None:
            member.docstring = griffe.Docstring(text, parent=member)
        if member.is_class:
            _describe(member, found)
