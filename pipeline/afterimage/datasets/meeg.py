"""What readers of EEG and MEG share: sensors as units, runs as BIDS, concepts kept apart."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from afterimage.datasets.pictures import link_file
from afterimage.errors import InputError
from afterimage.io.atomic import write_json
from afterimage.io.tables import write_tsv

if TYPE_CHECKING:
    import mne

#: Bytes of published values that are held at once.
BLOCK_BYTES = 64 * 2**20
#: Columns of every events table that is written.
EVENT_COLUMNS = (
    "onset", "duration", "sample", "trial_type", "stim_file", "stimulus_id", "split", "concept",
)  # fmt: skip
_EVENTS_JSON = {
    "onset": {"Description": "start of the event, from the first sample", "Units": "s"},
    "duration": {"Description": "length of the event", "Units": "s"},
    "sample": {"Description": "onset in samples of the recording, the first one being 0"},
    "stim_file": {"Description": "picture below /stimuli; n/a: no trial"},
    "stimulus_id": {"Description": "name of the picture; n/a: no trial"},
    "split": {"Description": "train or test, as published"},
    "concept": {"Description": "what the picture shows"},
}


def electrodes(names: Sequence[str], sampling_rate_hz: float) -> mne.Info:
    """Return an mne Info of EEG channels with template positions (``standard_1005``)."""
    import mne

    info = mne.create_info(list(names), sampling_rate_hz, "eeg", verbose="error")
    info.set_montage("standard_1005", match_case=False, on_missing="ignore", verbose="error")
    return info


def sensor_rows(info: mne.Info) -> list[dict[str, Any]]:
    """Return one row a channel: kind (eeg, mag, grad), name, roi, x, y, z (m, head frame).

    Positions are n/a where they are not known.
    """
    import mne

    transform = info["dev_head_t"]
    rows = []
    for index, channel in enumerate(info["chs"]):
        place = np.asarray(channel["loc"][:3], dtype=np.float64)
        in_device = int(channel["coord_frame"]) == int(mne.io.constants.FIFF.FIFFV_COORD_DEVICE)
        if transform is not None and in_device:
            place = mne.transforms.apply_trans(transform, place)
        known = np.isfinite(place).all() and place.any()
        rows.append(
            {
                "kind": mne.channel_type(info, index),
                "name": channel["ch_name"],
                "roi": "n/a",
                **dict(zip("xyz", place.tolist() if known else (None,) * 3, strict=True)),
            }
        )
    return rows


def blocks(n_rows: int, row_bytes: int) -> Iterator[slice]:
    """Cut rows into pieces of at most `BLOCK_BYTES`."""
    step = max(1, BLOCK_BYTES // max(1, row_bytes))
    for start in range(0, n_rows, step):
        yield slice(start, min(start + step, n_rows))


def regular_times(times: Any, n_times: int, where: str, notes: list[str]) -> tuple[float, float]:
    """Return the sampling rate in Hz and the time of the first sample in s.

    Parameters
    ----------
    times : array of shape (n,), or None
        The published time axis in s. Where it is longer than the data, the data are its last
        ``n_times`` points: they were cut to what follows the onset, and the axis was not.
    n_times : int
        Points of the data.
    where : str
        File, for messages.
    notes : list of str
        Is told of an axis that is too long.
    """
    axis = np.asarray([] if times is None else times, dtype=np.float64).ravel()
    steps = np.diff(axis)
    if len(axis) < max(n_times, 2) or not (steps > 0).all():
        raise InputError(
            "the time axis does not fit the responses", where=where,
            found=f"{len(axis)} times for {n_times} points", expected="one ascending time a point",
            fix="download the file again, or preprocess the raw recordings",
        )  # fmt: skip
    rate = float(1 / np.median(steps))
    if abs(rate - round(rate)) < 1e-3 * rate:
        rate = float(round(rate))
    if np.abs(steps * rate - 1).max() > 0.02:
        raise InputError(
            "the time axis is not regular", where=where,
            found=f"steps from {steps.min():.6g} to {steps.max():.6g} s",
            expected="equal steps", fix="download the file again",
        )  # fmt: skip
    start = round(float(axis[len(axis) - n_times]), 6) + 0.0
    if len(axis) > n_times:
        if abs(start) > 1.5 / rate:
            raise InputError(
                "the time axis does not fit the responses", where=where,
                found=f"{len(axis)} times for {n_times} points; the last {n_times} start at "
                f"{start:g} s",
                expected="as many times as points, or points from the onset on",
                fix="download the file again, or preprocess the raw recordings",
            )  # fmt: skip
        notes.append(
            f"{where}: the published time axis has {len(axis)} points, the responses {n_times}; "
            f"they are its last ones, {start:g} to {axis[-1]:g} s: there is no baseline left, and "
            "no pre-stimulus window to show a leak"
        )
    return rate, start


def check_concepts(where: str, rows: Iterable[Mapping[str, Any]]) -> None:
    """Raise an error if a concept is both trained on and tested."""
    split: dict[str, set[str]] = {"train": set(), "test": set()}
    for row in rows:
        if row.get("concept", "n/a") != "n/a" and row.get("split") in split:
            split[row["split"]].add(str(row["concept"]))
    if both := sorted(split["train"] & split["test"]):
        raise InputError(
            "a concept is both trained on and tested", where=where,
            found=f"{len(both)} concepts ({', '.join(both[:5])})",
            expected="test concepts that no training image shows",
            fix="take the tables of the dataset as they were published",
        )  # fmt: skip


def write_recording(
    raw: mne.io.BaseRaw,
    target: Path,
    entities: Mapping[str, str],
    events: Sequence[Mapping[str, Any]],
    line_frequency_hz: float,
    *,
    link: Path | None = None,
) -> None:
    """Add one run to a BIDS dataset with mne-bids, and write its events.

    Parameters
    ----------
    raw : mne.io.BaseRaw
        The run, opened from a file and not loaded: the file is copied.
    target : Path
        The dataset.
    entities : dict of str
        ``subject``, ``session``, ``task``, ``run``, ``datatype`` as `mne_bids.BIDSPath` names
        them.
    events : list of dict
        Rows of the events table; each at least with ``onset`` and ``duration``.
    line_frequency_hz : float
        Of the mains where it was recorded.
    link : Path or None
        A file that the copy is replaced by a link to.
    """
    import mne_bids

    raw.info["line_freq"] = line_frequency_hz
    place = mne_bids.BIDSPath(root=target, suffix=entities["datatype"], **entities)
    had_readme = (target / "README").exists()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        path = mne_bids.write_raw_bids(raw, place, overwrite=True, verbose="error").fpath
    if link is not None:
        link_file(link, path)
    if not had_readme:
        # The import writes README.md, and BIDS has one README only.
        (target / "README").unlink(missing_ok=True)
    stem = path.name.removesuffix(path.suffix).removesuffix(f"_{entities['datatype']}")
    columns = list(dict.fromkeys((*EVENT_COLUMNS, *(key for row in events for key in row))))
    write_tsv(path.parent / f"{stem}_events.tsv", events, columns)
    write_json(path.parent / f"{stem}_events.json", _EVENTS_JSON)


def concept_of(name: str) -> str:
    """Return the concept of a THINGS picture: ``wind_chime`` of ``x/wind_chime_03n.jpg``."""
    stem = name.rsplit("/", 1)[-1].rsplit(".", 1)[0]
    return stem.rsplit("_", 1)[0]
