"""Latent diffusion from a decoded embedding and a decoded start (Rombach et al. 2022).

High-Resolution Image Synthesis with Latent Diffusion Models, doi:10.1109/CVPR52688.2022.01042. The
start is the decoded latent noised part of the way (SDEdit, Meng et al. 2022, arXiv:2108.01073),
the guidance is classifier-free (Ho & Salimans 2022, arXiv:2207.12598) and the sampler is DDIM
(Song et al. 2021, arXiv:2010.02502), as in brain decoders such as Takagi & Nishimoto 2023
(doi:10.1109/CVPR52729.2023.01389).

What differs: the condition is one image embedding (a token of cross-attention, as in Stable
Diffusion image variations, and a projected class embedding where the U-Net has one), the
unconditional embedding is zero, and of several candidates one is kept (`candidates`); the true
picture is never consulted.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from afterimage.errors import ConfigError, InputError
from afterimage.networks.autoencoder import decode, load_autoencoder
from afterimage.reconstruction.candidates import paint_and_choose
from afterimage.reconstruction.registry import RECONSTRUCTIONS, Material, Result
from afterimage.resources import model_folder
from afterimage.settings import Settings
from afterimage.training.objectives import denoise

if TYPE_CHECKING:
    from torch import Tensor


class LatentDiffusionSettings(Settings):
    """Denoise predicted latents under a predicted image embedding."""

    kind: Literal["latent_diffusion"] = "latent_diffusion"
    generator: str = Field(
        default="tiny/generator", description="diffusers folder with vae/, unet/ and scheduler/"
    )
    embedding: str = Field(default="clip", description="the block that guides the denoiser")
    latents: str = Field(default="vae", description="the block of latents to start from")
    strength: float = Field(
        default=0.6, ge=0, le=1, description="noise on the start: 0 keeps it, 1 ignores it"
    )
    guidance_scale: float = Field(
        default=2.0, ge=0, description="weight of the embedding; 1 is no guidance"
    )
    n_steps: int = Field(default=20, ge=1, description="steps of the sampler at strength 1")
    n_candidates: int = Field(default=4, ge=1, description="candidates an image, one is kept")
    batch_size: int = Field(default=64, ge=1, description="images denoised at once")


@RECONSTRUCTIONS.register("latent_diffusion", LatentDiffusionSettings)
class LatentDiffusion:
    """Reconstruct pictures from predicted image embeddings and latents.

    Parameters
    ----------
    settings : LatentDiffusionSettings
    device : str
        ``"cpu"`` (float32) or ``"cuda"`` (bfloat16).
    """

    def __init__(self, settings: LatentDiffusionSettings, device: str = "cpu") -> None:
        self._settings, self._device = settings, device
        self._vae, self._unet, self._scheduler = load_generator(model_folder(settings.generator))
        for network in (self._vae, self._unet):
            network.to(device)
            if device != "cpu":
                network.bfloat16()

    def reconstruct(
        self, predicted: Mapping[str, NDArray[np.float32]], material: Material
    ) -> Result:
        """Make one picture for each row of the predicted features.

        Parameters
        ----------
        predicted : mapping of block name to ndarray of float32
            The embedding (n, n_features) and the standardised latents (n, ...), flat or not.
        material : Material

        Returns
        -------
        images, details
            See `candidates.paint_and_choose`.
        """
        settings = self._settings
        embedding, latents = self._features(predicted, material)

        def paint(rows: NDArray[np.int64], seeds: list[int]) -> NDArray[np.uint8]:
            sampled = self._sample(embedding[rows], latents[rows], seeds)
            pictures = decode(self._vae, sampled, device=self._device, batch=len(rows))
            return np.rint(pictures * 255).astype(np.uint8)

        return paint_and_choose(
            paint, embedding, settings.embedding, material,
            settings.n_candidates, settings.batch_size,
        )  # fmt: skip

    def _features(
        self, predicted: Mapping[str, NDArray[np.float32]], material: Material
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return the embedding (n, n_features) and the latents (n, c, h, w) as the U-Net takes."""
        settings, config = self._settings, self._unet.config
        for block in (settings.embedding, settings.latents):
            if block not in predicted or block not in material.shapes:
                raise ConfigError(
                    "latent diffusion needs a feature block that was not decoded",
                    found=", ".join(sorted(predicted)),
                    expected=f"{settings.embedding}, {settings.latents}",
                    fix="add the block to the features, or name another one in the settings",
                )
        embedding = np.asarray(predicted[settings.embedding], np.float32)
        embedding = embedding.reshape(len(embedding), -1)
        if embedding.shape[1] != config.cross_attention_dim:
            raise ConfigError(
                "the generator does not take this image embedding",
                where=settings.generator,
                found=f"{embedding.shape[1]} features in block {settings.embedding!r}",
                expected=f"{config.cross_attention_dim} features",
                fix="use the image encoder that this generator was trained with",
            )
        shape = material.shapes[settings.latents]
        if len(shape) != 3 or shape[0] != config.in_channels:
            raise ConfigError(
                "the generator does not take these latents",
                where=settings.generator,
                found=f"shape {tuple(shape)} of block {settings.latents!r}",
                expected=f"({config.in_channels}, height, width)",
                fix="use the autoencoder inside the generator's own folder for this block",
            )
        latents = np.asarray(predicted[settings.latents], np.float32)
        return embedding, latents.reshape(len(latents), *shape)

    def _sample(
        self, embedding: NDArray[np.float32], latents: NDArray[np.float32], seeds: list[int]
    ) -> NDArray[np.float32]:
        """Noise the latents to ``strength`` and denoise them under the embedding; (m, c, h, w)."""
        import torch

        n_steps = self._settings.n_steps
        self._scheduler.set_timesteps(n_steps)
        steps = self._scheduler.timesteps[n_steps - round(n_steps * self._settings.strength) :]
        if not len(steps):
            return latents
        noise = torch.stack(
            [
                torch.randn(latents.shape[1:], generator=torch.Generator().manual_seed(seed))
                for seed in seeds
            ]
        )
        first = steps[:1].repeat(len(noise))
        noisy = self._scheduler.add_noise(torch.from_numpy(latents), noise, first)
        noisy = noisy.to(self._device)
        condition = torch.from_numpy(embedding).to(self._device, self._unet.dtype)
        with torch.inference_mode():
            for step in steps:
                inputs = self._scheduler.scale_model_input(noisy, step).to(self._unet.dtype)
                output = self._guided(inputs, step, condition)
                noisy = self._scheduler.step(output, step, noisy).prev_sample
        clean: NDArray[np.float32] = noisy.float().cpu().numpy()
        return clean

    def _guided(self, noisy: Tensor, step: Tensor, condition: Tensor) -> Tensor:
        """Return the guided output, u + g (c - u), of conditional c and unconditional u."""
        import torch

        scale = self._settings.guidance_scale
        step = step.to(self._device)
        if scale == 1:
            return denoise(self._unet, noisy, step, condition).float()
        both = torch.cat([torch.zeros_like(condition), condition])
        output = denoise(self._unet, torch.cat([noisy, noisy]), step, both).float()
        unconditional, conditional = output.chunk(2)
        return unconditional + scale * (conditional - unconditional)


