"""Recordings of every format that can be written here come out of the stage as the same signal."""

from __future__ import annotations

import runpy
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from afterimage.bids.index import index_dataset
from afterimage.bids.sidecars import split_paths
from afterimage.io.series import open_series
from afterimage.stages import clean_meeg

made = SimpleNamespace(**runpy.run_path(str(Path(__file__).parents[1] / "recording_example.py")))

#: Formats by suffix, with the package that writes them.
FORMATS = {".vhdr": "pybv", ".edf": "edfio", ".bdf": "edfio", ".set": "eeglabio"}


@pytest.mark.parametrize("suffix", FORMATS)
def test_each_format_gives_the_recorded_signal(suffix: str, tmp_path: Path) -> None:
    pytest.importorskip(FORMATS[suffix])
    names = {".vhdr": "BrainVision", ".edf": "EDF", ".bdf": "BDF", ".set": "EEGLAB"}
    root, eeg = tmp_path / "study", made.make_eeg(1, duration_s=20)
    written = made.write_bids(root, eeg.raw, "01", eeg.onsets_s, format=names[suffix])
    assert written.suffix == suffix
    row = dict(index_dataset(root)[0])
    inputs = clean_meeg.Inputs(
        root / row["recording"], tuple(split_paths(row["sidecar"], root)), root / row["events"]
    )
    outputs = clean_meeg.Outputs(
        *(tmp_path / name for name in ("series.nc", "events.tsv", "quality.nc"))
    )
    config = clean_meeg.Config(
        reference="none", bad_channels="given", bad_segments="given", lowpass_hz=None,
        highpass_hz=0, line_freq_hz=0,
    )  # fmt: skip
    clean_meeg.run(inputs, outputs, config)
    with open_series(outputs.series) as series:
        assert series.attrs["problem"] == ""
        assert series.units["name"].tolist() == eeg.raw.ch_names
        assert np.isfinite([series.units[axis] for axis in "xyz"]).all()
        signal = series.read().T
    recorded = eeg.raw.get_data()
    assert signal.shape == recorded.shape
    # EDF keeps 16 bits of each channel's range, and the other formats more.
    step = np.ptp(recorded, axis=1).max() / 2**15 if suffix == ".edf" else 1e-8
    assert np.abs(signal - recorded).max() < step
