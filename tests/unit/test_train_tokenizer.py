"""Tokenizers on disk: trained on people, tried on others, written in tokens, marked where seen."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.token_study import QUICK, files, person, train, write, written
from tests.tokenizer_example import rhythms

from afterimage.errors import ConfigError, InputError
from afterimage.io.tables import read_tsv, write_tsv
from afterimage.io.tokens import read_tokens
from afterimage.io.weights import load_weights
from afterimage.stages.token_series import SeriesSource, open_recordings
from afterimage.tokenizers.raw_patches import RawPatches, RawPatchesSettings


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six people, one at another rate."""
    root = tmp_path_factory.mktemp("out")
    (root / "dataset_description.json").write_text("{}")
    for number in range(6):
        person(root, f"{number:02d}", number, 250.0 if number else 500.0)
    return root


@pytest.fixture(scope="module")
def trained(root: Path) -> Any:
    return train(root, "patches", files(root))


def test_the_card_says_what_the_tokenizer_can_do(trained: Any) -> None:
    rows = {(r["measure"], r["part"], r["stage"]): r for r in read_tsv(trained.card)}
    unseen = rows["correlation", "unseen", "n/a"]
    assert float(unseen["value"]) > 0.5
    assert float(unseen["ci_low"]) <= float(unseen["value"]) <= float(unseen["ci_high"])
    assert int(unseen["n"]) == 2  # people
    # The rhythms of all bursts go on in phase, so that moved tokens are not quite wrong.
    moved = float(rows["correlation", "chance (tokens moved)", "n/a"]["value"])
    assert moved < 0.6 * float(unseen["value"])
    # Patches of single channels do not care which others there are.
    half = float(rows["correlation", "layout unseen", "n/a"]["value"])
    assert half == pytest.approx(float(unseen["value"]), abs=0.1)
    stages = [float(rows["correlation by stages", "unseen", s]["value"]) for s in "12"]
    assert stages[0] < stages[1] == pytest.approx(float(unseen["value"]))
    assert 0 < float(rows["correlation", "k-means of patches", "n/a"]["value"]) < 1
    for stage in "12":
        assert 1 < float(rows["perplexity", "unseen", stage]["value"]) <= 32
        assert 0 < float(rows["codes used", "unseen", stage]["value"]) <= 1
        chance = float(rows["cross-entropy", "chance", stage]["value"])
        assert chance == pytest.approx(np.log(32), abs=1e-4)
        assert float(rows["cross-entropy", "unigram", stage]["value"]) < chance
    # 8 channels, 10 tokens a second, 2 stages of 5 bits.
    assert float(rows["bits per second", "at most", "n/a"]["value"]) == pytest.approx(800)
    assert float(rows["bits per second", "as used", "n/a"]["value"]) < 800
    assert float(rows["band power told", "unseen", "n/a"]["value"]) > 0
    details = json.loads(trained.details.read_text())
    assert details["codes"][0]["share"] >= details["codes"][-1]["share"]
    assert details["events"]["kinds"] == ["left", "right"]
    arrays, _ = load_weights(trained.example)
    assert arrays["motifs"].shape == (len(details["codes"]), 200)
    assert arrays["target"].shape == arrays["decoded"].shape == (6, 800)


def test_the_ledger_says_what_was_seen(root: Path, trained: Any) -> None:
    rows = read_tsv(trained.exposure)
    assert len(rows) == 6
    assert len({row["sha256"] for row in rows}) == 6
    card = json.loads(trained.model.with_suffix(".json").read_text())
    parts = {part: {r["subject"] for r in rows if r["part"] == part} for part in ("train", "test")}
    assert {f"sub-{label}" for label in parts["train"]} == set(card["train_groups"])
    assert not parts["train"] & parts["test"]
    assert len(parts["test"]) == 2
    assert all((int(row["n_windows"]) > 0) == (row["part"] == "train") for row in rows)
    assert sum(int(row["n_windows"]) for row in rows) == card["n_windows"]
    for label in ("00", "01", "02", "03", "04", "05"):
        outputs = written(root, trained, label)
        (one,), _ = read_tokens(outputs.tokens, outputs.card)
        assert one.about["seen"] == (label in parts["train"])


def test_tokens_on_disk_are_those_of_the_recording(root: Path, trained: Any) -> None:
    outputs = written(root, trained, "00")
    (one,), vocabulary = read_tokens(outputs.tokens, outputs.card)
    tokenizer = RawPatches.from_state(*load_weights(trained.model))
    expected = tokenizer.encode(rhythms(seconds=20.0, sfreq_hz=500.0, seed=0))
    assert (one.codes == expected.codes).mean() > 0.99  # the scale is of float32 on disk
    assert one.codes.dtype == np.int16
    assert one.streams.tolist() == expected.streams.tolist()
    assert vocabulary["codebook_size"] == 32
    assert (one.about["step_s"], one.about["n_steps"]) == (0.1, 200)
    assert one.kept.sum() == 200 - 2  # 1.0 to 1.2 s are bad
    assert not one.kept[10:12].any()
    before = outputs.tokens.read_bytes()
    written(root, trained, "00")
    assert outputs.tokens.read_bytes() == before
    outputs.tokens.write_bytes(before[:100])
    with pytest.raises(InputError, match="tokens cannot be read"):
        read_tokens(outputs.tokens, outputs.card)


