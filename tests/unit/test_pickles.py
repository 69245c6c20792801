"""The reader of untrusted pickles: arrays come back, code does not run, large ones stay on disk."""

from __future__ import annotations

import contextlib
import io
import os
import pickle
import struct
import tracemalloc
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from afterimage.errors import InputError
from afterimage.io import pickles
from afterimage.io.pickles import MAPPED_BYTES, read_pickle


def contents() -> dict[str, Any]:
    rng = np.random.default_rng(0)
    return {
        "data": rng.normal(size=(6, 4, 17, 100)),
        "fortran": np.asfortranarray(rng.normal(size=(200, 300))),
        "big_endian": np.arange(20000, dtype=">i4"),
        "small": np.arange(5, dtype=np.float32)[::2],
        "text": np.array(["aardvark_01b.jpg", "Größe"]),
        "ch_names": ["Oz", "Pz"],
        "sfreq": np.float64(1000.0),
        "nested": OrderedDict(parts=[(1, 2.5, None, True, 3 + 4j), {b"x", "y"}, bytearray(b"ab")]),
        "ragged": np.array([np.arange(3), {"a": [1]}], dtype=object),
    }


def assert_same(found: Any, expected: Any) -> None:
    if isinstance(expected, np.ndarray) and expected.dtype.hasobject:
        for one, other in zip(found, expected, strict=True):
            assert_same(one, other)
    elif isinstance(expected, np.ndarray):
        assert found.dtype == expected.dtype
        np.testing.assert_array_equal(found, expected)
    elif isinstance(expected, dict):
        assert list(found) == list(expected)
        for key in expected:
            assert_same(found[key], expected[key])
    else:
        assert found == expected
        assert type(found) is type(expected)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_plain_pickles_with_the_name_of_an_array(tmp_path: Path, protocol: int) -> None:
    path = tmp_path / "preprocessed_eeg_test.npy"
    path.write_bytes(pickle.dumps(contents(), protocol))
    found = read_pickle(path)
    assert_same(found, contents())
    assert isinstance(found["data"], np.memmap) == (protocol >= 3)


def test_pickle_of_the_python_pickler(tmp_path: Path) -> None:
    path = tmp_path / "x.npy"
    with path.open("wb") as file:
        pickle._Pickler(file, 4).dump(contents())  # type: ignore[attr-defined]
    assert_same(read_pickle(path), contents())


def test_saved_by_numpy(tmp_path: Path) -> None:
    path = tmp_path / "raw_eeg_test.npy"
    np.save(path, contents())  # type: ignore[arg-type]
    found = read_pickle(path)
    assert_same(found, contents())
    assert isinstance(found["data"], np.memmap)
    np.save(path, contents()["data"])
    assert_same(np.asarray(read_pickle(path)), contents()["data"])


def test_names_of_older_numpy(tmp_path: Path) -> None:
    path = tmp_path / "x.npy"
    for protocol in (2, 4, 5):
        data = pickle.dumps({"a": np.arange(4.0), "s": np.float32(2)}, protocol)
        module = b"numpy._core"
        if protocol > 3:  # names are counted there
            data = data.replace(b"\x16numpy._core.multiarray", b"\x15numpy.core.multiarray")
            data = data.replace(b"\x13numpy._core.numeric", b"\x12numpy.core.numeric")
            if data[2:3] == b"\x95":  # one frame, shorter by the letters taken out
                data = data[:3] + struct.pack("<Q", len(data) - 11) + data[11:]
        data = data.replace(module, b"numpy.core")
        path.write_bytes(data)
        found = read_pickle(path)
        np.testing.assert_array_equal(found["a"], np.arange(4.0))
        assert found["s"] == np.float32(2)


class Calls:
    def __init__(self, function: Any, *arguments: Any) -> None:
        self._parts = (function, arguments)

    def __reduce__(self) -> Any:
        return self._parts


class WithState:
    def __setstate__(self, state: Any) -> None:
        Path(state).touch()

    def __getstate__(self) -> str:
        return str(Path.cwd() / "exploded")


def attacks(target: Path) -> dict[str, bytes]:
    command = f"touch {target}"
    shell = Calls(os.system, command)
    by_eval = f"__import__('os').system({command!r})"
    wrapped = np.empty((), dtype=object)
    wrapped[()] = {"raw_eeg_data": np.zeros(3), "x": [shell]}
    saved = io.BytesIO()
    np.save(saved, wrapped, allow_pickle=True)
    word = command.encode()
    return {
        "os.system": pickle.dumps(shell),
        "eval": pickle.dumps(Calls(eval, by_eval)),
        "getattr": b"cbuiltins\ngetattr\n.",
        "nested reduce": pickle.dumps({"a": [np.zeros(3), (1, Calls(list, shell))]}),
        "object array": pickle.dumps(np.array([shell, 1], dtype=object)),
        "in numpy.save": saved.getvalue(),
        "dtype argument": pickle.dumps(Calls(np.dtype, shell)),
        "method of a class": pickle.dumps(WithState()),
        "protocol 0": pickle.dumps(shell, 0),
        "instance": b"(S'" + word + b"'\nios\nsystem\n.",
        "object": b"(cos\nsystem\nS'" + word + b"'\no.",
        "new object": b"\x80\x02cos\nsystem\nU" + bytes([len(word)]) + word + b"\x85\x81.",
        "call of a value": b"cnumpy\nndarray\n(I3\ntR.",
        "call of text": b"S'os.system'\n(S'" + word + b"'\ntR.",
        "state of a set": b"cbuiltins\nset\n)R}S'a'\nI1\nsb.",
        "numpy load": b"cnumpy\nload\n(S'x'\ntR.",
        "runstring": b"cnumpy.testing._private.utils\nrunstring\n(S'" + by_eval.encode() + b"'\n}tR.",
        "dotted name": b"\x80\x04\x8c\x05numpy\x8c\x10core.os.system_x\x93.",
        "codec": b"c_codecs\nencode\n(S'a'\nS'hex_codec'\ntR.",
        "persistent": b"Pid\n.",
        "extension": b"\x80\x02\x82\x01.",
        "a builder alone": b"cnumpy\ndtype\n.",
        "bytes of a length": b"cbuiltins\nbytearray\n(I99999999999\ntR.",
    }  # fmt: skip


