"""The documentation: it builds, leaves nothing out, and its examples work."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic import BaseModel

from afterimage.bids.index import COLUMNS as UNIT_COLUMNS
from afterimage.config.load import load_config
from afterimage.config.schema import Config
from afterimage.config.template import hidden, reference
from afterimage.evaluation.metrics import COLUMNS
from afterimage.stages.runner import STAGES, WITHOUT_RULE

REPOSITORY = Path(__file__).resolve().parents[2]
DOCS = REPOSITORY / "docs"
PAGES = [*sorted(DOCS.glob("*.md")), REPOSITORY / "README.md", REPOSITORY / "CONTRIBUTING.md"]


def text_of(*names: str) -> str:
    return "\n".join((REPOSITORY / name).read_text(encoding="utf-8") for name in names)


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", text, flags=re.M | re.S)


def run(*arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run the interpreter of the tests, with no setting of this test session."""
    outside = {k: v for k, v in os.environ.items() if not k.startswith(("PYTEST_", "COV_"))}
    environment = outside | {"OMP_NUM_THREADS": "1"} | options.pop("env", {})
    return subprocess.run(
        [sys.executable, *arguments], env=environment, capture_output=True, text=True, **options
    )


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("sphinx", reason="the documentation needs the extra 'docs'")
    folder = tmp_path_factory.mktemp("docs")
    options = ["-W", "--keep-going", "-q", "-d", str(folder / "doctrees")]
    done = run("-m", "sphinx", *options, str(DOCS), str(folder / "html"))
    assert done.returncode == 0, done.stdout + done.stderr
    return folder / "html"


def test_every_page_is_built_and_every_internal_link_leads_somewhere(built: Path) -> None:
    pages = sorted(path for path in built.rglob("*.html") if "_static" not in path.parts)
    assert {path.stem for path in DOCS.glob("*.md")} <= {path.stem for path in pages}
    anchors = {
        path: set(re.findall(r'\bid="([^"]+)"', path.read_text(encoding="utf-8")))
        for path in pages
    }
    broken = []
    for page in pages:
        for link in re.findall(r'<a [^>]*href="([^"]+)"', page.read_text(encoding="utf-8")):
            if re.match(r"[a-z]+:", link):
                continue
            path, _, anchor = link.partition("#")
            target = (page.parent / path).resolve() if path else page
            missing = anchor and target in anchors and anchor not in anchors[target]
            if not target.is_file() or missing:
                broken.append(f"{page.relative_to(built)}: {link}")
    assert not broken


def test_the_interface_page_has_every_room(built: Path) -> None:
    page = (built / "generated" / "api.html").read_text(encoding="utf-8")
    for name in ("RidgeDecoder", "draw_stimuli", "leak_linter", "LatentDiffusion", "encode"):
        assert name in page


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_links_between_files_of_the_repository(page: Path) -> None:
    prose = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.S)
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", prose):
        if not target.startswith("generated/"):
            assert (page.parent / target).is_file(), target


def keys(model: type[BaseModel]) -> Iterator[tuple[str, str]]:
    """Yield (section heading of the page, key) of everything that can be set."""
    for section, field in model.model_fields.items():
        inner = field.annotation
        if not (isinstance(inner, type) and issubclass(inner, BaseModel)):
            yield f"## {section}", section
            continue
        for key, value in inner.model_fields.items():
            if hidden(value):
                continue
            yield f"## {section}", key
            for member in members(value.annotation):
                named = member.model_fields.get("kind")
                told = f": `kind: {named.default}`" if named else ""
                for name, inner_value in member.model_fields.items():
                    if not hidden(inner_value):
                        yield f"### {key}{told}", name


