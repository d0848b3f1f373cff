"""Packages that only some sources need, imported when they are."""

from __future__ import annotations

import importlib
from types import ModuleType

from phosphene.errors import InputError


def require(module: str, extra: str, what: str = "this network") -> ModuleType:
    """Import a module that an extra of this package brings.

    Raises:
        InputError: it is not installed; the text says what to install.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise InputError(f'{what} needs {error.name}: pip install "phosphene[{extra}]"') from error
