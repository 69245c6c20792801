"""Nothing in data is run, leads elsewhere, takes more memory than it may, or reaches the network."""

from __future__ import annotations

import ast
import json
import os
import pickle
import socket
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from afterimage.bids.index import index_dataset
from afterimage.config.load import load_config
from afterimage.errors import AfterimageError, ConfigError, InputError
from afterimage.io.images import read_image
from afterimage.io.nifti import open_bold
from afterimage.io.pickles import read_pickle
from afterimage.io.recordings import open_recording
from afterimage.io.tables import read_json, read_tsv
from afterimage.io.tokens import RecordedTokens, read_tokens, write_tokens
from afterimage.reconstruction.pipeline_folder import read_part
from afterimage.resources import model_folder

SOURCES = sorted((Path(__file__).parents[2] / "pipeline" / "afterimage").rglob("*.py"))


def calls() -> list[tuple[str, str, dict[str, str]]]:
    """Return every call in the sources: where, what, and its keyword arguments as text."""
    found = []
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call):
                keys = {word.arg or "**": ast.unparse(word.value) for word in node.keywords}
                found.append((f"{path.name}:{node.lineno}", ast.unparse(node.func), keys))
    return found


def test_no_source_calls_what_runs_code_of_data() -> None:
    forbidden = {
        "eval", "exec", "pickle.load", "pickle.loads", "torch.load", "joblib.load", "yaml.load",
        "yaml.unsafe_load", "yaml.full_load", "os.system", "shutil.unpack_archive", "marshal.loads",
    }  # fmt: skip
    for where, name, keys in calls():
        assert name not in forbidden, (where, name)
        assert "shell" not in keys, where
        if name == "np.load":
            assert keys.get("allow_pickle") == "False", where
        if name in ("np.save", "np.savez_compressed"):
            assert keys.get("allow_pickle") == "False", where


def test_every_model_is_loaded_from_here_as_safetensors_and_without_its_code() -> None:
    n_found = 0
    for where, name, keys in calls():
        assert keys.get("trust_remote_code", "False") == "False", where
        if not name.endswith(".from_pretrained"):
            continue
        n_found += 1
        assert keys.get("local_files_only") == "True", where
        kind = name.split(".")[0]
        if kind.startswith("Auto"):
            assert keys.get("trust_remote_code") == "False", where
        if kind not in ("AutoConfig", "AutoTokenizer", "AutoImageProcessor", "DDIMScheduler"):
            assert keys.get("use_safetensors") == "True", where
    assert n_found > 15


def test_a_model_folder_with_pickled_weights_only_is_refused(tmp_path: Path) -> None:
    from afterimage.features.registry import ENCODERS

    source = model_folder(ENCODERS.settings("vision")().path)
    folder = tmp_path / "model"
    folder.mkdir()
    for path in source.glob("*.json"):
        (folder / path.name).write_bytes(path.read_bytes())
    marker = tmp_path / "sprung"

    class Trap:
        def __reduce__(self) -> tuple[Any, ...]:
            return os.mkdir, (str(marker),)

    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Trap()))
    with pytest.raises(ConfigError, match=r"\.bin\) are not read.*\n?.*convert"):
        ENCODERS.get("vision")(ENCODERS.settings("vision")(path=str(folder)))
    (folder / "diffusion_pytorch_model.bin").write_bytes(pickle.dumps(Trap()))
    with pytest.raises(InputError, match="convert them"):
        read_part(folder)
    assert not marker.exists()


@pytest.mark.parametrize(
    "name", ["../../weights.safetensors", "/etc/x.safetensors", "weights.bin"]
)
def test_an_index_of_weights_names_files_beside_it_only(tmp_path: Path, name: str) -> None:
    (tmp_path / "config.json").write_text("{}")
    table = tmp_path / "diffusion_pytorch_model.safetensors.index.json"
    table.write_text(json.dumps({"weight_map": {"a": name}}))
    with pytest.raises(InputError, match="names a file that is not read"):
        read_part(tmp_path)


