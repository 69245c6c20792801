"""Rows of published protocols: the same reconstructions, scored as other papers score theirs.

The protocols are those of `protocols`: MindEye2 (Scotti et al. 2024, arXiv:2403.11207) and
Brain-Diffuser (Ozcelik & VanRullen 2023, doi:10.1038/s41598-023-42891-8).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from afterimage.evaluation.identification import count_beaten, similarity
from afterimage.evaluation.measures import (
    Measure,
    Resampling,
    Scores,
    add_rows,
    image_measures,
    plain_number,
)
from afterimage.evaluation.metrics import COLUMNS, protocol
from afterimage.evaluation.protocols import (
    Protocol,
    cosine,
    drawn_galleries,
    drawn_retrieval,
    first_step,
    low_level,
    network_features,
)
from afterimage.evaluation.scores import ReconstructionSet
from afterimage.evaluation.statistics import bootstrap_interval

Embed = Callable[[Sequence[NDArray[np.generic]]], Mapping[str, NDArray[np.generic]]]


@dataclass
class ProtocolJudge:
    """The test pictures as one protocol sees them; scores one set of reconstructions at a time.

    Parameters
    ----------
    protocol : Protocol
    truth : sequence of ndarray, each (height, width, 3), uint8
    networks : mapping of str to MetricNetwork
        Those that are there.
    embed : callable
        Our own encoders, by name of the block: they stand in for networks that are absent.
    drawing : Resampling
    subject : str
    """

    protocol: Protocol
    truth: Sequence[NDArray[np.generic]]
    networks: Mapping[str, Any]
    embed: Embed
    drawing: Resampling
    subject: str
    scores: Scores = field(default_factory=Scores)
    ceilings: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._pixels = np.stack(_same_size(first_step(self.protocol, self.truth)))
        self._features = self._embed(list(self._pixels))

    def add(self, one: ReconstructionSet) -> None:
        """Score one set of reconstructions."""
        pictures = first_step(self.protocol, one.originals or list(one.images))
        features = self._embed(pictures)
        measures = [*self._image_measures(pictures)]
        for name, values in features.items():
            distance = name.startswith("distance")
            correlations = similarity(values, self._features[name])
            columns = np.arange(len(correlations))
            if distance:
                measures.append(Measure(name, 1 - correlations, columns))
            else:
                rates = count_beaten(correlations) / max(1, len(correlations) - 1)
                measures.append(Measure(name, rates, columns, "brain_to_image"))
        identity = {"subject": self.subject, "label": one.label, "decoder": one.decoder}
        identity |= {"method": one.method, "role": one.role}
        told = {
            "size": self.protocol.size, "repeats": "averaged", "selection": one.selection
        }  # fmt: skip
        add_rows(
            self.scores, measures, identity, told, self.drawing, one.how,
            family=self.protocol.name,
        )  # fmt: skip
        self.ceilings[one.label] = one.ceiling

    def rows(self) -> list[dict[str, Any]]:
        """Return the rows of all sets, with their ceilings."""
        values = {(row["label"], row["metric"]): row["value"] for row in self.scores.rows}
        for row in self.scores.rows:
            row["ceiling"] = values.get((self.ceilings[row["label"]], row["metric"]))
        return self.scores.rows

    def _image_measures(self, pictures: Sequence[NDArray[np.generic]]) -> Iterator[Measure]:
        if self.protocol.tensors:  # resized a block at a time: a thousand at 425 px are 2 GB
            truth, recon = self._pixels, np.stack(pictures)
            resize = partial(low_level, self.protocol)
        else:  # Pillow gives 8 bits, which are small enough to be held
            truth, recon = (
                _eight_bits(low_level(self.protocol, list(images)))
                for images in (self._pixels, pictures)
            )
            resize = None
        return image_measures(
            truth, recon, self.drawing, names=("pixcorr", "ssim"), resize=resize,
            size_px=self.protocol.low_level_px,
        )  # fmt: skip

    def _embed(self, pictures: Sequence[NDArray[np.generic]]) -> dict[str, NDArray[np.generic]]:
        """Features by the name of their metric; of stand-ins under a name of their own."""
        own = network_features(self.protocol, pictures, self.networks)
        found: dict[str, NDArray[np.generic]] = {}
        blocks: Mapping[str, NDArray[np.generic]] | None = None
        for use in self.protocol.uses:
            kind = "distance" if use.distance else "twoway"
            if use.name in own:
                found[f"{kind}_{use.name}"] = own[use.name]
                continue
            if blocks is None:
                blocks = self.embed([_eight_bits(picture) for picture in pictures])
            if use.stand_in in blocks:
                found[f"{kind}_standin_{use.stand_in}"] = blocks[use.stand_in]
        return found


def retrieval_rows(
    protocol_: Protocol,
    predicted: Mapping[str, NDArray[np.generic]],
    true: Mapping[str, NDArray[np.generic]],
    *,
    subject: str,
    decoder: str,
    kinds: Mapping[str, str],
    how: Sequence[str] = (),
    drawing: Resampling | None = None,
) -> list[dict[str, Any]]:
    """Top-1 retrieval of a protocol, in both directions, from decoded features.

    Parameters
    ----------
    protocol_ : Protocol
        With a gallery and a number of draws.
    predicted, true : mapping of str to ndarray, shape (n, n_features)
        Decoded and true features of the same test images, by block.
    subject, decoder : str
    kinds : mapping of str to str
        What each block is, for the row: the published numbers are of OpenCLIP bigG tokens.
    how : sequence of str
    drawing : Resampling, optional

    Returns
    -------
    list of dict
        ``retrieval_top1_<block>`` (brain_to_image) and ``retrieval_top1_<block>_image_to_brain``.
        Chance is 1 / gallery; p is not computed, for the native rows of the same features have it.
    """
    if protocol_.gallery is None or protocol_.n_draws is None:
        return []
    drawing = drawing or Resampling()
    rows = []
    for block, values in predicted.items():
        matrix = cosine(values, true[block])
        n = len(matrix)
        galleries = drawn_galleries(n, protocol_.gallery, protocol_.n_draws, drawing.random_state)
        draws = f"{len(galleries)} draw{'s' if len(galleries) > 1 else ''}"
        for direction, table in (("brain_to_image", matrix), ("image_to_brain", matrix.T)):
            hits = drawn_retrieval(table, galleries)
            per_image = hits[np.isfinite(hits)]
            low, high = bootstrap_interval(
                per_image, n_bootstraps=drawing.n_bootstraps, random_state=drawing.random_state
            )
            text = protocol(
                family=protocol_.name, size="decoded features", n=n, direction=direction,
                gallery=len(galleries[0]), repeats="averaged", selection="no selection",
                extra=(
                    f"{draws}, seed {drawing.random_state}", "cosine, not centred",
                    kinds.get(block, block), *how,
                ),
            )  # fmt: skip
            end = "" if direction == "brain_to_image" else f"_{direction}"
            row: dict[str, Any] = dict.fromkeys(COLUMNS)
            row |= {"subject": subject, "label": decoder, "decoder": decoder, "method": ""}
            row |= {"role": "prediction", "metric": f"retrieval_top1_{block}{end}", "n": n}
            row |= {"value": plain_number(per_image.mean() if len(per_image) else None)}
            row |= {"ci_low": plain_number(low), "ci_high": plain_number(high), "ceiling": 1.0}
            rows.append(row | {"chance": 1 / len(galleries[0]), "protocol": text})
    return rows


def _same_size(pictures: Sequence[NDArray[np.generic]]) -> list[NDArray[np.generic]]:
    """Return pictures as they are, or all at the size of the first where they differ."""
    height, width = pictures[0].shape[:2]
    if all(picture.shape[:2] == (height, width) for picture in pictures):
        return list(pictures)
    from PIL import Image

    return [
        np.asarray(Image.fromarray(picture).resize((width, height), Image.Resampling.BILINEAR))
        for picture in pictures
    ]


def _eight_bits(picture: NDArray[np.generic]) -> NDArray[np.uint8]:
    if picture.dtype == np.uint8:
        return np.asarray(picture, np.uint8)
    return np.rint(np.clip(picture, 0, 1) * 255).astype(np.uint8)
