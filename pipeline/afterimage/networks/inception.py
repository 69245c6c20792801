"""Inception v3 (Szegedy et al. 2016, doi:10.1109/CVPR.2016.308).

What differs: no classifier and no auxiliary one, for image metrics read the pooled features.
Parameters are named as in torchvision, so that its weights, saved as safetensors, load as they are;
like there, images normalised for ImageNet are first brought to the range the weights know.
"""

from __future__ import annotations

from collections.abc import Collection

import torch
from torch import nn
from torch.nn import functional

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class BasicConv2d(nn.Module):
    """Convolution without offset, batch normalisation, rectification."""

    def __init__(
        self,
        n_in: int,
        n_out: int,
        kernel: int | tuple[int, int],
        stride: int = 1,
        padding: int | tuple[int, int] = 0,
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(n_in, n_out, kernel, stride, padding, bias=False)
        self.bn = nn.BatchNorm2d(n_out, eps=0.001)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return (n, n_out, height, width)."""
        return functional.relu(self.bn(self.conv(x)))


def _pool(x: torch.Tensor) -> torch.Tensor:
    return functional.avg_pool2d(x, kernel_size=3, stride=1, padding=1)


class InceptionA(nn.Module):
    """Mixed_5b to Mixed_5d: 1x1, 5x5, two 3x3, and a pooled branch."""

    def __init__(self, n_in: int, n_pool: int) -> None:
        super().__init__()
        self.branch1x1 = BasicConv2d(n_in, 64, 1)
        self.branch5x5_1 = BasicConv2d(n_in, 48, 1)
        self.branch5x5_2 = BasicConv2d(48, 64, 5, padding=2)
        self.branch3x3dbl_1 = BasicConv2d(n_in, 64, 1)
        self.branch3x3dbl_2 = BasicConv2d(64, 96, 3, padding=1)
        self.branch3x3dbl_3 = BasicConv2d(96, 96, 3, padding=1)
        self.branch_pool = BasicConv2d(n_in, n_pool, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the branches one after another, (n, 224 + n_pool, height, width)."""
        double = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x)))
        five = self.branch5x5_2(self.branch5x5_1(x))
        return torch.cat([self.branch1x1(x), five, double, self.branch_pool(_pool(x))], 1)