def load_generator(folder: str | Path) -> tuple[Any, Any, Any]:
    """Load autoencoder, U-Net and DDIM schedule from a diffusers pipeline's folder.

    Parameters
    ----------
    folder : str or Path
        Holds ``vae/``, ``unet/`` and ``scheduler/``, weights as safetensors.

    Returns
    -------
    vae, unet, scheduler
        On the CPU, in float32, in evaluation mode.
    """
    import torch
    from diffusers import DDIMScheduler, UNet2DConditionModel

    home = Path(folder)
    missing = [part for part in ("vae", "unet", "scheduler") if not (home / part).is_dir()]
    if missing:
        raise InputError(
            "this folder holds no complete generator",
            where=str(home),
            found="no such folder" if not home.is_dir() else f"no {', no '.join(missing)}",
            expected="a diffusers pipeline with vae/, unet/ and scheduler/",
            fix="set the reconstruction's generator to such a folder on this machine",
        )
    try:
        unet = UNet2DConditionModel.from_pretrained(
            str(home / "unet"),
            local_files_only=True,
            use_safetensors=True,
            torch_dtype=torch.float32,
        )
        config = DDIMScheduler.load_config(str(home / "scheduler"), local_files_only=True)
    except (OSError, ValueError) as error:
        raise InputError(
            "the generator cannot be loaded",
            where=str(home),
            found=str(error).splitlines()[0],
            expected="config.json and safetensors weights in unet/, a config in scheduler/",
            fix="copy the folder again; weights in pickle form (.bin) are not read (docs/safety.md: how to "
            "convert them)",
        ) from error
    if "beta_schedule" not in config:
        raise ConfigError(
            "the generator's noise schedule is not one of denoising diffusion",
            where=str(home / "scheduler"),
            found=str(config.get("_class_name")),
            expected="a schedule of betas (DDIM, DDPM, PNDM, Euler, DPM-Solver)",
        )
    scheduler = DDIMScheduler.from_config(config, clip_sample=False)
    return load_autoencoder(home / "vae"), unet.eval(), scheduler
