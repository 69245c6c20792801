"""Xu et al. 2025, Alljoined-1.6M, https://doi.org/10.48550/arXiv.2508.18571.

EDF blocks of a consumer-grade headset become a BIDS dataset, with events from their annotations;
preprocessed responses (a pickle of arrays, and a table in Parquet) become prepared responses, one
row a trial. The images are those of THINGS-EEG2: concepts of test images are never trained on,
which is asserted where the concepts are known.
"""

from __future__ import annotations

import re
import shutil
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import Field

from afterimage.datasets.alljoined_tables import (
    N_TEST,
    N_TRAINING,
    image_name,
    numbered_concept,
    read_concepts,
    read_design,
)
from afterimage.datasets.meeg import (
    blocks,
    check_concepts,
    electrodes,
    regular_times,
    sensor_rows,
    write_recording,
)
from afterimage.datasets.pictures import PictureFolder
from afterimage.datasets.prepared import (
    check_splits,
    responses_writer,
    write_stimuli,
    write_tables,
)
from afterimage.datasets.registry import (
    DATASETS,
    DatasetSettings,
    Numbers,
    Report,
    choose_subjects,
    list_gaps,
    require_file,
)
from afterimage.errors import InputError
from afterimage.io.pickles import read_pickle

SUBJECTS = tuple(f"{number:02d}" for number in range(1, 21))
N_SESSIONS, N_BLOCKS = 4, 19
#: Test images are shown in the first blocks of a session, training images in the others.
TEST_BLOCKS = range(1, 5)
#: Sessions whose files carry the number of another subject: subject to (sessions, that number).
MISNAMED = {"08": ((1, 3, 4), 19)}
_PARTS = {"training": "stim_train", "test": "stim_test"}
_SPLITS = {"stim_train": "train", "stim_test": "test"}
_NAME = re.compile(r"Subject (\d+), Session (\d+), Block (\d+)")
_NO_EEG = re.compile(
    r"Timestamp|OrTimestamp|Counter|COUNTER|Interpolated|INTERPOLATED|RawCq|Battery|BATTERY|Fw|"
    r"Marker|MARKER|HighBitFlex|SaturationFlag|CQ|EQ|MOT"
)


class AlljoinedSettings(DatasetSettings):
    """What is taken of Alljoined-1.6M."""

    kind: Literal["alljoined"] = "alljoined"
    form: Literal["auto", "raw", "preprocessed"] = Field(
        "auto", description="raw recordings, or published responses; auto: raw where it is"
    )
    sessions: Numbers = Field(
        (), description="sessions of raw recordings to take, from 1; empty: all that are there"
    )


