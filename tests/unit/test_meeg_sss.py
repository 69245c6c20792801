"""Signal space separation and projections through the stage: what comes from outside leaves."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import mne
import numpy as np
import pytest

from afterimage.bids.index import index_dataset
from afterimage.bids.sidecars import split_paths
from afterimage.io.series import open_series
from afterimage.stages import clean_meeg

RATE_HZ, N_TIMES = 250.0, 20 * 250


def distant_field(info: mne.Info, place_m: np.ndarray, moment: np.ndarray) -> np.ndarray:
    """Field of a magnetic dipole (A m2) outside of the helmet, (n_channels,) in T or T/m."""

    def along(place: np.ndarray, normal: np.ndarray) -> float:
        apart = place - place_m
        far = np.linalg.norm(apart)
        field = 1e-7 * (3 * apart * (apart @ moment) / far**5 - moment / far**3)
        return float(field @ normal)

    values = []
    for channel, kind in zip(info["chs"], info.get_channel_types(), strict=True):
        loc = channel["loc"]
        if kind == "mag":
            values.append(along(loc[:3], loc[9:12]))
        else:  # two coils, 16.8 mm apart
            ends = [along(loc[:3] + sign * 8.4e-3 * loc[3:6], loc[9:12]) for sign in (1, -1)]
            values.append((ends[0] - ends[1]) / 16.8e-3)
    return np.array(values)


def brain_field(info: mne.Info) -> np.ndarray:
    """Field of a current dipole of 50 nA m in a spherical head, (n_channels,)."""
    sphere = mne.make_sphere_model((0.0, 0.0, 0.04), head_radius=None, verbose="error")
    dipole = mne.Dipole([0.0], [[0.02, -0.05, 0.07]], [50e-9], [[0.0, 0.6, 0.8]], [100.0])
    forward, _ = mne.make_forward_dipole(dipole, sphere, info, verbose="error")
    field: np.ndarray = 50e-9 * forward["sol"]["data"][:, 0]  # along the dipole
    return field


@pytest.fixture(scope="module")
def helmet(shared_data: Path) -> mne.Info:
    """306 channels of a real machine, with the position of a head in it."""
    path = shared_data / "meg-layout" / "test-ave.fif.gz"
    evoked = mne.read_evokeds(path, condition=0, proj=False, verbose="error")
    info = mne.pick_info(evoked.info, mne.pick_types(evoked.info, meg=True, exclude=[]))
    with info._unlock():
        info["sfreq"], info["line_freq"] = RATE_HZ, 50.0
        info["lowpass"], info["highpass"], info["bads"] = RATE_HZ / 2, 0.0, []
    return info


def study(
    root: Path, info: mne.Info, *, projections: bool = False, calibrated: bool = True
) -> SimpleNamespace:
    """Write one run: a response, interference 3 m away a hundred times as large, sensor noise."""
    import mne_bids

    rng = np.random.default_rng(0)
    times_s = np.arange(N_TIMES) / RATE_HZ
    onsets_s = np.arange(1.0, 19.0)
    wave = sum(np.exp(-((times_s - at - 0.17) ** 2) / (2 * 0.04**2)) for at in onsets_s)
    hum = np.sin(2 * np.pi * 7.3 * times_s) * (1 + 0.5 * np.sin(2 * np.pi * 0.31 * times_s))
    outside = distant_field(info, np.array([2.0, 1.5, 1.8]), np.array([0.5, -0.8, 0.6]))
    inside = brain_field(info)
    magnetometer = np.array(info.get_channel_types()) == "mag"
    scale = 100 * np.linalg.norm(inside[magnetometer]) / np.linalg.norm(outside[magnetometer])
    noise = np.where(magnetometer, 3e-14, 3e-12 / 3)[:, None] * rng.normal(size=(306, N_TIMES))
    signal = np.outer(inside, wave) + scale * np.outer(outside, hum) + noise
    raw = mne.io.RawArray(signal, info.copy(), verbose="error")
    if not projections:
        raw.del_proj()
    raw.set_annotations(mne.Annotations(onsets_s, 0.1, ["a", "b"] * 9))
    place = mne_bids.BIDSPath(root=root, subject="01", task="view", datatype="meg")
    mne_bids.write_raw_bids(raw, place, format="FIF", allow_preload=True, verbose="error")
    if calibrated:
        calibration = {
            "ch_names": [name.replace(" ", "") for name in raw.ch_names],
            "locs": np.array([channel["loc"] for channel in info["chs"]]),
            # One number for a magnetometer, three for a gradiometer: as measured, no imbalance.
            "imb_cals": [np.ones(1) if one else np.zeros(3) for one in magnetometer],
        }
        path = root.parent / f"{root.name}_sss_cal.dat"
        mne.preprocessing.write_fine_calibration(path, calibration)
        place = mne_bids.BIDSPath(root=root, subject="01", datatype="meg")
        mne_bids.write_meg_calibration(path, place, verbose="error")
    return SimpleNamespace(raw=raw, wave=wave, hum=hum, inside=inside, magnetometer=magnetometer)


def clean(root: Path, out: Path, **settings: Any) -> SimpleNamespace:
    row = dict(index_dataset(root)[0])
    inputs = clean_meeg.Inputs(
        root / row["recording"], tuple(split_paths(row["sidecar"], root)), root / row["events"]
    )
    outputs = clean_meeg.Outputs(*(out / name for name in ("s.nc", "e.tsv", "q.nc")))
    settings = {"bad_channels": "given", "bad_segments": "given", "resample_hz": None} | settings
    out.mkdir()
    clean_meeg.run(inputs, outputs, clean_meeg.Config(**settings))
    with open_series(outputs.series) as series:
        assert series.attrs["problem"] == ""
        return SimpleNamespace(signal=series.read().astype(float).T, notes=series.attrs["notes"])


def parts(signal: np.ndarray, truth: SimpleNamespace) -> np.ndarray:
    """Return what the magnetometers show of the response and of the interference, (2, 102)."""
    design = mne.filter.filter_data(
        np.array([truth.wave, truth.hum]), RATE_HZ, 0.1, 40.0, verbose="error"
    )
    found: np.ndarray = np.linalg.lstsq(design.T, signal[truth.magnetometer].T, rcond=None)[0]
    return found


def test_interference_leaves_and_the_response_stays(helmet: mne.Info, tmp_path: Path) -> None:
    truth = study(tmp_path / "study", helmet)
    plain = clean(tmp_path / "study", tmp_path / "plain", sss="none")
    separated = clean(tmp_path / "study", tmp_path / "separated")
    assert "(SSS)" in separated.notes and "SSS" not in plain.notes
    before, after = parts(plain.signal, truth), parts(separated.signal, truth)
    assert (after[1] ** 2).sum() < 1e-4 * (before[1] ** 2).sum()
    planted = truth.inside[truth.magnetometer]
    assert ((after[0] - planted) ** 2).sum() < 0.1 * (planted**2).sum()
    assert ((before[0] - planted) ** 2).sum() > (planted**2).sum()


def test_projections_of_the_file_are_applied(helmet: mne.Info, tmp_path: Path) -> None:
    truth = study(tmp_path / "study", helmet, projections=True, calibrated=False)
    got = clean(tmp_path / "study", tmp_path / "out")
    assert "stored projections were applied" in got.notes
    assert "no SSS: there is no calibration" in got.notes
    checked = 0
    for projection in truth.raw.info["projs"]:
        names, weights = projection["data"]["col_names"], projection["data"]["data"]
        if not set(names) <= set(truth.raw.ch_names):
            continue
        rows = [truth.raw.ch_names.index(name) for name in names]
        inside = weights @ got.signal[rows]
        assert (inside**2).sum() < 1e-8 * (got.signal[rows] ** 2).sum()
        recorded = truth.raw.get_data()[rows]
        checked += int(((weights @ recorded) ** 2).sum() > 1e-5 * (recorded**2).sum())
    assert checked


def test_without_a_head_position_nothing_is_separated(helmet: mne.Info, tmp_path: Path) -> None:
    info = helmet.copy()
    truth = study(tmp_path / "known", info)
    with truth.raw.info._unlock():
        truth.raw.info["dev_head_t"] = None
    from afterimage.preprocess.meeg.reference import separate_signal_space

    calibration = next((tmp_path / "known").rglob("*_meg.dat"))
    same, notes = separate_signal_space(truth.raw, calibration, None)
    assert same is truth.raw
    assert "position of the head" in notes[0]
