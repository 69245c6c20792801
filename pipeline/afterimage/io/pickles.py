"""Pickled arrays read without trust: numpy arrays, scalars and plain builtins, and nothing else.

Published EEG comes as pickles with the name of an array (``.npy``). An ordinary unpickler calls
whatever such a file names. This one knows a closed list of names, each with a builder of its own,
and refuses every other name and every other way to make an object. Large arrays are not read at
all: their bytes lie in one piece in the file (protocol 3 and later), so they come back as a
memory map, and 8 GB of float64 cost no memory until rows of them are used.
"""

from __future__ import annotations

import io
import math
import pickle
import struct
from collections import OrderedDict
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, BinaryIO, ClassVar, NamedTuple

import numpy as np

from afterimage.errors import InputError

#: Strings of bytes of this length or more stay in the file and are mapped.
MAPPED_BYTES = 2**16
#: What may be held in memory of a pickle whose arrays cannot be mapped.
MEMORY_BYTES = 2 * 2**30
#: Parts of one key of a dict, or member of a set, tuples in tuples counted each time: their hash is
#: taken part by part, by code that neither ends early nor survives deep nesting.
MAX_KEY_PARTS = 1000


class _FileBytes(NamedTuple):
    """Bytes that stay in the file."""

    path: Path
    offset: int
    length: int


class _NamedType:
    """A name that stands as an argument in a pickle, and is never called."""


_NDARRAY = _NamedType()


class _Dtype:
    """Builder of the dtype of an array: numbers, text, and plain objects in an outer array."""

    def __init__(self, name: Any) -> None:
        text = name.decode("latin-1") if isinstance(name, bytes) else str(name)
        self.value = np.dtype(text)
        if self.value.fields is not None or self.value.kind not in "biufcSUOMm":
            raise pickle.UnpicklingError(f"dtype {text[:50]}")

    def setstate(self, state: Any) -> None:
        """Take over the byte order; state is ``(version, byte order, None, None, None, ...)``."""
        order = state[1]
        if isinstance(order, bytes):
            order = order.decode("latin-1")
        if order not in ("<", ">", "|", "=") or any(part is not None for part in state[2:5]):
            raise pickle.UnpicklingError("a dtype with fields")
        if order in "<>":
            self.value = self.value.newbyteorder(order)


class _Array:
    """Builder of an array, filled by the state that follows it in the pickle."""

    def __init__(self) -> None:
        self.value: np.ndarray | None = None

    def setstate(self, state: Any) -> None:
        """Take over ``(version, shape, dtype, is Fortran order, bytes or list)``."""
        _, shape, dtype, fortran, content = state
        self.value = _array(content, dtype, shape, "F" if fortran else "C")


def _array(content: Any, dtype: Any, shape: Any, order: str) -> np.ndarray:
    """Return an array over bytes, or over a list where its dtype is object."""
    if not isinstance(dtype, _Dtype):
        raise pickle.UnpicklingError("an array without a dtype")
    kind = dtype.value
    shape = tuple(int(length) for length in shape)
    n_values = math.prod(shape)
    if min(shape, default=0) < 0 or order not in ("C", "F"):
        raise pickle.UnpicklingError(f"an array of shape {shape}")
    if kind.hasobject:
        if not isinstance(content, list) or len(content) != n_values:
            raise pickle.UnpicklingError(
                "an array of objects whose number is not that of its shape"
            )
        objects = np.empty(n_values, dtype=object)
        for index, value in enumerate(content):
            objects[index] = value
        return objects.reshape(shape, order="F" if order == "F" else "C")
    length = content.length if isinstance(content, _FileBytes) else len(content)
    if length != n_values * kind.itemsize:
        raise pickle.UnpicklingError(
            f"{length} bytes for an array of shape {shape} and dtype {kind}"
        )
    layout: Any = order
    if isinstance(content, _FileBytes):
        return np.memmap(
            content.path, dtype=kind, mode="r", offset=content.offset, shape=shape, order=layout
        )
    if not isinstance(content, bytes | bytearray):
        raise pickle.UnpicklingError("an array whose content is no bytes")
    return np.frombuffer(bytes(content), dtype=kind).reshape(shape, order=layout)


