"""What the report reads of the run itself: stages, errors, costs, versions, the dataset's name."""

from __future__ import annotations

import functools
import importlib.metadata
import re
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from afterimage import __version__
from afterimage.io.tables import Row, read_json, read_tsv
from afterimage.reports.provenance import StageError, StageRun
from afterimage.stages import (
    ablate_regions,
    apply_shared_decoder,
    caption,
    clean_bold,
    clean_meeg,
    connect,
    connect_dynamic,
    couple_states,
    decode_conditions,
    epoch_meeg,
    evaluate,
    evaluate_time,
    extract_features,
    extract_series,
    fit_responses,
    learning_curve,
    map_graphs,
    measure_graphs,
    parcellate,
    prepare_responses,
    prepare_series,
    reconstruct,
    reference_bold,
    train_decoder,
    train_generator,
)
from afterimage.stages.runner import job_log

Link = tuple[str, ModuleType, str]
#: How responses come about, by where they start: stage, its module, and a file that tells that it
#: ran; of a netCDF file its sidecar, which also tells what made it.
PREPARED: tuple[Link, ...] = (("prepare_responses", prepare_responses, "{s}_trials.json"),)
SCANNED: tuple[Link, ...] = (
    ("reference_bold", reference_bold, "{s}_desc-reference_boldref.nii.gz"),
    ("clean_bold", clean_bold, "**/func/{s}*_desc-clean_series.json"),
)
SCANNED_TRIALS: tuple[Link, ...] = (("fit_responses", fit_responses, "{s}_trials.json"),)
RECORDED: tuple[Link, ...] = (("clean_meeg", clean_meeg, "**/*eg/{s}*_desc-clean_series.json"),)
RECORDED_TRIALS: tuple[Link, ...] = (("epoch_meeg", epoch_meeg, "{s}_trials.json"),)
#: How series come about, and what they are for.
PREPARED_SERIES: tuple[Link, ...] = (
    ("prepare_series", prepare_series, "**/func/{s}*_desc-denoised_series.json"),
)
SCANNED_SERIES: tuple[Link, ...] = (
    ("parcellate", parcellate, "{s}_seg-*_parcels.json"),
    ("extract_series", extract_series, "**/func/{s}*_desc-denoised_series.json"),
)
CONNECTED: tuple[Link, ...] = (("connect", connect, "connectivity/{s}_seg-*_connectivity.json"),)
#: What else is asked of series, by its section of the configuration.
CONNECTED_MORE: tuple[Link, ...] = (
    ("connect_dynamic", connect_dynamic, "connectivity/{s}_seg-*_dynamic.json"),
    ("couple_states", couple_states, "connectivity/{s}_seg-*_coupling.json"),
)
#: Graphs of regions; sensors have none.
GRAPHS: tuple[Link, ...] = (
    ("measure_graphs", measure_graphs, "connectivity/{s}_seg-*_graphs.tsv"),
)
VOXEL_GRAPHS: tuple[Link, ...] = (("map_graphs", map_graphs, "connectivity/{s}_graphs.json"),)
#: What follows EEG and MEG where there are pictures, and where there are none.
TIMED: tuple[Link, ...] = (("evaluate_time", evaluate_time, "evaluation/{s}_time.json"),)
LEARNING: tuple[Link, ...] = (("learning_curve", learning_curve, "evaluation/{s}_learning.tsv"),)
ABLATED: tuple[Link, ...] = (("ablate_regions", ablate_regions, "evaluation/{s}_regions.tsv"),)
CONDITIONS: tuple[Link, ...] = (
    ("decode_conditions", decode_conditions, "decoding/{s}_conditions.json"),
)
#: What follows where there are pictures.
PICTURED: tuple[Link, ...] = (
    ("train_generator", train_generator, "generator/training.json"),
    ("extract_features", extract_features, "features/{s}_split-train_features.json"),
    ("train_decoder", train_decoder, "decoding/{s}_desc-{d}_predictions.json"),
    ("apply_shared_decoder", apply_shared_decoder, "decoding/{s}_desc-{shared}_predictions.json"),
    ("reconstruct", reconstruct, "recon/{s}_desc-{d}_recon.json"),
    ("caption", caption, "recon/{s}_captions.tsv"),
    ("evaluate", evaluate, "evaluation/{s}_audit.json"),
)


