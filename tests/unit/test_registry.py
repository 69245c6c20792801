"""The registry: methods enter by their own file and are found by name."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Literal

import pytest
from pydantic import TypeAdapter, ValidationError

from afterimage.errors import ConfigError
from afterimage.registry import Registry
from afterimage.settings import Settings

MODULE = """
from typing import Literal
from room_of_test.registry import THINGS
from afterimage.settings import Settings

class {upper}Settings(Settings):
    kind: Literal["{name}"] = "{name}"
    {key}: int = 1

@THINGS.register("{name}", {upper}Settings)
class {upper}:
    pass
"""


@pytest.fixture
def room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Registry:
    folder = tmp_path / "room_of_test"
    folder.mkdir()
    (folder / "__init__.py").write_text("")
    registry = (
        'from afterimage.registry import Registry\nTHINGS = Registry("thing", "room_of_test")\n'
    )
    (folder / "registry.py").write_text(registry)
    for name, key in (("beta", "size"), ("alpha", "width")):
        text = MODULE.format(name=name, upper=name.title(), key=key)
        (folder / f"{name}.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    for name in [name for name in sys.modules if name.startswith("room_of_test")]:
        monkeypatch.delitem(sys.modules, name)
    from room_of_test.registry import THINGS

    return THINGS


def test_a_file_is_enough(room: Registry) -> None:
    assert room.names() == ["alpha", "beta"]
    assert room.get("beta").__name__ == "Beta"
    assert room.settings("alpha")().width == 1


def test_unknown_name_lists_the_known(room: Registry) -> None:
    with pytest.raises(ConfigError) as caught:
        room.get("gamma")
    assert caught.value.what == "unknown thing"
    assert caught.value.expected == "alpha, beta"


def test_two_of_one_name_are_refused(room: Registry) -> None:
    room.names()
    with pytest.raises(ValueError, match="two things are named 'alpha'"):
        room.register("alpha", Settings)(object)


def test_union_tells_members_apart_by_kind(room: Registry) -> None:
    adapter = TypeAdapter(room.union())
    assert adapter.validate_python({"kind": "beta", "size": 4}).size == 4
    with pytest.raises(ValidationError):
        adapter.validate_python({"kind": "alpha", "size": 4})
    with pytest.raises(ValidationError):
        adapter.validate_python({"kind": "gamma"})


def test_settings_are_frozen_and_strict() -> None:
    class Some(Settings):
        kind: Literal["some"] = "some"
        value: float = 1.0

    with pytest.raises(ValidationError):
        Some(other=1)
    with pytest.raises(ValidationError):
        Some(value=float("inf"))
    with pytest.raises(ValidationError):
        Some().value = 2.0
