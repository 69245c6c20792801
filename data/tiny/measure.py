"""Measure the small weights on fresh drawn pictures, and on folders of other pictures.

    python data/tiny/measure.py --weights data/tiny --pictures digits=FOLDER photographs=FOLDER

Prints one JSON object. What a generated picture shows is read by a small convolutional network
trained here on drawn pictures; it shares nothing with the weights under test.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from train import SIZE_PX, embed

from afterimage.evaluation.captions import first_named
from afterimage.features.git import Git, GitSettings
from afterimage.networks.autoencoder import decode, encode, load_autoencoder
from afterimage.reconstruction.git_caption import GitCaptioner
from afterimage.reconstruction.latent_diffusion import LatentDiffusion, LatentDiffusionSettings
from afterimage.reconstruction.registry import Material
from afterimage.simulate.stimuli import CATEGORIES, COLOURS, draw_stimuli

READ = {"category": CATEGORIES, "colour": tuple(COLOURS)}


def psnr(images: NDArray[np.float32], decoded: NDArray[np.float32]) -> float:
    """Return the mean over pictures of the peak signal-to-noise ratio, dB."""
    error = ((images - decoded) ** 2).mean((1, 2, 3))
    return float((-10 * np.log10(error)).mean())


def load_pictures(folder: Path, n: int, low_pass: int | None = None) -> NDArray[np.float32]:
    """Load up to ``n`` pictures at 64 x 64; ``low_pass`` first shrinks them to that size."""
    from PIL import Image

    paths = sorted(p for p in folder.iterdir() if p.suffix in (".png", ".jpg", ".jpeg"))
    pictures = []
    for path in paths[:: max(1, len(paths) // n)][:n]:
        picture = Image.open(path).convert("RGB")
        if low_pass:
            picture = picture.resize((low_pass, low_pass), Image.Resampling.LANCZOS)
        picture = picture.resize((SIZE_PX, SIZE_PX), Image.Resampling.BICUBIC)
        pictures.append(np.asarray(picture, np.float32) / 255)
    return np.stack(pictures)


def probes(weights: Path) -> dict[str, float]:
    """Fit linear probes to the embeddings of 3000 pictures; return accuracy or R2 on others."""
    from sklearn.linear_model import LogisticRegression, Ridge

    train_images, train_attributes, _ = draw_stimuli(3000, 9001)
    test_images, test_attributes, _ = draw_stimuli(1500, 9002)
    features, test = (embed(weights / "clip", x, "cpu") for x in (train_images, test_images))
    result = {}
    for key in ("category", "colour", "texture", "background", "size_name", "position"):
        probe = LogisticRegression(max_iter=300).fit(features, train_attributes[key])
        result[key] = float(probe.score(test, test_attributes[key]))
    for key in ("x", "y", "size"):
        ridge = Ridge(1.0).fit(features, train_attributes[key])
        result[f"{key} (R2)"] = float(ridge.score(test, test_attributes[key]))
    return result


def caption_retrieval(weights: Path, n: int = 100) -> float:
    """Return the share of ``n`` pictures whose own caption is the nearest of the ``n``."""
    import torch
    from transformers import AutoTokenizer, CLIPModel

    clip = CLIPModel.from_pretrained(weights / "clip", dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(weights / "clip")
    images, _, captions = draw_stimuli(n, 9003)
    with torch.inference_mode():
        read = clip.text_model(**tokenizer(captions, padding=True, return_tensors="pt"))
        texts = clip.text_projection(read.pooler_output).numpy()
    pictures = embed(weights / "clip", images, "cpu")
    texts /= np.linalg.norm(texts, axis=1, keepdims=True)
    return float(((pictures @ texts.T).argmax(1) == np.arange(n)).mean())


def captions(weights: Path, n: int = 1000) -> dict[str, dict[str, float]]:
    """Return how often captions of ``n`` pictures name category and colour, and are all right.

    Also from fewer tokens (pooled), and with noise on them, of one standard deviation of a token's
    values over pictures.
    """
    images, attributes, texts = draw_stimuli(n, 9006)
    captioner = GitCaptioner(str(weights / "git"))
    rng = np.random.default_rng(0)
    result = {}
    for name, pool, noise in (("true tokens", 1, 0.0), ("noise 1 sd", 1, 1.0), ("pooled", 2, 0.0)):
        tokens = Git(GitSettings(path=str(weights / "git"), pool=pool)).encode(list(images))
        spread = noise * tokens.std(0)
        tokens = tokens + spread * rng.standard_normal(tokens.shape, np.float32)
        start = time.perf_counter()
        said, _ = captioner.caption(tokens.astype(np.float32))
        named = {key: [first_named(text, values) for text in said] for key, values in READ.items()}
        result[name] = {
            key: float((np.array(found) == attributes[key]).mean()) for key, found in named.items()
        } | {
            "whole caption": float(np.mean(np.array(said) == np.array(texts))),
            "seconds a caption": (time.perf_counter() - start) / n,
        }
    return result


def train_reader(n_steps: int) -> Any:
    """Train a small convolutional network to read category and colour from (spoilt) pictures."""
    import torch
    from torch import nn
    from torch.nn.functional import cross_entropy
    from train import spoil

    torch.manual_seed(0)
    layers: list[nn.Module] = []
    for inputs, outputs in ((3, 24), (24, 48), (48, 96), (96, 128)):
        layers += [nn.Conv2d(inputs, outputs, 3, 2, 1), nn.BatchNorm2d(outputs), nn.ReLU()]
    reader = nn.Sequential(*layers, nn.Flatten(), nn.Linear(128 * 16, 16))
    images, attributes, _ = draw_stimuli(8000, 9004)
    labels = {
        key: torch.tensor([names.index(str(name)) for name in attributes[key]])
        for key, names in READ.items()
    }
    optimizer = torch.optim.AdamW(reader.parameters(), 2e-3, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=n_steps)
    generator = torch.Generator().manual_seed(0)
    for _ in range(n_steps):
        chosen = torch.randint(0, len(images), (64,), generator=generator)
        output = reader(spoil(as_tensor(images[chosen.numpy()]), generator))
        loss = cross_entropy(output[:, :8], labels["category"][chosen])
        loss = loss + cross_entropy(output[:, 8:], labels["colour"][chosen])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return reader.eval()


def as_tensor(images: NDArray[np.uint8]) -> Any:
    """Bring pictures into the form (n, 3, height, width), -1..1."""
    import torch

    return torch.from_numpy(images).permute(0, 3, 1, 2).float() / 127.5 - 1


def read(reader: Any, images: NDArray[np.uint8], attributes: dict[str, Any]) -> dict[str, float]:
    """Return how often the reader finds the true category and the true colour."""
    import torch

    with torch.inference_mode():
        output = reader(as_tensor(images)).numpy()
    found = {"category": output[:, :8].argmax(1), "colour": output[:, 8:].argmax(1)}
    return {
        key: float((np.array(names)[found[key]] == attributes[key]).mean())
        for key, names in READ.items()
    }


def generation(weights: Path, n: int, reader: Any, sheet: Path | None) -> dict[str, Any]:
    """Reconstruct ``n`` drawn pictures from true and from noisy features, at two strengths."""
    images, attributes, _ = draw_stimuli(n, 9005)
    rng = np.random.default_rng(0)
    vae = load_autoencoder(weights / "generator")
    latents = encode(vae, images.astype(np.float32) / 255)
    embeddings = embed(weights / "clip", images, "cpu")
    material = Material(
        keys=[str(i) for i in range(n)],
        random_state=0,
        shapes={"vae": latents.shape[1:], "clip": embeddings.shape[1:]},
        training={},
        training_image=lambda index: images[index],
        embed={"clip": lambda pictures: embed(weights / "clip", np.stack(pictures), "cpu")},
    )
    noisy_latents = latents + 0.5 * rng.standard_normal(latents.shape).astype(np.float32)
    spread = embeddings.std(0)
    noisy = embeddings + 0.5 * spread * rng.standard_normal(embeddings.shape).astype(np.float32)
    result: dict[str, Any] = {"true pictures": read(reader, images, attributes)}
    rows = [images[:16], (decode(vae, latents[:16]) * 255).astype(np.uint8)]
    for name, embedding, latents_in in (
        ("true features", embeddings, latents),
        ("noise 0.5 sd", noisy, noisy_latents),
    ):
        for strength in (0.8, 1.0):
            for n_candidates in (1, 4):
                settings = LatentDiffusionSettings(
                    generator=str(weights / "generator"),
                    strength=strength,
                    n_candidates=n_candidates,
                )
                start = time.perf_counter()
                pictures, details = LatentDiffusion(settings).reconstruct(
                    {"clip": embedding, "vae": latents_in}, material
                )
                made = np.stack(pictures)
                flat = [x.reshape(n, -1).astype(np.float32) for x in (images, made)]
                r = [np.corrcoef(a, b)[0, 1] for a, b in zip(*flat, strict=True)]
                result[f"{name}, strength {strength}, best of {n_candidates}"] = read(
                    reader, made, attributes
                ) | {
                    "pixel correlation": float(np.mean(r)),
                    "cosine": float(np.mean([max(detail["scores"]) for detail in details])),
                    "seconds a picture": (time.perf_counter() - start) / n,
                }
                if n_candidates == 1:
                    rows.append(made[:16])
    if sheet is not None:
        from PIL import Image

        joined = np.concatenate([np.concatenate(list(row), 1) for row in rows], 0)
        Image.fromarray(joined).save(sheet)
    return result


def main() -> None:
    """Measure what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--pictures", nargs="*", default=[], metavar="NAME=FOLDER")
    parser.add_argument("--parts", nargs="+", default=["vae", "clip", "git", "unet"])
    parser.add_argument("--n", type=int, default=128, help="pictures to generate")
    parser.add_argument("--reader-steps", type=int, default=600)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--sheet", type=Path, help="write a sheet of examples here")
    options = parser.parse_args()

    import torch

    torch.set_num_threads(options.threads)
    result: dict[str, Any] = {}
    if "vae" in options.parts:
        vae = load_autoencoder(options.weights / "generator")
        sets = {"drawn": draw_stimuli(300, 9000)[0].astype(np.float32) / 255}
        for entry in options.pictures:
            name, folder = entry.split("=", 1)
            sets[name] = load_pictures(Path(folder), 200)
            sets[f"{name} (low-passed to 32 px)"] = load_pictures(Path(folder), 200, 32)
        result["psnr_db"] = {k: psnr(x, decode(vae, encode(vae, x))) for k, x in sets.items()}
    if "clip" in options.parts:
        result["probe"] = probes(options.weights)
        result["caption_top1_of_100"] = caption_retrieval(options.weights)
    if "git" in options.parts:
        result["captions"] = captions(options.weights)
    if "unet" in options.parts:
        reader = train_reader(options.reader_steps)
        result["generation"] = generation(options.weights, options.n, reader, options.sheet)
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
