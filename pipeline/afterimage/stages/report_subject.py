"""Write one subject's report from whatever is there, also after a failure."""

from __future__ import annotations

import importlib.metadata
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field

from afterimage import __version__
from afterimage.bids.names import camel_case, derivative_root, unit_of
from afterimage.io.arrays import groups_of, open_dataset, read_blocks
from afterimage.io.atomic import write_text
from afterimage.io.images import read_image
from afterimage.io.tables import read_json, read_tsv
from afterimage.reports import model
from afterimage.reports.labels import METHOD_ORDER, method_of
from afterimage.settings import StageConfig
from afterimage.stages import (
    evaluate,
    extract_features,
    prepare_responses,
    reconstruct,
    train_decoder,
    train_generator,
)

VERSION = 1
CITES = ("molder2021", "gorgolewski2016")
#: The stages a subject goes through, with the netCDF file whose sidecar tells what made it.
CHAIN = (
    ("prepare_responses", prepare_responses, "{s}_trials.json"),
    ("train_generator", train_generator, "generator/training.json"),
    ("extract_features", extract_features, "features/{s}_split-train_features.json"),
    ("train_decoder", train_decoder, "decoding/{s}_desc-{d}_predictions.json"),
    ("reconstruct", reconstruct, "recon/{s}_desc-{d}_recon.json"),
    ("evaluate", evaluate, "evaluation/{s}_audit.json"),
)
#: Trials and units shown in the figures of responses, at most.
SHOWN = 2000


class Config(StageConfig):
    """What the subject's report shows."""

    n_gallery_rows: int = Field(
        8, ge=0, description="randomly drawn rows of the gallery, beside the percentile rows"
    )
    headline_label: str = Field(
        "", description="row the verdict speaks of; empty: the last method of the first decoder"
    )
    headline_metric: str = Field(
        "", description="its metric; empty: the first of twoway_clip, any twoway, pixcorr"
    )
    sections: dict[str, Any] = Field(
        default={}, description="set by the workflow", json_schema_extra={"workflow": True}
    )
    changes: list[list[Any]] = Field(
        default=[], description="set by the workflow", json_schema_extra={"workflow": True}
    )


@dataclass(frozen=True)
class Inputs:
    """What must be there; the report reads the rest of the subject's folder beside it."""

    metrics: Path


@dataclass(frozen=True)
class Outputs:
    """What the stage writes."""

    report: Path


def run(
    inputs: Inputs, outputs: Outputs, config: Config, *, threads: int = 1, device: str = "cpu"
) -> None:
    """Write the report of the subject that the metrics belong to."""
    root = derivative_root(inputs.metrics)
    subject = unit_of(inputs.metrics).removeprefix("sub-")
    write_text(outputs.report, build(root, subject, config))


def build(root: Path, subject: str, config: Config) -> str:
    """Return the HTML of one subject's report from what lies in the output dataset.

    Parameters
    ----------
    root : Path
        The output dataset.
    subject : str
        Label without ``sub-``.
    config : Config

    Returns
    -------
    str
    """
    from afterimage.reports.assemble import assemble_subject

    folder = root / f"sub-{subject}"
    name = f"sub-{subject}"
    errors = stage_errors(root, name)
    metrics_file = folder / "evaluation" / f"{name}_metrics.tsv"
    metrics = read_tsv(metrics_file) if metrics_file.is_file() else []
    quality = _optional_json(folder / f"{name}_quality.json")
    audit = _optional_json(folder / "evaluation" / f"{name}_audit.json")
    bids_dir = dataset_of(root)
    unscored = ""
    if audit and not audit.get("n_test_pictures"):
        unscored = "the test images are absent"
    report = model.SubjectReport(
        subject=subject,
        dataset=dataset_name(bids_dir),
        versions=versions(),
        command="afterimage BIDS_DIR OUT_DIR participant",
        config_changes=[model.ConfigChange(*map(str, change)) for change in config.changes],
        exclusions=_exclusions(quality),
        responses=_responses(folder / f"{name}_trials.nc", quality),
        fits=_fits(folder, name),
        gallery=_gallery(root, folder, name, bids_dir, config, metrics),
        metrics=metrics,
        unscored=unscored,
        audit=_audit(folder, name, audit, bids_dir),
        stages=stage_runs(folder, name, config.sections, errors),
        errors=errors,
        headline_label=config.headline_label,
        headline_metric=config.headline_metric,
        facts=facts(config.sections) | _counts(quality),
    )
    return assemble_subject(report)


