"""Train the small weights of the project from nothing: encoder, captioner, generator.

    python data/tiny/train.py --out data/tiny

Every picture is drawn by `afterimage.simulate.stimuli` or made of noise and strokes here; nothing
is downloaded. The parts can be run apart (``--parts``): the generator needs the autoencoder and the
image-text encoder in ``--out``.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from afterimage.networks.autoencoder import encode, load_autoencoder
from afterimage.simulate.stimuli import (
    BACKGROUNDS,
    CATEGORIES,
    COLOURS,
    POSITIONS,
    SIZE_RANGES,
    TEXTURES,
    draw_stimuli,
)
from afterimage.training.generative import fit_autoencoder, fit_denoiser, new_scheduler
from afterimage.training.loop import Batch, LoopSettings, train
from afterimage.training.objectives import contrastive_loss

SIZE_PX = 64
EMBEDDING_SIZE = 128
SPECIAL = {  # in the order of their ids, 0 to 3
    "pad_token": "[PAD]",
    "bos_token": "[BOS]",
    "unk_token": "[UNK]",
    "eos_token": "[EOS]",
}
NAMES: dict[str, tuple[str, ...]] = {
    "category": CATEGORIES,
    "colour": tuple(COLOURS),
    "texture": TEXTURES,
    "background": tuple(BACKGROUNDS),
    "position": tuple(POSITIONS.values()),
    "size_name": tuple(SIZE_RANGES),
}
Report = Callable[[int, float], None]


# ---- pictures of other kinds, so that the autoencoder also keeps digits and photographs ---------


def noise_fields(n: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """Draw coloured noise with power 1/f^(2..5), the spectrum of photographs and of blur."""
    frequency = np.hypot(np.fft.fftfreq(SIZE_PX)[:, None], np.fft.rfftfreq(SIZE_PX)[None, :])
    frequency[0, 0] = np.inf
    slope = rng.uniform(1.2, 2.5, (n, 1, 1, 1))
    fields = np.fft.irfft2(
        np.fft.rfft2(rng.standard_normal((n, 3, SIZE_PX, SIZE_PX))) * frequency**-slope
    )
    fields /= fields.std((2, 3), keepdims=True)
    common = rng.uniform(0, 1, (n, 1, 1, 1)) ** 0.5
    fields = common * fields[:, :1] + np.sqrt(1 - common**2) * fields
    contrast, mean = rng.uniform(0.05, 0.27, (n, 1, 1, 1)), rng.uniform(0.2, 0.8, (n, 3, 1, 1))
    return np.clip(mean + contrast * fields, 0, 1).transpose(0, 2, 3, 1).astype(np.float32)


def overlapping_shapes(n: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """Draw fields covered by ellipses and bars of every size, with edges like a photograph's."""
    pictures = noise_fields(n, rng)
    fine = noise_fields(n, rng) - 0.5
    y, x = np.mgrid[:SIZE_PX, :SIZE_PX].astype(np.float32)
    for picture in pictures:
        for _ in range(rng.integers(5, 50)):
            angle, size = rng.uniform(0, np.pi), 2 + 20 * rng.random() ** 2
            dx, dy = x - rng.uniform(0, SIZE_PX), y - rng.uniform(0, SIZE_PX)
            a = (dx * np.cos(angle) + dy * np.sin(angle)) / size
            b = (dy * np.cos(angle) - dx * np.sin(angle)) / (size * rng.uniform(0.1, 1))
            inside = np.maximum(abs(a), abs(b)) < 1 if rng.random() < 0.4 else a * a + b * b < 1
            picture[inside] = np.clip(rng.normal(0.45, 0.15) + rng.normal(0, 0.15, 3), 0, 1)
    return np.clip(pictures + rng.uniform(0, 0.6, (n, 1, 1, 1)) * fine, 0, 1).astype(np.float32)


