"""Several samples a picture, one kept by what the brain predicted; the true picture is never asked.

The choice of MindEye (Scotti et al. 2023, arXiv:2305.18274): of all samples the one whose own
embedding is nearest to the *predicted* one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from afterimage.reconstruction.registry import Material, Result
from afterimage.training.processes import process_count, process_number, together

#: Makes one picture for each row and seed: (rows (m,), seeds) to uint8 (m, height, width, 3).
Painter = Callable[[NDArray[np.int64], list[int]], NDArray[np.uint8]]


def paint_and_choose(
    paint: Painter,
    target: NDArray[np.float32],
    block: str,
    material: Material,
    n_candidates: int,
    batch_size: int,
) -> Result:
    """Make ``n_candidates`` pictures a row and keep the one nearest to the row of ``target``.

    Parameters
    ----------
    paint : callable
        Out of memory, it is asked again for half as many pictures.
    target : (n, n_features)
        Predicted embedding.
    block : str
        Its name: ``material.embed[block]`` embeds pictures.
    material : Material
    n_candidates : int
    batch_size : int
        Pictures made at once.

    Returns
    -------
    images : list of uint8, (height, width, 3)
    details : list of dict
        ``seed`` and ``candidate`` (the number) of the picture kept; ``scores``: the cosines of all
        candidates. The noise of candidate j follows from the random state, the row's own key and j
        alone, whatever the batches.
    """
    n_rows = max(1, batch_size // n_candidates)

    def batch(start: int) -> Result:
        images: list[NDArray[np.uint8]] = []
        details: list[dict[str, Any]] = []
        rows = np.arange(start, min(start + n_rows, len(target)))
        seeds = [
            noise_seed(material.random_state, material.keys[int(row)], candidate)
            for row in rows
            for candidate in range(n_candidates)
        ]
        repeated = np.repeat(rows, n_candidates)
        made = _halving(paint, repeated, seeds)
        own = material.embed[block](list(made)).reshape(len(made), -1)
        scores = _cosine(own, target[repeated]).reshape(-1, n_candidates)
        for row, chosen in enumerate(scores.argmax(1)):
            number = row * n_candidates + int(chosen)
            images.append(made[number])
            details.append(
                {
                    "seed": seeds[number],
                    "candidate": int(chosen),
                    "scores": [round(float(score), 6) for score in scores[row]],
                }
            )
        return images, details

    # Several processes share the batches, which are the same however many there are.
    own = range(process_number() * n_rows, len(target), process_count() * n_rows)
    made = together({start: batch(start) for start in own})
    return [one for part, _ in made.values() for one in part], [
        one for _, part in made.values() for one in part
    ]


def noise_seed(random_state: int, key: str, candidate: int) -> int:
    """Return the seed (0 .. 2^63 - 1) of one candidate's noise, by SHA-256 of its three names."""
    digest = hashlib.sha256(f"{random_state}|{key}|{candidate}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def _halving(paint: Painter, rows: NDArray[np.int64], seeds: list[int]) -> NDArray[np.uint8]:
    """Paint all rows; out of memory, halve the batch and go on."""
    import torch

    size, start = len(rows), 0
    parts: list[NDArray[np.uint8]] = []
    while start < len(rows):
        part = slice(start, start + size)
        try:
            parts.append(paint(rows[part], seeds[part]))
        except torch.OutOfMemoryError:
            if size == 1:
                raise
            torch.cuda.empty_cache()
            size = (size + 1) // 2
            continue
        start += size
    return np.concatenate(parts)


def _cosine(a: NDArray[np.float32], b: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the cosine of each pair of rows, (n,)."""
    length = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    cosine: NDArray[np.float32] = (a * b).sum(1) / np.maximum(length, 1e-12)
    return cosine
