"""The EEG and MEG recordings of a subject, as rows of the table of units."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from afterimage.bids.derivatives import RunKey
from afterimage.bids.entities import DERIVED, BidsName, natural_key, run_key
from afterimage.bids.files import RECORDINGS, BidsFile, SubjectFiles
from afterimage.bids.rows import (
    check_folder,
    names_pictures,
    one_line,
    problem_row,
)
from afterimage.errors import InputError
from afterimage.io.tables import Row, read_json, read_tsv

if TYPE_CHECKING:
    from afterimage.bids.scans import Scans

# Files that must lie beside a header for it to be read.
_PARTNERS = {".vhdr": (".eeg", ".vmrk")}
# Tasks without events in which nobody was there: recordings of the empty room.
_EMPTY_ROOM = ("noise", "emptyroom")


def recording_rows(scans: Scans, label: str, raw: SubjectFiles) -> tuple[list[Row], str]:
    """Return one row for each EEG and MEG recording of a subject, by session, task and run.

    Parameters
    ----------
    scans : Scans
        The dataset.
    label : str
        Label of the subject, without ``sub-``.
    raw : SubjectFiles
        The subject's raw files.

    Returns
    -------
    rows : list of dict
        A recording that cannot be used is listed with its ``problem``. One without events, as at
        rest, has ``n/a`` for them; those of the empty room are left out.
    quiet : str
        A recording that was left out so; "" where there is none.
    """
    rows: list[Row] = []
    quiet = ""
    for modality, extensions in RECORDINGS.items():
        runs: dict[RunKey, list[BidsFile]] = {}
        found = [file for file in raw.find(modality, extensions) if _is_recording(file, modality)]
        for file in found:
            if scans.wanted(file.name):
                runs.setdefault(run_key(file.name), []).append(file)
        for files in runs.values():
            row = _row(scans, label, raw, modality, files)
            if row["events"] == "n/a" and row["task"].lower().startswith(_EMPTY_ROOM):
                quiet = row["recording"]
            else:
                rows.append(row)
        for path in raw.unparsed:
            if f"/{modality}/" in path and path.endswith(tuple(filter(None, extensions))):
                rows.append(_misnamed(scans, label, modality, path))
    rows.sort(
        key=lambda row: [natural_key(row[k]) for k in ("session", "task", "run", "recording")]
    )
    return rows, quiet


def mixed_modalities(rows: Sequence[Row]) -> list[Row]:
    """Mark the subjects who have scans of several modalities; call it after `select_units`.

    Parameters
    ----------
    rows : sequence of dict
        Rows of the table of units that are to be processed.

    Returns
    -------
    list of dict
        The same rows; those of a subject with usable scans of more than one modality have a
        ``problem`` that says to choose one, since a subject is processed in one modality. Where
        all runs with events are of one modality, runs without events of another are left out.
    """
    kinds: dict[str, dict[str, None]] = {}
    seen: dict[str, dict[str, None]] = {}
    for row in rows:
        if row["problem"] == "n/a" and row["source"] != "prepared":
            kinds.setdefault(row["subject"], {})[row["modality"]] = None
            if row["events"] != "n/a":
                seen.setdefault(row["subject"], {})[row["modality"]] = None
    marked = []
    for row in rows:
        modalities = list(seen.get(row["subject"], kinds.get(row["subject"], {})))
        usable = row["problem"] == "n/a" and row["source"] != "prepared"
        if usable and row["events"] == "n/a" and row["modality"] not in modalities:
            continue
        if row["problem"] == "n/a" and len(modalities) > 1:
            error = InputError(
                "a subject has scans of several modalities", where=f"sub-{row['subject']}",
                found=", ".join(modalities), expected="one modality a subject in one run",
                fix="choose one, for example with: --modality " + modalities[0],
            )  # fmt: skip
            row = row | {"problem": one_line(error)}
        marked.append(row)
    return marked


def sibling_files(recording: Path, ending: str) -> list[Path]:
    """Return files of one kind that lie beside the recordings of a subject.

    Parameters
    ----------
    recording : Path
        ``sub-X/[ses-Y/]{eeg|meg}/sub-X..._{eeg|meg}.*``.
    ending : str
        End of the names, such as ``_channels.tsv`` or ``_eeg.json``.

    Returns
    -------
    list of Path
        Of all sessions, by name.
    """
    folder = recording.parent
    above = folder.parent
    if not above.name.startswith("ses-"):
        return sorted(folder.glob(f"sub-*{ending}"))
    return sorted(above.parent.glob(f"ses-*/{folder.name}/sub-*{ending}"))


def common_channels(recording: Path) -> list[str]:
    """Return the channels of brain that most of a subject's recordings have, by their tables.

    Parameters
    ----------
    recording : Path
        One of the recordings.

    Returns
    -------
    list of str
        In the order of the first such table; empty where fewer than two recordings have one.
    """
    modality = recording.parent.name.upper()
    found: Counter[tuple[str, ...]] = Counter()
    for path in sibling_files(recording, "_channels.tsv"):
        try:
            rows = read_tsv(path, required=("name", "type"))
        except InputError:
            continue  # the stage that reads the recording it belongs to says what is wrong
        names = [r["name"] for r in rows if _of_brain(r["type"].upper(), modality)]
        if names:
            found[tuple(names)] += 1
    # A tie, as of two runs, says nothing about which of them is right: the first is taken.
    return list(found.most_common(1)[0][0]) if found.total() > 1 else []


def _of_brain(kind: str, modality: str) -> bool:
    if modality == "EEG":
        return kind == "EEG"
    return kind.startswith("MEG") and not kind.startswith(("MEGREF", "MEGOTHER"))


def common_rate_hz(recording: Path) -> float | None:
    """Return the lowest sampling rate of a subject's recordings by their sidecars; None: unknown."""
    rates = []
    for path in sibling_files(recording, f"_{recording.parent.name}.json"):
        try:
            stated = read_json(path).get("SamplingFrequency")
        except InputError:
            continue
        if isinstance(stated, int | float) and stated > 0:
            rates.append(float(stated))
    return min(rates) if rates else None


