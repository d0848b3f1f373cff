"""Where the user's files are: as the operating system has them, and where version 0.1.0 kept them."""

import sys
from pathlib import Path

import platformdirs
import pytest

from phosphene import user_folders
from phosphene.networks import named
from phosphene.photographs.activation_files import cache_path

KINDS = {
    "config": ("user_config_path", "XDG_CONFIG_HOME", ".config"),
    "data": ("user_data_path", "XDG_DATA_HOME", ".local/share"),
    "cache": ("user_cache_path", "XDG_CACHE_HOME", ".cache"),
}


@pytest.fixture(params=KINDS)
def kind(request, monkeypatch, tmp_path):
    """The function of a kind of folder, its variable, and where it is by default; nothing of it is set or there."""
    _, variable, default = KINDS[request.param]
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv(variable, raising=False)
    return getattr(user_folders, request.param), variable, tmp_path / default / "phosphene"


@pytest.mark.skipif(sys.platform != "linux", reason="it is Linux's place")
def test_on_linux_they_are_where_xdg_says_or_in_the_home(kind, monkeypatch, tmp_path):
    folder, variable, default = kind
    assert folder("x.json") == default / "x.json"
    monkeypatch.setenv(variable, str(tmp_path / "chosen"))
    assert folder("x.json") == tmp_path / "chosen" / "phosphene" / "x.json"


def test_elsewhere_they_are_where_the_system_has_them_but_for_those_of_0_1_0(kind, monkeypatch):
    folder, _, earlier = kind
    monkeypatch.setattr(platformdirs, KINDS[folder.__name__][0], lambda name, author: Path("/Library") / name)
    assert folder("x") == Path("/Library/phosphene/x")
    (earlier / "x").mkdir(parents=True)
    assert folder("x") == earlier / "x"


def test_a_variable_of_its_own_goes_first(kind, monkeypatch):
    folder, variable, _ = kind
    monkeypatch.setenv(variable, "/elsewhere")
    monkeypatch.setenv("PHOSPHENE_THINGS", "/mine")
    assert folder("x", "PHOSPHENE_THINGS") == Path("/mine")
    monkeypatch.setenv("PHOSPHENE_THINGS", "")
    assert folder("x", "PHOSPHENE_THINGS") == Path("/elsewhere/phosphene/x")


def test_what_is_kept_has_its_place_in_them(monkeypatch):
    monkeypatch.setenv("XDG_DATA_HOME", "/data")
    monkeypatch.setenv("XDG_CACHE_HOME", "/cache")
    monkeypatch.delenv("PHOSPHENE_NETWORKS", raising=False)
    monkeypatch.delenv("PHOSPHENE_STATISTICS", raising=False)
    assert named.memory_path() == Path("/data/phosphene/networks.json")
    assert cache_path("abc") == Path("/cache/phosphene/statistics/abc.safetensors")
