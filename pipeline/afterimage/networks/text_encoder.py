"""Texts to vectors, with any transformers text folder: CLIP's text side, or a sentence encoder.

Learning Transferable Visual Models From Natural Language Supervision (Radford et al. 2021,
arXiv:2103.00020); Sentence-BERT (Reimers & Gurevych 2019, arXiv:1908.10084).
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from afterimage.errors import ConfigError, InputError

if TYPE_CHECKING:
    from collections.abc import Sequence


class TextEncoder:
    """Embed texts: projected text features of CLIP, else the mean over tokens.

    Parameters
    ----------
    folder : str or Path
        Tokenizer, ``config.json`` and safetensors weights.
    device : str
        ``cpu`` or ``cuda``.
    """

    def __init__(self, folder: str | Path, device: str = "cpu") -> None:
        import torch
        from safetensors import SafetensorError
        from transformers import AutoConfig, AutoModel, AutoTokenizer, CLIPTextModelWithProjection

        try:
            kind = AutoConfig.from_pretrained(
                folder, local_files_only=True, trust_remote_code=False
            ).model_type
            self._clip = kind in ("clip", "clip_text_model")
            loader: Any = CLIPTextModelWithProjection if self._clip else AutoModel
            model, report = loader.from_pretrained(
                folder, local_files_only=True, trust_remote_code=False, use_safetensors=True,
                dtype=torch.float32, output_loading_info=True,
            )  # fmt: skip
            self._tokenizer = AutoTokenizer.from_pretrained(
                folder, local_files_only=True, trust_remote_code=False
            )
        except (OSError, ValueError, SafetensorError) as error:
            raise ConfigError(
                "a text encoder cannot be loaded",
                where=str(folder),
                found=str(error).splitlines()[0],
                expected="config.json, model.safetensors and a tokenizer",
                fix="save the model and its tokenizer with save_pretrained(folder); "
                "weights in pickle form (.bin) are not read "
                "(docs/safety.md: how to convert them)",
            ) from None
        # A pooler is not used here, and many folders of sentence encoders lack its weights.
        if missing := sorted(key for key in report["missing_keys"] if "pooler" not in key):
            raise InputError(
                "a text encoder lacks weights", where=str(folder),
                found=f"{len(missing)} missing, the first {missing[0]}",
                expected="all weights of its config.json", fix="copy the folder again",
            )  # fmt: skip
        self._model = model.eval().requires_grad_(False).to(device)
        self._device = device

    def embed(self, texts: Sequence[str], batch_size: int = 64) -> np.ndarray:
        """Return one vector of unit length a text: float32, (n, n_features)."""
        import torch

        different = {text: row for row, text in enumerate(dict.fromkeys(texts))}
        unique, parts = list(different), []
        for start in range(0, len(unique), batch_size):
            tokens = self._tokenizer(
                unique[start : start + batch_size],
                padding=True, truncation=True, return_tensors="pt",
            ).to(self._device)  # fmt: skip
            with torch.inference_mode():
                output = self._model(
                    input_ids=tokens["input_ids"], attention_mask=tokens["attention_mask"]
                )
            if self._clip:
                vectors = output.text_embeds
            else:
                mask = tokens["attention_mask"][..., None]  # (n, n_tokens, 1)
                vectors = (output.last_hidden_state * mask).sum(1) / mask.sum(1)
            parts.append(torch.nn.functional.normalize(vectors.float(), dim=-1).cpu().numpy())
        rows = [different[text] for text in texts]
        return np.concatenate(parts)[rows] if parts else np.zeros((0, 1), np.float32)