def _is_recording(file: BidsFile, datatype: str) -> bool:
    """Whether a file is the recording itself: no derivative, calibration, or later split."""
    entities = file.name.entities
    if DERIVED & entities.keys() or f"/{datatype}/" not in file.path:
        return False
    calibration = entities.get("acq") in ("crosstalk", "calibration") and "task" not in entities
    # A long recording is cut into files; the reader follows them from the first.
    return not calibration and int(entities.get("split", "1").lstrip("0") or 1) == 1


def _row(scans: Scans, label: str, raw: SubjectFiles, modality: str, files: list[BidsFile]) -> Row:
    """Describe one recording."""
    name = files[0].name
    entities = {key: value for key, value in name.entities.items() if key != "split"}
    key = run_key(name)
    folder = files[0].path.rpartition("/")[0]

    def nearby(suffix: str, extension: str) -> list[str]:
        target = BidsName(entities, key, suffix, extension)
        return [file.path for file in raw.applicable(folder, target, suffix, extension)]

    events = nearby("events", ".tsv")
    # Tables of channels and electrodes are read with the recording: what changes them reruns it.
    tables = nearby("channels", ".tsv")[-1:] + raw.positions(folder, entities)
    row = dict.fromkeys(scans.columns, "n/a") | {
        "subject": label,
        "session": entities.get("ses", "n/a"),
        "task": entities.get("task", "n/a"),
        "run": entities.get("run", "n/a"),
        "modality": modality,
        "source": "raw",
        "recording": scans.relative(files[0].path),
        "events": scans.relative(events[-1]) if events else "n/a",
        "sidecar": scans.join(nearby(modality, ".json") + tables),
        "stimuli": "no",
    }
    try:
        for file in files:
            check_folder(scans, label, file, modality, f"_{modality}")
        _check_files(scans, label, raw, files)
        if row["events"] != "n/a":
            row["stimuli"] = names_pictures(scans, label, row["events"])
    except InputError as error:
        row["problem"] = one_line(error)
    return row


def _check_files(scans: Scans, label: str, raw: SubjectFiles, files: list[BidsFile]) -> None:
    """Raise if a run is there twice, a partner of a header is missing, or content is absent."""
    paths = [scans.relative(file.path) for file in files]
    where = f"sub-{label}, {paths[0]}"
    if len(files) > 1:
        raise InputError(
            "one run is there twice", where=where, found=" and ".join(paths),
            expected="one recording a run",
            fix="remove all but one, or give each its own run- label",
        )  # fmt: skip
    path, name = files[0]
    stem = path.removesuffix(name.extension)
    missing = [
        ending for ending in _PARTNERS.get(name.extension, ()) if stem + ending not in raw.partners
    ]
    if missing:
        raise InputError(
            "a file of a recording is missing", where=where,
            found=f"no {stem.rpartition('/')[2]}{' and no '.join(missing)}",
            expected=f"{name.extension}, {' and '.join(_PARTNERS[name.extension])} of one name",
            fix="add the file; if it was renamed, rename it in the header too",
        )  # fmt: skip
    used = [path, *(stem + ending for ending in _PARTNERS.get(name.extension, ()))]
    if any(file in raw.links and not Path(file).exists() for file in used):
        raise InputError(
            "the content of a recording is not on this machine", where=where,
            found="a link that leads nowhere", expected="the recording",
            fix="fetch it, for example with: datalad get",
        )  # fmt: skip


def _misnamed(scans: Scans, label: str, modality: str, path: str) -> Row:
    path = scans.relative(path)
    error = InputError(
        "the name of a recording is not a BIDS name", where=f"sub-{label}, {path}",
        found=path.rpartition("/")[2],
        expected=f"sub-{label}[_ses-<label>]_task-<label>[_run-<number>]_{modality} and the "
        "extension of its format, labels of letters and digits",
        fix="rename the file and its events",
    )  # fmt: skip
    return problem_row(scans, label, error) | {"modality": modality, "recording": path}
