"""What the report reads of pictures: the gallery, near duplicates and controls."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from afterimage.bids.names import camel_case
from afterimage.io.arrays import block_shapes, groups_of, open_hdf5, read_blocks
from afterimage.io.images import read_image
from afterimage.io.tables import read_tsv
from afterimage.reports import model
from afterimage.reports.labels import METHOD_ORDER, method_of
from afterimage.stages.stimuli import captions_of


@dataclass(frozen=True)
class _Pictures(Sequence[np.ndarray]):
    """Pictures read when they are looked at: a gallery shows a dozen of thousands."""

    read: Callable[[int], np.ndarray]
    n_pictures: int

    def __len__(self) -> int:
        return self.n_pictures

    def __getitem__(self, index: Any) -> Any:
        return self.read(int(index))


def _stored(path: Path, source: str, method: str, rows: list[int]) -> _Pictures:
    """Return rows of a stack of reconstructions."""

    def read(index: int) -> np.ndarray:
        with open_hdf5(path) as file:
            values = file[source][method]
            picture: np.ndarray = values[rows[index]].reshape(values.attrs["shape"])
            return picture

    return _Pictures(read, len(rows))


def _files(split_file: Path, bids_dir: Path | None, ids: list[str]) -> dict[str, Path]:
    """Return the files of the pictures of these stimuli that are there."""
    if bids_dir is None:
        return {}
    files = {row["stimulus_id"]: row["file"] for row in read_tsv(split_file)}
    paths = {name: bids_dir / "stimuli" / files[name] for name in ids if name in files}
    return {name: path for name, path in paths.items() if path.is_file()}


def stimulus_pictures(
    split_file: Path, bids_dir: Path | None, ids: list[str]
) -> dict[str, np.ndarray] | None:
    """Read the pictures of these stimuli that are there; None where none is."""
    paths = _files(split_file, bids_dir, ids)
    return {name: read_image(path) for name, path in paths.items()} or None


def _stacks(path: Path, source: str) -> tuple[list[str], dict[str, np.ndarray]]:
    shapes = block_shapes(path, source)
    ids, blocks = read_blocks(path, source)
    return list(ids), {name: one.reshape(-1, *shapes[name]) for name, one in blocks.items()}


def _method_rank(method: str) -> int:
    """Place of a method in the pipeline; methods this version does not know come first."""
    return METHOD_ORDER.index(method) if method in METHOD_ORDER else -1


def gallery(folder: Path, name: str, bids_dir: Path | None, n_rows: int) -> model.Gallery | None:
    """Collect the pictures of the test stimuli, one column a decoder and method.

    Parameters
    ----------
    folder : Path
        The subject's folder.
    name : str
        ``sub-01``.
    bids_dir : Path or None
        Dataset with the seen pictures.
    n_rows : int
        Rows drawn at random.
    """
    paths = sorted((folder / "recon").glob(f"{name}_desc-*_recon.nc"))
    columns: dict[str, _Pictures] = {}
    ids: list[str] = []
    ordered = [path for path in paths if "desc-ceiling" not in path.name]
    ordered += [path for path in paths if "desc-ceiling" in path.name]
    seen: dict[str, Path] = {}
    for path in ordered:
        source = "truth" if "desc-ceiling" in path.name else "brain"
        if source not in groups_of(path):
            continue
        names = list(read_blocks(path, source, names=[])[0])
        if not ids:
            seen = _files(folder / f"{name}_split.tsv", bids_dir, names)
            # Where only some test pictures are there, the gallery shows those.
            ids = [key for key in names if key in seen] if seen else names
        if not set(ids) <= set(names):
            continue
        place = {key: row for row, key in enumerate(names)}
        rows = [place[key] for key in ids]
        decoder = path.name.split("_desc-")[1].split("_")[0]
        for method in sorted(block_shapes(path, source), key=_method_rank):
            columns[camel_case(decoder, method)] = _stored(path, source, method, rows)
    if not columns:
        return None
    score, metric, label = _gallery_score(folder, name, ids, columns)
    return model.Gallery(
        stimulus=ids,
        columns=columns,
        seen=_Pictures(lambda row: read_image(seen[ids[row]]), len(ids)) if seen else None,
        score=score,
        score_metric=metric,
        score_label=label,
        n_random=n_rows,
        captions=_captions(folder, name, ids),
    )


def _captions(folder: Path, name: str, ids: list[str]) -> dict[str, list[str]]:
    """Return what is written under the pictures: the dataset's caption, decoded ones, the nearest."""
    path = folder / "recon" / f"{name}_captions.tsv"
    if not path.is_file():
        return {}
    known = captions_of(read_tsv(folder / f"{name}_split.tsv"))
    columns = {}
    if any(key in known for key in ids):
        columns["Dataset"] = [known.get(key, ("–",))[0] for key in ids]
    written: dict[tuple[str, str], dict[str, str]] = {}
    for row in read_tsv(path):
        texts = written.setdefault((row["decoder"], row["source"]), {})
        texts[row["stimulus_id"]] = row["caption"]
    for source, title in (
        ("brain", "Decoded"), ("nearest", "Nearest training"), ("truth", "From the seen image"),
    ):  # fmt: skip
        for decoder, texts in ((d, t) for (d, s), t in written.items() if s == source):
            if set(ids) <= set(texts):
                several = sum(s == source for _, s in written) > 1
                told = f"{title} ({decoder})" if several else title
                columns[told] = [texts[key] for key in ids]
    return columns


