"""Masked-token models as a stage: learned from the tokenizer's people, tried on the others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.token_study import files, person, train, written

from afterimage.errors import InputError
from afterimage.io.tables import read_tsv
from afterimage.io.tokens import RecordedTokens, read_tokens
from afterimage.io.weights import load_weights
from afterimage.pretraining.brain_omni import BrainOmni
from afterimage.stages import pretrain_tokens

MODEL = {"kind": "brain_omni", "n_features": 32, "n_layers": 2, "n_heads": 2, "n_steps": 60,
         "batch_size": 4, "context_steps": 40, "learning_rate": 5e-3, "warmup_steps": 5,
         "mask": {"share": 0.3}}  # fmt: skip


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """Five people, two of whom the tokenizer never saw, all written in tokens."""
    root = tmp_path_factory.mktemp("out")
    (root / "dataset_description.json").write_text("{}")
    for number in range(5):
        person(root, f"{number:02d}", number)
    trained = train(root, "patches", files(root), test_fraction=0.4)
    for number in range(5):
        written(root, trained, f"{number:02d}")
    return root, trained


def pretrain(root: Path, trained: Any, **model: Any) -> Any:
    stem = root / "group" / "tokenmodels" / "desc-omni"
    outputs = pretrain_tokens.Outputs(
        *(Path(f"{stem}_{end}") for end in ("model.safetensors", "pretext.tsv", "exposure.tsv"))
    )
    config = pretrain_tokens.Config(
        models={"omni": {"tokenizer": "patches", "model": {**MODEL, **model}}}, n_bootstraps=100
    )
    tokens = tuple(sorted(root.glob("sub-*/tokens/*_tokens.npz")))
    inputs = pretrain_tokens.Inputs(tokens, trained.model, trained.exposure)
    pretrain_tokens.run(inputs, outputs, config)
    return outputs


def test_people_held_out_are_those_of_the_tokenizer(study: tuple[Path, Any]) -> None:
    root, trained = study
    outputs = pretrain(root, trained)
    ledger, of_tokenizer = read_tsv(outputs.exposure), read_tsv(trained.exposure)
    own = {row["sha256"]: row["part"] for row in ledger}
    assert own == {row["sha256"]: row["part"] for row in of_tokenizer}
    assert all((int(row["n_tokens"]) > 0) == (row["part"] == "train") for row in ledger)
    rows = {(r["stage"], r["predictor"]): r for r in read_tsv(outputs.pretext)}
    for stage in "12":
        chance = float(rows[stage, "chance"]["value"])
        assert chance == pytest.approx(np.log(32), abs=1e-4)
        model = rows[stage, "masked model"]
        assert int(model["n"]) == 2
        assert float(model["ci_low"]) <= float(model["value"]) <= float(model["ci_high"])
        difference = float(rows[stage, "copy neighbour − masked model"]["value"])
        copied = float(rows[stage, "copy neighbour"]["value"])
        assert difference == pytest.approx(copied - float(model["value"]), abs=1e-5)
    # Rhythms shared by channels tell what a hidden token is, even after a minute of training.
    assert float(rows["1", "masked model"]["value"]) < float(rows["1", "unigram"]["value"])
    arrays, card = load_weights(outputs.model)
    model = BrainOmni.from_state(arrays, card)
    tokens = next(iter(sorted(root.glob("sub-*/tokens/*_tokens.npz"))))
    (one,), _ = read_tokens(tokens, tokens.with_suffix(".json"))
    assert model.latents(one).shape == (*one.codes.shape[:2], 32)
    assert card["n_train"] == 3
    assert len(card["losses"]) == 60
    assert not list((root / "work").rglob("*.safetensors"))


def test_bad_steps_part_a_recording_at_whole_blocks() -> None:
    kept = np.ones(20, bool)
    kept[[6, 15]] = False
    codes = np.arange(40).reshape(2, 20, 1)
    one = RecordedTokens(codes, np.array(["a", "b"]), kept, {"name": "x"})
    parts = pretrain_tokens.stretches(one, 2)
    assert [part.codes[0, :, 0].tolist() for part in parts] == [
        list(range(6)), list(range(8, 15)), list(range(16, 20)),
    ]  # fmt: skip
    assert all(part.kept.all() for part in parts)
    assert not pretrain_tokens.stretches(one, 10)


def test_tokens_without_anybody_held_out_are_refused(study: tuple[Path, Any]) -> None:
    root, trained = study
    with pytest.raises(InputError, match="one side"):
        pretrain(root, trained, mask={"block_steps": 400})