@DATASETS.register("alljoined", AlljoinedSettings)
class Alljoined:
    """Reader of Alljoined-1.6M.

    Parameters
    ----------
    settings : AlljoinedSettings
    """

    def __init__(self, settings: AlljoinedSettings) -> None:
        self._settings = settings

    def convert(
        self, source: Path, target: Path, subjects: Sequence[str], report: Report
    ) -> list[str]:
        """Write prepared responses or a BIDS dataset; see `DatasetReader.convert`."""
        raw = [n for n in SUBJECTS if (source / "raw_eeg" / f"sub-{n}").is_dir()]
        ready = [n for n in SUBJECTS if any(_ready(source, n).glob("preprocessed_eeg_*_flat.npy"))]
        form = self._settings.form
        if form == "auto":
            form = "raw" if raw or not ready else "preprocessed"
        download = {
            "raw": "raw_eeg/sub-XX/session_YY/block_ZZ/*.edf",
            "preprocessed": "preprocessed_eeg/sub-XX/preprocessed_eeg_{training,test}_flat.npy and "
            "experiment_metadata.parquet",
        }[form]
        there = raw if form == "raw" else ready
        chosen = choose_subjects(subjects, SUBJECTS, there, source, download)
        pictures = PictureFolder(self._settings.stimuli or _pictures_beside(source), ".jpg")
        notes: list[str] = []
        concepts = read_concepts(source, notes) if form == "raw" else {}
        stimuli: dict[str, dict[str, Any]] = {}
        for subject in chosen:
            report(f"sub-{subject}: reading {form}")
            if form == "raw":
                shown = self._convert_raw(source, target, subject, concepts, notes, report)
            else:
                shown = self._convert_ready(_ready(source, subject), target, subject, notes)
            check_splits(f"sub-{subject}", shown)
            check_concepts(f"sub-{subject}", shown)
            stimuli |= {row["stimulus_id"]: row for row in shown}
        write_stimuli(
            target,
            [
                {
                    "stimulus_id": name, "file": pictures.find(f"{name}.jpg"),
                    "split": row["split"], "category": row["concept"], "concept": row["concept"],
                }
                for name, row in stimuli.items()
            ],
        )  # fmt: skip
        pictures.link(target)
        return [*notes, *pictures.notes("unpack stimuli.zip of the dataset into stimuli/")]

    def _convert_ready(
        self, folder: Path, target: Path, subject: str, notes: list[str]
    ) -> list[dict[str, Any]]:
        files = {
            part: require_file(
                folder / f"preprocessed_eeg_{part}_flat.npy", "a file of responses",
                "preprocessed_eeg_training_flat.npy and preprocessed_eeg_test_flat.npy",
            )
            for part in _PARTS
        }  # fmt: skip
        table = read_design(folder, subject, notes)
        parts = [_responses(path, subject, notes) for path in files.values()]
        (first, names, rate, start), (last, *same) = parts
        if same != [names, rate, start] or last.shape[1:] != first.shape[1:]:
            raise InputError(
                "training and test responses do not belong together", where=f"sub-{subject}",
                found=f"{len(names)} and {len(same[0])} channels, {rate:g} and {same[1]:g} Hz",
                expected="the same channels and times", fix="take both files of one release",
            )  # fmt: skip
        trials: list[dict[str, Any]] = []
        n_trials = len(first) + len(last)
        with responses_writer(
            target, subject, n_trials, len(names), notes, first.shape[2]
        ) as writer:
            for (part, path), (data, *_) in zip(files.items(), parts, strict=True):
                rows = [row for row in table if row["partition"] == _PARTS[part]]
                if len(rows) != len(data):
                    raise InputError(
                        "responses and trials differ in number", where=str(path),
                        found=f"{len(data)} responses, {len(rows)} rows of {_PARTS[part]} that "
                        "were not dropped",
                        expected="one row a response",
                        fix="take experiment_metadata.parquet of the same subject",
                    )  # fmt: skip
                trials += [_trial(row) for row in rows]
                for piece in blocks(len(data), data[0].nbytes):
                    writer.append(np.asarray(data[piece]).astype(np.float32))
        sidecar = {
            "units": "arbitrary (noise-normalised)", "position_units": "m",
            "sampling_rate_hz": rate, "tmin_s": start,
            "source": "Alljoined-1.6M preprocessed responses", "standardised": True,
        }  # fmt: skip
        write_tables(target, subject, trials, sensor_rows(electrodes(names, rate)), sidecar)
        notes.append(
            f"sub-{subject}: responses are noise-normalised a session at a time, on training "
            "blocks, and begin at the onset: no pre-stimulus window can show a leak. Where an image "
            "comes once in a session its covariance was taken as 0, so the noise is understated"
        )
        return trials

    def _convert_raw(
        self, source: Path, target: Path, subject: str, concepts: Mapping[int, str],
        notes: list[str], report: Report,
    ) -> list[dict[str, Any]]:  # fmt: skip
        shown: list[dict[str, Any]] = []
        found, odd = Counter[str](), Counter[str]()
        wanted = self._settings.sessions or tuple(range(1, N_SESSIONS + 1))
        for session in wanted:
            report(f"sub-{subject}: session {session}")
            there: list[int] = []
            for block in range(1, N_BLOCKS + 1):
                folder = source / "raw_eeg" / f"sub-{subject}" / f"session_{session:02d}"
                path = _block_file(folder / f"block_{block:02d}", subject, session, block, found)
                if path is None:
                    continue
                there.append(block)
                entities = {
                    "subject": subject, "session": f"{session:02d}", "task": "images",
                    "run": f"{block:02d}", "datatype": "eeg",
                }  # fmt: skip
                events = _write_block(path, target, entities, concepts, odd)
                n_other = sum(
                    row["split"] != ("test" if block in TEST_BLOCKS else "train")
                    for row in events
                    if row["split"] != "n/a"
                )
                if n_other:
                    odd["trials of the other split than their block has"] += n_other
                shown += [row for row in events if row["stimulus_id"] != "n/a"]
            if gaps := list_gaps(there, N_BLOCKS):
                notes.append(
                    f"sub-{subject}: session {session}: blocks {gaps} have no file of this subject, "
                    "session and block (not downloaded?) and are left out"
                )
        if not shown:
            raise InputError(
                "a subject has no trial", where=str(source / "raw_eeg" / f"sub-{subject}"),
                found="no file of this subject", expected="EDF files with annotations",
                fix="download raw_eeg/sub-XX, and check the option sessions",
            )  # fmt: skip
        for what, count in {**found, **odd}.items():
            notes.append(f"sub-{subject}: {count} {what}")
        return shown