def stage_errors(root: Path, name: str) -> list[model.StageError]:
    """Read the recorded errors of one unit, with the end of each log."""
    errors = []
    for path in sorted((root / "logs" / "errors").glob("*.json")):
        record = read_json(path)
        if record.get("unit") != name:
            continue
        stage = str(record.get("stage"))
        # The log of a job is named like its outputs, without their suffix.
        job = f"{path.stem.removeprefix(f'{stage}_')}_"
        logs = [
            log for log in (root / "logs" / stage).glob("*.log") if job.startswith(f"{log.stem}_")
        ]
        logs = sorted(logs, key=lambda log: -len(log.stem))
        tail = logs[0].read_text(encoding="utf-8", errors="replace")[-4000:] if logs else ""
        link = logs[0].relative_to(root).as_posix() if logs else ""
        errors.append(model.StageError(stage, str(record.get("message")), link, tail))
    return errors


def stage_runs(
    folder: Path, name: str, sections: dict[str, Any], errors: list[model.StageError]
) -> list[model.StageRun]:
    """Say of every stage whether it ran, failed, was skipped, or is out of date."""
    decoders = list(sections.get("train_decoder", {}).get("decoders", {"ridge": {}}))
    failed = {error.stage: error for error in errors}
    runs = []
    broken = "index" in failed
    for stage, module, pattern in CHAIN:
        if stage == "train_generator" and not sections.get(stage, {}).get("enabled"):
            continue
        file = folder / pattern.format(s=name, d=decoders[0])
        sidecar = _optional_json(file)
        status = "done" if sidecar else "missing"
        if stage in failed:
            status, broken = "failed", True
        elif broken:
            status = "skipped"
        seconds, peak_memory_mb = _cost(folder.parent / "logs" / "cost" / stage, name)
        runs.append(
            model.StageRun(
                name=stage,
                version=sidecar.get("StageVersion", module.VERSION) if sidecar else module.VERSION,
                status=status,
                runtime_s=seconds,
                peak_memory_mb=peak_memory_mb,
                config_hash=str(sidecar.get("ConfigHash", "")) if sidecar else "",
                log_path=failed[stage].log_path if stage in failed else "",
                stale=_stale(sidecar, sections.get(stage), module.VERSION),
                cites=module.CITES,
            )
        )
    runs.append(model.StageRun("report_subject", VERSION, cites=CITES))
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


def _cost(folder: Path, name: str) -> tuple[float | None, float | None]:
    """Return the seconds that the jobs of a stage and subject took, and their peak memory (MB)."""
    costs = [read_json(path) for path in sorted(folder.glob(f"{name}[_.]*json"))]
    if not costs:
        return None, None
    return sum(cost["seconds"] for cost in costs), max(cost["peak_memory_mb"] for cost in costs)


def facts(sections: dict[str, Any]) -> dict[str, Any]:
    """Return the numbers that the methods text quotes."""
    known: dict[str, Any] = {}
    evaluation = sections.get("evaluate", {})
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


def versions() -> dict[str, str]:
    """Return the versions of the packages whose numbers the results rest on."""
    names = ("numpy", "scipy", "scikit-learn", "himalaya", "torch", "diffusers", "transformers")
    return {"afterimage": __version__} | {
        name: importlib.metadata.version(name) for name in (*names, "snakemake")
    }


def dataset_of(root: Path) -> Path | None:
    """Return the folder of the dataset that the output was made from, where it is still there."""
    description = _optional_json(root / "dataset_description.json") or {}
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
    description = _optional_json(bids_dir / "dataset_description.json") or {}
    return str(description.get("Name", bids_dir.name))


def _optional_json(path: Path) -> dict[str, Any] | None:
    return read_json(path) if path.is_file() else None


