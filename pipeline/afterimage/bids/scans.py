"""The scans of a subject as rows of the table of units: BOLD, raw or of fMRIPrep, EEG and MEG."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from afterimage.bids.derivatives import (
    Derivative,
    Preprocessed,
    RunKey,
    Space,
    choose_space,
    preprocessed_runs,
)
from afterimage.bids.entities import DERIVED, BidsName, natural_key, run_key
from afterimage.bids.files import IMAGES, BidsFile, SubjectFiles, folder_files, list_folder
from afterimage.bids.masks import Masks, find_masks
from afterimage.bids.recordings import recording_rows
from afterimage.bids.rows import (
    check_folder,
    names_pictures,
    one_line,
    problem_row,
)
from afterimage.bids.sidecars import join_paths
from afterimage.errors import InputError
from afterimage.io.tables import Row

# Folders whose recordings a later version reads.
_LATER = frozenset({"ieeg", "nirs"})


@dataclass
class Scans:
    """What is known of a dataset of scans before its subjects are looked at.

    Attributes
    ----------
    bids_dir : str
        The dataset; paths in rows are relative to it.
    raw : str
        The raw dataset: ``bids_dir``, or where that is fMRIPrep output the dataset it came from.
    derivatives : list of Derivative
        Derivative datasets, those that the user named first.
    columns : tuple of str
        Columns of the rows.
    has_table : bool
        Whether there is a table of stimuli.
    space : str or None
        Space of fMRIPrep output asked for.
    tasks, sessions : frozenset of str
        Labels asked for; empty means all.
    seen : dict
        Labels of tasks and sessions met so far.
    told : set of str
        Tasks that have events in some session of some subject, asked for or not.
    """

    bids_dir: str
    raw: str
    derivatives: Sequence[Derivative]
    columns: tuple[str, ...]
    has_table: bool = False
    space: str | None = None
    tasks: frozenset[str] = frozenset()
    sessions: frozenset[str] = frozenset()
    seen: dict[str, set[str]] = field(default_factory=lambda: {"task": set(), "ses": set()})
    told: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self._raw_root = folder_files(self.raw)
        # A sidecar at the root says what columns mean, not that there are events.
        kind = ("events", ".tsv")
        self._note_events(f for f in self._raw_root if (f.name.suffix, f.name.extension) == kind)
        self._roots = {made.path: folder_files(made.path) for made in self.derivatives}

    def list_raw(self, subject: str) -> SubjectFiles:
        """List a subject's raw scans, and note which tasks have events."""
        files = SubjectFiles(self._raw_root, self.raw, subject, raw=True)
        self._note_events(files.find("events", (".tsv",)))
        return files

    def _note_events(self, files: Iterable[BidsFile]) -> None:
        self.told.update(file.name.entities.get("task", "") for file in files)

    def list_derivative(self, made: Derivative, subject: str) -> SubjectFiles:
        """List a subject's files in one derivative dataset."""
        return SubjectFiles(self._roots[made.path], made.path, subject)

    def relative(self, path: str) -> str:
        """Return a path as rows have it: relative to the dataset, absolute where outside."""
        start = self.bids_dir + "/"
        return path[len(start) :] if path.startswith(start) else path

    def join(self, paths: Sequence[str]) -> str:
        """Return paths as one cell."""
        return join_paths([self.relative(path) for path in paths])

    def wanted(self, name: BidsName) -> bool:
        """Whether a run's task and session are asked for; both are noted as met."""
        task, session = name.entities.get("task", ""), name.entities.get("ses", "")
        self.seen["task"].add(task)
        self.seen["ses"].add(session)
        return (not self.tasks or task in self.tasks) and (
            not self.sessions or session in self.sessions
        )


class _Subject(NamedTuple):
    """A subject's files, sorted by what they are."""

    label: str
    raw: SubjectFiles
    runs: dict[RunKey, list[BidsFile]]
    preprocessed: dict[RunKey, Preprocessed]
    masks: Masks
    anat: str
    by_fmriprep: bool
    problem: InputError | None
    links: set[str]


