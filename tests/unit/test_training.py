"""The training loop resumes to identical weights; objectives agree with their closed forms."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from afterimage.networks.autoencoder import decode, encode
from afterimage.simulate.stimuli import draw_stimuli
from afterimage.training.generative import (
    fit_autoencoder,
    fit_denoiser,
    new_autoencoder,
    new_denoiser,
    new_scheduler,
)
from afterimage.training.loop import (
    LoopSettings,
    batch_indices,
    learning_rate_factor,
    train,
)
from afterimage.training.objectives import (
    contrastive_loss,
    denoiser_objective,
    kl_divergence,
    reconstruction_loss,
    velocity,
)


@pytest.fixture(autouse=True)
def one_thread() -> Any:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


class Line(torch.nn.Module):
    """Least squares with a little random noise on the input, which resuming must repeat."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(3))

    def forward(self, batch: dict[str, torch.Tensor], generator: torch.Generator) -> torch.Tensor:
        x = batch["x"] + 0.01 * torch.randn(batch["x"].shape, generator=generator)
        return ((x @ self.weight - batch["y"]) ** 2).mean()


X = np.random.default_rng(0).standard_normal((50, 3)).astype(np.float32)
Y = X @ np.array([1.0, -2.0, 0.5], np.float32)


def batch_of(indices: np.ndarray, step: int) -> dict[str, torch.Tensor]:
    return {"x": torch.from_numpy(X[indices]), "y": torch.from_numpy(Y[indices])}


SETTINGS = LoopSettings(
    n_steps=30, batch_size=8, learning_rate=0.05, warmup_steps=3, checkpoint_every=10
)


def test_loop_finds_the_least_squares_solution() -> None:
    model = Line()
    settings = SETTINGS.model_copy(update={"n_steps": 300, "weight_decay": 0.0})
    losses = train(model, batch_of, 50, settings, random_state=0)
    assert losses[-20:].mean() < 0.01 * losses[:5].mean()
    assert np.allclose(model.weight.detach(), [1.0, -2.0, 0.5], atol=0.02)


def test_resumed_run_ends_with_identical_weights(tmp_path: Path) -> None:
    whole, stopped, resumed = Line(), Line(), Line()
    losses = train(whole, batch_of, 50, SETTINGS, random_state=7)

    class StopError(Exception):
        pass

    def interrupt(step: int, loss: float) -> None:
        if step == 17:
            raise StopError

    with pytest.raises(StopError):
        train(
            stopped, batch_of, 50, SETTINGS,
            random_state=7, checkpoint_folder=tmp_path, on_progress=interrupt,
        )  # fmt: skip
    steps: list[int] = []
    losses_resumed = train(
        resumed, batch_of, 50, SETTINGS,
        random_state=7, checkpoint_folder=tmp_path, on_progress=lambda step, _: steps.append(step),
    )  # fmt: skip
    assert steps[0] == 11
    assert torch.equal(whole.weight, resumed.weight)
    assert np.array_equal(losses, losses_resumed)
    assert [path.suffix for path in tmp_path.iterdir()] == [".safetensors"]


def test_other_seed_gives_other_weights() -> None:
    first, second = Line(), Line()
    train(first, batch_of, 50, SETTINGS, random_state=0)
    train(second, batch_of, 50, SETTINGS, random_state=1)
    assert not torch.equal(first.weight, second.weight)


def test_every_epoch_sees_every_example_once() -> None:
    seen = np.concatenate([batch_indices(10, 4, step, 0) for step in range(5)])
    assert sorted(seen[:10]) == list(range(10))
    assert sorted(seen[10:]) == list(range(10))
    assert list(seen[:10]) != list(seen[10:])


def test_learning_rate_rises_stays_and_falls() -> None:
    settings = LoopSettings(n_steps=100, warmup_steps=10, decay_start=0.5)
    factors = [learning_rate_factor(step, settings) for step in range(100)]
    assert factors[0] == pytest.approx(0.1)
    assert set(factors[10:50]) == {1.0}
    assert factors[75] == pytest.approx(0.5)
    assert factors[99] == pytest.approx(0.02)


def test_reconstruction_loss_of_a_constant_error() -> None:
    target = torch.rand(2, 3, 8, 8)
    assert float(reconstruction_loss(target, target)) == 0
    # |d| + no edges + 2 d^2
    assert float(reconstruction_loss(target + 0.5, target)) == pytest.approx(0.5 + 0.5, rel=1e-5)


def test_reconstruction_loss_counts_edges() -> None:
    target, decoded = torch.zeros(1, 1, 1, 4), torch.tensor([[[[0.0, 1.0, 0.0, 1.0]]]])
    decoded, target = decoded.expand(1, 1, 2, 4), target.expand(1, 1, 2, 4)
    assert float(reconstruction_loss(decoded, target)) == pytest.approx(0.5 + 1 + 2 * 0.5)


def test_kl_divergence_matches_torch() -> None:
    mean, log_variance = torch.randn(5, 7), torch.randn(5, 7)
    one = torch.distributions.Normal(mean, (0.5 * log_variance).exp())
    expected = torch.distributions.kl_divergence(one, torch.distributions.Normal(0.0, 1.0)).mean()
    assert float(kl_divergence(mean, log_variance)) == pytest.approx(float(expected), rel=1e-5)


