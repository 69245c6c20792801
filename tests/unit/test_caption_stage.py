"""The stage that writes captions, and how they are scored: sources, missing captions, wrong blocks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from afterimage.errors import ConfigError
from afterimage.evaluation.scores import Resampling
from afterimage.features.git import Git, GitSettings
from afterimage.io.arrays import block_writer, read_blocks
from afterimage.io.tables import read_tsv, write_tsv
from afterimage.simulate.stimuli import draw_stimuli
from afterimage.stages.caption import Config, Inputs, Outputs, run
from afterimage.stages.caption_scores import CaptionMetrics, score_captions

N_TRAIN, N_TEST = 10, 6
TRAIN = [f"train{i}" for i in range(N_TRAIN)]
TEST = [f"test{i}" for i in range(N_TEST)]


@pytest.fixture(scope="module")
def drawn() -> tuple[np.ndarray, dict[str, Any], list[str]]:
    """Tokens, attributes and captions of a few pictures."""
    images, attributes, captions = draw_stimuli(N_TRAIN + N_TEST, 31)
    return Git(GitSettings()).encode(list(images)), attributes, captions


def write_subject(root: Path, drawn: Any, *, captions: int = N_TRAIN + N_TEST) -> Inputs:
    """Write what the stage reads; the decoder is perfect, and takes train<i> nearest to test<i>."""
    tokens, attributes, texts = drawn
    (root / "dataset_description.json").write_text("{}")
    folder = root / "sub-01"
    told = {"encoder": json.dumps(GitSettings().model_dump(mode="json"))}
    paths = {}
    for name, ids, rows in (
        ("train", TRAIN, tokens[:N_TRAIN]),
        ("test", TEST, tokens[N_TRAIN:]),
    ):
        paths[name] = folder / f"sub-01_split-{name}_features.nc"
        with block_writer(paths[name]) as writer:
            writer.group("", ids)
            writer.write("", "git", [rows], tokens.shape[1:], told)
    predictions = folder / "sub-01_desc-ridge_predictions.nc"
    sources = {
        "brain": (TEST, tokens[N_TRAIN:]),
        "shuffled": (TEST, tokens[N_TRAIN:][::-1]),
        "mean": (["mean"], tokens[:N_TRAIN].mean(0, keepdims=True)),
    }
    with block_writer(predictions) as writer:
        for source, (ids, rows) in sources.items():
            writer.group(source, ids)
            writer.write(source, "git", [rows], tokens.shape[1:], {})
            scores = np.eye(len(ids), N_TRAIN, dtype=np.float32)
            writer.write(source, "training_scores", [scores], (N_TRAIN,), {})
    table = [
        {
            "stimulus_id": name, "file": f"{name}.png", "split": name[:-1],
            "caption": texts[i] if i < captions else "n/a",
            "category": attributes["category"][i], "colour": attributes["colour"][i],
        }
        for i, name in enumerate(TRAIN + TEST)
    ]  # fmt: skip
    split = folder / "sub-01_split.tsv"
    write_tsv(split, table, list(table[0]))
    return Inputs((predictions,), paths["train"], paths["test"], split)


def test_every_source_has_its_captions_and_scores(tmp_path: Path, drawn: Any) -> None:
    inputs = write_subject(tmp_path, drawn)
    written = tmp_path / "sub-01" / "recon" / "sub-01_captions.tsv"
    run(inputs, Outputs(written), Config())
    rows = read_tsv(written)
    by = {(r["source"], r["stimulus_id"]): r for r in rows}
    assert len(rows) == 4 * N_TEST + 1
    for i, name in enumerate(TEST):
        # a perfect decoder says what the captioner says of the picture
        assert by["brain", name]["caption"] == by["truth", name]["caption"]
        assert by["shuffled", name]["caption"] == by["truth", TEST[-1 - i]]["caption"]
        assert by["nearest", name]["training_stimulus"] == TRAIN[i]
        assert by["nearest", name]["caption"] == drawn[2][i]
        assert float(by["brain", name]["log_probability"]) < 0
    first = written.read_bytes()
    run(inputs, Outputs(written), Config(batch_size=2))
    assert written.read_bytes() == first

    ids, blocks = read_blocks(inputs.test_features)
    scored = score_captions(
        written, inputs.split, inputs.features, list(ids), blocks,
        CaptionMetrics(clip_block=""), Resampling(100, 100), "cpu",
    )  # fmt: skip
    values = {(row["label"], row["metric"]): row["value"] for row in scored}
    assert values["ridgeGitCaption", "named_category"] == 1
    assert values["ridgeGitCaption", "cider_git"] == pytest.approx(10)
    assert (
        values["ridgeGitCaption", "rouge1_dataset"]
        > values["shuffledBrainGitCaption", "rouge1_dataset"]
    )
    table = read_tsv(written.with_name("sub-01_desc-ridgeNearestCaption_captions.tsv"))
    assert [row["reference"] for row in table] == drawn[2][N_TRAIN:]


def test_without_captions_the_captioner_speaks_for_the_nearest(tmp_path: Path, drawn: Any) -> None:
    inputs = write_subject(tmp_path, drawn, captions=3)
    written = tmp_path / "sub-01" / "recon" / "sub-01_captions.tsv"
    run(inputs, Outputs(written), Config())
    nearest = [row for row in read_tsv(written) if row["source"] == "nearest"]
    assert [row["caption"] for row in nearest[:3]] == drawn[2][:3]
    assert all(row["caption"].startswith("a ") for row in nearest)
    assert [row["log_probability"] == "n/a" for row in nearest] == [True] * 3 + [False] * 3
    ids, blocks = read_blocks(inputs.test_features)
    scored = score_captions(
        written, inputs.split, inputs.features, list(ids), blocks,
        CaptionMetrics(clip_block=""), Resampling(100, 100), "cpu",
    )  # fmt: skip
    names = {row["metric"] for row in scored}
    assert "meteor_git" in names
    assert not [name for name in names if name.endswith("_dataset")]


def test_wrong_blocks_are_refused(tmp_path: Path, drawn: Any) -> None:
    inputs = write_subject(tmp_path, drawn)
    with pytest.raises(ConfigError, match="a feature block of kind git"):
        run(inputs, Outputs(tmp_path / "captions.tsv"), Config(block="clip"))


def test_report_writes_captions_under_their_pictures(tmp_path: Path, drawn: Any) -> None:
    from afterimage.reports.gallery import view
    from afterimage.reports.model import Gallery
    from afterimage.stages.report_pictures import _captions

    inputs = write_subject(tmp_path, drawn)
    folder = tmp_path / "sub-01"
    assert _captions(folder, "sub-01", TEST) == {}
    run(inputs, Outputs(folder / "recon" / "sub-01_captions.tsv"), Config())
    captions = _captions(folder, "sub-01", TEST)
    assert list(captions) == ["Dataset", "Decoded", "Nearest training", "From the seen image"]
    assert captions["Dataset"] == drawn[2][N_TRAIN:]
    pictures = np.zeros((N_TEST, 8, 8, 3), np.uint8)
    shown = view(Gallery(TEST, {"ridgeLowLevel": pictures}, n_random=2, captions=captions))
    assert shown is not None
    for row in shown.rows:
        at = TEST.index(row.stimulus)
        assert dict(row.captions) == {title: texts[at] for title, texts in captions.items()}
