"""Ask what other people's brains tell of a new one: within, across and between, for all subjects.

``group/subjects.tsv`` holds one row a subject, decoder, protocol and metric (`COLUMNS` of
`evaluation.subject_protocols`); column ``analysis`` is ``within_subject``, ``cross_subject``,
``few_shot`` (``k`` trials of the new subject) or ``pooled_subjects``, column ``repeats`` ``single``
or ``averaged`` (the test trials that are scored). ``group/subjects.json`` says who was compared on
what, what was left out and why, and what each decoder took.
"""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import Field, field_validator

from afterimage.bids.names import unit_of
from afterimage.decoding.registry import DECODERS
from afterimage.decoding.streams import Rows
from afterimage.errors import AfterimageError, ConfigError
from afterimage.io.arrays import block_shapes, read_blocks
from afterimage.io.atomic import write_json
from afterimage.io.tables import read_tsv, write_tsv
from afterimage.settings import StageConfig
from afterimage.stages.checkpoints import checkpoint_folder
from afterimage.stages.subject_trials import (
    Comparison,
    Joined,
    Member,
    choose_trials,
    compare,
    components,
    open_members,
)

if TYPE_CHECKING:
    from afterimage.evaluation.scores import Resampling
    from afterimage.evaluation.subject_protocols import SubjectTrials

VERSION = 3
CITES = ("song2024", "evgeniou2004", "defossez2023")

log = logging.getLogger("afterimage")

if TYPE_CHECKING:
    Decoder = Any  # built below from the registry, which a type checker cannot follow
else:
    Decoder = DECODERS.union()


class Config(StageConfig):
    """Comparison of subjects: own data, other people's, a few trials of the new one, all together."""

    enabled: bool = Field(
        True, description="compare subjects where two or more have EEG, or MEG, and pictures"
    )
    decoders: dict[str, Decoder] = Field(
        default={},
        description="networks compared with ridge, by name; those of train_decoder join them",
    )
    block: str = Field(
        "", description="feature block in which pictures are told apart; empty: clip, or the first"
    )
    tmin_s: float | None = Field(0.0, description="start of the window of a trial; null: all")
    tmax_s: float | None = Field(None, description="end of that window; null: all")
    bin_s: float = Field(
        0.04, ge=0, description="samples averaged before every fit; 0: none, for networks mostly"
    )
    k_values: tuple[int, ...] = Field(
        (16, 64, 256, 1024), description="training trials of the new subject in few-shot fits"
    )
    max_units: int = Field(
        64, ge=2, description="units of ridge at most; of more, their principal components"
    )
    alphas: tuple[float, ...] = Field(
        (1e-3, 1e-2, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 1000.0),
        min_length=1,
        description="penalties to choose from, in units of the mean squared norm of a trial",
    )
    n_folds: int = Field(5, ge=2, description="folds by concept inside the training trials")
    n_bootstraps: int = Field(1000, ge=100, description="resamples of an interval")
    n_permutations: int = Field(1000, ge=100, description="permuted pairs of a chance level")
    random_state: int | None = Field(None, description="seed; default: the root seed")

    @field_validator("decoders")
    @classmethod
    def _networks(cls, decoders: dict[str, Any]) -> dict[str, Any]:
        for name, settings in decoders.items():
            if not getattr(DECODERS.get(settings.kind), "needs_layout", False):
                raise ValueError(f"{name!r} is no network; ridge takes part in any case")
            if name == "ridge":
                raise ValueError("a network cannot be called ridge, which takes part in any case")
        return decoders


@dataclass(frozen=True)
class Inputs:
    """What the stage reads, one a subject and in one order; fits see training trials only."""

    trials: tuple[Path, ...]
    features: tuple[Path, ...]
    test_features: tuple[Path, ...]
    split: tuple[Path, ...]


@dataclass(frozen=True)
class Outputs:
    """What the stage writes."""

    table: Path
    details: Path


def run(
    inputs: Inputs, outputs: Outputs, config: Config, *, threads: int = 1, device: str = "cpu"
) -> None:
    """Compare the subjects of each modality; who cannot be compared is noted, the rest goes on."""
    from afterimage.evaluation.subject_protocols import COLUMNS

    rows: list[dict[str, Any]] = []
    details: dict[str, Any] = {"comparisons": []}
    work = checkpoint_folder("evaluate_subjects", VERSION, config, inputs, outputs.table)
    with ExitStack() as stack:
        members, details["notes"] = open_members(inputs.trials, stack)
        for modality in dict.fromkeys(member.modality for member in members):
            same = [member for member in members if member.modality == modality]
            found = compare(modality, same, config.tmin_s, config.tmax_s, config.bin_s)
            if found is None:
                details["notes"].append(f"fewer than two subjects of {modality} can be compared")
                continue
            study = _Study(inputs, config, found, device, work)
            rows += study.score()
            details["comparisons"].append(study.details())
    write_json(outputs.details, details)
    write_tsv(outputs.table, rows, COLUMNS)
    shutil.rmtree(work.parent, ignore_errors=True)