def _reconstruct(kind: Any, shape: Any, code: Any) -> _Array:
    if kind is not _NDARRAY:
        raise pickle.UnpicklingError("a subclass of an array")
    return _Array()


def _from_buffer(content: Any, dtype: Any, shape: Any, order: str) -> np.ndarray:
    return _array(content, dtype, shape, order)


def _dtype(name: Any, align: Any = False, copy: Any = True) -> _Dtype:
    return _Dtype(name)


def _scalar(dtype: Any, content: Any = None) -> Any:
    return _array(content, dtype, (1,), "C")[0]


def _encode(text: str, encoding: str = "") -> bytes:
    """Return the bytes that protocols 0 to 2 write as text."""
    if encoding not in ("latin1", "latin-1"):
        raise pickle.UnpicklingError(f"text encoded as {encoding}")
    return text.encode("latin-1")


def _check_keys(keys: Iterable[Any]) -> None:
    """Refuse keys that cannot be hashed in little time and depth."""
    for key in keys:
        waiting, n_parts = [key], 0
        while waiting:
            part = waiting.pop()
            n_parts += 1
            if isinstance(part, tuple | frozenset):
                waiting += part
            if n_parts + len(waiting) > MAX_KEY_PARTS:
                raise pickle.UnpicklingError("a key of too many parts")


def _members(kind: type) -> Callable[..., Any]:
    """Return a builder of sets or of ordered dicts, from members or pairs."""

    def build(members: Any = ()) -> Any:
        if not isinstance(members, list | tuple | set | frozenset):
            raise pickle.UnpicklingError("members that are no list")
        is_dict = kind is OrderedDict
        _check_keys([key for key, _ in members] if is_dict else members)
        return kind(members)

    return build


def _bytearray(content: bytes = b"") -> bytearray:
    if not isinstance(content, bytes):
        raise pickle.UnpicklingError("a bytearray that is not made of bytes")
    return bytearray(content)


def _known_names() -> dict[tuple[str, str], Any]:
    known: dict[tuple[str, str], Any] = {("_codecs", "encode"): _encode}
    for core in ("numpy.core", "numpy._core"):
        known[f"{core}.multiarray", "_reconstruct"] = _reconstruct
        known[f"{core}.multiarray", "scalar"] = _scalar
        known[f"{core}.numeric", "_frombuffer"] = _from_buffer
    known["numpy", "ndarray"] = _NDARRAY
    known["numpy", "dtype"] = _dtype
    for module in ("builtins", "__builtin__"):
        known |= {
            (module, "bytearray"): _bytearray, (module, "complex"): complex,
            (module, "set"): _members(set), (module, "frozenset"): _members(frozenset),
        }  # fmt: skip
    known["collections", "OrderedDict"] = _members(OrderedDict)
    return known


_KNOWN = _known_names()
_CALLED = [value for value in _KNOWN.values() if value is not _NDARRAY]


class _File:
    """A file whose pickle may not ask for more bytes than there are, or than may be held."""

    def __init__(self, file: BinaryIO, path: Path) -> None:
        self._file, self._path = file, path
        self._size, self._held = path.stat().st_size, 0

    def take(self, length: int) -> None:
        """Check that ``length`` bytes follow and may be held in memory."""
        self.check(length)
        self._held += length
        if self._held > MEMORY_BYTES:
            raise InputError(
                "a pickle is too large to be read into memory", where=str(self._path),
                found=f"{self._size / 2**30:.1f} GB whose arrays are not in one piece (protocol 2 or "
                "older); some four times as much memory would be needed",
                expected="a pickle of protocol 3 or later, whose arrays are mapped",
                fix="write it again, a part at a time, with protocol=4 or numpy.save of the array",
            )  # fmt: skip

    def check(self, length: int) -> None:
        """Raise an error unless ``length`` bytes follow."""
        if length < 0 or self._file.tell() + length > self._size:
            raise EOFError(f"{length} bytes wanted at byte {self._file.tell()} of {self._size}")

    def read(self, length: int) -> bytes:
        """Return the next bytes."""
        self.take(length)
        return self._file.read(length)

    def readinto(self, buffer: Any) -> int:
        """Fill a buffer with the next bytes."""
        self.take(len(buffer))
        return int(self._file.readinto(buffer))  # type: ignore[attr-defined]

    def readline(self) -> bytes:
        """Return the next line."""
        line = self._file.readline()
        self._held += len(line)
        return line

    def leave(self, length: int) -> _FileBytes:
        """Skip the next bytes and say where they are."""
        self.check(length)
        place = _FileBytes(self._path, self._file.tell(), length)
        self._file.seek(length, io.SEEK_CUR)
        return place


