"""Sphinx configuration; the pages under generated/ are written here from the code."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import shutil
from pathlib import Path
from types import ModuleType

import afterimage
from afterimage.config.methods import list_methods
from afterimage.config.template import reference
from afterimage.io.atomic import write_text_if_changed

HERE = Path(__file__).parent
GENERATED = HERE / "generated"

project = "afterimage"
author = "The afterimage developers"
copyright = f"2026, {author}"
version = release = afterimage.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "numpydoc"]
source_suffix = {".md": "markdown", ".rst": "restructuredtext"}
exclude_patterns = ["_build", "changes/*", "generated/unreleased.md"]
myst_enable_extensions = ["deflist"]
myst_disable_syntax = ["html_inline"]  # <block> in a sentence is text
myst_heading_anchors = 3

autodoc_typehints = "none"
numpydoc_show_class_members = False

html_theme = "furo"
html_title = f"afterimage {release}"

ROOMS = {
    "simulate": "Pictures and brains with known truth",
    "preprocess": "Responses checked and described",
    "features": "Pictures to arrays",
    "decoding": "Responses to features",
    "reconstruction": "Features to pictures",
    "evaluation": "Scores, chance and audit",
    "pretraining": "Masked models of series",
    "tokenizers": "Signals to tokens and back",
    "training": "Training of networks",
    "networks": "What networks have in common",
    "signal": "Mathematics of series",
}
KINDS = {
    "feature": "Features",
    "fix": "Fixes",
    "numerics": "Numerics",
    "api": "Interface",
    "dependency": "Requirements",
}


def public_names(module: ModuleType) -> list[str]:
    """Return the public functions and classes that are defined in a module."""
    return [
        name
        for name, value in vars(module).items()
        if not name.startswith("_")
        and (inspect.isfunction(value) or inspect.isclass(value))
        and value.__module__ == module.__name__
    ]


def api_pages() -> dict[str, str]:
    """Write the pages of the Python interface: one a room, with every public name; and their list.

    A page a name would be five hundred pages, and most of the time of a build.
    """
    pages = {}
    contents = [
        "# Python interface",
        "",
        "The rooms of maths take arrays and plain arguments.",
        "",
    ]
    for room, title in ROOMS.items():
        package = importlib.import_module(f"afterimage.{room}")
        contents += [f"## {room}: {title.lower()}", ""]
        lines = [f"# {room}: {title.lower()}", ""]
        for found in pkgutil.iter_modules(package.__path__):
            module = importlib.import_module(f"{package.__name__}.{found.name}")
            names = public_names(module)
            if names:
                summary = (module.__doc__ or "").strip().split("\n")[0]
                contents += [f"[{found.name}](api/{room}.md#{found.name})"]
                contents += [f": {summary} " + ", ".join(f"`{name}`" for name in names), ""]
                lines += [f"## {found.name}", "", summary, ""]
                lines += ["```{eval-rst}", f".. currentmodule:: {module.__name__}", ""]
                for name in names:
                    kind = (
                        "autoclass" if inspect.isclass(getattr(module, name)) else "autofunction"
                    )
                    lines += [f".. {kind}:: {name}", ""]
                    if kind == "autoclass":
                        lines[-1:] = ["   :members:", ""]
                lines += ["```", ""]
        pages[f"api/{room}.md"] = "\n".join(lines)
    contents += ["```{toctree}", ":hidden:", "", *(f"api/{room}" for room in ROOMS), "```", ""]
    return {"api.md": "\n".join(contents), **pages}


def methods_page() -> str:
    """Write the page of all methods."""
    lines = [
        "# Methods",
        "",
        "Every registered method, in the order of the data; `afterimage methods` prints the same.",
        "*Needs* names the model folders it reads by default.",
        "",
        "| name | room | paper | needs | check |",
        "| --- | --- | --- | --- | --- |",
    ]
    for method in list_methods():
        cells = (f"`{method['name']}`", method["room"], method["paper"], method["needs"])
        lines.append("| " + " | ".join((*cells, f"`{method['check']}`")) + " |")
    return "\n".join(lines) + "\n"


def changes_page() -> str:
    """Put the fragments of docs/changes together by kind."""
    lines = [f"## Since the beginning, up to {release}", ""]
    for kind, title in KINDS.items():
        fragments = sorted((HERE / "changes").glob(f"*.{kind}.md"))
        if fragments:
            lines += [f"### {title}", ""]
        for path in fragments:
            text = " ".join(path.read_text(encoding="utf-8").split())
            lines += [f"* {text} (#{path.name.split('.')[0]})"]
        lines.append("")
    return "\n".join(lines)


# Pages of names that are gone would stay, and fail the build.
shutil.rmtree(GENERATED / "api", ignore_errors=True)
write_text_if_changed(GENERATED / "configuration.md", reference())
write_text_if_changed(GENERATED / "methods.md", methods_page())
for name, page in api_pages().items():
    write_text_if_changed(GENERATED / name, page)
write_text_if_changed(GENERATED / "unreleased.md", changes_page())
