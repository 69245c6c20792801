"""Hebart et al. 2023, THINGS-data (MEG, ds004212), https://doi.org/10.7554/eLife.82580.

Raw CTF recordings become a BIDS folder of links with events written anew; the published epochs
become prepared responses. The test images came once a session, twelve times in all; by default all
other images of their concepts are left out, so that no concept is both trained on and tested.
Which image a trial shows is said twice, by the table of trials and by the events; trials where the
two disagree are left out and counted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import Field

from afterimage.datasets.bids_view import link_common, subjects_of
from afterimage.datasets.meeg import (
    EVENT_COLUMNS,
    blocks,
    check_concepts,
    concept_of,
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
    Report,
    choose_subjects,
    list_gaps,
    require_file,
)
from afterimage.datasets.things_meg_runs import find_runs, link_run, read_triggers, stem_of
from afterimage.datasets.things_tables import read_rows
from afterimage.errors import InputError
from afterimage.io.tables import whole_number, write_tsv

SUBJECTS = ("BIGMEG1", "BIGMEG2", "BIGMEG3", "BIGMEG4")
N_SESSIONS = 12
#: Start in s of 0.2 s without signal: subject, session and run to time.
DROPOUTS_S = {("BIGMEG1", 11, 4): 13.4, ("BIGMEG2", 10, 2): 59.8}
_COLUMNS = ("trial_type", "session_nr", "run_nr", "image_path", "things_image_nr")


class ThingsMegSettings(DatasetSettings):
    """What is taken of THINGS-MEG."""

    kind: Literal["things_meg"] = "things_meg"
    form: Literal["auto", "raw", "preprocessed"] = Field(
        "auto", description="raw recordings, or published epochs; auto: raw where it is"
    )
    onsets: Literal["triggers", "events"] = Field(
        "triggers",
        description="onsets of raw trials: hardware triggers, or those of events.tsv, which come "
        "some 150 ms later",
    )
    test_set: Literal["images", "concepts"] = Field(
        "images", description="the repeated images, or all images of their concepts"
    )
    zero_shot: bool = Field(
        True, description="leave out training images of test concepts; false: train on them too"
    )


@dataclass(frozen=True)
class _Trial:
    """One trial of the published table."""

    session: int
    run: int
    image: str  # path of the picture, "" for a catch trial
    number: str  # of the image in THINGS, from 1
    split: str  # train, test, or n/a where the trial is left out

    @property
    def name(self) -> str:
        return self.image.rsplit("/", 1)[-1]


@DATASETS.register("things_meg", ThingsMegSettings)
class ThingsMeg:
    """Reader of THINGS-MEG.

    Parameters
    ----------
    settings : ThingsMegSettings
    """

    def __init__(self, settings: ThingsMegSettings) -> None:
        self._settings = settings

    def convert(
        self, source: Path, target: Path, subjects: Sequence[str], report: Report
    ) -> list[str]:
        """Write prepared responses, or a BIDS folder of links; see `DatasetReader.convert`."""
        raw = [name for name in subjects_of(source, SUBJECTS) if find_runs(source, name)]
        ready = [name for name in SUBJECTS if _epochs_file(source, name).is_file()]
        form = self._settings.form
        if form == "auto":
            form = "raw" if raw or not ready else "preprocessed"
        download = {
            "raw": "sub-BIGMEGN/ses-NN/meg and sourcedata/sample_attributes_PN.csv",
            "preprocessed": "derivatives/preprocessed/preprocessed_PN-epo*.fif",
        }[form]
        there = raw if form == "raw" else ready
        chosen = choose_subjects(subjects, SUBJECTS, there, source, download)
        pictures = PictureFolder(self._settings.stimuli or _pictures_beside(source))
        notes: list[str] = []
        stimuli: dict[str, dict[str, Any]] = {}
        for subject in chosen:
            report(f"sub-{subject}: reading {form}")
            if form == "raw":
                trials = self._convert_raw(source, target, subject, pictures, notes)
            else:
                trials = self._convert_epochs(source, target, subject, notes)
            stimuli |= {trial.name: _stimulus(trial, pictures) for trial in trials}
        write_stimuli(target, list(stimuli.values()))
        pictures.link(target)
        ask = "get the THINGS images from https://osf.io/jum2f (the password is on that page)"
        return [*notes, *pictures.notes(ask)]

    def _trials(
        self, rows: Sequence[Mapping[str, str]], where: str, notes: list[str]
    ) -> list[_Trial]:
        """Return all trials of a subject with their split, after checking that it is a split."""
        images = [_image(row) for row in rows]
        times = Counter(image for image in images if image)
        is_test = [
            bool(i) and row["trial_type"] == "test" for i, row in zip(images, rows, strict=True)
        ]
        if not any(is_test):
            is_test = [times[image] > 1 for image in images]
            notes.append(f"{where}: no trial_type is test; images shown again are the test set")
        if not any(is_test):
            raise InputError(
                "no trial is a test trial", where=where,
                found=", ".join(sorted({row["trial_type"] for row in rows})[:8]),
                expected="trial_type test, or images shown more than once",
                fix="download the table again",
            )  # fmt: skip
        tested = {concept_of(i) for i, test in zip(images, is_test, strict=True) if test}
        counts = sorted({times[i] for i, test in zip(images, is_test, strict=True) if test})
        if counts != [N_SESSIONS]:
            shown = ", ".join(map(str, counts))
            notes.append(f"{where}: test images were shown {shown} times, not {N_SESSIONS}")
        splits = [
            self._split(image, test, concept_of(image) in tested)
            for image, test in zip(images, is_test, strict=True)
        ]
        n_left = sum(bool(i) and s == "n/a" for i, s in zip(images, splits, strict=True))
        notes.append(
            f"{where}: {images.count('')} catch trials are left out, and {n_left} trials with "
            f"other images of the {len(tested)} test concepts"
            if self._settings.zero_shot or self._settings.test_set == "concepts"
            else f"{where}: {images.count('')} catch trials are left out; test concepts are trained "
            "on too, with other images (zero_shot=false)"
        )
        trials = [
            _Trial(
                whole_number(row, "session_nr", where), whole_number(row, "run_nr", where), image,
                _whole(row["things_image_nr"]), split,
            )
            for row, image, split in zip(rows, images, splits, strict=True)
        ]  # fmt: skip
        kept = [_row(trial) for trial in trials if trial.split != "n/a"]
        check_splits(where, kept)
        if self._settings.zero_shot or self._settings.test_set == "concepts":
            check_concepts(where, kept)
        return trials

    def _split(self, image: str, is_test: bool, of_test_concept: bool) -> str:
        if not image:
            return "n/a"
        if is_test or (of_test_concept and self._settings.test_set == "concepts"):
            return "test"
        return "n/a" if of_test_concept and self._settings.zero_shot else "train"

    def _convert_epochs(
        self, source: Path, target: Path, subject: str, notes: list[str]
    ) -> list[_Trial]:
        import mne

        path = _epochs_file(source, subject)
        try:
            epochs = mne.read_epochs(path, proj=False, preload=False, verbose="error")
        except (OSError, ValueError, RuntimeError) as error:
            raise InputError(
                "published epochs cannot be read", where=str(path), found=str(error)[:300],
                expected="a whole FIF file and all its parts (-epo-1.fif, ...)",
                fix="download them again",
            ) from None  # fmt: skip
        where = f"sub-{subject}"
        trials = self._trials(_trial_table(epochs, source, subject), where, notes)
        numbers = [str(number) for number in epochs.events[:, 2]]
        if len(numbers) != len(trials):
            raise InputError(
                "epochs and trials differ in number", where=str(path),
                found=f"{len(numbers)} epochs, {len(trials)} rows of the table",
                expected="one row an epoch", fix="take both as they were published",
            )  # fmt: skip
        wrong = [bool(t.image) and t.number != n for t, n in zip(trials, numbers, strict=True)]
        _note_mismatches(where, sum(wrong), len(trials), notes)
        kept = [
            index for index, (trial, bad) in enumerate(zip(trials, wrong, strict=True))
            if trial.split != "n/a" and not bad
        ]  # fmt: skip
        n_times, n_units = len(epochs.times), len(epochs.ch_names)
        with responses_writer(target, subject, len(kept), n_units, notes, n_times) as writer:
            for rows in blocks(len(kept), 8 * n_units * n_times):
                piece = epochs.get_data(item=np.array(kept[rows]), copy=False, verbose="error")
                writer.append(piece.astype(np.float32))
        sidecar = {
            "units": "standard deviations of the trial's baseline", "position_units": "m",
            "sampling_rate_hz": float(epochs.info["sfreq"]), "tmin_s": float(epochs.tmin),
            "source": f"THINGS-MEG {path.name}", "standardised": True,
        }  # fmt: skip
        table = [_row(trials[index]) for index in kept]
        write_tables(target, subject, table, sensor_rows(epochs.info), sidecar)
        notes.append(
            f"{where}: published epochs are divided by the deviation of their own 0.1 s of "
            "baseline, and their sensors lie as in the first session"
        )
        return [trials[index] for index in kept]

    def _convert_raw(
        self, source: Path, target: Path, subject: str, pictures: PictureFolder, notes: list[str]
    ) -> list[_Trial]:
        where = f"sub-{subject}"
        table = require_file(
            _attributes_file(source, subject),
            "the table of trials",
            _attributes_file(Path(), subject).name,
        )
        trials = self._trials(read_rows(table, _COLUMNS), where, notes)
        link_common(source, target, subject)
        runs = find_runs(source, subject)
        if gaps := list_gaps([session for session, _ in runs], N_SESSIONS):
            notes.append(f"{where}: sessions {gaps} are not there and are left out")
        kept: list[_Trial] = []
        lags: list[float] = []
        for (session, run), path in runs.items():
            of_run = [t for t in trials if (t.session, t.run) == (session, run)]
            events = self._run_events(path, subject, of_run, pictures, notes, lags)
            if events is None:
                continue
            link_run(source, target, path)
            stem = stem_of(path)
            columns = (*EVENT_COLUMNS, "value", "onset_published")
            place = target / path.relative_to(source).parent / f"{stem}_events.tsv"
            write_tsv(place, events, columns)
            kept += [t for t, e in zip(of_run, events, strict=False) if t.split != "n/a"]
        if lags:
            notes.append(
                f"{where}: onsets in events.tsv come {np.median(lags):.0f} ms after the hardware "
                f"triggers (runs: {min(lags):.0f} to {max(lags):.0f} ms). The authors call the former "
                "corrected by an optical sensor, others who read the data trust the triggers; taken "
                f"here: {self._settings.onsets} (option onsets). Look at the latency of the first "
                "response before you trust either"
            )
        return kept

    def _run_events(
        self, path: Path, subject: str, trials: Sequence[_Trial], pictures: PictureFolder,
        notes: list[str], lags: list[float],
    ) -> list[dict[str, Any]] | None:  # fmt: skip
        """Return the events of one run, one a trial and then what is bad; None leaves it out."""
        stem = stem_of(path)
        published = read_rows(
            require_file(path.parent / f"{stem}_events.tsv", "the events of a run", "events.tsv"),
            required=("sample", "value"),
        )
        rate, triggers = read_triggers(path)
        if len(published) != len(trials):
            notes.append(
                f"{stem}: {len(published)} events, {len(trials)} trials in the table; the run is "
                "left out"
            )
            return None
        samples = np.array(
            [whole_number(row, "sample", f"{stem}_events.tsv") for row in published]
        )
        onsets = samples
        if len(triggers) != len(samples):
            notes.append(
                f"{stem}: {len(triggers)} hardware triggers for {len(samples)} events; onsets are "
                "those of events.tsv"
            )
        else:
            lags.append(float(np.median(samples - triggers) / rate * 1000))
            onsets = triggers if self._settings.onsets == "triggers" else samples
        rows, n_wrong = [], 0
        for trial, event, sample, late in zip(trials, published, onsets, samples, strict=True):
            wrong = bool(trial.image) and _whole(event["value"]) != trial.number
            n_wrong += wrong
            rows.append(_event(trial, int(sample), rate, wrong, pictures))
            rows[-1] |= {"value": event["value"] or "n/a", "onset_published": f"{late / rate:.6f}"}
        _note_mismatches(stem, n_wrong, len(trials), notes)
        start_s = DROPOUTS_S.get((subject, trials[0].session, trials[0].run)) if trials else None
        if start_s is not None:
            notes.append(f"{stem}: no signal for 0.2 s from {start_s} s; marked BAD_dropout")
            rows.append({"onset": start_s, "duration": 0.2, "trial_type": "BAD_dropout"})
        return rows


def _event(
    trial: _Trial, sample: int, rate: float, wrong: bool, pictures: PictureFolder
) -> dict[str, Any]:
    kind = "mismatch" if wrong else "image" if trial.split != "n/a" else "left_out"
    event: dict[str, Any] = {
        "onset": f"{sample / rate:.6f}", "duration": 0.5, "sample": sample,
        "trial_type": kind if trial.image else "catch", "stim_file": "n/a", "stimulus_id": "n/a",
        "split": "n/a", "concept": "n/a",
    }  # fmt: skip
    if kind == "image" and trial.image:
        event |= _row(trial) | {"stim_file": _stimulus(trial, pictures)["file"]}
        del event["session"], event["run"]
    return event


def _image(row: Mapping[str, str]) -> str:
    """Return the path of the image of a trial; nothing for a catch trial."""
    path = row["image_path"]
    return "" if "catch" in path.split("/")[0] or "catch" in row["trial_type"] else path


def _row(trial: _Trial) -> dict[str, Any]:
    return {
        "stimulus_id": trial.name, "session": f"{trial.session:02d}", "run": f"{trial.run:02d}",
        "split": trial.split, "concept": concept_of(trial.name),
    }  # fmt: skip


def _stimulus(trial: _Trial, pictures: PictureFolder) -> dict[str, Any]:
    concept = concept_of(trial.name)
    return {
        "stimulus_id": trial.name, "file": pictures.find(f"{concept}/{trial.name}"),
        "split": trial.split, "category": concept, "concept": concept,
    }  # fmt: skip


def _whole(text: Any) -> str:
    """Return a whole number as text, however a table wrote it (``12.0``); ``n/a`` for none."""
    try:
        return str(int(float(text)))
    except (TypeError, ValueError):
        return "n/a"


def _note_mismatches(where: str, n_wrong: int, n_trials: int, notes: list[str]) -> None:
    if n_wrong:
        notes.append(
            f"{where}: {n_wrong} of {n_trials} trials have another image number in the events than "
            "in the table of trials; they are left out"
        )


def _trial_table(epochs: Any, source: Path, subject: str) -> list[dict[str, str]]:
    """Return the table of trials, which the epochs carry; else the one in sourcedata."""
    if epochs.metadata is not None and set(_COLUMNS) <= set(epochs.metadata.columns):
        return [
            {name: str(value) for name, value in row.items()}
            for row in epochs.metadata[list(_COLUMNS)].to_dict("records")
        ]
    path = _attributes_file(source, subject)
    return read_rows(require_file(path, "the table of trials", path.name), _COLUMNS)


def _epochs_file(source: Path, subject: str) -> Path:
    name = f"preprocessed_P{subject[-1]}-epo.fif"
    places: Iterator[Path] = (
        source / folder / name for folder in ("derivatives/preprocessed", "preprocessed", ".")
    )
    return next((path for path in places if path.is_file()), source / name)


def _attributes_file(source: Path, subject: str) -> Path:
    return source / "sourcedata" / f"sample_attributes_P{subject[-1]}.csv"


def _pictures_beside(source: Path) -> Path | None:
    for name in ("stimuli", "images_THINGS/object_images", "object_images"):
        if (source / name).is_dir():
            return source / name
    return None
