"""Near-duplicates between training and test images.

Shirakawa et al. 2025 (Spurious reconstruction from brain activity, arXiv:2405.10078) showed how
much of a published score the overlap of training and test images explains.

What differs: pictures are compared by their pixels, also mirrored and shifted, and featureless
images are listed apart instead of counted.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

COARSE_PX, FINE_PX = 16, 32
N_CANDIDATES = 5
CHUNK_ROWS = 2048
GREY_WEIGHTS = (0.2125, 0.7154, 0.0721)


def thumbnails(images: Iterable[NDArray[np.generic]], size_px: int) -> NDArray[np.float32]:
    """Shrink images to grey squares by averaging areas.

    Parameters
    ----------
    images : iterable of ndarray, each (height, width, 3)
        uint8 or float 0..1; sizes may differ.
    size_px : int

    Returns
    -------
    ndarray of float32, shape (n, size_px, size_px)
    """
    result = []
    for image in images:
        scale = 255.0 if image.dtype == np.uint8 else 1.0
        grey = np.asarray(image, np.float32) @ (np.array(GREY_WEIGHTS, np.float32) / scale)
        rows, columns = (_area_weights(length, size_px) for length in grey.shape)
        result.append(rows @ grey @ columns.T)
    return np.asarray(result, np.float32).reshape(-1, size_px, size_px)


def near_duplicates(
    train_images: Sequence[NDArray[np.generic]],
    test_images: Sequence[NDArray[np.generic]],
    *,
    train_ids: Sequence[str],
    test_ids: Sequence[str],
    threshold: float = 0.95,
    featureless_std: float = 0.02,
) -> dict[str, Any]:
    """Find test images that (nearly) stand in the training set.

    The correlation of mean-removed grey thumbnails must reach `threshold` at 16 x 16 and at 32 x
    32 pixels, for the image itself, mirrored left-right, or shifted by up to 1/16 of its side
    (only the part both show is compared). All pairs are compared at 16 px; at 32 px the five best
    of each test image.

    Parameters
    ----------
    train_images, test_images : sequences of ndarray, each (height, width, 3)
    train_ids, test_ids : sequences of str
    threshold : float
        Correlation from which a pair counts as the same picture.
    featureless_std : float
        Images whose 16 px thumbnail has a smaller standard deviation (intensity 0..1) are left
        out: correlations of almost empty pictures say nothing.

    Returns
    -------
    dict
        ``threshold``, ``n_train``, ``n_test``, ``n_test_with_duplicate``, ``pairs`` (best training
        image of each such test image: test, train, correlation, transform), ``featureless_train``,
        ``featureless_test``. Ready for JSON.
    """
    small = [thumbnails(images, COARSE_PX) for images in (train_images, test_images)]
    large = [thumbnails(images, FINE_PX) for images in (train_images, test_images)]
    plain = [values.reshape(len(values), -1).std(axis=1) < featureless_std for values in small]
    train, test = (np.flatnonzero(~mask) for mask in plain)
    pairs = []
    if len(train) and len(test):
        coarse = _best_matches(small[0][train], small[1][test])
        for row, candidates in zip(test.tolist(), coarse, strict=True):
            found = _confirm(small, large, train[candidates], row)
            if found[0] >= threshold:
                pairs.append(
                    {
                        "test": str(test_ids[row]),
                        "train": str(train_ids[found[1]]),
                        "correlation": round(found[0], 4),
                        "transform": found[2],
                    }
                )
    return {
        "threshold": threshold,
        "n_train": len(small[0]),
        "n_test": len(small[1]),
        "n_test_with_duplicate": len(pairs),
        "pairs": pairs,
        "featureless_train": [str(train_ids[i]) for i in np.flatnonzero(plain[0]).tolist()],
        "featureless_test": [str(test_ids[i]) for i in np.flatnonzero(plain[1]).tolist()],
    }


def unit_rows(values: NDArray[np.generic], centred: bool) -> NDArray[np.float32]:
    """Return rows (n, n_values) of length 1, minus their mean if `centred`; zeros stay zeros."""
    rows = np.asarray(values, np.float32).reshape(len(values), -1)
    if centred:
        rows = rows - rows.mean(axis=1, keepdims=True)
    norm = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.asarray(np.divide(rows, norm, out=np.zeros_like(rows), where=norm > 1e-12))


def _area_weights(n_in: int, n_out: int) -> NDArray[np.float32]:
    """Return (n_out, n_in) weights: how much of each input pixel lies in each output pixel."""
    edges = np.arange(n_out + 1) * (n_in / n_out)
    pixels = np.arange(n_in)
    low = np.maximum(edges[:-1, None], pixels)
    high = np.minimum(edges[1:, None], pixels + 1)
    return np.asarray(np.maximum(high - low, 0) * (n_out / n_in), np.float32)


def _variants(step_px: int) -> list[tuple[str, bool, int, int]]:
    shifts = [(y, x) for y in (0, -step_px, step_px) for x in (0, -step_px, step_px)]
    return [
        (("mirrored" if mirror else "same") + (" shifted" if y or x else ""), mirror, y, x)
        for mirror in (False, True)
        for y, x in shifts
    ]


def _overlap(
    train: NDArray[np.float32], test: NDArray[np.float32], mirror: bool, y: int, x: int
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return unit rows of what both thumbnails show when the test one is moved by (y, x)."""
    size = train.shape[1]
    other = test[:, :, ::-1] if mirror else test
    a = train[:, max(0, y) : size + min(0, y), max(0, x) : size + min(0, x)]
    b = other[:, max(0, -y) : size + min(0, -y), max(0, -x) : size + min(0, -x)]
    return unit_rows(a, True), unit_rows(b, True)


