"""Explain the configuration: a commented template, the differences from the defaults, a schema."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Any, Literal, get_args, get_origin

import yaml
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from afterimage.config.schema import NAMED_ENTRIES, Config


def hidden(field: FieldInfo) -> bool:
    """Return whether the workflow sets this key, so that users need not see it."""
    extra = field.json_schema_extra
    return isinstance(extra, dict) and bool(extra.get("workflow"))


def template(config: Config | None = None) -> str:
    """Return YAML with every key, its value and one line of help, all commented out but sections."""
    config = config or Config()
    lines = [
        "## Configuration of afterimage: every key with its default. Remove the '# ' in front of",
        "## what you change, and of the names it stands under; leave out the rest. Several files",
        "## may be given: --config a.yaml --config b.yaml",
    ]
    lines += _model_lines(config, 0)
    return "\n".join(lines) + "\n"


def _model_lines(model: BaseModel, depth: int) -> list[str]:
    """Return the keys of one model: ``#`` and YAML for what can be set, ``##`` for words."""
    indent = "  " * depth
    lines: list[str] = []
    for name, field in type(model).model_fields.items():
        value = getattr(model, name)
        if hidden(field):
            continue
        if isinstance(value, BaseModel):
            head = [f"# {indent}{name}:   # {_first_line(value)}"]
            if not depth:
                head = ["", f"## {_first_line(value)}", f"# {name}:"]
            elif field.description:
                head.insert(0, f"## {field.description}")
            lines += [*head, *_model_lines(value, depth + 1)]
        elif isinstance(value, Mapping) and value:
            lines += [f"## {field.description}", f"# {indent}{name}:"]
            for key, item in value.items():
                lines += [f"# {indent}  {key}:   # {_first_line(item)}"]
                lines += _model_lines(item, depth + 2)
        else:
            help_text = f"   # {field.description}" if field.description else ""
            lines.append(f"# {indent}{name}: {json.dumps(value, default=str)}{help_text}")
    return lines


def _first_line(model: BaseModel) -> str:
    return (type(model).__doc__ or "").strip().splitlines()[0]


def show(config: Config) -> str:
    """Return the effective configuration as YAML."""
    return yaml.safe_dump(visible(config), sort_keys=False, allow_unicode=True)


def visible(config: Config) -> dict[str, Any]:
    """Return the effective configuration as plain values, without what the workflow sets.

    A default entry that was taken out stands there as ``null``, so that reading it gives the same.
    """
    values = config.model_dump(mode="json")
    for section, key in NAMED_ENTRIES:
        default = type(getattr(config, section)).model_fields[key].get_default()
        there = values[section][key]
        there |= dict.fromkeys(name for name in default if name not in there)
    for section in Config.model_fields:
        model = getattr(config, section)
        if isinstance(model, BaseModel):
            _drop_hidden(model, values[section])
    return values


def _drop_hidden(model: BaseModel, values: dict[str, Any]) -> None:
    for name, field in type(model).model_fields.items():
        if hidden(field):
            values.pop(name, None)
        elif isinstance(entries := getattr(model, name), Mapping):
            for key, entry in entries.items():
                if isinstance(entry, BaseModel):
                    _drop_hidden(entry, values[name][key])


def differences(config: Config) -> list[tuple[str, Any, Any]]:
    """List what differs from the defaults: (dotted key, default, value)."""
    default, value = flatten(visible(Config())), flatten(visible(config))
    return [
        (key, default.get(key), value.get(key))
        for key in sorted({*default, *value})
        if default.get(key) != value.get(key)
    ]


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Flatten nested mappings to dotted keys."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def json_schema() -> str:
    """Return the JSON Schema of the configuration, for editors and for the workflow."""
    return json.dumps(Config.model_json_schema(), indent=2, sort_keys=True) + "\n"


def reference() -> str:
    """Return a Markdown page with every key, its type, default and meaning."""
    lines = ["# Configuration", ""]
    lines += [
        "One YAML file; sections are named like the stages. What is left out keeps its default.",
        "`afterimage config template` prints a commented file, `config check FILE` checks one,",
        "`config show FILE` prints what would be used. This page is generated from the models.",
        "",
    ]
    for name, field in Config.model_fields.items():
        model = field.annotation
        if isinstance(model, type) and issubclass(model, BaseModel):
            lines += [f"## {name}", "", (model.__doc__ or "").strip().splitlines()[0], ""]
            lines += _table(model)
        else:
            lines += [f"## {name}", "", f"{field.description} (default `{field.default}`)", ""]
    return "\n".join(lines) + "\n"


def _table(model: type[BaseModel]) -> list[str]:
    rows = ["| key | type | default | meaning |", "| --- | --- | --- | --- |"]
    nested: list[str] = []
    for name, field in model.model_fields.items():
        if hidden(field):
            continue
        members = _members(field.annotation)
        default = field.get_default(call_default_factory=True)
        if members:
            text = ", ".join(f"`{key}`" for key in default)
            rows.append(f"| `{name}` | one entry a name | {text} | {field.description} |")
            for member in members:
                doc = (member.__doc__ or "").strip().splitlines()[0]
                named = member.model_fields.get("kind")
                told = f": `kind: {named.default}`" if named else ""
                nested += [f"### {name}{told}", "", doc, ""]
                nested += _table(member)
        else:
            kind = _type_name(field.annotation)
            words = (field.description or "names the method").replace("<", "&lt;")
            told = "must be given" if field.is_required() else f"`{json.dumps(default)}`"
            rows.append(f"| `{name}` | {kind} | {told} | {words} |")
    return [*rows, "", *nested]


def _members(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for part in get_args(annotation) for model in _members(part)]


def _type_name(annotation: Any) -> str:
    """Name a type as people who write YAML do."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _type_name(arguments[0])
    if origin is Literal:
        return " or ".join(f"`{value}`" for value in arguments)
    if origin in (list, tuple):
        return f"list of {_type_name(arguments[0])}"
    if origin is not None:
        return " or ".join(_type_name(part) for part in arguments)
    names = {str: "text", float: "number", int: "integer", bool: "true or false"}
    return "null" if annotation is type(None) else names.get(annotation, annotation.__name__)
