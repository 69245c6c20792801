"""The stages of shared decoders: files like those of other decoders, bad subjects left out, no leak."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from afterimage.decoding.mindbridge import MindBridgeSettings
from afterimage.decoding.mindeye import MindEyeSettings
from afterimage.errors import ConfigError, InputError
from afterimage.io.arrays import block_writer, read_blocks
from afterimage.io.trials import write_trials
from afterimage.io.weights import load_weights
from afterimage.stages import apply_shared_decoder, train_shared_decoder
from afterimage.stages.shared_decoders import open_decoder, scores_of_test

SMALL: dict[str, Any] = {
    "n_steps": 6, "evaluate_every": 6, "batch_size": 40, "n_hidden": 16, "n_blocks": 1,
    "adaptation_steps": 4, "learning_rate": 5e-3,
}  # fmt: skip
SETTINGS = {
    "bridge": MindBridgeSettings(n_common=8, n_bottleneck=2, **SMALL),
    "eye": MindEyeSettings(prior="none", **SMALL),
}
SIZES = {"clip": 12, "vae": 5}


def write_subject(root: Path, label: str, n_units: int, broken: bool = False) -> tuple[Path, ...]:
    """Write the trials, training features and split of one subject: 40 + 10 pictures, twice each."""
    rng = np.random.default_rng(int(label))
    mixing = {name: np.random.default_rng(9).normal(size=(3, n)) for name, n in SIZES.items()}
    hidden = rng.normal(size=(50, 3))
    signals = np.repeat(hidden @ rng.normal(size=(3, n_units)), 2, 0)
    signals += 0.5 * rng.normal(size=signals.shape)
    names = np.array(
        [f"{label}-{i:02d}" for i in range(40)] + [f"test-{i:02d}" for i in range(10)]
    )
    split = np.where(np.arange(50) < 40, "train", "test")
    folder = root / f"sub-{label}"
    folder.mkdir(parents=True)
    trials, features = folder / f"sub-{label}_trials.nc", folder / f"sub-{label}_features.nc"
    write_trials(
        trials,
        [signals.astype(np.float32)],
        {
            "stimulus": np.repeat(names, 2), "split": np.repeat(split, 2),
            "subject": np.full(100, label),
        },
        {"kind": np.full(n_units, "voxel"), "roi": np.full(n_units, "V1")},
        None,
        {"subject": label},
    )  # fmt: skip
    with block_writer(features) as writer:
        writer.group("", names[:40])
        for block, size in SIZES.items():
            values = (hidden[:40] @ mixing[block]).astype(np.float32)
            writer.write("", block, [values], (size,), {})
    table = folder / f"sub-{label}_split.tsv"
    rows = [f"{name}\t{part}" for name, part in zip(names, split, strict=True)]
    table.write_text("stimulus_id\tsplit\n" + "\n".join(rows) + "\n")
    if broken:
        trials.write_bytes(b"no trials")
    return trials, features, table


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "dataset_description.json").write_text("{}")
    return tmp_path


def train(root: Path, name: str, labels: str, *, adapted: str = "") -> Path:
    paths = [root / f"sub-{label}" / f"sub-{label}" for label in labels.split()]
    inputs = train_shared_decoder.Inputs(
        *(tuple(p.with_name(f"{p.name}_{kind}.nc") for p in paths) for kind in ("trials", "features")),
        splits=tuple(root / f"sub-{a}" / f"sub-{a}_split.tsv" for a in adapted.split()),
    )  # fmt: skip
    model = root / "group" / "decoding" / f"desc-{name}_model.safetensors"
    model.parent.mkdir(parents=True, exist_ok=True)
    config = train_shared_decoder.Config(decoders={name: SETTINGS[name]}, adapt=adapted.split())
    train_shared_decoder.run(inputs, train_shared_decoder.Outputs(model), config)
    return model


def apply(root: Path, name: str, label: str, **config: Any) -> apply_shared_decoder.Outputs:
    folder = root / f"sub-{label}"
    stem = f"sub-{label}_desc-{name}"
    (folder / "decoding").mkdir(exist_ok=True)
    outputs = apply_shared_decoder.Outputs(
        folder / "decoding" / f"{stem}_model.safetensors",
        folder / "decoding" / f"{stem}_predictions.nc",
    )
    inputs = apply_shared_decoder.Inputs(
        root / "group" / "decoding" / f"desc-{name}_model.safetensors",
        folder / f"sub-{label}_trials.nc",
        folder / f"sub-{label}_features.nc",
    )
    apply_shared_decoder.run(inputs, outputs, apply_shared_decoder.Config(**config))
    return outputs


@pytest.mark.parametrize("name", ["bridge", "eye"])
def test_every_subject_gets_the_files_of_a_decoder(root: Path, name: str) -> None:
    for label, n_units in (("1", 9), ("2", 14), ("3", 11)):
        write_subject(root, label, n_units)
    train(root, name, "1 2", adapted="3")
    for label, n_trials in (("1", 80), ("3", 30)):
        outputs = apply(root, name, label, n_adaptation_trials=30)
        for source, n in (("brain", 10), ("shuffled", 10), ("mean", 1)):
            ids, blocks = read_blocks(outputs.predictions, source)
            assert len(ids) == n
            assert {k: v.shape for k, v in blocks.items()} == {
                "clip": (n, 12), "vae": (n, 5), "training_scores": (n, 40)
            }  # fmt: skip
        arrays, card = load_weights(outputs.model)
        assert card["n_training_trials"] == n_trials
        assert card["subjects_of_fit"] == ["1", "2"]
        assert all(label in key for key in arrays)  # nothing but its own
        known = {"1", "2", label}
        assert {name.split("-")[0] for name in card["fitted_on"]} == known
        decoder, _ = open_decoder(outputs.model)
        assert decoder.subjects == [label]
        gallery = {k: np.random.default_rng(0).normal(size=(6, n)) for k, n in SIZES.items()}
        names, scores = scores_of_test(
            outputs.model, root / f"sub-{label}" / f"sub-{label}_trials.nc", gallery
        )
        assert (len(names), scores.shape) == (10, (10, 6))
    assert not list((root / "work").glob("*/*/*"))


def test_outputs_or_inputs_are_averaged_over_repeats(root: Path) -> None:
    write_subject(root, "1", 9)
    train(root, "bridge", "1")
    found = {}
    for average in ("outputs", "inputs"):
        outputs = apply(root, "bridge", "1", average=average)
        found[average] = read_blocks(outputs.predictions, "brain")[1]["clip"]
    assert np.abs(found["outputs"] - found["inputs"]).max() > 1e-3
    assert np.corrcoef(found["outputs"].ravel(), found["inputs"].ravel())[0, 1] > 0.5


def test_a_broken_subject_is_left_out_and_the_others_are_fitted(root: Path) -> None:
    write_subject(root, "1", 9)
    write_subject(root, "2", 9, broken=True)
    model = train(root, "bridge", "1 2")
    card = load_weights(model)[1]
    assert list(card["fitted_on"]) == ["1"]
    assert "sub-2_trials.nc" in card["left_out"][0]
    (record,) = (root / "logs" / "errors").glob("*_skipped.json")
    assert "sub-2_trials.nc" in json.loads(record.read_text())["message"]
    with pytest.raises(InputError, match="no subject can be fitted on"):
        train(root, "bridge", "2")


def test_what_one_subject_is_tested_on_is_not_learned_from_another(root: Path) -> None:
    write_subject(root, "1", 9)
    write_subject(root, "2", 9)
    # Subject 2 will be tested on what subject 1 was trained on.
    table = root / "sub-2" / "sub-2_split.tsv"
    table.write_text(table.read_text().replace("test-00", "1-07"))
    model = train(root, "bridge", "1", adapted="2")
    card = load_weights(model)[1]
    assert "1-07" not in card["fitted_on"]["1"]
    assert card["n_training_trials"]["1"] == 78
    # Without its split the fit cannot know; then the subject is refused.
    train(root, "bridge", "1")
    trials = root / "sub-1" / "sub-1_trials.nc"
    other = root / "sub-2" / "sub-2_trials.nc"
    other.unlink()
    write_trials_swapped(trials, other)
    with pytest.raises(InputError, match="held-out stimuli are in the fit"):
        apply(root, "bridge", "2")


def write_trials_swapped(source: Path, target: Path) -> None:
    """Write the trials of one subject as another one's, test and training pictures swapped."""
    from afterimage.io.trials import open_reader

    with open_reader(source) as reader:
        values, stimulus = reader.read(np.arange(100)), reader.stimulus
        split = np.where(reader.split == "train", "test", "train")
    kinds = {"kind": np.full(values.shape[1], "voxel")}
    columns = {"stimulus": stimulus, "split": split, "subject": np.full(100, "2")}
    write_trials(target, [values], columns, kinds, None, {"subject": "2"})


def test_one_decoder_a_job(root: Path) -> None:
    config = train_shared_decoder.Config(decoders=SETTINGS)
    with pytest.raises(ConfigError, match="one decoder a job"):
        train_shared_decoder.run(
            train_shared_decoder.Inputs((), ()), train_shared_decoder.Outputs(root / "m"), config
        )
