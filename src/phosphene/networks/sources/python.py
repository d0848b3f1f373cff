"""Networks of the user's own: `package.module:factory` or `path/to/file.py:factory`, which gives a torch module."""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import inspect
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.machinery import PathFinder
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import nn

from phosphene.errors import InputError, did_you_mean, printable
from phosphene.files import is_file
from phosphene.networks.downloads import shown_downloads
from phosphene.networks.network import Network
from phosphene.networks.preprocessing import Preprocessing
from phosphene.networks.sources.libraries import open_module
from phosphene.networks.weights import put_weights, read_weights


def open_factory(spelled: str, weights: str | Path | None = None, partial: bool = False) -> tuple[Network, Path | None]:
    """The module that a factory (a function or a class, called without arguments) or a name in a Python file gives.

    This runs the file, as importing it would: it is the user's own code.

    Returns:
        The network, which gets 0..1 pixels of 224x224 until a description says otherwise, and where its code stands.

    Raises:
        InputError: the file, the module or the name is not there, fails, or gives something else.
    """
    place, _, name = spelled.rpartition(":")
    if name.endswith(".py"):
        raise InputError(_without_a_name(Path(spelled)))
    if call := re.fullmatch(r"([\w.]+)\s*\((.*)\)", name):
        raise InputError(
            f"{spelled}: expected a name that is called without arguments, such as net of a function "
            f"`def net(): return {call[0]}` in {place}"
        )
    module = _load_file(Path(place)) if place.endswith(".py") else _import(place)
    factory = _attribute(module, place, name)
    if not isinstance(factory, nn.Module):
        if not callable(factory):
            raise InputError(f"{spelled} is a {type(factory).__name__}: expected a function that gives a torch module")
        factory = _called(factory, spelled, name)
    if isinstance(factory, Network):
        opened = factory
    elif isinstance(factory, nn.Module) and (known := open_module(factory, name)) is not None:
        opened = known
    elif isinstance(factory, nn.Module):
        note = f"nothing says what {name} expects: 0..1 and 224x224 are assumed; say it in a TOML file beside its code"
        opened = Network(factory, Preprocessing(), name=name, notes={"preprocessing": note})
    else:
        raise InputError(f"{spelled} gives a {type(factory).__name__}: expected a torch.nn.Module")
    if weights is not None:
        unloaded = put_weights(opened.module, read_weights(weights), spelled, str(weights), partial)
        opened = opened.replace(unloaded=unloaded)
    file = getattr(module, "__file__", None)
    return opened, Path(file) if file else None


def is_factory(spelled: str) -> bool:
    """Whether a network's name is a file's or a module's of Python, with or without what is in it."""
    place, _, name = spelled.rpartition(":")
    if spelled.endswith(".py") or place.endswith(".py"):
        return True
    return bool(re.fullmatch(r"[^\W\d][\w.]*", place) and re.match(r"[^\W\d]", name))


def _without_a_name(path: Path) -> str:
    """What is wrong with a file alone: the names at its top that can be called, without running it."""
    if not is_file(path):
        return f"{str(path)!r}: there is no such file"
    with suppress(OSError, SyntaxError, ValueError, RecursionError):
        kinds = (ast.ClassDef, ast.FunctionDef)
        tops = [node.name for node in ast.parse(path.read_bytes()).body if isinstance(node, kinds)]
        if shown := [name for name in reversed(tops) if not name.startswith("_")]:
            return f"{str(path)!r} says not what in it is the network: expected {path}:NAME, such as {path}:{shown[0]}"
    return f"{str(path)!r} says not what in it is the network: expected {path}:NAME"


def _attribute(module: ModuleType, place: str, name: str) -> Any:
    """What a name, which may have dots, means in a module."""
    found: Any = module
    for part in name.split("."):
        inner = found
        found = getattr(inner, part, None)
        if found is None:
            public = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
            raise InputError(f"{place} has no {name!r}{did_you_mean(name, public)}")
    return found


def _called(factory: Any, spelled: str, name: str) -> Any:
    needed = _needed(factory)
    if needed:
        given = ", ".join(f"{each}=…" for each in needed)
        raise InputError(
            f"{spelled} cannot be called without arguments: it needs {', '.join(needed)}; expected a function that "
            f"gives the module, such as `def net(): return {name}({given})`"
        )
    try:
        with _as_a_program(spelled), shown_downloads(f"weights of {name}"):
            return factory()
    except SystemExit as error:
        raise InputError(
            f"{spelled} ends the program{_code(error)}: expected a function that gives the module"
        ) from None
    except Exception as error:
        raise InputError(
            f"{spelled} cannot be called without arguments: {_said(error)}; expected a function that gives the module"
        ) from error