def _refused(self: Any) -> None:
    raise pickle.UnpicklingError("an object of a class (it could run code)")


class _Unpickler(pickle._Unpickler):
    """The unpickler of the standard library, less what could run code.

    Parameters
    ----------
    file : _File
        At the first byte of the pickle.
    """

    dispatch: ClassVar[dict[int, Any]] = dict(pickle._Unpickler.dispatch)

    def __init__(self, file: _File) -> None:
        super().__init__(file)
        self._source = file

    def find_class(self, module: str, name: str) -> Any:
        """Return our builder for a known name; refuse any other."""
        if (module, name) not in _KNOWN:
            raise pickle.UnpicklingError(f"the name {module}.{name}"[:200])
        return _KNOWN[module, name]

    def _reduce(self) -> None:
        stack: Any = self.stack  # type: ignore[attr-defined]
        arguments = stack.pop()
        if not any(stack[-1] is known for known in _CALLED) or not isinstance(arguments, tuple):
            raise pickle.UnpicklingError("a call of something that is no array")
        stack[-1] = stack[-1](*arguments)

    def _build(self) -> None:
        stack: Any = self.stack  # type: ignore[attr-defined]
        state = stack.pop()
        if not isinstance(stack[-1], _Array | _Dtype):
            raise pickle.UnpicklingError("a state set on something that is no array")
        stack[-1].setstate(state)

    def _setitem(self) -> None:
        _check_keys(self.stack[-2:-1])  # type: ignore[attr-defined]
        self.load_setitem()  # type: ignore[attr-defined]

    def _setitems(self) -> None:
        _check_keys(self.stack[::2])  # type: ignore[attr-defined]
        self.load_setitems()  # type: ignore[attr-defined]

    def _dict(self) -> None:
        _check_keys(self.stack[::2])  # type: ignore[attr-defined]
        self.load_dict()  # type: ignore[attr-defined]

    def _additems(self) -> None:
        _check_keys(self.stack)  # type: ignore[attr-defined]
        self.load_additems()  # type: ignore[attr-defined]

    def _frozenset(self) -> None:
        _check_keys(self.stack)  # type: ignore[attr-defined]
        self.load_frozenset()  # type: ignore[attr-defined]

    def _bytes(self, length: int) -> Any:
        # The standard picklers write long bytes outside of frames, straight behind their length.
        framed = self._unframer.current_frame  # type: ignore[attr-defined]
        if length >= MAPPED_BYTES and not framed:
            return self._source.leave(length)
        return self.read(length)  # type: ignore[attr-defined]

    def _binbytes(self) -> None:
        self.append(self._bytes(*struct.unpack("<I", self.read(4))))  # type: ignore[attr-defined]

    def _binbytes8(self) -> None:
        self.append(self._bytes(*struct.unpack("<Q", self.read(8))))  # type: ignore[attr-defined]

    for _code in (
        pickle.INST, pickle.OBJ, pickle.NEWOBJ, pickle.NEWOBJ_EX, pickle.EXT1, pickle.EXT2,
        pickle.EXT4, pickle.PERSID, pickle.BINPERSID, pickle.NEXT_BUFFER,
        pickle.READONLY_BUFFER,
    ):  # fmt: skip
        dispatch[_code[0]] = _refused
    dispatch[pickle.REDUCE[0]] = _reduce
    dispatch[pickle.BUILD[0]] = _build
    dispatch[pickle.SETITEM[0]] = _setitem
    dispatch[pickle.SETITEMS[0]] = _setitems
    dispatch[pickle.DICT[0]] = _dict
    dispatch[pickle.ADDITEMS[0]] = _additems
    dispatch[pickle.FROZENSET[0]] = _frozenset
    dispatch[pickle.BINBYTES[0]] = _binbytes
    dispatch[pickle.BINBYTES8[0]] = _binbytes8
    dispatch[pickle.BYTEARRAY8[0]] = _binbytes8