def read_rows(root: Path, subject: str | None = None) -> list[Row]:
    """Return the rows of the table of units, of one subject or of all; none where it is absent."""
    path = root / "code" / "units.tsv"
    rows = read_tsv(path, required=("subject",)) if path.is_file() else []
    return [row for row in rows if subject in (None, row["subject"])]


def has_scans(folder: Path, rows: Sequence[Row]) -> bool:
    """Say whether the responses of a subject come from scans, by its rows, else by its files."""
    sources = {row.get("source", "n/a") for row in rows} - {"n/a"}
    if sources:
        return not sources <= {"prepared", "series"}
    return any(folder.glob("**/func/*_desc-bold_quality.nc"))


def has_recordings(folder: Path, rows: Sequence[Row]) -> bool:
    """Say whether the responses of a subject come from EEG or MEG, by its rows, else its files."""
    if any(row.get("recording", "n/a") != "n/a" for row in rows):
        return True
    return any(any(folder.glob(f"**/{kind}/*_desc-meeg_quality.nc")) for kind in ("eeg", "meg"))


def has_pictures(rows: Sequence[Row]) -> bool:
    """Say whether any row has pictures; a table that does not tell is taken to have some."""
    return not rows or any(row.get("stimuli", "yes") != "no" for row in rows)


def has_trials(rows: Sequence[Row]) -> bool:
    """Say whether any row has trials; a table that does not tell is taken to have some."""
    return not rows or any(
        row.get("source") == "prepared" or row.get("events", "") != "n/a" for row in rows
    )


def has_series(folder: Path, rows: Sequence[Row], sections: dict[str, Any]) -> bool:
    """Say whether recordings of a subject become series, by its rows and settings, or its files."""
    if any(folder.glob("connectivity/*_connectivity.nc")):
        return True
    mode = sections.get("extract_series", {}).get("runs", "auto")
    usable = [row for row in rows if row.get("problem", "n/a") == "n/a"]
    scans = [
        row for row in usable if row.get("source", "n/a") not in ("prepared", "series", "n/a")
    ]
    if len(scans) < len(usable):
        return any(row.get("source") == "series" for row in usable)
    atlases = sections.get("parcellate", {}).get("atlases")
    wanted = [r for r in scans if r.get("events") == "n/a" or (atlases and r.get("bold") != "n/a")]
    return mode != "none" and bool(scans if mode == "all" else wanted)


def chain(folder: Path, rows: Sequence[Row], sections: dict[str, Any]) -> list[Link]:
    """Return the stages that a subject goes through before its report, in order."""
    recorded, scanned = has_recordings(folder, rows), has_scans(folder, rows)
    trials, series = has_trials(rows), has_series(folder, rows, sections)
    more = [link for link in CONNECTED_MORE if sections.get(link[0], {}).get("enabled")]
    connected = [*CONNECTED, *more] if series else []
    if recorded:
        first = [*RECORDED, *connected, *(RECORDED_TRIALS if trials else ())]
    elif scanned:
        made = [*SCANNED_SERIES, *connected, *GRAPHS, *VOXEL_GRAPHS] if series else []
        first = [*SCANNED, *made, *(SCANNED_TRIALS if trials else ())]
    else:
        first = [
            *(PREPARED if trials else ()),
            *([*PREPARED_SERIES, *connected, *GRAPHS] if series else ()),
        ]
    links = [*first, *(PICTURED if has_pictures(rows) else ())]
    told = any(folder.glob("decoding/*_conditions.tsv"))
    links += TIMED if recorded and trials and has_pictures(rows) else ()
    links += [*LEARNING, *ABLATED] if has_pictures(rows) else ()
    links += CONDITIONS if told or (recorded and trials and not has_pictures(rows)) else ()
    # These run only where they are asked for.
    optional = ("train_generator", "map_graphs", "learning_curve", "ablate_regions")
    off = [name for name in optional if not sections.get(name, {}).get("enabled")]
    encoders = sections.get("extract_features", {}).get("encoders", {}).values()
    off += [] if any(one.get("kind") == "git" for one in encoders) else ["caption"]
    alone, shared = decoder_names(sections)
    off += ([] if alone else ["train_decoder"]) + ([] if shared else ["apply_shared_decoder"])
    return [link for link in links if link[0] not in off]


