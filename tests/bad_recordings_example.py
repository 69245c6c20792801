"""A small study of raw EEG and MEG, and what can be wrong with the recordings of a subject."""

from __future__ import annotations

import functools
import json
import re
import runpy
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from afterimage.io.meeg_files import (
    channel_rows,
    write_brainvision,
    write_fif,
    write_positions,
)
from afterimage.io.tables import read_tsv, write_tsv

Damage = Callable[["Study", Path, int], None]

recording = runpy.run_path(str(Path(__file__).parent / "recording_example.py"))

NAMES = [
    "Fp1", "Fp2", "F7", "F8", "Fz", "T7", "C3", "Cz", "C4", "T8", "P7", "P8", "Pz", "O1", "Oz", "O2",
]  # fmt: skip
RATE_HZ = 250.0
#: Pictures shown once a run to train on, and twice a run to test on.
TRAINING = [f"train{number:02d}" for number in range(14)]
TEST = [f"test{number:02d}" for number in range(4)]
PICTURES = [*TRAINING, *TEST, *TEST]
ONSETS_S = 0.8 + 0.8 * np.arange(len(PICTURES))
DURATION_S = 20.0


class Study:
    """A dataset of raw EEG and MEG that tests write and damage.

    Parameters
    ----------
    folder : Path
        Where the dataset goes.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.eeg = _eeg()
        self.meg = _meg()
        (folder / "stimuli").mkdir(parents=True)
        rows = []
        for number, name in enumerate([*TRAINING, *TEST]):
            coarse = np.random.default_rng(number).integers(0, 256, (4, 4, 3), dtype=np.uint8)
            picture = Image.fromarray(coarse).resize((32, 32), Image.Resampling.BILINEAR)
            picture.save(folder / "stimuli" / f"{name}.png")
            split = "train" if name in TRAINING else "test"
            rows.append({"stimulus_id": name, "file": f"{name}.png", "split": split})
        write_tsv(folder / "stimuli" / "stimuli.tsv", rows, list(rows[0]))
        description = {"Name": "Small and partly broken", "BIDSVersion": "1.10.0"}
        (folder / "dataset_description.json").write_text(json.dumps(description))

    def subject(
        self, label: str, modality: str = "eeg", n_runs: int = 2, pictures: bool = True
    ) -> Path:
        """Write a healthy subject; return the folder of the recordings."""
        place = self.folder / f"sub-{label}" / modality
        place.mkdir(parents=True)
        for number in range(n_runs):
            self.write(place, number, *getattr(self, modality))
            rows = []
            for index in np.random.default_rng(number).permutation(len(PICTURES)):
                name = PICTURES[index]
                kind = "face" if int(name[-2:]) % 2 else "house"
                rows.append({"trial_type": kind, "stim_file": f"{name}.png"})
            columns = ["onset", "duration", "trial_type", *["stim_file"] * pictures]
            times = [{"onset": f"{at:.3f}", "duration": "0.4"} for at in ONSETS_S]
            table = [time | row for time, row in zip(times, rows, strict=True)]
            write_tsv(file(place, number, "events.tsv"), table, columns)
        write_positions(place, f"sub-{label}", modality, self.eeg[0])
        return place

    def write(self, place: Path, number: int, info: Any, data: np.ndarray) -> None:
        """Write the recording of a run, its sidecar and its table of channels."""
        modality = place.name
        if modality == "eeg":
            triggers = np.round(ONSETS_S * info["sfreq"]).astype(int)
            stem = file(place, number, "eeg.vhdr").name.removesuffix(".vhdr")
            write_brainvision(place, stem, info, data, triggers[triggers < data.shape[1]])
        else:
            write_fif(file(place, number, "meg.fif"), info, data)
        sidecar = {
            "TaskName": "pictures", "SamplingFrequency": info["sfreq"], "PowerLineFrequency": 50,
            "RecordingDuration": data.shape[1] / info["sfreq"], "EEGReference": "FCz",
        }  # fmt: skip
        file(place, number, f"{modality}.json").write_text(json.dumps(sidecar))
        channels = channel_rows(info)
        write_tsv(file(place, number, "channels.tsv"), channels, list(channels[0]))


def file(place: Path, number: int, ending: str) -> Path:
    """Return a file of a run: that of its recording, or one beside it."""
    return place / f"{place.parent.name}_task-pictures_run-{number + 1:02d}_{ending}"


def _signals(places: np.ndarray) -> np.ndarray:
    """Return smooth sources at sensors, standard deviation about 1, (n_sensors, n_times)."""
    rng = np.random.default_rng(0)
    n_times = int(DURATION_S * RATE_HZ)
    shape = 1 / np.maximum(np.fft.rfftfreq(n_times, 1 / RATE_HZ), 0.5) ** 0.75
    sources = np.fft.irfft(np.fft.rfft(rng.standard_normal((12, n_times))) * shape, n_times)
    sources /= sources.std(axis=1, keepdims=True)
    weights = [
        recording["topography"](places, place, 0.07) for place in rng.permutation(places)[:12]
    ]
    return np.array(weights).T @ sources + 0.1 * rng.standard_normal((len(places), n_times))


def _eeg() -> tuple[Any, np.ndarray]:
    import mne

    info = mne.create_info(NAMES, RATE_HZ, "eeg")
    info.set_montage(recording["template"]())
    return info, 8e-6 * _signals(recording["positions"](NAMES))


def _meg() -> tuple[Any, np.ndarray]:
    """Ten triplets of a helmet over the back of the head."""
    import mne

    from afterimage.simulate.meeg_geometry import draw_anatomy, helmet_info

    info = helmet_info(draw_anatomy(np.random.default_rng(0)), RATE_HZ)
    picks = mne.pick_types(info, meg=True)
    places = np.array([info["chs"][pick]["loc"][:3] for pick in picks])
    triplets = np.argsort(places[::3, 1], kind="stable")[:10]
    chosen = np.sort((3 * triplets[:, None] + np.arange(3)).ravel())
    info = mne.pick_info(info, picks[chosen])
    size = np.where(np.array(info.get_channel_types()) == "mag", 2e-13, 4e-12)
    return info, size[:, None] * _signals(places[chosen])


@dataclass(frozen=True)
class Defect:
    """What is done to a run, and what must be said of it.

    Attributes
    ----------
    damage : callable
        Takes the study, the folder of the subject's recordings and the number of the run from 0.
    said : tuple of str
        Patterns that the message, or the note, must match.
    """

    damage: Damage
    said: tuple[str, ...]


def changed(change: Callable[[Any, np.ndarray], Any]) -> Damage:
    """Write the run again after ``change``, which gets info and data and may return others."""

    def damage(study: Study, place: Path, number: int) -> None:
        info, data = getattr(study, place.name)
        info, data = info.copy(), data.copy()
        study.write(place, number, *(change(info, data) or (info, data)))

    return damage


def table(ending: str, change: Callable[[list[dict[str, str]]], Any]) -> Callable[..., None]:
    """Change the rows of a table of the run; ``change`` works in place or returns new rows."""

    def damage(study: Study, place: Path, number: int) -> None:
        path = file(place, number, ending)
        rows = read_tsv(path)
        columns = list(rows[0])
        found = change(rows)
        write_tsv(path, rows if found is None else found, columns)

    return damage


def cut(ending: str, share: float = 0.5) -> Damage:
    """Keep only the start of a file of the run."""

    def damage(study: Study, place: Path, number: int) -> None:
        path = file(place, number, ending)
        path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])

    return damage


def remove(ending: str) -> Damage:
    return lambda study, place, number: file(place, number, ending).unlink()


def flat(info: Any, data: np.ndarray) -> None:
    data[[NAMES.index("C3"), NAMES.index("P8")]] = 0


def all_flat(info: Any, data: np.ndarray) -> None:
    data[:] = 0


def without_cz(info: Any, data: np.ndarray) -> tuple[Any, np.ndarray]:
    import mne

    kept = [n for n, name in enumerate(info["ch_names"]) if name != "Cz"]
    return mne.pick_info(info, kept), data[kept]


def renamed(info: Any, data: np.ndarray) -> tuple[Any, np.ndarray]:
    import mne

    mne.rename_channels(info, {"Cz": "Vertex"}, verbose="error")
    return info, data


def spelled(info: Any, data: np.ndarray) -> tuple[Any, np.ndarray]:
    import mne

    mne.rename_channels(info, {name: f"EEG {name}-REF" for name in NAMES}, verbose="error")
    return info, data


def slower(info: Any, data: np.ndarray) -> tuple[Any, np.ndarray]:
    import mne

    raw = mne.io.RawArray(data, info, verbose="error").resample(200, verbose="error")
    return raw.info, raw.get_data()


def unknown_names(study: Study, place: Path, number: int) -> None:
    """Give the channels of all runs names that no montage has, and no positions."""
    import mne

    info, data = study.eeg
    info = info.copy()
    new = {name: f"Elec{n + 1}" for n, name in enumerate(NAMES)}
    mne.rename_channels(info, new, verbose="error")
    for run in range(number + 1):
        study.write(place, run, info, data)
    for path in (*place.glob("*_electrodes.tsv"), *place.glob("*_coordsystem.json")):
        path.unlink()


def in_edf(study: Study, place: Path, number: int) -> Path:
    """Give the run as EDF."""
    import mne

    info, data = study.eeg
    for ending in (".vhdr", ".vmrk", ".eeg"):
        file(place, number, f"eeg{ending}").unlink()
    path = file(place, number, "eeg.edf")
    raw = mne.io.RawArray(data, info, verbose="error")
    mne.export.export_raw(path, raw, fmt="edf", verbose="error")
    return path


def cut_edf(study: Study, place: Path, number: int) -> None:
    path = in_edf(study, place, number)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def cut_edf_header(study: Study, place: Path, number: int) -> None:
    path = in_edf(study, place, number)
    path.write_bytes(path.read_bytes()[:100])


def both_formats(study: Study, place: Path, number: int) -> None:
    kept = {path: path.read_bytes() for path in place.glob(f"*run-{number + 1:02d}_eeg.*")}
    in_edf(study, place, number)
    for path, content in kept.items():
        path.write_bytes(content)


def cut_at_a_sample(study: Study, place: Path, number: int) -> None:
    """Cut between two samples, and let no sidecar say how long it was."""
    path = file(place, number, "eeg.eeg")
    path.write_bytes(path.read_bytes()[: 2 * len(NAMES) * 2000])


def empty_data(study: Study, place: Path, number: int) -> None:
    file(place, number, "eeg.eeg").write_bytes(b"")


def not_finite(picks: list[int], start: int, stop: int) -> Damage:
    """Write the run in floating point with values that are no numbers."""

    def damage(study: Study, place: Path, number: int) -> None:
        header, data = file(place, number, "eeg.vhdr"), file(place, number, "eeg.eeg")
        text = header.read_text(encoding="utf-8")
        header.write_text(text.replace("INT_16", "IEEE_FLOAT_32"), encoding="utf-8")
        values = np.frombuffer(data.read_bytes(), "<i2").reshape(-1, len(NAMES)).astype("<f4")
        values[start:stop, picks] = np.nan
        data.write_bytes(values.tobytes())

    return damage


def sidecar(**values: object) -> Damage:
    def damage(study: Study, place: Path, number: int) -> None:
        path = file(place, number, f"{place.name}.json")
        path.write_text(json.dumps(json.loads(path.read_text()) | values))

    return damage


def text(ending: str, change: Callable[[bytes], bytes]) -> Damage:
    def damage(study: Study, place: Path, number: int) -> None:
        path = file(place, number, ending)
        path.write_bytes(change(path.read_bytes()))

    return damage


def every(column: str, value: str) -> Callable[[list[dict[str, str]]], list[dict[str, str]]]:
    return lambda rows: [row | {column: value} for row in rows]


def later(seconds: float, first: int = 0) -> Callable[[list[dict[str, str]]], Any]:
    def change(rows: list[dict[str, str]]) -> list[dict[str, str]]:
        return [
            row | {"onset": f"{float(row['onset']) + (seconds if n >= first else 0):.3f}"}
            for n, row in enumerate(rows)
        ]

    return change


def same_onset(rows: list[dict[str, str]]) -> None:
    rows[3]["onset"] = rows[2]["onset"]


def no_picture(rows: list[dict[str, str]]) -> None:
    for row in rows[:5]:
        row["stim_file"] = "n/a"


def no_head_position(study: Study, place: Path, number: int) -> None:
    """Take the place of the head away, and ask for SSS by giving a file that it needs."""
    info, data = study.meg
    info = info.copy()
    with info._unlock():
        info["dev_head_t"] = None
    study.write(place, number, info, data)
    calibration = place / f"{place.parent.name}_acq-calibration_meg.dat"
    calibration.write_text("not read before the place of the head is known\n")


def microvolt(declared: str) -> Damage:
    """Let the header give microvolt as volt, and the table of channels say a unit."""

    def damage(study: Study, place: Path, number: int) -> None:
        text("eeg.vhdr", scaled(1e6))(study, place, number)
        table("channels.tsv", every("units", declared))(study, place, number)

    return damage


def scaled(factor: float) -> Callable[[bytes], bytes]:
    """Change the resolution in a header of BrainVision."""
    new = f",{0.1 * factor:.10f},".encode()
    return lambda data: re.sub(rb",0\.0?[19]\d*,", new, data)


def without(key: str) -> Callable[[bytes], bytes]:
    return lambda data: re.sub(rf"{key}=.*".encode(), b"", data)


#: Runs that are left out, by subject; every subject has a healthy run before them.
LEFT_OUT = {
    "channels": {
        "all flat": Defect(changed(all_flat), ("all channels are flat",)),
        "missing": Defect(changed(without_cz), ("channels of a run are missing", "no Cz")),
        "renamed": Defect(changed(renamed), ("missing or renamed", "no Cz; but Vertex")),
        "other table": Defect(
            table("channels.tsv", lambda rows: rows[7].update(name="Vertex")),
            ("table of channels does not fit", "only in channels.tsv: Vertex; only in the recording: Cz"),
        ),
        "other types": Defect(
            table("channels.tsv", every("type", "MISC")), ("no EEG channels", "column type")
        ),
        "all bad": Defect(
            table("channels.tsv", every("status", "bad")),
            ("too many channels", "16 of 16", "column status of channels.tsv"),
        ),
        "one twice": Defect(
            table("channels.tsv", lambda rows: rows[7].update(name="Fz")),
            ("names a channel twice", "Fz"),
        ),
        "ragged": Defect(
            text("channels.tsv", lambda data: data + b"Fz\tEEG\n"), ("wrong number of cells", "line 18")
        ),
    },
    "events": {
        "none": Defect(remove("events.tsv"), ("a run has no events", "_events.tsv beside it")),
        "no rows": Defect(table("events.tsv", lambda rows: []), ("a run has no trials", "no events")),
        "empty file": Defect(text("events.tsv", lambda data: b""), ("a table is empty",)),
        "all late": Defect(table("events.tsv", later(5000)), ("after the last sample", "5017.6 s")),
        "all early": Defect(table("events.tsv", later(-50)), ("before the first sample",)),
        "not a number": Defect(
            table("events.tsv", lambda rows: rows[5].update(onset="nan")),
            ("not a number", "line 7, column onset"),
        ),
        "same onset": Defect(
            table("events.tsv", same_onset), ("two trials start at the same time", "at 2.4 s")
        ),
        "latin": Defect(
            text("events.tsv", lambda data: data.replace(b"house", "h\xe4user".encode("latin-1"))),
            ("not UTF-8", "byte 0xe4"),
        ),
    },
    "files": {
        "cut": Defect(cut("eeg.eeg", 0.501), ("recording is cut off", "20.0 s")),
        "cut within a sample": Defect(cut("eeg.eeg", 0.50001), ("recording is cut off", "of 32 bytes")),
        "cut header": Defect(
            cut("eeg.vhdr", 0.3), ("header of a recording is incomplete", "no SamplingInterval")
        ),
        "renamed data": Defect(
            text("eeg.vhdr", lambda data: data.replace(b"DataFile=", b"DataFile=old-")),
            ("file of a recording is missing", "header names as its DataFile"),
        ),
        "no markers": Defect(remove("eeg.vmrk"), ("file of a recording is missing", r"eeg\.vmrk")),
        "no data": Defect(remove("eeg.eeg"), ("file of a recording is missing", r"eeg\.eeg")),
        "empty": Defect(empty_data, ("a recording is empty", "no data in")),
        "cut EDF": Defect(cut_edf, ("recording is cut off", r"eeg\.edf")),
        "cut head of EDF": Defect(cut_edf_header, ("recording cannot be read", r"eeg\.edf")),
        "both formats": Defect(both_formats, ("one run is there twice", r"eeg\.edf")),
    },
    "values": {
        "microvolt as volt": Defect(
            microvolt("V"), ("EEG channels are not in V", "says V", "microvolt read as volt")
        ),
        "volt as microvolt": Defect(
            text("eeg.vhdr", scaled(1e-6)), ("EEG channels are not in V", "volt read as microvolt")
        ),
        "not finite": Defect(
            not_finite(list(range(16)), 1000, 1500), ("all channels have values that are not finite",)
        ),
        "two rates": Defect(
            sidecar(SamplingFrequency=500), ("different sampling rates", "250 Hz in", "500 Hz as")
        ),
        "bad JSON": Defect(text("eeg.json", lambda data: data[:-2]), ("JSON file cannot be read",)),
    },
    "meg": {
        "cut FIF": Defect(cut("meg.fif"), ("recording is cut off", "at least")),
        "empty FIF": Defect(cut("meg.fif", 0), ("recording is empty", "0 bytes")),
    },
}  # fmt: skip
#: Runs that are used, with a note, by subject.
NOTED = {
    "noted": {
        "flat": Defect(changed(flat), ("interpolated: C3, P8",)),
        "spelled": Defect(changed(spelled), ("spelled apart", "EEG Fp1-REF is Fp1")),
        "corrected": Defect(microvolt("µV"), ("says microvolt: divided by a million",)),
        "not finite": Defect(not_finite([2], 1000, 1200), ("interpolated: F7",)),
        "listed": Defect(
            table("channels.tsv", lambda rows: [*rows, rows[0] | {"name": "Extra"}]),
            ("lists channels that the recording does not have: Extra",),
        ),
        "late": Defect(table("events.tsv", later(10, 17)), ("5 onsets lie after the last sample",)),
        "early": Defect(table("events.tsv", later(-2)), ("2 of 22 trials start before the first",)),
        "twice": Defect(
            table("events.tsv", lambda rows: [*rows, rows[0]]), ("1 trial has the onset and stimulus",)
        ),
        "no picture": Defect(
            table("events.tsv", no_picture), ("5 of 22 events are no trials",)
        ),
    },
    "montage": {"unknown": Defect(unknown_names, ("montage is not known", r"16 channels \(Elec1"))},
    "rates": {"other": Defect(changed(slower), ("other runs at 200 Hz",))},
    "head": {"unknown": Defect(no_head_position, ("no SSS: the position of the head",))},
}  # fmt: skip


def add_defects(study: Study) -> None:
    """Write one subject for each group of defects: a healthy run, then one run a defect."""
    for label, defects in (LEFT_OUT | NOTED).items():
        modality = "meg" if label in ("meg", "head") else "eeg"
        place = study.subject(label, modality, n_runs=1 + len(defects))
        for number, defect in enumerate(defects.values(), start=1):
            defect.damage(study, place, number)


@functools.cache
def study() -> Path:
    """Write a run of 2 s as BrainVision, one as EDF, and one of MEG; return the folder."""
    folder = Path(tempfile.mkdtemp(prefix="afterimage-"))
    data = Study(folder)
    for name in ("eeg", "meg"):
        info, signal = getattr(data, name)
        setattr(data, name, (info, signal[:, :500]))
    data.subject("vision", n_runs=1)
    in_edf(data, data.subject("edf", n_runs=1), 0)
    data.subject("fif", "meg", n_runs=1)
    return folder
