"""Lay out pages: figures numbered in the order of the spec, one file that needs nothing else."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

from afterimage.reports import text
from afterimage.reports.figures.style import DARK, LIGHT, PANEL_WIDTH_IN, PX_PER_IN, recolour
from afterimage.reports.page import Figure, Image, Panel, Section

if TYPE_CHECKING:
    from jinja2 import Environment

    from afterimage.reports.model import GroupReport, SubjectReport


def lay_out(
    spec: str,
    panels: Mapping[str, list[Panel]],
    bodies: Mapping[str, dict[str, Any] | None],
    questions: Sequence[str] = (),
) -> tuple[Section, ...]:
    """Lay out the sections in the order of the spec; those whose body is None are left out."""
    sections, number = [], 0
    for entry in text.read_spec(spec):
        body = bodies[entry["id"]]
        if body is None:
            continue
        figures = []
        for described in entry.get("figures", ()):
            drawn = panels[described["id"]]
            if drawn:
                number += 1
                figures.append(_figure(number, described, drawn))
        sections.append(
            Section(
                id=entry["id"],
                title=entry["title"],
                question=next(
                    (entry[key] for key in questions if key in entry), entry["question"]
                ),
                template=f"sections/{entry['id']}.html.jinja",
                figures=tuple(figures),
                body=body,
            )
        )
    return tuple(sections)


def titled_figures(name: str, caption: str, panels: Sequence[Panel]) -> tuple[Figure, ...]:
    """Return the one figure of a small page, or none without panels."""
    return (_figure(1, {"id": name, "caption": caption}, panels),) if panels else ()


def _figure(number: int, described: Mapping[str, str], panels: Sequence[Panel]) -> Figure:
    images = []
    for panel in panels:
        svg = panel.draw(LIGHT)
        dark = _svg_uri(recolour(svg, LIGHT, DARK))
        width = round(PANEL_WIDTH_IN * PX_PER_IN)
        images.append(Image(panel.alt, _svg_uri(svg), dark, panel.title, width=width))
    return Figure(
        id=described["id"],
        number=number,
        caption=described["caption"],
        images=tuple(images),
        good=described.get("good", ""),
        bad=described.get("bad", ""),
    )


def _svg_uri(svg: bytes) -> str:
    return f"data:image/svg+xml;base64,{base64.b64encode(svg).decode('ascii')}"


@cache
def _environment() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("afterimage.reports"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    environment.filters["local"] = local_link
    return environment


def local_link(path: str) -> str:
    """Turn a relative path into a link; anything with a scheme or a host leads nowhere."""
    parts = urlsplit(path)
    return "#" if parts.scheme or parts.netloc else quote(path, safe="/#._-~")


def render(
    *,
    title: str,
    kind: str,
    report: SubjectReport | GroupReport,
    sections: Sequence[Section],
    up: str,
    up_title: str = "Group report",
) -> str:
    """Write the page, with its style, script and the digest that alone lets the script run."""
    return _page(
        "page.html.jinja", title=title, kind=kind, report=report, sections=sections, up=up,
        up_title=up_title,
    )  # fmt: skip


def render_live(**values: Any) -> str:
    """Write the page of a live session; see `afterimage.reports.live`."""
    return _page("live.html.jinja", **values)


def _page(template: str, **values: Any) -> str:
    environment = _environment()
    script = environment.get_template("script.js.jinja").render()
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii")
    style = environment.get_template("style.css.jinja").render()
    return environment.get_template(template).render(
        **values, script=script, script_digest=digest, style=style
    )
