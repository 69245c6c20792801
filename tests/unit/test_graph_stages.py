"""Graphs of regions, of voxels, and factors over people, on disk."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
import pytest
from tests.series_example import AFFINE, SHAPE, make_mask

from afterimage.errors import InputError
from afterimage.io.arrays import open_dataset
from afterimage.io.series import write_series
from afterimage.io.tables import read_tsv, write_tsv
from afterimage.preprocess.fmri.masks import voxel_coordinates
from afterimage.reports.assemble import assemble_group
from afterimage.reports.factors import factored_view
from afterimage.reports.figures.factors import factor_panels
from afterimage.reports.model import GroupReport
from afterimage.stages import connect, factor_connectome, map_graphs, measure_graphs
from afterimage.stages.report_factors import read_factors
from afterimage.stages.series_files import write_recording


def write_regions(folder: Path, subject: str, values: np.ndarray) -> Path:
    (folder / "dataset_description.json").write_text("{}")
    n = values.shape[1]
    stem = folder / f"sub-{subject}_task-film_seg-A_desc-denoised"
    units = {
        "kind": np.full(n, "parcel"), "roi": np.array([f"R{i}" for i in range(n)]),
        **{axis: np.arange(n, dtype=np.float32) * 10 for axis in "xyz"},
    }  # fmt: skip
    about = {"sampling_rate_hz": 0.5, "start_time_s": 0.0, "source": "prepared", "problem": ""}
    path = Path(f"{stem}_series.nc")
    censored = np.zeros(len(values), dtype=bool)
    write_recording(path, Path(f"{stem}_timeseries.tsv"), values, censored, units, about)
    return path


def test_regions_have_one_row_a_density(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    sources = rng.standard_normal((100, 3))
    values = sources[:, np.arange(12) % 3] + 0.5 * rng.standard_normal((100, 12))
    series = write_regions(tmp_path, "1", values)
    made = tmp_path / "sub-1" / "connectivity" / "sub-1_seg-A_connectivity.nc"
    connect.run(connect.Inputs((series,)), connect.Outputs(made), connect.Config())
    outputs = measure_graphs.Outputs(made.with_name("sub-1_seg-A_graphs.tsv"))
    config = measure_graphs.Config(densities=(0.27, 0.5))
    measure_graphs.run(measure_graphs.Inputs(made), outputs, config)
    rows = read_tsv(outputs.table)
    assert [row["roi"] for row in rows] == 2 * [f"R{i}" for i in range(12)]
    assert {(row["session"], row["n_sessions"]) for row in rows} == {("n/a", "1")}
    first = rows[:12]
    assert sum(int(row["degree"]) for row in first) == 2 * round(0.27 * 66)
    modules = [row["module"] for row in first]
    assert all(
        (modules[i] == modules[j]) == (i % 3 == j % 3) for i in range(12) for j in range(12)
    )
    assert {"degree0to40", "cycles", "clustering", "strength", "modularity"} <= set(rows[0])
    with pytest.raises(InputError, match="no connectivity to make a graph of"):
        measure_graphs.run(
            measure_graphs.Inputs(made), outputs, measure_graphs.Config(measure="wpli")
        )


def write_voxels(folder: Path, run: int, broken: bool = False) -> tuple[Path, Path]:
    """Write a cleaned run of voxels that follow four sources by their place, and confounds."""
    folder.mkdir(exist_ok=True)
    (folder / "dataset_description.json").write_text("{}")
    rng = np.random.default_rng(run)
    mask = make_mask()
    units = voxel_coordinates(mask, AFFINE)
    sources = rng.standard_normal((80, 4))
    mixing = np.argsort(np.argsort(units["y"])) * 4 // int(mask.sum())
    values = 500 + sources[:, mixing] + 0.5 * rng.standard_normal((80, int(mask.sum())))
    values[:, 5] = 0.0
    values[3, 9] = np.nan
    if broken:
        values[:] = 500.0
    stem = folder / f"sub-1_task-rest_run-{run}"
    about = {
        "t_r_s": 2.0, "start_time_s": 0.0, "source": "raw", "affine": AFFINE.ravel(),
        "shape": np.array(SHAPE),
    }  # fmt: skip
    path = Path(f"{stem}_desc-clean_series.nc")
    write_series(path, values, units, about, np.zeros(80, dtype=bool))
    table = Path(f"{stem}_desc-confounds_timeseries.tsv")
    names = ("trans_x", "trans_y", "trans_z", "rot_x", "rot_y", "rot_z")
    write_tsv(table, [dict.fromkeys(names, float(v)) for v in rng.standard_normal(80)], names)
    return path, table


def test_voxels_are_mapped_and_a_broken_run_is_left_out(tmp_path: Path) -> None:
    pairs = [write_voxels(tmp_path, 1), write_voxels(tmp_path, 2, broken=True)]
    series, tables = zip(*pairs, strict=True)
    outputs = map_graphs.Outputs(tmp_path / "sub-1" / "connectivity" / "sub-1_graphs.nc")
    config = map_graphs.Config(
        confounds=("motion",), node_mm=3.0, density=0.1, low_pass_hz=None, bands_mm=(0, 10, 100)
    )
    map_graphs.run(map_graphs.Inputs(series, tables), outputs, config)
    mask = make_mask()
    with open_dataset(outputs.graphs) as dataset:
        assert dataset.sizes["recording"] == 1
        assert dataset.sizes["node"] == mask.sum()  # nodes as large as voxels
        assert 0.09 < float(dataset["density"].values[0]) <= 0.1
        assert int(dataset["n_voxels_left_out"].values[0]) == 2
        assert "run-2 was left out: a graph needs units that vary" in dataset.attrs["notes"]
        measures = dataset["measure"].values.astype(str).tolist()
        cycles = dataset["maps"].values[0, measures.index("cycles")]
        node = dataset["node_of_voxel"].values
        assert cycles[node[5]] == 0
        assert np.median(cycles) > 0
    image = nibabel.load(outputs.graphs.with_name("sub-1_stat-cycles_statmap.nii.gz"))
    np.testing.assert_allclose(image.affine, AFFINE)
    np.testing.assert_allclose(np.asarray(image.dataobj)[mask], cycles[node])
    degree = [measures.index(name) for name in ("degree0to10", "degree10to100", "degree")]
    with open_dataset(outputs.graphs) as dataset:
        near, far, both = dataset["maps"].values[0, degree]
    assert np.array_equal(near + far, both)
    with pytest.raises(InputError, match="units that vary"):
        map_graphs.run(map_graphs.Inputs(series[1:], tables[1:]), outputs, config)


def test_cubes_average_voxels() -> None:
    points = np.array([[0.0, 0, 0], [3, 0, 0], [6, 0, 0], [0, 6, 3]])
    nodes = map_graphs.make_nodes(points, 6.0)
    assert nodes.of_voxel.tolist() == [0, 0, 2, 1]
    np.testing.assert_allclose(nodes.centres[0], [1.5, 0, 0])


def test_threshold_or_density() -> None:
    with pytest.raises(ValueError, match="density or threshold"):
        map_graphs.Config(threshold=0.8)
    assert map_graphs.Config(threshold=0.8, density=None).threshold == 0.8


def test_people_who_share_their_times_share_factors(tmp_path: Path) -> None:
    pytest.importorskip("igraph")
    rng = np.random.default_rng(0)
    truth = np.arange(16) % 2
    times = np.stack([np.arange(160) < 80, np.arange(160) >= 80], axis=1)
    files = []
    for subject in range(4):
        sources = rng.standard_normal((160, 2)) * times  # one community after the other
        values = 2 * sources[:, truth] + 0.6 * rng.standard_normal((160, 16))
        files.append(write_regions(tmp_path, f"{subject}", values))
    outputs = factor_connectome.Outputs(
        tmp_path / "group" / "seg-A_factors.nc", tmp_path / "group" / "seg-A_factors.tsv"
    )
    config = factor_connectome.Config(
        ranks=(1, 2), n_starts=2, n_iter_max=50, graph_tool=False, density=0.5
    )
    factor_connectome.run(factor_connectome.Inputs(tuple(files)), outputs, config)
    with open_dataset(outputs.factors) as dataset:
        assert dataset["unit_factor"].shape == (16, 2)
        assert dataset["person_factor"].shape == (4, 2)
        assert dataset.attrs["match_score"] > 0.9
        assert dataset["leave_one_out"].values.min() > 0.8
        assert dataset["effective_people"].values.min() > 3
        assert "Leiden" in dataset.attrs["notes"]
    rows = [row for row in read_tsv(outputs.table) if row["graph"] == "all"]
    found = [row["community"] for row in rows]
    assert all(
        (found[i] == found[j]) == (truth[i] == truth[j]) for i in range(16) for j in range(16)
    )
    assert all("fallback" in row["method"] for row in rows)
    (part,) = read_factors(tmp_path)
    view = factored_view([part])
    assert view is not None
    finding = view["parts"][0]["finding"]
    assert finding.detail.startswith("2 components explain")
    assert [row[2].text for row in view["parts"][0]["components"].rows] == ["8", "8"]
    assert view["parts"][0]["blocks"].rows[0][0].text == "all times"
    report = GroupReport(subjects=(), factored=[part])
    assert len(factor_panels(report)) == 4
    page = assemble_group(report)
    assert 'id="group_factors"' in page
    assert "Fitted without one person" in page
    with pytest.raises(InputError, match="too few people"):
        factor_connectome.run(factor_connectome.Inputs(tuple(files[:2])), outputs, config)