def scan_rows(scans: Scans, label: str) -> list[Row]:
    """Return one row for each BOLD, EEG or MEG run of a subject, by session, task and run.

    Parameters
    ----------
    scans : Scans
        The dataset.
    label : str
        Label of the subject, without ``sub-``.

    Returns
    -------
    list of dict
        A run that cannot be used is listed with its ``problem``. A run without events, as at
        rest, has ``n/a`` for them: there is nothing to decode in it, but it has connectivity. A
        subject of whom nothing can be read has one row, which says so; one whose runs were not
        asked for has none, nor has ``sub-emptyroom``, which holds recordings of the room without a
        person.
    """
    if label == "emptyroom":
        return []
    raw = scans.list_raw(label)
    named = [file for file in raw.find("bold") if not DERIVED & file.name.entities.keys()]
    scans_of_runs = [f for f in named if f.name.entities.get("part", "mag") == "mag"]
    runs: dict[RunKey, list[BidsFile]] = {}
    for file in scans_of_runs:
        if scans.wanted(file.name):
            runs.setdefault(run_key(file.name), []).append(file)
    subject = _with_derivatives(scans, label, raw, runs)
    rows = [_misnamed(scans, label, path) for path in raw.unparsed if _is_bold(path)]
    keys = list(runs) + [key for key in subject.preprocessed if key not in runs]
    rows += [_row(scans, subject, key) for key in keys]
    rows.sort(key=lambda row: [natural_key(row[k]) for k in ("session", "task", "run", "bold")])
    recordings, quiet = recording_rows(scans, label, raw)
    rows += recordings
    if not rows and (quiet or not (scans_of_runs or subject.by_fmriprep or raw.recorded)):
        return [_nothing(scans, label, raw, quiet)]
    return rows


def _is_bold(path: str) -> bool:
    return "/func/" in path and path.endswith(IMAGES) and "_bold" in path.rpartition("/")[2]


def _with_derivatives(
    scans: Scans, label: str, raw: SubjectFiles, runs: dict[RunKey, list[BidsFile]]
) -> _Subject:
    """Find what derivative datasets add: preprocessed runs in one space, masks, regions."""
    listed = [(made, scans.list_derivative(made, label)) for made in scans.derivatives]
    outputs = []
    for made, files in listed:
        spaces = preprocessed_runs(files) if made.fmriprep else {}
        for space, of_space in spaces.items():
            spaces[space] = {key: run for key, run in of_space.items() if scans.wanted(run.name)}
        if any(spaces.values()):
            outputs.append((made, files, {place: part for place, part in spaces.items() if part}))
    chosen: Space | None = None
    preprocessed: dict[RunKey, Preprocessed] = {}
    problem: InputError | None = None
    anat = [file for file in raw.find("T1w") if not DERIVED & file.name.entities.keys()]
    links = raw.links
    if outputs:
        made, files, spaces = outputs[0]
        chosen = choose_space(spaces, scans.space)
        if len(outputs) > 1 and not made.given:
            problem = _several_outputs(label, [output[0].path for output in outputs])
        elif chosen is None:
            problem = _no_space(label, made.path, list(spaces), scans.space or "")
        else:
            preprocessed = spaces[chosen]
        own = [f for f in files.find("T1w") if f.name.entities.get("desc") == "preproc"]
        anat = [file for file in own if "space" not in file.name.entities] or anat
        links = links | files.links
    masks = find_masks([files for made, files in listed if not made.fmriprep], chosen)
    cell = scans.join([file.path for file in anat])
    return _Subject(
        label, raw, runs, preprocessed, masks, cell, bool(outputs), problem, links
    )  # fmt: skip


def _row(scans: Scans, subject: _Subject, key: RunKey) -> Row:
    """Describe one run."""
    files = subject.runs.get(key, [])
    run = subject.preprocessed.get(key)
    name = files[0].name if files else run.name if run else None
    assert name is not None  # noqa: S101  (a key comes from one of the two)
    entities = name.entities
    session = f"/ses-{entities['ses']}" if "ses" in entities else ""
    folder = f"{subject.raw.folder}{session}/func"
    target = BidsName(entities, key, "events", ".tsv")
    events = subject.raw.applicable(folder, target, "events", ".tsv")
    row = dict.fromkeys(scans.columns, "n/a") | {
        "subject": subject.label,
        "session": entities.get("ses", "n/a"),
        "task": entities.get("task", "n/a"),
        "run": entities.get("run", "n/a"),
        "modality": "fmri",
        "source": "fmriprep" if subject.by_fmriprep else "raw",
        "events": scans.relative(events[-1].path) if events else "n/a",
        "rois": scans.join([file.path for file in subject.masks.regions]),
        "anat": subject.anat,
        "stimuli": "no",
    }
    image = files[0].name if files else target
    sidecars = [f.path for f in subject.raw.applicable(folder, image, "bold", ".json")]
    mask = _brain_mask(subject.masks, key)
    if run:
        row["bold"] = scans.relative(run.bold)
        row["confounds"] = scans.relative(run.confounds) or "n/a"
        row["boldref"] = scans.relative(run.boldref) or "n/a"
        mask = run.mask or mask
        # Old versions of fMRIPrep leave out what the raw sidecars say, such as slice times.
        sidecars += run.sidecars
    else:
        row["bold"] = scans.relative(files[0].path)
    row["mask"] = scans.relative(mask) or "n/a"
    row["sidecar"] = scans.join(sidecars)
    try:
        _check_run(scans, subject, files, run)
        if row["events"] != "n/a":
            row["stimuli"] = names_pictures(scans, subject.label, row["events"])
    except InputError as error:
        row["problem"] = one_line(error)
    return row