class InceptionB(nn.Module):
    """Mixed_6a: halves the maps."""

    def __init__(self, n_in: int) -> None:
        super().__init__()
        self.branch3x3 = BasicConv2d(n_in, 384, 3, stride=2)
        self.branch3x3dbl_1 = BasicConv2d(n_in, 64, 1)
        self.branch3x3dbl_2 = BasicConv2d(64, 96, 3, padding=1)
        self.branch3x3dbl_3 = BasicConv2d(96, 96, 3, stride=2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return (n, 480 + n_in, height / 2, width / 2)."""
        double = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x)))
        return torch.cat([self.branch3x3(x), double, functional.max_pool2d(x, 3, 2)], 1)


class InceptionC(nn.Module):
    """Mixed_6b to Mixed_6e: 7x7 convolutions as 1x7 and 7x1."""

    def __init__(self, n_in: int, n_7x7: int) -> None:
        super().__init__()
        self.branch1x1 = BasicConv2d(n_in, 192, 1)
        self.branch7x7_1 = BasicConv2d(n_in, n_7x7, 1)
        self.branch7x7_2 = BasicConv2d(n_7x7, n_7x7, (1, 7), padding=(0, 3))
        self.branch7x7_3 = BasicConv2d(n_7x7, 192, (7, 1), padding=(3, 0))
        self.branch7x7dbl_1 = BasicConv2d(n_in, n_7x7, 1)
        self.branch7x7dbl_2 = BasicConv2d(n_7x7, n_7x7, (7, 1), padding=(3, 0))
        self.branch7x7dbl_3 = BasicConv2d(n_7x7, n_7x7, (1, 7), padding=(0, 3))
        self.branch7x7dbl_4 = BasicConv2d(n_7x7, n_7x7, (7, 1), padding=(3, 0))
        self.branch7x7dbl_5 = BasicConv2d(n_7x7, 192, (1, 7), padding=(0, 3))
        self.branch_pool = BasicConv2d(n_in, 192, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return (n, 768, height, width)."""
        seven = self.branch7x7_3(self.branch7x7_2(self.branch7x7_1(x)))
        double = self.branch7x7dbl_3(self.branch7x7dbl_2(self.branch7x7dbl_1(x)))
        double = self.branch7x7dbl_5(self.branch7x7dbl_4(double))
        return torch.cat([self.branch1x1(x), seven, double, self.branch_pool(_pool(x))], 1)


class InceptionD(nn.Module):
    """Mixed_7a: halves the maps again."""

    def __init__(self, n_in: int) -> None:
        super().__init__()
        self.branch3x3_1 = BasicConv2d(n_in, 192, 1)
        self.branch3x3_2 = BasicConv2d(192, 320, 3, stride=2)
        self.branch7x7x3_1 = BasicConv2d(n_in, 192, 1)
        self.branch7x7x3_2 = BasicConv2d(192, 192, (1, 7), padding=(0, 3))
        self.branch7x7x3_3 = BasicConv2d(192, 192, (7, 1), padding=(3, 0))
        self.branch7x7x3_4 = BasicConv2d(192, 192, 3, stride=2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return (n, 512 + n_in, height / 2, width / 2)."""
        seven = self.branch7x7x3_3(self.branch7x7x3_2(self.branch7x7x3_1(x)))
        three = self.branch3x3_2(self.branch3x3_1(x))
        return torch.cat([three, self.branch7x7x3_4(seven), functional.max_pool2d(x, 3, 2)], 1)


class InceptionE(nn.Module):
    """Mixed_7b and Mixed_7c: 3x3 convolutions as 1x3 beside 3x1."""

    def __init__(self, n_in: int) -> None:
        super().__init__()
        self.branch1x1 = BasicConv2d(n_in, 320, 1)
        self.branch3x3_1 = BasicConv2d(n_in, 384, 1)
        self.branch3x3_2a = BasicConv2d(384, 384, (1, 3), padding=(0, 1))
        self.branch3x3_2b = BasicConv2d(384, 384, (3, 1), padding=(1, 0))
        self.branch3x3dbl_1 = BasicConv2d(n_in, 448, 1)
        self.branch3x3dbl_2 = BasicConv2d(448, 384, 3, padding=1)
        self.branch3x3dbl_3a = BasicConv2d(384, 384, (1, 3), padding=(0, 1))
        self.branch3x3dbl_3b = BasicConv2d(384, 384, (3, 1), padding=(1, 0))
        self.branch_pool = BasicConv2d(n_in, 192, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return (n, 2048, height, width)."""
        three = self.branch3x3_1(x)
        three = torch.cat([self.branch3x3_2a(three), self.branch3x3_2b(three)], 1)
        double = self.branch3x3dbl_2(self.branch3x3dbl_1(x))
        double = torch.cat([self.branch3x3dbl_3a(double), self.branch3x3dbl_3b(double)], 1)
        return torch.cat([self.branch1x1(x), three, double, self.branch_pool(_pool(x))], 1)


class InceptionV3(nn.Module):
    """Inception v3 up to its average over places, the layer ``avgpool`` (2048 features)."""

    layers = ("avgpool",)

    def __init__(self) -> None:
        super().__init__()
        self.Conv2d_1a_3x3 = BasicConv2d(3, 32, 3, stride=2)
        self.Conv2d_2a_3x3 = BasicConv2d(32, 32, 3)
        self.Conv2d_2b_3x3 = BasicConv2d(32, 64, 3, padding=1)
        self.Conv2d_3b_1x1 = BasicConv2d(64, 80, 1)
        self.Conv2d_4a_3x3 = BasicConv2d(80, 192, 3)
        self.Mixed_5b = InceptionA(192, 32)
        self.Mixed_5c = InceptionA(256, 64)
        self.Mixed_5d = InceptionA(288, 64)
        self.Mixed_6a = InceptionB(288)
        self.Mixed_6b = InceptionC(768, 128)
        self.Mixed_6c = InceptionC(768, 160)
        self.Mixed_6d = InceptionC(768, 160)
        self.Mixed_6e = InceptionC(768, 192)
        self.Mixed_7a = InceptionD(768)
        self.Mixed_7b = InceptionE(1280)
        self.Mixed_7c = InceptionE(2048)

    def forward(self, images: torch.Tensor, layers: Collection[str]) -> dict[str, torch.Tensor]:
        """Return the pooled features (n, 2048) of images (n, 3, height, width), as ``avgpool``."""
        mean, std = (
            images.new_tensor(v)[None, :, None, None] for v in (IMAGENET_MEAN, IMAGENET_STD)
        )
        x = (images * std + mean - 0.5) / 0.5  # torchvision's transform_input
        x = self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(x)))
        x = functional.max_pool2d(x, 3, 2)
        x = self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(x))
        x = functional.max_pool2d(x, 3, 2)
        for stage in (
            self.Mixed_5b, self.Mixed_5c, self.Mixed_5d, self.Mixed_6a, self.Mixed_6b,
            self.Mixed_6c, self.Mixed_6d, self.Mixed_6e, self.Mixed_7a, self.Mixed_7b,
            self.Mixed_7c,
        ):  # fmt: skip
            x = stage(x)
        return {"avgpool": x.mean(dim=(2, 3))}
