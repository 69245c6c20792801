"""The runs of THINGS-MEG: CTF recordings, their hardware triggers, and links to them."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from afterimage.datasets.pictures import link_file, link_folder
from afterimage.errors import InputError
from afterimage.io.tables import read_tsv, write_tsv

#: Value of the trigger channel while an image is shown.
IMAGE_TRIGGER = 64
#: The authors drop this sensor in every run.
BAD_CHANNEL = "MRO11-1609"
_RUN = re.compile(r"(sub-\w+_ses-(\d+)_task-main_run-(\d+))_meg\.(ds|fif)")


def read_triggers(path: Path) -> tuple[float, np.ndarray]:
    """Return the sampling rate in Hz and the samples at which images were triggered."""
    import mne

    try:
        raw = mne.io.read_raw(path, preload=False, verbose="error")
        found = mne.find_events(
            raw, stim_channel="UPPT001", initial_event=True, shortest_event=1, verbose="error"
        )
    except (OSError, ValueError, RuntimeError) as error:
        raise InputError(
            "a run cannot be read", where=str(path), found=str(error)[:300],
            expected="a whole CTF recording with the channel UPPT001", fix="download it again",
        ) from None  # fmt: skip
    samples = found[found[:, 2] == IMAGE_TRIGGER, 0] - raw.first_samp
    return float(raw.info["sfreq"]), samples


def link_run(source: Path, target: Path, path: Path) -> None:
    """Link a recording and its sidecars; the sensor that the authors drop is marked bad."""
    folder = target / path.parent.relative_to(source)
    stem = stem_of(path)
    place = folder / path.name
    folder.mkdir(parents=True, exist_ok=True)
    link_folder(path, place) if path.is_dir() else link_file(path, place)
    for side in sorted(path.parent.glob("*")):
        of_run = side.name.startswith(f"{stem}_") or "_run-" not in side.name
        if not side.is_file() or not of_run or side.suffix in (".fif", ".tsv"):
            continue
        link_file(side, folder / side.name)
    channels = path.parent / f"{stem}_channels.tsv"
    if channels.is_file():
        rows = read_tsv(channels, required=("name",))
        for row in rows:
            row.setdefault("status", "good")
            if row["name"] == BAD_CHANNEL:
                row["status"] = "bad"
        write_tsv(folder / channels.name, rows, list(rows[0]))


def stem_of(path: Path) -> str:
    """Return the name of a run's files up to their suffix: ``sub-..._run-01``."""
    return path.name.rsplit("_meg.", 1)[0]


def find_runs(source: Path, subject: str) -> dict[tuple[int, int], Path]:
    """Return the downloaded runs of the main experiment by session and run."""
    found = {}
    for path in sorted((source / f"sub-{subject}").glob("ses-*/meg/*_task-main_*_meg.*")):
        match = _RUN.fullmatch(path.name)
        if match and path.exists():
            found[int(match[2]), int(match[3])] = path
    return found
