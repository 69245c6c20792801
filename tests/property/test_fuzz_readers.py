"""100,000 fuzzed files: a reader reads, or raises an error of ours, within a second and its memory.

Valid small files are mutated with their structure in mind (bits, cuts, splices, numbers of headers,
counts of lines); readers of text are given random text besides. The default run takes some hundred
of them, the slow one all.
"""

from __future__ import annotations

import contextlib
import resource
import runpy
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from afterimage.errors import AfterimageError

fuzz = SimpleNamespace(**runpy.run_path(str(Path(__file__).parents[1] / "fuzz_example.py")))
#: Of one file, in processor time: a busy machine must not fail the test.
LIMIT_S = 1.0
#: What a reader may ask for at once, and what all examples of one reader may add for good.
ROOM_BYTES, GROWTH_MB = 2**30, 250
INTEGERS = [
    0,
    1,
    -1,
    127,
    128,
    255,
    256,
    2**15,
    2**16 - 1,
    2**31 - 1,
    2**31,
    2**32 - 1,
    2**62,
    2**63,
]
Mutation = tuple[str, float, float, bytes, int]


def mutations(words: tuple[bytes, ...]) -> st.SearchStrategy[list[Mutation]]:
    """Draw changes of a file: a kind, two places (shares of the file), what is put in, a number."""
    kinds = [
        "bit",
        "bits",
        "cut",
        "remove",
        "repeat",
        "move",
        "insert",
        "overwrite",
        "number",
        "many",
    ]
    new = st.binary(max_size=12)
    return st.lists(
        st.tuples(
            st.sampled_from(kinds), st.floats(0, 1), st.floats(0, 1),
            new | st.sampled_from(words) if words else new, st.integers(0, 2**16),
        ),
        min_size=1, max_size=4,
    )  # fmt: skip


def mutate(data: bytes, how: Mutation) -> bytes:
    kind, first, second, new, number = how
    # Half of the changes fall into the first bytes, where headers are.
    length = len(data) if number % 2 else min(len(data), 352)
    start, stop = sorted((int(first * length), int(second * length)))
    if kind == "cut":
        return data[:start]
    if kind == "remove":
        return data[:start] + data[stop:]
    if kind == "repeat":
        return data[:stop] + data[start:stop] * (number % 20) + data[stop:]
    if kind == "move":
        return data[start:stop] + data[:start] + data[stop:]
    if kind == "insert":
        return data[:start] + new + data[start:]
    if kind == "overwrite":
        return data[:start] + new + data[start + len(new) :]
    if kind == "many":
        return data[:start] + (new or b"\x00") * (number % 2000) + data[start:]
    if kind == "number":
        size = (1, 2, 4, 8)[number % 4]
        value = INTEGERS[number % len(INTEGERS)] % 2 ** (8 * size)
        order = "little" if number % 3 else "big"
        return data[:start] + value.to_bytes(size, order) + data[start + size :]
    changed = bytearray(data)
    for place in range(start, stop if kind == "bits" else start + 1, max(1, number // 8)):
        if place < len(changed):
            changed[place] ^= 1 << number % 8
    return bytes(changed)


def files(reader: Any) -> st.SearchStrategy[bytes]:
    """Draw a file for a reader: a valid one, changed, or random text of its words."""
    seeds = reader.seeds()

    def build(which: int, changes: list[Mutation]) -> bytes:
        data = seeds[which % len(seeds)]
        for how in changes:
            data = mutate(data, how)
        return data[: 2**16]

    changed = st.builds(build, st.integers(0, len(seeds) - 1), mutations(reader.words))
    if not reader.words or b"\n" not in (*reader.words, seeds[0][-1:]):
        return changed
    text = st.lists(
        st.sampled_from(reader.words) | st.text(max_size=6).map(str.encode), max_size=30
    )
    return st.integers(0, 9).flatmap(lambda n: changed if n else text.map(b"".join))


@contextlib.contextmanager
def limited_memory() -> Iterator[None]:
    """Let an allocation of more than `ROOM_BYTES` fail, whoever asks for it."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(
        resource.RLIMIT_AS, (pages * resource.getpagesize() + ROOM_BYTES, before[1])
    )
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


def peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


class Fuzzed:
    """A folder with what stands beside the file, and counts of what happened.

    Parameters
    ----------
    reader : Reader
    """

    def __init__(self, reader: Any) -> None:
        self.reader = reader
        self.folder = Path(tempfile.mkdtemp(prefix="afterimage-"))
        self.path = self.folder / reader.name
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if reader.beside:
            reader.beside(self.path.parent)
        self.n_read = self.n_refused = 0
        self.slowest_s = 0.0

    def __call__(self, data: bytes) -> None:
        """Write the file and read it."""
        self.path.write_bytes(data)
        began = time.process_time()
        try:
            self.reader.read(self.path)
        except AfterimageError as error:
            assert error.what
            assert error.where
            assert error.fix
            self.n_refused += 1
        else:
            self.n_read += 1
        took = time.process_time() - began
        self.slowest_s = max(self.slowest_s, took)
        assert took < LIMIT_S, f"{took:.1f} s for {len(data)} bytes: {data[:2000]!r}"


def run(name: str, n_examples: int) -> Fuzzed:
    reader = fuzz.READERS[name]
    fuzzed = Fuzzed(reader)
    for data in reader.seeds():
        fuzzed.path.write_bytes(data)
        reader.read(fuzzed.path)  # a valid file; and what is imported for it is not counted
    before = peak_mb()

    @settings(
        max_examples=n_examples, deadline=None, database=None,
        suppress_health_check=list(HealthCheck), phases=[Phase.generate, Phase.shrink],
    )  # fmt: skip
    @seed(len(name))
    @given(files(reader))
    def test(data: bytes) -> None:
        fuzzed(data)

    try:
        with limited_memory():
            test()
    finally:
        shutil.rmtree(fuzzed.folder, ignore_errors=True)
    grown = peak_mb() - before
    print(
        f"\n{name}: {fuzzed.n_read + fuzzed.n_refused} files, {fuzzed.n_refused} refused, slowest "
        f"{1000 * fuzzed.slowest_s:.0f} ms, memory +{grown:.0f} MB"
    )
    assert grown < GROWTH_MB
    return fuzzed


@pytest.mark.parametrize("name", fuzz.READERS)
def test_some(name: str) -> None:
    fuzzed = run(name, max(6, fuzz.READERS[name].n_examples // 500))
    assert fuzzed.n_read + fuzzed.n_refused


def test_the_long_run_reads_100_000_files() -> None:
    assert sum(reader.n_examples for reader in fuzz.READERS.values()) == 100_000


@pytest.mark.slow
@pytest.mark.parametrize("name", fuzz.READERS)
def test_all(name: str) -> None:
    fuzzed = run(name, fuzz.READERS[name].n_examples)
    # Hypothesis leaves out what it drew before.
    assert fuzzed.n_read + fuzzed.n_refused > 0.9 * fuzz.READERS[name].n_examples
