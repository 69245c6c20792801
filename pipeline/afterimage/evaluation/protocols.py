"""Published protocols of image metrics, exact: their sizes, layers, direction and retrieval.

A is that of MindEye2 (Scotti et al. 2024, arXiv:2403.11207, src/final_evaluations.ipynb), B that of
Brain-Diffuser (Ozcelik & VanRullen 2023, doi:10.1038/s41598-023-42891-8,
scripts/eval_extract_features.py and evaluate_reconstruction.py).

What differs: ties fail in retrieval too, intervals and chance are measured, and where the network of
a metric is absent a small one stands in, under its own name and never under that of the absent one.
Neither protocol says which of several reconstructions of an image is scored: the row says it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from afterimage.evaluation.images import as_unit_float

#: Pictures resized and embedded at once.
BATCH = 16


@dataclass(frozen=True)
class Use:
    """One network of a protocol.

    Attributes
    ----------
    name : str
        Of the features, as in ``twoway_<name>`` or ``distance_<name>``.
    network, layer : str
        Key of `networks.metric_networks.NETWORKS`, and the layer that is read.
    size_px : int
        The network is given square pictures of this size.
    distance : bool
        Mean correlation distance rather than two-way identification.
    stand_in : str
        Feature block of ours that is used where the network is absent.
    """

    name: str
    network: str
    layer: str
    size_px: int
    distance: bool = False
    stand_in: str = "clip"


@dataclass(frozen=True)
class Protocol:
    """How one line of papers scores reconstructions.

    Attributes
    ----------
    name, letter, source : str
    first_px : int or None
        Pictures and reconstructions are brought to this size before anything else.
    low_level_px : int
        Size at which pixels are compared.
    tensors : bool
        True: bilinear between pixel centres, not antialiased (torch on tensors, as torchvision did
        before 0.17). False: Pillow, bicubic for pixels and bilinear for networks.
    uses : tuple of Use
    gallery, n_draws : int or None
        Images drawn for a retrieval, and how often; None where it has none.
    published_n : tuple of int
        Numbers of test images of the published tables.
    """

    name: str
    letter: str
    source: str
    first_px: int | None
    low_level_px: int
    tensors: bool
    uses: tuple[Use, ...]
    gallery: int | None
    n_draws: int | None
    published_n: tuple[int, ...]

    @property
    def size(self) -> str:
        """Return what the rows say of sizes."""
        first = f"resized to {self.first_px}, then " if self.first_px else "resized to "
        return f"{first}{self.low_level_px} px"


def _uses(sizes: tuple[int, int, int, int, int], efficientnet: str) -> tuple[Use, ...]:
    alexnet, inception, clip, efficient, swav = sizes
    return (
        Use("alexnet2", "alexnet", "features.4", alexnet, stand_in="gabor"),
        Use("alexnet5", "alexnet", "features.11", alexnet, stand_in="gabor"),
        Use("inception", "inception_v3", "avgpool", inception),
        Use("cliplarge", "clip_vit_l14", "final", clip),
        Use("efficientnet", efficientnet, "avgpool", efficient, distance=True),
        Use("swav", "swav", "avgpool", swav, distance=True),
    )


PROTOCOLS = {
    "mindeye2": Protocol(
        "mindeye2", "A", "Scotti et al. 2024, arXiv:2403.11207", 256, 425, True,
        _uses((256, 342, 224, 255, 224), "efficientnet_b1"), 300, 30, (1000,),
    ),
    "brain_diffuser": Protocol(
        "brain_diffuser", "B", "Ozcelik & VanRullen 2023, doi:10.1038/s41598-023-42891-8", None, 425,
        False, _uses((224, 224, 224, 224, 224), "efficientnet_b1_v1"), None, None, (982,),
    ),
}  # fmt: skip


def resize_square(
    images: Sequence[NDArray[np.generic]] | NDArray[np.generic],
    size_px: int,
    *,
    tensors: bool,
    bicubic: bool = False,
) -> NDArray[np.float32]:
    """Bring pictures to squares, as a protocol does.

    Parameters
    ----------
    images : sequence of ndarray, each (height, width, 3)
        uint8, or float 0..1 (with ``tensors``; 8 bits are what Pillow resizes).
    size_px : int
    tensors : bool
        As `Protocol.tensors`.
    bicubic : bool
        For Pillow: the filter of ``Image.resize`` rather than that of torchvision.

    Returns
    -------
    ndarray of float32, shape (n, size_px, size_px, 3)
        Intensities 0..1.
    """
    if not tensors:
        return _resize_pillow(images, size_px, bicubic)
    import torch

    resized = np.empty((len(images), size_px, size_px, 3), np.float32)
    for index, image in enumerate(images):
        values = as_unit_float(np.asarray(image)[None])
        if values.shape[1:3] != (size_px, size_px):
            pixels = torch.from_numpy(np.ascontiguousarray(values.transpose(0, 3, 1, 2)))
            pixels = torch.nn.functional.interpolate(
                pixels, size=(size_px, size_px), mode="bilinear", align_corners=False
            )
            values = pixels.numpy().transpose(0, 2, 3, 1)
        resized[index] = values[0]
    return resized


def _resize_pillow(
    images: Sequence[NDArray[np.generic]] | NDArray[np.generic], size_px: int, bicubic: bool
) -> NDArray[np.float32]:
    from PIL import Image

    kind = Image.Resampling.BICUBIC if bicubic else Image.Resampling.BILINEAR
    resized = np.empty((len(images), size_px, size_px, 3), np.float32)
    for index, image in enumerate(images):
        values = np.asarray(image)
        if values.dtype != np.uint8:
            values = np.rint(np.clip(values, 0, 1) * 255).astype(np.uint8)
        picture = Image.fromarray(values).resize((size_px, size_px), kind)
        resized[index] = np.asarray(picture)
    return np.asarray(resized / np.float32(255))


def first_step(
    protocol: Protocol, images: Sequence[NDArray[np.generic]]
) -> Sequence[NDArray[np.generic]]:
    """Bring pictures or reconstructions to the size that the protocol begins with."""
    if protocol.first_px is None:
        return images
    return list(resize_square(images, protocol.first_px, tensors=protocol.tensors))


def low_level(protocol: Protocol, images: Sequence[NDArray[np.generic]]) -> NDArray[np.float32]:
    """Return pictures that went through `first_step` at the size at which pixels are compared."""
    return resize_square(images, protocol.low_level_px, tensors=protocol.tensors, bicubic=True)


def network_features(
    protocol: Protocol, images: Sequence[NDArray[np.generic]], networks: Mapping[str, Any]
) -> dict[str, NDArray[np.float32]]:
    """Embed pictures that went through `first_step` with the networks that are there.

    Parameters
    ----------
    protocol : Protocol
    images : sequence of ndarray, each (height, width, 3)
    networks : mapping of str to MetricNetwork
        By name of the network.

    Returns
    -------
    dict of ndarray of float32, shape (n, n_features)
        By `Use.name`, for the uses whose network is there.
    """
    import torch

    found: dict[str, list[NDArray[np.float32]]] = {}
    groups: dict[tuple[str, int], list[Use]] = {}
    for use in protocol.uses:
        if use.network in networks:
            groups.setdefault((use.network, use.size_px), []).append(use)
    for (network, size_px), uses in groups.items():
        for batch in _batches(images):
            pixels = resize_square(batch, size_px, tensors=protocol.tensors)
            tensor = torch.from_numpy(np.ascontiguousarray(pixels.transpose(0, 3, 1, 2)))
            values = networks[network].encode(tensor, [use.layer for use in uses])
            for use in uses:
                found.setdefault(use.name, []).append(values[use.layer].numpy())
    return {name: np.concatenate(parts) for name, parts in found.items()}


def _batches(images: Sequence[Any]) -> Iterator[Sequence[Any]]:
    for start in range(0, len(images), BATCH):
        yield images[start : start + BATCH]


def cosine(predicted: NDArray[np.generic], true: NDArray[np.generic]) -> NDArray[np.float64]:
    """Cosine of every flattened prediction with every flattened true vector, not centred.

    Parameters
    ----------
    predicted : ndarray, shape (n, ...)
    true : ndarray, shape (n_gallery, ...)

    Returns
    -------
    ndarray of float64, shape (n, n_gallery)
        Rounded to 10 decimals, so that equal vectors tie; 0 for a vector of zeros.
    """
    rows = [np.asarray(v, np.float64).reshape(len(v), -1) for v in (predicted, true)]
    norms = [np.linalg.norm(v, axis=1, keepdims=True) for v in rows]
    a, b = (v / np.where(n > 0, n, 1.0) for v, n in zip(rows, norms, strict=True))
    return np.asarray(np.round(a @ b.T, 10))


def drawn_galleries(
    n: int, gallery: int, n_draws: int, random_state: int
) -> list[NDArray[np.int64]]:
    """Draw the images of every retrieval, without replacement.

    With no more images than a gallery holds there is one gallery, of all of them.
    """
    if n <= gallery:
        return [np.arange(n)]
    generator = np.random.default_rng(random_state)
    return [generator.choice(n, size=gallery, replace=False) for _ in range(n_draws)]


def drawn_retrieval(
    similarities: NDArray[np.floating], galleries: Sequence[NDArray[np.int64]]
) -> NDArray[np.float64]:
    """Share of the draws in which the right answer of each query is the first; ties fail.

    Parameters
    ----------
    similarities : ndarray, shape (n, n)
        Row = query, column = answer, the right one on the diagonal.
    galleries : sequence of ndarray of int
        Of `drawn_galleries`.

    Returns
    -------
    ndarray of float64, shape (n,)
        NaN for an image that no gallery holds.
    """
    hits, shown = np.zeros(len(similarities)), np.zeros(len(similarities))
    for rows in galleries:
        part = np.array(similarities[np.ix_(rows, rows)])
        right = part.diagonal().copy()
        np.fill_diagonal(part, -np.inf)
        hits[rows] += right > part.max(axis=1)
        shown[rows] += 1
    return np.divide(hits, shown, out=np.full(len(hits), np.nan), where=shown > 0)
