"""Where the user's files are kept between runs: configuration, data and cache, as the operating system has them.

On Linux these are phosphene/ in XDG_CONFIG_HOME, XDG_DATA_HOME and XDG_CACHE_HOME, or in ~/.config, ~/.local/share and
~/.cache.  Version 0.1.0 kept them there on every system, so what is there already is used.
"""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs

_NAME = "phosphene"


def config(name: str, variable: str = "") -> Path:
    """A file or folder of the user's configuration, or what an environment variable names instead."""
    return _place(name, variable, platformdirs.user_config_path(_NAME, False), "XDG_CONFIG_HOME", ".config")


def data(name: str, variable: str = "") -> Path:
    """A file or folder of the user's data, or what an environment variable names instead."""
    return _place(name, variable, platformdirs.user_data_path(_NAME, False), "XDG_DATA_HOME", ".local/share")


def cache(name: str, variable: str = "") -> Path:
    """A file or folder of what can be made again, or what an environment variable names instead."""
    return _place(name, variable, platformdirs.user_cache_path(_NAME, False), "XDG_CACHE_HOME", ".cache")


def _place(name: str, variable: str, folder: Path, xdg: str, default: str) -> Path:
    if variable and (named := os.environ.get(variable)):
        return Path(named)
    chosen = os.environ.get(xdg)
    earlier = Path(chosen or Path.home() / default) / _NAME / name
    return earlier if chosen or earlier.exists() else folder / name
