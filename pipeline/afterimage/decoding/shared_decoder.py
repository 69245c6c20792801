"""What the decoders of several subjects share: fit, adaptation, prediction, scores and state."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

import numpy as np

from afterimage.decoding.linear import in_memory
from afterimage.decoding.network_scaling import target_scaling
from afterimage.decoding.readout import read_out
from afterimage.decoding.shared import (
    CHUNK,
    Pool,
    SharedSettings,
    StandardRows,
    StandardTable,
    SubjectData,
    check_subject,
    check_target,
    loop_settings,
    owner,
    pool,
    unit_scaling,
)
from afterimage.decoding.shared_readout import read_out_blocks
from afterimage.errors import InputError
from afterimage.training.pieces import pieces

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping
    from pathlib import Path
    from typing import Self

    from afterimage.decoding.linear import Allocate

GALLERY_BYTES = 1 << 29  # of embeddings that a gallery is read for, once


class SharedDecoder(ABC):
    """One network for several subjects, and readouts of all feature blocks behind it.

    Subjects differ in number of units and may have seen different pictures: each enters by layers
    of its own. Blocks with a head of their own come from it; the others from ridge regression on
    the shared representation, fitted on all subjects together.

    Memory is that of a batch: responses and, where ``allocate`` puts them on disk, features are
    read when a batch is made, and predictions are judged a piece at a time.

    Attributes
    ----------
    cross_validation_ : dict
        For each block, on held-out training stimuli of all subjects of the fit: ``r`` and ``r2``
        (one value a feature), ``gain``, ``predicted_by``; for the target also single-trial
        retrieval: ``top1``, ``top5``, ``n_candidates``, ``n_trials``. Empty after `from_state`.
    """

    def __init__(self, settings: SharedSettings) -> None:
        self.settings: Any = settings
        self.cross_validation_: dict[str, dict[str, Any]] = {}
        self._state: dict[str, np.ndarray] = {}
        self._model: Any = None

    @abstractmethod
    def _head_blocks(self, sizes: Mapping[str, int]) -> list[str]:
        """Blocks that have a head of their own; the first is the target."""

    @abstractmethod
    def _network(self, n_targets: dict[str, int]) -> Any:
        """Return the untrained `SharedModel` without any subject."""

    @property
    def subjects(self) -> list[str]:
        """Names of the subjects known."""
        return [key.partition("/")[2] for key in self._state if key.startswith("unit_mean/")]

    @property
    def blocks(self) -> list[str]:
        """Names of the feature blocks predicted."""
        return [key.removeprefix("mean/") for key in self._state if key.startswith("mean/")]

    def fit(
        self,
        subjects: Mapping[str, SubjectData],
        held_out: Collection[str] = (),
        *,
        device: str = "cpu",
        checkpoint_folder: Path | None = None,
        on_progress: Callable[[int, float], None] | None = None,
        allocate: Allocate = in_memory,
    ) -> Self:
        """Fit on the training trials of one subject or more.

        Parameters
        ----------
        subjects : dict of label to SubjectData
        held_out : collection of str
            Stimuli of other splits: the fit is refused when one of them is among the trials.
        device : str
            ``"cpu"`` or ``"cuda"``, where it computes in bfloat16.
        checkpoint_folder : Path, optional
            Where an interrupted training goes on from.
        on_progress : callable, optional
            Called after each step with the number of steps done and the loss.
        allocate : callable, optional
            Makes the arrays that features of all stimuli are kept in; default: in memory.
        """
        from afterimage.training.contrastive import held_out_groups
        from afterimage.training.shared import fit_shared

        settings = self.settings
        sizes: dict[str, int] | None = None
        for name, data in subjects.items():
            sizes = check_subject(name, data, held_out, sizes)
        if sizes is None:
            raise InputError("a fit without subjects", where="decoder fit", found="none",
                             expected="one or more")  # fmt: skip
        check_target(settings.target, sizes)
        self._state, self._model = {}, None
        for name, data in subjects.items():
            self._scale(name, data)
        pooled = pool(subjects, allocate)
        for block in self._head_blocks(sizes):
            scaling = target_scaling(pooled.table[block])
            self._state |= {f"{key}/{block}": value for key, value in scaling.items()}
        trials = self._trials(subjects, pooled)
        concept = pooled.names[pooled.stimulus]
        training, validation = held_out_groups(
            concept, settings.validation_share, settings.random_state
        )
        validation = validation[:: max(1, -(-len(validation) // settings.n_validation_max))]
        self._model = self._new_model()
        parts = (self._model, trials, training, validation)
        fit_shared(
            *parts,
            loop_settings(settings, len(training), device),
            every=settings.evaluate_every,
            patience=settings.patience,
            random_state=settings.random_state,
            device=device,
            checkpoint_folder=checkpoint_folder,
            on_progress=on_progress,
        )
        self._model.to("cpu").eval()
        scales = {block: self._state[f"target_scale/{block}"] for block in trials.targets}
        found = read_out_blocks(*parts, pooled.table, scales, settings, allocate)
        self._state |= found[0]
        self.cross_validation_ = found[1]
        self._after_fit(trials, training)
        self._keep()
        return self

    def adapt(
        self,
        subject: str,
        data: SubjectData,
        held_out: Collection[str] = (),
        *,
        device: str = "cpu",
        checkpoint_folder: Path | None = None,
        allocate: Allocate = in_memory,
    ) -> Self:
        """Add one new subject, from few trials: only its own layers are trained, the rest is frozen.

        The new layers begin untrained; the losses are those of the fit.
        """
        from afterimage.training.shared import fit_shared

        sizes = {name: len(self._state[f"mean/{name}"]) for name in self.blocks}
        check_subject(subject, data, held_out, sizes)
        if subject in self.subjects:
            raise InputError(
                "adaptation takes a new subject",
                where="decoder adapt",
                found=subject,
                expected=f"one other than {', '.join(self.subjects)}",
            )
        settings = self.settings
        self._scale(subject, data)
        pooled = pool({subject: data}, allocate)
        trials = self._trials({subject: data}, pooled)
        self._model.requires_grad_(False)
        self._add(self._model, subject)
        if settings.adaptation_start == "zero":
            self._model.begin(subject, next(name for name in self.subjects if name != subject))
        self._model.adapting = True
        fit_shared(
            self._model,
            trials,
            np.arange(len(pooled.row)),
            np.arange(0),
            loop_settings(settings, len(pooled.row), device, adapting=True),
            every=settings.evaluate_every,
            patience=settings.patience,
            random_state=settings.random_state,
            device=device,
            checkpoint_folder=checkpoint_folder,
        )
        self._model.adapting = False
        self._model.requires_grad_(True)
        self._keep()
        return self

    def predict(self, responses: Any, subject: str | None = None) -> dict[str, np.ndarray]:
        """Decode features.

        Parameters
        ----------
        responses : (m, n_units)
        subject : str, optional
            Whose they are; default: the only subject known.

        Returns
        -------
        dict of block to float32 (m, n_features)
        """
        parts = [found for _, found in self.predict_each(responses, subject)]
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def predict_each(
        self, responses: Any, subject: str | None = None
    ) -> Iterator[tuple[slice, dict[str, np.ndarray]]]:
        """Decode a piece of the responses at a time, as `predict` does: rows, and their features."""
        name = self._known(responses, subject)
        widest = max(len(self._state[f"mean/{block}"]) for block in self.blocks)
        for part in pieces(len(responses), widest, CHUNK):
            yield part, self._decoded(self._encoded(responses, name, part, "predicted"))

    def _decoded(self, encoded: Any) -> dict[str, np.ndarray]:
        """Features in their own units from what the network says."""
        decoded = {}
        for name in self.blocks:
            if name in encoded.predicted:
                block = encoded.predicted[name] - self._state[f"offset/{name}"]
                block = block * self._state[f"target_scale/{name}"]
            else:
                block = read_out(self._state, name, encoded.representation)
            mean, gain = self._state[f"mean/{name}"], self._state[f"gain/{name}"]
            decoded[name] = (mean + gain * block).astype(np.float32)
        return decoded

    def scores(
        self, responses: Any, gallery: Mapping[str, Any], subject: str | None = None
    ) -> np.ndarray:
        """Compare by cosine, centred on the mean training stimulus: float32 (m, n_candidates).

        The gallery may lie on disk: anything with ``shape`` that rows are taken from by number.
        """
        from afterimage.training.shared import cosines

        name = self._known(responses, subject)
        heads = [block for block in self._model.blocks if block in gallery]
        targets = {block: self._standard(block, gallery[block]) for block in heads}
        candidates = np.arange(targets[self.settings.target].shape[0])
        found = np.empty((len(responses), len(candidates)), np.float32)
        width = sum(table.shape[1] for table in targets.values())
        for part in pieces(len(responses), width, CHUNK, GALLERY_BYTES):
            encoded = self._encoded(responses, name, part, "embeddings")
            found[part] = cosines(encoded.embeddings, targets, candidates)
        return found

    def state(self, subject: str | None = None) -> dict[str, np.ndarray]:
        """Return every array of the fitted decoder, or only those that are one subject's own."""
        if subject is None:
            return dict(self._state)
        return {key: value for key, value in self._state.items() if owner(key) == subject}

    def shared_state(self) -> dict[str, np.ndarray]:
        """Return the arrays that are no single subject's."""
        return {key: value for key, value in self._state.items() if not owner(key)}

    @classmethod
    def from_state(cls, settings: SharedSettings, state: Mapping[str, np.ndarray]) -> Self:
        """Return the fitted decoder that `state` came from, whole or with some of its subjects."""
        import torch

        decoder = cls(settings)
        decoder._state = {key: np.array(value) for key, value in sorted(state.items())}
        decoder._model = decoder._new_model()
        weights = {
            key.removeprefix("network/"): torch.from_numpy(value.copy())
            for key, value in decoder._state.items()
            if key.startswith("network/")
        }
        decoder._model.load_state_dict(weights)
        decoder._model.eval()
        return decoder

    def _after_fit(self, trials: Any, training: np.ndarray) -> None:  # noqa: B027
        """Keep what adaptation will need of the subjects of the fit."""

    def _add(self, model: Any, subject: str) -> None:
        """Add the untrained layers of a subject to the model."""
        import torch

        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.settings.random_state)
            model.add_subject(subject, len(self._state[f"unit_mean/{subject}"]))

    def _scale(self, name: str, data: SubjectData) -> None:
        self._state |= unit_scaling(name, data, self.settings.n_statistics_max)

    def _standard(self, block: str, values: Any) -> StandardTable:
        mean, scale = self._state[f"target_mean/{block}"], self._state[f"target_scale/{block}"]
        return StandardTable(values, mean, scale)

    def _source(self, name: str, responses: Any) -> StandardRows:
        mean, scale = self._state[f"unit_mean/{name}"], self._state[f"unit_scale/{name}"]
        return StandardRows(responses, mean, scale, self.settings.clamp)

    def _trials(self, subjects: Mapping[str, SubjectData], pooled: Pool) -> Any:
        from afterimage.training.shared import PooledTrials

        heads = [key[12:] for key in self._state if key.startswith("target_mean/")]
        targets = {name: self._standard(name, pooled.table[name]) for name in heads}
        sources = {name: self._source(name, data.responses) for name, data in subjects.items()}
        return PooledTrials(sources, pooled.subject, pooled.row, pooled.stimulus, targets)

    def _new_model(self) -> Any:
        import torch

        prefix = "target_mean/"
        sizes = {k[len(prefix) :]: len(v) for k, v in self._state.items() if k.startswith(prefix)}
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.settings.random_state)
            model = self._network({name: sizes[name] for name in self._head_blocks(sizes)})
        for name in self.subjects:
            self._add(model, name)
        return model

    def _keep(self) -> None:
        """Put the weights into the state, on the CPU."""
        self._model.to("cpu").eval()
        for key, value in self._model.state_dict().items():
            self._state[f"network/{key}"] = value.detach().numpy().copy()
        self._state = {
            key: np.ascontiguousarray(value, np.float32)
            for key, value in sorted(self._state.items())
        }

    def _encoded(self, responses: Any, name: str, part: slice, wanted: Any = "") -> Any:
        """Encode some responses of one subject."""
        from afterimage.training.shared import encode_one, joined

        source = self._source(name, responses)
        rows = np.arange(len(responses))[part]
        chunks = [rows[start : start + CHUNK] for start in range(0, len(rows), CHUNK)]
        return joined(
            [encode_one(self._model, source(one), name, wanted=wanted) for one in chunks]
        )

    def _known(self, responses: Any, subject: str | None) -> str:
        """Return the subject of responses; refuse one that is unknown, or has other units."""
        if self._model is None:
            raise RuntimeError("the decoder is not fitted")
        known = self.subjects
        if subject is None and len(known) == 1:
            subject = known[0]
        if subject not in known:
            raise InputError(
                "the subject of the responses is not one the decoder knows",
                where="decoder predict",
                found=subject or "none",
                expected=", ".join(known),
                fix="adapt the decoder to the new subject first",
            )
        n_units = len(self._state[f"unit_mean/{subject}"])
        if tuple(responses.shape[1:]) != (n_units,):
            raise InputError(
                "responses do not have the units the decoder was fitted on",
                where=f"decoder predict, subject {subject}",
                found=f"shape {tuple(responses.shape)}",
                expected=f"(n_trials, {n_units})",
            )
        return str(subject)
