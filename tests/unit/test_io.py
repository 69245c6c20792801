"""Reading strictly and writing atomically."""

from __future__ import annotations

import errno
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from afterimage.errors import InputError, disk_full
from afterimage.io import atomic
from afterimage.io.arrays import open_dataset, open_npy
from afterimage.io.atomic import atomic_path, require_space, write_text, write_text_if_changed
from afterimage.io.images import read_image, resize_images, write_png
from afterimage.io.tables import format_cell, read_json, read_tsv
from afterimage.io.weights import load_weights


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "file.txt"
    write_text(path, "old")
    with pytest.raises(RuntimeError), atomic_path(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert path.read_text() == "old"
    assert [item.name for item in path.parent.iterdir()] == ["file.txt"]


def test_written_files_have_ordinary_permissions(tmp_path: Path) -> None:
    (tmp_path / "plain").touch()
    write_text(tmp_path / "ours", "x")
    assert (tmp_path / "ours").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_unchanged_text_is_not_written(tmp_path: Path) -> None:
    path = tmp_path / "file.txt"
    assert write_text_if_changed(path, "a")
    stamp = path.stat().st_mtime_ns
    assert not write_text_if_changed(path, "a")
    assert path.stat().st_mtime_ns == stamp
    assert write_text_if_changed(path, "b")


def test_space_is_asked_for_before_it_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = 10 * atomic.SPARE_BYTES
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=free))
    require_space(tmp_path, free - atomic.SPARE_BYTES)
    with pytest.raises(OSError, match="No space left") as caught:
        require_space(tmp_path, free - atomic.SPARE_BYTES + 1)
    assert caught.value.errno == errno.ENOSPC


def chained() -> Exception:
    try:
        try:
            raise OSError(errno.ENOSPC, "full", "/there/file")
        except OSError:
            raise RuntimeError("while closing")  # noqa: B904  the chain is what is tested
    except RuntimeError as error:
        return error


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "full"),
        OSError(errno.EDQUOT, "quota"),
        OSError("1000 requested and 12 written"),
        RuntimeError("Can't decrement id ref count (unable to close file, errno = 28, error m"),
        Exception("Error while serializing: I/O error: No space left on device (os error 28)"),
        chained(),
    ],
    ids=["errno", "quota", "numpy", "hdf5", "safetensors", "chain"],
)
def test_a_full_disk_is_recognised(error: Exception) -> None:
    found = disk_full(error)
    assert found is not None
    assert found.exit_code == 65
    assert found.what == "there is no space left on the disk"
    assert found.where
    assert found.found
    assert found.fix


def test_other_errors_are_not_a_full_disk() -> None:
    assert disk_full(OSError(errno.EACCES, "denied")) is None
    assert disk_full(ValueError("errno = 281")) is None


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_line_endings(tmp_path: Path, end: str) -> None:
    path = tmp_path / "t.tsv"
    path.write_bytes(f"\ufeffa\tb{end}1\t2{end}{end} {end}".encode())
    assert read_tsv(path, required=("a", "b")) == [{"a": "1", "b": "2"}]


def test_exotic_spaces_end_no_line(tmp_path: Path) -> None:
    path = tmp_path / "t.tsv"
    path.write_text("a\tb\none\u2028two\x0cthree\x85four\tx\n", encoding="utf-8")
    assert read_tsv(path) == [{"a": "one\u2028two\x0cthree\x85four", "b": "x"}]


@pytest.mark.parametrize("separator", [",", ";", " "])
def test_other_separators_are_named(tmp_path: Path, separator: str) -> None:
    path = tmp_path / "t.tsv"
    path.write_text(separator.join(["stimulus_id", "run"]) + "\n")
    with pytest.raises(InputError, match="has no tabs"):
        read_tsv(path, required=("stimulus_id",))


def test_one_column_needs_no_tabs(tmp_path: Path) -> None:
    path = tmp_path / "t.tsv"
    path.write_text("stimulus_id\na\nb\n")
    assert read_tsv(path, required=("stimulus_id",)) == [
        {"stimulus_id": "a"},
        {"stimulus_id": "b"},
    ]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "n/a"), (float("nan"), "n/a"), (np.float32("inf"), "n/a"), (0.1, "0.1"),
        (np.float32(0.5), "0.5"), (3, "3"), (np.int64(4), "4"), ("", "n/a"), ("a\tb\r\nc", "a b  c"),
        (True, "True"),
    ],
)  # fmt: skip
def test_cells(value: object, text: str) -> None:
    assert format_cell(value) == text


@pytest.mark.parametrize("text", ["[1]", "{", '"x"'])
def test_json_must_be_an_object(tmp_path: Path, text: str) -> None:
    path = tmp_path / "x.json"
    path.write_text(text)
    with pytest.raises(InputError) as caught:
        read_json(path)
    assert "x.json" in caught.value.where


@pytest.mark.parametrize(
    "array",
    [
        np.array(["a", "b"]),
        np.array([1j]),
        np.zeros(2, dtype=[("a", "f4")]),
        np.array(["2020-01-01"], dtype="datetime64[D]"),
    ],
    ids=["text", "complex", "records", "dates"],
)
def test_arrays_must_be_real_numbers(tmp_path: Path, array: np.ndarray) -> None:
    np.save(tmp_path / "a.npy", array)
    with pytest.raises(InputError, match="not numeric"):
        open_npy(tmp_path / "a.npy")


def test_archive_of_arrays_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=np.zeros(3))
    (tmp_path / "a.npz").rename(tmp_path / "a.npy")
    with pytest.raises(InputError):
        open_npy(tmp_path / "a.npy")


def test_pictures_of_every_mode_become_rgb(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    rgb = rng.integers(0, 256, (8, 6, 3), dtype=np.uint8)
    write_png(tmp_path / "rgb.png", rgb)
    np.testing.assert_array_equal(read_image(tmp_path / "rgb.png"), rgb)
    for mode in ("L", "P", "RGBA", "LA", "1", "CMYK"):
        path = tmp_path / f"{mode}.{'tif' if mode == 'CMYK' else 'png'}"
        Image.fromarray(rgb).convert("L" if mode == "LA" else mode).convert(mode).save(path)
        found = read_image(path)
        assert found.shape == (8, 6, 3)
        assert found.dtype == np.uint8


def test_transparency_is_laid_on_black(tmp_path: Path) -> None:
    rgba = np.zeros((2, 1, 4), np.uint8)
    rgba[0] = (200, 100, 50, 0)
    rgba[1] = (200, 100, 50, 255)
    Image.fromarray(rgba).save(tmp_path / "a.png")
    assert read_image(tmp_path / "a.png").tolist() == [[[0, 0, 0]], [[200, 100, 50]]]


def test_huge_picture_is_refused_before_it_is_read(tmp_path: Path) -> None:
    Image.new("1", (9000, 9000)).save(tmp_path / "huge.png")
    with pytest.raises(InputError, match="too large"):
        read_image(tmp_path / "huge.png")


def test_resize_keeps_pictures_of_that_size() -> None:
    picture = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    np.testing.assert_array_equal(resize_images([picture], 5, 7)[0], np.float32(picture) / 255.0)
    assert resize_images([], 5, 7).shape == (0, 5, 7, 3)


def test_damaged_intermediate_files(tmp_path: Path) -> None:
    for name in ("x.nc", "x.safetensors"):
        (tmp_path / name).write_bytes(b"nothing of the kind")
    with pytest.raises(InputError, match="intermediate file cannot be read"):
        open_dataset(tmp_path / "x.nc")
    with pytest.raises(InputError, match="weights file cannot be read"):
        load_weights(tmp_path / "x.safetensors")
