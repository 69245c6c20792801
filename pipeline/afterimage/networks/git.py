"""GIT, the captioner of transformers, from a local folder: its image tokens, and text from tokens.

GIT: A Generative Image-to-text Transformer for Vision and Language (Wang et al. 2022,
arXiv:2205.14100).
"""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np

from afterimage.errors import ConfigError, InputError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor


def load_git(folder: str | Path) -> Any:
    """Load the whole captioner: image encoder, projection and text decoder.

    Parameters
    ----------
    folder : str or Path
        ``config.json`` of model type ``git`` and safetensors weights.

    Returns
    -------
    transformers.GitForCausalLM
        On the CPU, in float32, in evaluation mode.
    """
    import torch
    from safetensors import SafetensorError
    from transformers import AutoConfig, GitForCausalLM

    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        if config.model_type != "git":
            raise ConfigError(
                "this folder holds no GIT captioner", where=str(folder),
                found=f"a model of type {config.model_type}", expected="model_type: git",
                fix="give the folder of a GIT model, such as git-base-coco, or tiny/git",
            )  # fmt: skip
        model, report = GitForCausalLM.from_pretrained(
            folder,
            config=config,
            local_files_only=True,
            use_safetensors=True,
            dtype=torch.float32,
            output_loading_info=True,
        )
    except (OSError, ValueError, SafetensorError) as error:
        raise InputError(
            "a captioner cannot be loaded",
            where=str(folder),
            found=str(error).splitlines()[0],
            expected="config.json and model.safetensors of a GIT model",
            fix="copy the folder again; weights in pickle form (.bin) are not read (docs/safety.md: how to "
            "convert them)",
        ) from error
    # transformers would draw missing weights at random and go on.
    if missing := sorted(report["missing_keys"]):
        raise InputError(
            "a captioner lacks weights", where=str(folder),
            found=f"{len(missing)} missing, the first {missing[0]}",
            expected="all weights of its config.json", fix="copy the folder again",
        )  # fmt: skip
    return model.eval().requires_grad_(False)


def image_tokens(model: Any, pixels: Tensor) -> Tensor:
    """Return what the text decoder reads of pictures: tokens after projection and layer norm.

    Parameters
    ----------
    model : transformers.GitForCausalLM
    pixels : Tensor, (n, 3, height, width)
        As the folder's image processor makes them.

    Returns
    -------
    Tensor, (n, 1 + n_patches, hidden_size)
        The class token, then the patches row by row.
    """
    tokens: Tensor = model.git.visual_projection(
        model.git.image_encoder(pixel_values=pixels).last_hidden_state
    )
    return tokens


def pool_tokens(tokens: np.ndarray, side: int) -> np.ndarray:
    """Average squares of neighbouring patch tokens; the class token stays.

    The text decoder knows nothing of places (they are inside the tokens), so it reads fewer.

    Parameters
    ----------
    tokens : ndarray, (n, 1 + g * g, n_features)
    side : int
        Of the square, in patches; must divide g. 1 keeps all.

    Returns
    -------
    ndarray, (n, 1 + (g / side)^2, n_features)
    """
    if side == 1:
        return tokens
    n, n_tokens, n_features = tokens.shape
    grid = round((n_tokens - 1) ** 0.5)
    if grid * grid != n_tokens - 1 or grid % side:
        raise ConfigError(
            "image tokens cannot be averaged over such squares",
            found=f"pool: {side} of {n_tokens - 1} patches",
            expected=f"a divisor of {grid}",
        )
    cells = tokens[:, 1:].reshape(n, grid // side, side, grid // side, side, n_features)
    return np.concatenate([tokens[:, :1], cells.mean((2, 4)).reshape(n, -1, n_features)], axis=1)


def texts_from_tokens(
    model: Any,
    tokenizer: Any,
    tokens: np.ndarray,
    *,
    n_beams: int = 1,
    max_words: int = 24,
    batch_size: int = 64,
) -> tuple[list[str], np.ndarray]:
    """Let the text decoder write a caption from image tokens alone; the same bytes every time.

    Parameters
    ----------
    model : transformers.GitForCausalLM
    tokenizer : transformers tokenizer
    tokens : ndarray, (n, n_tokens, hidden_size)
    n_beams : int
        1 takes the likeliest word each time; more searches that many beams.
    max_words : int
        Longest caption, in tokens of the tokenizer.
    batch_size : int

    Returns
    -------
    captions : list of str
    log_probability : ndarray of float64, (n,)
        Mean over the caption's words, the end among them, of log p(word | image tokens, words before).
    """
    import torch

    captions: list[str] = []
    scores = []
    bos, eos = model.generation_config.bos_token_id, model.generation_config.eos_token_id
    for start in range(0, len(tokens), batch_size):
        batch = torch.as_tensor(np.ascontiguousarray(tokens[start : start + batch_size]))
        with torch.inference_mode(), _reading(model, batch.shape[1]):
            output = model.generate(
                input_ids=torch.full((len(batch), 1), bos, device=model.device),
                pixel_values=batch.to(model.device, model.dtype)[
                    :, None
                ],  # (n, 1, tokens, hidden)
                do_sample=False,
                num_beams=n_beams,
                max_new_tokens=max_words,
                output_scores=True,
                return_dict_in_generate=True,
            )
            steps = model.compute_transition_scores(
                output.sequences, output.scores,
                getattr(output, "beam_indices", None), normalize_logits=True,
            )  # fmt: skip
        words = output.sequences[:, 1:].cpu()  # (n, n_words), padded after the end
        ended = (words == eos).cumsum(1)
        spoken = (ended == 0) | ((ended == 1) & (words == eos))
        total = torch.where(spoken, steps.cpu().double(), 0.0).sum(1)
        scores.append((total / spoken.sum(1).clamp(min=1)).numpy())
        captions += tokenizer.batch_decode(output.sequences, skip_special_tokens=True)
    return [" ".join(text.split()) for text in captions], np.concatenate([np.zeros(0), *scores])


@contextmanager
def _reading(model: Any, n_tokens: int) -> Iterator[None]:
    """While open, the model takes image tokens where it takes pictures otherwise."""
    git = model.git
    attention = [layer.attention.self for layer in git.encoder.layer]
    before = [one.image_patch_tokens for one in attention]
    try:
        # An attribute of the instance hides the method of the class until it is deleted again.
        git.image_encoder.forward = lambda pixel_values, **_: SimpleNamespace(
            last_hidden_state=pixel_values[:, 0]
        )
        git.visual_projection.forward = lambda tokens: tokens
        for one in attention:  # how many tokens the mask of later words spans
            one.image_patch_tokens = n_tokens
        yield
    finally:
        del git.image_encoder.forward, git.visual_projection.forward
        for one, number in zip(attention, before, strict=True):
            one.image_patch_tokens = number
