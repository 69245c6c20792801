"""What the group report reads of pretrained models."""

from __future__ import annotations

from pathlib import Path

from afterimage.bids.names import entity
from afterimage.io.tables import read_json, read_tsv
from afterimage.io.weights import load_weights
from afterimage.reports.pretraining import PretrainedModel


def read_pretraining(folder: Path) -> list[PretrainedModel]:
    """Read all pretrained models of ``group/pretraining``; none where there is no such folder."""
    tables = sorted(folder.glob("*_pretext.tsv"))
    several = len({entity(path, "seg") for path in tables}) > 1
    models = []
    for path in tables:
        stem = path.name.removesuffix("_pretext.tsv")
        name = entity(path, "desc") + (f" ({entity(path, 'seg')})" if several else "")
        probes, example = folder / f"{stem}_probes.tsv", folder / f"{stem}_example.safetensors"
        asked = probes.is_file()
        models.append(
            PretrainedModel(
                name,
                read_tsv(path),
                probes=read_tsv(probes) if asked else (),
                details=read_json(probes.with_suffix(".json"))["labels"] if asked else {},
                arrays=load_weights(example)[0] if example.is_file() else {},
            )
        )
    return models
