"""The index of a dataset, the names of outputs and their description."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from afterimage.bids.description import describe_derivatives
from afterimage.bids.index import (
    index_dataset,
    picture_digest,
    read_units,
    select_units,
    write_units,
)
from afterimage.bids.names import derivative_root, entity, stimulus_labels, unit_of
from afterimage.errors import InputError


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    (folder / "stimuli").mkdir(parents=True)
    (folder / "stimuli.tsv").write_text("stimulus_id\tfile\na\ta.png\n")
    for label, kind in (("01", "voxel"), ("02", "mag"), ("x3", None)):
        subject = folder / f"sub-{label}"
        subject.mkdir()
        (subject / f"sub-{label}_responses.npy").touch()
        (subject / f"sub-{label}_trials.tsv").touch()
        if kind:
            (subject / f"sub-{label}_units.tsv").write_text(f"roi\tkind\nV1\t{kind}\n")
    return folder


def test_subjects_are_listed_with_their_files(dataset: Path) -> None:
    rows = index_dataset(dataset)
    assert [row["subject"] for row in rows] == ["01", "02", "x3"]
    assert [row["modality"] for row in rows] == ["fmri", "meg", "n/a"]
    assert rows[0]["responses"] == "sub-01/sub-01_responses.npy"
    assert rows[2]["units"] == "n/a"
    assert {row["problem"] for row in rows} == {"n/a"}


def test_what_is_missing_is_said(dataset: Path) -> None:
    (dataset / "sub-01" / "sub-01_trials.tsv").unlink()
    (dataset / "sub-4_b").mkdir()
    problems = {row["subject"]: row["problem"] for row in index_dataset(dataset)}
    assert "sub-01_trials.tsv" in problems["01"]
    assert "letters and digits" in problems["4_b"]
    assert problems["02"] == "n/a"


def test_no_dataset(tmp_path: Path, dataset: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        index_dataset(tmp_path / "nothing")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="no subject"):
        index_dataset(tmp_path / "empty")
    (dataset / "stimuli.tsv").unlink()
    with pytest.raises(InputError, match="no table of stimuli"):
        index_dataset(dataset)


def test_units_come_back_and_are_written_once(dataset: Path, tmp_path: Path) -> None:
    rows = index_dataset(dataset)
    assert write_units(tmp_path / "units.tsv", rows)
    assert not write_units(tmp_path / "units.tsv", rows)
    assert read_units(tmp_path / "units.tsv") == rows


def test_selection(dataset: Path) -> None:
    rows = index_dataset(dataset)

    def chosen(*args: object) -> list[str]:
        return [row["subject"] for row in select_units(rows, *args)]  # type: ignore[arg-type]

    assert chosen() == ["01", "02", "x3"]
    assert chosen(["sub-02", "01"]) == ["01", "02"]
    assert chosen([], ["meg"]) == ["02"]
    assert chosen(["01"], ["meg"]) == []
    with pytest.raises(InputError) as caught:
        chosen(["1"])
    assert caught.value.expected == "01, 02, x3"


def test_digest_sees_pictures_come_and_go(dataset: Path) -> None:
    folder = dataset / "stimuli"
    digests = [picture_digest(folder)]
    (folder / "a.png").write_bytes(b"12")
    digests.append(picture_digest(folder))
    (folder / "a.png").write_bytes(b"123")
    digests.append(picture_digest(folder))
    (folder / "a.png").rename(folder / "b.png")
    digests.append(picture_digest(folder))
    assert len(set(digests)) == 4
    assert picture_digest(folder) == digests[-1]


def test_description_is_bids(dataset: Path, tmp_path: Path) -> None:
    (dataset / "dataset_description.json").write_text('{"Name": "Ünser"}', encoding="utf-8")
    out = tmp_path / "out"
    describe_derivatives(out, dataset)
    found = json.loads((out / "dataset_description.json").read_text(encoding="utf-8"))
    assert found["Name"] == "afterimage reconstructions of Ünser"
    assert found["DatasetType"] == "derivative"
    assert found["GeneratedBy"][0]["Name"] == "afterimage"
    assert found["DatasetLinks"]["source"] == dataset.as_uri()
    stamp = (out / "dataset_description.json").stat().st_mtime_ns
    describe_derivatives(out, dataset)
    assert (out / "dataset_description.json").stat().st_mtime_ns == stamp


def test_unreadable_title_stops_nothing(dataset: Path, tmp_path: Path) -> None:
    (dataset / "dataset_description.json").write_text("[1]")
    describe_derivatives(tmp_path / "out", dataset)
    text = (tmp_path / "out" / "dataset_description.json").read_text(encoding="utf-8")
    assert "reconstructions of data" in text


def test_names(tmp_path: Path) -> None:
    (tmp_path / "dataset_description.json").touch()
    deep = tmp_path / "sub-01" / "recon" / "sub-01_desc-ridge_recon.nc"
    assert derivative_root(deep) == tmp_path
    assert unit_of(Path("sub-01/generator")) == "sub-01"
    assert unit_of(Path("group.html")) == "group"
    with pytest.raises(ValueError, match="no entity stim"):
        entity(deep, "stim")


def test_labels_that_would_collide_get_a_hash() -> None:
    found = stimulus_labels(["a-b", "ab", "c", "ä", "x" * 200])
    assert found["c"] == "c"
    assert found["ab"] != "ab"
    assert found["a-b"] != found["ab"]
    assert len(found["x" * 200]) <= 100
