"""Graphs of regions and of voxels as features: planted groups are told apart, shuffled ones are not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.series_example import AFFINE, SHAPE, make_mask
from tests.unit.test_predict_phenotypes import write_series

from afterimage.io.series import write_series as write_voxels
from afterimage.io.tables import read_tsv, write_tsv
from afterimage.preprocess.fmri.masks import voxel_coordinates
from afterimage.stages import connect, map_graphs, measure_graphs
from afterimage.stages.graph_files import cubes_of, read_graphs
from afterimage.stages.phenotype_files import read_people
from afterimage.stages.predict_phenotypes import COLUMNS, Config, Inputs, Outputs, run

QUICK: dict[str, Any] = {"n_permutations": 100, "n_bootstraps": 100, "n_repeats": 2}
N_PEOPLE = 40
N_SHUFFLED = 4


def write_maps(folder: Path, subject: str, patient: bool, space: str = "MNI152NLin6Asym") -> Path:
    """Map the voxels of a person; those of patients share a source in one corner."""
    rng = np.random.default_rng(int(subject))
    mask = make_mask()
    mask[-1 - int(subject) % 2] = False  # people's masks differ
    units = voxel_coordinates(mask, AFFINE)
    n = int(mask.sum())
    values = rng.standard_normal((60, n))
    sources = rng.standard_normal((60, 4))
    slab = np.floor((units["y"] - units["y"].min()) / 9).astype(int)
    values += 0.7 * sources[:, slab]
    corner = (units["x"] < 0) & (units["z"] < 0)
    if patient:
        values[:, corner] += 1.2 * rng.standard_normal((60, 1))
    stem = folder / f"sub-{subject}_ses-1_task-rest_space-{space}"
    about = {
        "t_r_s": 2.0, "start_time_s": 0.0, "source": "fmriprep", "affine": AFFINE.ravel(),
        "shape": np.array(SHAPE),
    }  # fmt: skip
    series = Path(f"{stem}_desc-clean_series.nc")
    censored = np.arange(60) < int(subject) % 3
    write_voxels(series, 500 + values, units, about, censored)
    table = Path(f"{stem}_desc-confounds_timeseries.tsv")
    names = ("trans_x", "trans_y", "trans_z", "rot_x", "rot_y", "rot_z")
    write_tsv(table, [dict.fromkeys(names, float(v)) for v in rng.standard_normal(60)], names)
    graphs = folder / f"sub-{subject}" / "connectivity" / f"sub-{subject}_graphs.nc"
    map_graphs.run(
        map_graphs.Inputs((series,), (table,), (Path(f"{stem}_desc-preproc_bold.nii.gz"),)),
        map_graphs.Outputs(graphs),
        map_graphs.Config(
            confounds=("motion",), node_mm=6.0, density=0.1, low_pass_hz=None, bands_mm=()
        ),
    )
    return graphs


@pytest.fixture(scope="module")
def mapped(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Inputs]:
    folder = tmp_path_factory.mktemp("voxels")
    (folder / "dataset_description.json").write_text("{}")
    patient = np.arange(N_PEOPLE) % 2 == 0
    shuffled = [np.random.default_rng(3 + i).permutation(patient) for i in range(N_SHUFFLED)]
    maps = tuple(write_maps(folder, f"{i:02d}", bool(patient[i])) for i in range(N_PEOPLE))
    rows = [
        {
            "participant_id": f"sub-{i:02d}", "group": "patient" if patient[i] else "control",
            **{f"shuffled{k}": "ab"[int(one[i])] for k, one in enumerate(shuffled)},
            "age": 20 + i % 7, "family": i // 2,
            "score": float(i),
        }
        for i in range(N_PEOPLE)
    ]  # fmt: skip
    write_tsv(folder / "participants.tsv", rows, list(rows[0]))
    return folder, Inputs((), (), (folder / "participants.tsv",), maps=maps)


def predict(study: tuple[Path, Inputs], name: str, **config: Any) -> list[dict[str, str]]:
    folder, inputs = study
    outputs = Outputs(folder / "group" / f"{name}.tsv")
    outputs.scores.parent.mkdir(exist_ok=True)
    run(inputs, outputs, Config(**{**QUICK, **config}))
    return read_tsv(outputs.scores, COLUMNS)


@pytest.mark.slow
def test_maps_of_voxels_tell_planted_groups_apart_and_shuffled_ones_not(mapped: Any) -> None:
    shuffled = [f"shuffled{k}" for k in range(N_SHUFFLED)]
    rows = predict(
        mapped, "maps", group_column="family", n_folds=3,
        targets={name: {"column": name} for name in ("group", "score", *shuffled)},
    )  # fmt: skip
    of = {(r["target"], r["features"], r["metric"]): r for r in rows}
    assert {row["seg"] for row in rows} == {"voxels"}
    planted = of["group", "voxels_cycles", "balanced_accuracy"]
    assert float(planted["value"]) >= 0.9, planted
    assert float(planted["p"]) < 0.02
    assert float(planted["ci_low"]) > float(planted["chance_high"])
    assert "mask of 10 % of the nodes chosen in each fold" in planted["protocol"]
    assert "classes control (20), patient (20)" in planted["protocol"]
    # One shuffle of 20 lies outside the band of one; the mean of four in a band half as wide.
    for metric in ("balanced_accuracy", "auc"):
        nulls = [of[name, "voxels_cycles", metric] for name in shuffled]
        above = np.mean([float(null["value"]) - float(null["chance"]) for null in nulls])
        width = np.mean([float(null["chance_high"]) - float(null["chance_low"]) for null in nulls])
        assert abs(above) < width / 2 / np.sqrt(N_SHUFFLED), nulls
        for null in nulls:
            assert float(null["p"]) > 0.05 / N_SHUFFLED, null
            assert float(null["ci_all_low"]) <= float(null["chance"]), null
            assert abs(float(null["chance"]) - 0.5) < 0.05, null
    for rival in ("motion", "phenotypes"):
        row = of["group", rival, "balanced_accuracy"]
        assert row["role"] == "rival"
        assert float(row["value"]) < float(planted["ci_low"])
    assert ("score", "voxels_cycles", "r") not in of  # numbers are not told apart
    assert ("score", "motion", "r") in of


def test_maps_in_spaces_of_their_own_are_not_compared(tmp_path: Path) -> None:
    (tmp_path / "dataset_description.json").write_text("{}")
    maps = tuple(write_maps(tmp_path, f"{i:02d}", False, space="T1w") for i in range(2))
    rows = [{"participant_id": f"sub-{i:02d}", "group": i} for i in range(2)]
    write_tsv(tmp_path / "participants.tsv", rows, list(rows[0]))
    inputs = Inputs((), (), (tmp_path / "participants.tsv",), maps=maps)
    (row,) = predict((tmp_path, inputs), "own", targets={"group": {"column": "group"}})
    assert "spaces of their own (T1w)" in row["note"]
    assert row["value"] == "n/a"


def test_cubes_are_the_same_for_everybody() -> None:
    points = np.array([[-6.0, -0.1, 0], [-0.1, 5.9, 6.0], [11.99999, 12, 3]])
    assert cubes_of(points, 6.0).tolist() == [[-1, -1, 0], [-1, 0, 1], [2, 2, 0]]


def test_graphs_of_regions_predict_what_their_strength_holds(tmp_path: Path) -> None:
    (tmp_path / "dataset_description.json").write_text("{}")
    rng = np.random.default_rng(0)
    connectivity, graphs, rows = [], [], []
    for number in range(30):
        subject, coupling = f"{number:02d}", float(rng.uniform(0.1, 2.0))
        own = []
        for session in ("1", "2")[: 1 + (number > 0)]:  # the first person has one session
            values = rng.standard_normal((150, 6))
            values[:, :3] += coupling * rng.standard_normal((150, 1))
            own.append(write_series(tmp_path, subject, session, values))
        stem = tmp_path / f"sub-{subject}" / "connectivity" / f"sub-{subject}_seg-A"
        made, table = Path(f"{stem}_connectivity.nc"), Path(f"{stem}_graphs.tsv")
        connect.run(
            connect.Inputs(tuple(own)), connect.Outputs(made), connect.Config(write_tables=False)
        )
        measure_graphs.run(
            measure_graphs.Inputs(made), measure_graphs.Outputs(table),
            measure_graphs.Config(densities=(0.4, 0.6), n_starts=2),
        )  # fmt: skip
        connectivity.append(made)
        graphs.append(table)
        rows.append({
            "participant_id": f"sub-{subject}", "coupling": coupling, "noise": rng.normal()
        })  # fmt: skip
    write_tsv(tmp_path / "participants.tsv", rows, list(rows[0]))
    inputs = Inputs(
        tuple(connectivity), (), (tmp_path / "participants.tsv",), graphs=tuple(graphs)
    )
    found = predict(
        (tmp_path, inputs), "regions", sessions="first", tangent=False, n_repeats=1,
        targets={name: {"column": name} for name in ("coupling", "noise")},
    )  # fmt: skip
    of = {(r["target"], r["features"]): r for r in found if r["metric"] == "r"}
    names = ("degree", "strength", "distance", "clustering", "cycles", "modules")
    assert {f"graph_{name}" for name in names} <= {features for _, features in of}
    best = of["coupling", "graph_strength"]
    assert float(best["value"]) > 0.8, best
    assert float(best["p"]) < 0.02
    assert all(float(of["noise", f"graph_{name}"]["ci_low"]) < 0.3 for name in names)
    people = read_people(connectivity, "2")
    assert people is not None
    second = read_graphs(people, graphs, 0.6)
    written = [
        r for r in read_tsv(graphs[4])
        if (r["session"], r["density"], r["roi"]) == ("2", "0.6", "R2")
    ]  # fmt: skip
    row = people.subjects.index("04")
    assert second["degree"][row, 2] == float(written[0]["degree"])
    assert second["modules"].shape == (29, 15)
    missing = predict(
        (tmp_path, inputs), "density", graph_density=0.9, tangent=False,
        targets={"coupling": {"column": "coupling"}},
    )  # fmt: skip
    assert not any(row["features"].startswith("graph_") for row in missing)
