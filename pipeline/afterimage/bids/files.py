"""The files of a dataset whose names are BIDS names, listed once, and which apply to which."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from afterimage.bids.entities import BidsName, parse_name
from afterimage.errors import InputError

IMAGES = (".nii.gz", ".nii")
_EXTENSIONS = (*IMAGES, ".json", ".tsv")

#: Datatype to the extensions of its recordings, as BIDS has them: files, and folders among which
#: one without extension is of 4D/BTi.
RECORDINGS = {
    "eeg": (".vhdr", ".edf", ".bdf", ".set"),
    "meg": (".fif", ".ds", ".con", ".sqd", ".kdf", ".mhd", ".pdf", ""),
}
# Recordings that are folders.
_FOLDERS = {"meg": (".ds", "")}
# Files that a recording cannot be read without.
_PARTNERS = (".eeg", ".vmrk", ".fdt")

#: Folders within folders of a subject that are looked into: links may lead round in a circle.
MAX_DEPTH = 5

# Folders of a subject in a derivative dataset that hold no data.
_NO_DATA = frozenset({"figures", "log", "logs", "surf", "xfm"})

#: Values of ``space-`` that mean the grid of the raw BOLD images.
RAW_SPACES = frozenset({"orig", "func", "bold", "boldref"})


class BidsFile(NamedTuple):
    """A file and its name taken apart."""

    path: str
    name: BidsName


def list_folder(folder: str) -> tuple[list[os.DirEntry[str]], list[os.DirEntry[str]]]:
    """Return the folders and the files of a folder by name; none where it does not exist.

    What a link points to decides what it is; a link that leads nowhere is a file, as git-annex
    leaves them where the content was not fetched.
    """
    try:
        with os.scandir(folder) as entries:
            found = sorted(entries, key=lambda entry: entry.name)
    except (FileNotFoundError, NotADirectoryError):
        return [], []
    except OSError as error:
        raise InputError(
            "a folder cannot be read", where=folder, found=error.strerror or "an error",
            expected="a folder that can be listed", fix="check its permissions and links",
        ) from None  # fmt: skip
    folders: list[os.DirEntry[str]] = []
    files: list[os.DirEntry[str]] = []
    for entry in found:
        (folders if _is_folder(entry) else files).append(entry)
    return folders, files


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def folder_files(folder: str) -> list[BidsFile]:
    """Return the files of one folder whose names are BIDS names, by name."""
    named = [(entry.path, parse_name(entry.name)) for entry in list_folder(folder)[1]]
    return [BidsFile(path, name) for path, name in named if name is not None]


def applicable(
    levels: Iterable[Sequence[BidsFile]], target: BidsName, suffix: str
) -> list[BidsFile]:
    """Return the files that apply to a recording, from the root down.

    A file applies where it has the suffix and all its entities are entities of the recording.
    Where several files of one folder apply, the more general one comes first.

    Parameters
    ----------
    levels : iterable of sequence of BidsFile
        The files of the folders from the root of the dataset to that of the recording.
    target : BidsName
        Name of the recording.
    suffix : str
        Suffix of the files wanted: that of the recording for JSON files, ``events`` for events.

    Returns
    -------
    list of BidsFile
        Later ones are closer to the recording and win over earlier ones.
    """
    found: list[BidsFile] = []
    for files in levels:
        here = [
            file for file in files if file.name.suffix == suffix and file.name.key <= target.key
        ]
        if len(here) > 1:
            here.sort(key=lambda file: (len(file.name.key), file.path))
        found += here
    return found


class SubjectFiles:
    """The files of one subject in one dataset, listed once.

    Parameters
    ----------
    root_files : sequence of BidsFile
        Files at the root of the dataset, which may apply to all subjects.
    root : str
        Folder of the dataset.
    subject : str
        Label of the subject.
    raw : bool
        Whether only the folders of raw scans that are read are listed: ``func``, ``anat``,
        ``eeg`` and ``meg``.

    Attributes
    ----------
    partners : set of str
        Paths of the files that a header of a recording refers to.
    recorded : bool
        Whether there is a recording, of whatever task.
    """

    def __init__(
        self, root_files: Sequence[BidsFile], root: str, subject: str, *, raw: bool = False
    ) -> None:
        self.folder = f"{root}/sub-{subject}"
        self.unparsed: list[str] = []
        self.links: set[str] = set()
        self.datatypes: set[str] = set()
        self.partners: set[str] = set()
        self.recorded = False
        self._raw = raw
        self._root = _by_kind(root_files)
        self._folders: dict[str, dict[tuple[str, str], list[BidsFile]]] = {}
        self._list(self.folder)

    def _list(self, folder: str) -> None:
        folders, entries = list_folder(folder)
        files = []
        datatype = folder.rpartition("/")[2]
        recordings = tuple(filter(None, RECORDINGS.get(datatype, ()))) if self._raw else ()
        for entry in entries:
            if entry.name.endswith((*_EXTENSIONS, *recordings)):
                name = parse_name(entry.name)
                if name is None:
                    self.unparsed.append(entry.path)
                else:
                    files.append(BidsFile(entry.path, name))
                    self.recorded |= name.suffix == datatype and name.extension in recordings
            elif not (recordings and entry.name.endswith(_PARTNERS)):
                continue
            else:
                self.partners.add(entry.path)
            if entry.is_symlink():
                self.links.add(entry.path)
        if recordings and datatype in _FOLDERS:
            found = [(entry.path, parse_name(entry.name)) for entry in folders]
            kept = [BidsFile(path, name) for path, name in found if name is not None]
            files += [f for f in kept if f.name.extension in _FOLDERS[datatype]]
            self.recorded |= bool(kept)
            folders = []
        self._folders[folder] = _by_kind(files)
        deep = folder[len(self.folder) :].count("/") >= MAX_DEPTH
        for inner in folders if not deep else ():
            session = inner.name.startswith("ses-") and folder == self.folder
            if self._raw and not session:
                self.datatypes.add(inner.name)
            if session or (
                inner.name in ("func", "anat", *RECORDINGS)
                if self._raw
                else inner.name not in _NO_DATA and not inner.name.startswith(".")
            ):
                self._list(inner.path)

    def find(self, suffix: str, extensions: Iterable[str] = IMAGES) -> list[BidsFile]:
        """Return the files with a suffix and one of the extensions, in the order of folders."""
        kinds = [(suffix, extension) for extension in extensions]
        return [
            file for level in self._folders.values() for k in kinds for file in level.get(k, ())
        ]

    def positions(self, folder: str, entities: Mapping[str, str]) -> list[str]:
        """Return the tables of electrodes, and their coordinate systems, of a recording's folder.

        Their names have a ``space`` that the recording has not, so they apply by what else they say.
        """
        level = self._folders.get(folder, {})
        kinds = (("electrodes", ".tsv"), ("coordsystem", ".json"))
        return [
            file.path
            for kind in kinds
            for file in level.get(kind, ())
            if all(entities.get(k) == v for k, v in file.name.entities.items() if k != "space")
        ]

    def applicable(
        self, folder: str, target: BidsName, suffix: str, extension: str
    ) -> list[BidsFile]:
        """Return the files that apply to ``target`` in ``folder`` by inheritance, root first."""
        kind = (suffix, extension)
        levels = [self._root.get(kind, [])]
        parts = folder[len(self.folder) :].split("/")
        for depth in range(1, len(parts) + 1):
            level = self._folders.get(self.folder + "/".join(parts[:depth]))
            if level and kind in level:
                levels.append(level[kind])
        return applicable(levels, target, suffix)


def _by_kind(files: Iterable[BidsFile]) -> dict[tuple[str, str], list[BidsFile]]:
    kinds: dict[tuple[str, str], list[BidsFile]] = {}
    for file in files:
        kinds.setdefault((file.name.suffix, file.name.extension), []).append(file)
    return kinds
