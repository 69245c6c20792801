"""The contrastive decoder: its loss, its network, several subjects, streaming and resuming."""

from __future__ import annotations

import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from afterimage.decoding.contrastive import ContrastiveDecoder, ContrastiveSettings
from afterimage.decoding.layout import Layout, flat_layout, sensor_places, window
from afterimage.decoding.streams import Rows, Stream, TrialRows, spread, stream_statistics
from afterimage.errors import ConfigError, InputError
from afterimage.training.loop import EarlyStopping

N_UNITS, N_TIMES = 12, 10
SMALL: dict[str, Any] = {
    "n_steps": 60, "n_hidden": 8, "evaluate_every": 10, "batch_size": 32
}  # fmt: skip


def make_layout(subject: str = "01") -> Layout:
    rng = np.random.default_rng(5)
    positions = rng.normal(size=(N_UNITS, 3))
    positions[:, 2] = np.abs(positions[:, 2])
    positions *= 0.1 / np.linalg.norm(positions, axis=1, keepdims=True)
    times = np.arange(N_TIMES) / 100
    return Layout(N_UNITS, N_TIMES, times, positions, np.full(N_UNITS, "eeg"), subject)


def make_study(n: int = 120, seed: int = 0, turn: int = 0) -> tuple[Any, Any, Any]:
    """Plant four dimensions of an embedding; `turn` mixes the sensors of a subject."""
    rng = np.random.default_rng(1)
    to_features, to_signals = rng.normal(size=(4, 20)), rng.normal(size=(4, N_UNITS, N_TIMES))
    if turn:
        mixing = np.linalg.qr(np.random.default_rng(turn).normal(size=(N_UNITS, N_UNITS)))[0]
        to_signals = np.einsum("uv,fvt->fut", mixing, to_signals)
    rng = np.random.default_rng((seed, 2))
    hidden = rng.normal(size=(n, 4))
    signals = np.einsum("nf,fut->nut", hidden, to_signals) + rng.normal(size=(n, N_UNITS, N_TIMES))
    features = {"clip": (hidden @ to_features).astype(np.float32)}
    names = np.array([f"image-{seed}-{i:03d}" for i in range(n)])
    return signals.reshape(n, -1).astype(np.float32), features, names


def top1(decoder: ContrastiveDecoder, study: tuple[Any, Any, Any], **options: Any) -> float:
    scores = decoder.scores(study[0], study[1], **options)
    return float((scores.argmax(1) == np.arange(len(scores))).mean())


def brain_module(n_subjects: int = 1) -> tuple[Any, Any]:
    import torch

    from afterimage.networks.brain_module import BrainModule

    places, groups = sensor_places(make_layout())
    torch.manual_seed(0)
    module = BrainModule(
        torch.from_numpy(groups), torch.from_numpy(places), N_TIMES, n_subjects,
        n_virtual=N_UNITS, n_hidden=6, n_blocks=1, kernel=3, n_cosines=5,
        dropout=0.3, dropout_radius=0.2,
    )  # fmt: skip
    return module.eval(), torch.from_numpy(places)


def test_loss_is_that_of_its_definition_and_excludes_duplicates() -> None:
    import torch

    from afterimage.training.contrastive import BrainToImage, image_to_brain_loss

    rng = np.random.default_rng(0)
    model = BrainToImage(brain_module()[0], 20, 5, 0.75)

    def loss(brain: np.ndarray, images: np.ndarray) -> float:
        one = torch.zeros(len(brain), dtype=torch.long)
        logits = model.similarity(torch.from_numpy(brain), torch.from_numpy(images), one)
        return float(image_to_brain_loss(logits, torch.from_numpy(stimulus)))

    brain, images = rng.normal(size=(2, 6, 5))
    images[3] = images[1]
    stimulus = np.array([0, 1, 2, 1, 4, 5])
    logits = brain @ (images / np.linalg.norm(images, axis=1, keepdims=True)).T
    expected = []
    for row in range(6):
        others = [c for c in range(6) if c == row or stimulus[c] != stimulus[row]]
        expected.append(np.log(np.exp(logits[row, others]).sum()) - logits[row, row])
    found = loss(brain, images)
    assert found == pytest.approx(np.mean(expected), rel=1e-5)
    # image features are normalised, brain features are not
    assert loss(brain, 7 * images) == pytest.approx(found, rel=1e-5)
    assert abs(loss(7 * brain, images) - found) > 0.1


