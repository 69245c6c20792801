"""The stages of pretraining: split by people, honest rivals, bad recordings left out, report."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from afterimage.errors import ConfigError, InputError
from afterimage.io.series import write_series
from afterimage.io.tables import read_tsv, write_tsv
from afterimage.reports.assemble import assemble_group
from afterimage.reports.model import GroupReport, GroupSubject
from afterimage.reports.pretraining import PretrainedModel
from afterimage.reports.pretraining_words import pretext_finding, probe_findings
from afterimage.simulate.region_series import module_series, switching_communities
from afterimage.stages import pretrain_series, probe_series
from afterimage.stages.report_pretraining import read_pretraining
from afterimage.stages.series_recordings import held_out

N_PEOPLE, N_REGIONS = 20, 8
QUICK = {"n_steps": 12, "segment_volumes": 10, "n_features": 8, "n_heads": 2, "n_layers": 1,
         "batch_size": 4}  # fmt: skip


def write(path: Path, values: np.ndarray, names: list[str], **attributes: Any) -> Path:
    units = {"kind": np.array(["parcel"] * len(names)), "roi": np.array(names)}
    about = {"sampling_rate_hz": 0.5, "start_time_s": 0.0, "source": "test", "problem": ""}
    censored = np.zeros(len(values), bool)
    censored[3:5] = True
    write_series(path, values.astype(np.float32), units, about | attributes, censored)
    return path


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty people with two runs; the modules of half of them are others (`group` b)."""
    root = tmp_path_factory.mktemp("out")
    (root / "dataset_description.json").write_text("{}")
    names = [f"region{i}" for i in range(N_REGIONS)]
    rows = []
    for person in range(N_PEOPLE):
        for run in range(2):
            series, modules = module_series(
                1, n_times=100, n_regions=N_REGIONS, n_modules=2, loading=0.9,
                random_state=100 * person + run,
            )  # fmt: skip
            ordered = series[0][:, np.argsort(modules)]
            values = ordered[:, np.random.default_rng(person % 2).permutation(N_REGIONS)]
            write(
                root / f"sub-{person:02d}" / f"sub-{person:02d}_run-{run}_series.nc", values,
                names, subject=f"{person:02d}", run=str(run), task="rest",
            )  # fmt: skip
        family = person // 2 if person < 8 else "n/a"
        rows.append(
            {"participant_id": f"sub-{person:02d}", "group": "ab"[person % 2],
             "age": 20 + 1.37 * person, "family": family}
        )  # fmt: skip
    write_tsv(root / "participants.tsv", rows, ["participant_id", "group", "age", "family"])
    return root


def series_of(root: Path) -> tuple[Path, ...]:
    return tuple(sorted(root.glob("sub-*/*_series.nc")))


def pretrain(root: Path, series: tuple[Path, ...], name: str, **config: Any) -> Path:
    folder = root / "group" / "pretraining"
    settings = pretrain_series.Config(
        models={name: {"kind": config.pop("kind", "parcel_patches"), **QUICK}},
        n_bootstraps=100, **config,
    )  # fmt: skip
    stem = f"seg-x_desc-{name}"
    outputs = pretrain_series.Outputs(
        folder / f"{stem}_model.safetensors", folder / f"{stem}_pretext.tsv",
        folder / f"{stem}_example.safetensors",
    )  # fmt: skip
    inputs = pretrain_series.Inputs(series, root / "participants.tsv")
    pretrain_series.run(inputs, outputs, settings)
    return outputs.model


def probed(
    root: Path, model: Path, labels: tuple[str, ...], **config: Any
) -> list[dict[str, str]]:
    stem = model.name.removesuffix("_model.safetensors")
    outputs = probe_series.Outputs(
        model.parent / f"{stem}_probes.tsv", model.parent / f"{stem}_probes.json"
    )
    settings = probe_series.Config(
        labels=labels, n_steps=8, n_permutations=40, n_bootstraps=100, **config
    )
    inputs = probe_series.Inputs(series_of(root), model, root / "participants.tsv")
    probe_series.run(inputs, outputs, settings)
    return read_tsv(outputs.table)


