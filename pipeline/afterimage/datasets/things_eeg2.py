"""Gifford et al. 2022, A large and rich EEG dataset (THINGS-EEG2), https://doi.org/10.1016/j.neuroimage.2022.119754.

Raw recordings (pickled arrays with a stim channel) become a BIDS dataset of BrainVision files;
preprocessed responses, the authors' or those of NICE, become prepared responses, every repetition
a trial of its own. Pickles are read by `afterimage.io.pickles`, which runs nothing and maps the
arrays. Concepts of test images are never trained on, which is asserted.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import Field

from afterimage.datasets.meeg import (
    blocks,
    check_concepts,
    electrodes,
    regular_times,
    sensor_rows,
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
    Names,
    Numbers,
    Report,
    choose_subjects,
    list_gaps,
)
from afterimage.datasets.things_eeg2_raw import image_events, read_raw, write_raw
from afterimage.errors import InputError
from afterimage.io.pickles import read_pickle

SUBJECTS = tuple(f"{number:02d}" for number in range(1, 11))
N_SESSIONS = 4
#: Channels as they are recorded.
CHANNELS = (  # noqa: SIM905
    "Fp1 Fp2 AF7 AF3 AFz AF4 AF8 F7 F5 F3 F1 F2 F4 F6 F8 FT9 FT7 FC5 FC3 FC1 FCz FC2 FC4 FC6 FT8 "
    "FT10 T7 C5 C3 C1 Cz C2 C4 C6 T8 TP9 TP7 CP5 CP3 CP1 CPz CP2 CP4 CP6 TP8 TP10 P7 P5 P3 P1 Pz "
    "P2 P4 P6 P8 PO7 PO3 POz PO4 PO8 O1 Oz O2"
).split()
#: The channels over the back of the head, which are the authors' preprocessed ones.
POSTERIOR = CHANNELS[-17:]
_PARTS = {"training": "train", "test": "test"}
_PICTURES = {"train": "training_images", "test": "test_images"}
_RAW = ("Raw_data", "raw_data", "eeg_dataset/raw_data", ".")
_PREPROCESSED = (
    "Preprocessed_data_250Hz", "Preprocessed_data", "preprocessed_data",
    "eeg_dataset/preprocessed_data", ".",
)  # fmt: skip
_METADATA = ("", "image_set/", "Image_set/", "Images/", "stimuli/")


class ThingsEeg2Settings(DatasetSettings):
    """What is taken of THINGS-EEG2."""

    kind: Literal["things_eeg2"] = "things_eeg2"
    form: Literal["auto", "raw", "preprocessed"] = Field(
        "auto", description="raw recordings, or published responses; auto: raw where it is"
    )
    channels: Names = Field(
        (),
        description="channels of preprocessed responses to keep; posterior: the 17 over the back "
        "of the head; empty: all",
    )
    sessions: Numbers = Field(
        (), description="sessions of raw recordings to take, from 1; empty: all that are there"
    )


@DATASETS.register("things_eeg2", ThingsEeg2Settings)
class ThingsEeg2:
    """Reader of THINGS-EEG2.

    Parameters
    ----------
    settings : ThingsEeg2Settings
    """

    def __init__(self, settings: ThingsEeg2Settings) -> None:
        self._settings = settings

    def convert(
        self, source: Path, target: Path, subjects: Sequence[str], report: Report
    ) -> list[str]:
        """Write prepared responses or a BIDS dataset; see `DatasetReader.convert`."""
        raw = {name: found for name in SUBJECTS if (found := _raw_files(source, name))}
        ready = {name: pair for name in SUBJECTS if (pair := _ready_files(source, name))}
        form = self._settings.form
        if form == "auto":
            form = "raw" if raw or not ready else "preprocessed"
        present = list(raw if form == "raw" else ready)
        download = {
            "raw": "Raw_data/sub-XX/ses-0Y/raw_eeg_training.npy and raw_eeg_test.npy",
            "preprocessed": "preprocessed_data/sub-XX/preprocessed_eeg_training.npy and _test.npy",
        }[form]
        chosen = choose_subjects(subjects, SUBJECTS, present, source, download)
        images = read_images(source)
        pictures = PictureFolder(self._settings.stimuli or _pictures_beside(source))
        notes: list[str] = []
        for subject in chosen:
            report(f"sub-{subject}: reading {form}")
            if form == "raw":
                self._convert_raw(target, subject, raw[subject], images, pictures, notes, report)
            else:
                self._convert_ready(target, subject, ready[subject], images, notes)
        write_stimuli(target, list(_stimuli(images, pictures)))
        pictures.link(target)
        ask = "get training_images.zip and test_images.zip from https://osf.io/y63gw"
        return [*notes, *pictures.notes(ask)]

    def _convert_ready(
        self, target: Path, subject: str, files: Mapping[str, Path],
        images: Mapping[str, list[dict[str, str]]], notes: list[str],
    ) -> None:  # fmt: skip
        parts = {
            part: _read_ready(path, len(images[_PARTS[part]]), notes)
            for part, path in files.items()
        }
        (data, names, rate, start), *others = parts.values()
        for other in others:
            if other[1:] != (names, rate, start) or other[0].shape[2:] != data.shape[2:]:
                raise InputError(
                    "training and test responses do not belong together", where=f"sub-{subject}",
                    found=f"{len(names)} and {len(other[1])} channels, {rate:g} and {other[2]:g} Hz",
                    expected="the same channels and times", fix="take both files of one release",
                )  # fmt: skip
        keep = self._chosen(names, subject)
        shape = (sum(part[0].shape[0] * part[0].shape[1] for part in parts.values()), len(keep))
        trials: list[dict[str, Any]] = []
        with responses_writer(target, subject, *shape, notes, n_times=data.shape[3]) as writer:
            for part, (values, *_) in parts.items():
                n_repeats = values.shape[1]
                for rows in blocks(len(values), values[0].nbytes):
                    piece = np.asarray(values[rows])[:, :, keep].astype(np.float32)
                    writer.append(piece.reshape(-1, *piece.shape[2:]))
                trials += [
                    {key: image[key] for key in ("stimulus_id", "split", "concept")}
                    for image in images[_PARTS[part]]
                    for _ in range(n_repeats)
                ]
        units = sensor_rows(electrodes([names[index] for index in keep], rate))
        write_tables(target, subject, trials, units, _sidecar(rate, start))
        notes.append(
            f"sub-{subject}: responses are as published, noise-normalised a session at a time. The "
            "authors' script estimates the noise from test trials too (NICE's from training trials "
            "only; the file does not say which it is), and repetitions are shuffled over sessions: "
            "for scores without that, import the raw recordings"
        )
        if unknown := [name for name in names if name not in CHANNELS]:
            notes.append(f"sub-{subject}: channels that were not published: {', '.join(unknown)}")

    def _chosen(self, names: Sequence[str], subject: str) -> list[int]:
        """Return the positions of the channels to keep."""
        wanted = [
            name
            for choice in self._settings.channels
            for name in (POSTERIOR if choice == "posterior" else [choice])
        ]
        if absent := [name for name in wanted if name not in names]:
            raise InputError(
                "a channel was not recorded", where=f"sub-{subject}", found=", ".join(absent),
                expected=", ".join(names), fix="check the option channels",
            )  # fmt: skip
        return [index for index, name in enumerate(names) if not wanted or name in wanted]

    def _convert_raw(
        self, target: Path, subject: str, files: Mapping[tuple[int, str], Path],
        images: Mapping[str, list[dict[str, str]]], pictures: PictureFolder, notes: list[str],
        report: Report,
    ) -> None:  # fmt: skip
        wanted = self._settings.sessions or tuple(range(1, N_SESSIONS + 1))
        for part in _PARTS:
            there = [number for number, name in files if name == part]
            absent = list_gaps([*there, *set(range(1, N_SESSIONS + 1)) - set(wanted)], N_SESSIONS)
            if absent:
                notes.append(f"sub-{subject}: no {part} recording of sessions {absent}")
        shown: list[dict[str, Any]] = []
        for (session, part), path in files.items():
            if session not in wanted:
                continue
            report(f"sub-{subject}: session {session}, {part}")
            split = _PARTS[part]
            data, names, rate, stim = read_raw(path)
            events = image_events(data, stim, rate, images[split], pictures, path)
            entities = {
                "subject": subject, "session": f"{session:02d}", "task": split, "datatype": "eeg",
            }  # fmt: skip
            write_raw(data, names, rate, target, entities, events)
            shown += [row for row in events if row["stimulus_id"] != "n/a"]
            if len(shown) and not len(events):
                notes.append(f"{path}: no event")
        check_splits(subject, shown)
        check_concepts(f"sub-{subject}", shown)


def read_images(source: Path) -> dict[str, list[dict[str, str]]]:
    """Read ``image_metadata.npy``: the images in the order of their codes, by split.

    Returns
    -------
    dict
        ``train`` and ``test``: one dict an image with stimulus_id (the file's name), path, concept
        and split. Concepts of the two are apart, which is checked.
    """
    path = next(
        (source / f"{folder}image_metadata.npy" for folder in _METADATA
         if (source / f"{folder}image_metadata.npy").is_file()),
        source / "image_metadata.npy",
    )  # fmt: skip
    table = read_pickle(path)
    images: dict[str, list[dict[str, str]]] = {}
    for split in ("train", "test"):
        keys = [f"{split}_img_concepts", f"{split}_img_files"]
        concepts, files = (table.get(key, ()) if isinstance(table, dict) else () for key in keys)
        if not len(files) or len(concepts) != len(files):
            raise InputError(
                "the table of images has another form than published", where=str(path),
                found=", ".join(map(str, table))[:200] if isinstance(table, dict) else "no dict",
                expected=" and ".join(keys) + ", lists of the same length",
                fix="download image_metadata.npy from https://osf.io/y63gw",
            )  # fmt: skip
        images[split] = [
            {
                "stimulus_id": str(name).rsplit("/", 1)[-1],
                "path": f"{_PICTURES[split]}/{concept}/{name}",
                # Folders are numbered anew in either part: only the name tells concepts apart.
                "concept": re.sub(r"^\d+_", "", str(concept)),
                "split": split,
            }
            for concept, name in zip(concepts, files, strict=True)
        ]
    check_concepts(str(path), [*images["train"], *images["test"]])
    return images


def _stimuli(
    images: Mapping[str, list[dict[str, str]]], pictures: PictureFolder
) -> Iterator[dict[str, str]]:
    for rows in images.values():
        for row in rows:
            yield {
                "stimulus_id": row["stimulus_id"], "file": pictures.find(row["path"]),
                "split": row["split"], "category": row["concept"], "concept": row["concept"],
            }  # fmt: skip


def _read_ready(
    path: Path, n_images: int, notes: list[str]
) -> tuple[np.ndarray, list[str], float, float]:
    """Return responses (n_images, n_repeats, n_channels, n_times), names, rate in Hz and start in s."""
    table = read_pickle(path)
    data = table.get("preprocessed_eeg_data") if isinstance(table, dict) else None
    if not isinstance(data, np.ndarray) or data.ndim != 4 or len(data) != n_images:
        raise InputError(
            "preprocessed responses have another form than published", where=str(path),
            found=f"shape {data.shape}" if isinstance(data, np.ndarray) else type(table).__name__,
            expected=f"preprocessed_eeg_data of shape ({n_images}, repetitions, channels, times), "
            "one row an image of image_metadata.npy",
            fix="download the file again",
        )  # fmt: skip
    names = [str(name) for name in table.get("ch_names", ())]
    if len(names) != data.shape[2]:
        raise InputError(
            "names and responses differ in their channels", where=str(path),
            found=f"{len(names)} names, {data.shape[2]} channels", expected="one name a channel",
            fix="download the file again",
        )  # fmt: skip
    return data, names, *regular_times(table.get("times"), data.shape[3], str(path), notes)


def _sidecar(rate: float, start: float) -> dict[str, Any]:
    return {
        "units": "arbitrary (noise-normalised)", "position_units": "m",
        "sampling_rate_hz": rate, "tmin_s": start,
        "source": "THINGS-EEG2 preprocessed responses", "standardised": True,
    }  # fmt: skip


def _places(source: Path, folders: Sequence[str], subject: str) -> Iterator[Path]:
    """Return folders of a subject; an archive unpacked into a folder of its name nests them."""
    for folder in folders:
        yield source / folder / f"sub-{subject}"
        yield source / folder / f"sub-{subject}" / f"sub-{subject}"


def _raw_files(source: Path, subject: str) -> dict[tuple[int, str], Path]:
    for place in _places(source, _RAW, subject):
        found = {
            (session, part): path
            for session in range(1, N_SESSIONS + 1)
            for part in _PARTS
            if (path := place / f"ses-{session:02d}" / f"raw_eeg_{part}.npy").is_file()
        }
        if found:
            return found
    return {}


def _ready_files(source: Path, subject: str) -> dict[str, Path]:
    for place in _places(source, _PREPROCESSED, subject):
        found = {
            part: path
            for part in _PARTS
            if (path := place / f"preprocessed_eeg_{part}.npy").is_file()
        }
        if len(found) == 1:
            raise InputError(
                "a file of a subject is missing", where=str(place),
                found=", ".join(path.name for path in found.values()),
                expected="preprocessed_eeg_training.npy and preprocessed_eeg_test.npy",
                fix="download the other one too",
            )  # fmt: skip
        if found:
            return found
    return {}


def _pictures_beside(source: Path) -> Path | None:
    for folder in _METADATA[1:]:
        if any((source / folder / name).is_dir() for name in _PICTURES.values()):
            return source / folder
    return None