def test_start_scores_by_the_likelihood_of_its_model() -> None:
    """Of each subject's own: what its filters pass of the response to an image differs."""
    import torch

    from afterimage.decoding.low_rank import Factors
    from afterimage.decoding.network_start import _begin
    from afterimage.networks.brain_module import BrainModule
    from afterimage.training.contrastive import BrainToImage, compare

    rng = np.random.default_rng(0)
    layout = Layout(80, 1, np.zeros(1), helmet(80), np.full(80, "mag"))
    places, groups = sensor_places(layout)
    network = BrainModule(
        torch.from_numpy(groups), torch.from_numpy(places), 20, 2, n_virtual=270, n_hidden=6,
        n_blocks=1, kernel=3, n_cosines=8, dropout=0.0, dropout_radius=0.0,
    )  # fmt: skip
    model = BrainToImage(network, 10, 10, 0.75, 2).eval()
    tuning, time = (np.linalg.qr(rng.normal(size=(n, 4)))[0] for n in (10, 8))
    factors = Factors(rng.normal(size=(2, 80, 4)) / 4, tuning, time)
    state = {"components": np.eye(10), "component_scale": np.full(10, 2.0)}
    _begin(model, factors, np.array([30, 10]), state, places)
    images, subject = rng.normal(size=(7, 10)).astype(np.float32), np.array([0, 1, 1, 0, 1])
    signals = rng.normal(size=(5, 80, 20)).astype(np.float32)
    with torch.no_grad():
        filtered = network(*map(torch.from_numpy, (signals, subject, places)))
        found = compare(model, model.contrastive(filtered).numpy(), images, subject)
    cosines = network.cosines.numpy()
    course = factors.time.T @ cosines
    for row, number in enumerate(subject):
        expected = np.einsum("ge,er,ur,rt->gut", images / 2, tuning, factors.space[number], course)
        likelihood = -0.5 * ((signals[row] - expected) ** 2).sum((1, 2))
        assert np.corrcoef(likelihood, found[row])[0, 1] > 0.999
        slope, _ = np.polyfit(likelihood, found[row], 1)
        assert slope == pytest.approx(1, abs=0.03)


def test_sensors_in_another_order_with_their_positions_change_nothing() -> None:
    import torch

    module, places = brain_module()
    signals = torch.randn(4, N_UNITS, N_TIMES, generator=torch.Generator().manual_seed(1))
    order = torch.randperm(N_UNITS, generator=torch.Generator().manual_seed(2))
    subjects = torch.zeros(4, dtype=torch.long)
    first = module(signals, subjects, places)
    torch.testing.assert_close(module(signals[:, order], subjects, places[order]), first)
    assert not torch.allclose(module(signals[:, order], subjects, places), first, atol=1e-3)


def test_spatial_dropout_leaves_out_sensors_in_training_alone() -> None:
    import torch

    module, places = brain_module()
    signals = torch.randn(2, N_UNITS, N_TIMES)
    subjects = torch.zeros(2, dtype=torch.long)
    torch.testing.assert_close(
        module(signals, subjects, places), module(signals, subjects, places)
    )
    attention = module.attention.train()
    torch.manual_seed(3)
    outputs = [attention(places) for _ in range(8)]
    assert any(not torch.equal(outputs[0], other) for other in outputs[1:])
    attention.dropout_radius = 5.0  # all would go: then none does
    torch.testing.assert_close(attention(places), attention.eval()(places))


def test_network_begins_linear_with_the_filters_it_is_given() -> None:
    """Virtual channels begin as windows around sensors, and can be unmixed again."""
    import torch

    rng = np.random.default_rng(0)
    layout = Layout(80, 1, np.zeros(1), helmet(80), np.full(80, "mag"))
    places, groups = (torch.from_numpy(part) for part in sensor_places(layout))
    from afterimage.networks.brain_module import BrainModule

    module = BrainModule(
        groups, places, 20, 2, n_virtual=270, n_hidden=6, n_blocks=2, kernel=3, n_cosines=8,
        dropout=0.0, dropout_radius=0.0,
    ).eval()  # fmt: skip
    space = torch.from_numpy(rng.normal(size=(2, 80, 4)).astype(np.float32))
    time = torch.from_numpy(rng.normal(size=(8, 4)).astype(np.float32))
    module.start(space, time, places)
    signals = torch.from_numpy(rng.normal(size=(5, 80, 20)).astype(np.float32))
    subjects = torch.tensor([0, 1, 1, 0, 1])
    expected = torch.einsum("nut,nur,kr,kt->nr", signals, space[subjects], time, module.cosines)
    found = module(signals, subjects, places)[:, :4]
    torch.testing.assert_close(found, expected, atol=2e-2, rtol=1e-2)


