"""The table of probes of tokens: every row is there, sides apart, planted labels told, absent not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.token_study import train
from tests.tokenizer_example import rhythms

from afterimage.io.tables import read_json, read_tsv
from afterimage.io.trials import write_trials
from afterimage.stages import pretrain_tokens, probe_tokens, tokenize

RATE_HZ, N_TIMES, N = 200.0, 200, 12
MODEL = {"kind": "brain_omni", "n_features": 16, "n_layers": 1, "n_heads": 2, "n_steps": 10,
         "batch_size": 8, "mask": {"block_steps": 1}}  # fmt: skip
ROLES = {
    "band power": "linear baseline", "tangentSpace": "linear baseline",
    "windowLDA": "linear baseline", "small convolution": "network baseline",
    "histogram of tokens": "tokens", "course of tokens": "tokens", "vectors of tokens": "tokens",
    "omni: frozen": "model",
    "omni: fine-tuned": "model", "omni: untrained": "untrained", "omni: from scratch": "untrained",
}  # fmt: skip


def prepared(root: Path, label: str, seed: int) -> Path:
    """Write trials of 1 s with a strong rhythm at two electrodes where the condition is right."""
    rng = np.random.default_rng(seed)
    like = rhythms(seconds=1.0)
    times = np.arange(N_TIMES) / RATE_HZ
    right = np.arange(N) % 2 == 1
    values = rng.standard_normal((N, 8, N_TIMES)).cumsum(2) * 0.1 + rng.standard_normal((N, 8, 1))
    waves = np.sin(2 * np.pi * (10 * times + rng.random((N, 2, 1))))
    values[:, :2] += 3 * right[:, None, None] * waves
    kinds = np.where(right, "right", "left")
    columns = {
        "stimulus": kinds, "condition": kinds, "subject": np.full(N, label),
        "session": np.full(N, "n/a"), "run": np.full(N, "n/a"), "split": np.full(N, "train"),
        "luck": rng.permutation(np.where(right, "a", "b")),
    }  # fmt: skip
    units = {"name": like.names, "kind": np.full(8, "eeg"), "roi": np.full(8, "n/a")}
    units |= {axis: like.positions_m[:, i] for i, axis in enumerate("xyz")}
    path = root / f"sub-{label}" / f"sub-{label}_trials.nc"
    write_trials(path, [values.astype(np.float32)], columns, units, times, {"subject": label})
    return path


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    root = tmp_path_factory.mktemp("out")
    (root / "dataset_description.json").write_text("{}")
    paths = tuple(prepared(root, f"{number:02d}", number) for number in range(5))
    settings = {"window_s": 1.0, "n_steps": 40}
    trained = train(root, "patches", paths, test_fraction=0.4, settings=settings)
    tokens = []
    for path in paths:
        tokens.append(path.with_name("tokens.npz"))
        inputs = tokenize.Inputs((path,), trained.model, trained.exposure)
        outputs = tokenize.Outputs(tokens[-1], tokens[-1].with_suffix(".json"))
        tokenize.run(inputs, outputs, tokenize.Config())
    model = pretrain_tokens.Outputs(root / "m.safetensors", root / "p.tsv", root / "e.tsv")
    pretrain_tokens.run(
        pretrain_tokens.Inputs(tuple(tokens), trained.model, trained.exposure), model,
        pretrain_tokens.Config(
            models={"omni": {"tokenizer": "patches", "model": MODEL}}, n_bootstraps=100
        ),
    )  # fmt: skip
    # A person whose trials are too short is left out, and nobody else.
    short = prepared(root, "09", 9)
    with_short = (*paths, short)
    like = rhythms(seconds=1.0)
    write_trials(
        short, [np.ones((2, 8, 20), np.float32) * np.arange(20)],
        {key: np.full(2, "x") for key in ("stimulus", "subject", "split")},
        {"name": like.names, "kind": np.full(8, "eeg")}, np.arange(20) / RATE_HZ, {},
    )  # fmt: skip
    outputs = probe_tokens.Outputs(root / "probes.tsv", root / "probes.json")
    config = probe_tokens.Config(
        contrasts={
            "side": {}, "luck": {"condition_column": "luck"}, "few": {"classes": {"a": ["right"]}}
        },
        n_folds=2, n_steps=12, batch_size=16, n_permutations=20, n_bootstraps=100,
        learning_rate=3e-3, baselines={"tangentSpace": {"kind": "tangent_space"},
                                       "windowLDA": {"kind": "window_lda"}},
    )  # fmt: skip
    inputs = probe_tokens.Inputs(with_short, trained.model, trained.exposure, (model.model,))
    probe_tokens.run(inputs, outputs, config)
    return read_tsv(outputs.table), read_json(outputs.details)


def test_every_representation_has_a_row_a_side_and_metric(found: Any) -> None:
    rows, _ = found
    keys = [(r["contrast"], r["features"], r["seen"], r["metric"]) for r in rows]
    assert len(set(keys)) == len(keys) == 2 * len(ROLES) * 2 * 2
    assert {r["features"]: r["role"] for r in rows} == ROLES
    for row in rows:
        assert int(row["n_groups"]) == (2 if row["seen"] == "no" else 3)
        assert int(row["n"]) == N * int(row["n_groups"])
        assert float(row["ci_low"]) <= float(row["value"]) <= float(row["ci_high"])
        assert float(row["chance"]) == pytest.approx(0.5, abs=0.12)
        assert "people left out in" in row["protocol"]


def test_planted_labels_are_told_and_luck_is_not(found: Any) -> None:
    rows, _ = found
    auc = {
        (r["contrast"], r["features"]): float(r["value"])
        for r in rows
        if r["metric"] == "auc" and r["seen"] == "yes"
    }
    for features in ("band power", "tangentSpace", "histogram of tokens", "omni: frozen"):
        assert auc["side", features] > 0.9, features
    assert np.mean([auc["luck", name] for name in ROLES]) == pytest.approx(0.5, abs=0.12)


def test_the_verdict_compares_the_best_of_either_kind(found: Any) -> None:
    _, details = found
    assert details["group_column"] == "subject"
    assert "nothing to tell apart" in details["contrasts"]["few"]["notes"][0]
    verdict = details["contrasts"]["side"]["verdicts"]["no"]
    assert ROLES[verdict["linear"]] == "linear baseline"
    assert ROLES[verdict["tokens"]] in ("tokens", "model")
    value, low, high = verdict["difference"]
    assert value == pytest.approx(verdict["tokens_auc"] - verdict["linear_auc"])
    assert low <= value <= high