def test_stages_reach_no_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A model that is not here is refused at once, and nothing tries to fetch it."""
    from afterimage.stages import runner

    def connect(*_: Any) -> None:
        raise AssertionError("a socket was opened")

    monkeypatch.setattr(socket.socket, "connect", connect)
    monkeypatch.setattr(socket, "getaddrinfo", connect)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    (tmp_path / "dataset_description.json").write_text("{}")
    config = {"encoders": {"clip": {"kind": "vision", "path": "openai/clip-vit-large-patch14"}}}
    code = runner.guarded_run(
        "extract_features",
        {
            "dataset": [str(tmp_path / "dataset_description.json")],
            "split": [str(tmp_path / "s.tsv")],
        },
        {"features": [str(tmp_path / "sub-01_features.nc")]},
        {"config": config},
    )
    assert code in (2, 65, 78)
    assert os.environ["HF_HUB_OFFLINE"] == "1"


@pytest.mark.parametrize("depth", [10, 200_000])
def test_keys_of_a_pickle_are_hashed_in_little_depth(tmp_path: Path, depth: int) -> None:
    """Tuples in tuples as a key of a dict: hashing them ended the process, or never ended."""
    deep = b"\x80\x02})" + b"\x85" * depth + b"K\x01s."
    wide = b"\x80\x02}K\x01" + b"2\x86" * min(depth, 60) + b"K\x01s."
    for number, data in enumerate((deep, wide)):
        path = tmp_path / f"{number}.npy"
        path.write_bytes(data)
        if depth == 10 and not number:
            assert len(read_pickle(path)) == 1
        else:
            with pytest.raises(InputError, match="too many parts"):
                read_pickle(path)


def test_links_that_lead_round_are_not_followed_for_ever(tmp_path: Path) -> None:
    folder = tmp_path / "sub-01" / "func"
    folder.mkdir(parents=True)
    derivative = tmp_path / "derivatives" / "rois" / "sub-01"
    derivative.mkdir(parents=True)
    for number in range(3):
        (derivative / f"loop{number}").symlink_to(derivative)
        (folder / f"ses-{number}").symlink_to(folder)
    (folder / "self").symlink_to("self")
    (tmp_path / "sub-01" / "func2").symlink_to(tmp_path)
    (folder / "sub-01_task-x_bold.nii.gz").touch()
    (tmp_path / "sub-02").symlink_to("sub-02")
    rows = index_dataset(tmp_path)
    assert {row["subject"] for row in rows} == {"01"}


@pytest.mark.parametrize(
    "name", ["--config", "-n", "..", "a b", "<b>", "$(x)", "{x}", "x" * 65, "b\udcff", "a\nb", ""]
)
def test_hostile_names_of_subjects_get_harmless_labels(tmp_path: Path, name: str) -> None:
    (tmp_path / "stimuli.tsv").write_text("stimulus_id\tfile\na\ta.png\n")
    os.mkdir(os.fsencode(tmp_path) + b"/sub-" + name.encode("utf-8", "surrogateescape"))  # noqa: PTH102
    (row,) = index_dataset(tmp_path)
    assert row["subject"].replace("-", "").replace("_", "").replace(".", "").isalnum()
    assert row["subject"][0].isalnum()
    assert len(row["subject"]) <= 64
    assert "the label of a subject cannot be used" in row["problem"]


def test_terminals_are_sent_no_control_characters() -> None:
    text = str(
        InputError("a", where="x\x1b]0;title\x07", found="y\u202ez", fix="\udcff" + "a" * 10**5)
    )
    assert "\\x1b" in text
    assert not set(text) & {"\x1b", "\x07", "\u202e", "\udcff"}
    assert len(text) < 3000


def test_sizes_are_checked_before_memory_is_taken(tmp_path: Path) -> None:
    import nibabel

    image = nibabel.Nifti1Image(np.zeros((4, 4, 4, 3), np.int16), np.eye(4)).to_bytes()
    huge = image[:40] + struct.pack("<8h", 4, 32000, 32000, 32000, 3, 1, 1, 1) + image[56:]
    (tmp_path / "x.nii").write_bytes(huge)
    with pytest.raises(InputError, match="too large"):
        open_bold(tmp_path / "x.nii")
    (tmp_path / "x.tsv").write_text("a\tb\n1\t" + "x" * 20_000 + "\n")
    with pytest.raises(InputError, match="cell of a table is too long"):
        read_tsv(tmp_path / "x.tsv")
    for text in ("[" * 10**6, '{"a":' * 10**5, '{"a": "\\u0000"}'):
        (tmp_path / "x.json").write_text(text)
        with pytest.raises(InputError, match="JSON"):
            read_json(tmp_path / "x.json")
    (tmp_path / "n.json").write_text('{"a": ' + "9" * 10**5 + "}")
    assert read_json(tmp_path / "n.json") == {"a": float("inf")}


def test_a_member_of_an_archive_is_as_long_as_it_says(tmp_path: Path) -> None:
    path, card = tmp_path / "x.npz", tmp_path / "x.json"
    one = RecordedTokens(np.zeros((2, 3, 1), np.int16), np.array(["a", "b"]), np.ones(3, bool), {})
    write_tokens(path, card, [one], {})
    assert len(read_tokens(path, card)[0]) == 1
    import zipfile

    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data.replace(b"(2, 3, 1), }", b"(2,3<<40,1)}"[:12]))
    with pytest.raises(InputError, match="tokens cannot be read"):
        read_tokens(path, card)


def test_pictures_of_other_formats_start_no_program(tmp_path: Path) -> None:
    """Pillow hands EPS to Ghostscript; it is not among the formats that are read."""
    path = tmp_path / "x.png"
    path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n%%EOF\n")
    with pytest.raises(InputError, match="picture cannot be read"):
        read_image(path)
    data = b"\x89PNG\r\n\x1a\n"
    size = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    for part in (b"IHDR" + size, b"IDAT" + zlib.compress(bytes(100))):
        data += struct.pack(">I", len(part) - 4) + part + struct.pack(">I", zlib.crc32(part))
    path.write_bytes(data)
    with pytest.raises(InputError, match="picture is too large"):
        read_image(path)


@pytest.mark.parametrize(
    "text",
    ["a: !!python/object/apply:os.mkdir [x]", "a: &a [*a]", "<<: [&a {b: 1}, *a]", "a: 2020-99-99",
     "a: &a [1,1,1,1]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b,*b,*b,*b]\n"
     "d: &d [*c,*c,*c,*c,*c,*c,*c,*c,*c,*c]\ne: &e [*d,*d,*d,*d,*d,*d,*d,*d,*d,*d]\n"
     "f: [*e,*e,*e,*e,*e,*e,*e,*e,*e,*e]"],
)  # fmt: skip
def test_configurations_are_plain_values(tmp_path: Path, text: str) -> None:
    (tmp_path / "x.yaml").write_text(text)
    with pytest.raises(AfterimageError) as caught:
        load_config([tmp_path / "x.yaml"])
    assert caught.value.fix


@pytest.mark.parametrize("name", ["../outside.eeg", "/etc/hostname", "..\\outside.eeg"])
def test_a_header_names_samples_beside_it_only(tmp_path: Path, name: str) -> None:
    (tmp_path / "outside.eeg").write_bytes(bytes(64))
    place = tmp_path / "sub-01" / "eeg"
    place.mkdir(parents=True)
    header = place / "sub-01_task-x_eeg.vhdr"
    header.write_text(
        f"BrainVision Data Exchange Header File Version 1.0\nDataFile={name}\nNumberOfChannels=2\n"
        "SamplingInterval=4000\nBinaryFormat=INT_16\n"
    )
    with pytest.raises(InputError, match="lies elsewhere"):
        open_recording(header, {}, "sub-01")
