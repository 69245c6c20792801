"""Compute the static connectivity of one subject's recordings, with every configured measure."""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field, field_validator

from afterimage.bids.names import entity, unit_of
from afterimage.connectivity.registry import CONNECTIVITY
from afterimage.errors import AfterimageError, InputError
from afterimage.io.arrays import write_dataset
from afterimage.io.atomic import write_json, write_text
from afterimage.settings import StageConfig
from afterimage.stages.runner import record_skipped
from afterimage.stages.series_files import Recording, common_units, read_recordings

VERSION = 1
CITES = ("biswal1995", "marrelec2006", "varoquaux2010", "abraham2014")

log = logging.getLogger("afterimage")

#: Measures computed unasked; of parcels the first two, of sensors the others.
DEFAULTS = ("correlation", "partial", "coherence", "imaginary_coherence", "wpli",
            "envelope_correlation")  # fmt: skip


class Config(StageConfig):
    """Measures of static connectivity."""

    measures: dict[str, CONNECTIVITY.union()] = Field(  # type: ignore[valid-type]
        default={name: CONNECTIVITY.settings(name)() for name in DEFAULTS},
        description="name: a registered measure under its kind, and its settings",
    )
    write_tables: bool = Field(
        True, description="also write every matrix as _relmat.tsv with a sidecar"
    )

    @field_validator("measures")
    @classmethod
    def _names(cls, measures: dict[str, Any]) -> dict[str, Any]:
        for name in measures:
            if not re.fullmatch(r"[a-zA-Z][a-zA-Z0-9_]*", name):
                raise ValueError(f"the name of a measure, {name!r}, must be letters and digits")
        return measures


@dataclass(frozen=True)
class Inputs:
    """What the stage reads: the series of one subject, of one set of regions or sensors."""

    series: tuple[Path, ...]


@dataclass(frozen=True)
class Outputs:
    """What the stage writes; tables of single matrices lie beside it."""

    connectivity: Path


def run(
    inputs: Inputs, outputs: Outputs, config: Config, *, threads: int = 1, device: str = "cpu"
) -> None:
    """Compute all measures that apply, on the units that all recordings share."""
    recordings, notes = read_recordings(inputs.series)
    if not recordings:
        raise InputError(
            "a subject has no recording for connectivity", where=unit_of(outputs.connectivity),
            found=f"{len(inputs.series)} recordings, all left out: {'; '.join(notes)[:400]}",
            expected="one that can be used", fix="see what is said of each",
        )  # fmt: skip
    errors: list[AfterimageError] = []
    recordings, dropped = common_units(recordings)
    if dropped:
        more = ", ..." if len(dropped) > 8 else ""
        notes.append(
            f"{len(dropped)} units are not in all recordings, or do not vary: "
            f"{', '.join(dropped[:8])}{more}"
        )
    kinds = recordings[0].units["kind"]
    chosen = {n: s for n, s in config.measures.items() if s.applies(kinds)}
    matrices: dict[str, np.ndarray] = {}
    for name, settings in chosen.items():
        try:
            matrices[name] = _measure(settings, recordings)
        except AfterimageError as error:
            errors.append(error)
            notes.append(f"{name} could not be computed: {str(error).splitlines()[0]}")
    if not matrices:
        raise errors[0] if errors else InputError(
            "no measure of connectivity applies", where=unit_of(outputs.connectivity),
            found=f"units of the kind {kinds[0]}, measures {', '.join(config.measures) or 'none'}",
            expected="a measure for them", fix="see connect.measures and their units",
        )  # fmt: skip
    record_skipped("connect", outputs.connectivity, *errors)
    dataset = _dataset(recordings, matrices, config, notes)
    outputs.connectivity.parent.mkdir(parents=True, exist_ok=True)
    write_dataset(outputs.connectivity, dataset)
    if config.write_tables:
        _write_tables(outputs.connectivity, inputs.series, recordings, matrices, config)
    for note in notes:
        log.info("%s: %s", unit_of(outputs.connectivity), note)


def _measure(settings: Any, recordings: Sequence[Recording]) -> np.ndarray:
    """Return one measure of all recordings, (n_recordings, n_units, n_units) float32."""
    measure = CONNECTIVITY.get(settings.kind)(settings)
    series = [recording.values for recording in recordings]
    kept = [recording.kept for recording in recordings]
    if measure.n_fit:
        measure.fit(series, kept=kept)
    return np.concatenate(
        [
            measure.transform(
                [recording.values], kept=[recording.kept],
                sampling_rate_hz=recording.sampling_rate_hz,
            )
            for recording in recordings
        ]
    )  # fmt: skip


