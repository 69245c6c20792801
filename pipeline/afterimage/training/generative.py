"""Training a latent generator (autoencoder and conditional denoiser) on arrays, new or further.

The same functions make the small weights of the project and adapt a loaded generator to the
training images of a data set. Rombach et al. 2022 (doi:10.1109/CVPR52688.2022.01042).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from afterimage.networks.autoencoder import to_network
from afterimage.training.loop import Batch, LoopSettings, train
from afterimage.training.objectives import autoencoder_objective, denoiser_objective

Progress = Callable[[int, float], None]


def new_autoencoder(
    *,
    shuffle: int = 4,
    channels: tuple[int, ...] = (64, 128),
    latent_channels: int = 8,
    random_state: int = 0,
) -> Any:
    """Return an untrained AutoencoderKL that takes pixels unshuffled by ``shuffle``.

    Parameters
    ----------
    shuffle : int
        Side of the squares of pixels that become channels: 4 makes it about five times cheaper
        than four levels.
    channels : tuple of int
        Width of each level; each level after the first halves the resolution.
    latent_channels : int
        Channels of the latents, whose side is that of the picture / (shuffle * 2^(levels - 1)).
    random_state : int
        Seed of the initial weights.
    """
    import torch
    from diffusers import AutoencoderKL

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(random_state)
        return AutoencoderKL(
            in_channels=3 * shuffle**2,
            out_channels=3 * shuffle**2,
            down_block_types=("DownEncoderBlock2D",) * len(channels),
            up_block_types=("UpDecoderBlock2D",) * len(channels),
            block_out_channels=channels,
            layers_per_block=1,
            latent_channels=latent_channels,
            norm_num_groups=16,
            scaling_factor=1.0,
            mid_block_add_attention=False,
        )


def fit_autoencoder(
    images: NDArray[np.uint8],
    *,
    vae: Any | None = None,
    settings: LoopSettings | None = None,
    kl_weight: float = 1e-3,
    random_state: int,
    device: str = "cpu",
    checkpoint_folder: Path | None = None,
    on_progress: Progress | None = None,
) -> tuple[Any, NDArray[np.float32]]:
    """Train an autoencoder on pictures.

    Parameters
    ----------
    images : ndarray of uint8, (n, height, width, 3)
    vae : diffusers.AutoencoderKL, optional
        A model to train further, in place; its standardisation of latents stays, so that a
        denoiser trained on them still fits. Without it, a new one (`new_autoencoder`), whose
        standardisation is measured at the end.
    settings : LoopSettings, optional
    kl_weight : float
        Weight of the mean divergence of the latents from N(0, 1).
    random_state, device, checkpoint_folder, on_progress
        See `afterimage.training.loop.train`.

    Returns
    -------
    vae : diffusers.AutoencoderKL
    losses : ndarray of float32, (n_steps,)
    """
    import torch

    fresh = vae is None
    vae = new_autoencoder(random_state=random_state) if vae is None else vae

    def batch_of(indices: NDArray[np.int64], _step: int) -> Batch:
        return {"images": to_network(vae, images[indices].astype(np.float32) / 255)}

    losses = train(
        autoencoder_objective(vae, kl_weight),
        batch_of,
        len(images),
        settings or LoopSettings(n_steps=2000, batch_size=24, learning_rate=2e-3),
        random_state=random_state,
        device=device,
        checkpoint_folder=checkpoint_folder,
        on_progress=on_progress,
    )
    vae.to("cpu")
    if fresh:
        sample = images[_spread(len(images), 1024)].astype(np.float32) / 255
        with torch.inference_mode():
            parts = [
                vae.encode(to_network(vae, sample[i : i + 64])).latent_dist.mean
                for i in range(0, len(sample), 64)
            ]
        latents = torch.cat(parts)
        vae.register_to_config(
            latents_mean=latents.mean((0, 2, 3)).tolist(),
            latents_std=latents.std((0, 2, 3)).tolist(),
        )
    return vae, losses


def _spread(n_items: int, at_most: int) -> NDArray[np.int64]:
    """Return at most ``at_most`` indices spread evenly over ``n_items``."""
    return np.unique(np.linspace(0, n_items - 1, min(n_items, at_most)).astype(np.int64))


def new_denoiser(
    *,
    latent_shape: tuple[int, int, int] = (8, 8, 8),
    embedding_size: int = 128,
    channels: tuple[int, ...] = (64, 96),
    random_state: int = 0,
) -> Any:
    """Return an untrained U-Net that takes an image embedding as a token and beside the time step.

    Parameters
    ----------
    latent_shape : (channels, height, width)
    embedding_size : int
        Features of the embedding.
    channels : tuple of int
        Width of each level. The first has no attention.
    random_state : int
        Seed of the initial weights.
    """
    import torch
    from diffusers import UNet2DConditionModel

    n_attending = len(channels) - 1
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(random_state)
        return UNet2DConditionModel(
            sample_size=latent_shape[1],
            in_channels=latent_shape[0],
            out_channels=latent_shape[0],
            down_block_types=("DownBlock2D", *("CrossAttnDownBlock2D",) * n_attending),
            mid_block_type="UNetMidBlock2DCrossAttn",
            up_block_types=(*("CrossAttnUpBlock2D",) * n_attending, "UpBlock2D"),
            block_out_channels=channels,
            layers_per_block=2,
            norm_num_groups=16,
            cross_attention_dim=embedding_size,
            attention_head_dim=4,
            class_embed_type="projection",
            projection_class_embeddings_input_dim=embedding_size,
            resnet_time_scale_shift="scale_shift",
        )


def new_scheduler() -> Any:
    """Return the noise schedule of new denoisers: cosine, no signal at the last step.

    Lin et al. 2024, arXiv:2305.08891.
    """
    from diffusers import DDIMScheduler

    return DDIMScheduler(
        beta_schedule="squaredcos_cap_v2",
        prediction_type="v_prediction",
        rescale_betas_zero_snr=True,
        timestep_spacing="trailing",
        clip_sample=False,
    )


def fit_denoiser(
    latents: NDArray[np.float32],
    embeddings: NDArray[np.float32],
    *,
    unet: Any | None = None,
    scheduler: Any | None = None,
    settings: LoopSettings | None = None,
    condition_noise: float = 0.5,
    condition_dropout: float = 0.1,
    random_state: int,
    device: str = "cpu",
    checkpoint_folder: Path | None = None,
    on_progress: Progress | None = None,
) -> tuple[Any, NDArray[np.float32]]:
    """Train a denoiser of latents conditioned on image embeddings.

    Parameters
    ----------
    latents : ndarray of float32, (n, channels, height, width)
        Standardised, from `afterimage.networks.autoencoder.encode`.
    embeddings : ndarray of float32, (n, n_features)
        The embedding of the same pictures, as the generator will be given it.
    unet : diffusers.UNet2DConditionModel, optional
        A model to train further, in place; without it a new one (`new_denoiser`).
    scheduler : diffusers scheduler, optional
        The noise schedule of ``unet``; without it `new_scheduler`.
    settings : LoopSettings, optional
    condition_noise : float
        Largest standard deviation of the noise on the embedding, in units of the embedding's own.
    condition_dropout : float
        Share of examples without embedding.
    random_state, device, checkpoint_folder, on_progress
        See `afterimage.training.loop.train`.

    Returns
    -------
    unet : diffusers.UNet2DConditionModel
    losses : ndarray of float32, (n_steps,)
    """
    import torch

    if unet is None:
        channels, height, width = latents.shape[1:]
        unet = new_denoiser(
            latent_shape=(channels, height, width),
            embedding_size=embeddings.shape[1],
            random_state=random_state,
        )
    objective = denoiser_objective(
        unet,
        scheduler or new_scheduler(),
        condition_noise=condition_noise,
        condition_dropout=condition_dropout,
        condition_std=float(embeddings.std(0).mean()),
    )

    def batch_of(indices: NDArray[np.int64], _step: int) -> Batch:
        return {
            "latents": torch.from_numpy(latents[indices].astype(np.float32)),
            "embeddings": torch.from_numpy(embeddings[indices].astype(np.float32)),
        }

    losses = train(
        objective,
        batch_of,
        len(latents),
        settings or LoopSettings(n_steps=4000, batch_size=32, learning_rate=1.5e-3),
        random_state=random_state,
        device=device,
        checkpoint_folder=checkpoint_folder,
        on_progress=on_progress,
    )
    return unet.to("cpu"), losses
