"""Derivative datasets beside the raw data, and the runs that fMRIPrep preprocessed."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

from afterimage.bids.entities import BidsName, natural_key, run_key
from afterimage.bids.files import RAW_SPACES, SubjectFiles, list_folder
from afterimage.errors import InputError

RunKey = frozenset[tuple[str, str]]


def absolute(path: Path) -> str:
    """Return an absolute path without ``..``; links stay as the user wrote them."""
    return os.path.abspath(path)  # noqa: PTH100


class Derivative(NamedTuple):
    """One derivative dataset: its folder, whether fMRIPrep made it, whether the user named it."""

    path: str
    fmriprep: bool
    given: bool


class Space(NamedTuple):
    """Where images of a derivative lie: ``space-``, ``cohort-`` and ``res-``; "" where absent."""

    space: str
    cohort: str
    res: str


class Preprocessed(NamedTuple):
    """One run as fMRIPrep left it, in one space; "" and empty where a file is absent."""

    name: BidsName
    bold: str
    mask: str
    boldref: str
    confounds: str
    sidecars: tuple[str, ...]


def read_description(folder: str) -> dict[str, object]:
    """Return ``dataset_description.json``; empty where it is absent or cannot be read."""
    path = Path(folder, "dataset_description.json")
    try:
        value = json.loads(path.read_bytes()) if path.is_file() else {}
    except (OSError, ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _generators(folder: str) -> set[str]:
    """Return the names of the tools that made a dataset, in small letters."""
    description = read_description(folder)
    made_by = description.get("GeneratedBy", description.get("PipelineDescription"))
    entries = made_by if isinstance(made_by, list) else [made_by]
    return {str(entry.get("Name", "")).lower() for entry in entries if isinstance(entry, dict)}


def is_fmriprep(folder: str) -> bool:
    """Whether a dataset says that fMRIPrep made it; without a description its folder may say so."""
    if any("fmriprep" in name for name in _generators(folder)):
        return True
    path = Path(folder)
    described = (path / "dataset_description.json").is_file()
    return not described and path.name.startswith("fmriprep")


def is_xcp_d(folder: str) -> bool:
    """Whether a dataset says that xcp_d made it: series of regions, from output of fMRIPrep."""
    return any("xcp" in name for name in _generators(folder))


def find_derivatives(roots: Sequence[str], given: Sequence[Path]) -> list[Derivative]:
    """List derivative datasets: those given first, then those in ``derivatives/`` of the roots.

    Outputs of this pipeline are left out: they are made from what is indexed here.

    Raises
    ------
    InputError
        If a folder that was given does not exist.
    """
    found: dict[str, Derivative] = {}

    def add(path: str, named: bool) -> None:
        if path not in found and path not in roots and "afterimage" not in _generators(path):
            found[path] = Derivative(path, is_fmriprep(path), named)

    for folder in given:
        path = absolute(folder)
        if not folder.is_dir():
            raise InputError(
                "a folder of derivatives does not exist", where=str(folder), found="no such folder",
                expected="a derivative dataset", fix="check --derivatives",
            )  # fmt: skip
        for dataset in _datasets_in(path):
            add(dataset, True)
    for root in roots:
        parent = f"{root}/derivatives"
        if Path(parent, "dataset_description.json").is_file():
            add(parent, False)
        for entry in list_folder(parent)[0]:
            if not entry.name.startswith((".", "sub-")):
                add(entry.path, False)
    return list(found.values())


def _datasets_in(path: str) -> list[str]:
    """Return the folder itself if it is a dataset, else the folders in it."""
    folders, files = list_folder(path)
    described = any(file.name == "dataset_description.json" for file in files)
    if described or any(folder.name.startswith("sub-") for folder in folders):
        return [path]
    return [folder.path for folder in folders if not folder.name.startswith(".")]


def linked_raw_dataset(folder: str) -> str | None:
    """Return the raw dataset that a derivative dataset came from, where it is on this machine.

    Looked for in ``DatasetLinks``, then ``SourceDatasets``, then as the folder above
    ``derivatives/``.
    """
    description = read_description(folder)
    links, sources = description.get("DatasetLinks"), description.get("SourceDatasets")
    named = list(links.values()) if isinstance(links, dict) else []
    if isinstance(sources, list):
        named += [source.get("URL") for source in sources if isinstance(source, dict)]
    candidates = []
    for link in named:
        try:
            parts = urlsplit(link) if isinstance(link, str) and "\0" not in unquote(link) else None
        except ValueError:
            continue  # no link: "http://["
        if parts and parts.scheme in ("", "file") and parts.path:
            candidates.append(absolute(Path(folder, unquote(parts.path))))
    path = Path(folder)
    if path.parent.name == "derivatives":
        candidates.append(str(path.parents[1]))
    for candidate in candidates:
        inner = list_folder(candidate)[0]
        if candidate != folder and any(entry.name.startswith("sub-") for entry in inner):
            return candidate
    return None


def space_of(name: BidsName) -> Space:
    """Return where an image lies."""
    get = name.entities.get
    return Space(get("space", ""), get("cohort", ""), get("res", ""))


def parse_space(text: str) -> Space:
    """Read a space as fMRIPrep's option has it: ``MNI152NLin2009cAsym:res-2``."""
    space, *rest = text.split(":")
    values = dict(part.partition("-")[::2] for part in rest)
    return Space(space, values.get("cohort", ""), values.get("res", ""))


