"""Every stage that trains: stopped at a seeded step and run again, it ends with the same bytes."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.token_study import files, person, train, written
from tests.unit import (
    test_evaluate_subjects,
    test_learning_curve,
    test_pretrain_series,
    test_pretrain_tokens,
    test_probe_tokens,
    test_shared_decoders,
    test_train_decoder,
)

from afterimage.decoding.contrastive import ContrastiveSettings
from afterimage.io.tables import read_tsv, write_tsv
from afterimage.stages import (
    evaluate_subjects,
    learning_curve,
    pretrain_series,
    probe_series,
    probe_tokens,
    train_decoder,
    train_generator,
)
from afterimage.stages.checkpoints import checkpoint_folder
from afterimage.training import loop

MINIMAL = Path(__file__).resolve().parents[1] / "data" / "minimal"
NETWORK = ContrastiveSettings(
    n_steps=6, batch_size=16, evaluate_every=3, n_virtual=8, n_hidden=8, n_blocks=0,
    adaptation_steps=3, dropout_radius=0.0,
)  # fmt: skip


@dataclass(frozen=True)
class Job:
    """A stage on its inputs, and what it writes; paths below ``root`` alone."""

    run: Callable[[], object]
    outputs: Callable[[], list[Path]]


def of_tokenizer(root: Path) -> Job:
    for number in range(3):
        person(root, f"{number:02d}", number)
    return Job(
        lambda: train(root, "patches", files(root), settings={"n_steps": 8}),
        lambda: list((root / "group").rglob("*_*")),
    )


def of_token_model(root: Path) -> Job:
    for number in range(3):
        person(root, f"{number:02d}", number)
    trained = train(root, "patches", files(root), settings={"n_steps": 5})
    for number in range(3):
        written(root, trained, f"{number:02d}")
    return Job(
        lambda: test_pretrain_tokens.pretrain(root, trained, n_steps=8),
        lambda: list((root / "group" / "tokenmodels").iterdir()),
    )


def of_token_probes(root: Path) -> Job:
    paths = tuple(test_probe_tokens.prepared(root, f"{n:02d}", n) for n in range(4))
    settings = {"window_s": 1.0, "n_steps": 4}
    trained = train(root, "patches", paths, test_fraction=0.5, settings=settings)
    config = probe_tokens.Config(
        contrasts={"side": {}}, n_folds=2, n_steps=4, batch_size=16, n_permutations=20,
        n_bootstraps=100, baselines={},
    )  # fmt: skip
    inputs = probe_tokens.Inputs(paths, trained.model, trained.exposure)
    outputs = probe_tokens.Outputs(root / "probes.tsv", root / "probes.json")
    return Job(
        lambda: probe_tokens.run(inputs, outputs, config),
        lambda: [outputs.table, outputs.details],
    )


def people(root: Path) -> tuple[Path, ...]:
    """Write one short run of each of eight people."""
    rows = []
    for number in range(8):
        label = f"{number:02d}"
        values = test_pretrain_series.module_series(
            1, n_times=60, n_regions=6, n_modules=2, loading=0.9, random_state=number
        )[0][0]
        test_pretrain_series.write(
            root / f"sub-{label}" / f"sub-{label}_series.nc", values,
            [f"region{i}" for i in range(6)], subject=label, run="0", task="rest",
        )  # fmt: skip
        rows.append({"participant_id": f"sub-{label}", "group": "ab"[number % 2]})
    write_tsv(root / "participants.tsv", rows, ["participant_id", "group"])
    return test_pretrain_series.series_of(root)


def of_masked_model(root: Path) -> Job:
    series = people(root)
    return Job(
        lambda: test_pretrain_series.pretrain(root, series, "small"),
        lambda: list((root / "group" / "pretraining").iterdir()),
    )


def of_series_probes(root: Path) -> Job:
    series = people(root)
    model = test_pretrain_series.pretrain(root, series, "small", test_fraction=0.5)
    outputs = probe_series.Outputs(root / "probes.tsv", root / "probes.json")
    config = probe_series.Config(
        labels=("group",), n_steps=5, n_permutations=20, n_bootstraps=100, fine_tune=True
    )
    inputs = probe_series.Inputs(series, model, root / "participants.tsv")
    return Job(
        lambda: probe_series.run(inputs, outputs, config),
        lambda: [outputs.table, outputs.details],
    )


def of_decoder(root: Path) -> Job:
    inputs = test_train_decoder.write_study(root)
    outputs = test_train_decoder.outputs_in(root)
    config = train_decoder.Config(decoders={"net": NETWORK})
    return Job(
        lambda: train_decoder.run(inputs, outputs, config),
        lambda: [outputs.model, outputs.predictions],
    )


def of_shared_decoder(root: Path, name: str = "eye") -> Job:
    for label, n_units in (("1", 9), ("2", 14)):
        test_shared_decoders.write_subject(root, label, n_units)
    return Job(
        lambda: test_shared_decoders.train(root, name, "1 2"),
        lambda: list((root / "group" / "decoding").iterdir()),
    )


def of_adaptation(root: Path) -> Job:
    for label, n_units in (("1", 9), ("2", 14), ("3", 11)):
        test_shared_decoders.write_subject(root, label, n_units)
    test_shared_decoders.train(root, "bridge", "1 2", adapted="3")
    return Job(
        lambda: test_shared_decoders.apply(root, "bridge", "3"),
        lambda: list((root / "sub-3" / "decoding").iterdir()),
    )


def of_generator(root: Path) -> Job:
    folder = root / "sub-01"
    folder.mkdir()
    rows = read_tsv(MINIMAL / "stimuli.tsv")
    write_tsv(folder / "sub-01_split.tsv", rows, list(rows[0]))
    inputs = train_generator.Inputs(folder / "sub-01_split.tsv", MINIMAL / "stimuli.tsv")
    outputs = train_generator.Outputs(folder / "generator")
    config = train_generator.Config(
        autoencoder_steps=3, denoiser_steps=3, batch_size=2, size_px=32
    )
    return Job(
        lambda: train_generator.run(inputs, outputs, config),
        lambda: [p for p in outputs.generator.rglob("*") if p.is_file()],
    )


def of_comparison(root: Path) -> Job:
    study = test_evaluate_subjects.Study(root)
    for label in ("01", "02"):
        study.add(label)
    config = test_evaluate_subjects.QUICK.model_copy(
        update={"decoders": {"net": NETWORK}, "k_values": (30,)}
    )
    return Job(
        lambda: evaluate_subjects.run(study.inputs, study.outputs, config),
        lambda: [study.outputs.table],  # the other output tells seconds
    )


def of_learning_curve(root: Path) -> Job:
    inputs = test_learning_curve.make_study(root)
    outputs = learning_curve.Outputs(root / "sub-01_learning.tsv")
    config = learning_curve.Config(
        decoders={"net": NETWORK}, n_bootstraps=100, n_permutations=100,
        amounts=("50 trials", "all"),
    )  # fmt: skip
    return Job(lambda: learning_curve.run(inputs, outputs, config), lambda: [outputs.table])


JOBS = {
    "pretrain_tokens": of_token_model,
    "pretrain_series": of_masked_model,
    "probe_series": of_series_probes,
    "train_decoder": of_decoder,
    "train_shared_decoder": of_shared_decoder,
    "apply_shared_decoder": of_adaptation,
    "learning_curve": of_learning_curve,
}
#: These take more than five seconds each.
LONG = {
    "train_tokenizer": of_tokenizer,
    "probe_tokens": of_token_probes,
    "train_generator": of_generator,
    "evaluate_subjects": of_comparison,
}
#: Steps that are made again, beside those not yet made: layers of new subjects, seconds each.
AGAIN = {"evaluate_subjects": 6 * NETWORK.adaptation_steps}


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, int]]:
    """Count the steps that are begun, stop before the one that is asked for, keep every step."""
    steps = {"begun": 0, "stop": -1}
    backward = loop._backward

    def step(*arguments: Any) -> float:
        if steps["begun"] == steps["stop"]:
            raise KeyboardInterrupt
        steps["begun"] += 1
        return backward(*arguments)

    monkeypatch.setattr(loop, "_backward", step)
    monkeypatch.setattr(loop, "CHECKPOINT_S", 0.0)
    yield steps


@pytest.mark.parametrize(
    "stage", [*JOBS, *(pytest.param(stage, marks=pytest.mark.slow) for stage in LONG)]
)
def test_it_goes_on_at_the_step_where_it_was_stopped(
    stage: str, tmp_path: Path, counted: dict[str, int]
) -> None:
    (tmp_path / "dataset_description.json").write_text("{}")
    job = (JOBS | LONG)[stage](tmp_path)

    def run(stop: int = -1) -> tuple[int, dict[Path, bytes]]:
        counted.update(begun=0, stop=stop)
        torch.manual_seed(0)  # a job begins in a fresh process
        if stop < 0:
            job.run()
        else:
            with pytest.raises(KeyboardInterrupt):
                job.run()
            return counted["begun"], {}
        return counted["begun"], {path: path.read_bytes() for path in job.outputs()}

    total, expected = run()
    assert total > 2
    assert expected
    for path in expected:
        path.unlink()
    stop = random.Random(stage).randrange(1, total)
    run(stop)
    assert not [path for path in expected if path.exists()]
    kept = list((tmp_path / "work" / stage).rglob("checkpoint.safetensors"))
    assert kept
    made, found = run()
    assert found == expected
    assert total - stop <= made <= total - stop + AGAIN.get(stage, 0)
    assert not list((tmp_path / "work").rglob("*.safetensors*"))
    assert not list(tmp_path.rglob(".writing-*"))


def test_other_settings_or_inputs_resume_nothing(tmp_path: Path, counted: dict[str, int]) -> None:
    series = people(tmp_path)
    (tmp_path / "dataset_description.json").write_text("{}")
    output = tmp_path / "group" / "pretraining" / "desc-small_model.safetensors"
    config = pretrain_series.Config()
    inputs = pretrain_series.Inputs(series, tmp_path / "participants.tsv")

    def folder(version: int = 1, config: Any = config, inputs: Any = inputs) -> Path:
        return checkpoint_folder("pretrain_series", version, config, inputs, output)

    first = folder()
    assert first == folder()
    assert first.is_relative_to(tmp_path / "work" / "pretrain_series")
    others = [
        folder(version=2),
        folder(config=config.model_copy(update={"test_fraction": 0.4})),
        folder(inputs=pretrain_series.Inputs(series[1:], tmp_path / "participants.tsv")),
    ]
    shutil.copyfile(series[0], tmp_path / "copy")
    (tmp_path / "copy").replace(series[0])  # the same bytes, made anew
    others.append(folder())
    assert len({first, *others}) == 5
    assert {other.parent for other in others} == {first.parent}
