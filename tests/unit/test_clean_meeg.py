"""The stage that cleans a run of EEG: on real recordings, made-up ones, and bad input."""

from __future__ import annotations

import runpy
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import mne
import numpy as np
import pytest
import xarray

from afterimage.bids.index import index_dataset
from afterimage.bids.sidecars import split_paths
from afterimage.errors import InputError
from afterimage.io.series import open_series
from afterimage.io.tables import read_tsv
from afterimage.preprocess.meeg import ica
from afterimage.stages import clean_meeg

made = SimpleNamespace(**runpy.run_path(str(Path(__file__).parents[1] / "recording_example.py")))


def clean(root: Path, row: dict[str, str], out: Path, **settings: Any) -> SimpleNamespace:
    """Run the stage on a row of the index; return what it wrote."""
    inputs = clean_meeg.Inputs(
        root / row["recording"], tuple(split_paths(row["sidecar"], root)), root / row["events"]
    )
    outputs = clean_meeg.Outputs(
        out / "sub-01_desc-clean_series.nc", out / "sub-01_desc-clean_events.tsv",
        out / "sub-01_desc-meeg_quality.nc",
    )  # fmt: skip
    clean_meeg.run(inputs, outputs, clean_meeg.Config(**settings))
    with open_series(outputs.series) as series:
        signal, times_s, censored = series.read(), series.times_s, series.censored
        units, attrs = dict(series.units), dict(series.attrs)
    with xarray.open_dataset(outputs.quality) as quality:
        return SimpleNamespace(
            signal=signal, times_s=times_s, censored=censored, units=units, attrs=attrs,
            quality=quality.load(), events=read_tsv(outputs.events),
        )  # fmt: skip


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """Three runs of made-up EEG, 500 Hz, 20 s each."""
    root = tmp_path / "study"
    for number in (1, 2, 3):
        eeg = made.make_eeg(number, duration_s=20, rate_hz=500)
        made.write_bids(root, eeg.raw, f"0{number}", eeg.onsets_s)
    return root


def rows_of(root: Path) -> list[dict[str, str]]:
    return [dict(row) for row in index_dataset(root)]


def test_faces_and_houses_come_out_in_volt(shared_data: Path, tmp_path: Path) -> None:
    root = shared_data / "eeg-n170-raw"
    got = clean(root, rows_of(root)[0], tmp_path, lowpass_hz=30, highpass_hz=1)
    assert got.units["name"].tolist() == ["TP9", "AF7", "AF8", "TP10"]
    assert np.isfinite([got.units[axis] for axis in "xyz"]).all()
    assert got.attrs["sampling_rate_hz"] == 250
    assert got.attrs["reference"] == "as recorded"
    assert 1e-6 < np.median(np.abs(got.signal)) < 3e-5
    assert 0 < got.censored.mean() < 0.1
    assert {row["trial_type"] for row in got.events} == {"face", "house"}
    source = read_tsv(root / rows_of(root)[0]["events"])
    assert [float(row["onset"]) for row in got.events] == [float(row["onset"]) for row in source]
    shown = np.array([float(row["onset"]) for row in got.events])
    samples = np.array([int(row["sample"]) for row in got.events])
    assert np.abs(got.times_s[samples] - shown).max() <= 0.5 / 250 + 1e-9
    spectrum = got.quality.psd_before.sel(unit="TP9"), got.quality.psd_after.sel(unit="TP9")
    line = [float(psd.sel(frequency=60)) for psd in spectrum]
    assert line[1] < 1e-3 * line[0]


def test_motor_imagery_keeps_its_rate_and_rhythm(shared_data: Path, tmp_path: Path) -> None:
    root = shared_data / "eeg-motor-raw"
    row = next(row for row in rows_of(root) if row["events"] != "n/a")
    got = clean(root, row, tmp_path)
    assert got.signal.shape == (20_000, 64)
    assert got.attrs["sampling_rate_hz"] == 160
    assert got.attrs["reference"] == "average"
    assert np.abs(got.signal.mean(axis=1)).max() < 1e-9
    assert len(got.events) == 15
    assert int(got.quality.bad.sum()) == 0
    fast = [got.quality[f"psd_{when}"].sel(frequency=60).values for when in ("before", "after")]
    assert np.median(fast[1]) < 1e-3 * np.median(fast[0])


def test_bad_channels_are_interpolated_and_told(study: Path, tmp_path: Path) -> None:
    eeg = made.make_eeg(1, duration_s=20, rate_hz=500)
    raw = eeg.raw
    raw._data[raw.ch_names.index("C3")] = 0
    made.write_bids(study, raw, "01", eeg.onsets_s)
    got = clean(study, rows_of(study)[0], tmp_path / "out", ransac=False)
    clean_run = clean(study, rows_of(study)[1], tmp_path / "out2", ransac=False)
    assert got.attrs["bad_channels"] == "C3"
    assert got.attrs["kept_bad_channels"] == ""
    assert got.units["name"].tolist() == clean_run.units["name"].tolist()
    assert got.signal.std(axis=0).min() > 1e-6
    quality = got.quality.sel(unit="C3")
    assert (str(quality.bad_reason.values), str(quality.repaired.values)) == (
        "flat",
        "interpolated",
    )
    assert got.signal.shape == (5000, 32)