def _block_file(
    folder: Path, subject: str, session: int, block: int, found: Counter[str]
) -> Path | None:
    """Return the EDF file of a block, checked by its name; known wrong names are taken."""
    sessions, other = MISNAMED.get(subject, ((), 0))
    for path in sorted(folder.glob("*.edf")):
        match = _NAME.match(path.name)
        if match is None:
            continue
        numbers = tuple(map(int, match.groups()))
        if numbers == (int(subject), session, block):
            return path
        if session in sessions and numbers == (other, session, block):
            found[
                f"files are named after subject {other}, a known error; the folder is right"
            ] += 1
            return path
    return None


def _write_block(
    path: Path, target: Path, entities: Mapping[str, str], concepts: Mapping[int, str],
    odd: Counter[str],
) -> list[dict[str, Any]]:  # fmt: skip
    """Add one block to the dataset and return its events."""
    import mne

    target.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".writing-", dir=target) as folder:
        try:
            raw = mne.io.read_raw_edf(path, preload=False, verbose="error")
            is_miscased = "Afz" in raw.ch_names
            if is_miscased:
                copy = Path(folder) / "block.edf"
                _rename_channel(path, copy, "Afz", "AFz")
                raw = mne.io.read_raw_edf(copy, preload=False, verbose="error")
        except (OSError, ValueError, RuntimeError) as error:
            raise InputError(
                "a block cannot be read", where=str(path), found=str(error)[:300],
                expected="a whole EDF+ file", fix="download it again",
            ) from None  # fmt: skip
        if is_miscased:
            odd["files call AFz Afz; their copies do not"] += 1
        others = {name: "misc" for name in raw.ch_names if _NO_EEG.match(name)}
        raw.set_channel_types(others, on_unit_change="ignore", verbose="error")
        raw.set_montage("standard_1005", match_case=False, on_missing="ignore", verbose="error")
        events = _events(raw.annotations, float(raw.info["sfreq"]), concepts, path, odd)
        write_recording(raw, target, entities, events, 60.0, link=None if is_miscased else path)
    return events


def _rename_channel(path: Path, copy: Path, name: str, right: str) -> None:
    """Copy an EDF file with one label changed: labels are 16 bytes each from byte 256 on."""
    shutil.copyfile(path, copy)
    with copy.open("r+b") as file:
        file.seek(252)
        n_signals = int(file.read(4))
        for index in range(n_signals):
            file.seek(256 + 16 * index)
            if file.read(16).decode("latin-1").strip() == name:
                file.seek(256 + 16 * index)
                file.write(right.ljust(16).encode("latin-1"))


