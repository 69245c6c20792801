"""Folders of pictures that were obtained apart from the recordings: found by name and linked."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable
from pathlib import Path

from afterimage.errors import InputError
from afterimage.io.atomic import atomic_path

_SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp"}


class PictureFolder:
    """The pictures below a folder, found by path, by file name or by file name without suffix.

    Parameters
    ----------
    root : Path or None
        The folder; None where there is none.
    suffix : str
        Suffix of the name that is written for a picture that is not there.
    """

    def __init__(self, root: Path | None, suffix: str = "") -> None:
        if root is not None and not root.is_dir():
            raise InputError(
                "the folder of pictures does not exist", where=str(root), found="no such folder",
                expected="a folder with the pictures of the dataset", fix="check the option stimuli",
            )  # fmt: skip
        self.root, self._suffix = root, suffix
        self.missing: set[str] = set()
        self._paths: dict[str, str] = {}
        self._names: dict[str, str] = {}
        if root is not None:
            self._list(root)

    def _list(self, root: Path) -> None:
        for path in _files(root):
            if path.suffix.lower() in _SUFFIXES:
                relative = path.relative_to(root).as_posix()
                self._paths[relative] = relative
                self._names.setdefault(path.name.lower(), relative)
                self._names.setdefault(path.stem.lower(), relative)

    def find(self, name: str) -> str:
        """Return the path of a picture below the folder; remember it as missing if absent."""
        base = name.rsplit("/", 1)[-1].lower()
        stem = base.rsplit(".", 1)[0] if Path(base).suffix in _SUFFIXES else base
        for found in (self._paths.get(name), self._names.get(base), self._names.get(stem)):
            if found:
                return found
        self.missing.add(name)
        return name if Path(base).suffix in _SUFFIXES else f"{name}{self._suffix}"

    def link(self, target: Path) -> None:
        """Make ``target/stimuli`` a link to the folder (or an empty folder without one)."""
        place = target / "stimuli"
        if self.root is None:
            place.mkdir(parents=True, exist_ok=True)
        elif place.is_dir() and not place.is_symlink() and any(place.iterdir()):
            for relative in self._paths:
                link_file(self.root / relative, place / relative, symbolic=False)
        else:
            if place.is_dir() and not place.is_symlink():
                place.rmdir()
            link_folder(self.root, place)

    def notes(self, where_to_ask: str) -> list[str]:
        """Return a note on the pictures that are not there, or nothing."""
        if not self.missing:
            return []
        shown = ", ".join(sorted(self.missing)[:3])
        return [
            f"{len(self.missing)} pictures are not there ({shown}, ...): {where_to_ask}. Without "
            "them responses can be prepared, but nothing can be decoded; import again with "
            "--option stimuli=FOLDER when you have them"
        ]


def link_file(source: Path, place: Path, *, symbolic: bool = True) -> None:
    """Put a file at ``place``: a link where the disk allows it, else a copy.

    A picture inside the dataset is no symbolic link (`prepare_responses` refuses links that lead
    out of it), but the same file under a second name.
    """
    place.parent.mkdir(parents=True, exist_ok=True)
    place.unlink(missing_ok=True)
    source = source.absolute()
    for put in (os.symlink, os.link) if symbolic else (os.link,):
        try:
            put(source, place)
        except OSError:
            continue
        return
    with atomic_path(place) as temporary:
        shutil.copyfile(source, temporary)


def link_folder(source: Path, place: Path) -> None:
    """Put a folder at ``place``: a link where the disk allows it, else a folder of links."""
    place.parent.mkdir(parents=True, exist_ok=True)
    if place.is_symlink():
        place.unlink()
    try:
        place.symlink_to(source.absolute(), target_is_directory=True)
    except OSError:
        for path in _files(source):
            link_file(path, place / path.relative_to(source), symbolic=False)


def _files(folder: Path) -> Iterable[Path]:
    return (path for path in sorted(folder.rglob("*")) if path.is_file())