def preprocessed_runs(files: SubjectFiles) -> dict[Space, dict[RunKey, Preprocessed]]:
    """Return the preprocessed runs of one subject of fMRIPrep output, by space.

    Volumes only: surfaces and CIFTI files are not read. Single echoes beside the combined image
    are left out.
    """
    masks = {
        (space_of(file.name), run_key(file.name)): file.path
        for file in files.find("mask")
        if file.name.entities.get("desc") == "brain"
    }
    references: dict[tuple[Space, RunKey], str] = {}
    # fMRIPrep 23.2 and later call the reference of the native space desc-coreg; others have no desc.
    for wanted in (None, "coreg"):
        for file in files.find("boldref"):
            if file.name.entities.get("desc") == wanted:
                references.setdefault((space_of(file.name), run_key(file.name)), file.path)
    confounds: dict[RunKey, str] = {}
    for suffix in ("timeseries", "regressors"):
        for file in files.find(suffix, (".tsv",)):
            if file.name.entities.get("desc") == "confounds":
                confounds.setdefault(run_key(file.name), file.path)
    found: dict[Space, dict[RunKey, Preprocessed]] = {}
    for file in files.find("bold"):
        entities = file.name.entities
        if entities.get("desc") != "preproc" or "echo" in entities:
            continue
        place, run = space_of(file.name), run_key(file.name)
        folder = file.path.rpartition("/")[0]
        sidecars = [
            sidecar
            for sidecar in files.applicable(folder, file.name, "bold", ".json")
            # The sidecar of the native space, beside it, is another image's.
            if space_of(sidecar.name) == place or not sidecar.path.startswith(folder)
        ]
        found.setdefault(place, {})[run] = Preprocessed(
            file.name,
            file.path,
            masks.get((place, run), ""),
            references.get((place, run), ""),
            confounds.get(run, ""),
            tuple(sidecar.path for sidecar in sidecars),
        )
    return found


def choose_space(
    runs: dict[Space, dict[RunKey, Preprocessed]], wanted: str | None
) -> Space | None:
    """Choose the one space that all runs of a subject are read in.

    Parameters
    ----------
    runs : dict
        What `preprocessed_runs` found.
    wanted : str or None
        The space asked for, such as ``T1w`` or ``MNI152NLin2009cAsym:res-2``.

    Returns
    -------
    Space or None
        None if the space asked for is not there. Unasked: T1w, then ``MNI152NLin2009cAsym``, then
        the first by name. Images without a space are in the run's own, where runs are not aligned
        with each other: they come before the template only if there is one run, else last. Of
        several resolutions: the unnamed one, the native one, then the coarsest.
    """
    n_runs = len({run for found in runs.values() for run in found})
    asked = parse_space(wanted) if wanted else None

    def rank(place: Space) -> tuple[int, str, int, list[tuple[int, int | str]]]:
        native = 1 if n_runs == 1 else 4
        order = {"T1w": 0, "": native, "MNI152NLin2009cAsym": 2}.get(place.space, 3)
        resolution = {"": 0, "native": 1}.get(place.res, 2)
        # Larger numbers are coarser grids in TemplateFlow.
        finest_last = [
            (kind, -part if isinstance(part, int) else part)
            for kind, part in natural_key(place.res)
        ]
        return order, place.space + place.cohort, resolution, finest_last

    for place in sorted(runs, key=rank):
        if asked is None:
            return place
        cohort, res = asked.cohort or place.cohort, asked.res or place.res
        # "func" is fMRIPrep's own word for the space of the run.
        space = "" if asked.space in RAW_SPACES else asked.space
        if place == Space(space, cohort, res):
            return place
    return None
