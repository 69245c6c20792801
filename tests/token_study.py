"""People whose cleaned runs tokenizers are trained on, and the stages run on them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from tests.tokenizer_example import rhythms

from afterimage.io.series import write_series
from afterimage.io.tables import write_tsv
from afterimage.stages import tokenize, train_tokenizer

QUICK = {"kind": "raw_patches", "n_steps": 60, "window_s": 2.0, "n_features": 16, "n_hidden": 32,
         "learning_rate": 3e-3, "quantiser": {"codebook_size": 32, "n_stages": 2}}  # fmt: skip


def write(path: Path, values: np.ndarray, rate_hz: float = 250.0, **more: Any) -> Path:
    """Write EEG (n_channels, n_times) as a cleaned series with a bad part, and its events."""
    like = rhythms(seconds=1.0)
    n = len(values)
    units = {"name": like.names[:n], "kind": np.full(n, "eeg"), "roi": np.full(n, "n/a")}
    units |= {axis: like.positions_m[:n, i] for i, axis in enumerate("xyz")}
    about = {"sampling_rate_hz": rate_hz, "start_time_s": 0.0, "source": "raw", "problem": ""}
    censored = np.zeros(values.shape[1], bool)
    censored[500:600] = True
    write_series(path, values.T.astype(np.float32), units, about | more, censored)
    times = np.arange(1.0, values.shape[1] / rate_hz - 1, 1.5)
    rows = [
        {"onset": repr(float(t)), "trial_type": "left" if i % 2 else "right"}
        for i, t in enumerate(times)
    ]
    events = path.with_name(path.name.replace("_series.nc", "_events.tsv"))
    write_tsv(events, rows, ["onset", "trial_type"])
    return path


def person(root: Path, label: str, seed: int, rate_hz: float = 250.0, **more: Any) -> Path:
    name = f"sub-{label}_task-rest_desc-clean_series.nc"
    signal = rhythms(seconds=20.0, sfreq_hz=rate_hz, seed=seed)
    return write(root / f"sub-{label}" / "eeg" / name, signal.values, rate_hz, **more)


def files(root: Path, pattern: str = "series.nc") -> tuple[Path, ...]:
    return tuple(sorted(root.glob(f"sub-*/eeg/*_desc-clean_{pattern}")))


def train(root: Path, name: str, series: tuple[Path, ...], **config: Any) -> Any:
    stem = root / "group" / "tokenizers" / f"desc-{name}"
    endings = ("model.safetensors", "card.tsv", "card.json", "example.safetensors", "exposure.tsv")
    outputs = train_tokenizer.Outputs(*(Path(f"{stem}_{ending}") for ending in endings))
    settings = train_tokenizer.Config(
        tokenizers={name: {**QUICK, **config.pop("settings", {})}}, n_bootstraps=100, **config
    )
    events = tuple(Path(str(p).replace("series.nc", "events.tsv")) for p in series)
    train_tokenizer.run(train_tokenizer.Inputs(series, events), outputs, settings)
    return outputs


def written(root: Path, trained: Any, label: str, **config: Any) -> Any:
    stem = root / f"sub-{label}" / "tokens" / f"sub-{label}_desc-patches_tokens"
    outputs = tokenize.Outputs(Path(f"{stem}.npz"), Path(f"{stem}.json"))
    series = tuple(sorted((root / f"sub-{label}").glob("eeg/*_series.nc")))
    inputs = tokenize.Inputs(series, trained.model, trained.exposure)
    tokenize.run(inputs, outputs, tokenize.Config(**config))
    return outputs
