"""The command line without the workflow: what is printed, and with which exit code."""

from __future__ import annotations

import errno
import json
from pathlib import Path

import pytest

from afterimage import __version__, launch
from afterimage.cli import COMMANDS, EPILOG, main, run_parser

Capture = pytest.CaptureFixture[str]


def test_no_argument_shows_the_help(capsys: Capture) -> None:
    assert main([]) == 2
    assert "usage: afterimage" in capsys.readouterr().out


def test_help_names_every_command_and_exit_code(capsys: Capture) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["--help"])
    assert stop.value.code == 0
    shown = capsys.readouterr().out
    for name in set(COMMANDS) - {"record", "serve"}:  # called by the workflow only
        assert f"afterimage {name}" in shown
    for code in ("0 fine", "1 some", "2 usage", "65 bad", "70 a defect", "78 bad"):
        assert code in EPILOG.replace("\n", " ")


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_every_command_has_its_help(name: str, capsys: Capture) -> None:
    with pytest.raises(SystemExit) as stop:
        main([name, "--help"])
    assert stop.value.code == 0
    assert f"usage: afterimage {name}" in capsys.readouterr().out


def test_every_option_has_its_help() -> None:
    silent = [action.dest for action in run_parser()._actions if not action.help]
    assert not silent


def test_version(capsys: Capture) -> None:
    with pytest.raises(SystemExit):
        main(["--version"])
    assert capsys.readouterr().out.strip() == f"afterimage {__version__}"


@pytest.mark.parametrize(
    "arguments", [["a", "b"], ["a", "b", "session"], ["a", "b", "participant", "--modality", "x"]]
)
def test_usage_errors(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2


def test_config_check(tmp_path: Path, capsys: Capture) -> None:
    (tmp_path / "c.yaml").write_text("evaluate: {n_bootstraps: 200}\n")
    assert main(["config", "check", str(tmp_path / "c.yaml")]) == 0
    shown = capsys.readouterr().out
    assert "1 keys differ" in shown
    assert "evaluate.n_bootstraps: 200  (default 1000)" in shown
    (tmp_path / "c.yaml").write_text("evaluate: {n_bootstrap: 200}\n")
    assert main(["config", "check", str(tmp_path / "c.yaml")]) == 78
    assert "did you mean n_bootstraps?" in capsys.readouterr().err
    assert main(["config", "check"]) == 2


def test_config_show_and_schema(tmp_path: Path, capsys: Capture) -> None:
    assert main(["config", "show"]) == 0
    assert "n_bootstraps: 1000" in capsys.readouterr().out
    assert main(["config", "schema"]) == 0
    assert "train_decoder" in json.loads(capsys.readouterr().out)["properties"]


def test_index(tmp_path: Path, capsys: Capture) -> None:
    assert main(["index", str(tmp_path / "absent")]) == 65
    (tmp_path / "sub-01").mkdir()
    (tmp_path / "stimuli.tsv").write_text("stimulus_id\tfile\n")
    assert main(["index", str(tmp_path)]) == 65
    assert "a subject has no responses" in capsys.readouterr().out
    for name in ("responses.npy", "trials.tsv"):
        (tmp_path / "sub-01" / f"sub-01_{name}").touch()
    assert main(["index", str(tmp_path), "--output", str(tmp_path / "units.tsv")]) == 0
    assert (tmp_path / "units.tsv").read_text().splitlines()[1].startswith("01\t")


def test_methods_as_a_table(capsys: Capture) -> None:
    assert main(["methods"]) == 0
    shown = capsys.readouterr().out
    assert "latent_diffusion" in shown
    assert "ridge" in shown


def test_stage_errors(capsys: Capture) -> None:
    assert main(["stage", "nothing"]) == 2
    assert "unknown stage" in capsys.readouterr().err
    assert main(["stage", "evaluate", "--params", "{"]) == 78
    assert "--params is not JSON" in capsys.readouterr().err
    assert main(["stage", "evaluate", "--input", "nothing", "x"]) == 2
    assert "unknown input" in capsys.readouterr().err


def test_options_reach_the_launch(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    monkeypatch.setattr(launch, "launch", lambda request: seen.append(request) or 0)
    arguments = ["in", "out", "participant", "--participant_label", "sub-01", "02", "--modality"]
    arguments += ["eeg", "--config", "a.yaml", "--config", "b.yaml", "--until", "evaluate"]
    arguments += ["--device", "auto", "--cores", "3", "-n", "--", "--forcerun", "evaluate", "-n"]
    assert main(arguments) == 0
    (request,) = seen
    assert request.participants == ("sub-01", "02")
    assert request.modalities == ("eeg",)
    assert request.config_files == (Path("a.yaml"), Path("b.yaml"))
    assert (request.until, request.device, request.cores) == ("evaluate", "auto", 3)
    assert request.dry_run
    assert request.snakemake_options == ("--forcerun", "evaluate", "-n")


@pytest.mark.parametrize(
    ("error", "code"), [(OSError(errno.ENOSPC, "full", "out"), 65), (KeyboardInterrupt(), 130)]
)
def test_what_stops_a_launch(
    monkeypatch: pytest.MonkeyPatch, capsys: Capture, error: BaseException, code: int
) -> None:
    def fail(request: object) -> int:
        raise error

    monkeypatch.setattr(launch, "launch", fail)
    assert main(["in", "out", "participant"]) == code
    shown = capsys.readouterr().err
    assert "Traceback" not in shown
    assert "run the same command again" in shown
