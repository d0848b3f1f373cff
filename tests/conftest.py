"""What the tests share: the bundled network, small networks made here, and the folder of photographs."""

import os

os.environ["HF_HUB_OFFLINE"] = "1"  # the tests reach for nothing outside

import shutil
import signal
from pathlib import Path

import pytest
import torch
from torch import nn

import phosphene
from phosphene import Network, Preprocessing

SHARED = Path(__file__).resolve().parents[2] / "shared"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


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
    os.environ["PHOSPHENE_NETWORKS"] = str(tmp_path_factory.mktemp("data") / "networks.json")


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


class Small(nn.Module):
    """A classifier of five classes that one step takes a millisecond of."""

    def __init__(self, channels: int = 3, inplace: bool = False):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, 8, 3, padding=1)
        self.relu1 = nn.ReLU(inplace)
        self.pool = nn.MaxPool2d(2)
        self.conv2 = nn.Conv2d(8, 12, 3, padding=1)
        self.relu2 = nn.ReLU(inplace)
        self.head = nn.Linear(12, 5)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        maps = self.relu2(self.conv2(self.pool(self.relu1(self.conv1(images)))))
        return self.head(maps.mean((2, 3)))


def seeded(module_type: type[nn.Module], *args: object, **kwargs: object) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return module_type(*args, **kwargs)


def opened(module: nn.Module, channels: int = 3, size: int = 24, labels: object = None) -> Network:
    return phosphene.open(module, Preprocessing(size=size, mean=0.5, std=0.25, channels=channels), labels, name="small")


@pytest.fixture
def small() -> Network:
    return opened(seeded(Small), labels=["cat", "dog", "tabby cat", "horse", "sea horse"])