def _exclusions(quality: dict[str, Any] | None) -> list[model.Exclusion]:
    excluded = []
    for key, why in (
        ("units_constant", "constant over all trials"),
        ("units_never_finite", "no finite value in any trial"),
    ):
        if quality and quality.get(key):
            excluded.append(model.Exclusion("units", why, len(quality[key])))
    if quality and quality["n_trials"].get("val"):
        excluded.append(
            model.Exclusion(
                "trials", "in the validation split, not used", quality["n_trials"]["val"]
            )
        )
    return excluded


def _counts(quality: dict[str, Any] | None) -> dict[str, Any]:
    """Count units and trials of the whole recording, of which the figures may show a part."""
    if not quality:
        return {}
    counts = {"n_units": quality["n_units_kept"]}
    for split in ("train", "test"):
        counts[f"n_{split}_trials"] = quality["n_trials"][split]
        counts[f"n_{split}_stimuli"] = quality["n_stimuli"][split]
    return counts


def _responses(path: Path, quality: dict[str, Any] | None) -> model.Responses | None:
    if not path.is_file():
        return None
    with open_dataset(path) as dataset:
        n_trials, n_units = dataset.sizes["trial"], dataset.sizes["unit"]
        # An even choice of trials and units keeps the report of a large study small and quick.
        trials = np.unique(np.linspace(0, n_trials - 1, min(n_trials, SHOWN)).astype(int))
        units = np.unique(np.linspace(0, n_units - 1, min(n_units, SHOWN)).astype(int))
        part = dataset.isel(trial=trials, unit=units)
        kind = str(dataset["kind"].values[0])
        return model.Responses(
            responses=np.asarray(part["responses"].values),
            stimulus=part["stimulus"].values.astype(str).tolist(),
            split=part["split"].values.astype(str).tolist(),
            roi=["" if roi == "n/a" else roi for roi in part["roi"].values.astype(str)],
            ceiling=np.asarray(part["ceiling"].values),
            unit_kind=f"{kind} channel" if kind in ("eeg", "mag", "grad") else kind,
            n_dropped_units=quality["n_units"] - quality["n_units_kept"] if quality else 0,
        )


def _fits(folder: Path, name: str) -> list[model.BlockFit]:
    fits = []
    for path in sorted((folder / "decoding").glob(f"{name}_desc-*_model.json")):
        card = read_json(path)
        for block, summary in card["cross_validation"].items():
            values = {
                key: np.array([np.nan if v is None else v for v in summary[key]], dtype=float)
                for key in ("r", "alpha", "alphas")
                if isinstance(summary, dict) and isinstance(summary.get(key), list)
            }
            fits.append(
                model.BlockFit(
                    card["decoder"],
                    block,
                    values.get("r"),
                    values.get("alpha"),
                    values.get("alphas"),
                )
            )
    return fits


def _pictures(
    split_file: Path, bids_dir: Path | None, ids: list[str]
) -> dict[str, np.ndarray] | None:
    """Read the pictures of these stimuli that are there; None where none is."""
    if bids_dir is None:
        return None
    files = {row["stimulus_id"]: row["file"] for row in read_tsv(split_file)}
    paths = {name: bids_dir / "stimuli" / files[name] for name in ids if name in files}
    return {name: read_image(path) for name, path in paths.items() if path.is_file()} or None


def _stacks(path: Path, source: str) -> tuple[list[str], dict[str, np.ndarray]]:
    ids, _ = read_blocks(path, source, names=[])
    with open_dataset(path, source) as dataset:
        stacks = {
            str(name): values.values.reshape(-1, *values.attrs["shape"])
            for name, values in dataset.data_vars.items()
        }
    return list(ids), stacks


def _method_rank(method: str) -> int:
    """Place of a method in the pipeline; methods this version does not know come first."""
    return METHOD_ORDER.index(method) if method in METHOD_ORDER else -1


