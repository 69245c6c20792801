"""A finished output, opened to decode a stream: cleaning as in training, decoder, gallery, generator."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from afterimage.decoding.layout import window
from afterimage.errors import ConfigError, InputError, UsageError
from afterimage.io.arrays import block_shapes, open_dataset, read_blocks
from afterimage.io.live_streams import FACTORS, StreamHeader
from afterimage.io.series import open_series
from afterimage.io.tables import read_json
from afterimage.io.trials import open_reader, read_layout
from afterimage.preprocess.meeg.causal import CausalSettings, CausalStream
from afterimage.preprocess.meeg.channels import check_units
from afterimage.preprocess.meeg.reference import (
    apply_projections,
    separate_signal_space,
    set_reference,
)
from afterimage.stages import clean_meeg, reconstruct
from afterimage.stages.meeg_files import Run, open_run
from afterimage.stages.runner import parse_config
from afterimage.stages.shared_decoders import open_decoder

#: How a decoder is trained for streams.
CAUSAL_TRAINING = "clean_meeg: {causal: true}"
#: Calibration where bad channels are given: enough to see that the unit is right, in s.
SHORT_CALIBRATION_S = 2.0


@dataclass(frozen=True)
class Subject:
    """Where the files of one subject and decoder are.

    Attributes
    ----------
    out, bids_dir : Path
        The finished output, and the dataset it was made of.
    name, decoder : str
        ``sub-03`` and ``ridge``.
    """

    out: Path
    bids_dir: Path
    name: str
    decoder: str

    def file(self, folder: str, ending: str) -> Path:
        """Return a file of the subject; an error says what to run where it is missing."""
        path = self.out / self.name / folder / f"{self.name}_{ending}"
        if not path.is_file():
            raise InputError(
                "the output has no decoder that is ready", where=str(self.out),
                found=f"no {path.relative_to(self.out)}",
                expected=f"a finished run of EEG or MEG with the decoder {self.decoder}",
                fix=f"afterimage {self.bids_dir} {self.out} participant; see --decoder",
            )  # fmt: skip
        return path


def made_by(path: Path) -> dict[str, Any]:
    """Return what is said of a file's making beside it: Config and Sources."""
    return read_json(path.with_suffix(".json"))


def decoders_of(out: Path, name: str) -> list[str]:
    """Return the decoders that were trained for a subject."""
    found = sorted((out / name / "decoding").glob(f"{name}_desc-*_model.safetensors"))
    return [path.name.split("_desc-")[1].split("_")[0] for path in found]