def decoder_names(sections: dict[str, Any]) -> tuple[list[str], list[str]]:
    """Return the names of the decoders of one subject, and of those of several."""
    alone = sections.get("train_decoder", {}).get("decoders", {"ridge": {}})
    return list(alone), list(sections.get("train_shared_decoder", {}).get("decoders", {}))


def stage_errors(root: Path, name: str, rows: Sequence[Row] = ()) -> list[StageError]:
    """Read the recorded errors of one unit, with the end of each log.

    An error is partial where the rest of the unit went on: a stage left out bad input, or some of
    a subject's runs (``rows``) could not be used from the start.
    """
    usable = any(row.get("problem", "n/a") == "n/a" for row in rows)
    errors = []
    for path in sorted((root / "logs" / "errors").glob("*.json")):
        record = read_json(path)
        if record.get("unit") != name:
            continue
        stage = str(record.get("stage"))
        log = job_log(root, path)
        tail = log.read_text(encoding="utf-8", errors="replace")[-4000:] if log else ""
        link = log.relative_to(root).as_posix() if log else ""
        partial = path.stem.endswith("_skipped") or (stage == "index" and usable)
        errors.append(StageError(stage, str(record.get("message")), link, tail, partial))
    return errors


def stage_runs(
    root: Path,
    name: str,
    rows: Sequence[Row],
    sections: dict[str, Any],
    errors: Sequence[StageError],
) -> list[StageRun]:
    """Say of every stage of a subject whether it ran, failed, was skipped, or is out of date.

    Parameters
    ----------
    root : Path
        The output dataset.
    name : str
        ``sub-01``.
    rows : sequence of Row
        Its rows of the table of units.
    sections : dict
        The configuration of the stages.
    errors : sequence of StageError
        Of this subject; partial ones leave their stage done.
    """
    alone, together = decoder_names(sections)
    names = [
        (d, shared) for d in [*alone, *together] or ["none"] for shared in together or ["none"]
    ]
    failed = {error.stage: error for error in errors if not error.partial}
    runs = []
    broken = "index" if "index" in failed else ""
    for stage, module, pattern in chain(root / name, rows, sections):
        found = {
            file: read_json(file) if file.suffix == ".json" else {}
            for d, shared in names
            for file in sorted((root / name).glob(pattern.format(s=name, d=d, shared=shared)))
        }
        files = [file for file, one in found.items() if one.get("Stage", stage) == stage]
        sidecars = [found[file] for file in files if found[file]]
        sidecar = sidecars[0] if sidecars else {}
        status = "done" if files else "missing"
        stale = next(
            (text for s in sidecars if (text := _stale(s, sections.get(stage), module.VERSION))),
            "",
        )
        if stage in failed:
            status, broken, stale = "failed", stage, ""
        elif broken:
            status = "skipped"
            if files and not stale:
                stale = f"of an earlier run: {broken} failed since"
        seconds, peak_memory_mb = _cost(root / "logs" / "cost" / stage, name)
        runs.append(
            StageRun(
                name=stage,
                version=sidecar.get("StageVersion", module.VERSION),
                status=status,
                runtime_s=seconds,
                peak_memory_mb=peak_memory_mb,
                config_hash=str(sidecar.get("ConfigHash", "")),
                log_path=failed[stage].log_path if stage in failed else "",
                stale=stale,
                cites=module.CITES,
            )
        )
    return runs


def _stale(sidecar: dict[str, Any] | None, section: dict[str, Any] | None, version: int) -> str:
    """Say why an output does not belong to the configuration, or return an empty string."""
    if not sidecar or "Config" not in sidecar or not section:
        return ""
    if sidecar["StageVersion"] != version:
        return f"made by version {sidecar['StageVersion']} of the stage, now {version}"
    for key, value in sidecar["Config"].items():
        if key in ("split", "stimuli_digest") or key not in section:
            continue
        wanted = section[key]
        if isinstance(value, dict) and isinstance(wanted, dict):
            wanted = {name: wanted.get(name) for name in value}
        if value != wanted:
            return f"made with another value of {key}"
    return ""


@functools.lru_cache(maxsize=64)
def _listed(folder: Path, _changed_ns: int) -> dict[str, list[Path]]:
    units: dict[str, list[Path]] = {}
    for path in sorted(folder.glob("*.json")):
        units.setdefault(re.split("[_.]", path.name, maxsplit=1)[0], []).append(path)
    return units


