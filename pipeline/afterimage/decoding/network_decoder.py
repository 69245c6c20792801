"""What the network decoders share: fit, adaptation, prediction, scores and state."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from afterimage.decoding.layout import LayoutLike, flat_layout, sensor_places
from afterimage.decoding.network_scaling import (
    scaling_arrays,
    stream_of,
    subject_numbers,
    target_scaling,
)
from afterimage.decoding.network_settings import NetworkSettings, checked_epochs
from afterimage.decoding.network_start import (
    feature_components,
    first_topographies,
    start_low_rank,
)  # fmt: skip
from afterimage.decoding.network_training import CHUNK, fit_blocks, train_network
from afterimage.decoding.readout import read_out
from afterimage.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping
    from typing import Self


class NetworkDecoder(ABC):
    """A network from epochs to an embedding of the image, and readouts of all feature blocks.

    The target block comes from the regression head, the other blocks from ridge regression on the
    network's representation; where held-out concepts are predicted better so, the target too.
    ``cross_validation_[block]["predicted_by"]`` says which.

    Responses may be anything with ``shape`` and indexing by an array of trial numbers, of shape
    (n_trials, n_units * n_times) or (n_trials, n_units, n_times): they are read in batches.

    Attributes
    ----------
    cross_validation_ : dict
        For each block, on the held-out concepts of the training part: ``r`` and ``r2`` (one value a
        feature), ``gain``, ``predicted_by``; for the target also single-trial retrieval: ``top1``,
        ``top5``, ``n_candidates``, ``n_trials``. Empty after `from_state`.
    """

    needs_layout = True
    #: whether the network begins with `afterimage.decoding.low_rank`, and compares by likelihood
    starts_low_rank = False

    def __init__(self, settings: NetworkSettings) -> None:
        self.settings = settings
        self.cross_validation_: dict[str, dict[str, Any]] = {}
        self._state: dict[str, np.ndarray] = {}
        self._model: Any = None

    @abstractmethod
    def _network(
        self, n_units: int, n_times: int, n_subjects: int, groups: np.ndarray, places: np.ndarray
    ) -> Any:
        """Return the untrained network: (signals, subjects, places) to a representation."""

    @property
    def blocks(self) -> list[str]:
        """Names of the feature blocks predicted, in order."""
        return [key.removeprefix("mean/") for key in self._state if key.startswith("mean/")]

    @property
    def subjects(self) -> list[str]:
        """Names of the subjects known, in the order of their layers."""
        return [key.split("/", 2)[2] for key in self._state if key.startswith("unit_scale/")]

    def fit(
        self,
        responses: Any,
        features: Mapping[str, Any],
        groups: np.ndarray,
        held_out: Collection[str] = (),
        *,
        layout: LayoutLike | None = None,
        subjects: np.ndarray | None = None,
        concepts: np.ndarray | None = None,
        device: str = "cpu",
        checkpoint_folder: Path | None = None,
        on_progress: Callable[[int, float], None] | None = None,
    ) -> Self:
        """Fit on the training part.

        Parameters
        ----------
        responses : indexable, (n_trials, n_units * n_times)
        features : dict of block to indexable (n_trials, n_features)
        groups : (n_trials,) of str
            Stimulus of each trial.
        held_out : collection of str
            Stimuli of other splits: the fit is refused when one of them is in ``groups``.
        layout : LayoutLike, optional
            Without it every value is a unit of its own, without time or place.
        subjects : (n_trials,) of str, optional
            Subject of each trial; default: that of the layout.
        concepts : (n_trials,) of str, optional
            Category of each stimulus: early stopping holds out whole concepts; default: stimuli.
        device : str
            ``"cpu"`` or ``"cuda"``, where it computes in bfloat16.
        checkpoint_folder : Path, optional
            Where an interrupted training goes on from.
        on_progress : callable, optional
            Called after each step with the number of steps done and the loss.
        """
        from afterimage.training.contrastive import held_out_groups

        stimuli = np.asarray(groups).astype(str)
        layout = flat_layout(int(np.prod(responses.shape[1:]))) if layout is None else layout
        table, row = checked_epochs(
            responses, features, stimuli, held_out, layout, self.settings.target
        )
        names, subject = subject_numbers(subjects, layout, len(stimuli))
        plane, sensor_group = sensor_places(layout)
        settings = self.settings
        self._state = scaling_arrays(responses, subject, names, layout, settings)
        self._state |= {"plane": plane, "sensor_group": sensor_group}
        self._state |= target_scaling(table[settings.target])
        trials = self._trials(responses, layout, table, row, subject, plane)
        self._state |= feature_components(trials.targets, settings)
        concept = stimuli if concepts is None else np.asarray(concepts).astype(str)
        training, validation = held_out_groups(
            concept, settings.validation_share, settings.random_state
        )
        validation = validation[:: max(1, -(-len(validation) // settings.n_validation_max))]
        self._model = self._new_model(len(names))
        parts = (self._model, trials, training, validation)
        if self.starts_low_rank:
            times = np.asarray(layout.times_s, float)
            self._state |= start_low_rank(*parts, self._state, times, settings)
        train_network(
            *parts,
            settings,
            settings.n_steps,
            device=device,
            checkpoint_folder=checkpoint_folder,
            on_progress=on_progress,
        )
        arrays, self.cross_validation_ = fit_blocks(*parts, table, settings)
        self._state |= arrays
        self._keep()
        return self

    def adapt(
        self,
        responses: Any,
        features: Mapping[str, Any],
        groups: np.ndarray,
        held_out: Collection[str] = (),
        *,
        layout: LayoutLike | None = None,
        subjects: np.ndarray | None = None,
        device: str = "cpu",
    ) -> Self:
        """Add one new subject from few trials: only its subject layer is trained.

        Takes what `fit` takes; the new layer starts as the mean of the others, or as the best
        fit to the tuning and the time courses that the others share. The number of units
        and times must be those of the fit; the sensors of ``layout`` may lie elsewhere.
        """
        stimuli = np.asarray(groups).astype(str)
        layout = flat_layout(int(np.prod(responses.shape[1:]))) if layout is None else layout
        table, row = checked_epochs(
            responses, features, stimuli, held_out, layout, self.settings.target
        )
        names, own = subject_numbers(subjects, layout, len(stimuli))
        if len(names) != 1 or names[0] in self.subjects:
            raise InputError(
                "adaptation takes one new subject",
                where="decoder adapt",
                found=", ".join(names),
                expected=f"one subject other than {', '.join(self.subjects)}",
            )
        self._check_units(responses, layout, "decoder adapt")
        number = len(self.subjects)
        self._state |= scaling_arrays(responses, own, names, layout, self.settings, number)
        subject = np.full(len(stimuli), number)
        plane, _ = sensor_places(layout)
        trials = self._trials(responses, layout, table, row, subject, plane)
        self._model.requires_grad_(False)
        self._model.network.subjects.add_subject()
        everything = np.arange(len(stimuli))
        if self.starts_low_rank:
            self._model.sizes.add_subject()
            first_topographies(self._model, trials, number, self._state, self.settings)
        train_network(
            self._model,
            trials,
            everything,
            everything[:0],
            self.settings,
            self.settings.adaptation_steps,
            device=device,
        )
        self._model.requires_grad_(True)
        self._keep()
        return self

    def predict(
        self,
        responses: Any,
        *,
        layout: LayoutLike | None = None,
        subjects: np.ndarray | None = None,
    ) -> dict[str, np.ndarray]:
        """Decode features.

        Parameters
        ----------
        responses : (m, n_units * n_times)
        layout : LayoutLike, optional
            Where the sensors are; default: where they were in the fit.
        subjects : (m,) of str, optional
            Default: the subject of the layout, or the only one known.

        Returns
        -------
        dict of block to float32 (m, n_features)
        """
        parts = list(self._encoded(responses, layout, subjects))
        decoded = {}
        for name in self.blocks:
            pieces = [self._read(name, encoded, guess) for _, encoded, _, guess in parts]
            block, mean = np.concatenate(pieces), self._state[f"mean/{name}"]
            decoded[name] = (mean + self._state[f"gain/{name}"] * block).astype(np.float32)
        return decoded

    def scores(
        self,
        responses: Any,
        gallery: Mapping[str, np.ndarray],
        *,
        layout: LayoutLike | None = None,
        subjects: np.ndarray | None = None,
    ) -> np.ndarray:
        """Compare the embedding with each candidate's features, projected to where they meet.

        By cosine; or, where the network begins as a model of responses, by the logarithm of the
        probability that the trial is of this candidate, all of the gallery alike beforehand. The
        candidates are centred on the mean of the training stimuli.

        Parameters
        ----------
        responses : (m, n_units * n_times)
        gallery : dict of block to (g, n_features)
            The target block must be there.

        Returns
        -------
        float32, (m, g)
        """
        from scipy.special import logsumexp

        from afterimage.training.contrastive import compare

        targets = gallery[self.settings.target] - self._state["target_mean"]
        targets = (targets / self._state["target_scale"]).astype(np.float32)
        rows = []
        for subject, _, embedding, _ in self._encoded(responses, layout, subjects):
            found = compare(self._model, embedding, targets, subject)
            if self.starts_low_rank:
                rows.append(found - logsumexp(found, axis=1, keepdims=True))
            else:
                length = np.linalg.norm(embedding, axis=1, keepdims=True)
                rows.append(found / np.maximum(length, 1e-12))
        return np.concatenate(rows).astype(np.float32)

    def state(self) -> dict[str, np.ndarray]:
        """Return every array of the fitted decoder."""
        return dict(self._state)

    @classmethod
    def from_state(cls, settings: NetworkSettings, state: Mapping[str, np.ndarray]) -> Self:
        """Return the fitted decoder that `state` came from."""
        import torch

        decoder = cls(settings)
        decoder._state = {key: np.array(value) for key, value in sorted(state.items())}
        decoder._model = decoder._new_model(len(decoder.subjects))
        weights = {
            key.removeprefix("network/"): torch.from_numpy(value.copy())
            for key, value in decoder._state.items()
            if key.startswith("network/")
        }
        decoder._model.load_state_dict(weights)
        decoder._model.eval()
        return decoder

    def _check_units(self, responses: Any, layout: LayoutLike, where: str) -> None:
        n_units, n_times = self._state["unit_mean/0000/" + self.subjects[0]].shape
        size = int(np.prod(responses.shape[1:]))
        if (layout.n_units, layout.n_times) != (n_units, n_times) or size != n_units * n_times:
            raise InputError(
                "responses do not have the units the decoder was fitted on",
                where=where,
                found=f"shape {tuple(responses.shape)}",
                expected=f"(n_trials, {n_units} units * {n_times} times)",
            )

    def _trials(
        self,
        responses: Any,
        layout: LayoutLike,
        table: Mapping[str, np.ndarray],
        row: np.ndarray,
        subject: np.ndarray,
        plane: np.ndarray,
    ) -> Any:
        from afterimage.training.contrastive import Trials

        state = self._state
        stream = stream_of(state, responses, layout, subject, self.settings.clamp)
        targets = (table[self.settings.target] - state["target_mean"]) / state["target_scale"]
        return Trials(stream, row.astype(np.int64), subject, targets.astype(np.float32), plane)

    def _new_model(self, n_subjects: int) -> Any:
        import torch

        from afterimage.training.contrastive import BrainToImage

        n_units, n_times = next(v for k, v in self._state.items() if k[:10] == "unit_mean/").shape
        components = self._state["components"]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.settings.random_state)
            network = self._network(
                n_units, n_times, n_subjects, self._state["sensor_group"], self._state["plane"]
            )
            model = BrainToImage(
                network,
                components.shape[1],
                len(components),
                self.settings.contrastive_weight,
                n_subjects if self.starts_low_rank else 0,
            )
        with torch.no_grad():
            model.images.weight.copy_(torch.from_numpy(components.copy()))
        return model

    def _read(self, name: str, encoded: np.ndarray, guess: np.ndarray) -> np.ndarray:
        """Centred prediction of one block, before its gain."""
        if f"coef/{name}" not in self._state:
            head: np.ndarray = guess * self._state["target_scale"]
            return head
        return read_out(self._state, name, encoded)

    def _keep(self) -> None:
        """Put the weights into the state, on the CPU."""
        self._model.to("cpu").eval()
        for key, value in self._model.state_dict().items():
            self._state[f"network/{key}"] = value.detach().numpy().copy()
        self._state = {
            key: np.ascontiguousarray(value, np.int64 if key == "sensor_group" else np.float32)
            for key, value in sorted(self._state.items())
        }

    def _encoded(
        self, responses: Any, layout: LayoutLike | None, subjects: np.ndarray | None
    ) -> Iterator[list[np.ndarray]]:
        """Encode responses in pieces: subjects, representation, embedding, predicted features."""
        from afterimage.training.contrastive import encode

        if self._model is None:
            raise RuntimeError("the decoder is not fitted")
        known = self.subjects
        asked, plane = layout, self._state["plane"]
        if asked is None:
            n_units, n_times = self._state[f"unit_mean/0000/{known[0]}"].shape
            flat = flat_layout(n_units)
            asked = type(flat)(n_units, n_times, np.zeros(n_times), flat.positions, flat.kind)
        else:
            plane, _ = sensor_places(asked)
        self._check_units(responses, asked, "decoder predict")
        if subjects is None and (layout is None or len(known) == 1):
            names, number = [known[0]], np.zeros(len(responses), np.int64)
        else:
            names, number = subject_numbers(subjects, asked, len(responses))
        if (layout is None and subjects is None and len(known) > 1) or set(names) - set(known):
            raise InputError(
                "the subject of the responses is not one the decoder knows",
                where="decoder predict",
                found=", ".join(names) if subjects is not None or layout is not None else "none",
                expected=", ".join(known),
                fix="adapt the decoder to the new subject first",
            )
        subject = np.array([known.index(name) for name in names], np.int64)[number]
        blank = np.zeros((1, len(self._state["target_mean"])), np.float32)
        table = {self.settings.target: blank}
        trials = self._trials(responses, asked, table, np.zeros(len(subject)), subject, plane)
        for start in range(0, len(subject), CHUNK):
            piece = np.arange(start, min(start + CHUNK, len(subject)))
            yield [subject[piece], *encode(self._model, trials, piece)]
