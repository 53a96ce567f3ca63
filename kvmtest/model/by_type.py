# SPDX-License-Identifier: GPL-2.0-only
"""Methods that are chosen by the type of their argument, as functools.singledispatchmethod has them, at a part of its costs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeVar, get_type_hints

__all__ = ("ByType",)

_R = TypeVar("_R")
_M = TypeVar("_M", bound=Callable[..., Any])


class ByType(Generic[_R]):
    """A method with one argument, that ``method`` handles if no other is registered for exactly its type."""

    def __init__(self, method: Callable[[Any, Any], _R]) -> None:
        self._other = method
        self._methods: dict[type, Callable[[Any, Any], _R]] = {}
        self.__doc__ = method.__doc__

    def register(self, method: _M) -> _M:
        """Register ``method`` for the type that its argument is annotated with."""
        kinds = [kind for name, kind in get_type_hints(method).items() if name != "return"]
        self._methods[kinds[0]] = method
        return method

    def __get__(self, instance: Any, owner: type | None = None) -> Callable[[Any], _R]:
        """Return the method bound to ``instance``."""
        methods, other = self._methods, self._other

        def call(argument: Any) -> _R:
            return methods.get(type(argument), other)(instance, argument)

        return call