def _records(folder: Path) -> dict[str, list[Path]]:
    """Return the records in a folder by their unit; it is listed once, not once a subject."""
    return _listed(folder, folder.stat().st_mtime_ns) if folder.is_dir() else {}


def _cost(folder: Path, name: str) -> tuple[float | None, float | None]:
    """Return the seconds that the jobs of a stage and subject took, and their peak memory (MB)."""
    costs = [read_json(path) for path in _records(folder).get(name, ())]
    if not costs:
        return None, None
    return sum(cost["seconds"] for cost in costs), max(cost["peak_memory_mb"] for cost in costs)


def facts(sections: dict[str, Any]) -> dict[str, Any]:
    """Return the numbers that the methods text quotes."""
    known: dict[str, Any] = {}
    evaluation = sections.get("evaluate", {})
    known |= _scan_facts(sections)
    known["n_bootstrap"] = evaluation.get("n_bootstraps")
    known["n_permutations"] = evaluation.get("n_permutations")
    known["n_clusters"] = evaluation.get("n_clusters")
    for decoder in sections.get("train_decoder", {}).get("decoders", {}).values():
        known["n_folds"] = decoder.get("n_folds")
    for method in sections.get("reconstruct", {}).get("methods", {}).values():
        if method.get("kind") == "latent_diffusion":
            for key in ("guidance_scale", "strength", "n_steps"):
                known[key] = method.get(key)
            known["n_seeds"] = method.get("n_candidates")
    return {key: value for key, value in known.items() if value is not None}


_WORDS = {
    "motion": "the six motion parameters",
    "motion_derivatives": "their derivatives",
    "motion_squares": "squares of these",
    "compcor": "CompCor components",
    "wm_csf": "the signals of white matter and fluid",
    "global_signal": "the global signal",
    "signal_derivatives": "derivatives of these signals",
    "signal_squares": "squares of these signals",
}


def _scan_facts(sections: dict[str, Any]) -> dict[str, Any]:
    """Return what the methods text says of the model of the scans."""
    section = sections.get("fit_responses", {})
    used = [_WORDS[name] for name in section.get("nuisance", ()) if name in _WORDS]
    nuisance = " and ".join(filter(None, [", ".join(used[:-1]), *used[-1:]]))
    own = sections.get("extract_series", {})
    taken = [_WORDS[name] for name in own.get("confounds", ()) if name in _WORDS]
    low, high = own.get("high_pass_hz"), own.get("low_pass_hz")
    return {
        "nuisance": nuisance or None,
        "high_pass_hz": section.get("high_pass_hz") or None,
        "series_confounds": " and ".join(filter(None, [", ".join(taken[:-1]), *taken[-1:]]))
        or "no confounds",
        "series_band": f"{low or 0:g} to {f'{high:g}' if high else 'the highest'} Hz",
    }


def versions(
    *, scans: bool = False, recordings: bool = False, connectivity: bool = False
) -> dict[str, str]:
    """Return the versions of the packages whose numbers the results rest on.

    Parameters
    ----------
    scans : bool
        Whether scans were read.
    recordings : bool
        Whether EEG or MEG was read.
    connectivity : bool
        Whether connectivity was computed.
    """
    names = ["numpy", "scipy", "scikit-learn", "torch", "diffusers", "transformers"]
    names += ["nibabel", "nilearn"] if scans else []
    names += ["mne", "mne-bids", "pyriemann"] if recordings else []
    names += ["nilearn", "mne-connectivity"] if connectivity else []
    return {"afterimage": __version__} | {
        name: importlib.metadata.version(name) for name in (*names, "snakemake")
    }


def dataset_of(root: Path) -> Path | None:
    """Return the folder of the dataset that the output was made from, where it is still there."""
    description = optional_json(root / "dataset_description.json") or {}
    uri = str(description.get("DatasetLinks", {}).get("source", ""))
    if not uri.startswith("file://"):
        return None
    from urllib.parse import unquote, urlparse

    folder = Path(unquote(urlparse(uri).path))
    return folder if folder.is_dir() else None


def dataset_name(bids_dir: Path | None) -> str:
    """Return the title of the dataset."""
    if bids_dir is None:
        return ""
    description = optional_json(bids_dir / "dataset_description.json") or {}
    return str(description.get("Name", bids_dir.name))


def optional_json(path: Path) -> dict[str, Any] | None:
    """Read a JSON object where the file is there."""
    return read_json(path) if path.is_file() else None
