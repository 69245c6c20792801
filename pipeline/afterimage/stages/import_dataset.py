"""Turn the files of a published dataset into a folder that afterimage reads."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field, ValidationError

from afterimage import __version__
from afterimage.datasets.descriptor import Descriptor
from afterimage.datasets.nsd import NsdSettings
from afterimage.datasets.registry import DATASETS, DatasetReader
from afterimage.errors import ConfigError, InputError
from afterimage.io.atomic import write_json, write_text
from afterimage.io.tables import read_json
from afterimage.resources import resource_root
from afterimage.settings import Settings, StageConfig

VERSION = 1
CITES = ("allen2022",)

if TYPE_CHECKING:
    Dataset = Any  # built below from the registry, which a type checker cannot follow
else:
    Dataset = DATASETS.union()

log = logging.getLogger("afterimage")


class Config(StageConfig):
    """Which published dataset is read, and what is taken of it."""

    dataset: Dataset = Field(default=NsdSettings(), description="the dataset and its options")
    participants: tuple[str, ...] = Field(
        (), description="subjects to take, as published or with sub-; empty: all that are there"
    )


@dataclass(frozen=True)
class Inputs:
    """What the stage reads: the folder of the published files, which is never written to."""

    source: Path


@dataclass(frozen=True)
class Outputs:
    """What the stage writes: a dataset, by its description."""

    description: Path


def run(
    inputs: Inputs, outputs: Outputs, config: Config, *, threads: int = 1, device: str = "cpu"
) -> None:
    """Convert the dataset into the folder of ``outputs.description``."""
    for note in import_dataset(inputs.source, outputs.description.parent, config, log.info):
        log.warning(note)


def import_dataset(
    source: Path, target: Path, config: Config, report: Callable[[str], None]
) -> list[str]:
    """Convert a published dataset, and write its description and a README with the notes.

    Parameters
    ----------
    source : Path
        Folder of the published files; only read.
    target : Path
        The new dataset: an empty folder, or one that this dataset was imported to before.
    config : Config
        The dataset, its options and the subjects.
    report : callable
        Is told of progress, one line at a time.

    Returns
    -------
    list of str
        What was missing, left out or odd.

    Raises
    ------
    InputError
        If the source does not exist, the target holds something else or lies in the source, or
        the files are not as published.
    """
    name = config.dataset.kind
    descriptor = read_descriptor(name)
    _check_folders(source, target, name)
    reader: DatasetReader = DATASETS.get(name)(config.dataset)
    way_in = "derivative" if "prepared" in descriptor.way_in else "raw"
    description = {
        "Name": descriptor.title,
        "BIDSVersion": "1.10.0",
        "DatasetType": way_in,
        "License": descriptor.licence,
        "ImportedDataset": name,
        "GeneratedBy": [{"Name": "afterimage import", "Version": __version__}],
        "SourceDatasets": [
            {"DOI": f"doi:{descriptor.doi}"} if descriptor.doi
            else {"URL": str(descriptor.recordings.url)}
        ],
    }  # fmt: skip
    if descriptor.paper:
        description["HowToAcknowledge"] = (
            f"{descriptor.paper.citation} https://doi.org/{descriptor.paper.doi}"
        )
    write_json(target / "dataset_description.json", description)
    notes = reader.convert(source, target, config.participants, report)
    if way_in == "derivative" and not any(target.glob("sub-*/sub-*_responses.npy")):
        write_json(target / "dataset_description.json", {**description, "DatasetType": "raw"})
    write_text(target / "README.md", _readme(descriptor, config, source, notes))
    return notes


def parse_options(name: str, options: Sequence[str], participants: Sequence[str] = ()) -> Config:
    """Build the Config of an import from the words of the command line.

    Parameters
    ----------
    name : str
        Name of the dataset.
    options : sequence of str
        ``key=value``; lists are separated by commas.
    participants : sequence of str
        Labels of subjects.

    Raises
    ------
    ConfigError
        If the dataset, a key or a value is not known.
    """
    settings = DATASETS.settings(name)
    values: dict[str, str] = {}
    for option in options:
        key, sign, value = option.partition("=")
        if not sign:
            raise ConfigError(
                "an option of a dataset has no value", where=name, found=option,
                expected="KEY=VALUE", fix=f"keys: {', '.join(_keys(settings))}",
            )  # fmt: skip
        values[key] = value
    try:
        dataset = settings(**values)
    except ValidationError as error:
        first = error.errors()[0]
        raise ConfigError(
            first["msg"], where=f"{name}, {'.'.join(map(str, first['loc']))}",
            found=str(first.get("input"))[:200], fix=f"keys: {', '.join(_keys(settings))}",
        ) from None  # fmt: skip
    return Config(dataset=dataset, participants=tuple(participants))


def _keys(settings: type[Settings]) -> list[str]:
    return [key for key in settings.model_fields if key != "kind"]


def read_descriptor(name: str) -> Descriptor:
    """Read and check ``data/datasets/<name>.yaml``."""
    import yaml

    path = resource_root() / "data" / "datasets" / f"{name}.yaml"
    try:
        return Descriptor(**yaml.safe_load(path.read_text(encoding="utf-8")))
    except (OSError, TypeError, yaml.YAMLError, ValidationError) as error:
        raise ConfigError(
            "the descriptor of a dataset cannot be read", where=str(path), found=str(error)[:300],
            expected="the fields of afterimage.datasets.descriptor.Descriptor", fix="correct it",
        ) from None  # fmt: skip


def _check_folders(source: Path, target: Path, name: str) -> None:
    if not source.is_dir():
        raise InputError(
            "the source folder does not exist", where=str(source), found="no such folder",
            expected="the folder of the published files", fix="check the path",
        )  # fmt: skip
    inner, outer = target.resolve(), source.resolve()
    if inner == outer or inner.is_relative_to(outer) or outer.is_relative_to(inner):
        raise InputError(
            "source and target lie in each other", where=str(target), found=str(source),
            expected="two separate folders: the source is never written to",
            fix="choose another target",
        )  # fmt: skip
    if target.is_dir() and any(target.iterdir()):
        path = target / "dataset_description.json"
        found = (
            read_json(path).get("ImportedDataset", "another dataset")
            if path.is_file()
            else "files"
        )
        if found != name:
            raise InputError(
                "the target folder holds something else", where=str(target), found=str(found),
                expected=f"an empty folder, or an import of {name}", fix="choose another folder",
            )  # fmt: skip


def _readme(descriptor: Descriptor, config: Config, source: Path, notes: list[str]) -> str:
    """Say what the folder is, where it comes from, and what the reader had to say."""
    options = config.dataset.model_dump(mode="json", exclude={"kind"}, exclude_defaults=True)
    lines = [
        f"# {descriptor.title}",
        "",
        f"Imported by afterimage {__version__} from `{source.name}`; licence of the recordings: "
        f"{descriptor.licence}.",
        "",
        f"* Recordings: {descriptor.recordings.url}",
        f"* Pictures: {descriptor.stimuli.url}. {descriptor.stimuli.how}",
        f"* Split: {descriptor.split}",
        f"* Options: {options or 'defaults'}",
    ]
    if descriptor.paper:
        lines.append(f"* Cite: {descriptor.paper.citation} https://doi.org/{descriptor.paper.doi}")
    lines += ["", "## Notes", "", *(f"* {note}" for note in notes or ["nothing odd was found"])]
    return "\n".join(lines) + "\n"
