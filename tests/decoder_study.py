"""Every decoder of single subjects on two real recordings: one table, the winner with its interval.

    python -m tests.decoder_study FOLDER [--only NAME ...]

FOLDER holds `digits69` (fMRI, handwritten digits, 100 images, 10 folds by stimulus) and `v4-natural`
(spikes of two animals, natural images, the recordings' own split). Settings are the defaults; what is
chosen is chosen inside the training parts. The measure of each recording is named beforehand: pixel
correlation of the predicted pixels for digits, top-1 of 240 for V4. Differences are paired by image.
"""

from __future__ import annotations

import argparse
import csv
import time
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from sklearn.model_selection import StratifiedKFold

from afterimage.decoding.layout import flat_layout
from afterimage.decoding.registry import DECODERS
from afterimage.features.gabor import GaborEncoder, GaborSettings
from afterimage.features.pixels import PixelsEncoder, PixelsSettings

N_DRAWS = 10_000


def table(path: Path) -> list[dict[str, str]]:
    """Rows of a tab-separated file."""
    with path.open(newline="") as file:
        return list(csv.DictReader(file, delimiter="\t"))


class Recording:
    """Responses of one subject, features of what it saw, and the parts to fit and to test."""

    def __init__(self, folder: Path, subject: str, size_px: int, *, folds: bool) -> None:
        stimuli = {row["stimulus_id"]: row for row in table(folder / "stimuli.tsv")}
        trials = table(folder / subject / f"{subject}_trials.tsv")
        rows = [stimuli[trial["stimulus_id"]] for trial in trials]
        files = [folder / "stimuli" / row["file"] for row in rows]
        images = [np.asarray(Image.open(file).convert("RGB")) for file in files]
        self.responses = np.load(folder / subject / f"{subject}_responses.npy").astype(np.float32)
        self.names = np.array([row["stimulus_id"] for row in rows])
        encoders: dict[str, Any] = {
            "pixels": PixelsEncoder(PixelsSettings(size_px=size_px)),
            "gabor": GaborEncoder(GaborSettings()),
        }
        self.features = {k: e.encode(images).reshape(len(images), -1) for k, e in encoders.items()}
        category = np.array([row["category"] for row in rows])
        split = np.array([row["split"] for row in rows])
        whole = [(np.flatnonzero(split == "train"), np.flatnonzero(split == "test"))]
        made = StratifiedKFold(10, shuffle=True, random_state=0).split(category, category)
        self.parts = list(made) if folds else whole


def scores(recording: Recording, kind: str) -> dict[str, np.ndarray]:
    """Pixel correlation, top-1 and two-way of every tested image."""
    found: dict[str, list[np.ndarray]] = {"pixcorr": [], "top1": [], "twoway": []}
    for train, test in recording.parts:
        network = getattr(DECODERS.get(kind), "needs_layout", False)
        settings = DECODERS.settings(kind)(**({"target": "gabor"} if network else {}))
        extra = {"layout": flat_layout(recording.responses.shape[1])} if network else {}
        known = {k: v[train] for k, v in recording.features.items()}
        gallery = {k: v[test] for k, v in recording.features.items()}
        decoder = DECODERS.get(kind)(settings)
        names = recording.names
        decoder.fit(recording.responses[train], known, names[train], set(names[test]), **extra)
        predicted = np.clip(decoder.predict(recording.responses[test], **extra)["pixels"], 0, 1)
        pairs = zip(predicted, gallery["pixels"], strict=True)
        found["pixcorr"].append(np.array([np.corrcoef(a, b)[0, 1] for a, b in pairs]))
        similarity = decoder.scores(recording.responses[test], gallery, **extra)
        right = np.diag(similarity)[:, None]
        found["top1"].append(similarity.argmax(1) == np.arange(len(test)))
        found["twoway"].append((similarity < right).sum(1) / (len(test) - 1))
    return {key: np.concatenate(values).astype(float) for key, values in found.items()}


def interval(values: np.ndarray) -> str:
    """Mean and 95 % bootstrap interval over images."""
    draws = np.random.default_rng(0).integers(0, len(values), (N_DRAWS, len(values)))
    low, high = np.quantile(values[draws].mean(1), [0.025, 0.975])
    return f"{values.mean():.3f} ({low:.3f} to {high:.3f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--only", nargs="*", default=DECODERS.names())
    asked = parser.parse_args()
    for data, subject, size_px, folds, measure in (
        ("digits69", "sub-01", 28, True, "pixcorr"),
        ("v4-natural", "sub-WE", 32, False, "top1"),
        ("v4-natural", "sub-PE", 32, False, "top1"),
    ):
        recording = Recording(asked.folder / data, subject, size_px, folds=folds)
        found = {}
        for kind in asked.only:
            start = time.perf_counter()
            try:
                found[kind] = scores(recording, kind)
            except Exception as error:  # noqa: BLE001 -- a decoder that does not fit is named
                print(
                    f"| {data} {subject} | {kind} | does not fit: {str(error).splitlines()[0]} |"
                )
                continue
            cells = " | ".join(interval(found[kind][k]) for k in ("pixcorr", "top1", "twoway"))
            seconds = time.perf_counter() - start
            print(f"| {data} {subject} | {kind} | {cells} | {seconds:.0f} s |", flush=True)
        best = max(found, key=lambda kind: found[kind][measure].mean())
        print(f"{data} {subject}: best in {measure} is {best}, n = {len(found[best][measure])}")
        for kind, values in found.items():
            if kind != best:
                print(f"  less {kind}: {interval(found[best][measure] - values[measure])}")


if __name__ == "__main__":
    main()
