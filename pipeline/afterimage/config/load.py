"""Read configuration files, lay them over each other and check them."""

from __future__ import annotations

import difflib
import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel, ValidationError

from afterimage.config.schema import NAMED_ENTRIES, Config
from afterimage.errors import ConfigError
from afterimage.io.tables import read_text
from afterimage.resources import resource_root

#: Values of one configuration file, each alias counted as what it stands for: a dozen lines of
#: aliases of aliases can stand for more than any memory holds.
MAX_VALUES = 100_000
#: Letters of a file, and brackets left open at once, which the reader takes quadratic time for.
MAX_LETTERS, MAX_OPEN = 2**17, 60


def load_config(files: Sequence[Path] = (), values: Mapping[str, Any] | None = None) -> Config:
    """Read YAML files in order, each laid over the one before, then ``values``; check the result.

    Parameters
    ----------
    files : sequence of Path
        Later files win, key by key. ``presets/<name>`` is a file that this project ships, where
        there is no file of that path.
    values : dict, optional
        Plain values laid over all files.

    Raises
    ------
    ConfigError
        For an unknown key (with the nearest known one), a wrong type or value, or a file that is
        not YAML.
    """
    merged: dict[str, Any] = {}
    for file in files:
        merged = merge(merged, read_yaml(file))
    return check_config(merge(merged, values or {}))


def read_yaml(file: Path) -> dict[str, Any]:
    """Read one YAML file that holds a mapping."""
    shipped = resource_root() / "workflows" / f"{file}.yaml"
    if not file.is_file() and file.parts[:-1] == ("presets",) and shipped.is_file():
        file = shipped
    if not file.is_file():
        names = sorted(
            path.stem for path in (resource_root() / "workflows/presets").glob("*.yaml")
        )
        raise ConfigError(
            "a configuration file is missing", where=str(file),
            fix=f"check the path after --config; presets are {', '.join(names)} (presets/<name>)",
        )  # fmt: skip
    try:
        value = _parse(read_text(file))
    except (RecursionError, ValueError) as error:
        # A date that is none, a number of too many digits.
        deep = isinstance(error, RecursionError)
        raise ConfigError(
            "a configuration file cannot be read", where=str(file),
            found="values nested too deeply" if deep else str(error)[:200],
            expected="sections with plain values", fix="see 'afterimage config template'",
        ) from None  # fmt: skip
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        raise ConfigError(
            "a configuration file is not YAML",
            where=f"{file}, line {mark.line + 1}" if mark else str(file),
            found=str(getattr(error, "problem", error)),
            fix="check indentation and colons",
        ) from None
    if value is None:
        return {}
    if isinstance(value, dict) and (odd := [key for key in value if not isinstance(key, str)]):
        raise ConfigError(
            "a configuration file has a section whose name is no text", where=str(file),
            found=repr(odd[0])[:200], expected="names of sections, such as train_decoder",
            fix="see 'afterimage config template'",
        )  # fmt: skip
    if not isinstance(value, dict):
        raise ConfigError(
            "a configuration file holds no sections", where=str(file),
            found=type(value).__name__, expected="a mapping such as 'train_decoder: ...'",
            fix="see 'afterimage config template'",
        )  # fmt: skip
    return value


