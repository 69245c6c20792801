"""Trials in tokens: prepared ones as short recordings, cut ones from their runs; a form for decoders."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.token_study import QUICK, files, person, train
from tests.tokenizer_example import rhythms

from afterimage.decoding.ridge import RidgeSettings
from afterimage.errors import InputError
from afterimage.io.arrays import block_writer, open_dataset, read_blocks
from afterimage.io.series import open_series
from afterimage.io.tables import read_tsv
from afterimage.io.trials import Cuts, open_reader, write_lazy_trials, write_trials
from afterimage.io.weights import load_weights
from afterimage.stages import tokenize_trials, train_decoder
from afterimage.stages.token_series import SeriesSource, open_recordings
from afterimage.stages.trial_tokens import embeddings, encode_trials
from afterimage.tokenizers.raw_patches import RawPatches, RawPatchesSettings

RATE_HZ, N_TIMES = 250.0, 500


def units(n: int = 8, eye: bool = False) -> dict[str, np.ndarray]:
    """Coordinates of eight electrodes, and of an eye channel."""
    like = rhythms(seconds=1.0)
    names, places = like.names[:n].tolist(), like.positions_m[:n]
    kinds = ["eeg"] * n
    if eye:
        names, kinds = [*names, "X"], [*kinds, "eog"]
        places = np.concatenate([places, [[np.nan] * 3]])
    found = {"name": np.array(names), "kind": np.array(kinds), "roi": np.full(len(kinds), "n/a")}
    return found | {axis: places[:, i] for i, axis in enumerate("xyz")}


def columns(label: str, n: int) -> dict[str, np.ndarray]:
    kinds = np.array(["left", "right"])[np.arange(n) % 2]
    return {
        "stimulus": kinds, "condition": kinds, "subject": np.full(n, label),
        "session": np.full(n, "n/a"), "run": np.full(n, "n/a"), "split": np.full(n, "train"),
    }  # fmt: skip


def prepared(root: Path, label: str, seed: int, n: int = 6, tmin_s: float = -0.5) -> Path:
    """Write trials of 2 s with offsets of their own and an eye channel, as prepare_responses does."""
    long = rhythms(seconds=2.0 * n, sfreq_hz=RATE_HZ, seed=seed).values
    values = long.reshape(8, n, N_TIMES).transpose(1, 0, 2) * 1e6
    offsets = np.random.default_rng(seed).uniform(-100, 100, (n, 8, 1))
    values = np.concatenate([values + offsets, np.full((n, 1, N_TIMES), 1e4)], axis=1)
    path = root / f"sub-{label}" / f"sub-{label}_trials.nc"
    times_s = tmin_s + np.arange(N_TIMES) / RATE_HZ
    about = {"subject": label, "response_units": "microvolt", "position_units": "mm"}
    write_trials(
        path, [values.astype(np.float32)], columns(label, n), units(eye=True), times_s, about
    )
    return path


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("out")
    (root / "dataset_description.json").write_text("{}")
    for number in range(4):
        prepared(root, f"{number:02d}", number)
    return root


@pytest.fixture(scope="module")
def trained(root: Path) -> Any:
    return train(root, "patches", tuple(sorted(root.glob("sub-*/*_trials.nc"))))


def test_prepared_trials_are_short_recordings(root: Path) -> None:
    found, errors = open_recordings([root / "sub-00" / "sub-00_trials.nc"])
    assert not errors
    assert [one.name for one in found[:2]] == ["sub-00_trial-1", "sub-00_trial-2"]
    one = found[0]
    assert one.entities["subject"] == "00"
    assert one.layout.names.tolist() == units()["name"].tolist()  # no eye channel
    assert np.abs(one.layout.positions_m).max() < 0.2
    assert one.events([]) == [(0.5, "left")]
    assert len({item.digest for item in found}) == 6
    signal = one.prepared(RATE_HZ)
    assert np.abs(np.median(signal.values, axis=1)).max() < 0.05  # offsets are gone
    assert 0.3 < signal.values.std() < 3
    assert all(np.array_equal(item.how[1], one.how[1]) for item in found)  # one scale a person


def test_windows_never_cross_trials(root: Path) -> None:
    found, _ = open_recordings([root / "sub-00" / "sub-00_trials.nc"])
    tokenizer = RawPatches(RawPatchesSettings(**{**QUICK, "window_s": 1.0}))
    source = SeriesSource(found, tokenizer, overlap=0.5)
    assert len(source) == 6 * 3
    windows = source.read(np.arange(len(source)))
    source.close()
    for place, window in enumerate(windows):
        whole = found[place // 3].prepared(200.0).values
        at = (place % 3) * 100
        inner = slice(20, 180)  # the ends of a trial are resampled in another way
        assert np.allclose(window.values[:, inner], whole[:, at : at + 200][:, inner], atol=0.05)


def test_positions_in_mm_are_told_from_m(tmp_path: Path) -> None:
    far = units()
    far |= {axis: 1000 * far[axis] for axis in "xyz"}
    values = rhythms(seconds=4.0, sfreq_hz=RATE_HZ).values.reshape(8, 2, N_TIMES).swapaxes(0, 1)
    path = tmp_path / "sub-01_trials.nc"
    times_s = np.arange(N_TIMES) / RATE_HZ
    write_trials(path, [values], columns("01", 2), far, times_s, {"subject": "01"})
    (one, _), _ = open_recordings([path])
    assert np.allclose(one.layout.positions_m, rhythms(seconds=1.0).positions_m, atol=1e-4)


def test_prepared_trials_are_tokenised_with_a_card_and_a_ledger(root: Path, trained: Any) -> None:
    rows = {(r["measure"], r["part"], r["stage"]): r for r in read_tsv(trained.card)}
    assert float(rows["correlation", "unseen", "n/a"]["value"]) > 0.5
    # Kinds of trials are permuted within a person: a trial alone has but one.
    told, chance = (
        rows["event information", part, "n/a"]["value"] for part in ("unseen", "chance")
    )
    assert float(told) != float(chance)
    assert int(rows["event information", "unseen", "n/a"]["n"]) == 6
    ledger = read_tsv(trained.exposure)
    assert len(ledger) == 24
    sides = {
        part: {r["subject"] for r in ledger if r["part"] == part} for part in ("train", "test")
    }
    assert not sides["train"] & sides["test"]  # people, not trials, are held out


def written(root: Path, trained: Any, path: Path, **config: Any) -> Path:
    out = root / f"{path.parent.name}" / "tokens" / f"{path.parent.name}_desc-patches_trials.nc"
    tokenize_trials.run(
        tokenize_trials.Inputs(path, trained.model, trained.exposure),
        tokenize_trials.Outputs(out),
        tokenize_trials.Config(**config),
    )
    return out


def test_tokens_take_the_place_of_signals(root: Path, trained: Any) -> None:
    tokenizer = RawPatches.from_state(*load_weights(trained.model))
    seen = {row["subject"] for row in read_tsv(trained.exposure) if row["part"] == "train"}
    for label in ("00", "01", "02", "03"):
        path = root / f"sub-{label}" / f"sub-{label}_trials.nc"
        out = written(root, trained, path)
        with open_reader(out) as reader, open_dataset(out) as dataset:
            values, times_s = reader.read(np.arange(6)), reader.times_s
            names = dataset["name"].values.astype(str)
            assert dataset["condition"].values.astype(str).tolist() == ["left", "right"] * 3
            assert int(dataset.attrs["seen"]) == (label in seen)
            assert set(dataset["kind"].values.astype(str)) == {"eeg"}
        assert values.shape == (6, 8 * 16, 20)
        assert times_s is not None
        assert np.allclose(times_s, -0.5 + 0.1 * np.arange(20))
        assert names[:2].tolist() == ["Fp1.0", "Fp1.1"]
        codes = tokenizer.encode(
            open_recordings([path])[0][2].prepared(200.0), prepared=True
        ).codes
        vectors = embeddings(codes, tokenizer.codebooks())
        same = np.isclose(values[2].reshape(8, 16, 20).transpose(0, 2, 1), vectors, atol=1e-5)
        assert same.all(axis=2).mean() > 0.95


def test_histograms_say_which_share_of_streams_has_a_code(root: Path, trained: Any) -> None:
    path = root / "sub-00" / "sub-00_trials.nc"
    out = written(root, trained, path, form="histogram")
    with open_reader(out) as reader:
        values = reader.read(np.arange(6))
    assert values.shape == (6, 64, 20)
    assert np.allclose(values[:, :32].sum(1), 1)
    assert np.allclose(values[:, 32:].sum(1), 1)


def test_trials_of_a_run_are_cut_from_it_as_it_was_cleaned(tmp_path: Path) -> None:
    (tmp_path / "dataset_description.json").write_text("{}")
    series = person(tmp_path, "01", 1), person(tmp_path, "02", 2)
    trained = train(tmp_path, "patches", files(tmp_path), settings={"window_s": 1.0})
    first = np.array([1000, 1250, 4000])
    path = tmp_path / "sub-01" / "sub-01_trials.nc"
    cuts = Cuts(
        series=[series[0]], series_index=np.zeros(3, int), first_sample=first,
        columns=np.arange(8), baseline=np.ones((3, 8), np.float32),
        whitening=3 * np.eye(8, dtype=np.float32)[None], whitening_index=np.zeros(3, int),
    )  # fmt: skip
    times_s = -0.2 + np.arange(250) / RATE_HZ
    write_lazy_trials(path, cuts, columns("01", 3), units(), times_s, {"subject": "01"})
    tokenizer = RawPatches.from_state(*load_weights(trained.model))
    tokens = encode_trials(tokenizer, path)
    assert tokens.codes.shape == (3, 8, 10, 2)
    assert np.allclose(tokens.times_s, -0.2 + 0.1 * np.arange(10))
    (run,), _ = open_recordings([series[0]])
    with open_series(series[0]) as file:
        whole = run.cut(file, 1000, 250, 200.0, 200)
    assert (tokens.codes[0] == tokenizer.encode(whole, prepared=True).codes).all()
    out = written(tmp_path, trained, path)
    with open_dataset(out) as dataset:
        assert "first_sample" not in dataset.variables
    short = tmp_path / "sub-02" / "sub-02_trials.nc"
    write_lazy_trials(short, cuts, columns("02", 3), units(), times_s[:100], {"subject": "02"})
    with pytest.raises(InputError, match="shorter than a window"):
        encode_trials(tokenizer, short)


def test_an_image_decoder_learns_from_tokens(root: Path, trained: Any, tmp_path: Path) -> None:
    (tmp_path / "dataset_description.json").write_text("{}")
    rng = np.random.default_rng(5)
    names = np.array([f"image-{number:02d}" for number in range(60)])
    shown = rng.uniform(-1, 1, 60)
    wave = np.sin(2 * np.pi * 10 * np.arange(N_TIMES) / RATE_HZ)
    values = rng.standard_normal((60, 8, N_TIMES))
    values[:, :4] += 4 * (1 + shown[:, None, None]) * wave
    trials = {**columns("07", 60), "stimulus": names}
    trials["split"] = np.where(np.arange(60) < 45, "train", "test")
    path = tmp_path / "sub-07" / "sub-07_trials.nc"
    times_s = np.arange(N_TIMES) / RATE_HZ
    write_trials(path, [values.astype(np.float32)], trials, units(), times_s, {"subject": "07"})
    with block_writer(tmp_path / "features.nc") as writer:
        writer.group("", names[:45])
        features = shown[:45, None] * np.ones((1, 4), np.float32)
        writer.write("", "clip", [features.astype(np.float32)], (4,), {})
    told = {}
    for name, given in (("signal", path), ("tokens", written(tmp_path, trained, path))):
        outputs = train_decoder.Outputs(tmp_path / f"{name}.safetensors", tmp_path / f"{name}.nc")
        train_decoder.run(
            train_decoder.Inputs(given, tmp_path / "features.nc"),
            outputs,
            train_decoder.Config(decoders={"ridge": RidgeSettings()}),
        )
        for source in ("brain", "shuffled"):
            ids, blocks = read_blocks(outputs.predictions, source)
            truth = shown[[names.tolist().index(one) for one in ids]]
            told[name, source] = np.corrcoef(blocks["clip"][:, 0], truth)[0, 1]
    assert told["signal", "brain"] > 0.8
    assert told["tokens", "brain"] > 0.6
    assert told["tokens", "shuffled"] < 0.5
