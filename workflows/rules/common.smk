"""Helpers of all rules: configuration, units, targets, and the command of a stage."""

import gc
import json
import math
import os
import shlex
import sys
from pathlib import Path

from afterimage.bids.index import index_dataset, read_units, select_units, write_units
from afterimage.bids.index import picture_digest
from afterimage.bids.entities import run_prefix
from afterimage.bids.prepared_series import series_label
from afterimage.bids.recordings import mixed_modalities
from afterimage.bids.sidecars import applicable_files
from afterimage.bids.stimuli import stimulus_table
from afterimage.config.load import check_config
from afterimage.config.template import visible
from afterimage.decoding.registry import DECODERS as DECODER_CLASSES
from afterimage.record import workflow_values
from afterimage.stages.runner import stage_interface
from snakemake.settings.types import DeploymentMethod

# A graph of ten thousand jobs is millions of small objects that live until the end: looking through
# them for garbage again and again would take a third of the time of a dry run.
gc.set_threshold(200_000, 50, 1000)

# Keys that say where and how to run; everything else in the config is afterimage's own.
RUN_KEYS = (
    *("bids_dir", "participants", "modalities", "device", "run_id", "units_file", "group"),
    *("derivatives", "space", "tasks", "sessions"),
)
SETTINGS = check_config({key: value for key, value in config.items() if key not in RUN_KEYS})
if "bids_dir" not in config:
    raise WorkflowError("Say where the dataset is: --config bids_dir=/path/to/dataset")
BIDS_DIR = Path(str(config["bids_dir"])).resolve()
UNITS_FILE = Path(str(config.get("units_file", "code/units.tsv")))
if not UNITS_FILE.is_file():
    found = index_dataset(
        BIDS_DIR,
        derivatives=[
            Path(folder) for folder in str(config.get("derivatives", "")).split(";") if folder
        ],
        space=config.get("space"),
        tasks=str(config.get("tasks", "")).split(),
        sessions=str(config.get("sessions", "")).split(),
    )
    write_units(UNITS_FILE, found)
ALL_UNITS = read_units(UNITS_FILE)
SELECTED = mixed_modalities(
    select_units(
        ALL_UNITS,
        str(config.get("participants", "")).split(),
        str(config.get("modalities", "")).split(),
    )
)


def run_file(row):
    """Return the recording of a run: its BOLD, EEG or MEG file, or its prepared series."""
    return next(row[kind] for kind in ("bold", "recording", "series") if row[kind] != "n/a")


def series_of(rows):
    """Return the runs of one subject that become series, by the label of their regions."""
    if rows[0]["source"] == "series":
        wanted, found = SETTINGS.prepare_series.segmentations, {}
        for row in rows:
            label = series_label(row["series"])
            if not wanted or label in wanted:
                found.setdefault(label, []).append(row)
        return found
    mode, atlases = SETTINGS.extract_series.runs, list(SETTINGS.parcellate.atlases)
    chosen = [
        row
        for row in rows
        if row["source"] != "prepared"
        and mode != "none"
        and (mode == "all" or row["events"] == "n/a" or (atlases and row["bold"] != "n/a"))
    ]
    if not chosen:
        return {}
    if chosen[0]["recording"] != "n/a":
        return {"sensors": chosen}
    own = "clusters" if chosen[0]["rois"] == "n/a" else "rois"
    return dict.fromkeys(atlases or [own], chosen)


# A subject's rows: one for prepared responses, one a run for scans; rows with a problem are left out.
UNITS = {}
for row in SELECTED:
    if row["problem"] == "n/a":
        UNITS.setdefault(row["subject"], []).append(row)
SUBJECTS = list(UNITS)
PREPARED = [subject for subject in SUBJECTS if UNITS[subject][0]["source"] == "prepared"]
SCANNED = [s for s in SUBJECTS if UNITS[s][0]["bold"] != "n/a"]
RECORDED = [s for s in SUBJECTS if UNITS[s][0]["recording"] != "n/a"]
# Those with trials; runs without events, and prepared series, have connectivity only.
TRIALLED = [
    s for s in SUBJECTS if s in PREPARED or any(row["events"] != "n/a" for row in UNITS[s])
]
# Only where pictures are known can there be reconstructions; the others get responses and a report.
PICTURED = [s for s in SUBJECTS if any(row["stimuli"] == "yes" for row in UNITS[s])]
# Conditions are told apart where there are no pictures to reconstruct, in trials with a time axis.
UNPICTURED = [
    s
    for s in RECORDED + PREPARED
    if s in TRIALLED and s not in PICTURED and UNITS[s][0]["modality"] in ("eeg", "meg")
]
# EEG and MEG, raw or prepared: what tokenizers take.
SENSED = [s for s in RECORDED + PREPARED if UNITS[s][0]["modality"] in ("eeg", "meg")]
GROUP_CONDITIONS = ["group/conditions.tsv"] if len(UNPICTURED) > 1 else []
RUNS = {run_prefix(run_file(row)): row for s in SCANNED + RECORDED for row in UNITS[s]}
SERIES = {subject: found for subject in SUBJECTS if (found := series_of(UNITS[subject]))}
PREPARED_SERIES = [s for s in SERIES if UNITS[s][0]["source"] == "series"]
PREPARED_RUNS = {
    (run_prefix(row["series"]), seg): row
    for s in PREPARED_SERIES
    for seg, rows in SERIES[s].items()
    for row in rows
}
STIMULI_TABLE = [str(path) for path in [stimulus_table(BIDS_DIR)] if path]
PARTICIPANTS = [str(path) for path in [BIDS_DIR / "participants.tsv"] if path.is_file()]
# A file at the root of the dataset: the pictures lie in stimuli/ beside it.
DATASET_FILE = str(BIDS_DIR / "dataset_description.json")
if (BIDS_DIR / "stimuli.tsv").is_file():
    DATASET_FILE = str(BIDS_DIR / "stimuli.tsv")