def test_ica_is_reported(study: Path, tmp_path: Path) -> None:
    eeg = made.make_eeg(2, duration_s=40)
    made.write_bids(study, eeg.raw, "01", eeg.onsets_s)
    got = clean(
        study, rows_of(study)[0], tmp_path / "out", ica="auto", n_components=10, ransac=False
    )
    removed = got.quality.ica_label.values[got.quality.ica_excluded.values == 1]
    assert "eye blink" in removed
    assert np.isfinite(got.quality.ica_topography.values).all()
    front = got.quality.sel(unit="Fp1")
    assert float(front.amplitude_after) < float(front.amplitude_before)
    assert "picard" in got.quality.attrs["ica_method"]


@pytest.mark.parametrize("labels", ["ICLabel", "correlation"])
def test_eyes_leave_and_responses_stay_among_other_artefacts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, labels: str
) -> None:
    """Blinks, glances, heart and jaw, every event of its own size; what is left is fitted."""
    if labels == "ICLabel":
        pytest.importorskip("mne_icalabel", reason="the extra icalabel is not installed")
        pytest.importorskip("onnxruntime", reason="ICLabel needs onnxruntime or torch")
    else:
        monkeypatch.setattr(ica, "_iclabel", lambda *_: None)
    eeg = made.make_eeg(3, duration_s=90, blinks=False)
    courses = made.add_artifacts(eeg, 3)
    made.write_bids(tmp_path / "study", eeg.raw, "01", eeg.onsets_s)
    row = rows_of(tmp_path / "study")[0]
    design = np.array([*courses.values(), eeg.wave])
    design = mne.filter.filter_data(design, 250, 0.1, 40, verbose="error")
    design = (design - design.mean(axis=1, keepdims=True)).T
    found = {}
    for method in ("none", "auto"):
        got = clean(tmp_path / "study", row, tmp_path / method, ica=method, ransac=False,
                    bad_channels="given", line_freq_hz=0)  # fmt: skip
        found[method] = np.linalg.lstsq(design, got.signal, rcond=None)[0]
    assert labels in got.quality.attrs["ica_method"]
    before, after = found["none"], found["auto"]
    power = dict(zip(courses, (after**2).sum(axis=1) / (before**2).sum(axis=1), strict=False))
    assert power["blink"] <= 0.1
    if labels == "ICLabel":  # without EOG channels nothing else tells glances from the brain
        assert power["gaze"] <= 0.1
    lost = ((after[-1] - before[-1]) ** 2).sum() / (before[-1] ** 2).sum()
    assert lost <= 0.1


def test_causal_mode_does_not_look_ahead(study: Path, tmp_path: Path) -> None:
    row = rows_of(study)[0]
    settings = {"causal": True, "calibration_s": 8.0, "ransac": False}
    first = clean(study, row, tmp_path / "a", **settings)
    eeg = made.make_eeg(1, duration_s=20, rate_hz=500)
    eeg.raw._data[:, 6000:] *= 1.7
    made.write_bids(study, eeg.raw, "01", eeg.onsets_s)
    second = clean(study, row, tmp_path / "b", **settings)
    np.testing.assert_allclose(first.signal[:2990], second.signal[:2990], atol=2e-10)
    np.testing.assert_array_equal(first.censored[:2900], second.censored[:2900])
    assert not np.allclose(first.signal[3100:], second.signal[3100:], atol=1e-8)
    with pytest.raises(ValueError, match="ica looks at the whole recording"):
        clean_meeg.Config(causal=True, ica="auto")


def test_runs_of_different_rates_come_to_one(study: Path, tmp_path: Path) -> None:
    eeg = made.make_eeg(3, duration_s=20, rate_hz=200)
    made.write_bids(study, eeg.raw, "03", eeg.onsets_s)
    rates = []
    for number, row in enumerate(rows_of(study)):
        got = clean(study, row, tmp_path / str(number), ransac=False)
        rates.append(got.attrs["sampling_rate_hz"])
        assert ("other runs at 200 Hz" in got.attrs["notes"]) == (number < 2)
    assert rates == [200, 200, 200]


def spoil_events(change: Callable[[str], str]) -> Callable[[Path], None]:
    def spoil(root: Path) -> None:
        path = root / rows_of(root)[1]["events"]
        path.write_text(change(path.read_text(encoding="utf-8")), encoding="utf-8")

    return spoil


def cut(root: Path) -> None:
    path = (root / rows_of(root)[1]["recording"]).with_suffix(".eeg")
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2 + 1])


def cut_at_a_sample(root: Path) -> None:
    path = (root / rows_of(root)[1]["recording"]).with_suffix(".eeg")
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2 // 128 * 128])


