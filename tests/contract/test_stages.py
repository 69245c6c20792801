"""Stages, rules, configuration, papers and tests say the same of each other."""

from __future__ import annotations

import dataclasses
import inspect
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml
from pydantic import BaseModel

from afterimage.cli import main
from afterimage.config import template
from afterimage.config.load import check_config
from afterimage.config.methods import list_methods
from afterimage.config.schema import Config
from afterimage.reports.text import references
from afterimage.settings import StageConfig
from afterimage.stages.runner import STAGES, WITHOUT_RULE, stage_module

REPOSITORY = Path(__file__).resolve().parents[2]
RULES = "\n".join(
    path.read_text(encoding="utf-8")
    for path in sorted((REPOSITORY / "workflows" / "rules").glob("*.smk"))
)
#: Modules of the room that are no stages: what several of them share.
SHARED = {
    "control_patterns",
    "caption_scores",
    "checkpoints",
    *("__init__", "runner", "stimuli", "scan_trials", "response_maps"),
    *(
        "condition_trials",
        "condition_contrast",
        "meeg_files",
        "subject_epochs",
        "report_meeg",
        "report_time",
    ),
    *("subject_trials", "shared_decoders"),
    *("series_files", "report_connectivity"),
    "report_dynamic",
    *("phenotype_files", "phenotype_features", "graph_files", "report_factors"),
    *("report_stages", "report_recordings", "report_scans", "report_pictures"),
    *("series_recordings", "report_pretraining"),
    *("live_decoder", "live_player", "live_session", "several_processes"),
    *(
        "held_out",
        "recording_amounts",
        "reconstruction_sets",
        "published_protocols",
        "report_published",
    ),
    "evaluation_audit",
    *("token_series", "token_scores", "report_tokenizers", "trial_tokens", "token_probes"),
}
#: Rules that run a stage once more, over all subjects, and the stage.
OVER_SUBJECTS = {"decode_group_conditions": "decode_conditions"}


def rules() -> dict[str, str]:
    """Return the text of every rule by name."""
    parts = re.split(r"^rule (\w+):$", RULES, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def tool(name: str) -> str:
    """Return the path of a tool beside this interpreter, or skip."""
    path = Path(sys.executable).parent / name
    if not path.is_file():
        pytest.skip(f"{name} is not installed")
    return str(path)


def run(*command: str, cwd: Path = REPOSITORY) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=cwd)


def test_every_stage_has_its_rule_and_its_module() -> None:
    assert set(rules()) == set(STAGES) - set(WITHOUT_RULE) | set(OVER_SUBJECTS)
    folder = Path(inspect.getfile(stage_module(STAGES[0]))).parent
    modules = {path.stem for path in folder.glob("*.py")} - SHARED
    assert modules == set(STAGES)


@pytest.mark.parametrize("rule", sorted(set(STAGES) - set(WITHOUT_RULE) | set(OVER_SUBJECTS)))
def test_rule_is_made_from_its_stage(rule: str) -> None:
    text, name = rules()[rule], OVER_SUBJECTS.get(rule, rule)
    assert re.search(r'^    """\S.*\."""$', text, flags=re.MULTILINE), "the rule has no docstring"
    assert f'"logs/{name}/' in text
    assert re.search(rf'stage=stage_params\(\s*"{name}"', text)
    assert f'stage_command("{name}")' in text
    assert "run:" not in text
    assert "script:" not in text
    module = stage_module(name)
    for kind, block in ((module.Inputs, "input"), (module.Outputs, "output")):
        found = re.search(rf"^    {block}:\n(.*?)^    \w+:", text, flags=re.MULTILINE | re.DOTALL)
        assert found is not None
        keys = re.findall(r"^        (\w+)=", found[1], flags=re.MULTILINE)
        assert keys == [field.name for field in dataclasses.fields(kind)]


@pytest.mark.parametrize("name", STAGES)
def test_stage_has_the_common_form(name: str) -> None:
    module = stage_module(name)
    assert isinstance(module.VERSION, int)
    assert module.VERSION >= 1
    assert issubclass(module.Config, StageConfig)
    assert dataclasses.is_dataclass(module.Inputs)
    assert dataclasses.is_dataclass(module.Outputs)
    with pytest.raises(dataclasses.FrozenInstanceError):
        values = dict.fromkeys((f.name for f in dataclasses.fields(module.Outputs)), Path())
        module.Outputs(**values).__setattr__(next(iter(values)), Path("other"))
    parameters = inspect.signature(module.run).parameters
    assert list(parameters) == ["inputs", "outputs", "config", "threads", "device"]
    assert parameters["threads"].default == 1
    assert parameters["device"].default == "cpu"
    for key in ("threads", "device"):
        assert parameters[key].kind is inspect.Parameter.KEYWORD_ONLY
    assert module.__doc__
    assert module.run.__doc__


@pytest.mark.parametrize("name", STAGES)
def test_stage_cites_known_papers(name: str) -> None:
    cites = stage_module(name).CITES
    assert isinstance(cites, tuple)
    assert cites
    assert set(cites) <= set(references())