def region_pictures(folder: Path, name: str, n_shown: int = 6) -> dict[str, list[np.ndarray]]:
    """Collect pictures of what single regions stand for, by region, of the first decoder."""
    for path in sorted((folder / "recon").glob(f"{name}_desc-*_recon.nc")):
        if "roi" not in groups_of(path):
            continue
        ids, stacks = _stacks(path, "roi")
        pictures = stacks[max(stacks, key=_method_rank)]
        regions: dict[str, list[np.ndarray]] = {}
        for key, picture in zip(ids, pictures, strict=True):
            regions.setdefault(key.rsplit(" ", 1)[0], []).append(picture)
        return {region: shown[:n_shown] for region, shown in regions.items()}
    return {}


def _gallery_score(
    folder: Path, name: str, ids: list[str], columns: dict[str, Any]
) -> tuple[np.ndarray | None, str, str]:
    """Return the score that defines the percentile rows: pixcorr of the last method shown."""
    path = folder / "evaluation" / f"{name}_images.tsv"
    labels = [label for label in columns if not label.startswith("ceiling")]
    if not path.is_file() or not labels:
        return None, "", ""
    # Columns come decoder by decoder, methods in pipeline order: the last one of the first decoder.
    label = labels[len({method_of(label) for label in labels}) - 1]
    values = {
        row["stimulus"]: row.get("pixcorr", "n/a")
        for row in read_tsv(path, required=("stimulus", "label"))
        if row["label"] == label
    }
    if not set(ids) <= set(values):
        return None, "", ""
    numbers = [np.nan if values[key] == "n/a" else float(values[key]) for key in ids]
    return np.array(numbers), "pixcorr", label


def audit_record(
    folder: Path, name: str, audit: dict[str, Any] | None, bids_dir: Path | None
) -> model.Audit | None:
    """Put the audit of the evaluation together with pictures of what it speaks of."""
    if not audit:
        return None
    found = audit.get("near_duplicates") or {"pairs": [], "threshold": None}
    shown = found["pairs"][:12]
    keys = [pair[side] for pair in shown for side in ("test", "train")]
    pictures = stimulus_pictures(folder / f"{name}_split.tsv", bids_dir, keys) or {}
    pairs = [
        model.NearDuplicate(
            pair["test"], pair["train"], pair["correlation"],
            pictures.get(pair["test"]), pictures.get(pair["train"]),
        )
        for pair in found["pairs"]
    ]  # fmt: skip
    return model.Audit(
        leak_linter=audit["leak_linter"],
        near_duplicates=pairs,
        near_duplicate_rule=f"correlation of grey thumbnails (16 and 32 px, also mirrored and "
        f"shifted) of at least {found['threshold']}",
        cluster_oracle=audit.get("cluster_oracle"),
        split=audit.get("split") or {},
        without_duplicates=audit.get("without_duplicates") or {},
        gallery=_control_gallery(folder, name, bids_dir),
    )


def _control_gallery(folder: Path, name: str, bids_dir: Path | None) -> model.Gallery | None:
    """Show what the same generator makes of a shuffled and of a mean brain, and of noise."""
    for path in sorted((folder / "recon").glob(f"{name}_desc-*_recon.nc")):
        if not {"brain", "shuffled", "mean"} <= set(groups_of(path)):
            continue
        ids, brain = _stacks(path, "brain")
        _, shuffled = _stacks(path, "shuffled")
        _, mean = _stacks(path, "mean")
        method = max(brain, key=_method_rank)
        rows = range(min(len(ids), 64))
        decoder = path.name.split("_desc-")[1].split("_")[0]
        columns = {
            camel_case(decoder, method): [brain[method][row] for row in rows],
            camel_case("shuffled_brain", method): [shuffled[method][row] for row in rows],
            camel_case("mean_brain", method): [mean[method][0] for _ in rows],
        }
        if "noise" in groups_of(path):
            _, noise = _stacks(path, "noise")
            made = noise[method]
            columns[camel_case("noise_brain", method)] = [made[row % len(made)] for row in rows]
        names = [ids[row] for row in rows]
        seen = stimulus_pictures(folder / f"{name}_split.tsv", bids_dir, names)
        complete = seen if seen and set(names) <= set(seen) else None
        return model.Gallery(
            stimulus=names, columns=columns, n_random=5,
            seen=[complete[key] for key in names] if complete else None,
        )  # fmt: skip
    return None
