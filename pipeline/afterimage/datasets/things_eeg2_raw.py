"""The raw recordings of THINGS-EEG2: pickled arrays with a stim channel, written as BrainVision."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from afterimage.datasets.meeg import blocks, write_recording
from afterimage.datasets.pictures import PictureFolder
from afterimage.errors import InputError
from afterimage.io.pickles import read_pickle

#: Code of a target of the attention task on the stim channel; it shows no picture of the set.
TARGET = 99999
#: Microvolts a step of the BrainVision files; they hold float32, so nothing is rounded to it.
_RESOLUTION_UV = 0.1


def read_raw(path: Path) -> tuple[np.ndarray, list[str], float, np.ndarray]:
    """Return a recording (n_channels, n_samples; V), names, rate in Hz and the stim channel."""
    table = read_pickle(path)
    data = table.get("raw_eeg_data") if isinstance(table, dict) else None
    kinds = [str(kind) for kind in table.get("ch_types", ())] if data is not None else []
    names = [str(name) for name in table.get("ch_names", ())] if data is not None else []
    ok = isinstance(data, np.ndarray) and data.ndim == 2 and len(data) == len(names) == len(kinds)
    if not ok or kinds.count("stim") != 1 or "eeg" not in kinds:
        raise InputError(
            "a raw recording has another form than published", where=str(path),
            found=f"{len(names)} names, {kinds.count('stim')} stim channels, shape "
            f"{getattr(data, 'shape', None)}",
            expected="raw_eeg_data (channels, samples) with ch_names, ch_types and one stim channel",
            fix="download the file again",
        )  # fmt: skip
    assert isinstance(data, np.ndarray)  # noqa: S101
    last = kinds.index("stim")
    if kinds != ["eeg"] * last + ["stim"]:
        raise InputError(
            "a raw recording has channels that are not known", where=str(path),
            found=", ".join(sorted(set(kinds))), expected="EEG channels and then one stim channel",
            fix="download the file again",
        )  # fmt: skip
    return data[:last], names[:last], float(table["sfreq"]), data[last]


def image_events(
    data: np.ndarray, stim: np.ndarray, rate: float, images: Sequence[Mapping[str, str]],
    pictures: PictureFolder, path: Path,
) -> list[dict[str, Any]]:  # fmt: skip
    """Return one row a change of the stim channel to a code; targets name no picture."""
    codes = np.rint(np.asarray(stim)).astype(np.int64)
    samples = np.flatnonzero((codes != 0) & (np.diff(codes, prepend=0) != 0))
    known = (codes[samples] == TARGET) | ((codes[samples] >= 1) & (codes[samples] <= len(images)))
    if not known.all() or not len(samples):
        raise InputError(
            "events name no image" if len(samples) else "a recording has no event",
            where=str(path),
            found=f"codes {np.unique(codes[samples][~known])[:8].tolist()}",
            expected=f"1 to {len(images)} (image_metadata.npy), or {TARGET} for a target",
            fix="take image_metadata.npy of this dataset",
        )  # fmt: skip
    rows = []
    for sample in samples.tolist():
        code = int(codes[sample])
        row: dict[str, Any] = {
            "onset": f"{sample / rate:.6f}", "duration": 0.1, "sample": sample,
            "trial_type": "target" if code == TARGET else "image", "value": code,
            "stim_file": "n/a", "stimulus_id": "n/a", "split": "n/a", "concept": "n/a",
        }  # fmt: skip
        if code != TARGET:
            image = images[code - 1]
            row |= {
                "stim_file": pictures.find(image["path"]), "stimulus_id": image["stimulus_id"],
                "split": image["split"], "concept": image["concept"],
            }  # fmt: skip
        rows.append(row)
    return rows


def write_raw(
    data: np.ndarray, names: Sequence[str], rate: float, target: Path,
    entities: Mapping[str, str], events: Sequence[Mapping[str, Any]],
) -> None:  # fmt: skip
    """Write one recording as BrainVision, piece by piece, and add it to the dataset."""
    import mne
    import pybv

    target.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".writing-", dir=target) as folder:
        pieces = list(blocks(data.shape[1], 8 * len(data)))
        pybv.write_brainvision(
            data=np.asarray(data[:, pieces[0]], dtype=np.float64), sfreq=rate,
            ch_names=list(names), fname_base="part", folder_out=folder,
            resolution=_RESOLUTION_UV, unit="µV", fmt="binary_float32",
        )  # fmt: skip
        # pybv wants all samples at once, which are gigabytes. The header does not count them, and
        # the file is one vector a sample: the others follow the first piece.
        with (Path(folder) / "part.eeg").open("ab") as file:
            for piece in pieces[1:]:
                values = np.asarray(data[:, piece], dtype=np.float64) * (1e6 / _RESOLUTION_UV)
                file.write(np.ascontiguousarray(values.T, dtype="<f4").tobytes())
        raw = mne.io.read_raw_brainvision(Path(folder) / "part.vhdr", verbose="error")
        raw.set_montage("standard_1005", match_case=False, on_missing="ignore", verbose="error")
        write_recording(raw, target, entities, events, 50.0)
