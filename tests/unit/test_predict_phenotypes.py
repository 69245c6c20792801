"""Phenotypes of people predicted from files: planted ones are found, bad ones are noted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from afterimage.io.tables import read_tsv, write_tsv
from afterimage.stages import connect
from afterimage.stages.phenotype_files import read_people, tangent_vectors
from afterimage.stages.predict_phenotypes import COLUMNS, Config, Inputs, Outputs, run
from afterimage.stages.series_files import write_recording

NAMES = [f"R{i}" for i in range(6)]
QUICK: dict[str, Any] = {"n_permutations": 100, "n_bootstraps": 100, "n_repeats": 2}


def write_series(folder: Path, subject: str, session: str, values: np.ndarray) -> Path:
    units = {
        "kind": np.full(6, "parcel"), "roi": np.array(NAMES),
        **dict.fromkeys("xyz", np.zeros(6, np.float32)),
    }  # fmt: skip
    stem = folder / f"sub-{subject}_ses-{session}_seg-A_desc-denoised"
    attributes = {
        "sampling_rate_hz": 0.5, "start_time_s": 0.0, "source": "prepared", "problem": "",
        "n_confounds": 0, "degrees_of_freedom": 90,
    }  # fmt: skip
    path, table = Path(f"{stem}_series.nc"), Path(f"{stem}_timeseries.tsv")
    write_recording(path, table, values, np.zeros(len(values), bool), units, attributes)
    return path


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Inputs]:
    """Thirty people, two sessions; one phenotype is the coupling of two regions, one is noise."""
    folder = tmp_path_factory.mktemp("study")
    (folder / "dataset_description.json").write_text("{}")
    rng = np.random.default_rng(0)
    series, connectivity, rows = [], [], []
    for number in range(30):
        subject, coupling = f"{number:02d}", float(rng.uniform(-0.9, 0.9))
        own = []
        for session in ("1", "2"):
            values = rng.standard_normal((120, 6))
            values[:, 1] = coupling * values[:, 0] + np.sqrt(1 - coupling**2) * values[:, 1]
            own.append(write_series(folder, subject, session, values))
        path = folder / f"sub-{subject}" / "connectivity" / f"sub-{subject}_seg-A_connectivity.nc"
        connect.run(
            connect.Inputs(tuple(own)), connect.Outputs(path), connect.Config(write_tables=False)
        )
        series += own
        connectivity.append(path)
        if number == 29:
            continue  # in nobody's table
        rows.append({
            "participant_id": f"sub-{subject}", "coupling": coupling, "noise": rng.normal(),
            "high": "yes" if coupling > 0 else "no", "age": coupling + 0.8 * rng.normal(),
            "nothing": "n/a", "same": 3, "rare": "x" if number < 2 else "y",
            "few": 1.5 * number if number < 4 else "n/a", "family": number // 2,
            "site": number % 3, "fd": rng.uniform(0.1, 0.3),
        })  # fmt: skip
    write_tsv(folder / "participants.tsv", rows, list(rows[0]))
    long = [
        {"participant_id": row["participant_id"], "measure": m, "score": row[column]}
        for row in rows
        for m, column in (("good", "coupling"), ("bad", "noise"))
    ]
    write_tsv(folder / "scores.tsv", long, list(long[0]))
    tables = (folder / "participants.tsv", folder / "scores.tsv")
    return folder, Inputs(tuple(connectivity), tuple(series), tables)


def predict(study: tuple[Path, Inputs], name: str, **config: Any) -> list[dict[str, str]]:
    folder, inputs = study
    outputs = Outputs(folder / "group" / f"{name}.tsv")
    outputs.scores.parent.mkdir(exist_ok=True)
    run(inputs, outputs, Config(**{**QUICK, **config}))
    return read_tsv(outputs.scores, COLUMNS)


@pytest.mark.slow
def test_planted_phenotypes_are_found_by_every_measure_beside_rivals(study: Any) -> None:
    rows = predict(
        study, "planted", targets={"coupling": {"column": "coupling"}, "high": {"column": "high"}},
        motion=("fd",), n_repeats=1,
    )  # fmt: skip
    of = {(r["target"], r["features"], r["metric"]): r for r in rows}
    for features in ("correlation", "partial", "tangent"):
        for target, metric, low in (("coupling", "r", 0.8), ("high", "auc", 0.85)):
            row = of[target, features, metric]
            assert float(row["value"]) > low, row
            assert float(row["value"]) > float(row["chance_high"]), row
            assert float(row["p"]) < 0.02
            assert float(row["p_holm"]) >= float(row["p"])
            assert row["n"] == "29"
    assert float(of["coupling", "phenotypes", "r"]["value"]) > 0.3  # age was made to know some
    assert float(of["coupling", "motion", "r"]["p"]) > 0.02
    assert of["coupling", "motion", "r"]["role"] == "rival"
    assert "classes no (" in of["high", "partial", "auc"]["protocol"]
    assert "reference of training people" in of["coupling", "tangent", "r"]["protocol"]


def test_a_table_of_outcomes_groups_sites_sessions_and_confounds(study: Any) -> None:
    targets = {
        name: {"column": "score", "file": "scores.tsv", "where": {"measure": name}}
        for name in ("good", "bad")
    }
    common = {"targets": targets, "tangent": False, "n_repeats": 1}
    for name, more, n in (
        ("families", {"sessions": "all", "group_column": "family"}, "58"),
        ("sites", {"site_column": "site", "leave_site_out": True, "sessions": "first"}, "29"),
        ("confounds", {"confounds": ("age",), "sessions": "2"}, "29"),
    ):
        rows = predict(study, name, **common, **more)
        of = {(r["target"], r["features"]): r for r in rows if r["metric"] == "r"}
        assert float(of["good", "correlation"]["value"]) > 0.6, (name, of)
        assert float(of["good", "correlation"]["p"]) < 0.02
        bad = of["bad", "correlation"]
        assert float(bad["ci_low"]) < float(bad["chance_high"]), name
        assert bad["n"] == n
        assert {"families": "29 people", "sites": "leave one of 3 sites out",
                "confounds": "without age"}[name] in bad["protocol"]  # fmt: skip


def test_what_cannot_be_predicted_is_noted_and_the_rest_is_predicted(study: Any) -> None:
    bad = {
        "unknown": ({"column": "iq"}, "no such column"),
        "elsewhere": ({"column": "iq", "file": "absent.tsv"}, "table of phenotypes is missing"),
        "nothing": ({"column": "nothing"}, "has no value"),
        "same": ({"column": "same"}, "one value only"),
        "rare": ({"column": "rare"}, "fewer people than there are folds"),
        "few": ({"column": "few"}, "too few people"),
        "words": ({"column": "high", "kind": "number"}, "no number"),
        "several": ({"column": "score", "file": "scores.tsv"}, "several values"),
    }
    targets = {name: entry for name, (entry, _) in bad.items()}
    rows = predict(
        study, "bad", targets={**targets, "good": {"column": "coupling"}}, tangent=False
    )
    notes = {row["target"]: row["note"] for row in rows if row["note"] != "n/a"}
    assert set(notes) == set(bad)
    for name, (_, words) in bad.items():
        assert words in notes[name]
    assert {r["features"] for r in rows if r["target"] == "good"} == {
        "phenotypes", "correlation", "partial",
    }  # fmt: skip
    folder, _ = study
    record = folder / "logs" / "errors" / "predict_phenotypes_bad_skipped.json"
    assert "sub-00" in json.loads(record.read_text())["message"]  # who has several values
    many = predict(study, "folds", targets={"good": {"column": "coupling"}}, n_folds=60)
    assert many[0]["note"] == "there are fewer people than folds"
    nobody = predict(study, "session", targets={"good": {"column": "coupling"}}, sessions="9")
    assert "session" in nobody[0]["note"]


def test_the_reference_of_the_tangent_space_knows_training_people_only(study: Any) -> None:
    """Other test people change nothing of what a row is mapped to."""
    _, inputs = study
    people = read_people(inputs.connectivity, "first")
    assert people is not None
    train = np.arange(30) < 15
    first = tangent_vectors(people, inputs.series, train, 100, 0)
    fewer = people.select(list(range(20)))
    again = tangent_vectors(fewer, inputs.series, train[:20], 100, 0)
    np.testing.assert_array_equal(first[:20], again)
    assert np.abs(first[train].mean(axis=0)).max() < 0.05  # centred at the training people
    other = tangent_vectors(people, inputs.series, ~train, 100, 0)
    assert np.abs(other - first).max() > 1e-3
