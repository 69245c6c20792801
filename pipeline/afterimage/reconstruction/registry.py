"""The reconstruction methods, and what every one of them is given."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from afterimage.registry import Registry

#: Methods that turn predicted features into pictures. Each is built as ``Method(settings, device)``
#: and has ``reconstruct(predicted, material) -> Result``.
RECONSTRUCTIONS = Registry("reconstruction method", "afterimage.reconstruction")

#: Pictures (uint8, (height, width, 3)), and one dict of details a picture for the manifest.
Result: TypeAlias = tuple[list[np.ndarray], list[dict[str, Any]]]


@dataclass(frozen=True)
class Material:
    """What a method may use besides the predicted features: training data and no test image.

    Attributes
    ----------
    keys : sequence of str
        A name of every reconstruction (the stimulus id), from which its noise is seeded.
    random_state : int
    shapes : dict of tuple
        Shape of one row of every block.
    training : dict of array, each (n_training_images, n_features)
        Features of the training images.
    training_image : callable
        Reads the training image of an index, uint8 (height, width, 3).
    embed : dict of callable
        By block: embeds pictures as that block was made; list of uint8 to (n, n_features).
    """

    keys: Sequence[str]
    random_state: int
    shapes: Mapping[str, tuple[int, ...]]
    training: Mapping[str, np.ndarray]
    training_image: Callable[[int], np.ndarray]
    embed: Mapping[str, Callable[[Sequence[np.ndarray]], np.ndarray]]