def strokes(n: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """Draw one to three curved strokes, light on dark, dark on light or coloured."""
    y, x = np.mgrid[:SIZE_PX, :SIZE_PX].astype(np.float32)
    t = np.linspace(0, 1, 48)[:, None]
    pictures = np.empty((n, SIZE_PX, SIZE_PX, 3), np.float32)
    for picture in pictures:
        distance = np.full((SIZE_PX, SIZE_PX), np.inf, np.float32)
        for _ in range(rng.integers(1, 4)):
            p = rng.uniform(6, SIZE_PX - 6, (4, 2))
            curve = (1 - t) ** 3 * p[0] + 3 * t * (1 - t) ** 2 * p[1]
            curve = curve + 3 * t**2 * (1 - t) * p[2] + t**3 * p[3]
            for cx, cy in curve:
                distance = np.minimum(distance, (x - cx) ** 2 + (y - cy) ** 2)
        ink = np.clip(rng.uniform(1.5, 5) - np.sqrt(distance) + 0.5, 0, 1)[..., None]
        paper, colour = rng.random(3), rng.random(3)
        if rng.random() < 0.6:
            paper, colour = np.zeros(3), np.ones(3)
        if rng.random() < 0.2:
            paper, colour = colour, paper
        picture[:] = paper * (1 - ink) + colour * ink
    return pictures


def altered(drawn: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
    """Invert, grey, mix, crop or blur drawn pictures: one of the five each."""
    pictures = drawn.copy()
    kind = rng.integers(0, 5, len(drawn))
    pictures[kind == 0] = 1 - pictures[kind == 0]
    pictures[kind == 1] = pictures[kind == 1].mean(-1, keepdims=True)
    others = drawn[rng.permutation(len(drawn))]
    share = rng.uniform(0.2, 0.8, (len(drawn), 1, 1, 1))
    pictures[kind == 2] = (share * drawn + (1 - share) * others)[kind == 2]
    for i in np.flatnonzero(kind == 3):
        side = rng.integers(SIZE_PX // 3, SIZE_PX)
        top, left = rng.integers(0, SIZE_PX - side, 2)
        rows = top + np.arange(SIZE_PX) * side // SIZE_PX
        columns = left + np.arange(SIZE_PX) * side // SIZE_PX
        pictures[i] = drawn[i][rows[:, None], columns[None, :]]
    blurred = kind == 4
    for axis in (1, 2):
        for _ in range(4):
            shifted = np.roll(pictures[blurred], 1, axis) + np.roll(pictures[blurred], -1, axis)
            pictures[blurred] = pictures[blurred] / 2 + shifted / 4
    return pictures


def autoencoder_pictures(n: int, seed: int, drawn_share: float) -> NDArray[np.uint8]:
    """Mix drawn pictures with the other kinds, made in groups of 100 to bound memory."""
    rng = np.random.default_rng((seed, 1))
    drawn = draw_stimuli(int(n * drawn_share), seed, SIZE_PX)[0]
    others = n - len(drawn)
    parts = [drawn]
    for kind, share in ((strokes, 0.2), (noise_fields, 0.16), (overlapping_shapes, 0.4)):
        for _ in range(int(others * share) // 100):
            parts.append(np.rint(kind(100, rng) * 255).astype(np.uint8))
    for _ in range(int(others * 0.24) // 100):
        chosen = drawn[rng.integers(0, len(drawn), 100)].astype(np.float32) / 255
        parts.append(np.rint(altered(chosen, rng) * 255).astype(np.uint8))
    return np.concatenate(parts)


# ---- the image-text encoder ---------------------------------------------------------------------


def new_tokenizer(captions: list[str]) -> Any:
    """Return a word-level tokenizer of the captions' words."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    words = list(SPECIAL.values()) + sorted(
        {word for caption in captions for word in caption.lower().split()}
    )
    vocabulary = {word: i for i, word in enumerate(words)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=SPECIAL["unk_token"]))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[BOS] $A [EOS]", special_tokens=[("[BOS]", 1), ("[EOS]", 3)]
    )
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=24, **SPECIAL)


def new_clip(n_words: int, seed: int) -> Any:
    """Return an untrained CLIP for 64-pixel pictures and short captions."""
    import torch
    from transformers import CLIPConfig, CLIPModel

    torch.manual_seed(seed)
    text = {
        "vocab_size": n_words,
        "hidden_size": 96,
        "intermediate_size": 256,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "max_position_embeddings": 24,
        "pad_token_id": 0,
        "bos_token_id": 1,
        "eos_token_id": 3,
        "projection_dim": EMBEDDING_SIZE,
    }
    vision = {
        "image_size": SIZE_PX,
        "patch_size": 8,
        "hidden_size": 144,
        "intermediate_size": 432,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "projection_dim": EMBEDDING_SIZE,
    }
    return CLIPModel(
        CLIPConfig(text_config=text, vision_config=vision, projection_dim=EMBEDDING_SIZE)
    )


def clip_objective(clip: Any) -> Any:
    """Return InfoNCE plus an attribute head on the embedding that is thrown away afterwards."""
    import torch
    from torch import Tensor, nn
    from torch.nn.functional import cross_entropy, mse_loss

    class ClipObjective(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.clip = clip
            self.heads = nn.ModuleDict(
                {k: nn.Linear(EMBEDDING_SIZE, len(v)) for k, v in NAMES.items()}
            )
            self.place = nn.Linear(EMBEDDING_SIZE, 3)

        def forward(self, batch: Batch, generator: torch.Generator) -> Tensor:
            pixels = spoil(batch["pixels"], generator)
            seen = self.clip.vision_model(pixel_values=pixels).pooler_output
            read = self.clip.text_model(
                input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]
            ).pooler_output
            images = self.clip.visual_projection(seen).float()
            texts = self.clip.text_projection(read).float()
            loss = contrastive_loss(images, texts, self.clip.logit_scale)
            for key, head in self.heads.items():
                loss = loss + 0.3 * cross_entropy(head(images), batch[key])
            return loss + 3 * mse_loss(self.place(images), batch["place"])

    return ClipObjective()


def spoil(pixels: Any, generator: Any) -> Any:
    """Blur half of the pictures and add noise to all, as reconstructions are never quite clean."""
    import torch
    from torch.nn.functional import avg_pool2d

    n = len(pixels)
    blurred = avg_pool2d(pixels, 3, 1, 1, count_include_pad=False)
    chosen = (torch.rand(n, 1, 1, 1, generator=generator) < 0.5).to(pixels.device)
    noise = torch.randn(pixels.shape, generator=generator).to(pixels.device)
    level = torch.rand(n, 1, 1, 1, generator=generator).to(pixels.device) * 0.2
    return torch.where(chosen, blurred, pixels) + level * noise


def train_clip(out: Path, n_pictures: int, loop: LoopSettings, seed: int, **running: Any) -> None:
    """Train and save the image-text encoder; its embedding gets a deviation of about 1."""
    import torch
    from transformers import CLIPImageProcessor

    images, attributes, captions = draw_stimuli(n_pictures, seed + 1, SIZE_PX)
    tokenizer = new_tokenizer(captions)
    tokens = tokenizer(captions, padding=True, return_tensors="pt")
    clip = new_clip(len(tokenizer), seed)
    targets = {
        key: torch.tensor([names.index(str(name)) for name in attributes[key]])
        for key, names in NAMES.items()
    }
    place = np.stack([attributes[k].astype(np.float32) for k in ("x", "y", "size")], 1)
    targets["place"] = torch.from_numpy((place - place.mean(0)) / place.std(0))

    def pixels_of(indices: NDArray[np.int64]) -> Any:
        return torch.from_numpy(images[indices]).permute(0, 3, 1, 2).float() / 127.5 - 1

    def batch_of(indices: NDArray[np.int64], _step: int) -> Batch:
        batch = {key: target[indices] for key, target in targets.items()}
        batch["input_ids"] = tokens["input_ids"][indices]
        batch["attention_mask"] = tokens["attention_mask"][indices]
        return batch | {"pixels": pixels_of(indices)}

    train(clip_objective(clip), batch_of, n_pictures, loop, random_state=seed, **running)
    clip.to("cpu").eval()
    with torch.no_grad():
        pooled = clip.vision_model(pixels_of(np.arange(min(1024, n_pictures)))).pooler_output
        clip.visual_projection.weight /= clip.visual_projection(pooled).std(0).mean()
    clip.half().save_pretrained(out / "clip")
    tokenizer.save_pretrained(out / "clip")
    size = {"height": SIZE_PX, "width": SIZE_PX}
    CLIPImageProcessor(
        size={"shortest_edge": SIZE_PX},
        crop_size=size,
        image_mean=[0.5] * 3,
        image_std=[0.5] * 3,
    ).save_pretrained(out / "clip")


# ---- the captioner ------------------------------------------------------------------------------


def new_git(n_words: int, seed: int) -> Any:
    """Return an untrained GIT whose text decoder reads 17 image tokens of 64 values."""
    import torch
    from transformers import GitConfig, GitForCausalLM

    torch.manual_seed(seed)
    vision = {
        "image_size": SIZE_PX,
        "patch_size": 16,
        "hidden_size": 128,
        "intermediate_size": 384,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
    }
    config = GitConfig(
        vision_config=vision,
        vocab_size=n_words,
        hidden_size=64,
        intermediate_size=192,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=24,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=3,
    )
    return GitForCausalLM(config)


def git_objective(git: Any) -> Any:
    """Return the loss of the next word, and of attributes read from the mean image token.

    The text decoder reads spoilt tokens, as tokens from a brain are never clean: noise of up to one
    standard deviation, and up to half of the deviation of another picture's tokens from the mean,
    which is how the errors of a linear decoder look. The attribute heads are thrown away.
    """
    import torch
    from torch import Tensor, nn
    from torch.nn.functional import cross_entropy

    class GitObjective(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.git = git
            width = git.config.hidden_size
            self.heads = nn.ModuleDict({k: nn.Linear(width, len(v)) for k, v in NAMES.items()})

        def forward(self, batch: Batch, generator: torch.Generator) -> Tensor:
            seen: list[Tensor] = []

            def disturb(_module: Any, _inputs: Any, tokens: Tensor) -> Tensor:
                seen.append(tokens)  # (n, 17, 64)
                sizes = torch.rand(len(tokens), 2, 1, 1, generator=generator).to(tokens.device)
                noise = torch.randn(tokens.shape, generator=generator).to(tokens.device)
                others = tokens.roll(1, 0) - tokens.mean(0)
                spoilt = tokens + sizes[:, 0] * noise * tokens.detach().std()
                return spoilt + 0.5 * sizes[:, 1] * others

            hook = self.git.git.visual_projection.register_forward_hook(disturb)
            labels = batch["input_ids"].masked_fill(batch["attention_mask"] == 0, -100)
            output = self.git(
                pixel_values=spoil(batch["pixels"], generator),
                input_ids=batch["input_ids"],
                attention_mask=batch["attention_mask"],
                labels=labels,
            )
            hook.remove()
            loss: Tensor = output.loss.float()
            for key, head in self.heads.items():
                loss = loss + 0.1 * cross_entropy(head(seen[0].float().mean(1)), batch[key])
            return loss

    return GitObjective()


def train_git(out: Path, n_pictures: int, loop: LoopSettings, seed: int, **running: Any) -> None:
    """Train and save the captioner, with its own tokenizer."""
    import torch
    from transformers import CLIPImageProcessor

    images, attributes, captions = draw_stimuli(n_pictures, seed + 3, SIZE_PX)
    tokenizer = new_tokenizer(captions)
    tokens = tokenizer(captions, padding=True, return_tensors="pt")
    git = new_git(len(tokenizer), seed)
    targets = {
        key: torch.tensor([names.index(str(name)) for name in attributes[key]])
        for key, names in NAMES.items()
    }

    def batch_of(indices: NDArray[np.int64], _step: int) -> Batch:
        batch = {key: target[indices] for key, target in targets.items()}
        batch["input_ids"] = tokens["input_ids"][indices]
        batch["attention_mask"] = tokens["attention_mask"][indices]
        pixels = torch.from_numpy(images[indices]).permute(0, 3, 1, 2).float() / 127.5 - 1
        return batch | {"pixels": pixels}

    train(git_objective(git), batch_of, n_pictures, loop, random_state=seed, **running)
    git.to("cpu").eval().half().save_pretrained(out / "git")
    tokenizer.save_pretrained(out / "git")
    size = {"height": SIZE_PX, "width": SIZE_PX}
    CLIPImageProcessor(
        size={"shortest_edge": SIZE_PX},
        crop_size=size,
        image_mean=[0.5] * 3,
        image_std=[0.5] * 3,
    ).save_pretrained(out / "git")


# ---- the generator ------------------------------------------------------------------------------


def train_autoencoder(
    out: Path, n_pictures: int, loop: LoopSettings, seed: int, **running: Any
) -> None:
    """Train and save the autoencoder: on all kinds of pictures, then mostly on drawn."""
    vae, done = None, 0
    folder, on_progress = running.pop("checkpoint_folder"), running.pop("on_progress")
    for phase, (share, drawn_share, kl_weight, changes) in enumerate(AUTOENCODER_PHASES):
        n_steps = round(loop.n_steps * share)
        if vae is not None and phase == len(AUTOENCODER_PHASES) - 1:
            vae.encoder.requires_grad_(False)
            vae.quant_conv.requires_grad_(False)

        def report(step: int, loss: float, done: int = done) -> None:
            on_progress(done + step, loss)

        vae, _ = fit_autoencoder(
            autoencoder_pictures(n_pictures, seed + 10 * phase, drawn_share),
            vae=vae,
            settings=loop.model_copy(update=changes | {"n_steps": n_steps}),
            kl_weight=kl_weight,
            random_state=seed + phase,
            checkpoint_folder=folder / str(phase) if folder else None,
            on_progress=report,
            **running,
        )
        done += n_steps
    vae.half().save_pretrained(out / "generator" / "vae")


def embed(clip_folder: Path, images: NDArray[np.uint8], device: str) -> NDArray[np.float32]:
    """Return the projected image embeddings, not normalised, (n, n_features)."""
    import torch
    from transformers import CLIPVisionModelWithProjection

    clip = CLIPVisionModelWithProjection.from_pretrained(clip_folder, dtype=torch.float32)
    clip.eval().to(device)
    parts = []
    with torch.inference_mode():
        for start in range(0, len(images), 256):
            pixels = torch.from_numpy(images[start : start + 256]).permute(0, 3, 1, 2)
            parts.append(clip(pixels.to(device).float() / 127.5 - 1).image_embeds.cpu().numpy())
    return np.concatenate(parts)


def train_denoiser(
    out: Path, n_pictures: int, loop: LoopSettings, seed: int, **running: Any
) -> None:
    """Train and save the U-Net on the latents and embeddings of drawn pictures."""
    images = draw_stimuli(n_pictures, seed + 2, SIZE_PX)[0]
    device = running["device"]
    embeddings = embed(out / "clip", images, device)
    vae = load_autoencoder(out / "generator")
    latents = np.concatenate(
        [
            encode(vae, images[i : i + 1000].astype(np.float32) / 255, device=device)
            for i in range(0, n_pictures, 1000)
        ]
    )
    unet, _ = fit_denoiser(latents, embeddings, settings=loop, random_state=seed, **running)
    save_generator(unet, out / "generator")


def save_generator(unet: Any, folder: Path) -> None:
    """Save the U-Net, its noise schedule and the index of the pipeline beside the autoencoder."""
    unet.half().save_pretrained(folder / "unet")
    new_scheduler().save_pretrained(folder / "scheduler")
    index = {
        "_class_name": "DiffusionPipeline",
        "_diffusers_version": "0.42.1",
        "scheduler": ["diffusers", "DDIMScheduler"],
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
    }
    text = json.dumps(index, indent=2) + "\n"
    (folder / "model_index.json").write_text(text, encoding="utf-8")


# Share of the steps, share of drawn pictures, weight of the divergence, settings of the loop. The
# last phase trains the decoder alone, so the denoiser may be trained at the same time.
AUTOENCODER_PHASES: tuple[tuple[float, float, float, dict[str, float]], ...] = (
    (36 / 67, 0.5, 1e-3, {"learning_rate": 2e-3, "decay_start": 0.3}),
    (16 / 67, 0.75, 3e-4, {"learning_rate": 1.5e-3, "decay_start": 0.2}),
    (15 / 67, 0.75, 0.0, {"learning_rate": 1.5e-3, "decay_start": 0.2}),
)
PARTS: dict[str, tuple[Callable[..., None], dict[str, Any]]] = {
    "vae": (train_autoencoder, {"batch_size": 24}),
    "clip": (train_clip, {"batch_size": 64, "learning_rate": 1e-3, "weight_decay": 0.05}),
    "git": (train_git, {"batch_size": 64, "learning_rate": 1e-3, "weight_decay": 0.05}),
    "unet": (train_denoiser, {"batch_size": 32, "learning_rate": 1.5e-3, "decay_start": 0.65}),
}


def main() -> None:
    """Train the parts asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--out", type=Path, required=True, help="folder for clip/, git/, generator/"
    )
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--vae-steps", type=int, default=6700)
    parser.add_argument("--clip-steps", type=int, default=1900)
    parser.add_argument("--git-steps", type=int, default=3200)
    parser.add_argument("--unet-steps", type=int, default=4200)
    parser.add_argument("--n-pictures", type=int, default=20000, help="pictures for each part")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=2, help="threads of torch on a CPU")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--checkpoints", type=Path, help="keep the state of a run here; resume")
    options = parser.parse_args()

    import torch

    torch.set_num_threads(options.threads)
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[loss]}"))
    with Progress(*columns, TimeRemainingColumn()) as progress:
        for part in options.parts:
            function, defaults = PARTS[part]
            n_steps = getattr(options, f"{part}_steps")
            task = progress.add_task(part, total=n_steps, loss="")

            def report(step: int, loss: float, task: Any = task) -> None:
                progress.update(task, completed=step, loss=f"{step} {loss:.3f}")

            folder = options.checkpoints / part if options.checkpoints else None
            function(
                options.out,
                options.n_pictures,
                LoopSettings(n_steps=n_steps, bf16=part == "vae", **defaults),
                options.seed,
                device=options.device,
                checkpoint_folder=folder,
                on_progress=report,
            )


if __name__ == "__main__":
    main()
