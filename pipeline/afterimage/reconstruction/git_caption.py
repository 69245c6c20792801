"""Captions from decoded image tokens (Brain Captioning, Ferrante et al. 2023, arXiv:2305.11560).

The text decoder of GIT (Wang et al. 2022, arXiv:2205.14100) writes what it reads from predicted
tokens instead of a picture's.

What differs: ridge shrinks its predictions, while every token the text decoder has ever read left a
layer norm. Each predicted token can therefore be put back to the mean and the spread that the layer
norm gives, before its own weights.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from afterimage.errors import ConfigError
from afterimage.networks.git import load_git, texts_from_tokens
from afterimage.resources import model_folder

Rescale = Literal["layer_norm", "none"]


class GitCaptioner:
    """Write captions from image tokens.

    Parameters
    ----------
    path : str
        Folder of the GIT model whose tokens were predicted.
    device : str
        ``cpu`` or ``cuda``.
    """

    def __init__(self, path: str, device: str = "cpu") -> None:
        from transformers import AutoTokenizer

        folder = model_folder(path)
        self._model = load_git(folder).to(device)
        try:
            self._tokenizer = AutoTokenizer.from_pretrained(
                folder, local_files_only=True, trust_remote_code=False
            )
        except (OSError, ValueError) as error:
            raise ConfigError(
                "a captioner has no tokenizer",
                where=str(folder),
                found=str(error).splitlines()[0],
                expected="tokenizer.json and tokenizer_config.json beside the weights",
                fix="copy the folder again",
            ) from None

    def caption(
        self,
        tokens: np.ndarray,
        *,
        rescale: Rescale = "layer_norm",
        n_beams: int = 1,
        max_words: int = 24,
        batch_size: int = 64,
    ) -> tuple[list[str], np.ndarray]:
        """Write one caption a row.

        Parameters
        ----------
        tokens : ndarray, (n, n_tokens, n_features)
        rescale : {"layer_norm", "none"}
            Whether tokens are put back to what the layer norm before the text decoder gives.
        n_beams, max_words, batch_size : int
            As in `texts_from_tokens`.

        Returns
        -------
        captions : list of str
        log_probability : ndarray of float64, (n,)
            Mean over the words of the caption.
        """
        width = self._model.config.hidden_size
        if tokens.ndim != 3 or tokens.shape[2] != width:
            raise ConfigError(
                "the captioner does not read these tokens",
                found=f"shape {tokens.shape[1:]} a picture",
                expected=f"(n_tokens, {width})",
                fix="decode the block of kind git that was made with this captioner",
            )
        if rescale == "layer_norm":
            norm = self._model.git.visual_projection.visual_projection[1]
            weight, bias = (p.float().cpu().numpy() for p in (norm.weight, norm.bias))
            tokens = layer_norm_again(tokens, weight, bias)
        return texts_from_tokens(
            self._model,
            self._tokenizer,
            tokens,
            n_beams=n_beams,
            max_words=max_words,
            batch_size=batch_size,
        )


def layer_norm_again(tokens: np.ndarray, weight: np.ndarray, bias: np.ndarray) -> np.ndarray:
    """Give tokens the mean and spread of a layer norm's output, before its weight and bias.

    With z = (t - bias) / weight, a token that left the layer norm has mean(z) = 0 and var(z) = 1 over
    its features. Returned is weight (z - mean(z)) / std(z) + bias: true tokens stay as they are,
    shrunken ones get their length back.

    Parameters
    ----------
    tokens : ndarray, (n, n_tokens, n_features)
    weight, bias : ndarray, (n_features,)
        Of the layer norm. Features of weight 0 stay at the bias.

    Returns
    -------
    ndarray of float32, (n, n_tokens, n_features)
    """
    used = weight != 0
    z = np.zeros(tokens.shape, np.float64)
    z[..., used] = (tokens[..., used] - bias[used]) / weight[used]
    kept = z[..., used]
    spread = kept.std(-1, keepdims=True)
    z[..., used] = (kept - kept.mean(-1, keepdims=True)) / np.where(spread > 0, spread, 1)
    return (weight * z + bias).astype(np.float32)