def _parse(text: str) -> Any:
    """Read YAML by the safe loader, once it is known how much it stands for."""
    opened = itertools.accumulate((c in "[{") - (c in "]}") for c in text)
    if len(text) > MAX_LETTERS or max(opened, default=0) > MAX_OPEN:
        raise ValueError(
            f"{len(text)} letters, at most {MAX_LETTERS} and {MAX_OPEN} open brackets are allowed"
        )
    loader = yaml.SafeLoader(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return None
        if (n_values := _count(node, {})) > MAX_VALUES:
            raise ValueError(f"{n_values} values, at most {MAX_VALUES} are allowed")
        return loader.construct_document(node)
    finally:
        loader.dispose()


def _count(node: yaml.Node, known: dict[int, int]) -> int:
    """Return how many values a node stands for; of one that holds itself, more than allowed."""
    if id(node) not in known:
        known[id(node)] = MAX_VALUES + 1  # until it is known: met again meanwhile, it holds itself
        inner = node.value if isinstance(node, yaml.CollectionNode) else []
        parts = [part for one in inner for part in (one if isinstance(one, tuple) else (one,))]
        known[id(node)] = 1 + sum(_count(part, known) for part in parts)
    return known[id(node)]


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Lay one nested mapping over another; lists and plain values are replaced."""
    merged = dict(base)
    for key, value in over.items():
        old = merged.get(key)
        both = isinstance(old, Mapping) and isinstance(value, Mapping)
        merged[key] = merge(old, value) if both else value  # type: ignore[arg-type]
    return merged


def check_config(values: Mapping[str, Any]) -> Config:
    """Build the Config; the first thing wrong becomes one clear error.

    Named entries (``train_decoder.decoders.ridge``) are laid over the default ones: what is left
    out keeps its default, a new name adds an entry, ``null`` takes one out.
    """
    defaults = Config().model_dump(mode="json")
    filled = dict(values)
    for section, key in NAMED_ENTRIES:
        given = filled.get(section)
        if isinstance(given, Mapping) and isinstance(given.get(key), Mapping):
            known = defaults[section][key]
            entries: dict[str, Any] = dict(known)
            for name, entry in given[key].items():
                if entry is None:
                    entries.pop(name, None)
                elif isinstance(entry, Mapping):
                    entries[name] = merge(_entry_defaults(known.get(name), entry), entry)
                else:
                    entries[name] = entry
            filled[section] = {**given, key: entries}
    try:
        return Config(**filled)
    except ValidationError as error:
        raise _explain(error) from None


def _entry_defaults(known: Mapping[str, Any] | None, entry: Mapping[str, Any]) -> dict[str, Any]:
    """Defaults of a named entry, unless the entry is of another kind than the default's."""
    if known is None:
        return {}
    if entry.get("kind", known["kind"]) != known["kind"]:
        return {}
    return dict(known)


def _explain(error: ValidationError) -> ConfigError:
    first = error.errors()[0]
    path = [str(part) for part in first["loc"]]
    # pydantic puts the kind of a named entry behind its name; people did not write it there.
    where = ".".join(
        path[:3] + path[4:]
        if path[1:2] in (["encoders"], ["decoders"], ["methods"], ["measures"])
        else path
    )
    if first["type"] == "extra_forbidden":
        known = sorted(set(_known_keys(Config)))
        siblings = _siblings(path)
        near = difflib.get_close_matches(path[-1], siblings, n=1, cutoff=0.5)
        near = near or difflib.get_close_matches(path[-1], known, n=1, cutoff=0.6)
        return ConfigError(
            "unknown configuration key",
            where=where,
            found=path[-1],
            expected=", ".join(siblings) if siblings else ", ".join(known),
            fix=f"did you mean {near[0]}?" if near else "see 'afterimage config template'",
        )
    found = json.dumps(first.get("input"), default=str)
    return ConfigError(
        "a configuration value is not allowed",
        where=where,
        found=found[:200],
        expected=first["msg"],
        fix="see 'afterimage config template' for every key and its meaning",
    )


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in get_args(annotation):
        yield from _models(part)


def _known_keys(model: type[BaseModel]) -> Iterator[str]:
    for name, field in model.model_fields.items():
        yield name
        for inner in _models(field.annotation):
            yield from _known_keys(inner)


def _siblings(path: Sequence[str]) -> list[str]:
    """Return the keys that are known where the unknown one stands."""
    models: list[type[BaseModel]] = [Config]
    for part in path[:-1]:
        inner: list[type[BaseModel]] = []
        for model in models:
            if part in model.model_fields:
                inner += list(_models(model.model_fields[part].annotation))
        # A name the user chose (an entry of a dict) or a discriminator leaves the models as they are.
        models = inner or models
    tags = [model for model in models if _tag(model) in path]
    return sorted({name for model in (tags or models) for name in model.model_fields})


def _tag(model: type[BaseModel]) -> str | None:
    return str(model.model_fields["kind"].default) if "kind" in model.model_fields else None