class _Study:
    """The subjects of one modality, what they saw, and the rows that come out."""

    def __init__(
        self, inputs: Inputs, config: Config, found: Comparison, device: str, work: Path
    ) -> None:
        self.config, self.found, self.device, self.work = config, found, device, work
        self.seed = config.random_state or 0
        self.notes = found.notes
        self.seconds: dict[str, float] = {}
        labels = [member.label for member in found.members]
        files = {
            name: {unit_of(path).removeprefix("sub-"): path for path in getattr(inputs, name)}
            for name in ("features", "test_features", "split")
        }
        self.block = _usual_block([files["features"][label] for label in labels], config.block)
        self.training = _table([files["features"][label] for label in labels], self.block)
        self.test = _table([files["test_features"][label] for label in labels], self.block)
        self.gallery_names = sorted(self.test)
        self.gallery = np.array([self.test[name] for name in self.gallery_names])
        choose_trials(found.members, self.training, self.test, self.notes)
        self.subjects: dict[str, SubjectTrials] = {}
        self.members: list[Member] = []
        for member in found.members:
            try:
                self._add(member, files["split"][member.label])
            except AfterimageError as error:
                self.notes.append(f"sub-{member.label} is left out: {error}")

    def _add(self, member: Member, split: Path) -> None:
        """Centre and scale a subject, without labels, and take its trials in."""
        from dataclasses import replace

        from afterimage.evaluation.subject_protocols import SubjectTrials

        stimulus = member.reader.stimulus
        n_test = len(np.unique(stimulus[member.test]))
        n_train = len(np.unique(stimulus[member.train]))
        if n_test < 2 or n_train < 3:
            self.notes.append(
                f"sub-{member.label} is left out: {n_train} training and {n_test} test pictures "
                "have trials and features"
            )
            return
        mean, scale = self.found.scaling(member)
        train, test = (
            replace(self.found.epochs(member, rows), mean=mean, scale=scale)
            for rows in (member.train, member.test)
        )
        stimuli = stimulus[member.train]
        known = {row["stimulus_id"]: row.get("concept") for row in read_tsv(split)}
        groups = np.array([known.get(name) or name for name in stimuli.tolist()])
        groups = groups if len(np.unique(groups)) > 2 else stimuli
        self.subjects[member.label] = SubjectTrials(
            train, stimuli, groups, test, stimulus[member.test]
        )
        self.members.append(member)

    def score(self) -> list[dict[str, Any]]:
        """Fit and score every decoder by every protocol."""
        from afterimage.evaluation.scores import Resampling
        from afterimage.evaluation.subject_ridge import SubjectRidge

        if len(self.subjects) < 2:
            self.notes.append("fewer than two subjects can be compared: nothing scored")
            return []
        config = self.config
        drawing = Resampling(
            n_bootstraps=config.n_bootstraps, n_permutations=config.n_permutations,
            random_state=self.seed,
        )  # fmt: skip
        rows = self._score(
            SubjectRidge(
                self.subjects, self.training, self.gallery, config.alphas, config.n_folds,
                self.seed, components(self.members, config.max_units),
            ),
            drawing,
        )  # fmt: skip
        for name, settings in config.decoders.items():
            own = settings.model_copy(update={"random_state": self.seed, "target": self.block})
            rows += self._score(SubjectNetwork(self, name, own), drawing)
        return rows

    def _score(self, learner: Any, drawing: Resampling) -> list[dict[str, Any]]:
        from afterimage.evaluation.subject_protocols import score_subjects

        def failed(what: str, error: AfterimageError) -> None:
            log.warning("%s: %s", what, error)
            self.notes.append(f"{what}: {error}")

        started = time.monotonic()
        rows = [
            {"modality": self.found.modality, **row}
            for row in score_subjects(
                self.subjects, learner, self.gallery_names, self.config.k_values,
                features=self.block, resampling=drawing, on_error=failed,
            )
        ]  # fmt: skip
        self.seconds[learner.label] = round(time.monotonic() - started, 1)
        log.info("%s: %s took %.0f s", self.found.modality, learner.label,
                 self.seconds[learner.label])  # fmt: skip
        return rows

    def details(self) -> dict[str, Any]:
        """Who was compared on what."""
        layout = self.found.layout
        return {
            "modality": self.found.modality,
            "subjects": {
                label: {
                    "n_training_trials": len(one.stimuli),
                    "n_test_trials": len(one.test_stimuli),
                    "n_test_images": len(set(one.test_stimuli.tolist())),
                }
                for label, one in self.subjects.items()
            },
            "n_units": layout.n_units,
            "units": self.found.members[0].units[self.found.members[0].places].tolist(),
            "units_dropped": self.found.dropped,
            "bin_centres_s": np.round(layout.times_s, 6).tolist(),
            "block": self.block,
            "n_gallery": len(self.gallery_names),
            "seconds": self.seconds,
            "notes": self.notes,
        }


