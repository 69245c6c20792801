"""Trials from cleaned series: split once, whitened by training trials, what is bad left out."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray

from afterimage.errors import ConfigError, InputError
from afterimage.io.series import write_series
from afterimage.io.tables import read_tsv, write_tsv
from afterimage.io.trials import open_trials, read_responses
from afterimage.stages.epoch_meeg import Config, Inputs, Outputs, run

RATE_HZ = 100.0
N_UNITS = 8
NAMES = [f"E{k}" for k in range(5)] + ["O1", "Oz", "O2"]


@dataclass
class Study:
    """A subject with runs of rapid pictures; each picture has its own response at 0.1 to 0.3 s."""

    root: Path
    runs: tuple[str, ...] = ("01", "02", "03")
    n_stimuli: int = 12
    n_trials: int = 48
    pictures: bool = True
    seed: int = 0

    def __post_init__(self) -> None:
        rng = np.random.default_rng(self.seed)
        self.patterns = 4e-6 * rng.normal(size=(self.n_stimuli, N_UNITS))
        self.mixing = np.linalg.cholesky(
            0.7 ** np.abs(np.subtract.outer(np.arange(N_UNITS), np.arange(N_UNITS)))
        )
        (self.root / "stimuli").mkdir(parents=True)
        (self.root / "out" / "sub-01").mkdir(parents=True)
        for path in (self.root, self.root / "out"):
            (path / "dataset_description.json").write_text("{}")
        if self.pictures:
            for k in range(self.n_stimuli):
                (self.root / "stimuli" / f"p{k}.png").touch()
        for run_label in self.runs:
            self.write_run(run_label, rng)
        folder = self.root / "out" / "sub-01"
        self.inputs = Inputs(
            tuple(folder / f"sub-01_ses-1_task-x_run-{r}_desc-clean_series.nc" for r in self.runs),
            tuple(
                folder / f"sub-01_ses-1_task-x_run-{r}_desc-clean_events.tsv" for r in self.runs
            ),
            self.root / "dataset_description.json",
        )
        self.outputs = Outputs(
            folder / "sub-01_trials.nc",
            folder / "sub-01_split.tsv",
            folder / "sub-01_quality.json",
            folder / "sub-01_desc-responses_quality.nc",
        )

    def write_run(self, label: str, rng: np.random.Generator, **attributes: Any) -> None:
        shown = rng.permutation(np.arange(self.n_trials) % self.n_stimuli)
        samples = 60 + 40 * np.arange(self.n_trials)
        n = int(samples[-1]) + 120
        signal = 1e-6 * rng.normal(size=(n, N_UNITS)) @ self.mixing.T
        for sample, k in zip(samples, shown, strict=True):
            signal[sample + 10 : sample + 30] += self.patterns[k]
        units = {
            "name": np.array(NAMES), "kind": np.full(N_UNITS, "eeg"),
            "roi": np.full(N_UNITS, "n/a"),
            **{axis: rng.normal(size=N_UNITS) for axis in "xyz"},
        }  # fmt: skip
        about = {"sampling_rate_hz": RATE_HZ, "start_time_s": 0.0, "source": "raw"}
        stem = self.root / "out" / "sub-01" / f"sub-01_ses-1_task-x_run-{label}_desc-clean"
        write_series(
            Path(f"{stem}_series.nc"), signal, units, about | attributes, np.zeros(n, dtype=bool)
        )
        rows = [
            {
                "onset": sample / RATE_HZ, "sample": int(sample), "duration": 0.2,
                "trial_type": "even" if k % 2 == 0 else "odd",
                "stimulus_id": f"p{k}" if self.pictures else f"c{k % 2}",
                "file": f"p{k}.png" if self.pictures else "n/a",
            }
            for sample, k in zip(samples.tolist(), shown.tolist(), strict=True)
        ]  # fmt: skip
        write_tsv(Path(f"{stem}_events.tsv"), rows, list(rows[0]))

    def run(self, **config: Any) -> xarray.Dataset:
        run(self.inputs, self.outputs, Config(**{"tmax_s": 0.5, **config}))
        return open_trials(self.outputs.trials)

    @property
    def quality(self) -> dict[str, Any]:
        return dict(json.loads(self.outputs.quality.read_text()))


@pytest.fixture
def study(tmp_path: Path) -> Study:
    return Study(tmp_path / "data")


def test_responses_are_cut_split_and_found_reliable(study: Study) -> None:
    with study.run(whiten=False) as trials:
        assert trials["responses"].shape == (144, N_UNITS, 71)
        assert trials.attrs["response_units"] == "uV"
        splits = dict(zip(trials["stimulus"].values, trials["split"].values, strict=True))
        responses = trials["responses"].values
        place = int(trials["stimulus"].values[70][1:])
        before = trials["responses"].sel(time=slice(-0.2, 0)).mean("time")
    np.testing.assert_allclose(before, 0, atol=1e-4)
    same = [k for k in range(144) if trials["stimulus"].values[k] == f"p{place}"]
    found = responses[same][:, :, 30:50].mean(axis=(0, 2))
    assert np.corrcoef(found, study.patterns[place])[0, 1] > 0.95
    rows = {row["stimulus_id"]: row["split"] for row in read_tsv(study.outputs.split)}
    assert rows == splits and sorted(rows.values()).count("test") == 2
    quality = study.quality
    assert quality["n_units"] == quality["n_units_kept"] == N_UNITS
    assert quality["n_trials"] == {"train": 120, "val": 0, "test": 24}
    assert quality["n_runs"] == 3 and quality["n_runs_skipped"] == 0
    assert quality["ceiling_median"] > 0.5
    with xarray.open_dataset(study.outputs.maps, engine="h5netcdf") as maps:
        after = maps["ceiling"].sel(time=slice(0.12, 0.28)).mean()
        assert after > 0.8 and maps["ceiling"].sel(time=slice(-0.15, -0.02)).mean() < 0.4
        assert maps["condition"].values.tolist() == ["all", "even", "odd"]
        assert maps["evoked"].dims == ("condition", "unit", "time")
        assert maps["gfp"].dims[1] == "time" and "eigenvalues" not in maps
        assert maps.attrs["sampling_rate_hz"] == RATE_HZ


def test_whitening_is_fitted_on_training_trials_alone(study: Study) -> None:
    study.run().close()
    first = read_responses(study.outputs.trials, "train")[0]
    with (
        open_trials(study.outputs.trials) as trials,
        xarray.open_dataset(study.outputs.trials, engine="h5netcdf") as stored,
    ):
        left = trials["responses"].values
        names = trials["stimulus"].values
        matrix = stored["whitening"].values
        where = trials["split"].values == "test"
        starts = stored["first_sample"].values[where], stored["series_index"].values[where]
    left = left[~where] - np.array([left[names == name].mean(axis=0) for name in names[~where]])
    left -= left.mean(axis=2, keepdims=True)  # each epoch has its own offset, as in the fit
    noise = np.cov(left.transpose(1, 0, 2).reshape(N_UNITS, -1))
    assert np.abs(noise - np.diag(np.diag(noise))).max() < 0.05 * noise.diagonal().mean()
    with xarray.open_dataset(study.outputs.maps, engine="h5netcdf") as maps:
        assert maps["eigenvalues"][0, 0] > 3 * maps["eigenvalues"][0, -1]
        np.testing.assert_allclose(maps["eigenvalues_after"], 1, atol=0.05)
    # Wherever only test trials lie, the signal may become anything: the fit stays what it was.
    ends = {}
    for path in study.inputs.series:
        with xarray.open_dataset(path, engine="h5netcdf") as series:
            ends[path] = series.load()
    trained = {k: np.zeros(len(s["time"]), bool) for k, s in enumerate(ends.values())}
    with xarray.open_dataset(study.outputs.trials, engine="h5netcdf") as stored:
        for index, sample in zip(
            stored["series_index"].values[~where], stored["first_sample"].values[~where],
            strict=True,
        ):  # fmt: skip
            trained[int(index)][sample : sample + 71] = True
    changed = 0
    for k, (path, series) in enumerate(ends.items()):
        signal = series["signal"].values.copy()
        signal[~trained[k]] *= 50
        changed += int((~trained[k]).sum())
        units = {name: series[name].values for name in ("name", "kind", "roi", "x", "y", "z")}
        about = {"sampling_rate_hz": RATE_HZ, "start_time_s": 0.0, "source": "raw"}
        write_series(path, signal, units, about, np.zeros(len(signal), dtype=bool))
    assert changed > 50 and len(starts[0])
    study.run().close()
    with xarray.open_dataset(study.outputs.trials, engine="h5netcdf") as stored:
        np.testing.assert_array_equal(stored["whitening"].values, matrix)
    np.testing.assert_array_equal(read_responses(study.outputs.trials, "train")[0], first)


def test_categories_are_all_training_unless_runs_are_held_out(tmp_path: Path) -> None:
    study = Study(tmp_path / "data", pictures=False)
    with study.run() as trials:
        assert set(trials["split"].values) == {"train"}
    with study.run(test_runs=["run-3"]) as trials:
        held_out = trials["run"].values[trials["split"].values == "test"]
        assert set(held_out) == {"03"}
    with pytest.raises(InputError, match="no run is one of the test runs") as error:
        study.run(test_runs=["run-9"])
    assert "epoch_meeg.test_runs" in str(error.value)


def test_picks_by_kind_name_and_pattern(study: Study) -> None:
    with study.run(picks=["^O", "E1"]) as trials:
        assert trials["name"].values.tolist() == ["E1", "O1", "Oz", "O2"]
        assert trials["column"].values.tolist() == [1, 5, 6, 7]
    assert study.quality["n_units_kept"] == 4
    with study.run(picks=["eeg"]) as trials:
        assert trials.sizes["unit"] == N_UNITS
    for wrong in ("Fp1", "["):
        with pytest.raises(ConfigError, match="no channel is picked"):
            study.run(picks=[wrong])


def test_trials_that_are_bad_are_dropped_and_said(study: Study) -> None:
    path = study.inputs.series[0]
    with xarray.open_dataset(path, engine="h5netcdf") as series:
        series.load()
    signal = series["signal"].values.copy()
    signal[300, 2] += 500e-6
    censored = np.zeros(len(signal), dtype=bool)
    censored[-80:] = True
    units = {name: series[name].values for name in ("name", "kind", "roi", "x", "y", "z")}
    about = {"sampling_rate_hz": RATE_HZ, "start_time_s": 0.0, "source": "raw"}
    write_series(path, signal, units, about, censored)
    rows = read_tsv(study.inputs.events[0])
    rows[0]["sample"] = "5"
    write_tsv(study.inputs.events[0], rows, list(rows[0]))
    with study.run(reject_uv=100) as trials:
        assert trials.sizes["trial"] == 144 - 1 - 1 - 2
    notes = " ".join(study.quality["notes"])
    assert "1 of 48 trials leave the recording" in notes
    assert "1 of 48 trials touch bad segments" in notes
    assert "2 of 48 trials range over more than 100 uV" in notes


def test_runs_that_cannot_be_used_are_left_out(tmp_path: Path) -> None:
    study = Study(tmp_path / "data", runs=("01", "02", "03", "04"))
    study.write_run("02", np.random.default_rng(4), sampling_rate_hz=120.0)
    study.inputs.events[0].write_text("onset\tsample\tduration\tstimulus_id\n")
    with study.run() as trials:
        assert set(trials["run"].values) == {"03", "04"}
    assert study.quality["n_runs_skipped"] == 2
    notes = " ".join(study.quality["notes"])
    assert "no trials" in notes and "does not fit the other runs" in notes
    for file in study.inputs.events:
        file.write_text("onset\tsample\tduration\tstimulus_id\n")
    with pytest.raises(InputError, match="no usable run"):
        study.run()


def test_same_study_same_bytes(study: Study) -> None:
    study.run(shrinkage="epoch").close()
    first = study.outputs.trials.read_bytes()
    study.run(shrinkage="epoch").close()
    assert study.outputs.trials.read_bytes() == first
    assert not list(study.outputs.trials.parent.glob(".*"))


@pytest.mark.parametrize(
    "wrong",
    [{"tmin_s": 0.5, "tmax_s": 0.5}, {"baseline_s": [-0.5, 0]}, {"baseline_s": [0, 2]},
     {"shrinkage": 1.5}],
)  # fmt: skip
def test_settings_that_make_no_sense(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"tmin_s|baseline_s|shrinkage"):
        Config(**wrong)
