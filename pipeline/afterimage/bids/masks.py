"""Brain masks and regions of interest that derivative datasets give for a subject."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from afterimage.bids.derivatives import Space, space_of
from afterimage.bids.entities import natural_key
from afterimage.bids.files import RAW_SPACES, BidsFile, SubjectFiles

#: Masks with these labels are no regions of interest: the brain itself and its tissues.
TISSUES = frozenset({"brain", "bg", "gm", "wm", "csf", "cgm", "sgm", "scgm", "lesion"})


class Masks(NamedTuple):
    """Masks of one subject in one space: brain masks, and images of regions of interest."""

    brain: list[BidsFile]
    regions: list[BidsFile]


def find_masks(listed: Sequence[SubjectFiles], space: Space | None) -> Masks:
    """Find the masks of one subject that derivative datasets give in one space.

    Parameters
    ----------
    listed : sequence of SubjectFiles
        The subject's files in each derivative dataset but fMRIPrep's, whose masks are of tissues.
    space : Space or None
        The space of the BOLD images; None for raw images.

    Returns
    -------
    Masks
        ``*_label-<region>_mask`` or ``*_desc-<region>_mask`` images but tissues (`TISSUES`), and
        ``*_dseg`` images with a table. Of several images of one region, the one whose name has
        the fewest entities, then the first, is taken: a mask is the subject's, not one run's.
    """
    brain: list[BidsFile] = []
    regions: dict[tuple[str, ...], BidsFile] = {}
    for files in listed:
        candidates = [file for file in files.find("mask") if in_space(file, space)]
        for file in sorted(candidates, key=_generality):
            label = file.name.entities.get("label", file.name.entities.get("desc", ""))
            if label.lower() == "brain":
                brain.append(file)
            elif label and label.lower() not in TISSUES:
                regions.setdefault((label, file.name.entities.get("hemi", "")), file)
        parcels = [file for file in files.find("dseg") if in_space(file, space)]
        for file in sorted(parcels, key=_generality):
            folder = file.path.rpartition("/")[0]
            if files.applicable(folder, file.name, "dseg", ".tsv"):
                get = file.name.entities.get
                kind = tuple(get(key, "") for key in ("atlas", "seg", "desc", "label", "hemi"))
                regions.setdefault(kind, file)
    return Masks(brain, list(regions.values()))


def _generality(file: BidsFile) -> tuple[int, list[tuple[int, int | str]]]:
    return len(file.name.key), natural_key(file.path)


def in_space(file: BidsFile, space: Space | None) -> bool:
    """Whether a mask is on the grid of BOLD images in ``space`` (None: raw images).

    A mask in ``anat/`` with neither ``space-`` nor ``res-`` is on the grid of the T1w image.
    """
    own = space_of(file.name)
    anatomical = "/anat/" in file.path and not own.space and not own.res
    if space is None or not space.space:
        return not anatomical and (not own.space or own.space in RAW_SPACES)
    if space.space == "T1w" and anatomical:
        return True
    same = (own.space, own.cohort) == (space.space, space.cohort)
    return same and (not own.res or not space.res or own.res == space.res)
