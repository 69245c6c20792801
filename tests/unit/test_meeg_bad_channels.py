"""Bad channels, planted in made-up and in real EEG."""

from __future__ import annotations

import runpy
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import mne
import numpy as np
import pytest

from afterimage.preprocess.meeg.bad_channels import find_bad_channels, score_arrays

made = SimpleNamespace(**runpy.run_path(str(Path(__file__).parents[1] / "recording_example.py")))

Plant = Callable[[np.ndarray, float, np.random.Generator], np.ndarray]


def pops(signal: np.ndarray, sd: float, rng: np.random.Generator) -> np.ndarray:
    signal = signal.copy()
    for start in rng.integers(0, len(signal) - 400, len(signal) // 400):
        signal[start : start + 320] += rng.choice([-1, 1]) * 8 * sd * np.exp(-np.arange(320) / 60)
    return signal


def bumps(signal: np.ndarray, sd: float, rng: np.random.Generator) -> np.ndarray:
    """Slow waves of one channel, about a second wide, at rates of 160 to 250 Hz."""
    times = np.arange(len(signal))
    signal = signal.copy()
    for at in np.arange(300, len(signal), 600) + rng.integers(0, 200):
        wave = np.exp(-((times - at) ** 2) / (2 * rng.uniform(90, 180) ** 2))
        signal += rng.choice([-1, 1]) * rng.uniform(5, 10) * sd * wave
    return signal


PLANTS: dict[str, Plant] = {
    "flat": lambda x, sd, rng: np.zeros_like(x),
    "noise": lambda x, sd, rng: rng.normal(0, sd, len(x)),
    "loud": lambda x, sd, rng: 12 * x,
    "noisy": lambda x, sd, rng: x + rng.normal(0, 1.5 * sd, len(x)),
    "drift": lambda x, sd, rng: np.cumsum(rng.normal(0, 0.05 * sd, len(x))),
    "pops": pops,
    "bumps": bumps,
    "nan": lambda x, sd, rng: np.full_like(x, np.nan),
}


def plant(raw: mne.io.BaseRaw, rng: np.random.Generator, kinds: list[str]) -> dict[str, str]:
    """Spoil one random channel a kind; return channel to kind."""
    deviation = float(np.median(raw.get_data().std(axis=1)))
    chosen = rng.choice(len(raw.ch_names), len(kinds), replace=False)
    for channel, kind in zip(chosen, kinds, strict=True):
        raw._data[channel] = PLANTS[kind](raw._data[channel], deviation, rng)
    return {raw.ch_names[c]: kind for c, kind in zip(chosen, kinds, strict=True)}


def test_planted_channels_are_found_in_made_up_eeg() -> None:
    hits = planted = called = 0
    for seed in range(3):
        raw = made.make_eeg(seed, duration_s=60).raw
        assert len(find_bad_channels(raw).reasons) <= 1
        bad = plant(
            raw, np.random.default_rng(seed), ["flat", "noise", "loud", "pops", "bumps", "nan"]
        )
        found = set(find_bad_channels(raw).reasons)
        hits += len(found & set(bad))
        planted, called = planted + len(bad), called + len(found)
    assert hits / planted >= 0.9
    assert hits / called >= 0.8


@pytest.mark.slow
def test_planted_channels_are_found_in_real_eeg(shared_data: Path) -> None:
    folder = shared_data / "eeg-motor-raw" / "sub-001" / "eeg"
    hits = planted = called = 0
    for number in (1, 2):
        name = f"sub-001_task-imageryfistsfeet_run-0{number}_eeg.edf"
        clean = mne.io.read_raw_edf(folder / name, preload=True, verbose="error")
        clean.set_montage(made.template())
        clean.notch_filter(60, verbose="error")
        assert not find_bad_channels(clean).reasons
        for seed in range(2):
            raw = clean.copy()
            kinds = [kind for kind in PLANTS if kind != "nan"]
            bad = plant(raw, np.random.default_rng(10 * number + seed), kinds)
            found = set(find_bad_channels(raw).reasons)
            hits += len(found & set(bad))
            planted, called = planted + len(bad), called + len(found)
    assert hits / planted >= 0.9
    assert hits / called >= 0.8


def test_few_channels_are_judged_by_amplitude(shared_data: Path) -> None:
    folder = shared_data / "eeg-n170-raw" / "sub-01" / "ses-01" / "eeg"
    path = folder / "sub-01_ses-01_task-n170_run-01_eeg.vhdr"
    raw = mne.io.read_raw_brainvision(path, preload=True, verbose="error")
    assert not find_bad_channels(raw).reasons
    raw._data[0] = 0
    raw._data[2] *= 40
    found = find_bad_channels(raw)
    assert found.reasons == {raw.ch_names[0]: "flat", raw.ch_names[2]: "deviation"}


def test_given_channels_stay_bad_and_scores_have_a_place_for_all() -> None:
    raw = made.make_eeg(0, duration_s=30).raw
    raw.info["bads"] = ["Cz"]
    found = find_bad_channels(raw, ransac=False)
    assert found.reasons["Cz"] == "given"
    scores = score_arrays(found, raw.ch_names)
    assert set(scores) >= {"flat", "deviation", "correlation", "jumps", "noise"}
    assert np.isnan(scores["deviation"][raw.ch_names.index("Cz")])
    assert np.isfinite(np.delete(scores["deviation"], raw.ch_names.index("Cz"))).all()


@pytest.mark.parametrize("kind", ["mag", "grad"])
def test_meg_is_judged_by_its_own_scale(kind: str) -> None:
    rng = np.random.default_rng(0)
    size = {"mag": 2e-13, "grad": 5e-12}[kind]
    signal = size * (rng.normal(size=(60, 6)) @ rng.normal(size=(6, 10_000)))
    signal += 0.2 * size * rng.normal(size=signal.shape)
    signal[7], signal[30] = 0, 30 * signal[30]
    raw = mne.io.RawArray(signal, mne.create_info(60, 250.0, kind), verbose="error")
    assert set(find_bad_channels(raw).reasons) == {raw.ch_names[7], raw.ch_names[30]}