def stat_label(name: str, settings: Any) -> str:
    """Return the label of a measure in file names: its own, unless the entry has another name."""
    if name == settings.kind:
        return str(CONNECTIVITY.get(settings.kind).stat)
    return re.sub(r"[^a-zA-Z0-9]", "", name)


def _dataset(
    recordings: Sequence[Recording],
    matrices: dict[str, np.ndarray],
    config: Config,
    notes: Sequence[str],
) -> Any:
    import xarray

    first = recordings[0]

    def about(name: str) -> list[str]:
        return [getattr(recording, name) for recording in recordings]

    def numbers(name: str) -> list[int]:
        return [int(recording.attrs.get(name, -1)) for recording in recordings]  # type: ignore[call-overload]

    nothing = np.full(len(first.names), np.nan, np.float32)
    text = {
        "kind": first.units["kind"],
        "network": first.units.get("network", np.full(len(first.names), "n/a")),
    }
    return xarray.Dataset(
        {
            "connectivity": (
                ("recording", "measure", "unit", "unit_"), np.stack(list(matrices.values()), 1),
            )
        },
        coords={
            "recording": ("recording", np.array(about("name"), dtype=object)),
            **{
                name: ("recording", np.array(about(name), dtype=object))
                for name in ("session", "task", "run")
            },
            "n_samples": ("recording", [int(r.kept.sum()) for r in recordings]),
            "n_censored": ("recording", [int((~r.kept).sum()) for r in recordings]),
            "degrees_of_freedom": ("recording", numbers("degrees_of_freedom")),
            "n_confounds": ("recording", numbers("n_confounds")),
            "measure": ("measure", np.array(list(matrices), dtype=object)),
            "stat": (
                "measure",
                np.array([stat_label(n, config.measures[n]) for n in matrices], dtype=object),
            ),
            "roi": ("unit", first.names.astype(object)),
            **{name: ("unit", np.asarray(v).astype(object)) for name, v in text.items()},
            **{axis: ("unit", first.units.get(axis, nothing)) for axis in "xyz"},
        },
        attrs={
            "subject": first.subject, "seg": first.seg, "notes": "; ".join(notes),
            "sampling_rate_hz": first.sampling_rate_hz,
            "individual": int(first.attrs.get("individual", 0)),  # type: ignore[call-overload]
        },
    )  # fmt: skip


#: What sidecars of matrices repeat of their series: key there, and attribute of the series.
_SAID = {
    "DegreesOfFreedom": "degrees_of_freedom", "Confounds": "n_confounds",
    "HighPass": "high_pass_hz", "LowPass": "low_pass_hz",
}  # fmt: skip


def _write_tables(
    path: Path,
    series: Sequence[Path],
    recordings: Sequence[Recording],
    matrices: dict[str, np.ndarray],
    config: Config,
) -> None:
    """Write each matrix as ``_relmat.tsv``, with what made it in a sidecar."""
    subject, seg = entity(path, "sub"), entity(path, "seg")
    for index, recording in enumerate(recordings):
        run = "" if recording.name.startswith("sub-") else f"_{recording.name}"
        for name, values in matrices.items():
            settings = config.measures[name]
            stem = f"sub-{subject}{run}_seg-{seg}_stat-{stat_label(name, settings)}_relmat"
            names = recording.names.tolist()
            rows = [
                "\t".join([label, *(f"{value:.6g}" for value in row)])
                for label, row in zip(names, values[index].tolist(), strict=True)
            ]
            text = "\n".join(["\t".join(["Node", *names]), *rows]) + "\n"
            write_text(path.with_name(f"{stem}.tsv"), text)
            write_json(
                path.with_name(f"{stem}.json"),
                {
                    "RelationshipMeasure": name,
                    "Measure": settings.model_dump(mode="json"),
                    "Directed": False,
                    "Volumes": int(recording.kept.sum()),
                    "Censored": int((~recording.kept).sum()),
                    "SamplingFrequency": recording.sampling_rate_hz or None,
                    **{
                        key: float(recording.attrs[name]) or None  # type: ignore[arg-type]
                        for key, name in _SAID.items()
                        if name in recording.attrs
                    },
                    "Recordings": [file.name for file in series],
                },
            )