# Networks need to know where and when a value was measured: only EEG and MEG tell.
NETWORKS = [
    name
    for name, settings in SETTINGS.train_decoder.decoders.items()
    if getattr(DECODER_CLASSES.get(settings.kind), "needs_layout", False)
]
DECODERS = [name for name in SETTINGS.train_decoder.decoders if name not in NETWORKS]
# Decoders of several subjects, and who is in their fit.
SHARED = list(SETTINGS.train_shared_decoder.decoders)
POOLED = [s for s in PICTURED if SHARED and s not in SETTINGS.train_shared_decoder.adapt]
ADAPTED = [s for s in PICTURED if SHARED and s not in POOLED]
unknown = set(SETTINGS.train_shared_decoder.adapt) - {row["subject"] for row in ALL_UNITS}
if SHARED and unknown:
    raise WorkflowError(
        f"train_shared_decoder.adapt names {', '.join(sorted(unknown))}, who is not in the dataset"
    )
# Subjects whose units other people have too: EEG or MEG, where two or more were recorded in it.
COMPARED = []
for modality in ("eeg", "meg") if SETTINGS.evaluate_subjects.enabled else ():
    alike = [s for s in PICTURED if UNITS[s][0]["modality"] == modality]
    COMPARED += alike if len(alike) > 1 else []
# The subject's own generator where one is trained, else none.
GENERATOR = "sub-{subject}/generator" if SETTINGS.train_generator.enabled else []
# Captions are written where image tokens of a captioner are among the features.
CAPTIONED = any(one.kind == "git" for one in SETTINGS.extract_features.encoders.values())
CAPTIONS = "sub-{subject}/recon/sub-{subject}_captions.tsv" if CAPTIONED else []
# In a container the interpreter is the image's own.
IN_CONTAINER = DeploymentMethod.APPTAINER in workflow.deployment_settings.deployment_method
CODE = "python" if IN_CONTAINER else shlex.quote(sys.executable)


def stage_params(stage, **job):
    """Return the params of a stage: its VERSION and only its own section of the config.

    ``job`` adds what the workflow sets itself; a callable gets the wildcards. An edit of the
    section, or a new VERSION, changes this text, and Snakemake reruns just this stage and what
    follows it.
    """
    version = stage_interface(stage)["version"]
    section = SETTINGS.section(stage)

    def text(own):
        return json.dumps({"version": version, "config": {**section, **own}}, sort_keys=True)

    if not any(callable(value) for value in job.values()):
        return text(job)  # the same for all subjects; a plain text costs Snakemake the least
    return lambda wildcards: text(
        {key: value(wildcards) if callable(value) else value for key, value in job.items()}
    )


def stage_command(stage):
    """Return the shell command of a stage, from the inputs and outputs it declares."""
    interface = stage_interface(stage)
    parts = [f"{CODE} -m afterimage stage {stage}"]
    parts += [f"--input {name} {{input.{name}:q}}" for name in interface["inputs"]]
    parts += [f"--output {name} {{output.{name}:q}}" for name in interface["outputs"]]
    parts.append(f"--params {{params.stage:q}} --threads {{threads}} --device {DEVICE}")
    return " ".join(parts) + " > {log:q} 2>&1"


def planned_jobs():
    """Return of every rule how many jobs it has, and how many of them this run starts."""
    jobs = {}
    for job in workflow.dag.jobs:
        counts = jobs.setdefault(job.rule.name, [0, 0])
        counts[0] += 1
        counts[1] += workflow.dag.needrun(job)
    return jobs


