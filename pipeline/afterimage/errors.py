"""Errors meant for people: what is wrong, where, what was found, what was expected, how to fix it."""

import errno
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# How libraries that write files themselves (HDF5, numpy, safetensors) say that the disk is full.
_FULL = re.compile(
    r"No space left on device|Disk quota exceeded|errno = 28\b|requested and \d+ written"
)

#: Letters of one part of a message.
MAX_SHOWN = 2000
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


class AfterimageError(Exception):
    """Base of every error this project raises on purpose.

    Parameters
    ----------
    what : str
        One sentence: what is wrong.
    where : str
        The unit and the file, for example ``"sub-01, trials.tsv, line 4"``.
    found, expected : str
        What was read, and what would have been right.
    fix : str
        What the reader can do about it.
    """

    exit_code = 70

    def __init__(
        self, what: str, *, where: str = "", found: str = "", expected: str = "", fix: str = ""
    ) -> None:
        self.what, self.where, self.found = what, where, found
        self.expected, self.fix = expected, fix
        super().__init__(what)

    def __str__(self) -> str:
        lines = [f"{type(self).__name__}: {self.what}"]
        for label in ("where", "found", "expected", "fix"):
            if value := getattr(self, label):
                lines.append(f"  {label + ':':<10}{_printable(str(value))}")
        return "\n".join(lines)


def _printable(text: str) -> str:
    """Write what no terminal should be sent as escapes: names in data hold whatever they like."""
    text = text.encode("utf-8", "backslashreplace").decode()
    text = _CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode(), text)
    return text if len(text) <= MAX_SHOWN else text[:MAX_SHOWN] + "..."


class UsageError(AfterimageError):
    """The command line cannot be understood."""

    exit_code = 2


class InputError(AfterimageError):
    """The data cannot be used as they are."""

    exit_code = 65


class ConfigError(AfterimageError):
    """The configuration cannot be used as it is."""

    exit_code = 78


#: What is wrong where the disk is full; `launch` knows the records of such errors by it.
FULL = "there is no space left on the disk"


@contextmanager
def suppress_full() -> Iterator[None]:
    """Go on where something of little worth, such as a line of a log, does not fit on the disk."""
    try:
        yield
    except OSError as error:
        if not disk_full(error):
            raise


def full_at(folder: Path) -> InputError:
    """Return the error for people of a disk that is found full, with nothing that says so."""
    error = disk_full(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(folder)))
    assert error is not None  # noqa: S101  (for the type checker)
    return error


def disk_full(error: BaseException, where: Path | None = None) -> InputError | None:
    """Return the error for people if ``error``, or one behind it, says that the disk is full.

    The message names the file of the error, or else ``where``, or the folder of the process.
    """
    behind: BaseException | None = error
    while behind is not None:
        known = isinstance(behind, OSError) and behind.errno in (errno.ENOSPC, errno.EDQUOT)
        if known or _FULL.search(str(behind)):
            return InputError(
                FULL,
                where=str(Path(getattr(behind, "filename", None) or where or Path()).absolute()),
                found=str(behind).splitlines()[0][:200],
                expected="room for what this step writes",
                fix="free some space and run the same command again; finished work is kept",
            )
        behind = behind.__cause__ or behind.__context__
    return None
