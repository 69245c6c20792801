"""Pictures of a dataset: their table, their ids, and paths that stay inside the dataset."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from afterimage.bids.files import list_folder
from afterimage.errors import InputError
from afterimage.io.tables import Row, read_tsv


def stimulus_table(bids_dir: Path) -> Path | None:
    """Return the dataset's table of stimuli: at its root or in ``stimuli/``; None where absent."""
    for path in (bids_dir / "stimuli.tsv", bids_dir / "stimuli" / "stimuli.tsv"):
        if path.is_file():
            return path
    return None


def read_stimulus_table(bids_dir: Path) -> dict[str, Row]:
    """Read the dataset's table of stimuli; empty where it has none.

    Parameters
    ----------
    bids_dir : Path
        The dataset.

    Returns
    -------
    dict
        Stimulus id to its row: ``stimulus_id``, ``file`` (relative to ``stimuli/``) and what else
        the table says, such as ``split``. A table in ``stimuli/`` without the column ``file``, as
        the BIDS proposal for stimuli has it, means the pictures ``<stimulus_id>_image.*``;
        ``file`` is ``n/a`` where there is none.

    Raises
    ------
    InputError
        If the table cannot be read, an id stands twice, or a path leads out of the dataset.
    """
    path = stimulus_table(bids_dir)
    if path is None:
        return {}
    folder = bids_dir / "stimuli"
    inside = path.parent.name == "stimuli" and path.parent == folder
    rows = read_tsv(path, required=("stimulus_id",) if inside else ("stimulus_id", "file"))
    pictures: dict[str, str] = {}
    if rows and "file" not in rows[0]:
        for entry in list_folder(str(folder))[1]:
            stem, _, suffix = entry.name.partition(".")[0].rpartition("_")
            if suffix == "image":
                pictures.setdefault(stem, entry.name)
    check = path_checker(folder)
    table: dict[str, Row] = {}
    for number, row in enumerate(rows, start=2):
        name = row["stimulus_id"]
        if name in table:
            raise InputError(
                "a stimulus_id stands twice in the table of stimuli",
                where=f"{path}, line {number}", found=f"{name}, again",
                expected="each stimulus_id once", fix="give every picture its own id",
            )  # fmt: skip
        file = row.get("file", pictures.get(name, "n/a"))
        if file != "n/a":
            check(file, f"{path}, line {number}")
        table[name] = row | {"file": file}
    return table


def below_stimuli(file: str) -> str:
    """Return the path of a picture below ``stimuli/``: a leading ``stimuli/`` is dropped."""
    plain = file.replace("\\", "/")
    return re.sub(r"^(\./)*(stimuli/)?", "", plain)


def stimulus_id(file: str) -> str:
    """Return the id of a picture that is known by its file.

    Examples
    --------
    >>> stimulus_id("stimuli/faces/anna.01.png")
    'faces_anna.01'
    """
    path = below_stimuli(file)
    folder, slash, name = path.rpartition("/")
    stem = name.rpartition(".")[0] or name
    return (folder + slash + stem).replace("/", "_")


def check_stimulus_path(file: str, folder: Path, where: str) -> None:
    """Refuse a path of a picture that leads out of the dataset.

    Parameters
    ----------
    file : str
        Path below ``folder``.
    folder : Path
        The dataset's folder ``stimuli``.
    where : str
        What is named in the message: the table and the line.
    """
    path_checker(folder)(file, where)


def path_checker(folder: Path | None) -> Callable[[str, str], None]:
    """Return `check_stimulus_path` for one folder, quick enough for tables of 100,000 pictures.

    Without a folder the text of the path alone is checked.
    """
    # Links inside the dataset are fine (git-annex keeps every picture behind one).
    homes = (folder.resolve(), folder.parent.resolve()) if folder else ()
    known: dict[Path, bool] = {}

    def stays(path: Path) -> bool:
        if path.is_absolute() or ".." in path.parts or re.match(r"[A-Za-z]:", str(path)):
            return False
        if folder is None:
            return True
        whole = folder / path
        # Only a picture that is itself a link can lead elsewhere than its folder does.
        real = whole if whole.is_symlink() else whole.parent
        if real not in known:
            known[real] = any(real.resolve().is_relative_to(home) for home in homes)
        return known[real]

    def check(file: str, where: str) -> None:
        try:
            inside = stays(Path(file))
        except (OSError, RuntimeError, ValueError) as error:  # a name too long, a link to itself
            raise InputError(
                "the path of a stimulus cannot be used", where=where, found=f"{file[:200]}: {error}"[:400],
                expected="a path below stimuli/", fix="rename the picture, or put it in place",
            ) from None  # fmt: skip
        if not inside:
            raise InputError(
                "the path of a stimulus leads out of the dataset",
                where=where,
                found=file,
                expected="a path below stimuli/, without '..' and links that lead elsewhere",
                fix="copy the picture into stimuli/",
            )

    return check
