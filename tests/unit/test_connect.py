"""Connectivity of one subject and of the group on disk."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from afterimage.errors import InputError
from afterimage.io.arrays import open_dataset
from afterimage.io.series import write_series
from afterimage.io.tables import read_tsv
from afterimage.stages import evaluate_connectivity
from afterimage.stages.connect import Config, Inputs, Outputs, run
from afterimage.stages.series_files import write_empty_series, write_recording

NAMES = [f"R{i}" for i in range(8)]


def write_one(
    folder: Path,
    subject: str,
    session: str,
    values: np.ndarray,
    names: list[str] = NAMES,
    **more: Any,
) -> Path:
    """Write the series of one recording."""
    (folder / "dataset_description.json").write_text("{}")
    stem = folder / f"sub-{subject}_ses-{session}_seg-A_desc-denoised"
    units = {
        "kind": np.full(len(names), "parcel"), "roi": np.array(names),
        **{axis: np.arange(len(names), dtype=np.float32) for axis in "xyz"},
    }  # fmt: skip
    censored = more.pop("censored", np.zeros(len(values), dtype=bool))
    attributes = {
        "sampling_rate_hz": 0.5, "start_time_s": 0.0, "source": "prepared", "problem": "",
        "degrees_of_freedom": 90, "n_confounds": 4, **more,
    }  # fmt: skip
    path = Path(f"{stem}_series.nc")
    write_recording(path, Path(f"{stem}_timeseries.tsv"), values, censored, units, attributes)
    return path


def connect(folder: Path, subject: str, files: list[Path], **config: Any) -> Path:
    path = folder / f"sub-{subject}" / "connectivity" / f"sub-{subject}_seg-A_connectivity.nc"
    run(Inputs(tuple(files)), Outputs(path), Config(**config))
    return path


def test_matrices_of_all_recordings_and_measures(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    values = [rng.standard_normal((100, 8)) for _ in range(2)]
    censored = np.zeros(100, dtype=bool)
    censored[:10] = True
    values[0][:10] = 99.0
    files = [
        write_one(tmp_path, "1", "a", values[0], censored=censored),
        write_one(tmp_path, "1", "b", values[1]),
    ]
    path = connect(tmp_path, "1", files)
    with open_dataset(path) as dataset:
        assert dataset["connectivity"].dims == ("recording", "measure", "unit", "unit_")
        assert dataset["measure"].values.tolist() == ["correlation", "partial"]
        assert dataset["recording"].values.tolist() == ["ses-a", "ses-b"]
        assert dataset["n_samples"].values.tolist() == [90, 100]
        assert dataset["roi"].values.tolist() == NAMES
        expected = np.corrcoef(values[0][10:], rowvar=False)
        np.testing.assert_allclose(dataset["connectivity"].values[0, 0], expected, atol=1e-6)
    stem = path.parent / "sub-1_ses-a_seg-A_stat-pearsoncorrelation_relmat"
    rows = read_tsv(Path(f"{stem}.tsv"))
    assert [row["Node"] for row in rows] == NAMES
    assert float(rows[2]["R5"]) == pytest.approx(expected[2, 5], abs=1e-5)
    about = json.loads(Path(f"{stem}.json").read_text())
    assert (about["Volumes"], about["Censored"], about["DegreesOfFreedom"]) == (90, 10, 90)
    assert about["Measure"]["kind"] == "correlation"


def test_units_are_those_that_all_recordings_share_and_that_vary(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    still = rng.standard_normal((100, 8))
    still[:, 2] = 5.0
    files = [
        write_one(tmp_path, "1", "a", still),
        write_one(tmp_path, "1", "b", rng.standard_normal((100, 7)), NAMES[::-1][:7]),
    ]
    with open_dataset(connect(tmp_path, "1", files)) as dataset:
        assert dataset["roi"].values.tolist() == ["R1", "R3", "R4", "R5", "R6", "R7"]
        assert (
            "2 units are not in all recordings, or do not vary: R0, R2" in dataset.attrs["notes"]
        )


def test_a_bad_recording_or_measure_leaves_the_rest(tmp_path: Path) -> None:
    good = write_one(tmp_path, "1", "a", np.random.default_rng(0).standard_normal((60, 8)))
    bad = tmp_path / "sub-1_ses-b_seg-A_desc-denoised_series.nc"
    write_empty_series(bad, tmp_path / "sub-1_ses-b_timeseries.tsv", "all volumes are censored")
    measures = {"correlation": {"kind": "correlation"}, "tangent": {"kind": "tangent"}}
    with open_dataset(connect(tmp_path, "1", [good, bad], measures=measures)) as dataset:
        assert dataset.sizes["recording"] == 1
        assert dataset["measure"].values.tolist() == ["correlation"]
        assert "ses-b_seg-A was left out: all volumes are censored" in dataset.attrs["notes"]
        assert "tangent could not be computed" in dataset.attrs["notes"]
    with pytest.raises(InputError, match="no recording for connectivity"):
        connect(tmp_path, "1", [bad])
    with pytest.raises(InputError, match="needs a group"):
        connect(tmp_path, "1", [good], measures={"tangent": {"kind": "tangent"}})


def test_sensors_get_the_measures_in_a_band(tmp_path: Path) -> None:
    (tmp_path / "dataset_description.json").write_text("{}")
    rng = np.random.default_rng(0)
    path = tmp_path / "sub-1_task-rest_desc-clean_series.nc"
    units = {
        "name": np.array(["Cz", "Pz", "Oz"]), "kind": np.full(3, "eeg"), "roi": np.full(3, "n/a"),
        **dict.fromkeys("xyz", np.zeros(3)),
    }  # fmt: skip
    attributes = {"sampling_rate_hz": 100.0, "start_time_s": 0.0, "source": "raw"}
    values = 1e-5 * rng.standard_normal((6000, 3))
    write_series(path, values, units, attributes, np.zeros(6000, dtype=bool))
    out = tmp_path / "sub-1" / "connectivity" / "sub-1_seg-sensors_connectivity.nc"
    beta = {"wpliBeta": {"kind": "wpli", "band_hz": [13, 30]}, "wpli": {"kind": "wpli"}}
    run(Inputs((path,)), Outputs(out), Config(measures={"partial": {"kind": "partial"}, **beta}))
    with open_dataset(out) as dataset:
        assert dataset["measure"].values.tolist() == ["wpliBeta", "wpli"]
        assert dataset["stat"].values.tolist() == ["wpliBeta", "wpli"]
        assert dataset["roi"].values.tolist() == ["Cz", "Pz", "Oz"]
    assert len(list(out.parent.glob("*_stat-wpliBeta_relmat.tsv"))) == 1


def make_group(folder: Path, n_people: int, n_single: int = 0, own: float = 2.0) -> Any:
    """Write people with traits in two sessions, and some with one; return files."""
    rng = np.random.default_rng(1)
    series, connectivity = [], []
    for number in range(n_people + n_single):
        mixing = np.eye(8) + own * 0.2 * rng.standard_normal((8, 8))
        files = [
            write_one(folder, f"{number:02d}", session, rng.standard_normal((150, 8)) @ mixing)
            for session in ("1", "2")[: 1 if number >= n_people else 2]
        ]
        series += files
        connectivity.append(connect(folder, f"{number:02d}", files, write_tables=False))
    return tuple(connectivity), tuple(series)


@pytest.mark.parametrize("n_single", [0, 10])
def test_people_are_told_apart_by_every_measure(tmp_path: Path, n_single: int) -> None:
    connectivity, series = make_group(tmp_path, 6, n_single)
    outputs = evaluate_connectivity.Outputs(tmp_path / "c.tsv", tmp_path / "c.nc")
    evaluate_connectivity.run(
        evaluate_connectivity.Inputs(connectivity, series), outputs, evaluate_connectivity.Config()
    )
    rows = read_tsv(outputs.scores)
    told = [row for row in rows if row["metric"] == "identification"]
    assert [(row["measure"], row["first"], row["second"]) for row in told] == [
        (measure, *pair)
        for measure in ("correlation", "partial", "tangent")
        for pair in (("1", "2"), ("2", "1"))
    ]
    for row in told:
        assert float(row["value"]) > 0.8
        assert float(row["chance"]) == pytest.approx(1 / 6, abs=0.03)
        assert float(row["p"]) < 0.02
        assert row["n"] == "6"
    assert told[0]["protocol"] == "reference measure"
    # Nobody who is looked for is in the reference.
    expected = "10 other people" if n_single else "other people, 5 folds"
    assert told[-1]["protocol"].endswith(expected)
    with open_dataset(outputs.matrices) as dataset:
        assert dataset["mean_A"].shape == (2, 8, 8)
        assert dataset["mean_A"].attrs["n"] == 6 + n_single
        assert dataset["similarity_A"].shape == (3, 6, 6)


def test_people_without_traits_are_at_chance(tmp_path: Path) -> None:
    connectivity, series = make_group(tmp_path, 12, own=0.0)
    outputs = evaluate_connectivity.Outputs(tmp_path / "c.tsv", tmp_path / "c.nc")
    evaluate_connectivity.run(
        evaluate_connectivity.Inputs(connectivity, series), outputs, evaluate_connectivity.Config()
    )
    for row in read_tsv(outputs.scores):
        if row["metric"] in ("identification", "discriminability"):
            assert float(row["p"]) > 0.01, row
            assert float(row["ci_low"]) <= float(row["chance_high"]), row


def test_regions_of_ones_own_and_single_sessions_are_not_compared(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    own = write_one(tmp_path, "1", "1", rng.standard_normal((50, 8)), individual=1)
    single = write_one(tmp_path, "2", "1", rng.standard_normal((50, 8)))
    outputs = evaluate_connectivity.Outputs(tmp_path / "c.tsv", tmp_path / "c.nc")
    files = [connect(tmp_path, s, [f]) for s, f in (("1", own), ("2", single))]
    for chosen, n_variables in ((files[:1], 0), (files[1:], 1)):
        evaluate_connectivity.run(
            evaluate_connectivity.Inputs(tuple(chosen)), outputs, evaluate_connectivity.Config()
        )
        assert read_tsv(outputs.scores) == []
        with open_dataset(outputs.matrices) as dataset:
            assert len(dataset.data_vars) == n_variables
