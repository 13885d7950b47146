"""Registries of methods: classes selected by name on the command line; constructor parameters are their options."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any, Generic, TypeVar

from attnpo.errors import InputError, did_you_mean

Method = TypeVar("Method")
_C = TypeVar("_C", bound=type)


class Registry(Generic[Method]):
    """The methods of one choice. Registration is by import, so a method can live outside this package.

    Args:
        choice: the option whose values are the names, e.g. "credit".
        built_in: modules of this package that register methods; imported on first use.
    """

    def __init__(self, choice: str, built_in: Sequence[str]) -> None:
        self.choice = choice
        self._built_in = built_in
        self._classes: dict[str, Callable[..., Method]] = {}

    def register(self, name: str) -> Callable[[_C], _C]:
        """Class decorator: register a class under `name` and set its ``name``.

        Raises:
            InputError: another class has the name.
        """

        def decorate(cls: _C) -> _C:
            known = self._classes.get(name)
            if known is not None and getattr(known, "__qualname__", "") != cls.__qualname__:
                raise InputError(f"{self.choice}: {name!r} is already registered, by {known}")
            cls.name = name  # type: ignore[attr-defined]
            self._classes[name] = cls
            return cls

        return decorate

    def forget(self, name: str) -> None:
        """Remove a method (for tests)."""
        self._classes.pop(name, None)

    def names(self) -> list[str]:
        """Return all names, sorted."""
        for module in self._built_in:
            import_module(module)
        return sorted(self._classes)

    def options(self, name: str) -> dict[str, Any]:
        """Return the options of a method with their defaults, in order.

        Raises:
            InputError: there is no method of that name.
        """
        known = self.names()
        if name not in known:
            expected = f"{', '.join(known)}{did_you_mean(name, known)}"
            raise InputError(f"{self.choice}: found {name!r}, expected one of {expected}")
        return {key: option.default for key, option in inspect.signature(self._classes[name]).parameters.items()}

    def make(self, name: str, **options: Any) -> Method:
        """Create the method `name` with these options.

        Raises:
            InputError: no such method, no such option, or a value out of range (each method checks its own).
        """
        known = self.options(name)
        for option in options:
            if option not in known:
                has = ", ".join(f"{key} ({default!r})" for key, default in known.items()) or "none"
                raise InputError(f"{option}: {self.choice} {name!r} has no such option; it has: {has}")
        return self._classes[name](**options)