@pytest.mark.parametrize("kind", ["parcel_patches", "brain_mae", "graph_mae"])
def test_pretrained_probed_and_reported(dataset: Path, kind: str) -> None:
    name = kind.replace("_", "")
    model = pretrain(dataset, series_of(dataset), name, kind=kind, group_column="family")
    card = json.loads(model.with_suffix(".json").read_text())
    train, test = set(card["train_groups"]), set(card["test_groups"])
    assert not train & test
    assert {"family-0", "family-3"} <= train | test
    assert "sub-00" not in train | test
    assert card["n_train"] + card["n_test"] == 2 * N_PEOPLE
    pretext = {
        row["predictor"]: row for row in read_tsv(model.parent / f"seg-x_desc-{name}_pretext.tsv")
    }
    rivals = (
        {"persistence", "average", "gain"} if kind == "graph_mae" else {"mean", "copy", "ridge"}
    )
    assert {"model", "untrained"} | rivals <= set(pretext)
    assert int(pretext["model"]["n"]) == len(test)

    rows = probed(dataset, model, ("group", "age", "run"), fine_tune=kind == "parcel_patches")
    table = {(row["label"], row["features"]): row for row in rows}
    static = table["group", "static connectivity"]
    assert float(static["value"]) > 0.9  # the groups differ in connectivity
    assert float(static["p"]) < 0.1
    assert table["age", "pretrained"]["metric"] == "r"
    assert ("group", "segments shuffled") in table
    assert (("group", "fine-tuned") in table) == (kind == "parcel_patches")
    assert float(table["run", "static connectivity"]["p"]) > 0.02
    details = json.loads((model.parent / f"seg-x_desc-{name}_probes.json").read_text())
    assert details["labels"]["group"]["classes"] == ["a", "b"]
    assert not (dataset / "work").is_dir() or not list((dataset / "work").rglob("*.safetensors"))


def test_the_report_says_when_a_network_is_no_better(dataset: Path) -> None:
    model = pretrain(dataset, series_of(dataset), "shown")
    probed(dataset, model, ("group",), fine_tune=False)
    found = next(m for m in read_pretraining(model.parent) if m.name == "shown")
    (finding,) = probe_findings(found)
    assert finding.answer.startswith("No")  # connectivity tells the groups perfectly
    report = GroupReport([GroupSubject("00")], pretraining=[found])
    html = assemble_group(report)
    for text in ("Pretraining", finding.answer, "static connectivity", "volumes shuffled"):
        assert text in html
    assert html == assemble_group(report)
    assert "Does shown tell" not in assemble_group(GroupReport([GroupSubject("00")]))


@pytest.mark.parametrize(
    ("pretext", "state"),
    [
        ({"model": 0.4, "ridge": 0.2, "copy": 0.1}, "yes"),
        ({"model": 0.19, "ridge": 0.2, "copy": 0.1}, "yes"),
        ({"model": 0.1, "ridge": 0.2, "copy": 0.1}, "partly"),
        ({"model": -0.1, "ridge": 0.2, "copy": 0.1}, "no"),
        ({"model": 0.9, "gain": 0.02}, "yes"),
        ({"model": 0.9, "gain": -0.02}, "no"),
    ],
)
def test_what_was_learned_in_words(pretext: dict[str, float], state: str) -> None:
    rows = [
        {"predictor": name, "value": value, "ci_low": value - 0.01}
        for name, value in pretext.items()
    ]
    assert pretext_finding(PretrainedModel("m", rows)).state == state


