"""Decoders without single networks: what only one network knows is lost without it, and with it found."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from afterimage.decoding.ridge import RidgeSettings
from afterimage.decoding.roi_tokens import RoiTokensSettings
from afterimage.errors import ConfigError
from afterimage.io.arrays import block_writer
from afterimage.io.tables import read_tsv
from afterimage.io.trials import write_trials
from afterimage.reports.assemble import assemble_subject
from afterimage.reports.figures.ablation import ablation_panels
from afterimage.reports.figures.style import LIGHT
from afterimage.reports.model import SubjectReport
from afterimage.stages import apply_shared_decoder, train_decoder, train_shared_decoder
from afterimage.stages.ablate_regions import Config, Inputs, Outputs, networks_of, run

N_TRAIN, N_TEST, N_FEATURES = 240, 30, 8
#: Units: V1 and V2 both know everything, FFA knows the first two features as nobody else does.
REGIONS = np.array(["V1"] * 24 + ["V2"] * 24 + ["FFA"] * 12 + ["n/a"] * 4)


def write_subject(root: Path) -> tuple[Path, Path, Path]:
    """Write trials, training and test features of one subject with planted regions."""
    rng = np.random.default_rng(0)
    features = rng.standard_normal((N_TRAIN + N_TEST, N_FEATURES))
    features[:, :2] *= 3
    maps = rng.standard_normal((N_FEATURES, len(REGIONS)))
    maps[:2, REGIONS != "FFA"] = 0
    maps[2:, REGIONS == "FFA"] = 0
    maps[:, REGIONS == "n/a"] = 0
    responses = 4 + features @ maps + 0.7 * rng.standard_normal((len(features), len(REGIONS)))
    names = np.array([f"image{number:03d}" for number in range(len(features))])
    folder = root / "sub-01"
    folder.mkdir(parents=True)
    (root / "dataset_description.json").write_text("{}")
    trials = folder / "sub-01_trials.nc"
    write_trials(
        trials, [responses.astype(np.float32)],
        {
            "stimulus": names, "subject": np.full(len(names), "01"),
            "split": np.where(np.arange(len(names)) < N_TRAIN, "train", "test"),
        },
        {"kind": np.full(len(REGIONS), "voxel"), "roi": REGIONS}, None, {"units": "1"},
    )  # fmt: skip
    paths = folder / "train.nc", folder / "test.nc"
    for path, part in zip(paths, (slice(N_TRAIN), slice(N_TRAIN, None)), strict=True):
        with block_writer(path) as writer:
            writer.group("", names[part])
            values = features[part].astype(np.float32)
            writer.write("", "clip", [values], (N_FEATURES,), {"encoder": "{}"})
    return trials, *paths


def fitted(root: Path, kind: str, trials: Path, features: Path) -> Path:
    model = root / "sub-01" / f"sub-01_desc-{kind}_model.safetensors"
    predictions = root / "sub-01" / f"sub-01_desc-{kind}_predictions.nc"
    if kind == "ridge":
        train_decoder.run(
            train_decoder.Inputs(trials, features),
            train_decoder.Outputs(model, predictions),
            train_decoder.Config(decoders={"ridge": RidgeSettings()}),
        )
        return model
    shared = root / "desc-tokens_model.safetensors"
    settings = RoiTokensSettings(n_hidden=32, n_token=16, n_steps=150, weight_decay=0.1)
    train_shared_decoder.run(
        train_shared_decoder.Inputs((trials,), (features,)),
        train_shared_decoder.Outputs(shared),
        train_shared_decoder.Config(decoders={"tokens": settings}),
    )
    apply_shared_decoder.run(
        apply_shared_decoder.Inputs(shared, trials, features),
        apply_shared_decoder.Outputs(model, predictions),
        apply_shared_decoder.Config(),
    )
    return model


def ablated(root: Path, kind: str, **settings: Any) -> list[dict[str, str]]:
    trials, features, test_features = write_subject(root)
    model = fitted(root, kind, trials, features)
    outputs = Outputs(root / "sub-01_regions.tsv")
    run(Inputs((model,), trials, features, test_features), outputs, Config(**settings))
    return read_tsv(outputs.table)


@pytest.mark.parametrize("kind", ["ridge", "tokens"])
def test_what_one_network_alone_knows_is_lost_without_it(tmp_path: Path, kind: str) -> None:
    rows = ablated(tmp_path, kind)
    told = {
        (row["analysis"], row["network"]): row for row in rows if row["metric"] == "twoway_clip"
    }
    assert set(told) == {("whole", "n/a")} | {
        (analysis, region) for analysis in ("without", "only") for region in ("V1", "V2", "FFA")
    }
    assert told["without", "FFA"]["n_units"] == "12"
    assert float(told["whole", "n/a"]["value"]) > 0.95
    assert float(told["without", "FFA"]["difference"]) < -0.03
    assert float(told["without", "FFA"]["difference_p_holm"]) < 0.05
    # V2 knows what V1 knows.
    assert abs(float(told["without", "V1"]["difference"])) < 0.03
    assert float(told["only", "FFA"]["ci_low"]) > float(told["only", "FFA"]["chance_high"])
    panels = ablation_panels(SubjectReport("01", ablation=rows))
    assert any("without FFA * " in panel.alt for panel in panels)
    assert b"<svg" in panels[0].draw(LIGHT)
    assert "Without networks of the cortex" in assemble_subject(SubjectReport("01", ablation=rows))


def test_a_network_of_all_regions_leaves_nothing(tmp_path: Path) -> None:
    networks = {"early": ("V1", "V2"), "all": ("V1", "V2", "FFA")}
    rows = ablated(tmp_path, "ridge", networks=networks)
    (left,) = [
        row
        for row in rows
        if (row["analysis"], row["network"], row["metric"]) == ("without", "all", "twoway_clip")
    ]
    assert float(left["chance_low"]) <= float(left["value"]) <= float(left["chance_high"])
    assert left["n_units"] == "60"


def test_networks_without_a_unit_are_named() -> None:
    assert networks_of(REGIONS, {}) == {"FFA": ("FFA",), "V1": ("V1",), "V2": ("V2",)}
    with pytest.raises(ConfigError, match="network auditory"):
        networks_of(REGIONS, {"auditory": ("A1",)})
