"""The reconstruction gallery: which rows are shown, and small pictures of them."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence

import numpy as np

from afterimage.reports.labels import inline, label_title, metric
from afterimage.reports.model import Gallery, NearDuplicate
from afterimage.reports.page import GalleryRow, GalleryView, Image

PERCENTILES = (5, 50, 95)
THUMBNAIL_PX = 176
LOSSLESS_UP_TO_PX = 72
N_DUPLICATES_SHOWN = 12


def pick_rows(
    n_images: int,
    score: np.ndarray | None,
    *,
    lower_is_better: bool = False,
    n_random: int = 8,
    random_state: int = 0,
) -> list[tuple[int, str]]:
    """Choose which images are shown: percentiles of the score, then a random draw.

    Parameters
    ----------
    n_images : int
        How many there are.
    score : array of shape (n_images,) or None
        Per-image score; without it, or where it is not finite, no percentile is taken.
    lower_is_better : bool
        Turn the order round, so that the 95th percentile is always a good image.
    n_random, random_state : int
        Size and seed of the random draw among the images not shown yet.

    Returns
    -------
    rows : list of (index, reason)
        Each index at most once. The q-th percentile is the image of rank round(q (m - 1) / 100)
        among the m finite scores, worst first, ties in the order given.
    """
    rows: list[tuple[int, str]] = []
    if score is not None:
        values = np.asarray(score, dtype=float)
        finite = np.flatnonzero(np.isfinite(values))
        keyed = -values[finite] if lower_is_better else values[finite]
        ranked = finite[np.argsort(keyed, kind="stable")]
        for percentile in PERCENTILES:
            if len(ranked):
                index = int(ranked[round(percentile / 100 * (len(ranked) - 1))])
                if index not in {taken for taken, _ in rows}:
                    rows.append((index, f"{percentile}th percentile"))
    left = np.setdiff1d(np.arange(n_images), [index for index, _ in rows])
    generator = np.random.default_rng(random_state)
    drawn = np.sort(generator.choice(left, size=min(n_random, len(left)), replace=False))
    return rows + [(int(index), "random") for index in drawn]


def thumbnail(image: np.ndarray, alt: str) -> Image:
    """Encode one picture as a WebP data URI.

    Parameters
    ----------
    image : array of shape (height, width, 3) or (height, width), uint8
        Larger than `THUMBNAIL_PX` is shrunk; up to `LOSSLESS_UP_TO_PX` every pixel is kept.
    alt : str
        What it shows.
    """
    from PIL import Image as Picture

    pixels = np.ascontiguousarray(image)
    if pixels.ndim == 3 and pixels.shape[2] == 1:
        pixels = pixels[:, :, 0]
    picture = Picture.fromarray(pixels.astype(np.uint8, copy=False)).convert("RGB")
    small = max(picture.size) <= LOSSLESS_UP_TO_PX
    picture.thumbnail((THUMBNAIL_PX, THUMBNAIL_PX), Picture.Resampling.LANCZOS)
    with io.BytesIO() as buffer:
        picture.save(buffer, "WEBP", lossless=small, quality=84, method=4)
        data = base64.b64encode(buffer.getvalue()).decode("ascii")
    return Image(alt, f"data:image/webp;base64,{data}", width=picture.width, height=picture.height)


def view(gallery: Gallery, decoders: Sequence[str] = ()) -> GalleryView | None:
    """Lay out the chosen rows of a gallery; None where it has no image at all."""
    n_images = len(gallery.stimulus)
    if not n_images:
        return None
    described = metric(gallery.score_metric)
    columns = [(label_title(label, decoders), images) for label, images in gallery.columns.items()]
    if gallery.seen is not None:
        columns = [("Seen", gallery.seen), *columns]
    picked = pick_rows(
        n_images,
        gallery.score,
        lower_is_better=described.lower_is_better,
        n_random=gallery.n_random,
        random_state=gallery.random_state,
    )
    rows = []
    for index, reason in picked:
        name = str(gallery.stimulus[index])
        images = tuple(
            thumbnail(pictures[index], f"{title}, stimulus {name}") for title, pictures in columns
        )
        score = ""
        if gallery.score is not None and np.isfinite(gallery.score[index]):
            score = described.write(gallery.score[index])
        captions = tuple((title, texts[index]) for title, texts in gallery.captions.items())
        rows.append(GalleryRow(name, reason, score, images, captions))
    pixelated = all(max(image.width, image.height) <= 64 for row in rows for image in row.images)
    note = _note(gallery, len(picked), n_images, described.title, decoders)
    return GalleryView(
        tuple(title for title, _ in columns), tuple(rows), n_images, note, pixelated
    )


def _note(
    gallery: Gallery, n_shown: int, n_images: int, title: str, decoders: Sequence[str]
) -> str:
    drawn = f"drawn at random (seed {gallery.random_state})"
    if gallery.score is None:
        return f"{n_shown} of {n_images} stimuli, {drawn}."
    of = f" of {label_title(gallery.score_label, decoders)}" if gallery.score_label else ""
    return (
        f"{n_shown} of {n_images} stimuli: the 5th, 50th and 95th percentile "
        f"by {inline(title)}{of} (5th is poor, 95th is good), and others {drawn}. "
        "No row was picked by eye."
    )


def duplicates_view(
    pairs: Sequence[NearDuplicate],
) -> tuple[tuple[NearDuplicate, Image, Image], ...]:
    """Pictures of the most similar pairs that have both images."""
    shown = sorted(pairs, key=lambda pair: -pair.similarity)
    return tuple(
        (
            pair,
            thumbnail(pair.test_image, f"test stimulus {pair.test_stimulus}"),
            thumbnail(pair.train_image, f"training stimulus {pair.train_stimulus}"),
        )
        for pair in shown[:N_DUPLICATES_SHOWN]
        if pair.test_image is not None and pair.train_image is not None
    )
