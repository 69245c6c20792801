"""Raw EEG to tokens through the command line: train, write, mark what was seen, report."""

from __future__ import annotations

import html
import re
import runpy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from afterimage.io.tables import read_json, read_tsv
from afterimage.io.tokens import read_tokens

made = SimpleNamespace(
    **runpy.run_path(str(Path(__file__).parents[1] / "bad_recordings_example.py"))
)
LABELS = ("01", "02", "03", "04")
CONFIG = {
    "clean_meeg": {"ransac": False},
    "train_tokenizer": {
        "enabled": True, "n_bootstraps": 100,
        "tokenizers": {
            "rawPatches": {
                "window_s": 0.8, "n_steps": 60, "n_features": 16, "n_hidden": 32,
                "learning_rate": 3e-3, "quantiser": {"codebook_size": 32, "n_stages": 2},
            }
        },
    },
    "pretrain_tokens": {
        "enabled": True, "n_bootstraps": 100,
        "models": {
            "omni": {
                "tokenizer": "rawPatches",
                "model": {"kind": "brain_omni", "n_features": 16, "n_layers": 1, "n_heads": 2,
                          "n_steps": 20, "batch_size": 4, "mask": {"block_steps": 1}},
            }
        },
    },
    "probe_tokens": {
        "contrasts": {"faces": {"condition_column": "trial_type"}}, "n_folds": 2, "n_steps": 5,
        "n_permutations": 4, "n_bootstraps": 100,
    },
    "decode_conditions": {"tokens": "rawPatches", "n_permutations": 4, "n_bootstraps": 100,
                          "classifiers": {"xdawn": None, "cspLDA": None, "tangentSpace": None}},
}  # fmt: skip


@pytest.fixture(scope="module")
def out(tools: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tokens")
    study = made.Study(folder / "dataset")
    info, data = study.eeg
    for number, label in enumerate(LABELS):
        rng = np.random.default_rng(number)
        study.eeg = (info, np.roll(data, 97 * number, axis=1) * rng.uniform(0.9, 1.1))
        study.subject(label, "eeg", pictures=False)
    config = tools.write_config(folder / "config.yaml", CONFIG)
    done = tools.run(study.folder, folder / "out", "participant", "--config", config, "--cores", 2)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder / "out"


def test_a_tokenizer_is_trained_and_everybody_is_written_in_tokens(out: Path) -> None:
    folder = out / "group" / "tokenizers"
    rows = {
        (r["measure"], r["part"], r["stage"]): float(r["value"])
        for r in read_tsv(folder / "desc-rawPatches_card.tsv")
    }
    assert rows["correlation", "unseen", "n/a"] > 0.5
    assert rows["correlation", "chance (tokens moved)", "n/a"] < 0.3
    ledger = read_tsv(folder / "desc-rawPatches_exposure.tsv")
    seen = {row["subject"] for row in ledger if row["part"] == "train"}
    assert len(ledger) == 2 * len(LABELS)
    assert len(seen) == 3
    for label in LABELS:
        stem = out / f"sub-{label}" / "tokens" / f"sub-{label}_desc-rawPatches_tokens"
        recordings, vocabulary = read_tokens(Path(f"{stem}.npz"), Path(f"{stem}.json"))
        assert vocabulary["tokenizer"] == "rawPatches"
        assert len(recordings) == 2
        for one in recordings:
            assert one.about["seen"] == (label in seen)
            assert one.about["task"] == "pictures"
            assert one.codes.shape == (len(one.streams), one.about["n_steps"], 2)
            assert one.codes.max() < 32
    details = read_json(folder / "desc-rawPatches_card.json")
    assert details["events"]["kinds"] == ["face", "house"]


def test_the_group_report_shows_it(out: Path) -> None:
    page = (out / "group.html").read_text(encoding="utf-8")
    text = re.sub(r"\s+", " ", html.unescape(re.sub(r"<[^>]+>", " ", page)))
    for words in (
        "What is left of the signal in tokens", "rawPatches: motifs", "rawPatches: frequencies",
        "how much of the signal comes back in people never seen?", "has seen 6 recordings of 3",
        "Hidden tokens guessed", "What tokens tell", "omni: hidden tokens",
    ):  # fmt: skip
        assert words in text, words


def test_models_of_tokens_are_tried_on_the_people_held_out(out: Path) -> None:
    of_tokenizer = read_tsv(out / "group" / "tokenizers" / "desc-rawPatches_exposure.tsv")
    ledger = read_tsv(out / "group" / "tokenmodels" / "desc-omni_exposure.tsv")
    parts = {row["recording"]: row["part"] for row in of_tokenizer}
    assert {row["recording"]: row["part"] for row in ledger} == parts
    rows = read_tsv(out / "group" / "tokenmodels" / "desc-omni_pretext.tsv")
    assert {row["stage"] for row in rows} == {"1", "2"}
    assert {"masked model", "unigram", "bigram", "copy neighbour"} <= {
        r["predictor"] for r in rows
    }


def test_tokens_are_probed_beside_linear_models_of_the_signal(out: Path) -> None:
    rows = read_tsv(out / "group" / "tokenizers" / "desc-rawPatches_probes.tsv")
    assert {row["seen"] for row in rows} == {"no", "yes"}
    assert {row["role"] for row in rows} == {
        "linear baseline", "network baseline", "tokens", "model", "untrained",
    }  # fmt: skip
    found = read_json(out / "group" / "tokenizers" / "desc-rawPatches_probes.json")
    assert set(found["contrasts"]["faces"]["verdicts"]) == {"no", "yes"}


def test_decoders_take_tokens_in_place_of_the_signal(out: Path) -> None:
    for label in LABELS:
        folder = out / f"sub-{label}"
        assert (folder / "tokens" / f"sub-{label}_desc-rawPatches_trials.nc").is_file()
        details = read_json(folder / "decoding" / f"sub-{label}_conditions.json")
        assert details["n_channels"] > 100  # vectors of codes, channel by channel
        assert any("tokens of rawPatches" in note for note in details["notes"])
    notes = read_json(out / "group" / "conditions.json")["notes"]
    assert any("was trained on" in note for note in notes)