def test_windows_from_disk_are_those_of_memory(root: Path) -> None:
    tokenizer = RawPatches(RawPatchesSettings(**QUICK))
    recordings, errors = open_recordings(files(root)[:2])
    assert not errors
    source = SeriesSource(recordings, tokenizer, overlap=0.5, max_censored=0.0)
    whole = [
        tokenizer.prepare(rhythms(seconds=20.0, sfreq_hz=rate, seed=seed))
        for seed, rate in ((0, 500.0), (1, 250.0))
    ]
    found = source.read(np.arange(len(source)))
    for (number, start), window in zip(source.places, found, strict=True):
        at = round(start / recordings[number].layout.sfreq_hz * 200)
        expected = whole[number].values[:, at : at + 400]
        assert window.values.shape == expected.shape
        np.testing.assert_allclose(window.values[:, 20:-20], expected[:, 20:-20], atol=2e-2)
    # Windows with bad samples are left out: those that touch 1.0 to 1.2 s and 2.0 to 2.4 s.
    assert len(source) == 2 * (19 - 2)
    starts = {(n, s / recordings[n].layout.sfreq_hz) for n, s in source.places}
    assert (0, 0.0) not in starts
    assert (1, 1.0) not in starts
    assert (1, 3.0) in starts
    source.close()


def test_bad_recordings_are_left_out_and_said(root: Path, tmp_path: Path) -> None:
    (tmp_path / "dataset_description.json").write_text("{}")
    rng = np.random.default_rng(0)
    bad = {
        "short": rng.standard_normal((8, 200)), "flat": np.ones((8, 5000)),
        "nan": np.where(rng.random((8, 5000)) < 1e-3, np.nan, 1.0),
        "one": rng.standard_normal((1, 5000)),
    }  # fmt: skip
    for label, values in bad.items():
        path = tmp_path / f"sub-{label}" / "eeg" / f"sub-{label}_task-x_desc-clean_series.nc"
        write(path, values)
    broken = tmp_path / "sub-broken" / "eeg" / "sub-broken_desc-clean_series.nc"
    broken.parent.mkdir(parents=True)
    broken.write_bytes(b"no series")
    write_tsv(broken.with_name("sub-broken_desc-clean_events.tsv"), [], ["onset", "trial_type"])
    outputs = train(tmp_path, "bad", (*files(root), *files(tmp_path)), settings={"n_steps": 4})
    rows = read_tsv(outputs.exposure)
    assert {row["subject"] for row in rows} == {*(f"{n:02d}" for n in range(6)), "one"}
    (record,) = (tmp_path / "logs" / "errors").glob("train_tokenizer_*_skipped.json")
    said = json.loads(record.read_text())["message"]
    for words in ("sub-short", "shorter than a window", "sub-flat", "flat channels only",
                  "sub-nan", "not finite", "sub-broken"):  # fmt: skip
        assert words in said, words
    assert "sub-one" not in said  # one channel is a recording
    for label, n in (("short", 0), ("one", 1)):
        done = written(tmp_path, outputs, label)
        recordings, _ = read_tokens(done.tokens, done.card)
        assert len(recordings) == n
    with pytest.raises(InputError, match="shorter than a window"):
        written(tmp_path, outputs, "short", on_bad_run="fail")


def test_runs_are_held_out_of_a_single_person(tmp_path: Path) -> None:
    (tmp_path / "dataset_description.json").write_text("{}")
    for run in range(3):
        signal = rhythms(seconds=10.0, sfreq_hz=250.0, seed=run)
        name = f"sub-01_task-rest_run-{run + 1}_desc-clean_series.nc"
        write(tmp_path / "sub-01" / "eeg" / name, signal.values)
    outputs = train(tmp_path, "alone", files(tmp_path), settings={"n_steps": 4})
    assert json.loads(outputs.details.read_text())["held_out"] == "runs"
    parts = [row["part"] for row in read_tsv(outputs.exposure)]
    assert (parts.count("train"), parts.count("test")) == (2, 1)
    # The person was learned from, so that no run of theirs is one of a new person.
    done = written(tmp_path, outputs, "01")
    recordings, _ = read_tokens(done.tokens, done.card)
    assert all(one.about["seen"] for one in recordings)


def test_nothing_to_learn_from_is_a_clear_error(root: Path, tmp_path: Path) -> None:
    (tmp_path / "dataset_description.json").write_text("{}")
    with pytest.raises(InputError, match="no recording to learn from"):
        train(tmp_path, "none", ())
    with pytest.raises(InputError, match="people to be held out"):
        train(tmp_path, "alone", files(root)[:1])  # one run of one person
    with pytest.raises(ConfigError, match="column of groups"):
        train(tmp_path, "column", files(root), group_column="site")
