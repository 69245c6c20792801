"""Objectives of the training loop: modules that hold a model and return the loss of a batch.

Contrastive losses take the rows of this process and contrast those of all (`training.processes`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from afterimage.training.processes import gathered, rows_before

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn


def reconstruction_loss(decoded: Tensor, target: Tensor) -> Tensor:
    r"""Mean absolute error, plus that of the edges, plus twice the mean squared error.

    .. math:: |d - t| + |\nabla_x d - \nabla_x t| + |\nabla_y d - \nabla_y t| + 2 (d - t)^2

    The absolute error alone mutes colours, the squared error alone blurs.

    Parameters
    ----------
    decoded, target : Tensor, (n, channels, height, width)
    """
    difference = decoded - target
    edges = difference.diff(dim=-1).abs().mean() + difference.diff(dim=-2).abs().mean()
    return difference.abs().mean() + edges + 2 * difference.square().mean()


def kl_divergence(mean: Tensor, log_variance: Tensor) -> Tensor:
    """Divergence of N(mean, exp(log_variance)) from N(0, 1), mean over the elements."""
    return 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).mean()


def velocity(clean: Tensor, noise: Tensor, signal_share: Tensor) -> Tensor:
    r"""Return the target of v-prediction (Salimans & Ho 2022, arXiv:2202.00512).

    .. math:: v = \sqrt{\bar\alpha}\, \epsilon - \sqrt{1 - \bar\alpha}\, x

    Parameters
    ----------
    clean, noise : Tensor, (n, ...)
    signal_share : Tensor, (n,)
        The noise schedule's cumulative product at the time step of each example.
    """
    share = signal_share.reshape(-1, *[1] * (clean.ndim - 1))
    return share.sqrt() * noise - (1 - share).sqrt() * clean


def contrastive_loss(images: Tensor, texts: Tensor, log_scale: Tensor) -> Tensor:
    """Symmetric InfoNCE between paired embeddings (CLIP; Radford et al. 2021, arXiv:2103.00020).

    Parameters
    ----------
    images, texts : Tensor, (n, n_features)
        Row i of one belongs to row i of the other; any length.
    log_scale : Tensor, scalar
        Logarithm of the inverse temperature.
    """
    import torch
    from torch.nn.functional import cross_entropy, normalize

    images, texts = gathered(images), gathered(texts)
    logits = log_scale.exp() * normalize(images, dim=-1) @ normalize(texts, dim=-1).T
    own = torch.arange(len(logits), device=logits.device)
    return (cross_entropy(logits, own) + cross_entropy(logits.T, own)) / 2


def soft_contrastive_loss(predicted: Tensor, targets: Tensor, temperature: float) -> Tensor:
    r"""Contrast against how alike the targets are (SoftCLIP; Gao et al. 2023, arXiv:2303.17561).

    With p and t at length one, the cross-entropy of :math:`softmax(p t' / \tau)` under
    :math:`softmax(t t' / \tau)`, over rows and over columns: a second trial of the same stimulus is
    no negative.

    Parameters
    ----------
    predicted, targets : Tensor, (n, n_features)
    temperature : float
    """
    from torch.nn.functional import normalize

    predicted, targets = gathered(predicted.float()), gathered(targets.float())
    found, truth = normalize(predicted, dim=-1), normalize(targets, dim=-1)
    wanted = (truth @ truth.T / temperature).softmax(dim=-1)
    logits = found @ truth.T / temperature
    rows = -(wanted * logits.log_softmax(dim=-1)).sum(-1).mean()
    columns = -(wanted * logits.T.log_softmax(dim=-1)).sum(-1).mean()
    return (rows + columns) / 2


def mixed_contrastive_loss(
    predicted: Tensor, targets: Tensor, partner: Tensor, share: Tensor, temperature: float
) -> Tensor:
    """Contrast of trials that are mixtures of two (BiMixCo; Scotti et al. 2023, arXiv:2305.18274).

    Parameters
    ----------
    predicted : Tensor, (n, n_features)
        Of ``share`` of trial i and ``1 - share`` of trial ``partner[i]``.
    targets : Tensor, (n, n_features)
        Of the trials themselves.
    partner : Tensor of int64, (n,)
        Among the rows of this process.
    share : Tensor, (n,)
    temperature : float
    """
    import torch
    from torch.nn.functional import normalize

    predicted, targets = gathered(predicted.float()), gathered(targets.float())
    found, truth = normalize(predicted, dim=-1), normalize(targets, dim=-1)
    partner, share = gathered(partner + rows_before(partner)), gathered(share)
    logits = found @ truth.T / temperature
    own = torch.arange(len(logits), device=logits.device)
    wanted = torch.zeros_like(logits)
    wanted[own, own] = share.to(logits.dtype)
    wanted[own, partner] += 1 - share.to(logits.dtype)
    rows = -(wanted * logits.log_softmax(dim=1)).sum(1).mean()
    columns = -(wanted * logits.log_softmax(dim=0)).sum(0).mean()
    return (rows + columns) / 2


def seeded_objective(network: nn.Module) -> nn.Module:
    """Return the objective of a network that says its loss and draws from torch's global source.

    As quantisers do. The global source is set from that of the step, so that a run that is resumed
    goes on as it would have.

    Parameters
    ----------
    network : torch.nn.Module
        ``forward(batch)`` returns a dictionary with ``loss``.
    """
    import torch
    from torch import nn

    class Objective(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = network

        def forward(self, batch: dict[str, Tensor], generator: torch.Generator) -> Tensor:
            device = next(iter(batch.values())).device
            seed = int(torch.randint(2**62, (), generator=generator))
            with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
                torch.manual_seed(seed)
                loss: Tensor = self.network(batch)["loss"]
            return loss

    return Objective()


def autoencoder_objective(vae: Any, kl_weight: float) -> nn.Module:
    """Return the objective of a variational autoencoder (Rombach et al. 2022, arXiv:2112.10752).

    The batch holds ``images``: (n, channels, height, width), values -1..1. The latents are sampled
    from the posterior.
    """
    from torch import nn

    class AutoencoderObjective(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.vae = vae

        def forward(self, batch: dict[str, Tensor], generator: torch.Generator) -> Tensor:
            posterior = self.vae.encode(batch["images"]).latent_dist
            noise = _normal(posterior.mean, generator)
            decoded = self.vae.decode(posterior.mean + posterior.std * noise).sample
            divergence = kl_divergence(posterior.mean.float(), posterior.logvar.float())
            decoded, target = _as_pictures(decoded.float()), _as_pictures(batch["images"])
            return reconstruction_loss(decoded, target) + kl_weight * divergence

    return AutoencoderObjective()


def denoiser_objective(
    unet: Any,
    scheduler: Any,
    *,
    condition_noise: float,
    condition_dropout: float,
    condition_std: float,
) -> nn.Module:
    """Return the objective of a conditional denoiser (v-prediction; Salimans & Ho 2022).

    The batch holds ``latents`` (n, c, h, w) and ``embeddings`` (n, n_features). Each embedding
    gets Gaussian noise of a standard deviation drawn from 0..``condition_noise`` in units of
    ``condition_std``, since embeddings predicted from a brain are noisy; a share
    ``condition_dropout`` is set to zero, which trains the unconditional model of classifier-free
    guidance (Ho & Salimans 2022, arXiv:2207.12598).
    """
    import torch
    from torch import nn
    from torch.nn.functional import mse_loss

    shares = scheduler.alphas_cumprod.float()
    kind = scheduler.config.prediction_type

    class DenoiserObjective(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.unet = unet

        def forward(self, batch: dict[str, Tensor], generator: torch.Generator) -> Tensor:
            clean, embeddings = batch["latents"], batch["embeddings"]
            n, device = len(clean), clean.device
            noise = _normal(clean, generator)
            steps = torch.randint(0, len(shares), (n,), generator=generator)
            share = shares[steps].to(device)
            scale = torch.rand(n, 1, generator=generator).to(device) * condition_noise
            embeddings = embeddings + scale * condition_std * _normal(embeddings, generator)
            keep = torch.rand(n, 1, generator=generator).to(device) >= condition_dropout
            output = denoise(
                self.unet, _mix(clean, noise, share), steps.to(device), embeddings * keep
            )
            target = velocity(clean, noise, share) if kind == "v_prediction" else noise
            return mse_loss(output.float(), target)

    return DenoiserObjective()


def denoise(unet: Any, noisy: Tensor, steps: Tensor, embeddings: Tensor) -> Tensor:
    """Run the U-Net with an image embedding as one token of cross-attention.

    A U-Net with a projected class embedding gets the embedding there as well.

    Parameters
    ----------
    unet : diffusers.UNet2DConditionModel
    noisy : Tensor, (n, c, h, w)
    steps : Tensor, (n,) or scalar
    embeddings : Tensor, (n, n_features)
    """
    labels = embeddings if unet.config.class_embed_type == "projection" else None
    output: Tensor = unet(
        noisy, steps, encoder_hidden_states=embeddings[:, None, :], class_labels=labels
    ).sample
    return output


def _mix(clean: Tensor, noise: Tensor, signal_share: Tensor) -> Tensor:
    share = signal_share.reshape(-1, *[1] * (clean.ndim - 1))
    return share.sqrt() * clean + (1 - share).sqrt() * noise


def _normal(like: Tensor, generator: torch.Generator) -> Tensor:
    import torch

    return torch.randn(like.shape, generator=generator).to(like.device, torch.float32)


def _as_pictures(images: Tensor) -> Tensor:
    """Undo the unshuffling of pixels into channels, so that edges are those of the picture."""
    from torch.nn.functional import pixel_shuffle

    factor = int((images.shape[1] / 3) ** 0.5)
    return pixel_shuffle(images, factor) if factor > 1 else images
