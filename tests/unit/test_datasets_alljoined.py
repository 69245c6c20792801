"""The reader of Alljoined-1.6M, on miniature blocks and pickles in the published layout."""

from __future__ import annotations

import pickle
import sys
from pathlib import Path
from typing import Any

import mne
import numpy as np
import pytest

from afterimage.bids.events import read_events
from afterimage.bids.index import index_dataset
from afterimage.datasets import alljoined_tables, meeg
from afterimage.datasets.alljoined import Alljoined, AlljoinedSettings
from afterimage.errors import InputError
from afterimage.io.arrays import open_dataset
from afterimage.io.tables import read_json, read_tsv
from afterimage.stages import prepare_responses

NAMES = ["Cz", "Fz", "Afz", "Oz"]
#: partition, session, block, image number, category, dropped: the planned order.
DESIGN = [
    ("stim_train", 1, 5, 12, "bat", False),
    ("stim_test", 1, 1, 16540, "anvil", False),
    ("oddball", 1, 1, 16741, "buzz", True),
    ("stim_train", 1, 6, 305, "dog", False),
    ("stim_train", 1, 6, 13, "bat", True),
    ("stim_test", 2, 2, 16540, "anvil", False),
    ("stim_test", 2, 2, 16541, "fan", False),
    ("stim_train", 2, 5, 12, "bat", False),
]
COLUMNS = ("partition", "session", "block_id", "image_path", "category_name", "dropped")