def _finished(value: Any, seen: dict[int, tuple[Any, Any]]) -> Any:
    """Replace builders by what they built, in containers of any depth.

    ``seen`` maps the identity of a container to it and its replacement, so that cycles end and a
    part that is named many times is looked at once.
    """
    if isinstance(value, _Array):
        if value.value is None:
            raise pickle.UnpicklingError("an array without content")
        value = value.value
    if isinstance(value, _Dtype):
        return value.value
    if isinstance(value, _NamedType | _FileBytes) or any(value is known for known in _CALLED):
        raise pickle.UnpicklingError("a part that is no value")
    if id(value) in seen:
        return seen[id(value)][1]
    if isinstance(value, tuple | set | frozenset):
        made = type(value)(_finished(part, seen) for part in value)
        seen[id(value)] = (value, made)
        return made
    seen[id(value)] = (value, value)
    if isinstance(value, dict):
        for key in list(value):
            if _finished(key, seen) is not key and not isinstance(key, tuple):
                raise pickle.UnpicklingError("an array as a key")
            value[key] = _finished(value[key], seen)
    elif isinstance(value, list):
        # Parts of the former list stay alive, so that none of their identities returns.
        former = list(value)
        seen[id(former)] = (former, former)
        value[:] = [_finished(part, seen) for part in former]
    elif isinstance(value, np.ndarray) and value.dtype.hasobject:
        former = list(value.flat)
        seen[id(former)] = (former, former)
        for index, part in enumerate(former):
            value.flat[index] = _finished(part, seen)
    return value


def read_pickle(path: Path) -> Any:
    """Read an array or a pickle of arrays and plain builtins, and run nothing of it.

    Parameters
    ----------
    path : Path
        A ``.npy`` file of numbers, one of objects (``numpy.save`` of a dict), or a plain pickle,
        whatever its name. An array of shape () with an object in it comes back as the object.

    Returns
    -------
    object
        Arrays of `MAPPED_BYTES` or more are read-only memory maps of the file.

    Raises
    ------
    InputError
        If the file is missing, truncated, no pickle, or holds anything but numpy arrays, scalars,
        dtypes and plain builtins.
    """
    if not path.is_file():
        raise InputError(
            "a file of arrays is missing", where=str(path), found="no such file",
            expected="a .npy file or a pickle", fix="download it to that place",
        )  # fmt: skip
    try:
        with path.open("rb") as file:
            is_npy = file.read(6) == b"\x93NUMPY"
            file.seek(0)
            if is_npy and not _header(file).hasobject:
                return np.load(path, mmap_mode="r", allow_pickle=False)
            value = _finished(_Unpickler(_File(file, path)).load(), {})
    except InputError:
        raise
    except Exception as error:  # noqa: BLE001  the standard unpickler raises of every kind
        raise InputError(
            "a file of arrays cannot be read", where=str(path),
            found=f"{type(error).__name__}: {error}"[:300],
            expected="a whole pickle of numpy arrays and plain builtins; anything else could run "
            "code and is refused",
            fix="download it again from its publisher, and do not load it with another tool",
        ) from None  # fmt: skip
    is_wrapped = isinstance(value, np.ndarray) and value.dtype.hasobject and value.shape == ()
    return value.item() if is_wrapped else value


def _header(file: BinaryIO) -> np.dtype:
    """Read the header of a ``.npy`` file and return its dtype."""
    version = np.lib.format.read_magic(file)
    if version == (1, 0):
        return np.lib.format.read_array_header_1_0(file)[2]
    return np.lib.format.read_array_header_2_0(file)[2]
