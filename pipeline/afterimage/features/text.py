"""Captions as features, by any local transformers CLIP text folder.

Learning Transferable Visual Models From Natural Language Supervision (Radford et al. 2021,
arXiv:2103.00020). The tokens are those that Versatile Diffusion (Xu et al. 2023, arXiv:2211.08332),
and with it Brain-Diffuser (doi:10.1038/s41598-023-42891-8), takes: every one normalised and
projected as the last one is, all divided by the norm of the pooled embedding (``normalise: pooled``).

What differs: one caption a picture, from a column of the table of stimuli.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
from pydantic import Field

from afterimage.errors import ConfigError
from afterimage.features.registry import ENCODERS
from afterimage.resources import model_folder
from afterimage.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Sequence


class TextSettings(Settings):
    """A text encoder in transformers' on-disk form."""

    kind: Literal["text"] = "text"
    path: str = Field("tiny/clip", description="local folder of a transformers CLIP model")
    output: Literal["embedding", "tokens"] = Field(
        "embedding", description="one vector a caption, or all tokens (77 of CLIP), padded"
    )
    layer: Literal["projection", "last"] = Field(
        "projection", description="output tokens: projected as the embedding is, or as they are"
    )
    normalise: Literal["none", "unit", "pooled"] = Field(
        "none",
        description="leave feature vectors as they are, scale every one to unit norm, or divide "
        "all tokens by the norm of the caption's embedding (as Versatile Diffusion does)",
    )
    column: str = Field("caption", description="column of stimuli.tsv that holds the captions")
    batch_size: int = Field(64, ge=1, description="captions a forward pass")


@ENCODERS.register("text", TextSettings)
class Text:
    """Embed captions with the text tower of a CLIP model.

    Parameters
    ----------
    settings : TextSettings
    device : str
        ``cpu`` or ``cuda``.
    """

    #: It takes the texts of a column instead of pictures.
    reads_text: ClassVar[bool] = True

    def __init__(self, settings: TextSettings, device: str = "cpu") -> None:
        import torch
        from safetensors import SafetensorError
        from transformers import AutoConfig, AutoTokenizer, CLIPTextModelWithProjection

        folder = model_folder(settings.path)
        try:
            kind = AutoConfig.from_pretrained(
                folder, local_files_only=True, trust_remote_code=False
            ).model_type
            if kind not in ("clip", "clip_text_model"):
                raise ValueError(f"a model of the kind {kind}")
            model = CLIPTextModelWithProjection.from_pretrained(
                folder, local_files_only=True, use_safetensors=True, dtype=torch.float32
            )
            self._tokenizer = AutoTokenizer.from_pretrained(
                folder, local_files_only=True, trust_remote_code=False
            )
        except (OSError, ValueError, RuntimeError, SafetensorError) as error:
            raise ConfigError(
                "a text encoder cannot be loaded",
                where=str(folder),
                found=str(error).splitlines()[0],
                expected="config.json, model.safetensors and the tokenizer of a CLIP model",
                fix="copy the folder again, or save model and tokenizer with "
                "save_pretrained(folder); weights in pickle form (.bin) are not read (docs/safety.md: how to "
                "convert them)",
            ) from None
        self._model = model.eval().requires_grad_(False).to(device)
        self._settings, self._device = settings, device

    def encode(self, captions: Sequence[str]) -> np.ndarray:
        """Embed captions.

        Parameters
        ----------
        captions : sequence of str
            Longer ones than the model takes are cut.

        Returns
        -------
        array of shape (n_captions, n_features) or (n_captions, n_tokens, n_features), float32
        """
        import torch

        settings, batches = self._settings, []
        for start in range(0, len(captions), settings.batch_size):
            tokens = self._tokenizer(
                list(captions[start : start + settings.batch_size]),
                padding="max_length",
                max_length=self._model.config.max_position_embeddings,
                truncation=True,
                return_tensors="pt",
            )
            ids = tokens["input_ids"].to(self._device)
            mask = tokens["attention_mask"].to(self._device)
            with torch.inference_mode():
                output = self._model(input_ids=ids, attention_mask=mask)
                values = pooled = output.text_embeds
                if settings.output == "tokens":
                    values = output.last_hidden_state  # the model normalises them itself
                    if settings.layer == "projection":
                        values = self._model.text_projection(values)
                    pooled = pooled[:, None]
                if settings.normalise != "none":
                    by = pooled if settings.normalise == "pooled" else values
                    norm = by.norm(dim=-1, keepdim=True)
                    values = values / norm.clamp_min(torch.finfo(torch.float32).tiny)
            batches.append(values.float().cpu().numpy())
        return np.concatenate(batches)
