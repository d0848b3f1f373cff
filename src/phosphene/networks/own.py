"""Networks of the user's own: `package.module:factory` or `path/to/file.py:factory`, which gives a torch module."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType

from torch import nn

from phosphene.errors import InputError, did_you_mean
from phosphene.files import is_file
from phosphene.networks.network import Network
from phosphene.networks.preprocessing import Preprocessing
from phosphene.networks.weights import put_weights, read_weights


def open_own(spelled: str, weights: str | Path | None = None, partial: bool = False) -> tuple[Network, Path | None]:
    """The module that a factory (a function or a class, called without arguments) or a name in a Python file gives.

    This runs the file, as importing it would: it is the user's own code.

    Returns:
        The network, fed 0..1 pixels of 224x224 until a description says otherwise, and where its code stands.

    Raises:
        InputError: the file, the module or the name is not there, fails, or gives something else.
    """
    place, _, name = spelled.rpartition(":")
    module = _load_file(Path(place)) if place.endswith(".py") else _import(place)
    factory = getattr(module, name, None)
    if factory is None:
        public = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
        raise InputError(f"{place} has no {name!r}{did_you_mean(name, public)}")
    if not isinstance(factory, nn.Module):
        if not callable(factory):
            raise InputError(f"{spelled} is a {type(factory).__name__}: expected a function that gives a torch module")
        try:
            factory = factory()
        except Exception as error:
            raise InputError(
                f"{spelled} cannot be called without arguments: {_said(error)}; expected a function that gives the "
                "module"
            ) from error
    if isinstance(factory, Network):
        opened = factory
    elif isinstance(factory, nn.Module):
        note = f"nothing says what {name} eats: 0..1 and 224x224 are assumed; say it in a TOML file beside its code"
        opened = Network(factory, Preprocessing(), name=name, notes={"preprocessing": note})
    else:
        raise InputError(f"{spelled} gives a {type(factory).__name__}: expected a torch.nn.Module")
    if weights is not None:
        unloaded = put_weights(opened.module, read_weights(weights), spelled, str(weights), partial)
        opened = opened.changed(unloaded=unloaded)
    file = getattr(module, "__file__", None)
    return opened, Path(file) if file else None


def _load_file(path: Path) -> ModuleType:
    if not is_file(path):
        raise InputError(f"{str(path)!r}: there is no such file")
    # Its neighbours can be imported from it, as when it is run.
    sys.path.insert(0, str(path.resolve().parent))
    try:
        spec = importlib.util.spec_from_file_location(path.stem, path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules.setdefault(path.stem, module)
        spec.loader.exec_module(module)
    except Exception as error:
        raise InputError(f"{str(path)!r} cannot be run: {_said(error)}") from error
    finally:
        sys.path.remove(str(path.resolve().parent))
    return module


def _import(name: str) -> ModuleType:
    sys.path.insert(0, "")
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise InputError(f"module {name!r} cannot be imported: {error}") from error
    except Exception as error:
        raise InputError(f"module {name!r} cannot be imported: {_said(error)}") from error
    finally:
        sys.path.remove("")


def _said(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