def _needed(factory: Any) -> list[str]:
    """The arguments without which a function or class cannot be called."""
    try:
        parameters = inspect.signature(factory).parameters.values()
    except (TypeError, ValueError):
        return []
    variable = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return [each.name for each in parameters if each.default is each.empty and each.kind not in variable]


@contextmanager
def _as_a_program(name: str, *folders: str) -> Iterator[None]:
    """Code within has no arguments of a command line, and finds what is beside it."""
    before = sys.argv
    sys.argv = [name]
    sys.path[:0] = folders
    try:
        yield
    finally:
        sys.argv = before
        for folder in folders:
            with suppress(ValueError):
                sys.path.remove(folder)


def _code(error: SystemExit) -> str:
    """What a program says that ends itself."""
    return f" ({printable(error.code)})" if isinstance(error.code, str) and error.code else ""


def _load_file(path: Path) -> ModuleType:
    if not is_file(path):
        raise InputError(f"{str(path)!r}: there is no such file")
    # Its neighbors can be imported from it, as when it is run.
    file = path.resolve()
    root, packages = _package_of(file)
    with _as_a_program(str(path), str(file.parent), *([str(root)] if root != file.parent else [])):
        try:
            return _run(_with_packages(root, packages, file.stem) if packages else file.stem, file)
        except SystemExit as error:
            raise InputError(
                f"{str(path)!r} ends the program{_code(error)} where it is imported: expected a file that defines the "
                "network, and does the rest under `if __name__ == '__main__':`"
            ) from None
        except Exception as error:
            hint = ""
            if isinstance(error, ImportError) and "no known parent package" in str(error):
                hint = f"; expected an __init__.py in {str(path.parent)!r}, so that it is a package"
            raise InputError(f"{str(path)!r} cannot be run: {_said(error)}{hint}") from error


def _package_of(file: Path) -> tuple[Path, list[str]]:
    """The folder from which a file is imported as a part of its package, and the packages that it is in."""
    packages: list[str] = []
    folder = file.parent
    while file.stem.isidentifier() and folder.name.isidentifier() and (folder / "__init__.py").is_file():
        packages.insert(0, folder.name)
        folder = folder.parent
    return folder, packages


def _with_packages(root: Path, packages: list[str], stem: str) -> str:
    """Import the packages of a file; gives its name in them, which is another where the outermost's is taken."""
    folder = root / packages[0]
    top = packages[0] if _is_free(packages[0], folder / "__init__.py") else _alias(folder)
    if top not in sys.modules:
        _run(top, folder / "__init__.py", folder)
    inmost = ".".join([top, *packages[1:]])
    importlib.import_module(inmost)
    return f"{inmost}.{stem}"


def _run(name: str, file: Path, package: Path | None = None) -> ModuleType:
    """A file's module, under that name where it is free and under one of its own elsewhere."""
    in_package = file.stem != name and package is None
    if not in_package and not (name.isidentifier() and _is_free(name, file)):
        name = _alias(file)
    inside = None if package is None else [str(package)]
    spec = importlib.util.spec_from_file_location(name, file, submodule_search_locations=inside)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    before = sys.modules.get(name)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        sys.modules.pop(name, None)
        if before is not None:
            sys.modules[name] = before
        raise
    return module


def _is_free(name: str, file: Path) -> bool:
    """Whether a module of that name is the file's, if there is any: others import theirs when they need it."""
    known = sys.modules.get(name)
    if known is not None:
        return getattr(known, "__file__", None) == str(file)
    beside = {str(file.parent), str(file.parent.parent) if file.stem == "__init__" else str(file.parent), ""}
    elsewhere = [folder for folder in sys.path if folder not in beside]
    return name not in sys.stdlib_module_names and PathFinder.find_spec(name, elsewhere) is None


def _alias(path: Path) -> str:
    digest = hashlib.sha256(str(path).encode("utf-8", "replace")).hexdigest()[:8]
    return f"_own_{re.sub('[^0-9A-Za-z_]', '_', path.stem)}_{digest}"


def _import(name: str) -> ModuleType:
    with _as_a_program(name, ""):
        try:
            return importlib.import_module(name)
        except ModuleNotFoundError as error:
            raise InputError(f"module {name!r} cannot be imported: {error}") from error
        except SystemExit as error:
            raise InputError(
                f"module {name!r} ends the program{_code(error)} where it is imported: expected one that defines the "
                "network"
            ) from None
        except Exception as error:
            raise InputError(f"module {name!r} cannot be imported: {_said(error)}") from error


def _said(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
