"""The pieces a page is laid out from: plots, tables, pictures, findings, sections.

`assemble` makes them from a report of `model`; the templates turn them into HTML.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from afterimage.reports.figures.style import Theme


@dataclass(frozen=True)
class Panel:
    """One plot before it is drawn: heading, alternative text, and the function that draws it."""

    title: str
    alt: str
    draw: Callable[[Theme], bytes]


@dataclass(frozen=True)
class Image:
    """A picture inside the page.

    Parameters
    ----------
    alt : str
        Says what is seen, for people who do not see it.
    data_uri : str
        ``data:image/...;base64,...``.
    data_uri_dark : str
        The same plot for dark screens, or empty.
    title : str
        Heading above it, or empty.
    width, height : int
        Size in CSS px; 0 lets the style sheet choose.
    """

    alt: str
    data_uri: str
    data_uri_dark: str = ""
    title: str = ""
    width: int = 0
    height: int = 0


@dataclass(frozen=True)
class Figure:
    """Numbered plots with a caption that says what good and bad look like."""

    id: str
    number: int
    caption: str
    images: tuple[Image, ...]
    good: str = ""
    bad: str = ""


@dataclass(frozen=True)
class Cell:
    """One table cell: text, the number it sorts by, a style class, a link and a second line."""

    text: str
    sort: float | str | None = None
    kind: str = ""
    href: str = ""
    note: str = ""


@dataclass(frozen=True)
class Column:
    """One table column: heading, help shown on hover, and whether it holds numbers."""

    title: str
    help: str = ""
    numeric: bool = False


@dataclass(frozen=True)
class Table:
    """A table that scrolls inside its box; `sortable` ones sort by a click on a heading.

    `notes` are numbered below the table.
    """

    caption: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]
    sortable: bool = False
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class GalleryRow:
    """One stimulus of the gallery: why it is shown, its score, a picture a column, captions."""

    stimulus: str
    reason: str
    score: str
    images: tuple[Image, ...]
    captions: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class GalleryView:
    """The chosen rows of a `Gallery`, with headings."""

    columns: tuple[str, ...]
    rows: tuple[GalleryRow, ...]
    n_images: int
    note: str
    pixelated: bool


@dataclass(frozen=True)
class Finding:
    """One line of the verdict: a question, a short answer, and the numbers behind it.

    `state` is ``yes``, ``partly``, ``no`` or ``unknown``.
    """

    question: str
    state: str
    answer: str
    detail: str


@dataclass(frozen=True)
class Verdict:
    """What the first screen says: one sentence, findings, and warnings that come before them."""

    sentence: str
    state: str
    basis: str
    findings: tuple[Finding, ...] = ()
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Check:
    """One row of the audit, for a reviewer.

    `state` is ``pass``, ``warn``, ``fail`` or ``not run``; `found` holds whole sentences.
    """

    id: str
    title: str
    checked: str
    why: str
    found: tuple[str, ...]
    state: str
    verdict: str


@dataclass(frozen=True)
class Section:
    """A section of the page: the question it answers, its figures, and what its template needs."""

    id: str
    title: str
    question: str
    template: str
    figures: tuple[Figure, ...] = ()
    body: Mapping[str, Any] = field(default_factory=dict)