def rewrite(change: Callable[[mne.io.BaseRaw], Any]) -> Callable[[Path], None]:
    def spoil(root: Path) -> None:
        eeg = made.make_eeg(2, duration_s=20, rate_hz=500)
        changed = change(eeg.raw)
        made.write_bids(root, eeg.raw if changed is None else changed, "02", eeg.onsets_s)

    return spoil


def scaled(raw: mne.io.BaseRaw) -> None:
    raw._data *= 1e9


def flat(raw: mne.io.BaseRaw) -> None:
    raw._data[:] = 1e-6


def mostly_flat(raw: mne.io.BaseRaw) -> None:
    raw._data[:20] = 0


def rename_column(root: Path) -> None:
    path = (root / rows_of(root)[1]["recording"]).parent / "sub-01_task-view_run-02_channels.tsv"
    path.write_text(path.read_text(encoding="utf-8").replace("Cz\t", "X1\t"), encoding="utf-8")


HEADER = "onset\tduration\ttrial_type\n"


@pytest.mark.parametrize(
    ("spoil", "text"),
    [
        (spoil_events(lambda _: HEADER), "a run has no trials"),
        (spoil_events(lambda _: HEADER + "500\t0\tkind1\n"), "after the last sample"),
        (spoil_events(lambda _: HEADER + "-5\t0\tkind1\n"), "before the first sample"),
        (spoil_events(lambda _: HEADER + "1\t0\ta\n1\t0\tb\n"), "start at the same time"),
        (cut, "a recording is cut off"),
        (cut_at_a_sample, "a recording is cut off"),
        (rewrite(scaled), "not in V"),
        (rewrite(flat), "all channels are flat"),
        (rewrite(mostly_flat), "too many channels of a run are bad"),
        (rewrite(lambda raw: raw.drop_channels(["Cz"])), "channels of a run are missing"),
        (rewrite(lambda raw: raw.rename_channels({"Cz": "X1"})), "missing or renamed"),
        (rename_column, "the table of channels does not fit"),
    ],
    ids=lambda value: value.replace(" ", "_") if isinstance(value, str) else "",
)
def test_bad_input_says_why_and_the_run_is_left_out(
    study: Path, tmp_path: Path, spoil: Callable[[Path], None], text: str
) -> None:
    spoil(study)
    row = rows_of(study)[1]
    got = clean(study, row, tmp_path / "out", ransac=False)
    assert text in got.attrs["problem"]
    assert text in got.quality.attrs["problem"]
    assert got.signal.shape[0] == 0
    assert got.events == []
    assert list((tmp_path / "out").rglob("*_skipped.json"))
    with pytest.raises(InputError):
        clean(study, row, tmp_path / "out", on_bad_run="fail")
    assert clean(study, rows_of(study)[0], tmp_path / "x", ransac=False).attrs["problem"] == ""


def test_edf_is_read_and_its_end_checked(tmp_path: Path) -> None:
    root = tmp_path / "study"
    eeg = made.make_eeg(1, duration_s=20)
    path = made.write_bids(root, eeg.raw, "01", eeg.onsets_s, format="EDF")
    whole = clean(root, rows_of(root)[0], tmp_path / "a", ransac=False)
    assert whole.signal.shape == (5000, 32)
    assert np.corrcoef(whole.signal[:, 5], eeg.raw.get_data()[5])[0, 1] > 0.6
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    cut_off = clean(root, rows_of(root)[0], tmp_path / "b", ransac=False)
    assert "cut off" in cut_off.attrs["problem"]


def test_meg_as_fif_and_its_end(shared_data: Path, tmp_path: Path) -> None:
    import mne_bids

    evoked = mne.read_evokeds(
        shared_data / "meg-layout" / "test-ave.fif.gz", condition=0, proj=False, verbose="error"
    )
    rng = np.random.default_rng(0)
    n_times = 20 * 300
    info = mne.pick_info(evoked.info, mne.pick_types(evoked.info, meg=True))
    with info._unlock():
        info["sfreq"], info["line_freq"] = 300.0, 50.0
    mixing = np.array([evoked.data[: len(info["chs"]), 10 * n] for n in range(12)]).T
    signal = mixing @ rng.standard_normal((12, n_times))
    signal += 0.3 * signal.std(axis=1, keepdims=True) * rng.standard_normal(signal.shape)
    raw = mne.io.RawArray(signal, info, verbose="error")
    raw.set_annotations(mne.Annotations(np.arange(1.0, 19), 0.1, ["a", "b"] * 9))
    place = mne_bids.BIDSPath(root=tmp_path / "s", subject="01", task="view", datatype="meg")
    written = mne_bids.write_raw_bids(
        raw, place, format="FIF", allow_preload=True, verbose="error"
    )
    root = tmp_path / "s"
    got = clean(root, rows_of(root)[0], tmp_path / "a")
    assert sorted(set(got.units["kind"].tolist())) == ["grad", "mag"]
    assert got.signal.shape == (5000, 306)
    assert "stored projections were applied" in got.attrs["notes"]
    assert np.isfinite(got.units["x"]).all()
    path = Path(written.fpath)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    assert "a recording" in clean(root, rows_of(root)[0], tmp_path / "b").attrs["problem"]
    shutil.rmtree(root)