def members(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in get_args(annotation):
        yield from members(part)


def test_every_key_of_the_configuration_is_documented() -> None:
    page = reference()
    parts = re.split(r"^(?=#+ )", page, flags=re.M)
    sections: dict[str, str] = {}  # two sections of the configuration may have a key of one name
    for part in parts:
        heading = part.split("\n", 1)[0]
        sections[heading] = sections.get(heading, "") + part
    found = list(keys(Config))
    assert len(found) > 60
    for heading, key in found:
        assert heading == f"## {key}" or f"| `{key}` |" in sections[heading], key


def test_every_configuration_example_is_accepted(tmp_path: Path) -> None:
    examples = blocks(text_of("docs/running.md"), "yaml")
    assert len(examples) >= 4
    for example in examples:
        file = tmp_path / "example.yaml"
        file.write_text(example, encoding="utf-8")
        assert load_config([file]) != Config()


def test_pages_name_what_the_code_has() -> None:
    outputs, running = text_of("docs/outputs.md"), text_of("docs/running.md")
    for column in (*COLUMNS, *UNIT_COLUMNS):
        assert f"`{column}`" in outputs, column
    for stage in set(STAGES) - set(WITHOUT_RULE):
        assert f"`{stage}`" in running, stage


def test_every_error_message_explained_is_one_of_the_code() -> None:
    chapter = text_of("docs/getting_started.md").partition("## When the data are not right")[2]
    messages = re.findall(r"^\| (?!message|---)([^|]+) \|", chapter, flags=re.M)
    sources = [
        path.read_text(encoding="utf-8") for path in (REPOSITORY / "pipeline").rglob("*.py")
    ]
    assert len(messages) > 20
    for message in messages:
        assert any(f'"{message}' in source for source in sources), message


def test_every_output_file_the_rules_name_is_documented() -> None:
    outputs = text_of("docs/outputs.md")
    rules = "\n".join(
        path.read_text(encoding="utf-8") for path in REPOSITORY.glob("workflows/rules/*.smk")
    )
    found = set(re.findall(r"_(\w+\.(?:nc|tsv|json|safetensors))\"", rules))
    assert {"trials.nc", "metrics.tsv", "model.safetensors"} <= found
    for ending in sorted(found):
        assert f"_{ending}`" in outputs, ending


def test_the_example_of_the_recipe_is_a_decoder(tmp_path: Path) -> None:
    """Put the example's file in the room, as the recipe says, and run the suite over it."""
    recipe = text_of("CONTRIBUTING.md").partition("<!-- recipe -->")[2]
    method, test = blocks(recipe, "python")
    (tmp_path / "room").mkdir()
    (tmp_path / "room" / "components.py").write_text(method, encoding="utf-8")
    (tmp_path / "test_components.py").write_text(test, encoding="utf-8")
    (tmp_path / "example.yaml").write_text(blocks(recipe, "yaml")[0], encoding="utf-8")
    plugin = "import afterimage.decoding as room\n"
    plugin += f"room.__path__.append({str(tmp_path / 'room')!r})\n"
    (tmp_path / "recipe_plugin.py").write_text(plugin, encoding="utf-8")
    here = {"PYTHONPATH": os.pathsep.join([str(tmp_path), str(REPOSITORY / "pipeline")])}

    check = "import recipe_plugin\nfrom afterimage.cli import main\n"
    check += (
        "main(['methods', '--json']); raise SystemExit(main(['config', 'show', 'example.yaml']))"
    )
    shown = run("-c", check, cwd=tmp_path, env=here)
    assert shown.returncode == 0, shown.stderr
    assert '"name": "components"' in shown.stdout
    assert "n_components: 20" in shown.stdout

    suite = REPOSITORY / "tests" / "contract" / "test_decoders.py"
    options = ["-q", "-p", "recipe_plugin", "-p", "no:cacheprovider", "-k", "components"]
    options += ["-c", str(REPOSITORY / "pyproject.toml"), "--rootdir", str(REPOSITORY)]
    done = run(
        "-m", "pytest", *options, str(suite), str(tmp_path / "test_components.py"), env=here
    )
    assert done.returncode == 0, done.stdout + done.stderr
    passed = re.search(r"(\d+) passed", done.stdout)
    assert passed is not None
    assert int(passed[1]) > 10, done.stdout


def test_every_change_has_a_known_kind() -> None:
    kinds = re.findall(r"^\| `(\w+)` \|", text_of("docs/changes/README.md"), flags=re.M)
    assert set(kinds) == {"feature", "fix", "numerics", "api", "dependency"}
    fragments = [path for path in (DOCS / "changes").iterdir() if path.name != "README.md"]
    assert fragments
    for path in fragments:
        assert re.fullmatch(rf"\d+\.({'|'.join(kinds)})\.md", path.name), path.name
        assert path.read_text(encoding="utf-8").strip()
