"""AlexNet (Krizhevsky 2014, One weird trick for parallelizing CNNs, arXiv:1404.5997).

What differs: only the convolutions, which is all that image metrics read. Parameters are named as
in torchvision, so that its weights, saved as safetensors, load as they are.
"""

from __future__ import annotations

from collections.abc import Collection

import torch
from torch import nn

#: (in, out, kernel, stride, padding) of the convolutions, and a pooling after the 1st, 2nd and 5th.
CONVOLUTIONS = (
    (3, 64, 11, 4, 2), (64, 192, 5, 1, 2), (192, 384, 3, 1, 1), (384, 256, 3, 1, 1),
    (256, 256, 3, 1, 1),
)  # fmt: skip
POOLED = (0, 1, 4)


class AlexNet(nn.Module):
    """The convolutional part of AlexNet.

    `forward` returns the layers asked for: ``features.4`` is what follows the rectification of the
    second convolution, ``features.11`` that of the fifth.
    """

    layers = ("features.4", "features.11")

    def __init__(self) -> None:
        super().__init__()
        stages: list[nn.Module] = []
        for number, (n_in, n_out, kernel, stride, padding) in enumerate(CONVOLUTIONS):
            stages += [nn.Conv2d(n_in, n_out, kernel, stride, padding), nn.ReLU()]
            if number in POOLED:
                stages.append(nn.MaxPool2d(3, 2))
        self.features = nn.Sequential(*stages)

    def forward(self, images: torch.Tensor, layers: Collection[str]) -> dict[str, torch.Tensor]:
        """Return feature maps of normalised images (n, 3, height, width), by layer."""
        found = {}
        for number, stage in enumerate(self.features):
            images = stage(images)
            if (name := f"features.{number}") in layers:
                found[name] = images
        return found