def test_velocity_matches_diffusers() -> None:
    scheduler = new_scheduler()
    clean, noise = torch.randn(6, 2, 4, 4), torch.randn(6, 2, 4, 4)
    steps = torch.tensor([0, 10, 250, 500, 900, 999])
    expected = scheduler.get_velocity(clean, noise, steps)
    found = velocity(clean, noise, scheduler.alphas_cumprod[steps])
    assert torch.allclose(found, expected, atol=1e-6)


def test_contrastive_loss_closed_forms() -> None:
    same = torch.ones(4, 3)
    assert float(contrastive_loss(same, same, torch.tensor(2.0))) == pytest.approx(np.log(4))
    apart = torch.eye(4)
    expected = np.log(1 + 3 * np.exp(-10.0))
    found = float(contrastive_loss(apart, 5 * apart, torch.tensor(np.log(10.0))))
    assert found == pytest.approx(expected, rel=1e-3)


def test_perfect_denoiser_has_no_loss_and_gets_the_embedding() -> None:
    scheduler, seen = new_scheduler(), []

    class Oracle(torch.nn.Module):
        """Knows that every clean latent is zero, so that v follows from the noisy latent."""

        config = type("Config", (), {"class_embed_type": "projection"})()

        def forward(self, noisy: Any, steps: Any, **condition: Any) -> Any:
            seen.append(condition)
            share = scheduler.alphas_cumprod[steps].reshape(-1, 1, 1, 1)
            noise = noisy / (1 - share).sqrt()
            return type("Output", (), {"sample": share.sqrt() * noise})()

    objective = denoiser_objective(
        Oracle(), scheduler, condition_noise=0.0, condition_dropout=0.25, condition_std=1.0
    )
    batch = {"latents": torch.zeros(400, 2, 4, 4), "embeddings": torch.ones(400, 5)}
    loss = objective(batch, torch.Generator().manual_seed(0))
    assert float(loss) == pytest.approx(0, abs=1e-8)
    token, label = seen[0]["encoder_hidden_states"], seen[0]["class_labels"]
    assert token.shape == (400, 1, 5)
    assert torch.equal(token[:, 0], label)
    assert set(label.unique().tolist()) == {0.0, 1.0}
    assert abs(float((label[:, 0] == 0).float().mean()) - 0.25) < 0.07


def test_condition_noise_has_the_standard_deviation_asked_for() -> None:
    seen = []

    class Spy(torch.nn.Module):
        config = type("Config", (), {"class_embed_type": None})()

        def forward(self, noisy: Any, steps: Any, **condition: Any) -> Any:
            seen.append(condition)
            return type("Output", (), {"sample": noisy})()

    objective = denoiser_objective(
        Spy(), new_scheduler(), condition_noise=0.5, condition_dropout=0.0, condition_std=2.0
    )
    batch = {"latents": torch.zeros(2000, 1, 2, 2), "embeddings": torch.zeros(2000, 400)}
    objective(batch, torch.Generator().manual_seed(0))
    spread = seen[0]["encoder_hidden_states"].std(-1)
    assert float(spread.max()) == pytest.approx(1.0, abs=0.15)
    assert float(spread.mean()) == pytest.approx(0.5, abs=0.05)
    assert seen[0]["class_labels"] is None


def test_fitting_from_nothing_and_further_is_deterministic() -> None:
    images = draw_stimuli(24, 0)[0]
    settings = LoopSettings(n_steps=3, batch_size=4, warmup_steps=0)
    weights = []
    for _ in range(2):
        vae = new_autoencoder(channels=(16, 16), latent_channels=4, random_state=1)
        vae, losses = fit_autoencoder(images, vae=vae, settings=settings, random_state=0)
        weights.append(torch.cat([p.detach().ravel() for p in vae.parameters()]))
        assert np.isfinite(losses).all()
    assert torch.equal(weights[0], weights[1])
    assert vae.config.get("latents_mean") is None  # a further run keeps the scale of its model
    latents = encode(vae, images.astype(np.float32) / 255)
    assert decode(vae, latents).shape == images.shape
    embeddings = np.random.default_rng(0).standard_normal((24, 6)).astype(np.float32)
    outputs = []
    for _ in range(2):
        unet = new_denoiser(
            latent_shape=(4, 8, 8), embedding_size=6, channels=(16, 16), random_state=2
        )
        unet, _ = fit_denoiser(latents, embeddings, unet=unet, settings=settings, random_state=0)
        outputs.append(torch.cat([p.detach().ravel() for p in unet.parameters()]))
    assert torch.equal(outputs[0], outputs[1])


def test_new_autoencoder_standardises_its_latents() -> None:
    images = draw_stimuli(60, 0)[0]
    vae, _ = fit_autoencoder(
        images, settings=LoopSettings(n_steps=2, batch_size=4), random_state=0
    )
    latents = encode(vae, images.astype(np.float32) / 255)
    assert np.allclose(latents.mean((0, 2, 3)), 0, atol=1e-3)
    assert np.allclose(latents.std((0, 2, 3)), 1, atol=1e-2)
