"""What a report says of the run itself: settings, what was left out, stages and their errors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class ConfigChange:
    """One setting that differs from its default.

    Parameters
    ----------
    key : str
        Dotted key, for example ``"reconstruct.strength"``.
    default, used : str
        Both values, as they would be written in YAML.
    """

    key: str
    default: str
    used: str


@dataclass(frozen=True)
class Exclusion:
    """Something left out of the analysis, and why.

    Parameters
    ----------
    what : str
        What was left out, for example ``"units"``, ``"trials"`` or a file name.
    why : str
        The reason in plain words, for example ``"constant over all trials"``.
    n : int, optional
        How many.
    """

    what: str
    why: str
    n: int | None = None


@dataclass(frozen=True)
class StageRun:
    """One stage of this subject.

    Parameters
    ----------
    name : str
        Stage name.
    version : int or str
        The stage's VERSION.
    status : str
        ``"done"``, ``"failed"``, ``"skipped"`` (an earlier one failed) or ``"missing"``.
    runtime_s, peak_memory_mb : float, optional
        What it took.
    config_hash, inputs_hash : str
        Hashes of its section of the configuration and of the files it read.
    command : str
        The command that runs it again.
    log_path : str
        Log file, relative to the report.
    stale : str
        Empty, or why the output is out of date, for example ``"older than its configuration"``.
    cites : sequence of str
        The stage's CITES: keys of ``spec/references.yml``.
    """

    name: str
    version: int | str = ""
    status: str = "done"
    runtime_s: float | None = None
    peak_memory_mb: float | None = None
    config_hash: str = ""
    inputs_hash: str = ""
    command: str = ""
    log_path: str = ""
    stale: str = ""
    cites: Sequence[str] = ()


@dataclass(frozen=True)
class StageError:
    """Why a stage failed.

    Parameters
    ----------
    stage : str
        Stage name.
    message : str
        What it raised, as a person should read it (several lines are kept).
    log_path : str
        Log file, relative to the report.
    log_tail : str
        Last lines of that log.
    partial : bool
        Only a part was left out, for example a run; the stage went on with the rest.
    """

    stage: str
    message: str
    log_path: str = ""
    log_tail: str = ""
    partial: bool = False
