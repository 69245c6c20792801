"""What is in a diffusers pipeline's folder, and whether it fits: answered before anything is loaded.

Numbers of parameters are read from the headers of safetensors files; no weight is touched.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

from afterimage.errors import ConfigError, InputError

#: Everything on the device, one part after the other, or one layer after the other.
Placement: TypeAlias = Literal["whole", "parts", "layers"]
#: Room beside the weights: activations of one picture, as a share of the weights and in bytes.
SHARE_FREE, BYTES_FREE = 0.1, 1 << 28
_SAFE = ".safetensors"
_FIX = (
    "copy the folder again, whole; weights in pickle form (.bin, .ckpt) are not read "
    "(docs/safety.md: how to convert them)"
)


@dataclass(frozen=True)
class Part:
    """Weights of one part of a pipeline.

    Attributes
    ----------
    n_parameters : int
    n_largest : int
        Parameters of the largest tensor.
    """

    n_parameters: int
    n_largest: int


def check_pipeline(
    folder: Path, classes: Sequence[str], parts: Sequence[str], variant: str = ""
) -> dict[str, Part]:
    """Check that a folder holds the parts of one of these pipelines, whole.

    Parameters
    ----------
    folder : Path
        Written by ``save_pretrained``, or copied from where it was published.
    classes : sequence of str
        Names of diffusers pipelines whose parts are the ones needed.
    parts : sequence of str
        Subfolders whose weights are needed.
    variant : str
        ``fp16`` where the files are named ``*.fp16.safetensors``.

    Returns
    -------
    dict of str to Part

    Raises
    ------
    InputError
        For a missing or half-copied folder.
    ConfigError
        For a folder of another architecture.
    """
    index = _read_json(folder / "model_index.json", "this folder holds no diffusers pipeline")
    found = str(index.get("_class_name"))
    if found not in classes:
        raise ConfigError(
            "the generator's folder is of another architecture",
            where=str(folder / "model_index.json"),
            found=found,
            expected=" or ".join(classes),
            fix="give the folder of such a pipeline, or choose the method that takes this one",
        )
    missing = [part for part in parts if not (folder / part).is_dir()]
    if missing:
        raise InputError(
            "this folder holds no complete generator",
            where=str(folder),
            found=f"no {'/, no '.join(missing)}/",
            expected=f"the parts {', '.join(parts)} of a {found}",
            fix=_FIX,
        )
    return {part: read_part(folder / part, variant) for part in parts}


def read_part(folder: Path, variant: str = "") -> Part:
    """Read the numbers of parameters of one part; refuse it if any of its files is not whole."""
    _read_json(folder / "config.json", "a part of the generator has no configuration")
    ending = f".{variant}.safetensors" if variant else ".safetensors"
    for stem in ("diffusion_pytorch_model", "model"):
        table = folder / f"{stem}{ending}.index{f'.{variant}' if variant else ''}.json"
        tables = [
            table,
            folder / f"{stem}.safetensors.index{f'.{variant}' if variant else ''}.json",
        ]
        if (folder / f"{stem}{ending}").is_file():
            return read_weights([folder / f"{stem}{ending}"])
        if shards := next((path for path in tables if path.is_file()), None):
            names = _shards(shards)
            return read_weights([folder / name for name in names])
    others = sorted(path.name for path in folder.glob("*") if path.name != "config.json")
    raise InputError(
        "a part of the generator has no weights",
        where=str(folder),
        found=", ".join(others) or "an empty folder",
        expected=f"diffusion_pytorch_model{ending} or model{ending}, or an index of their shards",
        fix=_FIX + ("" if variant else "; files named *.fp16.safetensors need variant: fp16"),
    )


def _shards(table: Path) -> list[str]:
    """Return the names of the files of weights in an index; refuse any that lie elsewhere."""
    listed = _read_json(table, "").get("weight_map")
    names = sorted({str(name) for name in listed.values()}) if isinstance(listed, dict) else []
    if wrong := [name for name in names if Path(name).name != name or not name.endswith(_SAFE)]:
        raise InputError(
            "an index of weights names a file that is not read", where=str(table), found=wrong[0],
            expected=f"names of {_SAFE} files in the same folder", fix=_FIX,
        )  # fmt: skip
    return names


def read_weights(files: Sequence[Path]) -> Part:
    """Count the parameters of safetensors files from their headers; refuse files that are cut."""
    total, largest = 0, 0
    for path in files:
        header = read_header(path)
        sizes = [math.prod(tensor["shape"]) for tensor in header.values()]
        total, largest = total + sum(sizes), max([largest, *sizes])
    return Part(total, largest)


def read_header(path: Path) -> dict[str, Any]:
    """Read what tensors a safetensors file holds: name to ``dtype``, ``shape``, ``data_offsets``."""
    size = path.stat().st_size if path.is_file() else -1
    end, header = None, {}
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if length < size:
                header = json.loads(file.read(length))
                header.pop("__metadata__", None)
                end = 8 + length + max(t["data_offsets"][1] for t in header.values())
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
        end = None
    if end is None or end != size:
        raise InputError(
            "a file of weights is not whole",
            where=str(path),
            found="no such file" if size < 0 else f"{size} bytes",
            expected="a safetensors file" if end is None else f"{end} bytes",
            fix=_FIX,
        )
    return header


def choose_placement(
    sizes: Mapping[str, Part],
    n_bytes: int,
    wanted: Literal["auto", "whole", "parts", "layers"],
    device: str,
    where: str,
) -> Placement:
    """Choose where weights wait; raise ConfigError, saying what would fit, if there is no room.

    Parameters
    ----------
    sizes : dict of str to Part
        All that is loaded.
    n_bytes : int
        Bytes of one parameter once loaded.
    wanted : {"auto", "whole", "parts", "layers"}
        ``auto`` takes the first that fits.
    device : str
    where : str
        Folder, for the message.
    """
    counts = [part.n_parameters for part in sizes.values()]
    largest = max(part.n_largest for part in sizes.values())
    needs: dict[Placement, float] = {
        "whole": _room(sum(counts) * n_bytes),
        "parts": _room(max(counts) * n_bytes),
        "layers": _room(4 * largest * n_bytes),
    }
    on_cpu = device == "cpu"
    if on_cpu:
        needs = {"whole": needs["whole"]}
    free, host = free_bytes(device), free_bytes("cpu")
    tried: list[Placement] = list(needs) if wanted == "auto" or on_cpu else [wanted]
    fits: list[Placement] = [
        placement
        for placement in needs
        if needs[placement] <= free and sum(counts) * n_bytes <= host
    ]
    chosen = next((placement for placement in tried if placement in fits), None)
    if chosen:
        return chosen
    described = ", ".join(
        f"{value / 1e9:.2f} GB for memory: {key}" for key, value in needs.items()
    )
    advice = f"memory: {fits[0]} would fit" if fits else "none of these fits this machine"
    raise ConfigError(
        "too little memory for the generator",
        where=where,
        found=f"{free / 1e9:.2f} GB free on {device}"
        + ("" if on_cpu else f", {host / 1e9:.2f} GB free beside it"),
        expected=f"{described} ({sum(counts) / 1e6:.1f} million parameters of {n_bytes} bytes)",
        fix=f"{advice}; docs/generators.md lists what each generator needs, and the one in "
        "tiny/generator fits everywhere",
    )


def free_bytes(device: str) -> float:
    """Return the memory that is free on a device; infinite where the system does not say."""
    if device != "cpu":
        import torch

        return float(torch.cuda.mem_get_info()[0])
    try:
        text = Path("/proc/meminfo").read_text(encoding="ascii")
        return 1024.0 * int(text.split("MemAvailable:")[1].split()[0])
    except (OSError, IndexError, ValueError):
        return math.inf


def _room(n_bytes: float) -> float:
    return n_bytes * (1 + SHARE_FREE) + BYTES_FREE


def _read_json(path: Path, what: str) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(value, dict):
            raise ValueError("not a mapping")
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(
            what or "a file of the generator cannot be read",
            where=str(path),
            found="no such file" if not path.is_file() else str(error),
            expected="a folder as diffusers' save_pretrained writes it",
            fix=_FIX,
        ) from None
    return value