def helmet(n: int) -> np.ndarray:
    index = np.arange(n) + 0.5
    z, angle = 1 - 1.2 * index / n, np.pi * (1 + 5**0.5) * index
    ring = np.sqrt(1 - z**2)
    return 0.12 * np.stack([ring * np.cos(angle), ring * np.sin(angle), z], 1)


def test_subject_layers_begin_alike_and_act_on_their_subject_alone() -> None:
    import torch

    module, places = brain_module(n_subjects=3)
    signals = torch.randn(3, N_UNITS, N_TIMES)
    zero, each = torch.zeros(3, dtype=torch.long), torch.arange(3)
    before = module(signals, zero, places)
    torch.testing.assert_close(module(signals, each, places), before)
    with torch.no_grad():
        module.subjects.matrices[2] += 0.5
    after = module(signals, each, places)
    torch.testing.assert_close(after[:2], before[:2])
    assert not torch.allclose(after[2], before[2], atol=1e-3)


def test_coincident_sensors_and_kinds_get_weights_of_their_own() -> None:
    base = make_layout()
    positions = np.concatenate([base.positions, base.positions, base.positions])
    kind = np.repeat(["mag", "grad", "grad"], N_UNITS)
    plane, group = sensor_places(Layout(36, 1, np.zeros(1), positions, kind))
    assert plane.min() >= 0
    assert plane.max() <= 1
    assert len(np.unique(group)) == 3
    assert all(len(np.unique(group[part : part + N_UNITS])) == 1 for part in (0, 12, 24))
    unknown, group = sensor_places(flat_layout(4))
    assert np.isnan(unknown).all()
    assert not group.any()