def _best_matches(train: NDArray[np.float32], test: NDArray[np.float32]) -> NDArray[np.int64]:
    """Return for each test thumbnail its best training thumbnails over all variants."""
    n_kept = min(N_CANDIDATES, len(train))
    kept = np.zeros((len(test), 0), np.int64)
    values = np.zeros((len(test), 0), np.float32)
    for start in range(0, len(train), CHUNK_ROWS):
        block = train[start : start + CHUNK_ROWS]
        score = np.full((len(test), len(block)), -np.inf, np.float32)
        for _, mirror, y, x in _variants(1):
            a, b = _overlap(block, test, mirror, y, x)
            np.maximum(score, b @ a.T, out=score)
        columns = np.argsort(-score, axis=1, kind="stable")[:, :n_kept]
        kept = np.concatenate([kept, start + columns], axis=1)
        values = np.concatenate([values, np.take_along_axis(score, columns, axis=1)], axis=1)
        order = np.argsort(-values, axis=1, kind="stable")[:, :n_kept]
        kept = np.take_along_axis(kept, order, axis=1)
        values = np.take_along_axis(values, order, axis=1)
    return kept


def _confirm(
    small: list[NDArray[np.float32]],
    large: list[NDArray[np.float32]],
    candidates: NDArray[np.int64],
    row: int,
) -> tuple[float, int, str]:
    """Return the best (correlation at both sizes, training image, transform) of one test image."""
    best = (-np.inf, int(candidates[0]), "same")
    for (name, mirror, y, x), (_, _, fine_y, fine_x) in zip(
        _variants(1), _variants(FINE_PX // COARSE_PX), strict=True
    ):
        a, b = _overlap(small[0][candidates], small[1][row : row + 1], mirror, y, x)
        c, d = _overlap(large[0][candidates], large[1][row : row + 1], mirror, fine_y, fine_x)
        score = np.minimum(a @ b[0], c @ d[0])
        at = int(score.argmax())
        if score[at] > best[0] + 1e-6:  # the simplest transform wins a tie
            best = (float(score[at]), int(candidates[at]), name)
    return best
