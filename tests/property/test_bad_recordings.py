"""Whatever garbage lies in the files of a recording, it is read or refused with an InputError."""

from __future__ import annotations

import runpy
import shutil
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from afterimage.bids.events import read_events
from afterimage.bids.index import index_dataset
from afterimage.bids.sidecars import read_sidecars, split_paths
from afterimage.errors import InputError
from afterimage.io.recordings import listed_channels, open_recording, table_units

made = SimpleNamespace(
    **runpy.run_path(str(Path(__file__).parents[1] / "bad_recordings_example.py"))
)
GARBAGE = st.one_of(
    st.binary(max_size=40),
    st.sampled_from([b"\t", b"\n", b"\r\n", b"n/a", b"nan", b"inf", b"-1", b"1e400", b"=", b"[",
                     b"\x00", b"\xff", b"0", b"99999999", b"\xef\xbb\xbf"]),
)  # fmt: skip


Damage = tuple[str, float, float, bytes]


@st.composite
def damages(draw: st.DrawFn) -> Damage:
    """Draw a kind of damage, where it begins and ends (shares of the file), and what is put in."""
    start, stop = sorted((draw(st.floats(0, 1)), draw(st.floats(0, 1))))
    kind = draw(st.sampled_from(["cut", "overwrite", "insert", "remove", "replace"]))
    return kind, start, stop, draw(GARBAGE)


def damage(content: bytes, how: Damage) -> bytes:
    kind, start, stop, new = how
    first, last = int(start * len(content)), int(stop * len(content))
    if kind == "cut":
        return content[:first]
    if kind == "overwrite":
        return content[:first] + new + content[first + len(new) :]
    if kind == "insert":
        return content[:first] + new + content[first:]
    if kind == "remove":
        return content[:first] + content[last:]
    # One cell of a table, or value of a header, becomes garbage.
    separator = b"\t" if b"\t" in content else b"="
    words = content.split(separator)
    words[int(start * (len(words) - 1))] = new
    return separator.join(words)


def read(root: Path) -> None:
    """Index the dataset and read its recording as the cleaning stage does."""
    (row,) = index_dataset(root)
    if row["problem"] != "n/a":
        return
    tables = split_paths(row["sidecar"], root)
    events = read_events(root / row["events"], subject=row["subject"], sample="sample")
    assert np.isfinite(events.onsets_s).all()
    assert (events.onsets_s >= 0).all()
    sidecar = read_sidecars(path for path in tables if path.suffix == ".json")
    listed_channels(tables)
    raw = open_recording(root / row["recording"], sidecar, row["recording"]).raw
    assert raw.n_times > 0
    assert raw.info["sfreq"] > 0
    table_units(tables, raw.ch_names)


def is_read_or_refused(label: str, ending: str, how: Damage) -> bool:
    """Damage one file and read: a sound recording or a complete error; all else is raised."""
    with tempfile.TemporaryDirectory() as name:
        root = Path(name) / "study"
        shutil.copytree(made.study() / f"sub-{label}", root / f"sub-{label}")
        shutil.copy(made.study() / "dataset_description.json", root)
        (path,) = root.rglob(f"*{ending}")
        path.write_bytes(damage(path.read_bytes(), how))
        try:
            read(root)
        except InputError as error:
            return all((error.what, error.where, error.found, error.expected, error.fix))
    return True


FEW: Any = settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
TEXTS = ["_channels.tsv", "_events.tsv", "_electrodes.tsv", "_eeg.json", "_coordsystem.json"]


@FEW
@given(st.sampled_from(TEXTS), damages())
def test_damaged_tables_and_sidecars(ending: str, how: Damage) -> None:
    assert is_read_or_refused("vision", ending, how)


@FEW
@given(st.sampled_from(["_eeg.vhdr", "_eeg.vmrk", "_eeg.eeg"]), damages())
def test_damaged_brainvision(ending: str, how: Damage) -> None:
    assert is_read_or_refused("vision", ending, how)


@FEW
@given(st.sampled_from([("edf", "_eeg.edf"), ("fif", "_meg.fif")]), damages())
def test_damaged_edf_and_fif(which: tuple[str, str], how: Damage) -> None:
    assert is_read_or_refused(*which, how)