def _gallery(
    root: Path,
    folder: Path,
    name: str,
    bids_dir: Path | None,
    config: Config,
    metrics: list[dict[str, str]],
) -> model.Gallery | None:
    paths = sorted((folder / "recon").glob(f"{name}_desc-*_recon.nc"))
    columns: dict[str, list[np.ndarray]] = {}
    ids: list[str] = []
    ordered = [path for path in paths if "desc-ceiling" not in path.name]
    ordered += [path for path in paths if "desc-ceiling" in path.name]
    seen: dict[str, np.ndarray] | None = None
    for path in ordered:
        source = "truth" if "desc-ceiling" in path.name else "brain"
        if source not in groups_of(path):
            continue
        names, stacks = _stacks(path, source)
        if not ids:
            seen = _pictures(folder / f"{name}_split.tsv", bids_dir, names)
            # Where only some test pictures are there, the gallery shows those.
            ids = [key for key in names if key in seen] if seen else names
        if not set(ids) <= set(names):
            continue
        rows = [names.index(key) for key in ids]
        decoder = path.name.split("_desc-")[1].split("_")[0]
        for method in sorted(stacks, key=_method_rank):
            columns[camel_case(decoder, method)] = list(stacks[method][rows])
    if not columns:
        return None
    score, metric, label = _gallery_score(folder, name, ids, columns)
    return model.Gallery(
        stimulus=ids,
        columns=columns,
        seen=[seen[key] for key in ids] if seen else None,
        score=score,
        score_metric=metric,
        score_label=label,
        n_random=config.n_gallery_rows,
    )


def _gallery_score(
    folder: Path, name: str, ids: list[str], columns: dict[str, Any]
) -> tuple[np.ndarray | None, str, str]:
    """Return the score that defines the percentile rows: pixcorr of the last method shown."""
    path = folder / "evaluation" / f"{name}_images.tsv"
    labels = [label for label in columns if not label.startswith("ceiling")]
    if not path.is_file() or not labels:
        return None, "", ""
    # Columns come decoder by decoder, methods in pipeline order: the last one of the first decoder.
    label = labels[len({method_of(label) for label in labels}) - 1]
    values = {
        row["stimulus"]: row.get("pixcorr", "n/a")
        for row in read_tsv(path, required=("stimulus", "label"))
        if row["label"] == label
    }
    if not set(ids) <= set(values):
        return None, "", ""
    numbers = [np.nan if values[key] == "n/a" else float(values[key]) for key in ids]
    return np.array(numbers), "pixcorr", label


def _audit(
    folder: Path, name: str, audit: dict[str, Any] | None, bids_dir: Path | None
) -> model.Audit | None:
    if not audit:
        return None
    found = audit.get("near_duplicates") or {"pairs": [], "threshold": None}
    shown = found["pairs"][:12]
    keys = [pair[side] for pair in shown for side in ("test", "train")]
    pictures = _pictures(folder / f"{name}_split.tsv", bids_dir, keys) or {}
    pairs = [
        model.NearDuplicate(
            pair["test"], pair["train"], pair["correlation"],
            pictures.get(pair["test"]), pictures.get(pair["train"]),
        )
        for pair in found["pairs"]
    ]  # fmt: skip
    return model.Audit(
        leak_linter=audit["leak_linter"],
        near_duplicates=pairs,
        near_duplicate_rule=f"correlation of grey thumbnails (16 and 32 px, also mirrored and "
        f"shifted) of at least {found['threshold']}",
        cluster_oracle=audit.get("cluster_oracle"),
        gallery=_control_gallery(folder, name, bids_dir),
    )


def _control_gallery(folder: Path, name: str, bids_dir: Path | None) -> model.Gallery | None:
    """Show what the same generator makes of a shuffled and of a mean brain."""
    for path in sorted((folder / "recon").glob(f"{name}_desc-*_recon.nc")):
        if not {"brain", "shuffled", "mean"} <= set(groups_of(path)):
            continue
        ids, brain = _stacks(path, "brain")
        _, shuffled = _stacks(path, "shuffled")
        _, mean = _stacks(path, "mean")
        method = max(brain, key=_method_rank)
        rows = range(min(len(ids), 64))
        decoder = path.name.split("_desc-")[1].split("_")[0]
        columns = {
            camel_case(decoder, method): [brain[method][row] for row in rows],
            camel_case("shuffled_brain", method): [shuffled[method][row] for row in rows],
            camel_case("mean_brain", method): [mean[method][0] for _ in rows],
        }
        names = [ids[row] for row in rows]
        seen = _pictures(folder / f"{name}_split.tsv", bids_dir, names)
        complete = seen if seen and set(names) <= set(seen) else None
        return model.Gallery(
            stimulus=names, columns=columns, n_random=5,
            seen=[complete[key] for key in names] if complete else None,
        )  # fmt: skip
    return None
