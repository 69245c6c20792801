"""The files of one cleaned run of EEG or MEG: series, trials, and what was found."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from afterimage.io.arrays import write_dataset
from afterimage.io.series import write_series
from afterimage.io.tables import write_tsv
from afterimage.preprocess.meeg.quality import Found, Units, quality_dataset

if TYPE_CHECKING:
    from afterimage.preprocess.meeg.bad_segments import BadSegments
    from afterimage.stages.clean_meeg import Config, Outputs, Run

#: Columns of the table of trials.
EVENT_COLUMNS = (
    "onset", "duration", "sample", "trial_type", "stimulus_id", "file",
)  # fmt: skip


def write_run(run: Run, segments: BadSegments, outputs: Outputs, config: Config) -> None:
    """Write series, trials and quality."""
    names = run.units.name.tolist()
    attributes = _attributes(run, config)

    def blocks() -> Iterator[np.ndarray]:
        step = max(1, 4_000_000 // max(1, len(names)))
        for first in range(0, run.raw.n_times, step):
            stop = min(first + step, run.raw.n_times)
            yield run.raw.get_data(picks=names, start=first, stop=stop).T.astype(np.float32)

    write_series(outputs.series, blocks(), _coordinates(run.units), attributes, segments.mask)
    _write_events(outputs.events, run)
    about = {
        "source": "raw",
        "problem": "",
        "duration_s": run.raw.n_times / run.rate_hz,
        "sampling_rate_hz": run.rate_hz,
        "recorded_rate_hz": run.recorded_rate_hz,
        "n_trials": len(run.events),
        **{key: attributes[key] for key in _SHARED},
    }
    write_dataset(outputs.quality, quality_dataset(run.units, run.found, run.notes, about))


_SHARED = ("highpass_hz", "lowpass_hz", "line_freq_hz", "reference")


def _attributes(run: Run, config: Config) -> dict[str, Any]:
    """Return the attributes of the series."""
    lowpass = config.lowpass_hz if config.lowpass_hz is not None else run.rate_hz / 2
    return {
        "sampling_rate_hz": run.rate_hz,
        "start_time_s": 0.0,
        "source": "raw",
        "problem": "",
        "highpass_hz": config.highpass_hz,
        "lowpass_hz": min(lowpass, run.rate_hz / 2),
        "line_freq_hz": run.line_freq_hz or 0.0,
        "reference": run.reference,
        "causal": int(config.causal),
        "bad_channels": ";".join(run.found.reasons),
        "kept_bad_channels": ";".join(n for n, how in run.found.repaired.items() if how == "kept"),
        "notes": ";".join(note.replace(";", ",") for note in run.notes),
    }


def _coordinates(units: Units) -> dict[str, np.ndarray]:
    """Return the unit coordinates of the series."""
    return {
        "name": units.name,
        "kind": units.kind,
        **{axis: units.positions[:, number] for number, axis in enumerate("xyz")},
        "roi": np.full(len(units), "n/a"),
    }


def _write_events(path: Path, run: Run) -> None:
    """Write the trials with the samples of the series that they start at."""
    e = run.events
    samples = np.minimum(np.round(e.onsets_s * run.rate_hz).astype(int), run.raw.n_times - 1)
    columns = zip(
        e.onsets_s.tolist(), e.durations_s.tolist(), samples.tolist(), e.trial_type.tolist(),
        e.stimulus.tolist(), e.file.tolist(), strict=True,
    )  # fmt: skip
    rows = [
        dict(zip(EVENT_COLUMNS, (repr(onset), repr(duration), *rest), strict=True))
        for onset, duration, *rest in columns
    ]
    write_tsv(path, rows, EVENT_COLUMNS)


def write_empty(outputs: Outputs, problem: str) -> None:
    """Write the outputs of a run that was left out: no samples, and why."""
    units = Units.empty()
    attributes: dict[str, Any] = {
        "sampling_rate_hz": 0.0, "start_time_s": 0.0, "source": "n/a", "problem": problem,
        "highpass_hz": 0.0, "lowpass_hz": 0.0, "line_freq_hz": 0.0, "reference": "n/a",
        "notes": "",
    }  # fmt: skip
    nothing = np.zeros((0, 0), dtype=np.float32)
    write_series(outputs.series, nothing, _coordinates(units), attributes, np.zeros(0, dtype=bool))
    write_tsv(outputs.events, [], EVENT_COLUMNS)
    about = {
        "source": "n/a", "problem": problem, "duration_s": 0.0, "sampling_rate_hz": 0.0,
        "recorded_rate_hz": 0.0, "n_trials": 0, **{key: attributes[key] for key in _SHARED},
    }  # fmt: skip
    write_dataset(outputs.quality, quality_dataset(units, Found.empty(), [], about))
