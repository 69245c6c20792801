"""ROI-optimal features: in closed form, and through the stages into a gallery that nobody scores."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from afterimage.decoding.ridge import RidgeDecoder, RidgeSettings
from afterimage.decoding.roi_patterns import region_masks, roi_optimal_features
from afterimage.decoding.streams import Targets
from afterimage.errors import ConfigError
from afterimage.io.arrays import block_writer, groups_of, read_blocks
from afterimage.io.images import write_png
from afterimage.io.tables import write_tsv
from afterimage.io.trials import write_trials
from afterimage.stages import reconstruct, train_decoder
from afterimage.stages.reconstruction_sets import ROLES
from afterimage.stages.report_pictures import region_pictures

Study = tuple[np.ndarray, dict[str, np.ndarray], np.ndarray, np.ndarray]


def study(n: int = 80) -> Study:
    """Two regions, each driven by one hidden number, and units of no region."""
    rng = np.random.default_rng(0)
    hidden = rng.normal(size=(n, 2))
    roi = np.repeat(["A", "B", "n/a"], [8, 8, 4])
    drive = np.concatenate([np.repeat(hidden, 8, axis=1), np.zeros((n, 4))], axis=1)
    responses = (drive + 0.3 * rng.normal(size=drive.shape) + 2).astype(np.float32)
    # both in the range of intensities: the pictures below show them
    axes = np.stack([np.r_[np.ones(6), np.zeros(6)], np.r_[np.zeros(6), np.ones(6)]])
    block = (0.5 + 0.1 * hidden @ axes).astype(np.float32)
    return responses, {"pixels": block}, np.array([f"s{i}" for i in range(n)]), roi


def test_each_region_stands_for_what_drives_it() -> None:
    responses, features, groups, roi = study()
    masks = region_masks(roi)
    assert list(masks) == ["A", "B"]
    decoder = RidgeDecoder(RidgeSettings()).fit(responses, features, groups)
    statistics = responses.mean(0), responses.std(0)
    found = roi_optimal_features(decoder.predict, *statistics, masks, features)["pixels"]
    block = features["pixels"]
    away = found - block.mean(0)
    norm = np.linalg.norm(block - block.mean(0), axis=1).mean()
    np.testing.assert_allclose(np.linalg.norm(away, axis=1), norm, rtol=1e-4)
    for row, own in enumerate((slice(0, 6), slice(6, 12))):
        assert np.linalg.norm(away[row, own]) > 0.97 * norm
        assert (away[row, own] > 0).all()
    # a linear decoder: the direction is the sum of the region's coefficients
    state = decoder.state()
    gains = np.zeros(20)
    gains[state["units"]] = (statistics[1] / state["unit_scale"])[state["units"]]
    coef = np.zeros((20, 12))
    coef[state["units"]] = state["coef/pixels"]
    expected = masks["A"] * gains @ coef
    np.testing.assert_allclose(away[0] / norm, expected / np.linalg.norm(expected), atol=1e-3)
    lazy = {"pixels": Targets(lambda part: block[:, part], np.arange(80), 12)}
    again = roi_optimal_features(decoder.predict, *statistics, masks, lazy)["pixels"]
    np.testing.assert_array_equal(again, found)


def test_times_belong_to_the_region_of_their_unit() -> None:
    masks = region_masks(np.array(["V1", "nan", "V1"]), n_times=2)
    assert masks["V1"].tolist() == [1, 1, 0, 0, 1, 1]


def write_study(folder: Path, *, roi: bool = True) -> train_decoder.Inputs:
    responses, features, groups, regions = study()
    write_trials(
        folder / "sub-01_trials.nc",
        [responses],
        {"stimulus": groups, "split": np.repeat(["train", "test"], [70, 10])},
        {"kind": np.full(20, "voxel"), **({"roi": regions} if roi else {})},
        None,
        {"subject": "01"},
    )
    with block_writer(folder / "features.nc") as writer:
        writer.group("", groups[:70])
        about = {"encoder": '{"kind": "pixels", "size_px": 2}'}
        writer.write("", "pixels", [features["pixels"][:70]], (2, 2, 3), about)
    rows = []
    for name in groups:
        write_png(folder / "stimuli" / f"{name}.png", np.zeros((2, 2, 3), np.uint8))
        rows.append({"stimulus_id": name, "file": f"{name}.png", "split": "train"})
    write_tsv(folder / "split.tsv", rows, list(rows[0]))
    (folder / "dataset_description.json").write_text("{}")
    return train_decoder.Inputs(folder / "sub-01_trials.nc", folder / "features.nc")


def test_regions_are_painted_and_shown_and_have_no_role_in_scores(tmp_path: Path) -> None:
    inputs = write_study(tmp_path)
    outputs = train_decoder.Outputs(tmp_path / "m.safetensors", tmp_path / "p.nc")
    config = train_decoder.Config(decoders={"ridge": RidgeSettings()}, roi_images=3)
    train_decoder.run(inputs, outputs, config)
    assert groups_of(outputs.predictions) == ["brain", "shuffled", "mean", "noise", "roi"]
    ids, blocks = read_blocks(outputs.predictions, "roi")
    assert ids.tolist() == ["A 1", "A 2", "A 3", "B 1", "B 2", "B 3"]
    assert np.array_equal(blocks["pixels"][0], blocks["pixels"][2])
    folder = tmp_path / "sub-01"
    made = reconstruct.Outputs(
        folder / "recon" / "sub-01_desc-ridge_recon.nc",
        folder / "recon" / "sub-01_desc-ridge_candidates.tsv",
    )
    reconstruct.run(
        reconstruct.Inputs(
            outputs.predictions, inputs.features, tmp_path / "split.tsv",
            tmp_path / "dataset_description.json",
        ),
        made,
        reconstruct.Config(
            methods={k: v for k, v in reconstruct.Config().methods.items() if k == "linear_pixels"}
        ),
    )  # fmt: skip
    regions = region_pictures(folder, "sub-01")
    assert {region: len(pictures) for region, pictures in regions.items()} == {"A": 3, "B": 3}
    bright, dark = (regions["A"][0].reshape(-1)[part].mean() for part in (slice(6), slice(6, 12)))
    assert bright > dark
    assert not list(folder.rglob("*stim-A*"))
    assert "roi" not in ROLES


def test_units_without_regions_are_one_clear_error(tmp_path: Path) -> None:
    inputs = write_study(tmp_path, roi=False)
    outputs = train_decoder.Outputs(tmp_path / "m.safetensors", tmp_path / "p.nc")
    config = train_decoder.Config(decoders={"ridge": RidgeSettings()}, roi_images=3)
    with pytest.raises(ConfigError, match="no region"):
        train_decoder.run(inputs, outputs, config)
