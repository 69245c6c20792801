"""Decoders of several subjects need memory for a batch, not for the features of all pictures."""

from __future__ import annotations

import gc
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from afterimage.decoding import shared_decoder
from afterimage.decoding.mindeye import MindEyeSettings
from afterimage.io.arrays import block_writer, open_blocks, read_blocks
from afterimage.io.trials import write_trials
from afterimage.io.weights import load_weights
from afterimage.stages import apply_shared_decoder, checkpoints, train_shared_decoder
from afterimage.training import pieces

WIDTH = 4200
#: Bytes of one picture: features with a head, and features that are read out.
PICTURE_BYTES = 2 * 4 * WIDTH
SETTINGS = MindEyeSettings(
    prior="none", low_level="", n_steps=4, evaluate_every=2, batch_size=30, n_hidden=8, n_blocks=1,
    adaptation_steps=2, n_validation_max=20, n_statistics_max=60,
)  # fmt: skip


def write_subject(root: Path, label: str, n_pictures: int, n_test: int) -> None:
    """Write trials and wide features: each picture is shown once, in an order of its own."""
    rng = np.random.default_rng(int(label))
    folder = root / f"sub-{label}"
    folder.mkdir()
    shown = np.array([f"{label}-{i:04d}" for i in rng.permutation(n_pictures)])
    names = np.append(shown, [f"test-{i:04d}" for i in range(n_test)])
    write_trials(
        folder / f"sub-{label}_trials.nc",
        [rng.normal(size=(len(names), 7)).astype(np.float32)],
        {
            "stimulus": names, "subject": np.full(len(names), label),
            "split": np.repeat(["train", "test"], [n_pictures, n_test]),
        },
        {"kind": np.full(7, "voxel")}, None, {"subject": label},
    )  # fmt: skip
    with block_writer(folder / f"sub-{label}_features.nc") as writer:
        writer.group("", np.sort(shown))
        for block in ("clip", "tokens"):
            parts = (
                rng.normal(size=(len(some), WIDTH)).astype(np.float32)
                for some in np.array_split(shown, 10)
            )
            writer.write("", block, parts, (WIDTH,), {})


def run(root: Path) -> tuple[Path, Path]:
    """Fit on two subjects, adapt to a third."""
    files = [root / f"sub-{label}" / f"sub-{label}" for label in "123"]
    model = root / "group" / "decoding" / "desc-eye_model.safetensors"
    model.parent.mkdir(parents=True, exist_ok=True)
    kinds = ("trials", "features")
    train_shared_decoder.run(
        train_shared_decoder.Inputs(
            *(tuple(p.with_name(f"{p.name}_{kind}.nc") for p in files[:2]) for kind in kinds)
        ),
        train_shared_decoder.Outputs(model),
        train_shared_decoder.Config(decoders={"eye": SETTINGS}, adapt=("3",)),
    )
    trials, features = (files[2].with_name(f"{files[2].name}_{kind}.nc") for kind in kinds)
    own, predictions = (
        root / "sub-3" / "decoding" / f"sub-3_desc-eye_{name}"
        for name in ("model.safetensors", "predictions.nc")
    )
    own.parent.mkdir(exist_ok=True)
    apply_shared_decoder.run(
        apply_shared_decoder.Inputs(model, trials, features),
        apply_shared_decoder.Outputs(own, predictions),
        apply_shared_decoder.Config(average="inputs"),
    )
    return own, predictions


def study(root: Path, n_pictures: int, n_test: int = 10) -> Path:
    root.mkdir()
    (root / "dataset_description.json").write_text("{}")
    for label in "123":
        write_subject(root, label, n_pictures, n_test)
    return root


def peak_bytes(root: Path) -> int:
    """Most bytes that arrays (and Python) hold at a time during both stages."""
    gc.collect()
    tracemalloc.start()
    try:
        run(root)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let what is large on a computer be large here."""
    monkeypatch.setattr(checkpoints, "LARGE_BYTES", 1 << 18)
    monkeypatch.setattr(pieces, "PIECE_BYTES", 1 << 18)
    monkeypatch.setattr(shared_decoder, "GALLERY_BYTES", 1 << 18)


def test_memory_does_not_grow_with_the_number_of_pictures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    few, many = (study(tmp_path / str(n), n) for n in (60, 180))
    run(few)  # what libraries keep once
    whole = peak_bytes(many)  # so small, the features are kept in memory
    small_pieces(monkeypatch)
    pieced = [peak_bytes(root) for root in (few, many)]
    print(f"peak MB: in memory {whole / 1e6:.1f}, in pieces {np.array(pieced) / 1e6}")
    assert whole - pieced[1] > 2 * 180 * PICTURE_BYTES  # all features of the two that are fitted
    assert pieced[1] - pieced[0] < 0.05 * 2 * 120 * PICTURE_BYTES  # 120 pictures more of each


def test_pieces_do_not_change_what_is_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found: list[dict[str, Any]] = []
    for name in ("whole", "pieces"):
        model, predictions = run(study(tmp_path / name, 60, n_test=270))
        assert not list((tmp_path / name / "work").glob("*/*/*"))
        arrays, card = load_weights(model)
        parts = [read_blocks(predictions, source)[1] for source in ("brain", "shuffled", "noise")]
        judged = {k: v["r"] for k, v in card["cross_validation"].items()}
        found.append({"own": arrays, "card": judged} | dict(zip("abc", parts, strict=True)))
        small_pieces(monkeypatch)
    whole, pieced = found
    for kind, arrays in whole.items():
        assert list(arrays) == list(pieced[kind])
        for key, values in arrays.items():
            np.testing.assert_allclose(pieced[kind][key], values, rtol=1e-4, atol=1e-5)


def test_rows_of_a_block_in_any_order(tmp_path: Path) -> None:
    values = np.random.default_rng(0).normal(size=(150, 5)).astype(np.float32)
    with block_writer(tmp_path / "b.nc") as writer:
        writer.group("", [f"{i:03d}" for i in range(150)])
        writer.write("", "clip", [values], (5,), {})
    with open_blocks(tmp_path / "b.nc") as blocks:
        block = blocks["clip"]
        assert len(block) == 150
        for rows in (
            np.array([3, 149, 3, 0, 77]), np.array([9, 8, 7]), slice(64, 80), np.arange(0),
            np.arange(150) % 2 == 0,
        ):  # fmt: skip
            np.testing.assert_array_equal(block[rows], values[rows])
