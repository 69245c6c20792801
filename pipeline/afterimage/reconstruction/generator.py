"""What the large generators share: a diffusers folder, a start, a condition, candidates, memory.

The start is the low-level picture, noised part of the way (SDEdit, Meng et al. 2022,
arXiv:2108.01073), as in Brain-Diffuser (doi:10.1038/s41598-023-42891-8) and MindEye
(arXiv:2305.18274).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from afterimage.errors import ConfigError, InputError
from afterimage.networks.autoencoder import decode, load_autoencoder
from afterimage.reconstruction.candidates import paint_and_choose
from afterimage.reconstruction.pipeline_folder import Part, check_pipeline, choose_placement
from afterimage.reconstruction.registry import Material, Result
from afterimage.resources import model_folder
from afterimage.settings import Settings

if TYPE_CHECKING:
    from torch import Generator as Noise
    from torch import Tensor

#: The mean colour of CLIP's pictures: zero after its processor, hence without any condition.
NO_PICTURE = np.tile(np.array([123, 117, 104], np.uint8), (224, 224, 1))


class GeneratorSettings(Settings):
    """Settings that all pipelines have."""

    pipeline: str = Field(description="local folder of the diffusers pipeline")
    embedding: str = Field(default="clip", description="the block that guides the generator")
    latents: str = Field(
        default="vae", description="the block of latents whose picture is the start; empty: none"
    )
    generator: str = Field(
        default="tiny/generator", description="folder of the autoencoder that made these latents"
    )
    strength: float = Field(
        default=0.75, ge=0, le=1, description="noise on the start: 0 keeps it, 1 ignores it"
    )
    guidance_scale: float = Field(default=5.0, ge=0, description="weight of the condition")
    n_steps: int = Field(default=30, ge=1, description="steps of the sampler at strength 1")
    n_candidates: int = Field(default=1, ge=1, description="candidates an image, one is kept")
    batch_size: int = Field(default=8, ge=1, description="images made at once; halved when short")
    size_px: int = Field(default=512, ge=16, description="square that the generator paints")
    output_px: int = Field(default=256, ge=8, description="square that is kept of it")
    memory: Literal["auto", "whole", "parts", "layers"] = Field(
        default="auto",
        description="weights on the device: all, one part at a time, one layer at a time (slow), "
        "or the first of these that fits",
    )
    variant: str = Field(default="", description="fp16 where files are named *.fp16.safetensors")


class Generator(ABC):
    """Reconstruct pictures with a diffusers pipeline under predicted image features.

    Parameters
    ----------
    settings : GeneratorSettings
    device : str
        ``cpu`` (float32) or ``cuda`` (bfloat16).
    """

    #: Pipelines whose folders are taken, and the parts that are loaded of them.
    classes: ClassVar[tuple[str, ...]]
    parts: ClassVar[tuple[str, ...]]
    #: Attention can be computed in slices; not where an adapter has its own.
    slices_attention: ClassVar[bool] = True

    def __init__(self, settings: Any, device: str = "cpu") -> None:
        self._settings, self._device = settings, device
        self._folder = model_folder(settings.pipeline)
        sizes = check_pipeline(self._folder, self.classes, self.parts, settings.variant)
        self._placement = choose_placement(
            sizes | self._extra_parts(), 4 if device == "cpu" else 2, settings.memory, device,
            str(self._folder),
        )  # fmt: skip
        self._vae: Any = None
        if settings.latents:
            self._vae = load_autoencoder(model_folder(settings.generator))
        self._pipeline: Any = None

    def reconstruct(
        self, predicted: Mapping[str, NDArray[np.float32]], material: Material
    ) -> Result:
        """Make one picture for each row of the predicted features; see `paint_and_choose`."""
        settings = self._settings
        embedding = self._embedding(predicted, material)
        latents = self._latents(predicted, material)
        n_steps = int(settings.n_steps * settings.strength)
        if n_steps and self._pipeline is None:
            self._pipeline = self._load()
        nothing = self._unconditional(material) if n_steps else None

        def paint(rows: NDArray[np.int64], seeds: list[int]) -> NDArray[np.uint8]:
            import torch

            start = self._start(None if latents is None else latents[rows])
            if not n_steps:
                return _square(start, settings.output_px)
            condition = torch.from_numpy(embedding[rows]).to(self._device, self.dtype)
            noise = [torch.Generator().manual_seed(seed) for seed in seeds]
            with torch.inference_mode():
                made = self._paint(
                    condition, nothing, torch.from_numpy(start).movedim(-1, 1), noise
                )
            return _square(np.asarray(made, np.float32), settings.output_px)

        return paint_and_choose(
            paint, embedding.reshape(len(embedding), -1), settings.embedding, material,
            settings.n_candidates, settings.batch_size,
        )  # fmt: skip

    @property
    def dtype(self) -> Any:
        """Type of the weights on this device."""
        import torch

        return torch.float32 if self._device == "cpu" else torch.bfloat16

    @abstractmethod
    def _condition_shape(self) -> tuple[int | None, ...]:
        """Shape of one embedding that the pipeline takes; None where any size will do."""

    @abstractmethod
    def _load(self) -> Any:
        """Load the pipeline, in its place; see `_place`."""

    @abstractmethod
    def _paint(
        self, condition: Tensor, nothing: Tensor | None, start: Tensor, noise: list[Noise]
    ) -> NDArray[np.float32]:
        """Paint pictures, (m, h, w, 3) from 0 to 1.

        Parameters
        ----------
        condition : (m, *shape)
            Predicted embeddings.
        nothing : (1, *shape) or None
            Embedding that stands for no picture.
        start : float32, (m, 3, size_px, size_px), 0 to 1
            Grey where there is none, and the strength is 1.
        noise : list of torch.Generator
            One a picture.
        """

    def _extra_parts(self) -> dict[str, Part]:
        """Weights outside the pipeline's folder."""
        return {}

    def _unconditional(self, material: Material) -> Tensor | None:
        """Embedding of no picture, (1, *shape); none is needed unless a method says so."""
        return None

    def _embedding_of_nothing(self, material: Material) -> Tensor:
        """Embed the mean colour with the encoder of the block, (1, *shape)."""
        import torch

        values = material.embed[self._settings.embedding]([NO_PICTURE])
        shaped = np.asarray(values, np.float32).reshape(1, *self._shape(material))
        return torch.from_numpy(shaped).to(self._device, self.dtype)

    def _place(self, pipeline: Any) -> Any:
        """Bring a pipeline to the device, as far as the memory allows."""
        pipeline.set_progress_bar_config(disable=True)
        if self._placement == "whole":
            return pipeline.to(self._device)
        vae = getattr(pipeline, "vae", None)
        for saving in ("enable_slicing", "enable_tiling"):
            if hasattr(vae, saving):
                getattr(vae, saving)()
        if self.slices_attention:
            pipeline.enable_attention_slicing()
        if self._placement == "parts":
            pipeline.enable_model_cpu_offload(device=self._device)
        else:
            pipeline.enable_sequential_cpu_offload(device=self._device)
        return pipeline

    def _read(self, kind: Any, folder: Any = None, **parts: Any) -> Any:
        """Load a pipeline or a model from a folder: local files and safetensors only."""
        from diffusers.utils import logging

        logging.disable_progress_bar()
        folder = folder or self._folder
        variant = {"variant": self._settings.variant} if self._settings.variant else {}
        try:
            return kind.from_pretrained(
                folder,
                local_files_only=True,
                use_safetensors=True,
                dtype=self.dtype,
                **variant,
                **parts,
            )
        except (OSError, ValueError, RuntimeError, KeyError) as error:
            raise InputError(
                "the generator cannot be loaded",
                where=str(folder),
                found=str(error).splitlines()[0] if str(error) else type(error).__name__,
                expected=f"weights that fit the configuration beside them ({kind.__name__})",
                fix="copy the folder again; weights in pickle form (.bin) are not read "
                "(docs/safety.md: how to "
                "convert them)",
            ) from error

    def _shape(self, material: Material) -> tuple[int, ...]:
        return tuple(material.shapes[self._settings.embedding])

    def _embedding(
        self, predicted: Mapping[str, NDArray[np.float32]], material: Material
    ) -> NDArray[np.float32]:
        """Return the predicted embeddings in the shape that the pipeline takes, (n, *shape)."""
        block, expected = self._settings.embedding, self._condition_shape()
        self._require(block, predicted, material)
        shape = self._shape(material)
        if len(shape) != len(expected) or any(
            b not in (None, a) for a, b in zip(shape, expected, strict=True)
        ):
            raise ConfigError(
                "the generator does not take this image embedding",
                where=self._settings.pipeline,
                found=f"shape {shape} of block {block!r}",
                expected="(" + ", ".join("any" if n is None else str(n) for n in expected) + ")",
                fix="use the image encoder that this generator was trained with: its preset names it",
            )
        return np.asarray(predicted[block], np.float32).reshape(-1, *shape)

    def _latents(
        self, predicted: Mapping[str, NDArray[np.float32]], material: Material
    ) -> NDArray[np.float32] | None:
        block = self._settings.latents
        if not block:
            if self._settings.strength < 1:
                raise ConfigError(
                    "a generator has nothing to start from",
                    found=f"latents: '' and strength: {self._settings.strength:g}",
                    expected="a block of latents, or strength: 1",
                )
            return None
        self._require(block, predicted, material)
        shape, channels = material.shapes[block], self._vae.config.latent_channels
        if len(shape) != 3 or shape[0] != channels:
            raise ConfigError(
                "the latents are not of this autoencoder",
                where=self._settings.generator,
                found=f"shape {tuple(shape)} of block {block!r}",
                expected=f"({channels}, height, width)",
                fix="set generator to the folder that the block of latents was made with",
            )
        return np.asarray(predicted[block], np.float32).reshape(-1, *shape)

    def _require(self, block: str, predicted: Mapping[str, Any], material: Material) -> None:
        if block not in predicted or block not in material.shapes:
            raise ConfigError(
                "a generator needs a feature block that was not decoded",
                found=", ".join(sorted(predicted)),
                expected=block,
                fix="add the block to the features, or name another one in the settings",
            )

    def _start(self, latents: NDArray[np.float32] | None) -> NDArray[np.float32]:
        """Return the low-level pictures at the generator's size, (m, size, size, 3)."""
        size = self._settings.size_px
        if latents is None:
            return np.full((1, size, size, 3), 0.5, np.float32)
        pictures = decode(self._vae, latents, device=self._device, batch=len(latents))
        return _square(pictures, size).astype(np.float32) / np.float32(255)


def _square(pictures: NDArray[np.float32], size_px: int) -> NDArray[np.uint8]:
    """Resize pictures of values 0 to 1 to squares: uint8 (n, size_px, size_px, 3)."""
    from PIL import Image

    levels = np.rint(np.clip(pictures, 0, 1) * 255).astype(np.uint8)
    if levels.shape[1:3] == (size_px, size_px):
        return levels
    resized = [
        np.asarray(Image.fromarray(one).resize((size_px, size_px), Image.Resampling.BICUBIC))
        for one in levels
    ]
    return np.stack(resized)
