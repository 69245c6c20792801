"""EfficientNet-B1 (Tan & Le 2019, arXiv:1905.11946).

What differs: no classifier, for image metrics read the pooled features. Parameters are named, and
padding and batch normalisation set, as in torchvision, so that its weights, saved as safetensors,
load as they are; the model of transformers pads and normalises as in Keras, and gives other numbers.
"""

from __future__ import annotations

from collections.abc import Collection

import torch
from torch import nn

#: (expansion, kernel, stride, in, out, blocks) of the stages of B1.
STAGES = (
    (1, 3, 1, 32, 16, 2), (6, 3, 2, 16, 24, 3), (6, 5, 2, 24, 40, 3), (6, 3, 2, 40, 80, 4),
    (6, 5, 1, 80, 112, 4), (6, 5, 2, 112, 192, 5), (6, 3, 1, 192, 320, 2),
)  # fmt: skip


def _convolution(
    n_in: int, n_out: int, kernel: int = 1, stride: int = 1, groups: int = 1, active: bool = True
) -> nn.Sequential:
    """Convolution, batch normalisation, and SiLU where active."""
    padding = (kernel - 1) // 2
    parts: list[nn.Module] = [
        nn.Conv2d(n_in, n_out, kernel, stride, padding, groups=groups, bias=False),
        nn.BatchNorm2d(n_out),
    ]
    return nn.Sequential(*parts, *([nn.SiLU()] if active else []))


class SqueezeExcitation(nn.Module):
    """Scale every channel by what a small network makes of the means of all channels."""

    def __init__(self, n_channels: int, n_squeezed: int) -> None:
        super().__init__()
        self.fc1 = nn.Conv2d(n_channels, n_squeezed, 1)
        self.fc2 = nn.Conv2d(n_squeezed, n_channels, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the scaled maps, of the shape given."""
        scale = x.mean(dim=(2, 3), keepdim=True)
        return x * torch.sigmoid(self.fc2(nn.functional.silu(self.fc1(scale))))


class MBConv(nn.Module):
    """Inverted bottleneck: expand, convolve by channel, scale, project, add the input."""

    def __init__(self, expansion: int, kernel: int, stride: int, n_in: int, n_out: int) -> None:
        super().__init__()
        wide = n_in * expansion
        parts = [_convolution(n_in, wide)] if expansion != 1 else []
        self.block = nn.Sequential(
            *parts,
            _convolution(wide, wide, kernel, stride, groups=wide),
            SqueezeExcitation(wide, max(1, n_in // 4)),
            _convolution(wide, n_out, active=False),
        )
        self.residual = stride == 1 and n_in == n_out

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return (n, n_out, height / stride, width / stride)."""
        y: torch.Tensor = self.block(x)
        return x + y if self.residual else y


class EfficientNetB1(nn.Module):
    """EfficientNet-B1 up to its average over places, the layer ``avgpool`` (1280 features)."""

    layers = ("avgpool",)

    def __init__(self) -> None:
        super().__init__()
        stages = [_convolution(3, 32, 3, 2)]
        for expansion, kernel, stride, n_in, n_out, n_blocks in STAGES:
            blocks = [MBConv(expansion, kernel, stride, n_in, n_out)]
            blocks += [MBConv(expansion, kernel, 1, n_out, n_out) for _ in range(n_blocks - 1)]
            stages.append(nn.Sequential(*blocks))
        self.features = nn.Sequential(*stages, _convolution(320, 1280))

    def forward(self, images: torch.Tensor, layers: Collection[str]) -> dict[str, torch.Tensor]:
        """Return the pooled features (n, 1280) of images (n, 3, height, width), as ``avgpool``."""
        return {"avgpool": self.features(images).mean(dim=(2, 3))}
