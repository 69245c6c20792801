"""Names of what we write: BIDS entities and the labels they carry."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from pathlib import Path

#: Letters of a label, and of the name of a scan: names of outputs are longer, and a file name holds
#: 255 bytes.
MAX_LABEL, MAX_NAME = 64, 160
SUBJECT = re.compile(r"sub-([a-zA-Z0-9]+)")


def camel_case(*words: str) -> str:
    """Join words to one BIDS label: ``camel_case("ridge", "low_level") == "ridgeLowLevel"``."""
    parts = [part for word in words for part in re.split(r"[^a-zA-Z0-9]+", word) if part]
    return parts[0] + "".join(part[0].upper() + part[1:] for part in parts[1:])


def stimulus_labels(stimuli: Iterable[str]) -> dict[str, str]:
    """Give every stimulus id a BIDS label (letters and digits), different for different ids.

    An id that is no label as it stands loses its other characters; where two ids would then
    share a label, both get a short hash of the id behind it.
    """
    ids = list(stimuli)
    plain = {name: re.sub(r"[^a-zA-Z0-9]", "", name) for name in ids}
    seen: dict[str, int] = {}
    for label in plain.values():
        seen[label.lower()] = seen.get(label.lower(), 0) + 1
    return {
        name: label
        if label and seen[label.lower()] == 1 and len(label) <= 100
        else label[:80] + hashlib.sha256(name.encode()).hexdigest()[:8]
        for name, label in plain.items()
    }


def derivative_root(path: Path) -> Path:
    """Return the output dataset that ``path`` lies in: the nearest parent with a description."""
    for parent in path.resolve().parents:
        if (parent / "dataset_description.json").is_file():
            return parent
    return path.resolve().parent


def unit_of(path: Path) -> str:
    """Return the subject that a path belongs to (``sub-01``), or ``group``."""
    match = SUBJECT.search(path.name) or SUBJECT.search(str(path))
    return match.group(0) if match else "group"


def entity(path: Path, key: str) -> str:
    """Return the value of a BIDS entity in a file name: ``entity("sub-1_desc-x_y.nc", "desc")``."""
    for part in path.name.split("_"):
        if part.startswith(f"{key}-"):
            return part.split("-", 1)[1].split(".")[0]
    raise ValueError(f"{path.name} has no entity {key}")