def test_every_stage_has_its_section() -> None:
    sections = {name for name in Config.model_fields if name != "random_state"}
    assert sections == set(STAGES) - set(WITHOUT_RULE)
    for name in sections:
        assert isinstance(getattr(Config(), name), stage_module(name).Config)


def models(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in get_args(annotation):
        yield from models(part)


def keys(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, str | None]]:
    """Yield every key of the configuration with its description."""
    for name, field in model.model_fields.items():
        inner = list(models(field.annotation))
        section = isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)
        if not section:
            yield prefix + name, field.description
        for part in inner:
            yield from keys(part, f"{prefix}{name}.")


def test_every_key_has_one_line_of_help() -> None:
    found = dict(keys(Config))
    assert len(found) > 40
    # `kind` only tells the members of a union apart; the class of each says what it is.
    silent = [name for name, text in found.items() if not text and not name.endswith(".kind")]
    assert not silent
    assert not [name for name, text in found.items() if text and "\n" in text]


def test_every_settings_class_says_what_it_is() -> None:
    stack = [Config]
    while stack:
        model = stack.pop()
        assert (model.__doc__ or "").strip(), model
        for field in model.model_fields.values():
            stack += list(models(field.annotation))


def test_schema_on_disk_is_up_to_date(capsys: pytest.CaptureFixture[str]) -> None:
    """Otherwise: afterimage config schema > workflows/schemas/config.schema.json."""
    assert main(["config", "schema"]) == 0
    schema = REPOSITORY / "workflows" / "schemas" / "config.schema.json"
    assert schema.read_text(encoding="utf-8") == capsys.readouterr().out
    assert json.loads(schema.read_text(encoding="utf-8"))["additionalProperties"] is False


def test_template_without_its_marks_gives_the_defaults() -> None:
    lines = template.template().splitlines()
    text = "\n".join(line.removeprefix("# ") for line in lines if not line.startswith("##"))
    values = yaml.safe_load(text)
    assert set(values) == set(Config.model_fields)
    assert check_config(values) == Config()
    assert values["evaluate"]["n_bootstraps"] == 1000
    assert yaml.safe_load("\n".join(lines)) is None


def test_every_method_has_its_test(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["methods", "--json"]) == 0
    methods = json.loads(capsys.readouterr().out)
    assert methods == list_methods()
    assert len(methods) >= 10
    missing = [m["check"] for m in methods if not (REPOSITORY / m["check"]).is_file()]
    assert not missing
    for method in methods:
        assert all(method[key] for key in ("name", "room", "paper", "needs", "check"))


HEAVY = ("torch", "diffusers", "transformers", "matplotlib", "pandas", "xarray", "sklearn",
         "himalaya", "skimage", "scipy", "snakemake")  # fmt: skip


@pytest.mark.parametrize(
    "arguments",
    [["--help"], ["config", "check", "c.yaml"], ["config", "template"], ["index", "."]],
    ids=lambda value: value[0].strip("-") + "".join(value[1:2]),
)
def test_light_commands_import_nothing_heavy(tmp_path: Path, arguments: list[str]) -> None:
    (tmp_path / "c.yaml").write_text("evaluate: {n_bootstraps: 200}\n")
    (tmp_path / "sub-01").mkdir()
    (tmp_path / "stimuli.tsv").write_text("stimulus_id\tfile\n")
    program = (
        "import sys\n"
        "from afterimage.cli import main\n"
        "try:\n"
        f"    code = main({arguments!r})\n"
        "except SystemExit as stop:\n"
        "    code = stop.code\n"
        f"heavy = sorted(set({HEAVY!r}) & set(sys.modules))\n"
        "print('heavy:', heavy, 'code:', code, file=sys.stderr)\n"
    )
    done = run(sys.executable, "-c", program, cwd=tmp_path)
    code = 65 if arguments[0] == "index" else 0  # the subject of this test has no files
    assert f"heavy: [] code: {code}" in done.stderr, done.stderr


def test_snakefile_is_short_and_rules_are_thin() -> None:
    assert len((REPOSITORY / "Snakefile").read_text(encoding="utf-8").splitlines()) < 100
    assert not re.search(r"^\s+(run|script):", RULES, flags=re.MULTILINE)


def test_snakefmt() -> None:
    done = run(tool("snakefmt"), "--check", "Snakefile", "workflows")
    assert done.returncode == 0, done.stdout + done.stderr


def test_snakemake_lint(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    (folder / "sub-01").mkdir(parents=True)
    (folder / "stimuli.tsv").write_text("stimulus_id\tfile\n")
    done = run(
        sys.executable, "-m", "snakemake", "--snakefile", str(REPOSITORY / "Snakefile"),
        "--directory", str(tmp_path), "--config", f"bids_dir={folder}", "--lint", cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Congratulations" in done.stdout + done.stderr


def test_import_contracts() -> None:
    done = run(tool("lint-imports"))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 broken" in done.stdout
