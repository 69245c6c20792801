"""What the evaluation checks of itself: splits, fits, what files were made from, near copies."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from afterimage.bids.names import entity
from afterimage.io.arrays import open_dataset, read_blocks
from afterimage.io.tables import read_json
from afterimage.stages.reconstruction_sets import is_transductive, load_card

if TYPE_CHECKING:
    from afterimage.evaluation.measures import Scores


def near_duplicates_of(
    training: Sequence[np.ndarray],
    pictures: Sequence[np.ndarray],
    train_ids: np.ndarray,
    test_ids: np.ndarray,
    config: Any,
) -> dict[str, Any]:
    """Find test pictures that are nearly training pictures."""
    from afterimage.evaluation.duplicates import near_duplicates

    return near_duplicates(
        training, pictures, train_ids=list(train_ids), test_ids=list(test_ids),
        threshold=config.near_duplicate,
    )  # fmt: skip


def without_duplicates(
    copies: Mapping[str, Any], test_ids: np.ndarray, scored: Scores
) -> dict[str, dict[str, float]]:
    """Return the scores of the reconstructions over the test pictures that are no near copies."""
    pairs = {pair["test"] for pair in copies["pairs"]}
    kept = np.array([str(name) not in pairs for name in test_ids])
    if kept.all() or not kept.any():
        return {}
    made = {row["label"] for row in scored.rows if row["role"] == "reconstruction"}
    return {
        label: {
            name: float(values[kept].mean())
            for name, values in scored.per_image[label].items()
            if np.isfinite(values[kept]).all()
        }
        for label in sorted(made)
    }


def lint(inputs: Any, folder: Path, files: dict[str, str]) -> list[dict[str, Any]]:
    """Check the split and the ledger of every fit against the trials themselves."""
    from afterimage.evaluation.audit import leak_linter, normalisation_check, selection_check

    fits = {"stimulus features": list(read_blocks(inputs.features, names=[])[0])}
    cards = [load_card(path) for path in inputs.models]
    for card in cards:
        fits[f"decoder {card['decoder']}"] = card["fitted_on"]
    if inputs.generator:
        card = json.loads((inputs.generator / "training.json").read_text(encoding="utf-8"))
        fits["generator"] = card["trained_on"]
    with open_dataset(inputs.trials) as trials:
        stimuli = trials["stimulus"].values.astype(str)
        splits = trials["split"].values.astype(str)
        repeats = trials["repeat"].values
    paths = {name: folder / file for name, file in files.items()}
    hashes = {
        name: hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else f"absent {name}"
        for name, path in paths.items()
    }
    made = [*inputs.models, *inputs.predictions, *inputs.images]
    read = {
        path.name: _sources(path)
        for path in made
        if entity(path, "desc") != "ceiling"  # made from the true features, on purpose
    }
    used = {name: sources for name, sources in read.items() if sources is not None}
    return [
        *leak_linter(stimuli, splits, fits=fits, repeats=repeats, image_hashes=hashes),
        selection_check(used, inputs.test_features.name, unknown=sorted(set(read) - set(used))),
        normalisation_check(
            {card["decoder"]: is_transductive(card) for card in cards},
            {card["decoder"]: set(card["fitted_on"]) for card in cards},
            set(stimuli[splits == "test"]),
        ),
    ]


def _sources(path: Path) -> list[str] | None:
    """Return what a file was made from, as its sidecar says; None where there is no word of it."""
    sidecar = path.with_suffix(".json")
    if (
        path.suffix == ".safetensors"
    ):  # its sidecar is the decoder's card: the predictions' says it
        return []
    found = read_json(sidecar).get("Sources") if sidecar.is_file() else None
    return None if found is None else [str(source) for source in found]


def split_facts(split: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Say whether whole groups of pictures were held out, and how many."""
    groups: dict[str, set[str]] = {}
    kind = next(
        (row["held_out"] for row in split if row.get("held_out", "n/a") != "n/a"), "stimuli"
    )
    for row in split:
        if row.get("group", "n/a") != "n/a":
            groups.setdefault(row["group"], set()).add(row["split"])
    return {
        "held_out": kind,
        "n_groups": len(groups),
        "n_test_groups": sum("test" in used for used in groups.values()),
        "n_crossing": sum(len(used) > 1 for used in groups.values()),
    }
