"""Versions of what an image's bytes can depend on."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version


def package_version() -> str:
    """The version of phosphene."""
    try:
        return version("phosphene")
    except PackageNotFoundError:  # run from source, not installed
        return "0+source"


def versions() -> dict[str, str]:
    """Versions of what an image's bytes can depend on."""
    import timm
    import torch

    return {
        "phosphene": package_version(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "timm": timm.__version__,
    }
