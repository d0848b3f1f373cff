"""Tiny networks with random weights: with batch normalisation, of a fixed size, and a vision transformer."""

import timm
import torch
from helpers import Small, opened, seeded
from torch import nn

from phosphene import Network

LABELS = ["cat", "dog", "tabby cat", "horse", "sea horse"]


class Normed(nn.Module):
    """Five classes; its batch normalisations have seen noise.  The first convolution has no bias."""

    def __init__(self, channels: int = 3, inplace: bool = True):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, 8, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(8)
        self.relu1 = nn.ReLU(inplace)
        self.pool = nn.MaxPool2d(2)
        self.conv2 = nn.Conv2d(8, 12, 3, padding=1)
        self.bn2 = nn.BatchNorm2d(12)
        self.relu2 = nn.ReLU(inplace)
        self.head = nn.Linear(12, 5)
        for norm in (self.bn1, self.bn2):
            nn.init.normal_(norm.weight, 1, 0.4)
            nn.init.normal_(norm.bias, 0, 0.3)
        for _ in range(30):
            self(torch.randn(4, channels, 24, 24))
        self.eval()

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        maps = self.relu1(self.bn1(self.conv1(images)))
        maps = self.relu2(self.bn2(self.conv2(self.pool(maps))))
        return self.head(maps.mean((2, 3)))


class Flat(nn.Module):
    """Its last layer has a weight for each position: images of 24 pixels only."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 3, padding=1)
        self.relu = nn.ReLU()
        self.pool = nn.AvgPool2d(4)
        self.head = nn.Linear(6 * 6 * 6, 5)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.head(self.pool(self.relu(self.conv(images))).flatten(1))


class Greedy(Small):
    """Runs out of memory on more than three images."""

    def forward(self, images):
        if len(images) > 3:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 GiB.")
        return super().forward(images)


def normed(channels: int = 3, inplace: bool = True) -> Network:
    return opened(seeded(Normed, channels, inplace), channels=channels, labels=LABELS)


def vit(size: int = 64) -> Network:
    """A vision transformer of timm's, which takes images of its own size only; its head, untrained 0, is made noise."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = timm.create_model("test_vit", img_size=size, patch_size=size // 4, num_classes=5).eval()
        nn.init.normal_(module.head.weight, 0, 0.3)
    return opened(module, size=size, labels=LABELS)
