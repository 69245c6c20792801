"""Captions of a simulated brain: what was drawn is named, and a shuffled brain names nothing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from afterimage.features.git import GitSettings
from afterimage.features.vision import VisionSettings
from afterimage.io.tables import read_tsv
from afterimage.reconstruction.retrieval import RetrievalSettings
from afterimage.stages import (
    caption,
    evaluate,
    extract_features,
    prepare_responses,
    reconstruct,
    simulate_responses,
    train_decoder,
)

pytestmark = pytest.mark.slow


def study(root: Path, **simulation: float) -> dict[tuple[str, str], dict[str, str]]:
    """Simulate one person, decode captions with ridge, and return the scores by label and metric."""
    data, out = root / "data", root / "out" / "sub-01"
    simulate_responses.run(
        simulate_responses.Inputs(),
        simulate_responses.Outputs(data / "dataset_description.json"),
        simulate_responses.Config(n_subjects=1, **simulation),  # type: ignore[arg-type]
    )
    out.mkdir(parents=True)
    (out.parent / "dataset_description.json").write_text("{}")
    stem, table = data / "sub-01" / "sub-01", data / "stimuli.tsv"
    trials, split = out / "sub-01_trials.nc", out / "sub-01_split.tsv"
    prepare_responses.run(
        prepare_responses.Inputs(
            table, Path(f"{stem}_responses.npy"), Path(f"{stem}_trials.tsv"),
            Path(f"{stem}_units.tsv"), Path(f"{stem}_responses.json"),
        ),
        prepare_responses.Outputs(trials, split, out / "sub-01_quality.json"),
        prepare_responses.Config(),
    )  # fmt: skip
    encoders = {"clip": VisionSettings(), "git": GitSettings()}
    features = {}
    for part in ("train", "test"):
        features[part] = out / "features" / f"sub-01_split-{part}_features.nc"
        extract_features.run(
            extract_features.Inputs(split, table),
            extract_features.Outputs(features[part]),
            extract_features.Config(encoders=encoders, split=part),  # type: ignore[arg-type]
        )
    model = out / "decoding" / "sub-01_desc-ridge_model.safetensors"
    predictions = out / "decoding" / "sub-01_desc-ridge_predictions.nc"
    decoders = train_decoder.Config().decoders
    train_decoder.run(
        train_decoder.Inputs(trials, features["train"]),
        train_decoder.Outputs(model, predictions),
        train_decoder.Config(decoders={"ridge": decoders["ridge"]}),
    )
    stacks = []
    for name, source in (("ridge", predictions), ("ceiling", features["test"])):
        stacks.append([out / "recon" / f"sub-01_desc-{name}_{end}" for end in ENDS])
        reconstruct.run(
            reconstruct.Inputs(source, features["train"], split, table),
            reconstruct.Outputs(*stacks[-1]),
            reconstruct.Config(methods={"retrieval": RetrievalSettings()}),
        )
    captions = out / "recon" / "sub-01_captions.tsv"
    caption.run(
        caption.Inputs((predictions,), features["train"], features["test"], split),
        caption.Outputs(captions),
        caption.Config(),
    )
    metrics = out / "evaluation" / "sub-01_metrics.tsv"
    evaluate.run(
        evaluate.Inputs(
            trials, split, table, features["train"], features["test"], (model,), (predictions,),
            tuple(images for images, _ in stacks), tuple(rows for _, rows in stacks), captions,
        ),
        evaluate.Outputs(metrics, out / "images.tsv", out / "audit.json"),
        evaluate.Config(encoders=["clip"], n_permutations=200, n_bootstraps=200),
    )  # fmt: skip
    return {(row["label"], row["metric"]): row for row in read_tsv(metrics)}


ENDS = ("recon.nc", "candidates.tsv")


def value(row: dict[str, str], key: str = "value") -> float:
    return float(row[key])


def test_captions_name_what_was_seen(tmp_path: Path) -> None:
    rows = study(tmp_path, n_test_images=100)
    for column in ("category", "colour"):
        decoded = rows["ridgeGitCaption", f"named_{column}"]
        assert value(decoded) >= 0.80
        assert value(decoded, "ceiling") >= 0.97
        assert value(decoded, "p") < 0.01
        assert abs(value(decoded, "chance") - 1 / 8) < 0.05
        # chance of whoever names the commonest value always is a little above 1/8
        shuffled = rows["shuffledBrainGitCaption", f"named_{column}"]
        assert value(shuffled, "ci_low") <= 0.17
        assert value(shuffled) <= 0.25
    nearest = rows["ridgeNearestCaption", "cliptext_dataset"]
    decoded = rows["ridgeGitCaption", "cliptext_dataset"]
    assert value(decoded) > value(nearest)
    table = read_tsv(tmp_path / "out/sub-01/recon/sub-01_desc-ridgeGitCaption_captions.tsv")
    assert len(table) == 100
    named = np.mean([float(row["named_colour"]) for row in table])
    assert named == pytest.approx(value(rows["ridgeGitCaption", "named_colour"]))


def test_without_noise_captions_are_nearly_those_of_the_seen_pictures(tmp_path: Path) -> None:
    rows = study(tmp_path, ceiling=0.999, n_test_repeats=1)
    row = rows["ridgeGitCaption", "cliptext_dataset"]
    assert value(row) >= 0.9 * value(row, "ceiling")
    assert value(row) >= value(row, "chance") + 0.1
