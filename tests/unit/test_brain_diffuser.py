"""Brain-Diffuser's regression against scikit-learn, its rescaling, and targets read from disk."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.linear_model import Ridge

from afterimage.decoding.brain_diffuser import (
    BrainDiffuserDecoder,
    BrainDiffuserSettings,
    stimulus_weights,
)
from afterimage.decoding.leaks import grouped_folds
from afterimage.decoding.streams import Targets
from afterimage.errors import InputError
from afterimage.io.arrays import block_writer, open_blocks, read_blocks
from afterimage.io.trials import write_trials
from afterimage.io.weights import load_weights, save_weights
from afterimage.stages import checkpoints, train_decoder
from afterimage.stages.reconstruction_sets import is_transductive, load_card

Study = tuple[np.ndarray, dict[str, np.ndarray], np.ndarray]


def study(n: int = 90, n_units: int = 25, n_repeats: int = 1, noise: float = 2.0) -> Study:
    rng = np.random.default_rng(0)
    hidden = rng.normal(size=(n, 5))
    features = {
        "vae": hidden @ rng.normal(size=(5, 40)) + rng.normal(size=(n, 40)),
        "tokens": hidden @ rng.normal(size=(5, 60)) + rng.normal(size=(n, 60)) + 3,
    }
    drive = np.repeat(hidden @ rng.normal(size=(5, n_units)), n_repeats, 0)
    responses = (drive + noise * rng.normal(size=drive.shape)).astype(np.float32)
    groups = np.repeat([f"image-{i:03d}" for i in range(n)], n_repeats)
    return (
        responses,
        {k: np.repeat(v, n_repeats, 0).astype(np.float32) for k, v in features.items()},
        groups,
    )


def make(**settings: Any) -> BrainDiffuserDecoder:
    return BrainDiffuserDecoder(BrainDiffuserSettings(**settings))


@pytest.mark.parametrize(("n_units", "n_repeats"), [(25, 1), (200, 1), (25, 3), (400, 3)])
def test_it_is_sklearns_ridge_with_the_penalty_of_each_block(n_units: int, n_repeats: int) -> None:
    responses, features, groups = study(n_units=n_units, n_repeats=n_repeats)
    found = make(rescale="none", n_targets_batch=13).fit(responses, features, groups)
    inputs = (responses - responses.mean(0)) / responses.std(0)
    for name, alpha in (("vae", 3.2), ("tokens", 3.8)):
        # standard scores: a response has a mean squared norm of n_units
        model = Ridge(alpha=alpha * n_units).fit(inputs, features[name])
        np.testing.assert_allclose(
            found.predict(responses)[name], model.predict(inputs), atol=1e-4, rtol=1e-4
        )


def test_both_sides_give_the_same_weights() -> None:
    rng = np.random.default_rng(1)
    inputs = rng.normal(size=(40, 40)).astype(np.float32)
    stimulus = rng.integers(0, 25, 40)
    asked = rng.normal(size=(6, 40)).astype(np.float32)
    wide = stimulus_weights(inputs, stimulus, 30, [2.0, 50.0])
    narrow = stimulus_weights(
        np.vstack([inputs, inputs * 0]), np.r_[stimulus, stimulus], 30, [4.0, 100.0]
    )
    for a, b in zip(wide, narrow, strict=True):  # zero rows halve the mean norm, nothing else
        np.testing.assert_allclose(a, b, atol=1e-6)
        assert (a[:, np.setdiff1d(np.arange(30), stimulus)] == 0).all()
    for a, w in zip(stimulus_weights(inputs, stimulus, 30, [2.0, 50.0], asked), wide, strict=True):
        np.testing.assert_allclose(a, asked @ w, atol=1e-5)


def test_spread_and_mean_come_from_left_out_training_stimuli() -> None:
    responses, features, groups = study(n_repeats=2)
    decoder = make(n_folds=4).fit(responses, features, groups)
    block, left_out = features["tokens"], np.empty_like(features["tokens"])
    for train, test in grouped_folds(groups, 4, 0):
        mean, scale = responses[train].mean(0), responses[train].std(0)
        model = Ridge(alpha=3.8 * 25).fit((responses[train] - mean) / scale, block[train])
        left_out[test] = model.predict((responses[test] - mean) / scale)
    inputs = (responses - responses.mean(0)) / responses.std(0)
    plain = Ridge(alpha=3.8 * 25).fit(inputs, block).predict(inputs)
    gain = np.maximum(block.std(0) / left_out.std(0), 1)
    expected = (plain - left_out.mean(0)) * gain + block.mean(0)
    np.testing.assert_allclose(decoder.predict(responses)["tokens"], expected, atol=2e-3)
    report = decoder.cross_validation_["tokens"]
    np.testing.assert_allclose(report["gain"], gain, rtol=1e-3)
    r = [np.corrcoef(a, b)[0, 1] for a, b in zip(left_out.T, block.T, strict=True)]
    np.testing.assert_allclose(report["r"], r, atol=1e-4)


def test_transductive_rescaling_is_the_papers_and_needs_the_whole_test_set() -> None:
    responses, features, groups = study()
    train, test = slice(0, 60), slice(60, None)
    known = {name: block[train] for name, block in features.items()}
    decoder = make(rescale="transductive").fit(responses[train], known, groups[train])
    found = decoder.predict(responses[test])["tokens"]
    np.testing.assert_allclose(found.mean(0), known["tokens"].mean(0), atol=1e-4)
    np.testing.assert_allclose(found.std(0), known["tokens"].std(0), rtol=1e-4)
    shrunk = make(rescale="none").fit(responses[train], known, groups[train])
    raw = shrunk.predict(responses[test])["tokens"]
    for a, b in zip(found.T, raw.T, strict=True):  # a rescaling, nothing else
        assert np.corrcoef(a, b)[0, 1] > 0.9999
    alone = decoder.predict(responses[60:61])["tokens"]
    honest = make().fit(responses[train], known, groups[train]).predict(responses[60:61])
    np.testing.assert_allclose(alone, honest["tokens"], atol=1e-4)


def test_of_several_penalties_the_best_on_left_out_stimuli_is_taken() -> None:
    responses, features, groups = study(noise=0.3)
    alphas = (1e-4, 0.03, 30.0)
    decoder = make(alphas=alphas, block_alphas={}).fit(responses, features, groups)
    for name, block in features.items():
        errors = []
        for alpha in alphas:
            one = make(alphas=(alpha,), block_alphas={}).fit(responses, features, groups)
            errors.append((1 - np.asarray(one.cross_validation_[name]["r2"])) @ block.var(0))
        assert decoder.cross_validation_[name]["alpha"] == alphas[int(np.argmin(errors))]


def test_blocks_on_disk_give_the_same_bytes(tmp_path: Path) -> None:
    responses, features, groups = study(n_repeats=2)
    names = np.unique(groups)
    with block_writer(tmp_path / "features.nc") as writer:
        writer.group("", names)
        for name, block in features.items():
            writer.write("", name, [block[::2]], block.shape[1:], {})
    order = np.repeat(np.arange(90), 2)

    def allocate(name: str, shape: tuple[int, ...]) -> np.ndarray:
        file = tmp_path / f"{name.replace('/', '-')}.npy"
        return np.lib.format.open_memmap(file, "w+", np.float32, shape)

    memory = make(n_targets_batch=16).fit(responses, features, groups)
    with open_blocks(tmp_path / "features.nc") as blocks:
        lazy = {k: Targets(v.columns, order, v.shape[1]) for k, v in blocks.items()}
        disk = make(n_targets_batch=16).fit(responses, lazy, groups, allocate=allocate)
        scores = disk.scores(responses[:4], blocks)
    assert isinstance(disk.state()["coef/vae"], np.memmap)
    save_weights(tmp_path / "model.safetensors", disk.state(), {})
    for mapped in (False, True):
        arrays, _ = load_weights(tmp_path / "model.safetensors", mapped=mapped)
        for key, value in memory.state().items():
            np.testing.assert_array_equal(arrays[key], value)
        again = BrainDiffuserDecoder.from_state(disk.settings, arrays)
        rows = {k: v[::2] for k, v in features.items()}
        np.testing.assert_array_equal(again.scores(responses[:4], rows), scores)


def test_a_missing_value_on_disk_is_refused() -> None:
    responses, features, groups = study()
    features["vae"][3, 4] = np.nan
    lazy = {
        k: Targets(lambda part, v=v: v[:, part], np.arange(90), v.shape[1])
        for k, v in features.items()
    }
    with pytest.raises(InputError, match="not finite"):
        make().fit(responses, lazy, groups)


@pytest.mark.parametrize("rescale", ["target", "transductive"])
def test_the_stage_says_what_is_transductive(
    tmp_path: Path, rescale: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoints, "LARGE_BYTES", 1000)  # the model goes through files
    responses, features, groups = study()
    write_trials(
        tmp_path / "sub-01_trials.nc",
        [responses],
        {"stimulus": groups, "split": np.repeat(["train", "test"], [70, 20])},
        {"kind": np.full(25, "voxel"), **dict.fromkeys("xyz", np.zeros(25))},
        None,
        {"subject": "01"},
    )
    with block_writer(tmp_path / "features.nc") as writer:
        writer.group("", groups[:70])
        for name, block in features.items():
            writer.write("", name, [block[:70]], block.shape[1:], {})
    (tmp_path / "dataset_description.json").write_text("{}")
    outputs = train_decoder.Outputs(tmp_path / "m.safetensors", tmp_path / "p.nc")
    settings = BrainDiffuserSettings(rescale=rescale)
    inputs = train_decoder.Inputs(tmp_path / "sub-01_trials.nc", tmp_path / "features.nc")
    train_decoder.run(inputs, outputs, train_decoder.Config(decoders={"brainDiffuser": settings}))
    _, predicted = read_blocks(outputs.predictions, "brain")
    known = {name: block[:70] for name, block in features.items()}
    expected = make(rescale=rescale).fit(responses[:70], known, groups[:70])
    np.testing.assert_allclose(
        predicted["vae"], expected.predict(responses[70:])["vae"], atol=1e-4
    )
    assert is_transductive(load_card(outputs.model)) == (rescale == "transductive")
    assert not (tmp_path / "work" / "train_decoder").exists() or not list(
        (tmp_path / "work").rglob("*.npy")
    )