@pytest.mark.parametrize("name", sorted(attacks(Path("x"))))
def test_code_in_a_pickle_does_not_run(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "image_metadata.npy"
    path.write_bytes(attacks(tmp_path / "exploded")[name])
    with pytest.raises(InputError, match="cannot be read"):
        read_pickle(path)
    assert not (tmp_path / "exploded").exists()


def test_the_attack_is_real(tmp_path: Path) -> None:
    """The same bytes do run in the standard unpickler, so the test above tests something."""
    with contextlib.suppress(TypeError):
        pickle.loads(attacks(tmp_path / "exploded")["nested reduce"])  # noqa: S301
    assert (tmp_path / "exploded").exists()


@pytest.mark.parametrize("cut", [1, 20, 1000, 60000])
def test_truncated(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "x.npy"
    saved = io.BytesIO()
    np.save(saved, contents())  # type: ignore[arg-type]
    for data in (pickle.dumps(contents(), 4), saved.getvalue()):
        path.write_bytes(data[:-cut])
        with pytest.raises(InputError, match="cannot be read"):
            read_pickle(path)


def test_lengths_that_lie(tmp_path: Path) -> None:
    path = tmp_path / "x.npy"
    data = pickle.dumps({"data": np.zeros(2 * MAPPED_BYTES // 8)}, 4)
    length = struct.pack("<Q", 2 * MAPPED_BYTES)
    at = data.find(b"B" + length[:4])
    assert at > 0
    path.write_bytes(data[: at + 1] + struct.pack("<I", 2**32 - 1) + data[at + 5 :])
    with pytest.raises(InputError, match="cannot be read"):
        read_pickle(path)
    shorter = data[: at + 1] + struct.pack("<I", 2 * MAPPED_BYTES - 8) + data[at + 5 : -20]
    path.write_bytes(shorter + data[-12:])
    with pytest.raises(InputError, match="cannot be read"):
        read_pickle(path)
    path.write_bytes(b"\x80\x04\x8e" + struct.pack("<Q", 2**62) + b".")
    with pytest.raises(InputError, match="cannot be read"):
        read_pickle(path)


def test_parts_named_many_times(tmp_path: Path) -> None:
    value: Any = (np.zeros(2), 1)
    for _ in range(100):
        value = (value, value)
    path = tmp_path / "x.npy"
    path.write_bytes(pickle.dumps({"deep": value}, 4))
    found = read_pickle(path)["deep"]
    for _ in range(100):
        assert found[0] is found[1]
        found = found[0]
    np.testing.assert_array_equal(found[0], np.zeros(2))
    cycle: list[Any] = [np.zeros(1)]
    cycle.append(cycle)
    path.write_bytes(pickle.dumps(cycle, 4))
    back = read_pickle(path)
    assert back[1] is back


def test_random_bytes(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    good = pickle.dumps(contents(), 4)
    path = tmp_path / "x.npy"
    refused = 0
    for _ in range(300):
        data = bytearray(good[:400] + good[-4000:])
        for place in rng.integers(0, len(data), 5):
            data[place] = rng.integers(256)
        path.write_bytes(data)
        try:
            read_pickle(path)
        except InputError:  # any other error fails the test
            refused += 1
    assert refused > 100


def test_memory_stays_flat(tmp_path: Path) -> None:
    path = tmp_path / "big.npy"
    data = np.lib.stride_tricks.as_strided(np.zeros(1000), (40, 4, 63, 1000), (0, 0, 0, 8))
    np.save(path, {"preprocessed_eeg_data": data})  # type: ignore[arg-type]
    assert path.stat().st_size > 80e6
    tracemalloc.start()
    found = read_pickle(path)["preprocessed_eeg_data"]
    first = found[0].astype(np.float32)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert first.shape == (4, 63, 1000)
    assert peak < 8e6


def test_too_large_for_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pickles, "MEMORY_BYTES", 10**5)
    path = tmp_path / "old.npy"
    path.write_bytes(pickle.dumps(np.zeros(50000), 2))
    with pytest.raises(InputError, match="too large") as caught:
        read_pickle(path)
    assert "protocol" in caught.value.expected
    path.write_bytes(pickle.dumps(np.zeros(50000), 4))
    assert read_pickle(path).shape == (50000,)


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is missing"):
        read_pickle(tmp_path / "x.npy")
