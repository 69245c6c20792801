"""ResNet-50 (He et al. 2016, doi:10.1109/CVPR.2016.90), the body of SwAV (arXiv:2006.09882).

What differs: no classifier or projection, for image metrics read the pooled features, and the stride
lies in the 3 x 3 convolution, as in torchvision, whose names of parameters are kept: its weights
and those of SwAV, saved as safetensors, load as they are.
"""

from __future__ import annotations

from collections.abc import Collection

import torch
from torch import nn

#: (width, blocks, stride) of the four stages.
STAGES = ((64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2))


class Bottleneck(nn.Module):
    """1 x 1, 3 x 3 and 1 x 1 convolutions beside the input, or a projection of it."""

    def __init__(self, n_in: int, width: int, stride: int) -> None:
        super().__init__()
        n_out = 4 * width
        self.conv1 = nn.Conv2d(n_in, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, n_out, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(n_out)
        self.downsample: nn.Module = nn.Identity()
        if stride != 1 or n_in != n_out:
            projection = nn.Conv2d(n_in, n_out, 1, stride, bias=False)
            self.downsample = nn.Sequential(projection, nn.BatchNorm2d(n_out))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return (n, 4 * width, height / stride, width / stride)."""
        y = torch.relu(self.bn1(self.conv1(x)))
        y = torch.relu(self.bn2(self.conv2(y)))
        return torch.relu(self.bn3(self.conv3(y)) + self.downsample(x))


class ResNet50(nn.Module):
    """ResNet-50 up to its average over places, the layer ``avgpool`` (2048 features)."""

    layers = ("avgpool",)

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        n_in = 64
        for number, (width, n_blocks, stride) in enumerate(STAGES, start=1):
            blocks = []
            for block in range(n_blocks):
                blocks.append(Bottleneck(n_in, width, stride if block == 0 else 1))
                n_in = 4 * width
            setattr(self, f"layer{number}", nn.Sequential(*blocks))

    def forward(self, images: torch.Tensor, layers: Collection[str]) -> dict[str, torch.Tensor]:
        """Return the pooled features (n, 2048) of images (n, 3, height, width), as ``avgpool``."""
        x = self.maxpool(torch.relu(self.bn1(self.conv1(images))))
        for number in range(1, len(STAGES) + 1):
            x = getattr(self, f"layer{number}")(x)
        return {"avgpool": x.mean(dim=(2, 3))}