def test_average_that_scores_best_is_kept_and_patience_ends_the_run() -> None:
    import torch

    from afterimage.training.loop import LoopSettings, train

    class Walk(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(torch.zeros(1))

        def forward(self, batch: Any, _generator: Any) -> Any:
            return -(self.weight * batch["x"]).sum()

    model, seen = Walk(), []
    best_at = 3

    def score() -> float:
        seen.append(float(model.weight.detach()))
        return -abs(len(seen) - best_at)

    stopping = EarlyStopping(score, every=5, patience=4)
    losses = train(
        model, lambda i, s: {"x": torch.ones(1)}, 4,
        LoopSettings(n_steps=500, batch_size=1, ema_decay=0.9), random_state=0,
        early_stopping=stopping,
    )  # fmt: skip
    assert len(losses) == 5 * (best_at - 1 + 4)
    assert seen[0] == 0  # what it begins with
    assert float(model.weight.detach()) == pytest.approx(seen[best_at - 1])
    assert seen == sorted(seen)


@pytest.mark.parametrize("interrupt_at", [20, 45])
def test_interrupted_training_ends_with_the_same_bits(tmp_path: Path, interrupt_at: int) -> None:
    study, layout = make_study(), make_layout()

    class InterruptedRunError(Exception):
        pass

    def stop(step: int, _loss: float) -> None:
        if step == interrupt_at:
            raise InterruptedRunError

    settings = ContrastiveSettings(**SMALL)
    whole = ContrastiveDecoder(settings).fit(*study, layout=layout)
    options = {"layout": layout, "checkpoint_folder": tmp_path}
    with pytest.raises(InterruptedRunError):
        ContrastiveDecoder(settings).fit(*study, **options, on_progress=stop)
    assert (tmp_path / "checkpoint.safetensors").is_file()
    steps: list[int] = []
    resumed = ContrastiveDecoder(settings).fit(
        *study, **options, on_progress=lambda step, _loss: steps.append(step)
    )
    assert steps[0] > 1
    for key, value in whole.state().items():
        np.testing.assert_array_equal(value, resumed.state()[key], err_msg=key)


def test_half_precision_learns_what_full_precision_learns() -> None:
    import torch

    from afterimage.training.contrastive import BrainToImage
    from afterimage.training.loop import LoopSettings, train

    places = brain_module()[1]
    signals, features, _ = make_study()
    batch = {
        "signals": torch.from_numpy(signals.reshape(-1, N_UNITS, N_TIMES)),
        "subjects": torch.zeros(len(signals), dtype=torch.long),
        "stimulus": torch.arange(len(signals)),
        "targets": torch.from_numpy(features["clip"]),
        "places": places,
    }
    losses = []
    for bf16 in (False, True):
        torch.manual_seed(0)
        model = BrainToImage(brain_module()[0], 20, 8, 0.75)
        settings = LoopSettings(n_steps=15, batch_size=120, learning_rate=5e-3, bf16=bf16)
        losses.append(train(model, lambda _i, _s: batch, 120, settings, random_state=0))
        assert all(p.dtype == torch.float32 for p in model.parameters())
    assert losses[1][-1] < losses[1][0] - 0.1
    assert not np.array_equal(*losses)  # it did compute in another precision
    np.testing.assert_allclose(losses[1], losses[0], rtol=0.03)


@pytest.mark.skipif("not __import__('torch').cuda.is_available()", reason="no GPU")
def test_decoder_trains_on_a_gpu_as_on_the_cpu() -> None:
    study, test = make_study(), make_study(60, seed=3)
    settings = ContrastiveSettings(**SMALL)
    found = [
        top1(ContrastiveDecoder(settings).fit(*study, layout=make_layout(), device=device), test)
        for device in ("cpu", "cuda")
    ]
    assert found[1] > found[0] - 0.1


def test_early_stopping_holds_out_whole_concepts() -> None:
    from afterimage.training.contrastive import held_out_groups

    concept = np.repeat([f"concept-{i}" for i in range(20)], 7)
    train, held = held_out_groups(concept, 0.15, 0)
    assert not set(concept[train]) & set(concept[held])
    assert len(set(concept[held])) == 3
    assert len(train) + len(held) == len(concept)
    for n in (3, 4, 5):
        train, held = held_out_groups(np.arange(n), 0.9, 0)
        assert len(held) >= 1
        assert len(train) >= 2


def test_subjects_share_a_model_and_a_new_one_is_adapted() -> None:
    layout = make_layout()
    parts = [make_study(150, seed=s, turn=s) for s in (1, 2, 3)]
    new, new_test = make_study(60, seed=4, turn=4), make_study(40, seed=5, turn=4)
    responses = np.concatenate([p[0] for p in parts])
    features = {"clip": np.concatenate([p[1]["clip"] for p in parts])}
    names = np.concatenate([p[2] for p in parts])
    subjects = np.repeat(["a", "b", "c"], 150)
    settings = ContrastiveSettings(
        **{**SMALL, "n_steps": 200, "n_hidden": 16, "learning_rate": 5e-3, "dropout_radius": 0.0}
    )
    decoder = ContrastiveDecoder(settings).fit(
        responses, features, names, layout=layout, subjects=subjects
    )
    assert decoder.subjects == ["a", "b", "c"]
    test = make_study(40, seed=6, turn=2)
    of = {name: {"layout": layout, "subjects": np.repeat(name, 40)} for name in "abcd"}
    right, wrong = top1(decoder, test, **of["b"]), top1(decoder, test, **of["a"])
    assert right > wrong + 0.2
    before = decoder.predict(test[0], **of["b"])["clip"]
    stranger = top1(decoder, new_test, **of["a"])
    with pytest.raises(InputError, match="not one the decoder knows"):
        decoder.scores(new_test[0], new_test[1], **of["d"])
    decoder.adapt(*new, layout=layout, subjects=np.repeat("d", 60))
    assert top1(decoder, new_test, **of["d"]) > stranger + 0.2
    np.testing.assert_array_equal(decoder.predict(test[0], **of["b"])["clip"], before)
    again = ContrastiveDecoder.from_state(settings, decoder.state())
    np.testing.assert_array_equal(
        again.scores(*new_test[:2], **of["d"]), decoder.scores(*new_test[:2], **of["d"])
    )
    with pytest.raises(InputError, match="one new subject"):
        decoder.adapt(*new, layout=layout, subjects=np.repeat("d", 60))
    with pytest.raises(InputError, match="held-out"):
        decoder.adapt(*new, [new[2][0]], layout=layout, subjects=np.repeat("e", 60))


class Endless:
    """Trials that exist only when asked for, and counts of what was asked."""

    def __init__(self, n: int) -> None:
        self.shape, self.largest = (n, N_UNITS * N_TIMES), 0

    def __getitem__(self, index: np.ndarray) -> np.ndarray:
        self.largest = max(self.largest, len(index))
        return np.sin(np.outer(index, np.arange(1, self.shape[1] + 1))).astype(np.float32)


def test_memory_does_not_grow_with_trials() -> None:
    rng = np.random.default_rng(0)
    table = rng.normal(size=(50, 20)).astype(np.float32)
    peaks = []
    for n in (2_000, 40_000):
        row = np.arange(n) % 50
        source = Endless(n)
        names = np.array([f"{i:02d}" for i in range(50)])[row]
        settings = ContrastiveSettings(**{**SMALL, "n_steps": 5, "n_validation_max": 200})
        tracemalloc.start()
        ContrastiveDecoder(settings).fit(
            source, {"clip": Rows(table, row)}, names, layout=make_layout()
        )
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert source.largest <= 256
    stored = 4 * 38_000 * N_UNITS * N_TIMES
    # what grows is a few numbers a trial: its name, stimulus, subject and place in the order
    assert peaks[1] - peaks[0] < 0.6 * stored, peaks


def test_statistics_in_one_pass_are_those_of_numpy() -> None:
    rng = np.random.default_rng(0)
    values = (1e4 + rng.normal(size=(300, N_UNITS, N_TIMES))).astype(np.float32)
    values[:, 3] = 7.0
    subject = rng.integers(0, 2, 300)
    flat = values.reshape(300, -1)
    everything = np.arange(300)
    found = stream_statistics(flat, subject, 2, make_layout(), 64, everything)
    mean, scale = found.mean, found.scale
    stream = Stream(flat, make_layout(), subject, found, 20.0)
    for number in (0, 1):
        # apart from the unit that never changes, what is read is white over units
        signals = np.delete(stream(np.flatnonzero(subject == number)), 3, 1)
        covariance = np.cov(signals.transpose(1, 0, 2).reshape(N_UNITS - 1, -1))
        np.testing.assert_allclose(covariance, np.eye(N_UNITS - 1), atol=0.02)
        part = values[subject == number].astype(np.float64)
        np.testing.assert_allclose(mean[number], part.mean(0), rtol=1e-6)
        expected = np.sqrt(part.var(0).mean(1))
        expected[3] = np.inf
        np.testing.assert_allclose(scale[number], expected, rtol=1e-4)


def test_trials_looked_at_are_spread_over_subjects_and_over_the_recording() -> None:
    subject = np.repeat([0, 1, 2], [10, 1000, 4000])
    rows = spread(subject, 300)
    counts = np.bincount(subject[rows])
    assert counts.tolist() == [10, 100, 100]
    assert np.diff(rows[10:110]).max() <= 10
    assert spread(subject, 10**6).tolist() == list(range(5010))


def test_rows_of_a_reader_are_flat_and_windowed() -> None:
    class Reader:
        shape = (9, N_UNITS, N_TIMES)

        def read(self, rows: np.ndarray, times: slice) -> np.ndarray:
            values = np.arange(9 * N_UNITS * N_TIMES, dtype=np.float32).reshape(self.shape)
            return values[rows][:, :, times]

    rows = TrialRows(Reader(), np.array([2, 5, 7]), slice(3, 8))
    assert rows.shape == (3, N_UNITS * 5)
    assert rows[np.array([0, 2])].shape == (2, N_UNITS * 5)
    assert rows[np.array([1])][0, 0] == 5 * N_UNITS * N_TIMES + 3
    inside = window(make_layout(), 0.03, 0.07)
    assert inside.n_times == 5
    assert window(Layout(3, 0, np.zeros(0), np.zeros((3, 3)), np.full(3, "n")), 0, 1).n_times == 1


def test_wrong_layout_target_and_subjects_are_named() -> None:
    study = make_study(30)
    with pytest.raises(InputError, match="units and times"):
        ContrastiveDecoder(ContrastiveSettings(**SMALL)).fit(*study, layout=flat_layout(7))
    with pytest.raises(ConfigError, match="target"):
        ContrastiveDecoder(ContrastiveSettings(**SMALL, target="dino")).fit(*study)