def _brain_mask(masks: Masks, key: RunKey) -> str:
    """Return the brain mask whose name fits a run best; "" where there is none."""

    def fits(file: BidsFile) -> bool:
        return "/anat/" in file.path or run_key(file.name) <= key

    fitting = [file for file in masks.brain if fits(file)]
    return max(fitting, key=lambda file: len(run_key(file.name))).path if fitting else ""


def _check_run(
    scans: Scans, subject: _Subject, files: list[BidsFile], run: Preprocessed | None
) -> None:
    """Raise the first reason why a run cannot be used, but for its events."""
    if subject.problem:
        raise subject.problem
    for file in files:
        check_folder(scans, subject.label, file, "func", "_bold")
    paths = [scans.relative(file.path) for file in files]
    where = f"sub-{subject.label}, {scans.relative(run.bold) if run else paths[0]}"
    echoes = {pair for file in files for pair in file.name.key if pair[0] == "echo"}
    if len(files) > max(len(echoes), 1):
        raise InputError(
            "one run is there twice", where=where, found=" and ".join(paths),
            expected="one image a run", fix="remove all but one, or give each its own run- label",
        )  # fmt: skip
    if subject.by_fmriprep and run is None:
        raise InputError(
            "a run is missing from the fMRIPrep output of its subject", where=where,
            found="no desc-preproc_bold of this run in the space of the others",
            expected="all runs of a subject preprocessed in one space",
            fix="run fMRIPrep on it too, set another space, or leave the run out by task or session",
        )  # fmt: skip
    if len(echoes) > 1 and run is None:
        raise InputError(
            "a run has several echoes", where=where, found=f"{len(echoes)} images",
            expected="one image a run, or fMRIPrep output, which combines echoes",
            fix="combine the echoes with fMRIPrep or tedana first",
        )  # fmt: skip
    used = run.bold if run else files[0].path
    if used in subject.links and not Path(used).exists():
        raise InputError(
            "the content of a scan is not on this machine", where=where,
            found="a link that leads nowhere", expected="the image",
            fix="fetch it, for example with: datalad get",
        )  # fmt: skip


def _several_outputs(label: str, paths: Sequence[str]) -> InputError:
    return InputError(
        "a subject is in several fMRIPrep outputs", where=f"sub-{label}", found=", ".join(paths),
        expected="one of them", fix="name the one to read with --derivatives",
    )  # fmt: skip


def _no_space(label: str, path: str, spaces: Sequence[Space], wanted: str) -> InputError:
    found = [
        (place.space or "func")
        + (f":cohort-{place.cohort}" if place.cohort else "")
        + (f":res-{place.res}" if place.res else "")
        for place in spaces
    ]
    return InputError(
        "fMRIPrep output is not in the space asked for", where=f"sub-{label}, {path}",
        found=", ".join(sorted(found)), expected=wanted,
        fix="set one of the spaces found, or run fMRIPrep with this one among its output spaces",
    )  # fmt: skip


def _misnamed(scans: Scans, label: str, path: str) -> Row:
    path = scans.relative(path)
    error = InputError(
        "the name of a scan is not a BIDS name", where=f"sub-{label}, {path}",
        found=path.rpartition("/")[2],
        expected=f"sub-{label}[_ses-<label>]_task-<label>[_run-<number>]_bold.nii.gz, labels of "
        "letters and digits",
        fix="rename the file and its events",
    )  # fmt: skip
    return problem_row(scans, label, error) | {"modality": "fmri", "bold": path}


def _nothing(scans: Scans, label: str, raw: SubjectFiles, quiet: str) -> Row:
    """Return the row of a subject of whom there is nothing to read."""
    later = sorted(raw.datatypes & _LATER)
    folders, files = list_folder(raw.folder)
    found = ", ".join([f"{entry.name}/" for entry in folders] + [file.name for file in files][:6])
    if quiet:
        what, found = "a subject has only recordings of the empty room", quiet
    elif later:
        what = f"a subject has only recordings that are not read yet ({', '.join(later)})"
    else:
        what = "a subject has no responses and no scans"
    error = InputError(
        what, where=f"sub-{label}", found=found or "nothing",
        expected=f"func/sub-{label}_task-<label>_bold.nii.gz, a recording in eeg/ or meg/, "
        f"sub-{label}_timeseries.npy, or sub-{label}_responses.npy and sub-{label}_trials.tsv",
        fix="add the files, or remove the folder",
    )  # fmt: skip
    row = problem_row(scans, label, error)
    kind = "eeg" if "/eeg/" in quiet else "meg"
    return row | ({"modality": kind, "recording": quiet} if quiet else {})