class LiveCleaning:
    """The causal cleaning that a subject's training trials had, for one stream.

    Parameters
    ----------
    subject : Subject
    header : StreamHeader
        Of the stream; must have the channels and the rate of the training recordings.
    where : str
        Name of the stream, for messages.
    session : str, optional
        Whose whitening is used; default: of the last session.

    Attributes
    ----------
    stream : CausalStream
    order : array of int
        Channels of the stream that are those of the training, in their order.
    factors : array of shape (n_units,)
        From the units of the stream to SI units.
    bad_channels : dict of str
        Name to reason; known once the calibration is over.
    calibration_s, tmax_s : float
        Length of the calibration; end of a trial from its onset.
    notes : list of str
    """

    def __init__(
        self, subject: Subject, header: StreamHeader, where: str, session: str | None = None
    ) -> None:
        trials, series = subject.file("", "trials.nc"), causal_series(subject)
        self._config = parse_config("clean_meeg", made_by(series)["Config"])
        self._where, self._session = where, session
        self._run, self._machine = _training_run(subject, series, self._config)
        with open_series(series) as opened:
            rate_hz = float(opened.attrs["sampling_rate_hz"])
        self._rate_hz = rate_hz
        names = self._run.units.name.tolist()
        self.order, self.factors = _matched(names, self._run, header, where)
        self._bads = [name for name in header.bads if name in names]
        self.bad_channels: dict[str, str] = {}
        self.notes: list[str] = []
        self._columns, self._whitening = _whitening(trials, session)
        epochs = made_by(trials)["Config"]
        auto = self._config.bad_channels == "auto"
        settings = CausalSettings(
            header.sampling_rate_hz, rate_hz, self._config.highpass_hz, self._config.lowpass_hz,
            self._run.line_freq_hz, epochs["tmin_s"], epochs["tmax_s"],
            None if epochs["baseline_s"] is None else tuple(epochs["baseline_s"]),
            self._config.calibration_s if auto else SHORT_CALIBRATION_S,
        )  # fmt: skip
        self.calibration_s, self.tmax_s = settings.calibration_s, settings.tmax_s
        self.stream = CausalStream(settings, len(names), self._find_matrix)

    def _find_matrix(self, start: np.ndarray) -> np.ndarray:
        """Judge the calibration (n_samples, n_units); return what is done to every sample.

        All that mixes channels offline is linear: done to an identity in place of a recording,
        the same functions give its matrix.
        """
        import mne

        info = self._run.raw.info.copy()
        with info._unlock():
            info["sfreq"] = self._rate_hz
        info["bads"] = list(self._bads)
        raw = mne.io.RawArray(start.T.copy(), info, verbose="error")
        check_units(raw, set(), self._where)
        run = replace(self._run, raw=raw, notes=[], where=self._where)
        bad = clean_meeg.bad_channels_of(run, self._config, self._config.random_state or 0)
        self.bad_channels = dict(bad.reasons)
        run.raw = mne.io.RawArray(np.eye(len(info.ch_names)), raw.info, verbose="error")
        if self._config.sss == "auto":
            run.raw, said = separate_signal_space(run.raw, *self._machine)
            run.notes += said
        run.notes += apply_projections(run.raw)
        run.reference, said = set_reference(run.raw, self._config.reference)
        run.notes += said
        clean_meeg.repair(run, self._config)
        self.notes += run.notes
        mixing = run.raw.get_data(picks=run.units.name.tolist())
        matrix: np.ndarray = self._whitening @ mixing[self._columns]
        return matrix


def causal_series(subject: Subject) -> Path:
    """Return the first usable series of the training; refuse a decoder that is none for streams."""
    trials = subject.file("", "trials.nc")
    predictions = subject.file("decoding", f"desc-{subject.decoder}_predictions.nc")
    if trials.name not in {str(name).split("/")[-1] for name in made_by(predictions)["Sources"]}:
        raise ConfigError(
            "a decoder of tokens has no live form", where=f"{subject.name}, {subject.decoder}",
            found="a decoder that was not trained on the signal", expected="one trained on trials",
            fix="train one with train_decoder.tokens left empty",
        )  # fmt: skip
    made = made_by(trials)
    paths = [subject.out / str(name).removeprefix("bids::") for name in made["Sources"]]
    paths = [path for path in paths if path.name.endswith("_series.nc") and path.is_file()]
    for path in paths if made["Stage"] == "epoch_meeg" else ():
        with open_series(path) as series:
            usable = not series.attrs["problem"]
        if usable and not made_by(path)["Config"]["causal"]:
            raise ConfigError(
                "the decoder was trained on trials whose filters knew of later samples",
                where=f"{subject.name}, {subject.decoder}", found="clean_meeg.causal: false",
                expected="a decoder trained on causal trials, as a stream has them",
                fix=f"put the line  {CAUSAL_TRAINING}  into a configuration, and run: "
                f"afterimage {subject.bids_dir} OUT_DIR participant --config FILE",
            )  # fmt: skip
        if usable:
            return path
    raise InputError(
        "the trials of a subject do not come from recordings", where=str(trials),
        found=f"trials made by {made['Stage']}", expected="trials of raw EEG or MEG",
        fix="name a subject of EEG or MEG whose raw recordings afterimage was run on",
    )  # fmt: skip


