"""How much a run will write, told before it starts, from the sizes of its inputs.

The rates were measured on the demo. What a study writes beside its recordings depends on its voxels,
channels and settings, so an estimate can be wrong by a factor of two or three. Where subjects of the
same kind are finished in the output, what they wrote corrects it.
"""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

from afterimage.bids.stimuli import stimulus_table
from afterimage.io.tables import Row, read_tsv

#: Bytes that a stage writes of a subject for each byte of its recordings.
PER_BYTE = {
    "fmri": {"clean_bold": 1.2, "fit_responses": 0.27},
    "eeg": {"clean_meeg": 0.85, "epoch_meeg": 0.04},
    "meg": {"clean_meeg": 0.85, "epoch_meeg": 0.04},
    "prepared": {"prepare_responses": 1.0},
    "series": {"prepare_series": 1.0},
}
#: Bytes of the series of regions, where there is connectivity, for each byte of the recordings.
SERIES_PER_BYTE = 0.05
#: Bytes of a decoder and its predictions for each byte of the recordings; at most `DECODER_BYTES`.
DECODER_PER_BYTE = {"fmri": 1.5, "eeg": 1.4, "meg": 0.9, "prepared": 10.0}
DECODER_BYTES = 1_000_000_000
#: Bytes for each picture of the study: features of a subject, pictures of a decoder, scores.
PER_PICTURE = {"extract_features": 21_000, "evaluate": 1_500}
RECONSTRUCT_PER_PICTURE = 4_600
#: The features of all pictures are kept once, so that subjects share them.
CACHE_PER_PICTURE = 133_000
REPORT_BYTES, GROUP_BYTES, CONNECTIVITY_BYTES = 9_800_000, 6_000_000, 5_000_000
#: Finished subjects of a kind that correct the estimate.
N_FINISHED = 5
#: Where the data of a recording lie that is known by its header.
DATA_SUFFIX = {".vhdr": ".eeg", ".set": ".fdt"}


def estimate_bytes(
    rows: Sequence[Row],
    bids_dir: Path,
    out: Path,
    settings: dict[str, Any],
    stages: Collection[str],
) -> Counter[str]:
    """Return how many bytes each stage is still to write, by its name.

    Parameters
    ----------
    rows : sequence of Row
        The table of units, of the subjects of the run.
    bids_dir, out : Path
        The dataset, and the output. Subjects whose report stands there write nothing more.
    settings : dict
        The configuration, by section.
    stages : collection of str
        Those that the run may start.
    """
    subjects: dict[str, list[Row]] = {}
    for row in rows:
        if row["problem"] == "n/a":
            subjects.setdefault(row["subject"], []).append(row)
    table = stimulus_table(bids_dir)
    n_pictures = len(read_tsv(table)) if table else 0
    total: Counter[str] = Counter()
    by_kind: dict[str, list[Counter[str]]] = {}
    measured: dict[str, list[tuple[int, int]]] = {}
    for label, own in subjects.items():
        kind = _kind(own[0])
        needed = _of_subject(kind, own, bids_dir, n_pictures, settings)
        if not (out / f"sub-{label}.html").is_file():
            by_kind.setdefault(kind, []).append(needed)
        elif len(measured.setdefault(kind, [])) < N_FINISHED:
            measured[kind].append((_tree_bytes(out, label), needed.total()))
    for kind, all_needed in by_kind.items():
        found, expected = map(sum, zip(*measured.get(kind, [(1, 1)]), strict=True))
        for needed in all_needed:
            total.update({name: round(n * found / expected) for name, n in needed.items()})
    if any(by_kind.values()):
        total["report_group"] += GROUP_BYTES
        if not (out / "work" / "features").is_dir():
            total["extract_features"] += CACHE_PER_PICTURE * n_pictures
    return Counter({name: n for name, n in total.items() if name in stages})


def describe(needed: Counter[str], out: Path) -> str:
    """Say in a line what a run will write and what is free; a second line warns if it is too much."""
    if not needed.total():
        return ""
    there = next(path for path in (out, *out.parents) if path.exists())
    free = shutil.disk_usage(there).free
    most = ", ".join(f"{name} {_words(n)}" for name, n in needed.most_common(4))
    text = f"disk: about {_words(needed.total())} to write ({most}); {_words(free)} free"
    if needed.total() <= free:
        return text
    return (
        f"{text}\nwarning: the disk may be too small\n  where:    {there}\n"
        f"  found:    {_words(free)} free\n  expected: about {_words(needed.total())}\n"
        "  fix:      free some space, give another OUT_DIR, or run fewer subjects at a time; a run "
        "that fills the disk stops, keeps what is finished, and goes on when there is space"
    )


def _kind(row: Row) -> str:
    return row["source"] if row["source"] in ("prepared", "series") else row["modality"]


def _of_subject(
    kind: str, rows: Sequence[Row], bids_dir: Path, n_pictures: int, settings: dict[str, Any]
) -> Counter[str]:
    """Return the bytes of one subject."""
    recorded = sum(_bytes_of(path) for path in _recordings(rows, bids_dir))
    needed = Counter(
        {name: round(rate * recorded) for name, rate in PER_BYTE.get(kind, {}).items()}
    )
    needed["report_subject"] = REPORT_BYTES
    if kind != "prepared" and any(row["events"] == "n/a" for row in rows):
        needed["extract_series"] = round(SERIES_PER_BYTE * recorded)
        needed["connect"] = CONNECTIVITY_BYTES
    if any(row["stimuli"] == "yes" for row in rows):
        sections = [settings.get(name, {}) for name in ("train_decoder", "train_shared_decoder")]
        n_decoders = sum(len(section.get("decoders", {})) for section in sections)
        one = min(DECODER_PER_BYTE.get(kind, 1.0) * recorded, DECODER_BYTES)
        needed["train_decoder"] = round(n_decoders * one)
        needed["reconstruct"] = (n_decoders + 1) * RECONSTRUCT_PER_PICTURE * n_pictures
        needed.update({name: rate * n_pictures for name, rate in PER_PICTURE.items()})
    return needed


def _recordings(rows: Sequence[Row], bids_dir: Path) -> Iterator[Path]:
    for row in rows:
        for column in ("bold", "recording", "series", "responses"):
            if row.get(column, "n/a") != "n/a":
                yield from (bids_dir / part for part in row[column].split(";"))


def _bytes_of(path: Path) -> int:
    """Return the size of a recording, which may be a folder, or a header with its data beside it."""
    path = path.with_suffix(DATA_SUFFIX[path.suffix]) if path.suffix in DATA_SUFFIX else path
    if path.is_dir():
        return sum(_bytes_of(part) for part in path.iterdir())
    return path.stat().st_size if path.is_file() else 0


def _tree_bytes(out: Path, label: str) -> int:
    pages = [*out.glob(f"sub-{label}.html"), *out.glob(f"sub-{label}_*.html")]
    files = (path for path in (out / f"sub-{label}").rglob("*") if path.is_file())
    return sum(path.stat().st_size for path in (*pages, *files))


def _words(n_bytes: float) -> str:
    """Say a size in the unit that leaves one to three digits before the point."""
    for unit in ("B", "kB", "MB", "GB"):
        if n_bytes < 1000:
            return f"{n_bytes:.0f} {unit}"
        n_bytes /= 1000
    return f"{n_bytes:.1f} TB"
