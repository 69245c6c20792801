"""What the stages of shared decoders have in common: a subject's files, and models in two parts."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from afterimage.decoding.registry import DECODERS, SHARED_DECODERS
from afterimage.decoding.streams import Rows, TrialRows
from afterimage.errors import InputError
from afterimage.io.arrays import open_blocks, open_dataset, read_blocks
from afterimage.io.trials import average_repeats, open_reader, read_responses
from afterimage.io.weights import load_weights

if TYPE_CHECKING:
    from afterimage.decoding.shared import SubjectData


def subject_data(
    trials: Path, features: Path, tmin_s: float | None, tmax_s: float | None, stack: ExitStack
) -> tuple[SubjectData, np.ndarray]:
    """Open the training trials of one subject; also return its test stimuli.

    Responses and features are read when indexed, until ``stack`` closes the files.
    """
    from afterimage.decoding.shared import SubjectData

    reader = stack.enter_context(open_reader(trials))
    names, _ = read_blocks(features, names=[])
    blocks = stack.enter_context(open_blocks(features))
    rows = np.flatnonzero(reader.split == "train")
    responses = TrialRows(reader, rows, reader.window(tmin_s, tmax_s))
    stimuli = reader.stimulus[rows]
    place = {stimulus: row for row, stimulus in enumerate(names.tolist())}
    if missing := sorted(set(stimuli.tolist()) - set(place)):
        raise InputError(
            "training stimuli without features", where=str(features),
            found=", ".join(missing[:5]), expected="features of every training stimulus",
            fix="delete the file and run again",
        )  # fmt: skip
    order = np.array([place[stimulus] for stimulus in stimuli.tolist()], np.int64)
    table = {block: Rows(values, order) for block, values in blocks.items()}
    with open_dataset(trials) as dataset:
        regions = dataset["roi"].values.astype(str) if "roi" in dataset.variables else None
        n_units = dataset.sizes["unit"]
    if regions is not None:  # one value a unit and time
        regions = np.repeat(regions, responses.shape[1] // n_units)
    data = SubjectData(responses, table, stimuli, regions)
    return data, np.unique(reader.stimulus[reader.split == "test"])


def unit_names(trials: Path) -> list[str]:
    """Names of a subject's units (channels, parcels), which other people may have; empty of voxels."""
    with open_dataset(trials) as dataset:
        return dataset["name"].values.astype(str).tolist() if "name" in dataset.variables else []


def open_decoder(model: Path) -> tuple[Any, dict[str, Any]]:
    """Return a fitted decoder and its card, whichever stage wrote it."""
    arrays, card = load_weights(model, mapped=True)
    registry, kind = DECODERS, card["settings"]["kind"]
    if "shared_model" not in card and not getattr(DECODERS.get(kind), "streams", False):
        arrays = load_weights(model)[0]
    elif "shared_model" in card:
        shared, _ = load_weights((model.parent / card["shared_model"]).resolve())
        registry, arrays = SHARED_DECODERS, only_subject(shared, "") | arrays
    settings = registry.settings(kind)(**card["settings"])
    return registry.get(kind).from_state(settings, arrays), card


def only_subject(arrays: Mapping[str, np.ndarray], subject: str) -> dict[str, np.ndarray]:
    """Return the arrays of a shared decoder that are one subject's own; "": those of nobody."""
    from afterimage.decoding.shared import owner

    return {key: value for key, value in arrays.items() if owner(key) == subject}


def scores_of_test(
    model: Path, trials: Path, gallery: Mapping[str, np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """Compare a subject's test responses with candidates, by the decoder that it was fitted to.

    Returns
    -------
    names : (n_stimuli,) of str
    scores : (n_stimuli, n_candidates)
        Of the mean response of each stimulus; or means over the scores of its responses, where
        the decoder averages what it makes of them.
    """
    decoder, card = open_decoder(model)
    responses, stimuli = read_responses(trials, "test", *card["window_s"])
    if card.get("average") == "outputs":
        scores, names, _ = average_repeats(decoder.scores(responses, gallery), stimuli)
        return names, scores
    average, names, _ = average_repeats(responses, stimuli)
    return names, np.asarray(decoder.scores(average, gallery))


@dataclass(frozen=True)
class OneSubject:
    """A decoder of several subjects, asked for one of them."""

    decoder: Any
    subject: str

    def predict(self, patterns: np.ndarray) -> dict[str, np.ndarray]:
        """Decode features, float32 (m, n_features) of each block."""
        found: dict[str, np.ndarray] = self.decoder.predict(patterns, self.subject)
        return found

    def scores(self, patterns: np.ndarray, gallery: Mapping[str, Any]) -> np.ndarray:
        """Compare with candidates, float32 (m, n_candidates)."""
        return np.asarray(self.decoder.scores(patterns, gallery, self.subject))


@dataclass(frozen=True)
class KnownSubjects:
    """A decoder of several subjects, asked for a new one as if it were each of them; the mean."""

    decoder: Any
    subjects: list[str]
    mean: np.ndarray  # (n_values,), of the new subject's training responses
    deviation: np.ndarray

    def _as(self, patterns: np.ndarray, subject: str) -> np.ndarray:
        state = self.decoder.state(subject)
        standard = (patterns - self.mean) / np.where(self.deviation > 0, self.deviation, 1)
        moved = standard * state[f"unit_scale/{subject}"] + state[f"unit_mean/{subject}"]
        return np.asarray(moved, np.float32)

    def predict(self, patterns: np.ndarray) -> dict[str, np.ndarray]:
        """Decode features, float32 (m, n_features) of each block."""
        total: dict[str, np.ndarray] = {}
        for subject in self.subjects:
            for block, values in self.decoder.predict(
                self._as(patterns, subject), subject
            ).items():
                total[block] = total[block] + values if block in total else values
        return {block: values / np.float32(len(self.subjects)) for block, values in total.items()}

    def scores(self, patterns: np.ndarray, gallery: Mapping[str, Any]) -> np.ndarray:
        """Compare with candidates, float32 (m, n_candidates)."""
        each = [self.decoder.scores(self._as(patterns, s), gallery, s) for s in self.subjects]
        return np.asarray(np.mean(each, axis=0))


def plain(value: Any) -> Any:
    """Turn nested arrays into lists, so that a summary can be written as JSON."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, np.ndarray):
        return [None if not np.isfinite(item) else float(item) for item in value.ravel()]
    if isinstance(value, np.generic):
        return value.item()
    return value