def _training_run(
    subject: Subject, series: Path, config: clean_meeg.Config
) -> tuple[Run, tuple[Path | None, Path | None]]:
    """Open a recording of the training: positions, coils, projections, and files of the machine."""
    prefix = "bids:source:"
    sources = [str(name) for name in made_by(series)["Sources"]]
    paths = [subject.bids_dir / name.removeprefix(prefix) for name in sources]
    if not paths or not paths[0].exists():
        raise InputError(
            "a recording that the decoder was trained on is not there", where=str(series),
            found=f"no {paths[0] if paths else 'source'}",
            expected="the dataset: it says where the channels are",
            fix="name the folder of the dataset with --bids-dir",
        )  # fmt: skip
    tables = tuple(path for path in paths[1:] if not path.name.endswith("_events.tsv"))
    run, recording = open_run(clean_meeg.Inputs(paths[0], tables), config)
    run.raw.pick(run.units.name.tolist(), exclude=(), verbose="error")
    return run, (recording.calibration, recording.cross_talk)


def _matched(
    names: list[str], run: Run, header: StreamHeader, where: str
) -> tuple[np.ndarray, np.ndarray]:
    """Find the channels of the training in a stream, and check its rate and units."""
    if missing := [name for name in names if name not in header.names]:
        raise InputError(
            "a stream lacks channels that the decoder was trained on", where=where,
            found=f"no {', '.join(missing[:8])}" + (f" (of {len(missing)})" if missing[8:] else ""),
            expected=f"the {len(names)} channels of the training, by name",
            fix="connect or name them as in the training recordings; a channel that is broken "
            "belongs into the stream, and into bads of its header",
        )  # fmt: skip
    if abs(header.sampling_rate_hz - run.recorded_rate_hz) > 1e-6 * run.recorded_rate_hz:
        raise InputError(
            "a stream has another rate than the recordings of the training", where=where,
            found=f"{header.sampling_rate_hz:g} Hz", expected=f"{run.recorded_rate_hz:g} Hz",
            fix="record at that rate, or train on recordings of this one",
        )  # fmt: skip
    order = np.array([header.names.index(name) for name in names])
    units = [header.units[place] for place in order]
    wrong = [
        f"{name} in {unit}"
        for name, kind, unit in zip(names, run.units.kind, units, strict=True)
        if _quantity(unit) != {"eeg": "V", "mag": "T", "grad": "T/m"}[str(kind)]
    ]
    if wrong:
        raise InputError(
            "channels of a stream have units of another quantity", where=where,
            found=", ".join(wrong[:5]), expected="V for EEG, T for magnetometers, T/m for gradiometers",
            fix="correct the units in the header of the stream",
        )  # fmt: skip
    return order, np.array([FACTORS[unit] for unit in units])


def _quantity(unit: str) -> str:
    if unit in ("T/m", "fT/cm"):
        return "T/m"
    return "T" if unit in ("T", "pT", "fT") else "V"


def _whitening(trials: Path, session: str | None) -> tuple[np.ndarray, np.ndarray]:
    """Return the columns of the series that are units, and the matrix of a session's trials."""
    with open_dataset(trials) as dataset:
        sessions = dataset["session"].values.astype(str)
        known = list(dict.fromkeys(sessions.tolist()))
        wanted = known[-1] if session is None else session.removeprefix("ses-")
        if wanted not in known:
            raise UsageError(
                "there is no such session", where="--session", found=wanted,
                expected=", ".join(known), fix="name one of these, or none: the last",
            )  # fmt: skip
        fit = int(dataset["whitening_index"].values[sessions == wanted][-1])
        matrix = np.asarray(dataset["whitening"].values[fit], np.float64)
        return dataset["series_column"].values.astype(int), matrix


