"""Tokens on disk (`_tokens.npz` and a JSON file beside it): all recordings of a subject; no pickle."""

from __future__ import annotations

import math
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from afterimage.errors import InputError
from afterimage.io.atomic import atomic_path, write_json
from afterimage.io.tables import read_json


@dataclass(frozen=True, eq=False)
class RecordedTokens:
    """The tokens of one recording.

    Attributes
    ----------
    codes : array of int16 or int32, (n_streams, n_steps, n_stages)
    streams : array of str, (n_streams,)
    kept : array of bool, (n_steps,)
        False where a sample of the step is censored.
    about : dict
        Of the recording: ``name``, entities, ``step_s``, ``start_s``, ``seen`` in training, ...
    """

    codes: np.ndarray
    streams: np.ndarray
    kept: np.ndarray
    about: dict[str, Any]


def write_tokens(
    path: Path, card: Path, recordings: Sequence[RecordedTokens], vocabulary: dict[str, Any]
) -> None:
    """Write tokens, and their vocabulary with what is known of each recording.

    Parameters
    ----------
    path, card : Path
        The ``.npz`` and the ``.json`` file.
    recordings : sequence of RecordedTokens
        None for a subject whose recordings were all left out.
    vocabulary : dict
        What the codes are; plain values.
    """
    arrays: dict[str, np.ndarray] = {}
    for number, one in enumerate(recordings):
        arrays |= {
            f"codes_{number}": one.codes, f"streams_{number}": one.streams.astype(np.str_),
            f"kept_{number}": one.kept,
        }  # fmt: skip
    with atomic_path(path) as temporary:
        np.savez_compressed(temporary, allow_pickle=False, **arrays)
    write_json(card, {**vocabulary, "recordings": [one.about for one in recordings]})


def read_tokens(path: Path, card: Path) -> tuple[list[RecordedTokens], dict[str, Any]]:
    """Read what `write_tokens` wrote: the tokens of each recording, and the vocabulary."""
    vocabulary = read_json(card)
    found = []
    try:
        with zipfile.ZipFile(path) as archive:
            # Numpy makes an array of the announced size before it reads: compare with what is there.
            for member in archive.infolist():
                with archive.open(member) as stream:
                    _check_member(stream, member.file_size)
        with np.load(path, allow_pickle=False) as file:
            for number, about in enumerate(vocabulary.pop("recordings")):
                codes, streams, kept = (
                    file[f"{key}_{number}"] for key in ("codes", "streams", "kept")
                )
                found.append(RecordedTokens(codes, streams, kept, about))
    except Exception as error:  # noqa: BLE001  a damaged archive raises of every kind
        raise InputError(
            "tokens cannot be read", where=str(path),
            found=" ".join(str(error).split())[:200] or type(error).__name__,
            expected="a _tokens.npz file and its card, written by afterimage",
            fix="delete both and run again",
        ) from None  # fmt: skip
    return found, vocabulary


def _check_member(stream: IO[bytes], n_bytes: int) -> None:
    """Raise unless the header of an array announces as many bytes as the archive holds of it."""
    version = np.lib.format.read_magic(stream)
    read = np.lib.format.read_array_header_1_0
    shape, _, dtype = (read if version == (1, 0) else np.lib.format.read_array_header_2_0)(stream)
    if stream.tell() + math.prod(shape) * dtype.itemsize != n_bytes:
        raise ValueError(f"an array of shape {shape} in {n_bytes} bytes")
