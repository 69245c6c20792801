"""Pictures to latents and back, with any diffusers autoencoder in a local folder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from afterimage.errors import ConfigError, InputError

if TYPE_CHECKING:
    from torch import Tensor

_CLASSES = ("AutoencoderKL", "AutoencoderTiny")


def load_autoencoder(folder: str | Path) -> Any:
    """Load an autoencoder from its folder, or from the ``vae/`` of a pipeline's folder.

    Parameters
    ----------
    folder : str or Path
        A diffusers folder: ``config.json`` and safetensors weights.

    Returns
    -------
    diffusers.AutoencoderKL or diffusers.AutoencoderTiny
        On the CPU, in float32, in evaluation mode.
    """
    import json

    import diffusers
    import torch
    from safetensors import SafetensorError

    home = Path(folder)
    home = home / "vae" if (home / "vae").is_dir() else home
    try:
        kind = json.loads((home / "config.json").read_text(encoding="utf-8"))["_class_name"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(
            "this folder holds no autoencoder",
            where=str(home / "config.json"),
            found=str(error),
            expected="a diffusers folder: config.json and diffusion_pytorch_model.safetensors",
            fix="give the folder of a diffusers autoencoder, or of a pipeline with a vae/ inside",
        ) from error
    if kind not in _CLASSES:
        raise ConfigError(
            "this kind of autoencoder is not known",
            where=str(home / "config.json"),
            found=str(kind),
            expected=" or ".join(_CLASSES),
        )
    try:
        vae = getattr(diffusers, kind).from_pretrained(
            str(home), local_files_only=True, use_safetensors=True, torch_dtype=torch.float32
        )
    except (OSError, ValueError, SafetensorError) as error:
        raise InputError(
            "the autoencoder cannot be loaded",
            where=str(home),
            found=str(error).splitlines()[0],
            expected="safetensors weights that fit the config.json beside them",
            fix="copy the folder again; weights in pickle form (.bin) are not read (docs/safety.md: how to "
            "convert them)",
        ) from error
    return vae.eval()


def shuffle_factor(vae: Any) -> int:
    """Return by how much pixels are unshuffled into channels: 4 if it takes 48 channels."""
    return round((vae.config.in_channels / 3) ** 0.5)


def to_network(vae: Any, images: NDArray[np.float32] | Tensor) -> Tensor:
    """Bring pictures (n, height, width, 3), 0..1, into the form the network takes, -1..1.

    Returns
    -------
    Tensor, float32, (n, 3 k^2, height / k, width / k) where the network takes 3 k^2 channels
    """
    import torch
    from torch.nn.functional import pixel_unshuffle

    tensor = torch.as_tensor(images, dtype=torch.float32)
    return pixel_unshuffle(tensor.movedim(-1, 1) * 2 - 1, shuffle_factor(vae))


def standardise(vae: Any, latents: Tensor) -> Tensor:
    """Bring latents to mean 0 and variance 1 with the numbers in the autoencoder's own config."""
    mean, scale = _statistics(vae, latents)
    return (latents - mean) * scale


def unstandardise(vae: Any, latents: Tensor) -> Tensor:
    """Undo `standardise`."""
    mean, scale = _statistics(vae, latents)
    return latents / scale + mean


def encode(
    vae: Any, images: NDArray[np.float32], *, device: str = "cpu", batch: int = 64
) -> NDArray[np.float32]:
    """Encode pictures as standardised latents (the mean of the posterior).

    Parameters
    ----------
    vae : diffusers autoencoder
    images : ndarray of float32, (n, height, width, 3)
        Values 0..1; height and width must suit the network.
    device : str
    batch : int
        Pictures at once.

    Returns
    -------
    ndarray of float32, (n, channels, height / f, width / f)
    """
    import torch

    vae.to(device)
    parts = []
    with torch.inference_mode():
        for start in range(0, len(images), batch):
            inputs = to_network(vae, images[start : start + batch]).to(device, vae.dtype)
            encoded = vae.encode(inputs)
            latents = encoded.latent_dist.mean if "latent_dist" in encoded else encoded.latents
            parts.append(standardise(vae, latents.float()).cpu().numpy())
    return np.concatenate(parts)


def decode(
    vae: Any, latents: NDArray[np.float32], *, device: str = "cpu", batch: int = 64
) -> NDArray[np.float32]:
    """Decode standardised latents into pictures.

    Parameters
    ----------
    vae : diffusers autoencoder
    latents : ndarray of float32, (n, channels, height / f, width / f)
    device : str
    batch : int
        Pictures at once.

    Returns
    -------
    ndarray of float32, (n, height, width, 3), values 0..1
    """
    import torch
    from torch.nn.functional import pixel_shuffle

    vae.to(device)
    parts = []
    with torch.inference_mode():
        for start in range(0, len(latents), batch):
            part = torch.as_tensor(latents[start : start + batch], dtype=torch.float32)
            part = unstandardise(vae, part.to(device)).to(vae.dtype)
            pictures = pixel_shuffle(vae.decode(part).sample.float(), shuffle_factor(vae))
            parts.append((pictures / 2 + 0.5).clamp(0, 1).movedim(1, -1).cpu().numpy())
    return np.concatenate(parts)


def _statistics(vae: Any, like: Tensor) -> tuple[Tensor, Tensor]:
    """Return the latents' mean and the factor to variance 1, each (1, c, 1, 1)."""
    import torch

    config = vae.config
    scaling = float(config.get("scaling_factor") or 1.0)
    mean, std = config.get("latents_mean"), config.get("latents_std")
    if mean is not None and std is not None:
        centre = torch.tensor(mean, dtype=torch.float32, device=like.device)
        spread = torch.tensor(std, dtype=torch.float32, device=like.device)
        return centre.reshape(1, -1, 1, 1), scaling / spread.reshape(1, -1, 1, 1)
    shift = torch.full((1, 1, 1, 1), float(config.get("shift_factor") or 0.0), device=like.device)
    return shift, torch.full((1, 1, 1, 1), scaling, device=like.device)