class LiveDecoder:
    """A fitted decoder and the test pictures that its trials are compared with.

    Parameters
    ----------
    subject : Subject
    blocks : collection of str
        Feature blocks that are wanted; empty: all.

    Attributes
    ----------
    gallery_ids : array of str, shape (n_pictures,)
    nothing : dict of array
        What it makes of a trial without a signal.
    """

    def __init__(self, subject: Subject, blocks: Collection[str] = ()) -> None:
        trials = subject.file("", "trials.nc")
        model = subject.file("decoding", f"desc-{subject.decoder}_model.safetensors")
        self._decoder, card = open_decoder(model)
        self._gallery: Any
        limits = card["window_s"]
        layout = read_layout(trials)
        with open_reader(trials) as reader:
            self._times = reader.window(*limits)
        needs_layout = getattr(self._decoder, "needs_layout", False)
        self._extra = {"layout": window(layout, *limits)} if needs_layout else {}
        features = subject.file("features", "split-test_features.nc")
        self.gallery_ids, self._gallery = read_blocks(features)
        if not len(self.gallery_ids):
            raise InputError(
                "there is no gallery to find pictures in", where=subject.name,
                found="no test picture with features", expected="the pictures of the test split",
                fix="run afterimage on a dataset with its test pictures",
            )  # fmt: skip
        if hasattr(self._decoder, "placed"):
            self._gallery = self._decoder.placed(self._gallery)
            # What nobody asks for is not decoded: with many channels it would cost the most.
            state = {
                key: value
                for key, value in self._decoder.state().items()
                if not blocks or key.split("/")[-1] in (*blocks, key)
            }
            self._decoder = type(self._decoder).from_state(self._decoder.settings, state)
        # What is loaded at the first use makes no trial wait.
        self.nothing, _ = self.decode(np.zeros((layout.n_units, layout.n_times), np.float32))

    def decode(self, epoch: np.ndarray) -> tuple[dict[str, np.ndarray], np.ndarray]:
        """Decode one trial.

        Parameters
        ----------
        epoch : array of shape (n_units, n_times), float32

        Returns
        -------
        predicted : dict of block to float32 (1, n_features)
        scores : float32, (n_pictures,)
        """
        responses = np.ascontiguousarray(epoch[:, self._times]).reshape(1, -1)
        predicted = self._decoder.predict(responses, **self._extra)
        scores = self._decoder.scores(responses, self._gallery, **self._extra)
        return predicted, scores[0]


Paint = Callable[[Mapping[str, np.ndarray], str], np.ndarray]


def open_painter(
    subject: Subject, method: str | None, n_steps: int, device: str
) -> tuple[Paint, list[str]]:
    """Return what paints predicted features, (features, key of the noise) to uint8, and its blocks.

    The generator and its settings are those of the output's reconstructions, but for few steps and
    one candidate.

    Parameters
    ----------
    subject : Subject
    method : str or None
        Name of a reconstruction method; None: the first with a sampler.
    n_steps : int
        Steps of the sampler at strength 1.
    device : str
    """
    from transformers.utils import logging

    logging.disable_progress_bar()
    made = subject.file("recon", f"desc-{subject.decoder}_recon.nc")
    config = parse_config("reconstruct", made_by(made)["Config"])
    sampled = [name for name, one in config.methods.items() if hasattr(one, "n_steps")]
    chosen = method or next(iter(sampled), next(iter(config.methods)))
    if chosen not in config.methods:
        raise UsageError(
            "there is no such reconstruction", where="--method", found=chosen,
            expected=", ".join(config.methods), fix="name one of these",
        )  # fmt: skip
    settings = config.methods[chosen]
    if hasattr(settings, "n_steps"):
        settings = settings.model_copy(update={"n_steps": n_steps, "n_candidates": 1})
    own = subject.out / subject.name / "generator"
    inputs = reconstruct.Inputs(
        made, subject.file("features", "split-train_features.nc"), subject.file("", "split.tsv"),
        subject.bids_dir / "dataset_description.json", own if own.is_dir() else None,
    )  # fmt: skip
    painter = reconstruct.open_method(settings, inputs.generator, device)
    material = reconstruct.open_material(inputs, config.random_state or 0, device)

    def paint(predicted: Mapping[str, np.ndarray], key: str) -> np.ndarray:
        (picture,), _ = painter.reconstruct(predicted, replace(material, keys=[key]))
        return np.asarray(picture)

    names = block_shapes(inputs.features)
    return paint, [str(v) for v in settings.model_dump().values() if str(v) in names]
