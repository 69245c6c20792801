"""The registry of readers: a published dataset's files in, a folder that afterimage reads out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, Protocol

from pydantic import BeforeValidator, Field

from afterimage.errors import InputError
from afterimage.registry import Registry
from afterimage.settings import Settings

DATASETS = Registry("dataset", "afterimage.datasets")

#: Says one line of progress to the person who waits.
Report = Callable[[str], None]


def _listed(value: Any) -> Any:
    """Split ``"V1,V2"`` at its commas, as the command line gives a list."""
    return [part for part in value.split(",") if part] if isinstance(value, str) else value


#: A list of names; on the command line separated by commas.
Names = Annotated[tuple[str, ...], BeforeValidator(_listed)]
#: A list of whole numbers; on the command line separated by commas.
Numbers = Annotated[tuple[int, ...], BeforeValidator(_listed)]


class DatasetSettings(Settings):
    """What every reader lets the user set."""

    stimuli: Path | None = Field(
        None, description="folder of the pictures, where they lie outside the source folder"
    )


class DatasetReader(Protocol):
    """What a reader offers."""

    def convert(
        self, source: Path, target: Path, subjects: Sequence[str], report: Report
    ) -> list[str]:
        """Turn the files below ``source`` into a dataset at ``target``.

        Parameters
        ----------
        source : Path
            Folder of the published files; never written to.
        target : Path
            Folder of the new dataset.
        subjects : sequence of str
            Labels as published or with ``sub-``; empty means all that are there.
        report : callable
            Is told of progress, one line at a time.

        Returns
        -------
        list of str
            What the user should know: what was missing, left out or found odd.
        """
        ...  # pragma: no cover


def choose_subjects(
    wanted: Sequence[str],
    known: Sequence[str],
    present: Sequence[str],
    source: Path,
    download: str,
    prefix: str = "sub-",
) -> list[str]:
    """Return the subjects to convert, checked against those that exist and those that are there.

    Parameters
    ----------
    wanted : sequence of str
        Labels as the user gave them, with or without a prefix; empty means all present.
    known : sequence of str
        Labels of all subjects that the dataset has.
    present : sequence of str
        Those of them whose files are below ``source``.
    source : Path
        The source folder, for the message.
    download : str
        Which files of a subject to download, for the message.
    prefix : str
        Prefix of published labels that is taken off, besides ``sub-``.

    Raises
    ------
    InputError
        If a subject does not exist, or has no files.
    """
    labels = [label.removeprefix("sub-").removeprefix(prefix) for label in wanted]
    if unknown := [label for label in labels if label not in known]:
        raise InputError(
            "the dataset has no such subject", where=str(source), found=", ".join(unknown),
            expected=", ".join(known), fix="check --participant-label",
        )  # fmt: skip
    absent = [label for label in labels if label not in present]
    if absent or not present:
        raise InputError(
            "the files of a subject are missing",
            where=str(source),
            found=f"files of {', '.join(present) or 'no subject'}",
            expected=download,
            fix=f"download them for {', '.join(absent) or 'at least one of ' + ', '.join(known)}",
        )
    return labels or list(present)


def require_file(path: Path, what: str, download: str) -> Path:
    """Return ``path`` if the file is there; else raise an error that says what to download."""
    if not path.is_file():
        found = "a link to a file that is not downloaded" if path.is_symlink() else "no such file"
        raise InputError(
            f"{what} is missing", where=str(path), found=found, expected=download,
            fix="download it to that place",
        )  # fmt: skip
    return path


def list_gaps(present: Sequence[int], last: int) -> str:
    """Return the numbers from 1 to ``last`` that are not present, as text: ``"2, 5"``."""
    return ", ".join(str(number) for number in range(1, last + 1) if number not in present)
