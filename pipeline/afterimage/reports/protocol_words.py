"""Rows of one protocol put together: what may be averaged, drawn on one axis, and how it is told."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from afterimage.evaluation.metrics import comparison_key, shared_protocol
from afterimage.reports.model import Row

#: Parts of a protocol that say what an axis and its chance level are of: as `protocol` writes them.
_REPEATS = "repeats "
#: What columns of the table of subjects say already.
_IN_COLUMNS = ("fitted on ", _REPEATS)


def setting_and_way(row: Row) -> tuple[str, str]:
    """Part the protocol of a row in two.

    Returns
    -------
    setting : str
        Family, size, direction and, of retrieval, the number of pictures to choose from: numbers of
        two settings have no chance level in common and stand on two axes.
    way : str
        Repeats, how one of several was chosen, and more: within an axis, a mean of its own.
    """
    parts = comparison_key(row)[1].split("; ")
    place = next((i for i, part in enumerate(parts) if part.startswith(_REPEATS)), len(parts))
    return "; ".join(parts[:place]), "; ".join(parts[place:])


def setting_of_comparison(row: Row) -> str:
    """Return what else must be equal of two rows of the table of subjects to be averaged."""
    parts = shared_protocol(row).split("; ")
    return "; ".join(part for part in parts if not part.startswith(_IN_COLUMNS))


def differing(texts: Iterable[str]) -> dict[str, str]:
    """Shorten protocols to the parts that not all of them have; "" where there is but one."""
    known = list(dict.fromkeys(texts))
    parts = [text.split("; ") for text in known]
    shared: Collection[str] = set.intersection(*map(set, parts)) if parts else ()
    return {
        text: "; ".join(one for one in own if one not in shared)
        for text, own in zip(known, parts, strict=True)
    }