class SubjectNetwork:
    """A learner for `subject_protocols.score_subjects`: a network with a layer for each subject.

    A subject whom the network does not know is decoded through the layers of all those it knows;
    similarities are their mean. Adaptation trains a layer of its own and nothing else.
    """

    def __init__(self, study: _Study, label: str, settings: Any) -> None:
        self.study, self.label, self.settings = study, label, settings
        names = sorted(study.training)
        self._row = {name: row for row, name in enumerate(names)}
        self._features = np.array([study.training[name] for name in names], np.float32)
        self._held_out = set(study.gallery_names) | {
            name for one in study.subjects.values() for name in one.test_stimuli.tolist()
        }

    def fit(self, names: Sequence[str]) -> Any:
        """Fit one network on all training trials of these subjects."""
        parts = [self.study.subjects[name] for name in names]
        stimuli = np.concatenate([part.stimuli for part in parts])
        counts = [len(part.stimuli) for part in parts]
        told = [self.settings.model_dump(mode="json"), list(names), stimuli.tolist()]
        told.append(self.study.found.layout.times_s.tolist())
        digest = hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:16]
        decoder = DECODERS.get(self.settings.kind)(self.settings)
        return decoder.fit(
            Joined([part.train for part in parts]),
            self._of(stimuli),
            stimuli,
            held_out=self._held_out,
            layout=self.study.found.layout,
            subjects=np.repeat(np.array(list(names)), counts),
            concepts=np.concatenate([part.groups for part in parts]),
            device=self.study.device,
            checkpoint_folder=self.study.work / self.label / digest,
        )

    def adapt(self, model: Any, name: str, rows: np.ndarray) -> Any:
        """Train the layer of a new subject in a copy of the network."""
        own = self.study.subjects[name]
        stimuli = own.stimuli[rows]
        copy = type(model).from_state(self.settings, model.state())
        return copy.adapt(
            own.train[rows],
            self._of(stimuli),
            stimuli,
            held_out=self._held_out,
            layout=self.study.found.layout,
            subjects=np.full(len(stimuli), name),
            device=self.study.device,
        )

    def similarities(self, model: Any, responses: np.ndarray, name: str) -> np.ndarray:
        """Scores of the gallery: (n, n_gallery)."""
        through = [name] if name in model.subjects else model.subjects
        found = [
            model.scores(
                responses,
                {self.settings.target: self.study.gallery},
                layout=self.study.found.layout,
                subjects=np.full(len(responses), known),
            )
            for known in through
        ]
        return np.asarray(np.mean(found, axis=0))

    def _of(self, stimuli: np.ndarray) -> dict[str, Rows]:
        order = np.array([self._row[name] for name in stimuli.tolist()])
        return {self.settings.target: Rows(self._features, order)}


def _usual_block(files: Sequence[Path], wanted: str) -> str:
    """Return the block asked for, else clip, else the first that all subjects have."""
    known = sorted(set.intersection(*(set(block_shapes(path)) for path in files)))
    chosen = wanted or ("clip" if "clip" in known else known[0] if known else "")
    if chosen not in known:
        raise ConfigError(
            "the feature block to tell pictures apart is not there", where=str(files[0]),
            found=chosen, expected=", ".join(known),
            fix="set evaluate_subjects: block to one of the encoders of extract_features",
        )  # fmt: skip
    return chosen


def _table(files: Sequence[Path], block: str) -> Mapping[str, np.ndarray]:
    """Read the features of all pictures that any subject saw; equal pictures once."""
    table: dict[str, np.ndarray] = {}
    for path in files:
        names, values = read_blocks(path, names=[block])
        for name, row in zip(names.tolist(), values[block], strict=True):
            if str(name) not in table:
                table[str(name)] = np.array(row, np.float32)
    return table
