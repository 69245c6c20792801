"""What a run will write is told before it starts: by kind, corrected by finished subjects, warned."""

from __future__ import annotations

from collections import Counter, namedtuple
from pathlib import Path

import numpy as np
import pytest

from afterimage import disk
from afterimage.bids.index import COLUMNS
from afterimage.disk import describe, estimate_bytes
from afterimage.io.tables import Row

STAGES = ("clean_bold", "fit_responses", "clean_meeg", "train_decoder", "report_subject")


def row(label: str, **cells: str) -> Row:
    return dict.fromkeys(COLUMNS, "n/a") | {"subject": label, "source": "raw", **cells}


def file(path: Path, n_bytes: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(bytes(n_bytes))
    return path


@pytest.fixture
def rows(tmp_path: Path) -> list[Row]:
    """One subject with scans, three with EEG whose data lie beside their header, one broken."""
    file(tmp_path / "bold.nii.gz", 1_000_000)
    found = [row("01", modality="fmri", bold="bold.nii.gz", events="e")]
    for label in ("02", "03", "04"):
        file(tmp_path / f"{label}.vhdr", 10)
        file(tmp_path / f"{label}.eeg", 2_000_000)
        found.append(row(label, modality="eeg", recording=f"{label}.vhdr", events="e"))
    return [*found, row("05", modality="eeg", recording="none.vhdr", problem="cannot be read")]


def test_recordings_make_the_estimate(rows: list[Row], tmp_path: Path) -> None:
    found = estimate_bytes(rows, tmp_path, tmp_path / "out", {}, STAGES)
    rates = disk.PER_BYTE
    assert found["clean_bold"] == round(rates["fmri"]["clean_bold"] * 1_000_000)
    assert found["clean_meeg"] == pytest.approx(3 * rates["eeg"]["clean_meeg"] * 2_000_000)
    assert found["report_subject"] == 4 * disk.REPORT_BYTES
    assert "train_decoder" not in found  # there are no pictures
    early = estimate_bytes(rows, tmp_path, tmp_path / "out", {}, ("clean_bold",))
    assert set(early) == {"clean_bold"}


def test_decoders_and_pictures_count(rows: list[Row], tmp_path: Path) -> None:
    lines = ["stimulus_id\tfile", *(f"s{i}\ts{i}.png" for i in range(10))]
    (tmp_path / "stimuli.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    seen = [one | {"stimuli": "yes"} for one in rows[:1]]
    settings = {"train_decoder": {"decoders": {"a": {}, "b": {}}}}
    stages = (*STAGES, "extract_features", "reconstruct")
    found = estimate_bytes(seen, tmp_path, tmp_path / "out", settings, stages)
    assert found["train_decoder"] == 2 * round(disk.DECODER_PER_BYTE["fmri"] * 1_000_000)
    assert found["reconstruct"] == 3 * 10 * disk.RECONSTRUCT_PER_PICTURE
    per_picture = disk.PER_PICTURE["extract_features"] + disk.CACHE_PER_PICTURE
    assert found["extract_features"] == 10 * per_picture


def test_finished_subjects_correct_it_and_write_nothing(rows: list[Row], tmp_path: Path) -> None:
    out = tmp_path / "out"
    before = estimate_bytes(rows[1:4], tmp_path, out, {}, STAGES)
    one = before.total() / 3
    file(out / "sub-02.html", 100)
    file(out / "sub-02" / "eeg" / "series.nc", round(2 * one) - 100)
    after = estimate_bytes(rows[1:4], tmp_path, out, {}, (*STAGES, "epoch_meeg"))
    assert after.total() == pytest.approx(2 * 2 * one, rel=0.02)  # two are left, twice as large
    file(out / "sub-03.html", 100)
    file(out / "sub-04.html", 100)
    assert not estimate_bytes(rows[1:4], tmp_path, out, {}, STAGES)


def test_a_disk_that_is_too_small_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr("shutil.disk_usage", lambda _path: usage(9e9, 0, 2_000_000_000))
    needed = Counter({"clean_bold": 1_200_000_000, "train_decoder": 300_000_000})
    out = tmp_path / "not" / "yet"
    text = describe(needed, out)
    assert text == ("disk: about 2 GB to write (clean_bold 1 GB, train_decoder 300 MB); 2 GB free")
    needed["clean_bold"] += 1_000_000_000
    warning = describe(needed, out)
    assert "warning: the disk may be too small" in warning
    assert f"where:    {tmp_path}" in warning
    assert "fix:" in warning
    assert describe(Counter(), out) == ""


def test_recordings_that_are_folders(tmp_path: Path) -> None:
    file(tmp_path / "run.ds" / "run.meg4", 700)
    file(tmp_path / "run.ds" / "run.res4", 300)
    rows = [row("01", modality="meg", recording="run.ds", events="e")]
    found = estimate_bytes(rows, tmp_path, tmp_path / "out", {}, ("clean_meeg",))
    assert found["clean_meeg"] == round(disk.PER_BYTE["meg"]["clean_meeg"] * 1000)
    assert np.isclose(found.total(), 850)
