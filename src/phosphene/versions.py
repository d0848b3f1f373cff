"""Versions of what an image's bytes can depend on."""

from __future__ import annotations

import platform
from functools import cache
from importlib.metadata import PackageNotFoundError, version


@cache
def package_version(package: str = "phosphene") -> str:
    """The version of an installed package, without an import of it: timm's takes seconds."""
    try:
        return version(package)
    except PackageNotFoundError:  # run from source, not installed
        return "0+source"


def versions() -> dict[str, str]:
    """Versions of what an image's bytes can depend on."""
    import torch

    return {
        "phosphene": package_version(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "timm": package_version("timm"),
    }
