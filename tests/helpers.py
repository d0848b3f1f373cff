"""What the tests share: small networks made here, and the folder of photographs."""

import shutil
from pathlib import Path

import torch
from torch import nn

import phosphene
from phosphene import Network, Preprocessing

SHARED = Path(__file__).resolve().parents[2] / "shared"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


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


def written_network(folder: Path, name: str, seed: int, body: str) -> str:
    """A Python file with a network of images of 16 pixels, as the command line names it: `FILE:net`."""
    code = f"import torch\nfrom torch import nn\ndef net():\n    torch.manual_seed({seed})\n    return {body}\n"
    (folder / f"{name}.py").write_text(code)
    (folder / f"{name}.toml").write_text("size = 16\nmean = 0.5\nstd = 0.25\n")
    return f"{folder / name}.py:net"


SHALLOW = "nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 196, 4))"
