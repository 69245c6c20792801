"""Independent components: blinks leave, responses stay."""

from __future__ import annotations

import importlib.util
import runpy
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from afterimage.preprocess.meeg.filtering import band_pass
from afterimage.preprocess.meeg.ica import remove_artifacts

made = SimpleNamespace(**runpy.run_path(str(Path(__file__).parents[1] / "recording_example.py")))


def parts(signal: np.ndarray, eeg: SimpleNamespace) -> np.ndarray:
    """Return the topographies of blinks and of the response in a signal, (2, n_channels)."""
    design = np.column_stack([eeg.course, eeg.wave, np.ones_like(eeg.wave)])
    return np.linalg.lstsq(design, signal.T, rcond=None)[0][:2]


@pytest.mark.parametrize("reference", ["average", "recorded"])
def test_blinks_leave_and_responses_stay(reference: str) -> None:
    eeg = made.make_eeg(2)
    raw = eeg.raw
    band_pass(raw, 0.1, 40.0)
    if reference == "average":
        raw.set_eeg_reference("average", verbose="error")
    before = parts(raw.get_data(), eeg)
    components, notes = remove_artifacts(raw, np.zeros(raw.n_times, dtype=bool))
    after = parts(raw.get_data(), eeg)
    assert components is not None
    assert notes == []
    assert (after[0] ** 2).sum() <= 0.1 * (before[0] ** 2).sum()
    assert ((after[1] - before[1]) ** 2).sum() <= 0.1 * (before[1] ** 2).sum()
    assert "eye blink" in components.labels
    assert components.topographies.shape == (len(components.labels), 32)
    assert components.excluded.sum() <= 3
    labels = importlib.util.find_spec("mne_icalabel") is not None and reference == "average"
    assert ("ICLabel" in components.method) == labels
    # The blink's map is at the front.
    blink = np.abs(components.topographies[components.labels.index("eye blink")])
    assert components.channels[int(blink.argmax())] in ("Fp1", "Fp2", "AF3", "AF4")


def test_a_recording_without_blinks_keeps_its_sources() -> None:
    eeg = made.make_eeg(1, duration_s=60, blinks=False)
    band_pass(eeg.raw, 0.1, 40.0)
    eeg.raw.set_eeg_reference("average", verbose="error")
    before = eeg.raw.get_data()
    components, _ = remove_artifacts(
        eeg.raw, np.zeros(eeg.raw.n_times, dtype=bool), n_components=15
    )
    assert components is not None
    lost = ((eeg.raw.get_data() - before) ** 2).sum() / (before**2).sum()
    assert lost < 0.15


def test_few_channels_or_little_signal_are_said() -> None:
    raw = made.make_eeg(0, duration_s=20).raw
    few = raw.copy().pick(raw.ch_names[:6])
    components, notes = remove_artifacts(few, np.zeros(few.n_times, dtype=bool))
    assert components is None
    assert "needs 12 good channels, there are 6" in notes[0]
    bad = np.ones(raw.n_times, dtype=bool)
    bad[:100] = False
    components, notes = remove_artifacts(raw, bad)
    assert components is None
    assert "too little" in notes[0]
