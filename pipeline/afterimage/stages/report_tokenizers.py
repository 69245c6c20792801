"""What the group report reads of tokenizers."""

from __future__ import annotations

from pathlib import Path

from afterimage.bids.names import entity
from afterimage.io.tables import read_json, read_tsv
from afterimage.io.weights import load_weights
from afterimage.reports.tokenizers import TokenizerCard, TokenModel


def read_tokenizers(folder: Path) -> list[TokenizerCard]:
    """Read the cards of ``group/tokenizers``; none where there is no such folder."""
    cards = []
    for path in sorted(folder.glob("desc-*_card.tsv")):
        name = entity(path, "desc")
        example = folder / f"desc-{name}_example.safetensors"
        exposure = folder / f"desc-{name}_exposure.tsv"
        probes = folder / f"desc-{name}_probes.tsv"
        asked = probes.is_file()
        cards.append(
            TokenizerCard(
                name,
                read_tsv(path, ("measure", "part", "stage", "value")),
                read_json(path.with_suffix(".json")),
                read_tsv(exposure) if exposure.is_file() else (),
                load_weights(example)[0] if example.is_file() else {},
                read_tsv(probes) if asked else (),
                read_json(probes.with_suffix(".json")) if asked else {},
            )
        )
    return cards


def read_token_models(folder: Path) -> list[TokenModel]:
    """Read the masked-token models of ``group/tokenmodels``; none where there is no such folder."""
    models = []
    for path in sorted(folder.glob("desc-*_pretext.tsv")):
        name = entity(path, "desc")
        exposure, card = (folder / f"desc-{name}_{end}" for end in ("exposure.tsv", "model.json"))
        rows = read_tsv(path, ("model", "tokenizer", "stage", "predictor", "value"))
        models.append(
            TokenModel(
                name,
                rows[0]["tokenizer"],
                rows,
                read_tsv(exposure) if exposure.is_file() else (),
                read_json(card) if card.is_file() else {},
            )
        )
    return models
