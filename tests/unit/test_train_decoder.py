"""The stage gives networks their layout, streams trials, and resumes an interrupted training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from afterimage.decoding.contrastive import ContrastiveDecoder, ContrastiveSettings
from afterimage.decoding.ridge import RidgeSettings
from afterimage.io.arrays import block_writer, read_blocks
from afterimage.io.trials import write_trials
from afterimage.io.weights import load_weights
from afterimage.stages.train_decoder import Config, Inputs, Outputs, run

QUICK = ContrastiveSettings(
    n_steps=40, batch_size=16, evaluate_every=10, n_virtual=8, n_hidden=8, dropout_radius=0.0
)


def write_study(folder: Path) -> Inputs:
    rng = np.random.default_rng(0)
    hidden = rng.normal(size=(50, 3))
    signals = np.einsum("nf,fut->nut", hidden, rng.normal(size=(3, 6, 9)))
    signals = np.repeat(signals, 2, 0) + 0.5 * rng.normal(size=(100, 6, 9))
    names = np.array([f"image-{i:02d}" for i in range(50)])
    unit = {axis: rng.normal(size=6) for axis in "xyz"}
    write_trials(
        folder / "sub-01_trials.nc",
        [signals.astype(np.float32)],
        {
            "stimulus": np.repeat(names, 2),
            "split": np.repeat(np.where(np.arange(50) < 40, "train", "test"), 2),
            "subject": np.full(100, "01"),
        },
        {"kind": np.full(6, "eeg"), **unit},
        np.arange(9) / 50 - 0.02,
        {"subject": "01", "position_units": "m"},
    )
    with block_writer(folder / "features.nc") as writer:
        writer.group("", names[:40])
        for block, size in (("clip", 12), ("pixels", 5)):
            values = (hidden[:40] @ rng.normal(size=(3, size))).astype(np.float32)
            writer.write("", block, [values], (size,), {})
    return Inputs(folder / "sub-01_trials.nc", folder / "features.nc")


def outputs_in(folder: Path) -> Outputs:
    folder.mkdir(exist_ok=True)
    (folder / "dataset_description.json").write_text("{}")
    return Outputs(folder / "sub-01_model.safetensors", folder / "sub-01_predictions.nc")


@pytest.mark.parametrize("average", [False, True])
def test_a_network_and_ridge_write_the_same_kind_of_files(tmp_path: Path, average: bool) -> None:
    inputs = write_study(tmp_path)
    for name, settings in (("net", QUICK), ("ridge", RidgeSettings())):
        outputs = outputs_in(tmp_path / name)
        config = Config(decoders={name: settings}, tmin_s=0.0, average_training_repeats=average)
        run(inputs, outputs, config)
        for source, n in (("brain", 10), ("shuffled", 10), ("mean", 1), ("noise", 4)):
            ids, blocks = read_blocks(outputs.predictions, source)
            assert len(ids) == n
            assert blocks["clip"].shape == (n, 12)
            assert blocks["training_scores"].shape == (n, 40)
        _, card = load_weights(outputs.model)
        assert card["n_training_trials"] == (40 if average else 80)
    arrays, _ = load_weights(outputs_in(tmp_path / "net").model)
    decoder = ContrastiveDecoder.from_state(QUICK, arrays)
    assert decoder.subjects == ["01"]
    assert decoder.state()["unit_mean/0000/01"].shape == (6, 8)  # from onset
    assert not list((tmp_path / "net" / "work").rglob("*.safetensors"))


def test_an_interrupted_stage_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inputs = write_study(tmp_path)
    config = Config(decoders={"net": QUICK})
    whole, broken = outputs_in(tmp_path / "whole"), outputs_in(tmp_path / "broken")
    run(inputs, whole, config)
    fit = ContrastiveDecoder.fit
    steps: list[int] = []

    def interrupted(self: Any, *args: Any, **options: Any) -> Any:
        def stop(step: int, _loss: float) -> None:
            if step == 25:
                raise KeyboardInterrupt

        return fit(self, *args, **options, on_progress=stop)

    def watched(self: Any, *args: Any, **options: Any) -> Any:
        return fit(self, *args, **options, on_progress=lambda step, _loss: steps.append(step))

    monkeypatch.setattr(ContrastiveDecoder, "fit", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(inputs, broken, config)
    monkeypatch.setattr(ContrastiveDecoder, "fit", watched)
    run(inputs, broken, config)
    assert steps[0] == 21  # a checkpoint every ten steps
    assert whole.model.read_bytes() == broken.model.read_bytes()