def _events(
    annotations: Any, rate: float, concepts: Mapping[int, str], path: Path, odd: Counter[str]
) -> list[dict[str, Any]]:
    """Return one row an annotation: ``label,image number,deleted,index``."""
    onsets = [float(onset) for onset in annotations.onset]
    labels = [str(text).split(",") for text in annotations.description]
    is_trial = [parts[0] in _SPLITS for parts in labels]
    together = Counter(round(t, 6) for t, trial in zip(onsets, is_trial, strict=True) if trial)
    rows = []
    for onset, parts, trial in zip(onsets, labels, is_trial, strict=True):
        row: dict[str, Any] = {
            "onset": f"{onset:.6f}", "duration": 0.1, "sample": round(onset * rate),
            "trial_type": parts[0] or "n/a", "value": ",".join(parts), "stim_file": "n/a",
            "stimulus_id": "n/a", "split": "n/a", "concept": "n/a",
        }  # fmt: skip
        if trial and together[round(onset, 6)] > 1:
            row["trial_type"] = "ambiguous"
            odd["markers share their onset with another image; they are left out"] += 1
        elif trial:
            number, split = _number(parts, path), _SPLITS[parts[0]]
            if len(parts) > 2 and parts[2] not in ("-1", ""):
                odd[f"markers have {parts[2]} in the field deleted; they are kept"] += 1
            row |= {
                "trial_type": "image", "stim_file": f"{number:05d}.jpg",
                "stimulus_id": f"{number:05d}", "split": split,
                "concept": concepts.get(number, numbered_concept(number)),
            }  # fmt: skip
        rows.append(row)
    return rows


def _number(parts: Sequence[str], path: Path) -> int:
    """Return the number of the image, which must be one of the split that the label says."""
    number = int(parts[1]) if len(parts) > 1 and parts[1].strip().isdigit() else -1
    first = 0 if parts[0] == "stim_train" else N_TRAINING
    last = N_TRAINING if parts[0] == "stim_train" else N_TRAINING + N_TEST
    if not first <= number < last:
        raise InputError(
            "a marker names no image of its split", where=str(path), found=",".join(parts),
            expected=f"{parts[0]} and a number from {first} to {last - 1}",
            fix="download the file again",
        )  # fmt: skip
    return number


def _responses(path: Path, subject: str, notes: list[str]) -> tuple[Any, ...]:
    """Return responses (n_trials, n_channels, n_times), names, rate in Hz and start in s."""
    table = read_pickle(path)
    data = table.get("preprocessed_eeg_data") if isinstance(table, dict) else None
    names = [str(n) for n in table.get("ch_names", ())] if isinstance(table, dict) else []
    if not isinstance(data, np.ndarray) or data.ndim != 3 or len(names) != data.shape[1]:
        raise InputError(
            "preprocessed responses have another form than published", where=str(path),
            found=f"shape {getattr(data, 'shape', None)}, {len(names)} names of channels",
            expected="preprocessed_eeg_data (trials, channels, times) and as many ch_names",
            fix="download the file again",
        )  # fmt: skip
    names = ["AFz" if name == "Afz" else name for name in names]
    return data, names, *regular_times(table.get("times"), data.shape[2], str(path), notes)


def _trial(row: Mapping[str, str]) -> dict[str, Any]:
    name = image_name(row)
    concept = row.get("category_name", "") or numbered_concept(int(name))
    return {
        "stimulus_id": name, "session": _padded(row["session"]),
        "run": _padded(row.get("block_id", "")), "split": _SPLITS[row["partition"]],
        "concept": concept,
    }  # fmt: skip


def _padded(text: str) -> str:
    try:
        return f"{int(float(text)):02d}"
    except ValueError:
        return "n/a"


def _ready(source: Path, subject: str) -> Path:
    return source / "preprocessed_eeg" / f"sub-{subject}"


def _pictures_beside(source: Path) -> Path | None:
    for name in ("stimuli/images", "stimuli", "images"):
        if (source / name).is_dir():
            return source / name
    return None
