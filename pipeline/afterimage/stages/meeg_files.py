"""The files of one run of EEG or MEG: opened as recorded; series, trials and what was found, written."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from afterimage.bids.events import Events, drop_late, no_events, read_events
from afterimage.bids.names import unit_of
from afterimage.bids.recordings import common_channels
from afterimage.bids.sidecars import read_sidecars
from afterimage.io.arrays import write_dataset
from afterimage.io.recordings import Recording, listed_channels, open_recording, table_units
from afterimage.io.series import write_series
from afterimage.io.tables import write_tsv
from afterimage.preprocess.meeg.channels import (
    agree_on_channels,
    check_units,
    describe_units,
    set_positions,
)
from afterimage.preprocess.meeg.quality import Found, Units, quality_dataset

if TYPE_CHECKING:
    import mne

    from afterimage.preprocess.meeg.bad_segments import BadSegments
    from afterimage.stages.clean_meeg import Config, Inputs, Outputs

#: Columns of the table of trials.
EVENT_COLUMNS = (
    "onset", "duration", "sample", "trial_type", "stimulus_id", "file",
)  # fmt: skip


@dataclass
class Run:
    """A run on its way from recorded to clean.

    Attributes
    ----------
    raw : mne.io.BaseRaw
        Loaded; changed in place or replaced.
    events : Events
    where : str
        Subject and file, for messages.
    recorded_rate_hz : float
    line_freq_hz : float or None
    units : Units
        Channels of the brain, in order.
    found : Found
    notes : list of str
    not_finite : list of str
        Channels with values that are no numbers, set to 0.
    reference : str
    """

    raw: mne.io.BaseRaw
    events: Events
    where: str
    recorded_rate_hz: float
    line_freq_hz: float | None
    units: Units
    found: Found
    notes: list[str]
    not_finite: list[str] = field(default_factory=list)
    reference: str = "as recorded"

    @property
    def rate_hz(self) -> float:
        """Sampling rate in Hz."""
        return float(self.raw.info["sfreq"])


def open_run(inputs: Inputs, config: Config) -> tuple[Run, Recording]:
    """Read events and recording; check units, channels and positions."""
    path = inputs.recording
    subject, modality = unit_of(path), path.parent.name
    where = f"{subject}, {path}"
    if inputs.events is None:
        events = no_events(path, subject.removeprefix("sub-"))
    else:
        events = read_events(
            inputs.events, subject=subject.removeprefix("sub-"),
            stimulus_column=config.stimulus_column or None, trial_types=config.trial_types,
            onset_column=config.onset_column, sample="sample",
        )  # fmt: skip
    sidecar = read_sidecars(file for file in inputs.sidecars if file.suffix == ".json")
    listed = listed_channels(inputs.sidecars)
    recording = open_recording(path, sidecar, where)
    raw = recording.raw
    if inputs.events is not None:
        events = drop_late(events, raw.n_times / float(raw.info["sfreq"]), sample="sample")
    notes = list(events.notes)
    if absent := [name for name in listed if name not in raw.ch_names]:
        notes.append(
            f"channels.tsv lists channels that the recording does not have: {', '.join(absent[:8])}"
        )
    notes += agree_on_channels(raw, modality, common_channels(path), where)
    names = [name for name in raw.ch_names if name not in raw.info["bads"]]
    notes += check_units(raw, table_units(inputs.sidecars, names), where)
    if modality == "eeg":
        notes += set_positions(raw, config.montage, where)
    line = config.line_freq_hz
    if line is None:
        stated = sidecar.get("PowerLineFrequency")
        line = float(stated) if isinstance(stated, int | float) else None
        if line is None:
            notes.append("the line frequency is not known: it was not taken out")
    units = describe_units(raw)
    opened = Run(
        raw, events, where, float(raw.info["sfreq"]), line or None, units, Found.empty(), notes
    )
    _set_missing_to_zero(opened)
    return opened, recording


def _set_missing_to_zero(run: Run) -> None:
    """Take channels with values that are no numbers out of all that follows."""
    names = run.units.name.tolist()
    signal = run.raw.get_data(picks=names)
    broken = ~np.isfinite(signal).all(axis=1)
    for name in np.array(names)[broken].tolist():
        run.raw._data[run.raw.ch_names.index(name)] = 0.0
        run.not_finite.append(name)
        if name not in run.raw.info["bads"]:
            run.raw.info["bads"] = [*run.raw.info["bads"], name]


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
        **{f"o{axis}": units.orientations[:, number] for number, axis in enumerate("xyz")},
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