def rows(design: list[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    return [(p, s, b, f"images/{n:05d}.jpg", c, d) for p, s, b, n, c, d in design]


def save_csv(path: Path, design: list[tuple[Any, ...]], dropped: bool = True) -> None:
    columns = COLUMNS if dropped else COLUMNS[:-1]
    lines = [",".join(map(str, row[: len(columns)])) for row in rows(design)]
    path.write_text("\n".join([",".join(columns), *lines]) + "\n")


def responses(n_train: int = 3) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(2)
    return rng.normal(size=(n_train, 4, 250)), rng.normal(size=(3, 4, 250))


def save_responses(folder: Path, train: np.ndarray, test: np.ndarray) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for part, data in (("training", train), ("test", test)):
        table = {
            "preprocessed_eeg_data": data, "configs": {"sfreq": 250, "baseline": (None, 0)},
            "ch_names": NAMES, "times": np.arange(250) / 250,
        }  # fmt: skip
        (folder / f"preprocessed_eeg_{part}_flat.npy").write_bytes(pickle.dumps(table, protocol=5))


@pytest.fixture
def ready(tmp_path: Path) -> Path:
    folder = tmp_path / "alljoined" / "preprocessed_eeg" / "sub-04"
    save_responses(folder, *responses())
    save_csv(folder / "experiment_metadata.csv", DESIGN)
    images = tmp_path / "alljoined" / "stimuli" / "images"
    images.mkdir(parents=True)
    for row in DESIGN:
        (images / f"{row[3]:05d}.jpg").write_bytes(b"picture")
    return folder.parents[1]


def convert(source: Path, **options: Any) -> tuple[Path, list[str]]:
    target = source.parent / "out"
    notes = Alljoined(AlljoinedSettings(**options)).convert(source, target, (), lambda line: None)
    return target, notes


def test_published_responses(ready: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(meeg, "BLOCK_BYTES", 8 * 4 * 250)
    target, notes = convert(ready)
    train, test = responses()
    found = np.load(target / "sub-04/sub-04_responses.npy")
    np.testing.assert_array_equal(found, np.concatenate([train, test]).astype(np.float32))
    trials = read_tsv(target / "sub-04/sub-04_trials.tsv")
    assert [row["stimulus_id"] for row in trials] == [
        "00012", "00305", "00012", "16540", "16540", "16541",
    ]  # fmt: skip
    assert [row["session"] for row in trials] == ["01", "01", "02", "01", "02", "02"]
    assert [row["run"] for row in trials][:2] == ["05", "06"]
    assert [row["repeat"] for row in trials] == ["0", "0", "1", "0", "1", "0"]
    assert any("2 planned trials were not recorded" in note for note in notes)
    stimuli = {row["stimulus_id"]: row for row in read_tsv(target / "stimuli.tsv")}
    assert stimuli["16541"]["category"] == "fan"
    assert (target / "stimuli" / stimuli["00305"]["file"]).is_file()
    units = read_tsv(target / "sub-04/sub-04_units.tsv")
    assert [unit["name"] for unit in units] == ["Cz", "Fz", "AFz", "Oz"]
    assert float(units[2]["y"]) > 0.05  # in front, and so it was found
    assert read_json(target / "sub-04/sub-04_responses.json")["sampling_rate_hz"] == 250
    (row,) = index_dataset(target)
    assert (row["modality"], row["problem"]) == ("eeg", "n/a")
    place = ready.parent / "prepared"
    outputs = prepare_responses.Outputs(place / "sub-04_trials.nc", place / "s.tsv", place / "q")
    prepare_responses.run(
        prepare_responses.Inputs(
            stimuli_table=target / "stimuli.tsv",
            **{key: target / row[key] for key in ("responses", "trials", "units", "sidecar")},
        ),
        outputs,
        prepare_responses.Config(min_training_trials=2),
    )
    with open_dataset(outputs.trials) as out:
        assert out["responses"].sizes == {"trial": 6, "unit": 4, "time": 250}


def test_parquet(ready: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    path = ready / "preprocessed_eeg/sub-04/experiment_metadata.csv"
    target, _ = convert(ready)
    expected = (target / "sub-04/sub-04_trials.tsv").read_text()
    path.unlink()
    columns = dict(zip(COLUMNS, zip(*rows(DESIGN), strict=True), strict=True))
    table = pyarrow.table({name: list(values) for name, values in columns.items()})
    parquet.write_table(table, path.with_suffix(".parquet"))
    target, _ = convert(ready)
    assert (target / "sub-04/sub-04_trials.tsv").read_text() == expected
    path.with_suffix(".parquet").write_bytes(b"PAR1 no table PAR1")
    with pytest.raises(InputError, match="Parquet table cannot be read"):
        convert(ready)


def test_parquet_without_pyarrow(ready: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    path = ready / "preprocessed_eeg/sub-04/experiment_metadata.csv"
    path.rename(path.with_suffix(".parquet"))
    with pytest.raises(InputError, match="needs the package pyarrow") as caught:
        convert(ready)
    assert "pip install pyarrow" in caught.value.fix
    path.with_suffix(".parquet").unlink()
    with pytest.raises(InputError, match="table of trials is missing"):
        convert(ready)


def test_order_of_subject_06(ready: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(alljoined_tables, "SWAPPED", {"06": (3, 1)})
    folder = ready / "preprocessed_eeg"
    (folder / "sub-04").rename(folder / "sub-06")
    (folder / "sub-06/experiment_metadata.csv").unlink()
    planned = [row for row in DESIGN if not row[-1]]
    save_csv(folder / "sub-06/stim_order.csv", planned, dropped=False)
    target, notes = convert(ready)
    trials = read_tsv(target / "sub-06/sub-06_trials.tsv")
    assert [r["stimulus_id"] for r in trials] == [
        "00012", "00305", "00012", "16540", "16540", "16541",
    ]  # fmt: skip
    assert [r["session"] for r in trials[3:]] == ["02", "01", "02"]
    assert any("row 3 of the planned order was shown before row 1" in note for note in notes)


def test_responses_and_trials_of_other_numbers(ready: Path) -> None:
    save_responses(ready / "preprocessed_eeg/sub-04", *responses(4))
    with pytest.raises(InputError, match="differ in number") as caught:
        convert(ready)
    assert "4 responses, 3 rows" in caught.value.found


def test_concept_in_both_parts(ready: Path) -> None:
    design = [(*row[:4], "bat" if row[3] == 16541 else row[4], row[5]) for row in DESIGN]
    save_csv(ready / "preprocessed_eeg/sub-04/experiment_metadata.csv", design)
    with pytest.raises(InputError, match="both trained on and tested"):
        convert(ready)


def save_block(
    source: Path, subject: int, session: int, block: int, markers: list[tuple[float, str]],
    named: int | None = None, names: list[str] = NAMES,
) -> np.ndarray:  # fmt: skip
    folder = source / f"raw_eeg/sub-{subject:02d}/session_{session:02d}/block_{block:02d}"
    folder.mkdir(parents=True, exist_ok=True)
    data = np.random.default_rng(block).normal(size=(len(names) + 1, 2560)) * 1e-5
    info = mne.create_info([*names, "CQ_Cz"], 256, "eeg")
    raw = mne.io.RawArray(data, info, verbose="error")
    onsets, texts = zip(*markers, strict=True)
    raw.set_annotations(mne.Annotations(onsets, [0.1] * len(texts), texts))
    path = folder / f"Subject {named or subject}, Session {session}, Block {block}_2024.edf"
    mne.export.export_raw(path, raw, verbose="error")
    return data


TEST = [(1.0, "stim_test,16541,-1,0"), (1.25, "oddball,0,-1,1"), (1.5, "stim_test,16540,-1,2"),
        (2.0, "behav,3,-1,3")]  # fmt: skip
TRAIN = [(1.0, "stim_train,00012,-1,0"), (1.25, "stim_train,16539,-1,1"),
         (1.5, "stim_train,5,-1,2"), (1.5, "stim_train,6,-1,3"), (2.0, "debug,1,-1,4")]  # fmt: skip


def test_raw_blocks(tmp_path: Path) -> None:
    import mne_bids

    source = tmp_path / "alljoined"
    data = save_block(source, 3, 2, 1, TEST)
    save_block(source, 3, 2, 5, TRAIN, names=["Cz", "Fz", "AFz", "Oz"])
    (source / "stimuli/images").mkdir(parents=True)
    (source / "stimuli/images/00012.jpg").write_bytes(b"picture")
    before = {p: p.read_bytes() for p in source.rglob("*") if p.is_file()}
    target, notes = convert(source, sessions="2")
    assert {p: p.read_bytes() for p in source.rglob("*") if p.is_file()} == before
    folder = target / "sub-03/ses-02/eeg"
    found = read_events(
        folder / "sub-03_ses-02_task-images_run-05_events.tsv", subject="03",
        stimuli_dir=target / "stimuli",
    )  # fmt: skip
    assert found.stimulus.tolist() == ["00012", "16539"]
    assert found.file[0] == "00012.jpg"
    np.testing.assert_allclose(found.onsets_s, [1.0, 1.25])
    rows = read_tsv(folder / "sub-03_ses-02_task-images_run-01_events.tsv")
    assert [row["trial_type"] for row in rows] == ["image", "oddball", "image", "behav"]
    assert [row["split"] for row in rows] == ["test", "n/a", "test", "n/a"]
    assert any("1 files call AFz Afz" in note for note in notes)
    assert any("2 markers share their onset" in note for note in notes)
    assert any("session 2: blocks 2, 3, 4, 6" in note for note in notes)
    assert (folder / "sub-03_ses-02_task-images_run-05_eeg.edf").is_symlink()
    place = mne_bids.BIDSPath(
        root=target, subject="03", session="02", task="images", run="01", datatype="eeg",
        suffix="eeg", extension=".edf",
    )  # fmt: skip
    raw = mne_bids.read_raw_bids(place, verbose="error")
    assert raw.ch_names == ["Cz", "Fz", "AFz", "Oz", "CQ_Cz"]
    assert raw.get_channel_types() == ["eeg"] * 4 + ["misc"]
    np.testing.assert_allclose(raw.get_data(picks="eeg"), data[:4], atol=1e-8)
    index = index_dataset(target)
    assert [(row["modality"], row["run"], row["problem"]) for row in index] == [
        ("eeg", "01", "n/a"), ("eeg", "05", "n/a"),
    ]  # fmt: skip
    stimuli = {row["stimulus_id"]: row for row in read_tsv(target / "stimuli.tsv")}
    assert stimuli["00012"]["concept"] == "train0001"
    assert stimuli["16541"]["concept"] == "test001"
    assert any("concepts have numbers" in note for note in notes)


def test_files_of_subject_08(tmp_path: Path) -> None:
    source = tmp_path / "alljoined"
    save_block(source, 8, 3, 1, TEST, named=19)
    save_block(source, 8, 2, 1, TEST, named=19)
    save_block(source, 8, 1, 1, TEST)
    target, notes = convert(source)
    assert sorted(p.name for p in (target / "sub-08").glob("ses-*")) == ["ses-01", "ses-03"]
    assert any("1 files are named after subject 19, a known error" in note for note in notes)
    assert any("session 2: blocks 1, 2, 3" in note for note in notes)


def test_blocks_of_the_other_split(tmp_path: Path) -> None:
    source = tmp_path / "alljoined"
    save_block(source, 1, 1, 3, TRAIN)
    _, notes = convert(source)
    assert any("2 trials of the other split than their block has" in note for note in notes)


@pytest.mark.parametrize(
    "marker", ["stim_test,12,-1,0", "stim_train,16540,-1,0", "stim_train,,-1"]
)
def test_markers_without_an_image(tmp_path: Path, marker: str) -> None:
    source = tmp_path / "alljoined"
    save_block(source, 1, 1, 3, [(1.0, marker)])
    with pytest.raises(InputError, match="names no image of its split"):
        convert(source)


def test_a_damaged_block(tmp_path: Path) -> None:
    source = tmp_path / "alljoined"
    save_block(source, 1, 1, 1, TEST)
    path = next(source.rglob("*.edf"))
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(InputError, match="block cannot be read"):
        convert(source)
