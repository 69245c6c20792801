"""The reader of THINGS-EEG2, on miniature files in the layouts of the authors and of NICE."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from afterimage.bids.events import read_events
from afterimage.bids.index import index_dataset
from afterimage.datasets import meeg
from afterimage.datasets.things_eeg2 import CHANNELS, POSTERIOR, ThingsEeg2, ThingsEeg2Settings
from afterimage.errors import InputError
from afterimage.io.arrays import open_dataset
from afterimage.io.tables import read_json, read_tsv
from afterimage.stages import prepare_responses
from afterimage.stages.import_dataset import import_dataset, parse_options

TRAIN = [
    (f"{n:05d}_{concept}", f"{concept}_{k:02d}b.jpg")
    for n, concept in enumerate(("aardvark", "bat1", "wind_chime"), start=1)
    for k in (1, 2)
]
TEST = [("00001_aircraft_carrier", "aircraft_carrier_06s.jpg"), ("00002_anvil", "anvil_03s.jpg")]
IDS = [name for _, name in TRAIN] + [name for _, name in TEST]
RATE_HZ = 250.0


def save_metadata(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    table = {
        f"{split}_img_{what}": [image[index] for image in images]
        for split, images in (("train", TRAIN), ("test", TEST))
        for index, what in enumerate(("concepts", "files"))
    }
    np.save(folder / "image_metadata.npy", table)  # type: ignore[arg-type]


def save_pictures(folder: Path) -> None:
    from PIL import Image

    for place, images in (("training_images", TRAIN), ("test_images", TEST)):
        for concept, name in images:
            (folder / place / concept).mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (8, 8)).save(folder / place / concept / name)


def responses(n_channels: int, n_times: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(1)
    return (
        rng.normal(size=(len(TRAIN), 4, n_channels, n_times)),
        rng.normal(size=(len(TEST), 6, n_channels, n_times)),
    )


def save_responses(
    folder: Path, names: list[str], times: np.ndarray, n_times: int, nice: bool
) -> tuple[np.ndarray, np.ndarray]:
    folder.mkdir(parents=True, exist_ok=True)
    arrays = responses(len(names), n_times)
    for part, array in zip(("training", "test"), arrays, strict=True):
        path = folder / f"preprocessed_eeg_{part}.npy"
        table = {"preprocessed_eeg_data": array, "ch_names": names, "times": times}
        if nice:
            path.write_bytes(pickle.dumps(table, protocol=4))
        else:
            np.save(path, table)  # type: ignore[arg-type]
    return arrays


@pytest.fixture
def nice(tmp_path: Path) -> Path:
    """Subject 03 as NICE writes it: 63 channels, 250 points and a time axis of 300."""
    source = tmp_path / "source"
    save_metadata(source / "Image_set")
    save_pictures(source / "Image_set")
    folder = source / "Preprocessed_data_250Hz" / "sub-03"
    save_responses(folder, CHANNELS, -0.2 + np.arange(300) / RATE_HZ, 250, nice=True)
    return source


def convert(source: Path, **options: Any) -> tuple[Path, list[str]]:
    target = source.parent / "out"
    notes = ThingsEeg2(ThingsEeg2Settings(**options)).convert(
        source, target, (), lambda line: None
    )
    return target, notes


def prepare(target: Path, subject: str) -> Path:
    """Index the dataset and prepare the responses of its subject."""
    (row,) = index_dataset(target)
    assert row["problem"] == "n/a"
    assert row["modality"] == "eeg"
    paths = {key: target / row[key] for key in ("responses", "trials", "units", "sidecar")}
    place = target.parent / "prepared"
    outputs = prepare_responses.Outputs(
        place / f"sub-{subject}_trials.nc", place / "split.tsv", place / "quality.json"
    )
    prepare_responses.run(
        prepare_responses.Inputs(stimuli_table=target / "stimuli.tsv", **paths),
        outputs,
        prepare_responses.Config(min_training_trials=2),
    )
    return outputs.trials


def test_form_of_nice(nice: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(meeg, "BLOCK_BYTES", 2 * 4 * 63 * 250 * 8)  # several blocks
    before = {p: p.read_bytes() for p in nice.rglob("*") if p.is_file()}
    target, notes = convert(nice)
    assert {p: p.read_bytes() for p in nice.rglob("*") if p.is_file()} == before
    train, test = responses(63, 250)
    data = np.load(target / "sub-03/sub-03_responses.npy")
    assert data.dtype == np.float32
    np.testing.assert_array_equal(
        data, np.concatenate([a.reshape(-1, 63, 250) for a in (train, test)]).astype(np.float32)
    )
    trials = read_tsv(target / "sub-03/sub-03_trials.tsv")
    assert [row["stimulus_id"] for row in trials] == (
        [name for name in IDS[:6] for _ in range(4)] + [name for name in IDS[6:] for _ in range(6)]
    )
    assert [row["repeat"] for row in trials[-6:]] == list("012345")
    assert {row["split"] for row in trials[:24]} == {"train"}
    sidecar = read_json(target / "sub-03/sub-03_responses.json")
    assert (sidecar["sampling_rate_hz"], sidecar["tmin_s"]) == (250.0, 0.0)
    assert any("300 points" in note and "no pre-stimulus" in note for note in notes)
    assert any("test trials too" in note for note in notes)
    stimuli = {row["stimulus_id"]: row for row in read_tsv(target / "stimuli.tsv")}
    assert stimuli["wind_chime_01b.jpg"]["concept"] == "wind_chime"
    assert stimuli["wind_chime_01b.jpg"]["category"] == "wind_chime"
    assert (target / "stimuli" / stimuli["anvil_03s.jpg"]["file"]).is_file()
    with open_dataset(prepare(target, "03")) as out:
        assert out["responses"].sizes == {"trial": 36, "unit": 63, "time": 250}
        assert (out["split"].values == "test").sum() == 12
        np.testing.assert_array_equal(out["responses"][24], test[0, 0].astype(np.float32))


def test_channels_have_their_places(nice: Path) -> None:
    target, _ = convert(nice)
    units = {row["name"]: row for row in read_tsv(target / "sub-03/sub-03_units.tsv")}
    assert list(units) == CHANNELS
    assert {row["kind"] for row in units.values()} == {"eeg"}
    place = {name: [float(row[a]) for a in "xyz"] for name, row in units.items()}
    assert all(0.08 < np.linalg.norm(p) < 0.15 for p in place.values())  # m, on the head
    assert place["Oz"][1] < -0.05 < 0.05 < place["Fp1"][1]  # behind, in front
    assert place["T7"][0] < -0.05 < 0.05 < place["T8"][0]  # left, right


def test_form_of_the_authors(nice: Path) -> None:
    folder = nice / "preprocessed_data" / "sub-01"
    times = -0.2 + np.arange(100) / 100
    train, _ = save_responses(folder, POSTERIOR, times, 100, nice=False)
    for path in (nice / "Preprocessed_data_250Hz").rglob("*.npy"):
        path.unlink()
    target, notes = convert(nice)
    sidecar = read_json(target / "sub-01/sub-01_responses.json")
    assert (sidecar["sampling_rate_hz"], sidecar["tmin_s"]) == (100.0, -0.2)
    data = np.load(target / "sub-01/sub-01_responses.npy")
    np.testing.assert_array_equal(data[4:8], train[1].astype(np.float32))
    assert not any("time axis" in note for note in notes)
    with open_dataset(prepare(target, "01")) as out:
        np.testing.assert_allclose(out["time"].values[[0, -1]], [-0.2, 0.79])


def test_channels_can_be_chosen(nice: Path) -> None:
    target, _ = convert(nice, channels="posterior")
    assert [u["name"] for u in read_tsv(target / "sub-03/sub-03_units.tsv")] == POSTERIOR
    data = np.load(target / "sub-03/sub-03_responses.npy")
    np.testing.assert_array_equal(data[0], responses(63, 250)[0][0, 0, -17:].astype(np.float32))
    with pytest.raises(InputError, match="was not recorded"):
        convert(nice, channels="Oz,Cx")


def test_concept_in_both_parts(nice: Path) -> None:
    table = {
        "train_img_concepts": [image[0] for image in TRAIN],
        "train_img_files": [image[1] for image in TRAIN],
        "test_img_concepts": ["00001_bat1", "00002_anvil"],
        "test_img_files": ["bat1_09s.jpg", "anvil_03s.jpg"],
    }
    np.save(nice / "Image_set" / "image_metadata.npy", table)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="both trained on and tested") as caught:
        convert(nice)
    assert "bat1" in caught.value.found


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"times": np.arange(200) / 250}, "time axis does not fit"),
        ({"times": np.arange(300) / 250}, "time axis does not fit"),
        ({"times": np.arange(250) ** 1.1 / 250}, "not regular"),
        ({"ch_names": CHANNELS[:-1]}, "differ in their channels"),
        ({"preprocessed_eeg_data": np.zeros((5, 4, 63, 250))}, "another form"),
        ({"preprocessed_eeg_data": print}, "cannot be read"),
    ],
)
def test_files_of_another_form(nice: Path, change: dict[str, Any], message: str) -> None:
    path = nice / "Preprocessed_data_250Hz/sub-03/preprocessed_eeg_training.npy"
    table = {
        "preprocessed_eeg_data": responses(63, 250)[0], "ch_names": CHANNELS,
        "times": np.arange(250) / 250,
    }  # fmt: skip
    path.write_bytes(pickle.dumps(table | change, protocol=4))
    with pytest.raises(InputError, match=message):
        convert(nice)


def test_a_missing_file(nice: Path) -> None:
    (nice / "Preprocessed_data_250Hz/sub-03/preprocessed_eeg_test.npy").unlink()
    with pytest.raises(InputError, match="file of a subject is missing"):
        convert(nice)
    (nice / "Image_set" / "image_metadata.npy").unlink()
    with pytest.raises(InputError, match="is missing"):
        ThingsEeg2(ThingsEeg2Settings()).convert(nice, nice.parent / "o", ("01",), print)


def save_raw(source: Path, session: int) -> dict[str, np.ndarray]:
    """Write both recordings of a session; the stim channel holds a code for 1 or 20 samples."""
    rng = np.random.default_rng(session)
    folder = source / "Raw_data" / "sub-02" / f"ses-{session:02d}"
    folder.mkdir(parents=True)
    made = {}
    for part, codes in (("training", [3, 1, 99999, 6, 3]), ("test", [2, 99999, 1])):
        data = np.concatenate([rng.normal(size=(4, 2500)) * 2e-5, np.zeros((1, 2500))])
        for index, code in enumerate(codes):
            data[-1, 300 + 200 * index : 301 + 200 * index + 19 * (index == 1)] = code
        np.save(
            folder / f"raw_eeg_{part}.npy",
            {
                "raw_eeg_data": data, "ch_names": ["Fp1", "Oz", "POz", "TP9", "stim"],
                "ch_types": ["eeg"] * 4 + ["stim"], "sfreq": 1000, "highpass": 0.01,
                "lowpass": 100,
            },
        )  # type: ignore[arg-type]  # fmt: skip
        made[part] = data
    return made


def test_raw_recordings(nice: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import mne
    import mne_bids

    monkeypatch.setattr(meeg, "BLOCK_BYTES", 8 * 4 * 700)  # pieces of 700 samples
    made = {session: save_raw(nice, session) for session in (1, 3)}
    target, notes = convert(nice)
    assert any("no training recording of sessions 2, 4" in note for note in notes)
    assert not list(target.glob(".writing-*"))
    assert not (target / "README").exists()
    for session, parts in made.items():
        for task, part in (("train", "training"), ("test", "test")):
            place = mne_bids.BIDSPath(
                root=target, subject="02", session=f"{session:02d}", task=task, datatype="eeg",
                suffix="eeg", extension=".vhdr",
            )  # fmt: skip
            raw = mne_bids.read_raw_bids(place, verbose="error")
            assert raw.ch_names == ["Fp1", "Oz", "POz", "TP9"]
            assert raw.info["line_freq"] == 50
            np.testing.assert_allclose(raw.get_data(), parts[part][:-1], rtol=1e-6, atol=1e-12)
            assert isinstance(raw.get_montage(), mne.channels.DigMontage)
    events = target / "sub-02/ses-01/eeg/sub-02_ses-01_task-train_events.tsv"
    found = read_events(events, subject="02", stimuli_dir=target / "stimuli")
    assert found.stimulus.tolist() == [IDS[2], IDS[0], IDS[5], IDS[2]]
    np.testing.assert_allclose(found.onsets_s, [0.3, 0.5, 0.9, 1.1])
    rows = read_tsv(events)
    assert [row["sample"] for row in rows] == ["300", "500", "700", "900", "1100"]
    assert rows[2]["trial_type"] == "target"
    assert (target / "stimuli" / found.file[0]).is_file()
    index = index_dataset(target)
    assert [(r["modality"], r["session"], r["task"], r["problem"]) for r in index] == [
        ("eeg", session, task, "n/a") for session in ("01", "03") for task in ("test", "train")
    ]
    split = {row["stimulus_id"]: row["split"] for row in read_tsv(target / "stimuli.tsv")}
    assert split[IDS[2]] == "train"
    assert split[IDS[6]] == "test"


def test_import_of_both_forms(nice: Path) -> None:
    save_raw(nice, 1)
    target = nice.parent / "imported"
    for form, kind in (("raw", "raw"), ("preprocessed", "derivative")):
        config = parse_options("things_eeg2", [f"form={form}"])
        notes = import_dataset(nice, target / form, config, lambda line: None)
        description = read_json(target / form / "dataset_description.json")
        assert description["DatasetType"] == kind
        assert description["Name"] == "THINGS-EEG2"
        assert all(note in (target / form / "README.md").read_text() for note in notes)


def test_raw_is_written_without_holding_it(nice: Path) -> None:
    import tracemalloc

    folder = nice / "Raw_data" / "sub-02" / "ses-01"
    folder.mkdir(parents=True)
    data = np.zeros((64, 200_000))
    data[-1, 500] = 1
    table = {
        "raw_eeg_data": data, "ch_names": [*CHANNELS, "stim"], "sfreq": 1000,
        "ch_types": ["eeg"] * 63 + ["stim"],
    }  # fmt: skip
    np.save(folder / "raw_eeg_training.npy", table)  # type: ignore[arg-type]
    del data, table
    monkey = pytest.MonkeyPatch()
    monkey.setattr(meeg, "BLOCK_BYTES", 2**21)
    tracemalloc.start()
    convert(nice)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    monkey.undo()
    assert peak < 40e6  # of 102 MB


@pytest.mark.parametrize("code", [7, 5000])
def test_codes_without_an_image(nice: Path, code: int) -> None:
    save_raw(nice, 1)
    path = nice / "Raw_data/sub-02/ses-01/raw_eeg_training.npy"
    table = np.load(path, allow_pickle=True).item()
    table["raw_eeg_data"][-1, 2000] = code
    np.save(path, table)
    with pytest.raises(InputError, match="events name no image") as caught:
        convert(nice)
    assert str(code) in caught.value.found
