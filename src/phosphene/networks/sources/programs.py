"""Modules that are no plain `nn.Module`: programs of `torch.export` and TorchScript, and quantized networks."""

from __future__ import annotations

import copy
import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import nn

from phosphene.errors import InputError, error_text
from phosphene.files import is_file
from phosphene.networks.network import Network
from phosphene.networks.preprocessing import Preprocessing

SUFFIXES = (".pt2", ".pt", ".pth", ".jit", ".ts", ".torchscript")


def is_program(path: Path) -> bool:
    """Whether a file holds a program of `torch.export` or TorchScript, and not weights alone."""
    if path.suffix not in SUFFIXES or not is_file(path):
        return False
    if path.suffix == ".pt2":
        return True
    try:
        with zipfile.ZipFile(path) as archive:
            return any("/code/" in name for name in archive.namelist()[:10_000])
    except (OSError, zipfile.BadZipFile, ValueError, NotImplementedError):
        return False


def open_program(path: Path) -> Network:
    """The network that `torch.export.save` or `torch.jit.save` wrote.

    This runs the program, as loading it would: it is code that the user names.

    Raises:
        InputError: it is damaged, or this version of torch does not read it.
    """
    try:
        if path.suffix == ".pt2":
            return _of_export(torch.export.load(str(path)), path.stem)
        program: Any = torch.jit.load(str(path), map_location="cpu")  # type: ignore[no-untyped-call]
    except InputError:
        raise
    except Exception as error:
        raise InputError(f"program {str(path)!r} cannot be read: {error_text(error)}") from error
    note = (
        "nothing says what it expects: 0..1 and 224x224 are assumed; say it in a TOML file beside it (--preprocessing)"
    )
    return Network(program, Preprocessing(), name=path.stem, notes={"preprocessing": note})


def _of_export(program: Any, name: str) -> Network:
    size, channels, free = _input_of(program)
    note = f"nothing says what it expects: 0..1 and {size[0]}x{size[1]} are assumed (--preprocessing says otherwise)"
    known = Preprocessing.from_dict({"size": size, "channels": channels, "fixed_size": not free}, name)
    return Network(modules_of(program), known, name=name, notes={"preprocessing": note})


def is_exported(network: Any) -> bool:
    """Whether it is what `torch.export.export` returns."""
    return isinstance(network, torch.export.ExportedProgram)


def modules_of(program: Any) -> nn.Module:
    """The modules of an exported program, under the names that they had, or the program as one module."""
    try:
        return torch.export.unflatten(program)
    except Exception:  # of a program that cannot be taken apart
        module: nn.Module = program.module()
        return module


def _input_of(program: Any) -> tuple[tuple[int, int], int, bool]:
    """Height and width, channels, and whether other sizes go through."""
    wanted = set(program.graph_signature.user_inputs)
    shapes = [node.meta["val"].shape for node in program.graph.nodes if node.name in wanted and "val" in node.meta]
    if len(shapes) != 1 or len(shapes[0]) != 4:
        raise InputError(f"a program of {len(shapes)} inputs: expected one, of images (rows, channels, height, width)")
    _, channels, height, width = shapes[0]
    fixed = isinstance(height, int) and isinstance(width, int)
    return (int(height), int(width)) if fixed else (224, 224), int(channels), not fixed


# Quantized networks, whose arithmetic has no gradient.

_PLACES = ("torch.ao.nn.quantized", "torch.ao.nn.intrinsic.quantized", "torch.nn.quantized")
_SAME = {"ReLU6", "LeakyReLU", "ELU", "Hardswish", "Sigmoid", "Dropout", "MaxPool2d"}


def quantized_modules(module: nn.Module) -> list[str]:
    """The names of a network's quantized modules."""
    return [name for name, each in module.named_modules() if _is_quantized(each)]


def _is_quantized(module: nn.Module) -> bool:
    return type(module).__module__.startswith(_PLACES) and type(module).__name__ not in ("LinearPackedParams",)


def dequantize(module: nn.Module, called: str) -> nn.Module:
    """A copy in floating point, whose weights are what the quantized ones stand for.

    Raises:
        InputError: it has a quantized module of a kind that has no counterpart here.
    """
    found = copy.deepcopy(module)
    for name in quantized_modules(found):
        place, _, own = name.rpartition(".")
        parent: Any = found.get_submodule(place)
        setattr(parent, own, _counterpart(found.get_submodule(name), name, called))
    return found


def _counterpart(module: Any, name: str, called: str) -> nn.Module:
    kind = type(module).__name__
    if kind in ("Quantize", "DeQuantize"):
        return nn.Identity()
    if kind in ("QFunctional", "FXFloatFunctional"):
        functional: nn.Module = torch.ao.nn.quantized.FloatFunctional()
        return functional
    if kind in _SAME:
        return _with_settings(module, getattr(nn, kind))
    if kind in ("Linear", "LinearReLU"):
        made: nn.Module = _filled(nn.Linear(module.in_features, module.out_features), module)
        return nn.Sequential(made, nn.ReLU()) if kind.endswith("ReLU") else made
    if kind in ("Conv2d", "ConvReLU2d"):
        convolution = nn.Conv2d(
            module.in_channels, module.out_channels, module.kernel_size, module.stride, module.padding,
            module.dilation, module.groups, padding_mode=module.padding_mode,
        )  # fmt: skip
        made = _filled(convolution, module)
        return nn.Sequential(made, nn.ReLU()) if kind == "ConvReLU2d" else made
    raise InputError(
        f"{called} is quantized, and its {name} is a {kind}, which has no gradient: expected the network in floating "
        "point, as it was before `convert`"
    )


def _with_settings(module: Any, kind: type[nn.Module]) -> nn.Module:
    made: Any = kind()
    for name in ("negative_slope", "alpha", "p", "kernel_size", "stride", "padding"):
        if hasattr(made, name) and hasattr(module, name):
            setattr(made, name, getattr(module, name))
    return made  # type: ignore[no-any-return]


def _filled(made: Any, module: Any) -> nn.Module:
    bias = module.bias()
    made.weight = nn.Parameter(module.weight().dequantize().clone(), requires_grad=False)
    made.bias = None if bias is None else nn.Parameter(bias.detach().clone(), requires_grad=False)
    result: nn.Module = made.train(False)
    return result
