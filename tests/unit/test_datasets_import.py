"""Importing published datasets: descriptors, folders that may not be written to, the registry."""

from __future__ import annotations

from pathlib import Path

import pytest

from afterimage.datasets.registry import DATASETS, Names, choose_subjects
from afterimage.errors import ConfigError, InputError
from afterimage.resources import resource_root
from afterimage.settings import Settings
from afterimage.stages.import_dataset import (
    Config,
    Inputs,
    Outputs,
    import_dataset,
    parse_options,
    read_descriptor,
    run,
)

NAMES = [
    "alljoined", "bold5000", "deeprecon", "god", "laion_fmri", "nsd", "things_eeg2", "things_fmri",
    "things_meg",
]  # fmt: skip


def test_every_reader_has_its_descriptor() -> None:
    assert DATASETS.names() == NAMES
    files = (resource_root() / "data" / "datasets").glob("*.yaml")
    assert sorted(path.stem for path in files) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_descriptor_says_what_the_code_does(name: str) -> None:
    descriptor = read_descriptor(name)
    assert descriptor.name == name
    module = __import__(DATASETS.get(name).__module__, fromlist=["SUBJECTS"])
    known = getattr(module, "SUBJECTS", None) or getattr(module, "SESSIONS", None)
    assert list(descriptor.subjects) == list(known)
    assert any(file.required for file in descriptor.files)
    if descriptor.paper:
        assert descriptor.paper.doi in (module.__doc__ or "")
    assert DATASETS.settings(name)().kind == name  # type: ignore[attr-defined]


def test_lists_from_the_command_line() -> None:
    class Options(Settings):
        roi: Names = ()

    assert Options(roi="V1,V2").roi == ("V1", "V2")  # type: ignore[arg-type]
    assert Options(roi=("V1",)).roi == ("V1",)


def test_subjects_are_told_apart() -> None:
    known, there = ["01", "02"], ["02"]
    place = Path("source")
    assert choose_subjects((), known, there, place, "files") == ["02"]
    assert choose_subjects(("sub-02",), known, there, place, "files") == ["02"]
    with pytest.raises(InputError, match="no such subject"):
        choose_subjects(("03",), known, there, place, "files")
    with pytest.raises(InputError, match="files of a subject are missing"):
        choose_subjects(("01",), known, there, place, "files")
    with pytest.raises(InputError, match="files of a subject are missing"):
        choose_subjects((), known, [], place, "files")


def test_source_is_never_written_to(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for target in (source, source / "derivatives" / "out", tmp_path):
        with pytest.raises(InputError, match="lie in each other"):
            import_dataset(source, target, Config(), print)
    assert not list(source.iterdir())
    with pytest.raises(InputError, match="does not exist"):
        run(Inputs(tmp_path / "nothing"), Outputs(tmp_path / "o" / "d.json"), Config())


def test_target_that_holds_something_else(tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    source.mkdir()
    target.mkdir()
    (target / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match="holds something else"):
        import_dataset(source, target, Config(), print)
    (target / "dataset_description.json").write_text('{"ImportedDataset": "god"}')
    with pytest.raises(InputError, match="holds something else") as caught:
        import_dataset(source, target, Config(), print)
    assert caught.value.found == "god"


def test_options_of_the_command_line() -> None:
    config = parse_options(
        "nsd", ["roi=streams,nsdgeneral", "sessions=1,3", "pictures=no"], ["01"]
    )
    assert config.dataset.roi == ("streams", "nsdgeneral")
    assert config.dataset.sessions == (1, 3)
    assert config.dataset.pictures is False
    assert config.participants == ("01",)
    # As the runner passes a configuration on: through JSON.
    assert Config(**config.model_dump(mode="json")) == config
    with pytest.raises(ConfigError, match="unknown dataset") as caught:
        parse_options("nsdd", [])
    assert "things_fmri" in caught.value.expected
    for option in ("rois=V1", "sessions=one", "space"):
        with pytest.raises(ConfigError) as caught:
            parse_options("nsd", [option])
        assert caught.value.where.startswith("nsd")
        for key in ("roi", "sessions", "space"):
            assert key in caught.value.fix


def test_every_option_is_in_the_documentation() -> None:
    page = (resource_root() / "docs" / "datasets.md").read_text(encoding="utf-8")
    for name in NAMES:
        rows = [line for line in page.splitlines() if line.startswith("|") and f"`{name}`" in line]
        for key in DATASETS.settings(name).model_fields:
            if key not in ("kind", "stimuli"):
                assert any(f"`{key}`" in row for row in rows), (name, key)
