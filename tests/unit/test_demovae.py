"""DemoVAE by its package: sampling, rewriting and repair in miniature; its gates are a truth test."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from afterimage.connectivity.demovae import DemoVAE, draw_demographics, n_beyond, repaired
from afterimage.errors import InputError
from afterimage.evaluation import generative
from afterimage.io.arrays import open_dataset, write_dataset
from afterimage.io.tables import read_tsv, write_tsv
from afterimage.stages.generate_connectivity import COLUMNS, Config, Inputs, Outputs, run

N_UNITS = 8
N_EDGES = N_UNITS * (N_UNITS - 1) // 2


def simulate(n: int) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """People of two sites, whose connectivity grows with age."""
    rng = np.random.default_rng(0)
    age, site = rng.uniform(8, 22, n), rng.integers(0, 2, n)
    edges = 0.2 + 0.1 * rng.standard_normal((1, N_EDGES))
    edges = edges + 0.08 * ((age - 15) / 4)[:, None] * rng.standard_normal(N_EDGES)
    edges = edges + 0.15 * site[:, None] * rng.standard_normal(N_EDGES)
    edges = edges + 0.1 * rng.standard_normal((n, 2)) @ rng.standard_normal((2, N_EDGES))
    edges = edges + 0.02 * rng.standard_normal((n, N_EDGES))
    return edges.astype(np.float32), {"age": age, "site": np.array(["a", "b"])[site]}


@pytest.fixture(scope="module")
def trained() -> tuple[DemoVAE, np.ndarray, dict[str, np.ndarray]]:
    edges, demographics = simulate(160)
    own = {name: values[:120] for name, values in demographics.items()}
    return DemoVAE(2, 600, 1e-3).fit(edges[:120], own), edges, demographics


def test_samples_follow_the_demographics_that_are_asked_for(trained: Any) -> None:
    model, edges, demographics = trained
    drawn = draw_demographics(demographics, 400)
    sampled = model.sample(drawn, random_state=1)
    assert sampled.shape == (400, N_EDGES)
    # Means, covariances and slopes take longer training than this: gates of the truth test.
    for name, values in demographics.items():
        real = generative.effect_map(edges, values)
        found = generative.compare_effects(real, generative.effect_map(sampled, drawn[name]))
        assert found["effect_r"] > 0.8, name
        assert found["effect_slope"] > 0.5
    np.testing.assert_array_equal(sampled, model.sample(drawn, random_state=1))


def test_there_are_as_many_latents_as_components_beyond_demographics() -> None:
    edges, demographics = simulate(120)
    assert DemoVAE(20, n_epochs=1).fit(edges, demographics).latent_size_ == 2
    rng = np.random.default_rng(1)
    noise = rng.standard_normal((60, 40))
    ones = np.ones((60, 1))
    assert n_beyond(noise, ones) == 0
    factors = rng.standard_normal((60, 3)) @ rng.standard_normal((3, 40))
    assert n_beyond(noise + factors, ones) == 3


def test_rewriting_removes_the_site(trained: Any) -> None:
    model, edges, demographics = trained
    raw = generative.decode(edges[120:], demographics["site"][120:], n_permutations=100)
    assert raw.value > 0.9
    assert raw.p < 0.02
    written = {**demographics, "site": np.full(160, "a")}
    gap = []
    for values in (edges, model.rewrite(edges, written)):
        of = demographics["site"] == "a"
        gap.append(np.abs(values[of].mean(axis=0) - values[~of].mean(axis=0)).mean())
    assert gap[1] < 0.5 * gap[0]
    assert model.latents(edges).shape == (160, 2)


def test_random_numbers_of_others_are_left_alone() -> None:
    edges, demographics = simulate(40)
    torch.manual_seed(3)
    random.seed(3)
    expected = torch.rand(1), random.random()
    torch.manual_seed(3)
    random.seed(3)
    DemoVAE(2, 1).fit(edges, demographics)
    assert (torch.rand(1), random.random()) == expected


def test_matrices_are_repaired_only_where_needed() -> None:
    rows, columns = np.tril_indices(3, -1)
    bad = np.array([0.9, 0.9, -0.9])  # cannot be: two like a third, and unlike each other
    good = np.array([0.5, 0.2, 0.1])
    fixed, needed = repaired(np.stack([good, bad]))
    assert needed.tolist() == [False, True]
    np.testing.assert_array_equal(fixed[0], good.astype(np.float32))
    matrix = np.eye(3)
    matrix[rows, columns] = matrix[columns, rows] = fixed[1]
    assert np.linalg.eigvalsh(matrix)[0] > 0
    assert np.sign(fixed[1]).tolist() == [1, 1, -1]


def test_bad_demographics_are_refused() -> None:
    edges, demographics = simulate(40)
    with pytest.raises(InputError, match="one value only"):
        DemoVAE(2, 1).fit(edges, {**demographics, "site": np.full(40, "a")})
    with pytest.raises(InputError, match="finite"):
        DemoVAE(2, 1).fit(np.full_like(edges, np.nan), demographics)


def test_copies_are_noticed_and_nonlinear_knowledge_too() -> None:
    rng = np.random.default_rng(0)
    train, held = rng.standard_normal((100, 50)), rng.standard_normal((40, 50))
    assert generative.copying(train, held, rng.standard_normal((60, 50))) > 0.9
    assert generative.copying(train, held, train[:60] + 0.01) < 0.1
    latents = rng.standard_normal((120, 3))
    ring = np.where(np.square(latents[:, :2]).sum(axis=1) > 1.4, "out", "in")
    linear = generative.decode(latents, ring, n_permutations=100)
    bent = generative.decode(latents, ring, nonlinear=True, n_permutations=100)
    assert linear.value < 0.65
    assert bent.value > 0.8


def write_people(folder: Path, n: int) -> Inputs:
    import xarray

    edges, demographics = simulate(n)
    rows, columns = np.tril_indices(N_UNITS, -1)
    files, table = [], []
    (folder / "dataset_description.json").write_text("{}")
    for number in range(n):
        matrix = np.eye(N_UNITS, dtype=np.float32)
        matrix[rows, columns] = matrix[columns, rows] = edges[number]
        path = folder / f"sub-{number:03d}_seg-A_connectivity.nc"
        text = {
            name: ("recording", np.array(["n/a"], object)) for name in ("session", "recording")
        }
        dataset = xarray.Dataset(
            {"connectivity": (("recording", "measure", "unit", "unit_"), matrix[None, None])},
            coords={
                **text, "n_censored": ("recording", [0]), "n_samples": ("recording", [100]),
                "measure": ("measure", np.array(["correlation"], object)),
                "roi": ("unit", np.array([f"R{i}" for i in range(N_UNITS)], object)),
            },
        )  # fmt: skip
        write_dataset(path, dataset)
        files.append(path)
        table.append({
            "participant_id": f"sub-{number:03d}", "age": demographics["age"][number],
            "site": demographics["site"][number], "same": "x",
        })  # fmt: skip
    write_tsv(folder / "participants.tsv", table, list(table[0]))
    return Inputs(tuple(files), (folder / "participants.tsv",))


def test_stage_writes_samples_checks_and_harmonised_people(tmp_path: Path) -> None:
    inputs = write_people(tmp_path, 60)
    outputs = Outputs(tmp_path / "generative.tsv", tmp_path / "generative.nc")
    quick = {"latent_size": 3, "n_epochs": 30, "n_samples": 50, "n_permutations": 100}
    run(inputs, outputs, Config(demographics=("age", "site"), harmonise="site", **quick))
    rows = read_tsv(outputs.checks, COLUMNS)
    checks = {(row["check"], row["demographic"]) for row in rows}
    assert {
        ("mean_r", "n/a"), ("copying", "n/a"), ("repaired", "n/a"), ("effect_r", "age"),
        ("decoding_latents_nonlinear", "site"), ("decoding_harmonised", "site"),
    } <= checks  # fmt: skip
    with open_dataset(outputs.arrays) as dataset:
        assert dataset["sampled"].shape == (50, N_EDGES)
        assert dataset["harmonised"].shape == (60, N_EDGES)
        assert dataset["held_out"].values.sum() == 15
        assert dataset.attrs["problem"] == ""
        assert "45 training people are fewer" not in dataset.attrs["notes"]
    for config, words in (
        (Config(demographics=("age", "iq"), **quick), "no such column"),
        (Config(demographics=("same",), **quick), "one value only"),
        (Config(demographics=("age",), harmonise="site", **quick), "not among the demographics"),
        (Config(demographics=("age",), measure="wpli", **quick), "not been measured"),
    ):
        run(inputs, outputs, config)
        assert read_tsv(outputs.checks) == []
        with open_dataset(outputs.arrays) as dataset:
            assert words in dataset.attrs["problem"]
    few = Inputs(inputs.connectivity[:20], inputs.tables)
    run(few, outputs, Config(demographics=("age",), **quick))
    with open_dataset(outputs.arrays) as dataset:
        assert "too few people" in dataset.attrs["problem"]
