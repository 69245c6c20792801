"""Connectivity through the command line: prepared series of a group, and scans at rest."""

from __future__ import annotations

import html
import json
import re
from pathlib import Path

import numpy as np
import pytest

from afterimage.io.arrays import open_dataset
from afterimage.io.tables import read_tsv
from afterimage.stages import simulate_bold

SMALL = {
    "n_subjects": 1, "n_sessions": 1, "missing_run": False, "n_training_images": 24,
    "n_training_repeats": 2, "repeated_share": 1.0, "n_test_images": 6, "n_test_repeats": 2,
    "trials_per_run": 30, "n_early_units": 60, "n_selective_units": 24,
    "shape_voxels": (16, 18, 10),
}  # fmt: skip


def text_of(path: Path) -> str:
    page = re.sub(r"<(script|style).*?</\1>", " ", path.read_text(encoding="utf-8"), flags=re.S)
    return re.sub(r"\s+", " ", html.unescape(re.sub(r"<[^>]+>", " ", page)))


def write_group(root: Path) -> None:
    """Write two people in two sessions; of a third, one session is broken."""
    rng = np.random.default_rng(0)
    root.mkdir()
    about = {"Name": "Miniature", "BIDSVersion": "1.10.0"}
    (root / "dataset_description.json").write_text(json.dumps(about))
    (root / "timeseries.json").write_text(json.dumps({"RepetitionTime": 2.0}))
    rows = [f"R{i}\tparcel\t{i}\t{-i}\t{2 * i}\tnet{i // 4}" for i in range(12)]
    (root / "units.tsv").write_text("\n".join(["name\tkind\tx\ty\tz\tnetwork", *rows]) + "\n")
    for number in range(1, 4):
        mixing = np.eye(12) + 0.4 * rng.standard_normal((12, 12))
        for session in ("1", "2"):
            stem = f"sub-{number:02d}_ses-{session}_timeseries"
            folder = root / f"sub-{number:02d}" / f"ses-{session}"
            folder.mkdir(parents=True)
            values = 450 + rng.standard_normal((120, 12)) @ mixing
            if (number, session) == (3, "2"):
                values[30:90, 3] = np.inf
            np.save(folder / f"{stem}.npy", values.astype(np.float32))


@pytest.fixture(scope="module")
def group(tmp_path_factory, tools):  # type: ignore[no-untyped-def]
    folder = tmp_path_factory.mktemp("series")
    write_group(folder / "data")
    before = tools.contents(folder / "data")
    done = tools.run(folder / "data", folder / "out", "participant", "--cores", 2)
    assert tools.contents(folder / "data") == before
    return folder / "out", done


def test_a_broken_session_is_named_and_the_rest_is_finished(group) -> None:  # type: ignore[no-untyped-def]
    out, done = group
    assert done.returncode == 65, done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    assert "no finite numbers" in done.stderr
    for number in range(1, 4):
        path = out / f"sub-{number:02d}/connectivity/sub-{number:02d}_seg-prepared_connectivity.nc"
        with open_dataset(path) as dataset:
            assert dataset.sizes["recording"] == (1 if number == 3 else 2)
    assert "ses-2_seg-prepared was left out" in text_of(out / "sub-03.html")
    relmats = list((out / "sub-01" / "connectivity").glob("*_relmat.tsv"))
    assert len(relmats) == 4


def test_people_are_told_apart_in_table_and_report(group) -> None:  # type: ignore[no-untyped-def]
    out, _ = group
    rows = read_tsv(out / "group" / "connectivity.tsv")
    told = [r for r in rows if (r["measure"], r["metric"]) == ("correlation", "identification")]
    assert [(row["first"], row["second"], row["n"]) for row in told] == [
        ("1", "2", "2"), ("2", "1", "2"),
    ]  # fmt: skip
    page = text_of(out / "group.html")
    assert "connectivity only" in page
    assert "2 people are found again among each other" in page
    assert "Pearson correlation, prepared" in page


def test_the_report_of_a_person_shows_no_decoding(group) -> None:  # type: ignore[no-untyped-def]
    out, _ = group
    page = text_of(out / "sub-01.html")
    assert "there is connectivity and no decoding" in page
    assert "net0" not in page  # drawn, not written
    assert "Degrees of freedom" in page
    assert "No decoder was fitted" not in page
    assert "single-trial responses" not in page
    picture = (out / "sub-01.html").read_text(encoding="utf-8")
    for figure in ("connectivity_series", "connectivity_matrices", "connectivity_connectome"):
        assert f'id="figure-{figure}"' in picture


def test_scans_at_rest_have_series_of_their_regions(tmp_path: Path, tools) -> None:  # type: ignore[no-untyped-def]
    data, out = tmp_path / "data", tmp_path / "out"
    simulate_bold.run(
        simulate_bold.Inputs(), simulate_bold.Outputs(data / "dataset_description.json"),
        simulate_bold.Config(**SMALL),
    )  # fmt: skip
    for path in data.rglob("*_events.tsv"):
        path.unlink()
    # Runs of two minutes have no degrees of freedom to spare for a low-pass and CompCor.
    light = {"extract_series": {"confounds": ["motion"], "low_pass_hz": None}}
    config = tools.write_config(tmp_path / "config.yaml", light)
    done = tools.run(data, out, "participant", "--config", config, "--cores", 2)
    assert done.returncode == 0, done.stdout + done.stderr
    rows = read_tsv(out / "code" / "units.tsv")
    assert {(row["events"], row["problem"]) for row in rows} == {("n/a", "n/a")}
    with open_dataset(out / "sub-01/connectivity/sub-01_seg-rois_connectivity.nc") as dataset:
        assert dataset.sizes["recording"] == len(rows)
        assert {"V1", "V2", "V4"} <= set(dataset["roi"].values.tolist())
        assert np.isfinite(dataset["connectivity"].values).all()
        assert (dataset["degrees_of_freedom"].values >= 10).all()
    table = next((out / "sub-01").rglob("*_seg-rois_desc-denoised_timeseries.tsv"))
    assert "V1" in read_tsv(table)[0]
    page = text_of(out / "sub-01.html")
    assert "there is connectivity and no decoding" in page
    assert "no file of events applies to it" in page
    assert not (out / "sub-01" / "sub-01_trials.nc").exists()
