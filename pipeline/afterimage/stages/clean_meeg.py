"""Clean one run of EEG or MEG; write its series, its trials and what was found in it."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from pydantic import Field, model_validator

from afterimage.bids.recordings import common_rate_hz
from afterimage.errors import InputError
from afterimage.io.recordings import Recording
from afterimage.preprocess.meeg.bad_channels import (
    BadChannels,
    find_bad_channels,
    score_arrays,
)
from afterimage.preprocess.meeg.bad_segments import (
    BadSegments,
    find_bad_segments,
    find_muscle,
    given_segments,
)
from afterimage.preprocess.meeg.filtering import (
    band_pass,
    remove_line_noise,
    resample,
    resampled_rate,
)
from afterimage.preprocess.meeg.ica import Components, remove_artifacts
from afterimage.preprocess.meeg.quality import power_spectrum, robust_deviation
from afterimage.preprocess.meeg.reference import (
    apply_projections,
    interpolate_bads,
    separate_signal_space,
    set_reference,
)
from afterimage.settings import StageConfig
from afterimage.stages.meeg_files import Run, open_run, write_empty, write_run
from afterimage.stages.runner import record_skipped

if TYPE_CHECKING:
    import mne

VERSION = 3
CITES = (
    "widmann2015", "bigdelyshamlo2015", "jas2017", "ablin2018", "piontonachini2019", "taulu2005",
)  # fmt: skip
# Seconds of a run that its spectra are estimated on.
_SPECTRUM_S = 120.0

log = logging.getLogger("afterimage")


class Config(StageConfig):
    """How a run of EEG or MEG is cleaned; the continuous signal is resampled once."""

    highpass_hz: float = Field(0.1, ge=0, description="slower signals are taken out; 0: none")
    lowpass_hz: float | None = Field(
        40.0, gt=0, description="faster signals are taken out; null: none"
    )
    line_freq_hz: float | None = Field(
        None, ge=0, description="line frequency taken out; null: PowerLineFrequency of the sidecar"
    )
    line_method: Literal["notch", "spectrum_fit"] = Field(
        "notch", description="how the line is taken out: a narrow stop band, or fitted sines"
    )
    resample_hz: float | None = Field(
        250.0,
        gt=0,
        description="rate of the series; lower where a recording of the subject is slower; null: that",
    )
    bad_channels: Literal["auto", "given"] = Field(
        "auto", description="auto: found in the signal, besides those that channels.tsv marks"
    )
    ransac: bool = Field(
        True, description="whether EEG channels must also be predicted by subsets of the others"
    )
    interpolate: bool = Field(
        True, description="replace bad channels by what their neighbours predict, where possible"
    )
    max_bad_fraction: float = Field(
        0.5, gt=0, le=1, description="a run with a larger share of bad channels is refused"
    )
    bad_segments: Literal["auto", "given"] = Field(
        "auto", description="auto: found in the signal, besides annotations that start with BAD"
    )
    max_peak_to_peak_uv: float | None = Field(
        None,
        gt=0,
        description="EEG that varies more than this in half a second is bad; null: no limit",
    )
    ica: Literal["none", "auto"] = Field(
        "none", description="auto: take eyes, heart and muscles out by independent components"
    )
    n_components: int | None = Field(
        None, ge=2, description="independent components; null: as the rank allows, at most 30"
    )
    reference: Literal["auto", "average", "mastoids", "none"] = Field(
        "auto", description="EEG reference; auto: the average where there are 16 channels or more"
    )
    sss: Literal["auto", "none"] = Field(
        "auto", description="signal space separation of MEG, where its calibration files are there"
    )
    causal: bool = Field(
        False, description="no sample knows of later ones: for decoding in real time"
    )
    calibration_s: float = Field(
        60.0,
        gt=0,
        description="causal: start of the run by which channels and segments are judged",
    )
    montage: str | None = Field(
        None, description="template of EEG positions; null: standard_1005 where none are given"
    )
    stimulus_column: str = Field(
        "",
        description="column of events.tsv with the stimulus; empty: stimulus_id, stim_file or trial_type",
    )
    onset_column: str = Field("onset", description="column of events.tsv that holds the onsets")
    trial_types: list[str] = Field(
        default=[],
        description="values of trial_type that are trials; empty: all but rest, fixation and the like",
    )
    on_bad_run: Literal["skip", "fail"] = Field(
        "skip", description="whether a run that cannot be used is left out or stops the subject"
    )
    random_state: int | None = Field(
        None, description="seed of ICA and RANSAC; default: the root seed"
    )

    @model_validator(mode="after")
    def _consistent(self) -> Config:
        if self.causal and self.ica != "none":
            raise ValueError(
                "ica looks at the whole recording: set it to none, or causal to false"
            )
        if self.lowpass_hz is not None and self.lowpass_hz <= self.highpass_hz:
            raise ValueError("lowpass_hz must be above highpass_hz")
        return self


@dataclass(frozen=True)
class Inputs:
    """What the stage reads; `sidecars` are JSON files and tables of channels and electrodes.

    A recording at rest has no events.
    """

    recording: Path
    sidecars: tuple[Path, ...]
    events: Path | None = None


@dataclass(frozen=True)
class Outputs:
    """What the stage writes."""

    series: Path
    events: Path
    quality: Path


def run(
    inputs: Inputs, outputs: Outputs, config: Config, *, threads: int = 1, device: str = "cpu"
) -> None:
    """Clean one run and write it; leave it out, with the reason, where it cannot be used."""
    try:
        cleaned, recording = open_run(inputs, config)
        segments = _clean(cleaned, recording, config, inputs)
    except InputError as error:
        if config.on_bad_run == "fail":
            raise
        record_skipped("clean_meeg", outputs.series, error)
        write_empty(outputs, str(error))
        return
    write_run(cleaned, segments, outputs, config)
    for note in cleaned.notes:
        log.info("%s: %s", inputs.recording.name, note)


def _clean(run: Run, recording: Recording, config: Config, inputs: Inputs) -> BadSegments:
    """Resample, filter, find what is bad, take out artefacts, refer anew; fill ``run.found``."""
    names, seed = run.units.name.tolist(), config.random_state or 0
    before = _part(run.raw, names)
    psd, frequencies = power_spectrum(before, run.recorded_rate_hz)
    rate_hz = _rate(run, config, inputs.recording)
    run.raw = resample(run.raw, rate_hz, causal=config.causal)
    if run.line_freq_hz:
        remove_line_noise(
            run.raw, run.line_freq_hz, method=config.line_method, causal=config.causal
        )
    bad = bad_channels_of(run, config, seed)
    if config.sss == "auto":
        run.raw, said = separate_signal_space(run.raw, recording.calibration, recording.cross_talk)
        run.notes += said
    run.notes += apply_projections(run.raw)
    segments = _marked_segments(run)
    good = [name for name in names if name not in run.raw.info["bads"]]
    start_s = config.calibration_s if config.causal else None
    if config.bad_segments == "auto":
        seen = find_muscle(segments, run.raw.get_data(picks=good), rate_hz, calibration_s=start_s)
        if not seen:
            run.notes.append("muscles are not looked for: the recording is too slow or short")
    run.notes += band_pass(
        run.raw, config.highpass_hz or None, config.lowpass_hz, causal=config.causal
    )
    # Before ICA, which removes nothing of the reference it did not see; bad channels stay out.
    run.reference, said = set_reference(run.raw, config.reference)
    run.notes += said
    components = _ica(run, segments, config, seed)
    if config.bad_segments == "auto":
        limit = config.max_peak_to_peak_uv
        find_bad_segments(
            segments, run.raw.get_data(picks=good),
            run.units.kind[np.isin(run.units.name, good)], rate_hz,
            limit=limit * 1e-6 if limit else None, calibration_s=start_s,
        )  # fmt: skip
    repair(run, config)
    after = _part(run.raw, names)
    run.found.psd_before, run.found.frequencies_hz = psd, frequencies
    run.found.psd_after, _ = power_spectrum(after, rate_hz, frequencies)
    run.found.amplitude_before = _amplitude(before)
    run.found.amplitude_after = _amplitude(after)
    run.found.reasons = bad.reasons
    run.found.scores = dict(score_arrays(bad, names))
    run.found.segments, run.found.fractions = segments.segments, segments.fractions
    run.found.components = components
    return segments


def _rate(run: Run, config: Config, recording: Path) -> float:
    """Return the rate of the series: one for all runs of the subject."""
    slowest = common_rate_hz(recording)
    wanted = config.resample_hz
    if slowest is not None and slowest < (wanted or run.recorded_rate_hz) - 1e-6:
        wanted = slowest
        if run.recorded_rate_hz > slowest + 1e-6:
            run.notes.append(
                f"recorded at {run.recorded_rate_hz:g} Hz, other runs at {slowest:g} Hz: "
                f"brought to {slowest:g} Hz"
            )
    rate_hz = resampled_rate(run.recorded_rate_hz, wanted, causal=config.causal)
    if wanted is not None and config.causal and abs(rate_hz - min(wanted, rate_hz)) > 1e-6:
        run.notes.append(
            f"{rate_hz:g} Hz in place of {wanted:g} Hz: only every k-th sample can be kept without "
            "looking ahead"
        )
    return rate_hz


def _part(raw: mne.io.BaseRaw, names: list[str]) -> np.ndarray:
    """Return the middle of a run, (n_units, n_times), enough for spectra and amplitudes."""
    length = min(raw.n_times, round(_SPECTRUM_S * float(raw.info["sfreq"])))
    first = (raw.n_times - length) // 2
    part: np.ndarray = raw.get_data(picks=names, start=first, stop=first + length)
    return part


def _amplitude(signal: np.ndarray) -> np.ndarray:
    return robust_deviation(signal[:, :: max(1, signal.shape[1] // 20_000)])


def bad_channels_of(run: Run, config: Config, seed: int) -> BadChannels:
    """Find bad channels and mark them in the recording."""
    names = run.units.name.tolist()
    known = [name for name in run.raw.info["bads"] if name in names]
    bad = BadChannels(dict.fromkeys(known, "given"))
    if config.bad_channels == "auto":
        raw = run.raw
        if config.causal:
            raw = raw.copy().crop(0, min(config.calibration_s, float(raw.times[-1])))
        bad = find_bad_channels(raw, ransac=config.ransac, random_state=seed)
    bad.reasons.update(dict.fromkeys(run.not_finite, "not finite"))
    n_bad = len(bad.reasons)
    if n_bad > config.max_bad_fraction * len(names) or n_bad == len(names):
        listed = ", ".join(f"{name} ({why})" for name, why in list(bad.reasons.items())[:8])
        given = set(bad.reasons.values()) == {"given"}
        raise InputError(
            "too many channels of a run are bad", where=run.where,
            found=f"{n_bad} of {len(names)}: {listed}",
            expected=f"at most {config.max_bad_fraction:.0%}",
            fix="correct the column status of channels.tsv, or leave the run out" if given
            else "leave the run out, raise max_bad_fraction, or set bad_channels to given",
        )  # fmt: skip
    run.raw.info["bads"] = [name for name in names if name in bad.reasons]
    return bad


def _marked_segments(run: Run) -> BadSegments:
    """Return the stretches that the recording itself marks as bad."""
    marks = run.raw.annotations
    offset = run.raw.first_time if marks.orig_time is not None else 0.0
    listed = [
        (float(onset) - offset, float(duration), str(text))
        for onset, duration, text in zip(
            marks.onset, marks.duration, marks.description, strict=True
        )
        if str(text).lower().startswith("bad")
    ]
    return given_segments(run.raw.n_times, run.rate_hz, listed)


def _ica(run: Run, segments: BadSegments, config: Config, seed: int) -> Components | None:
    """Take artefacts out where asked."""
    if config.ica == "none":
        return None
    components, said = remove_artifacts(
        run.raw, segments.mask, n_components=config.n_components, random_state=seed
    )
    run.notes += said
    if components is not None:
        names = ", ".join(np.array(components.labels)[components.excluded].tolist()) or "none"
        run.notes.append(f"components taken out: {names}")
    return components


def repair(run: Run, config: Config) -> None:
    """Interpolate bad channels where that is possible; the average is then over all again."""
    bads = list(run.raw.info["bads"])
    if not bads:
        return
    interpolated, kept = interpolate_bads(run.raw) if config.interpolate else ([], bads)
    run.found.repaired = dict.fromkeys(interpolated, "interpolated") | dict.fromkeys(kept, "kept")
    if interpolated and run.reference == "average":
        set_reference(run.raw, "average")  # over all channels now
    if interpolated:
        run.notes.append(f"bad channels were interpolated: {', '.join(interpolated)}")
    if kept:
        run.notes.append(f"bad channels stay as they are: {', '.join(kept)}")
