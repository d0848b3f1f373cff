"""Fixtures of all tests, and what holds for all of them."""

import os

os.environ["HF_HUB_OFFLINE"] = "1"  # the tests reach for nothing outside
if "PYTEST_XDIST_WORKER" in os.environ:  # a core each, also for the processes that tests begin
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import math
import signal

import pytest
import torch
from helpers import CHROMIUM, Small, opened, seeded
from hypothesis import settings

import phosphene
from phosphene import Network
from phosphene.networks.speed import precision

settings.register_profile("phosphene", deadline=None, derandomize=True, database=None, max_examples=25)
settings.load_profile("phosphene")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """A file's tests go to one worker, where they share what the file makes once."""
    from xdist.scheduler import LoadFileScheduling

    config.option.loadscopereorder = False  # the order is that of `pytest_collection_modifyitems`
    return LoadFileScheduling(config, log)


# The files that take longest come first, so that at the end no worker waits for another that has just begun one.
LONG = (
    *("test_studio", "test_keras", "test_atlas", "test_searching", "test_interruption", "test_atlas_map", "test_cli"),
    *("test_site", "test_corpus", "test_docs_depth", "test_foreign", "test_post_oracle", "test_forecast"),
    *("test_docs_notebooks", "test_written", "test_ascent_recipes", "test_ascent_rows", "test_sessions", "test_fuzz"),
    *("test_doctor", "test_docs_explain", "test_unit_statistics", "test_judges", "test_atlas_claims", "test_resuming"),
)


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: LONG.index(item.path.stem) if item.path.stem in LONG else len(LONG))


@pytest.fixture(scope="session", autouse=True)
def _ctrl_c() -> None:
    """A shell starts what it puts in the background with SIGINT ignored, and Python then leaves it so."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session", autouse=True)
def _threads() -> None:
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", 2)))


@pytest.fixture(scope="session", autouse=True)
def _no_recipes_of_the_user(tmp_path_factory: pytest.TempPathFactory) -> None:
    os.environ["PHOSPHENE_RECIPES"] = str(tmp_path_factory.mktemp("recipes"))
    os.environ["PHOSPHENE_COMPLETION"] = str(tmp_path_factory.mktemp("cache") / "completion.json")
    os.environ["PHOSPHENE_NETWORKS"] = str(tmp_path_factory.mktemp("data") / "networks.json")


@pytest.fixture(scope="session", autouse=True)
def _no_measured_precision(tmp_path_factory: pytest.TempPathFactory):
    """Passes have 32 bits unless a test asks for others: which is faster depends on what else the machine does."""
    real = precision.measure_timing, precision.memory_path
    path = tmp_path_factory.mktemp("precision") / "precision.json"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(precision, "measure_timing", lambda *_: precision.PrecisionTiming(0.0, math.inf))
        patch.setattr(precision, "memory_path", lambda: path)
        yield real


@pytest.fixture
def measured_precision(monkeypatch: pytest.MonkeyPatch, _no_measured_precision) -> None:
    """The precision of passes is measured and remembered all the same."""
    for function in _no_measured_precision:
        monkeypatch.setattr(precision, function.__name__, function)


@pytest.fixture(scope="module")
def browser():
    """A Chromium without a window; for tests that are skipped where there is none."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture(scope="session")
def lite0() -> Network:
    return phosphene.open("efficientnet_lite0")


@pytest.fixture
def small() -> Network:
    return opened(seeded(Small), labels=["cat", "dog", "tabby cat", "horse", "sea horse"])
