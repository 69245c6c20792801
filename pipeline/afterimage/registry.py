"""A registry of methods of one kind: a method's own file enters it under the method's name."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable
from typing import Annotated, Any, Union

from pydantic import Field

from afterimage.errors import ConfigError
from afterimage.settings import Settings


class Registry:
    """Methods of one kind (decoders, encoders, ...), each with its settings class.

    Parameters
    ----------
    kind : str
        What the members are, used in error messages: ``"decoder"``.
    package : str
        The room whose files are looked through for members, so that adding a method is adding a
        file: ``"afterimage.decoding"``.
    """

    def __init__(self, kind: str, package: str) -> None:
        self.kind, self._package = kind, package
        self._discovered = False
        self._members: dict[str, tuple[type[Any], type[Settings]]] = {}

    def register(self, name: str, settings: type[Settings]) -> Callable[[type[Any]], type[Any]]:
        """Enter the decorated class under ``name`` with the class of its settings."""

        def enter(method: type[Any]) -> type[Any]:
            if name in self._members:
                raise ValueError(f"two {self.kind}s are named {name!r}")
            self._members[name] = (method, settings)
            return method

        return enter

    def names(self) -> list[str]:
        """Return the names of the members, sorted."""
        self._discover()
        return sorted(self._members)

    def get(self, name: str) -> type[Any]:
        """Return the class registered under ``name``."""
        return self._entry(name)[0]

    def settings(self, name: str) -> type[Settings]:
        """Return the settings class registered under ``name``."""
        return self._entry(name)[1]

    def union(self) -> Any:
        """Return the union of all settings classes, told apart by their ``kind``."""
        classes = tuple(self.settings(name) for name in self.names())
        # Built from the registry while the program runs, which the operator | cannot do.
        return Annotated[Union[classes], Field(discriminator="kind")]  # noqa: UP007

    def _discover(self) -> None:
        """Import every file of the room once; each enters what it holds."""
        if not self._discovered:
            self._discovered = True
            room = importlib.import_module(self._package)
            for module in pkgutil.iter_modules(room.__path__):
                importlib.import_module(f"{self._package}.{module.name}")

    def _entry(self, name: str) -> tuple[type[Any], type[Settings]]:
        self._discover()
        if name not in self._members:
            raise ConfigError(f"unknown {self.kind}", found=name, expected=", ".join(self.names()))
        return self._members[name]