def memory(base_mb, times=0, **times_of):
    """Return the memory of a job in MB: ``base_mb`` and so many ``times`` the size of its inputs.

    ``times_of`` has other numbers for inputs by name: files that are read by columns count less.
    Rounded up to a power of two of GB, because an array of jobs is submitted with the request of
    its first job, and most subjects of one study then ask for the same. Doubled with every attempt:
    memory that ran out is the usual reason why a cluster killed a job.
    """

    def mem_mb(wildcards, input, attempt):
        # Snakemake's own input.size_mb starts an event loop a call, a fifth of a dry run.
        wanted_gb = base_mb / 1000
        for name, paths in input.items():
            files = [paths] if isinstance(paths, str) else paths
            size_gb = sum(os.path.getsize(path) for path in files) / 1e9
            wanted_gb += times_of.get(name, times) * size_gb
        return attempt * 1000 * 2 ** math.ceil(math.log2(wanted_gb))

    return mem_mb


def minutes(n_minutes):
    """Return the time that a cluster lets a job run: twice as long in the second attempt."""
    return lambda wildcards, attempt: attempt * n_minutes


def record_command(event):
    """Return the command that writes the run's record, or its reports after a failure."""
    options = [f"--bids-dir {shlex.quote(str(BIDS_DIR))}", f"--run-id {RUN_ID}"]
    if event == "start":
        options.append(f"--settings {shlex.quote(json.dumps(visible(SETTINGS)))}")
        options.append(f"--jobs {shlex.quote(json.dumps(planned_jobs()))}")
        options.append("--subjects " + " ".join(dict.fromkeys(row["subject"] for row in SELECTED)))
    command = f"{shlex.quote(sys.executable)} -m afterimage record {event} . {' '.join(options)}"
    return command.replace("{", "{{").replace("}", "}}")


def targets(until):
    """Return the files that a run until this group of stages makes.

    The files of earlier stages are among them: after a failure, a report that was written all the
    same must not make Snakemake believe that nothing is left to do.
    """
    groups = {
        "preprocess": ["sub-{s}/sub-{s}_trials.nc"],
        "connect": [CONNECTED],
        "decode": [
            "sub-{s}/features/sub-{s}_split-train_features.nc",
            "sub-{s}/decoding/sub-{s}_desc-{d}_predictions.nc",
        ],
        "reconstruct": ["sub-{s}/recon/sub-{s}_desc-{d}_recon.nc"],
        "evaluate": [
            "sub-{s}/features/sub-{s}_split-test_features.nc",
            "sub-{s}/recon/sub-{s}_desc-ceiling_recon.nc",
            "sub-{s}/evaluation/sub-{s}_metrics.tsv",
        ],
        "report": ["sub-{s}.html"],
    }
    wanted = list(groups)[: list(groups).index(until) + 1]
    if CAPTIONED:
        groups["evaluate"].append("sub-{s}/recon/sub-{s}_captions.tsv")
    patterns = [pattern for name in wanted if name != "connect" for pattern in groups[name]]
    files = {file for s in PICTURED for file in collect(patterns, s=s, d=decoders_of(s))}
    # Without pictures there is nothing to decode to: the trials and the report are all there is.
    always = [
        pattern for name in ("preprocess", "report") if name in wanted for pattern in groups[name]
    ]
    files |= set(collect(always, s=TRIALLED))
    if "connect" in wanted:
        files |= {file for s in SUBJECTS for file in connected(s)} | set(factored())
    if "report" in wanted:
        files |= set(collect(groups["report"], s=SUBJECTS))
    if "evaluate" in wanted and SERIES and config.get("group", True):
        files.add("group/connectivity.tsv")
        if SETTINGS.predict_phenotypes.targets:
            files.add("group/phenotypes.tsv")
        if SETTINGS.generate_connectivity.enabled:
            files.add("group/generative.tsv")
    if "decode" in wanted:
        files |= set(collect("sub-{s}/decoding/sub-{s}_conditions.tsv", s=UNPICTURED))
        files |= set(GROUP_CONDITIONS)
    if "evaluate" in wanted:
        files |= {file for s in SUBJECTS for file in timed(s)}
    if "evaluate" in wanted and COMPARED:
        files.add("group/subjects.tsv")
    if "evaluate" in wanted and config.get("group", True):
        files |= {*pretraining_tables(), *tokenizer_cards(), *tokenized(), *token_tables()}
    group = until == "report" and SUBJECTS and config.get("group", True)
    return [*sorted(files), "group.html"] if group else sorted(files)


MEASURED = "sub-{s}/connectivity/sub-{s}_seg-{seg}_graphs.tsv"
CONNECTED = "sub-{s}/connectivity/sub-{s}_seg-{seg}_connectivity.nc"
DYNAMIC = "sub-{s}/connectivity/sub-{s}_seg-{seg}_dynamic.nc"
COUPLED = "sub-{s}/connectivity/sub-{s}_seg-{seg}_coupling.nc"
DEVICE = str(config.get("device", "cpu"))
# Stages that put networks on the device ask for a GPU where there must be one.
ON_DEVICE = {"gpu": 1} if DEVICE == "cuda" else {}
RUN_ID = str(config.get("run_id", "plain"))
STIMULI_DIGEST = picture_digest(BIDS_DIR / "stimuli")
