"""The reader of THINGS-MEG, on miniature recordings and epochs in the published layout.

mne writes no CTF recordings: runs are FIF files here, which the reader opens by the same call.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mne
import numpy as np
import pytest

from afterimage.bids.events import read_events
from afterimage.bids.index import index_dataset
from afterimage.datasets import meeg
from afterimage.datasets.things_meg import ThingsMeg, ThingsMegSettings
from afterimage.errors import InputError
from afterimage.io.arrays import open_dataset
from afterimage.io.tables import read_json, read_tsv
from afterimage.stages import prepare_responses

DOG, DOG2, BELL, FAN, FAN2 = (
    "images_meg/dog/dog_12s.jpg", "images_test_meg/dog_01b.jpg",
    "images_meg/wind_chime/wind_chime_03n.jpg", "images_test_meg/fan_05s.jpg",
    "images_meg/fan/fan_01b.jpg",
)  # fmt: skip
BAT, CATCH = "images_meg/bat1/bat1_02s.jpg", "images_catch_meg/17.jpg"
NUMBERS = {DOG: 12, DOG2: 1, BELL: 303, FAN: 55, FAN2: 51, BAT: 77, CATCH: 999999}
#: Trials of two sessions with one run each: DOG and FAN2 show concepts of test images.
RUNS = {(1, 1): [BELL, DOG2, CATCH, FAN, DOG], (2, 4): [FAN, BAT, FAN2, CATCH, DOG2]}
RATE_HZ = 1200.0
LATE = 180  # samples: 150 ms


def save_table(source: Path) -> None:
    lines = ["trial_type,session_nr,run_nr,image_path,image_nr,things_image_nr,image_on,image_off"]
    for (session, run), images in RUNS.items():
        for image in images:
            kind = "test" if "test" in image else "catch" if image == CATCH else "exp"
            number = NUMBERS[image] if image != CATCH else ""
            lines.append(f"{kind},{session},{run},{image},{number},{number},0.1,0.6")
    (source / "sourcedata").mkdir(parents=True, exist_ok=True)
    (source / "sourcedata/sample_attributes_P1.csv").write_text("\n".join(lines) + "\n")


def sensors(rate_hz: float, n: int = 6) -> mne.Info:
    info = mne.create_info([f"MLO{k}1-1609" for k in range(n)], rate_hz, "mag")
    for k, channel in enumerate(info["chs"]):
        angle = 2 * np.pi * k / n
        channel["loc"][:3] = (0.1 * np.cos(angle), 0.1 * np.sin(angle), 0.02)
    shift = np.eye(4)
    shift[:3, 3] = (0.0, 0.0, 0.05)
    info["dev_head_t"] = mne.transforms.Transform("meg", "head", shift)
    return info


def save_run(source: Path, key: tuple[int, int], numbers: list[Any] | None = None) -> None:
    """Write a run: an image trigger a trial (64), one that ends the run (32), events 150 ms late."""
    images = RUNS[key]
    info = sensors(RATE_HZ)
    n_samples = 2400 + 1200 * len(images)
    stim = np.zeros((1, n_samples))
    onsets = [600 + 1200 * index for index in range(len(images))]
    for onset in onsets:
        stim[0, onset : onset + 600] = 64
    stim[0, n_samples - 300 : n_samples - 200] = 32
    raw = mne.io.RawArray(np.zeros((6, n_samples)), info, verbose="error")
    stim_info = mne.create_info(["UPPT001"], RATE_HZ, "stim")
    raw.add_channels([mne.io.RawArray(stim, stim_info, verbose="error")], force_update_info=True)
    name = f"sub-BIGMEG1_ses-{key[0]:02d}_task-main_run-{key[1]:02d}"
    folder = source / f"sub-BIGMEG1/ses-{key[0]:02d}/meg"
    folder.mkdir(parents=True, exist_ok=True)
    raw.save(folder / f"{name}_meg.fif", overwrite=True, verbose="error")
    values = numbers or ["n/a" if image == CATCH else float(NUMBERS[image]) for image in images]
    rows = [
        f"{(onset + LATE) / RATE_HZ}\t0.5\t{onset + LATE}\t{value}"
        for onset, value in zip(onsets, values, strict=True)
    ]
    (folder / f"{name}_events.tsv").write_text(
        "\n".join(["onset\tduration\tsample\tvalue", *rows]) + "\n"
    )
    (folder / f"{name}_meg.json").write_text('{"PowerLineFrequency": 60}')
    (folder / f"{name}_channels.tsv").write_text(
        "name\ttype\tunits\nMLO01-1609\tMEGGRADAXIAL\tT\nMRO11-1609\tMEGGRADAXIAL\tT\n"
    )


@pytest.fixture
def source(tmp_path: Path) -> Path:
    source = tmp_path / "ds004212"
    save_table(source)
    for image in NUMBERS:
        if image != CATCH:
            name = image.rsplit("/", 1)[-1]
            place = source / "object_images" / name.rsplit("_", 1)[0] / name
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(b"picture")
    return source


@pytest.fixture
def raw(source: Path) -> Path:
    for key in RUNS:
        save_run(source, key)
    return source


def save_epochs(source: Path, metadata: bool) -> np.ndarray:
    import pandas

    images = [image for images in RUNS.values() for image in images]
    data = np.random.default_rng(0).normal(size=(len(images), 6, 281))
    events = np.column_stack(
        [np.arange(len(images)) * 300, np.zeros(len(images), int), [NUMBERS[i] for i in images]]
    )
    epochs = mne.EpochsArray(data, sensors(200.0), events, tmin=-0.1, verbose="error")
    if metadata:
        epochs.metadata = pandas.read_csv(source / "sourcedata/sample_attributes_P1.csv")
        (source / "sourcedata/sample_attributes_P1.csv").unlink()
    place = source / "derivatives" / "preprocessed"
    place.mkdir(parents=True, exist_ok=True)
    epochs.save(place / "preprocessed_P1-epo.fif", overwrite=True, verbose="error", fmt="double")
    return data


def convert(source: Path, **options: Any) -> tuple[Path, list[str]]:
    target = source.parent / "out"
    notes = ThingsMeg(ThingsMegSettings(**options)).convert(source, target, (), lambda line: None)
    return target, notes


@pytest.mark.parametrize("metadata", [True, False])
def test_published_epochs(source: Path, metadata: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(meeg, "BLOCK_BYTES", 2 * 8 * 6 * 281)
    data = save_epochs(source, metadata)
    target, notes = convert(source)
    kept = [0, 1, 3, 5, 6, 9]
    found = np.load(target / "sub-BIGMEG1/sub-BIGMEG1_responses.npy")
    np.testing.assert_allclose(found, data[kept], rtol=1e-6)
    trials = read_tsv(target / "sub-BIGMEG1/sub-BIGMEG1_trials.tsv")
    assert [row["stimulus_id"] for row in trials] == [
        "wind_chime_03n.jpg", "dog_01b.jpg", "fan_05s.jpg", "fan_05s.jpg", "bat1_02s.jpg",
        "dog_01b.jpg",
    ]  # fmt: skip
    assert [row["split"] for row in trials] == ["train", "test", "test", "test", "train", "test"]
    assert trials[0]["concept"] == "wind_chime"
    assert [row["repeat"] for row in trials] == ["0", "0", "0", "1", "0", "1"]
    assert any(
        "2 catch trials" in n and "2 trials with other images of the 2 test" in n for n in notes
    )
    assert any("shown 2 times, not 12" in note for note in notes)
    sidecar = read_json(target / "sub-BIGMEG1/sub-BIGMEG1_responses.json")
    assert (sidecar["sampling_rate_hz"], sidecar["tmin_s"]) == (200.0, -0.1)
    units = read_tsv(target / "sub-BIGMEG1/sub-BIGMEG1_units.tsv")
    assert units[0]["kind"] == "mag"
    np.testing.assert_allclose([float(units[0][a]) for a in "xyz"], [0.1, 0, 0.07], atol=1e-6)
    stimuli = {row["stimulus_id"]: row for row in read_tsv(target / "stimuli.tsv")}
    assert sorted(stimuli) == ["bat1_02s.jpg", "dog_01b.jpg", "fan_05s.jpg", "wind_chime_03n.jpg"]
    assert (target / "stimuli" / stimuli["dog_01b.jpg"]["file"]).is_file()
    (row,) = index_dataset(target)
    assert (row["modality"], row["problem"]) == ("meg", "n/a")
    place = source.parent / "prepared"
    outputs = prepare_responses.Outputs(
        place / "sub-BIGMEG1_trials.nc", place / "s.tsv", place / "q"
    )
    prepare_responses.run(
        prepare_responses.Inputs(
            stimuli_table=target / "stimuli.tsv",
            **{key: target / row[key] for key in ("responses", "trials", "units", "sidecar")},
        ),
        outputs,
        prepare_responses.Config(min_training_trials=2),
    )
    with open_dataset(outputs.trials) as out:
        assert out["responses"].sizes == {"trial": 6, "unit": 6, "time": 281}
        np.testing.assert_allclose(out["time"].values[[0, -1]], [-0.1, 1.3])


def test_ways_to_split(source: Path) -> None:
    save_epochs(source, metadata=False)
    target, _ = convert(source, test_set="concepts")
    trials = read_tsv(target / "sub-BIGMEG1/sub-BIGMEG1_trials.tsv")
    tested = {row["stimulus_id"] for row in trials if row["split"] == "test"}
    assert tested == {"dog_01b.jpg", "dog_12s.jpg", "fan_05s.jpg", "fan_01b.jpg"}
    assert len(trials) == 8
    target, notes = convert(source, zero_shot=False)
    trials = read_tsv(target / "sub-BIGMEG1/sub-BIGMEG1_trials.tsv")
    assert {r["stimulus_id"] for r in trials if r["split"] == "train"} == {
        "wind_chime_03n.jpg", "dog_12s.jpg", "bat1_02s.jpg", "fan_01b.jpg",
    }  # fmt: skip
    assert any("trained on too" in note for note in notes)


def test_image_numbers_that_disagree(source: Path) -> None:
    save_epochs(source, metadata=False)
    table = source / "sourcedata/sample_attributes_P1.csv"
    table.write_text(table.read_text().replace(",303,303,", ",304,304,"))
    target, notes = convert(source)
    assert len(read_tsv(target / "sub-BIGMEG1/sub-BIGMEG1_trials.tsv")) == 5
    assert any("1 of 10 trials have another image number" in note for note in notes)


def test_epochs_and_trials_of_other_numbers(source: Path) -> None:
    save_epochs(source, metadata=False)
    table = source / "sourcedata/sample_attributes_P1.csv"
    table.write_text("\n".join(table.read_text().split("\n")[:-2]) + "\n")
    with pytest.raises(InputError, match="differ in number"):
        convert(source)


def test_raw_runs_start_at_their_triggers(raw: Path) -> None:
    before = {p: p.read_bytes() for p in raw.rglob("*") if p.is_file()}
    target, notes = convert(raw)
    assert {p: p.read_bytes() for p in raw.rglob("*") if p.is_file()} == before
    stem = target / "sub-BIGMEG1/ses-01/meg/sub-BIGMEG1_ses-01_task-main_run-01"
    found = read_events(
        Path(f"{stem}_events.tsv"), subject="BIGMEG1", stimuli_dir=target / "stimuli"
    )
    assert found.stimulus.tolist() == ["wind_chime_03n.jpg", "dog_01b.jpg", "fan_05s.jpg"]
    np.testing.assert_allclose(found.onsets_s, [0.5, 1.5, 3.5])
    rows = read_tsv(Path(f"{stem}_events.tsv"))
    assert [row["trial_type"] for row in rows] == ["image", "image", "catch", "image", "left_out"]
    assert [float(row["onset_published"]) for row in rows[:2]] == [0.65, 1.65]
    assert any("come 150 ms after the hardware triggers" in note for note in notes)
    assert any("sessions 3, 4, 5" in note for note in notes)
    assert Path(f"{stem}_meg.fif").is_symlink()
    assert Path(f"{stem}_meg.json").is_symlink()
    assert mne.io.read_raw(f"{stem}_meg.fif", verbose="error").info["sfreq"] == RATE_HZ
    status = {r["name"]: r["status"] for r in read_tsv(Path(f"{stem}_channels.tsv"))}
    assert status == {"MLO01-1609": "good", "MRO11-1609": "bad"}
    index = index_dataset(target)
    assert [(row["modality"], row["session"], row["run"], row["problem"]) for row in index] == [
        ("meg", "01", "01", "n/a"), ("meg", "02", "04", "n/a"),
    ]  # fmt: skip
    stimuli = {row["stimulus_id"]: row["split"] for row in read_tsv(target / "stimuli.tsv")}
    assert stimuli["bat1_02s.jpg"] == "train"
    assert "dog_12s.jpg" not in stimuli


def test_onsets_of_the_events(raw: Path) -> None:
    target, _ = convert(raw, onsets="events")
    path = target / "sub-BIGMEG1/ses-02/meg/sub-BIGMEG1_ses-02_task-main_run-04_events.tsv"
    assert [float(row["onset"]) for row in read_tsv(path)[:2]] == [0.65, 1.65]


def test_a_run_of_another_number_of_trials(raw: Path) -> None:
    path = raw / "sub-BIGMEG1/ses-02/meg/sub-BIGMEG1_ses-02_task-main_run-04_events.tsv"
    path.write_text("\n".join(path.read_text().split("\n")[:-2]) + "\n")
    target, notes = convert(raw)
    assert any("4 events, 5 trials in the table; the run is left out" in note for note in notes)
    assert not (target / "sub-BIGMEG1/ses-02").exists()


def test_a_run_with_wrong_image_numbers(raw: Path) -> None:
    save_run(raw, (1, 1), [303, 2, "n/a", 55, 12])
    target, notes = convert(raw)
    path = target / "sub-BIGMEG1/ses-01/meg/sub-BIGMEG1_ses-01_task-main_run-01_events.tsv"
    assert [row["trial_type"] for row in read_tsv(path)] == [
        "image", "mismatch", "catch", "image", "left_out",
    ]  # fmt: skip
    assert any("1 of 5 trials have another image number" in note for note in notes)


def test_stretch_without_signal(raw: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from afterimage.datasets import things_meg

    monkeypatch.setitem(things_meg.DROPOUTS_S, ("BIGMEG1", 1, 1), 2.25)
    target, notes = convert(raw)
    path = target / "sub-BIGMEG1/ses-01/meg/sub-BIGMEG1_ses-01_task-main_run-01_events.tsv"
    last = read_tsv(path)[-1]
    assert (last["trial_type"], last["onset"], last["duration"]) == ("BAD_dropout", "2.25", "0.2")
    assert len(read_events(path, subject="BIGMEG1")) == 3
    assert any("BAD_dropout" in note for note in notes)


def test_missing_and_damaged_files(raw: Path) -> None:
    path = raw / "sub-BIGMEG1/ses-01/meg/sub-BIGMEG1_ses-01_task-main_run-01_meg.fif"
    path.write_bytes(path.read_bytes()[:3000])
    with pytest.raises(InputError, match="run cannot be read"):
        convert(raw)
    (raw / "sourcedata/sample_attributes_P1.csv").unlink()
    with pytest.raises(InputError, match="table of trials is missing"):
        convert(raw)
    with pytest.raises(InputError, match="files of a subject are missing"):
        convert(raw, form="preprocessed")