def test_a_network_that_beats_connectivity_is_said_to() -> None:
    row = {"label": "sex", "metric": "balanced_accuracy", "p": 0.005}
    probes = [
        {**row, "features": name, "value": value}
        for name, value in (("pretrained", 0.9), ("untrained", 0.5), ("static connectivity", 0.6))
    ]
    details = {
        "sex": {"rival": "static connectivity", "differences": {"pretrained": [0.3, 0.1, 0.5]}}
    }
    (finding,) = probe_findings(PretrainedModel("m", [], probes, details))
    assert finding.state == "yes"
    assert "0.300" in finding.detail


def test_bad_recordings_are_left_out_and_said(dataset: Path, tmp_path: Path) -> None:
    (tmp_path / "dataset_description.json").write_text("{}")
    names = [f"region{i}" for i in range(N_REGIONS)]
    rng = np.random.default_rng(0)
    bad = {
        "nan": np.full((100, N_REGIONS), np.nan),
        "short": rng.standard_normal((12, N_REGIONS)),
        "atlas": rng.standard_normal((100, 3)),
        "constant": np.ones((100, N_REGIONS)),
    }
    paths = [
        write(
            tmp_path / f"sub-{name}" / f"sub-{name}_series.nc", values,
            names[: values.shape[1]], subject=name,
        )
        for name, values in bad.items()
    ]  # fmt: skip
    unreadable = tmp_path / "sub-broken_series.nc"
    unreadable.write_bytes(b"no series")
    (tmp_path / "participants.tsv").write_text((dataset / "participants.tsv").read_text())
    one_dead = rng.standard_normal((100, N_REGIONS))
    one_dead[:, 2] = 0.0
    dead = write(tmp_path / "sub-30" / "sub-30_series.nc", one_dead, names, subject="30")
    series = (*series_of(dataset), *paths, unreadable, dead)
    model = pretrain(tmp_path, series, "bad")
    card = json.loads(model.with_suffix(".json").read_text())
    assert card["n_train"] + card["n_test"] == 2 * N_PEOPLE + 1
    assert card["regions"] == [name for name in names if name != "region2"]
    (record,) = (tmp_path / "logs" / "errors").glob("pretrain_series_*_skipped.json")
    said = json.loads(record.read_text())["message"]
    for word in ("sub-nan", "sub-atlas", "sub-constant", "short", "broken"):
        assert word in said, word


def test_nothing_to_learn_from_is_a_clear_error(dataset: Path, tmp_path: Path) -> None:
    (tmp_path / "dataset_description.json").write_text("{}")
    (tmp_path / "participants.tsv").write_text("participant_id\tgroup\nsub-00\ta\n")
    with pytest.raises(InputError, match="no series to learn from"):
        pretrain(tmp_path, (), "none")
    with pytest.raises(InputError, match="people to be held out"):
        pretrain(tmp_path, series_of(dataset)[:2], "alone")
    with pytest.raises(ConfigError, match="column of groups"):
        pretrain(tmp_path, series_of(dataset), "column", group_column="site")
    model = pretrain(dataset, series_of(dataset), "asked")
    with pytest.raises(ConfigError, match="a label is unknown"):
        probed(dataset, model, ("nonsense",))


def test_people_and_families_are_never_split() -> None:
    groups = np.array([f"f{i // 3}" for i in range(30)])
    test = held_out(groups, 0.3, 0)
    assert test.sum() == 9
    assert not set(groups[test]) & set(groups[~test])
    assert not np.array_equal(test, held_out(groups, 0.3, 1))
    assert held_out(np.array(["a", "b"]), 0.01, 0).sum() == 1


def test_a_state_is_told_within_people() -> None:
    """`switching_communities` has the states it says, each with its own communities."""
    series, states = switching_communities(2, n_times=400, n_regions=9, random_state=0)
    assert series.shape == (2, 400, 9)
    for state in np.unique(states):
        part = series[states == state]
        if len(part) > 150:
            correlation = np.corrcoef(part.T)[np.triu_indices(9, 1)]
            inside = correlation > 0.32
            assert inside.sum() == 9  # three communities of three
            assert abs(correlation[inside].mean() - 0.64) < 0.1
