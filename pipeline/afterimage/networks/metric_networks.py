"""Networks whose features image metrics compare, from local folders.

A folder holds ``model.safetensors`` with the names of parameters of torchvision, and ``config.json``
with ``architecture`` and ``weights``; CLIP is a folder of transformers as it is. What differs from
another network of the same name is told by ``weights``, so that numbers of two are never mixed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from afterimage.errors import ConfigError

if TYPE_CHECKING:
    import torch

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
OPENAI = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))


@dataclass(frozen=True)
class Expected:
    """What the folder of a network must hold.

    Attributes
    ----------
    title : str
    architecture : str
        As in ``config.json``.
    weights : str
        Whose numbers are those of the literature.
    ignored : tuple of str
        Starts of the names of weights that are not used.
    """

    title: str
    architecture: str
    weights: str
    ignored: tuple[str, ...] = ()


#: Networks of the protocols. Two weights of EfficientNet-B1 are in use in the literature.
NETWORKS = {
    "alexnet": Expected("AlexNet", "alexnet", "IMAGENET1K_V1", ("classifier.",)),
    "inception_v3": Expected(
        "Inception v3", "inception_v3", "IMAGENET1K_V1", ("fc.", "AuxLogits.")
    ),
    "efficientnet_b1": Expected(
        "EfficientNet-B1", "efficientnet_b1", "IMAGENET1K_V2", ("classifier.",)
    ),
    "efficientnet_b1_v1": Expected(
        "EfficientNet-B1", "efficientnet_b1", "IMAGENET1K_V1", ("classifier.",)
    ),
    "swav": Expected(
        "SwAV ResNet-50", "resnet50", "swav_800ep", ("fc.", "projection_head.", "prototypes.")
    ),
    "clip_vit_l14": Expected("CLIP ViT-L/14", "clip_vit_l14", "openai"),
}
#: What makes a CLIP vision tower a ViT-L/14.
VIT_L14 = {
    "hidden_size": 1024, "patch_size": 14, "num_hidden_layers": 24, "image_size": 224,
    "projection_dim": 768,
}  # fmt: skip


def check_folder(name: str, path: str | Path) -> dict[str, Any]:
    """Check the folder of a network before any work, without loading it.

    Parameters
    ----------
    name : str
        A key of `NETWORKS`.
    path : str or Path
        An existing folder.

    Returns
    -------
    dict
        ``architecture`` and ``weights`` as ``config.json`` says, and the ``sha256`` of the weights.

    Raises
    ------
    ConfigError
        If a file is missing, the architecture is another one, or weights are missing, cut off or
        of another shape.
    """
    folder, expected = Path(path), NETWORKS[name]
    config_file, weights_file = folder / "config.json", folder / "model.safetensors"
    for file in (config_file, weights_file):
        if not file.is_file():
            raise _refused(
                expected, folder, f"no {file.name}", "config.json and model.safetensors"
            )
    try:
        config = json.loads(config_file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise _refused(expected, folder, f"config.json: {error}", "a whole JSON file") from None
    shapes = _stored_shapes(expected, weights_file)
    if name == "clip_vit_l14":
        vision = config.get("vision_config", config)
        found = {key: vision.get(key, config.get(key)) for key in VIT_L14}
        found["projection_dim"] = config.get("projection_dim", vision.get("projection_dim"))
        if found != VIT_L14 or "visual_projection.weight" not in shapes:
            told = ", ".join(f"{key} {value}" for key, value in found.items())
            raise _refused(
                expected, folder, f"{config.get('model_type')} with {told}",
                "the CLIP ViT-L/14 of OpenAI, with its visual_projection",
            )  # fmt: skip
        weights = str(config.get("weights", "openai"))
    else:
        if config.get("architecture") != expected.architecture:
            raise _refused(
                expected, folder, f"architecture {config.get('architecture')!r}",
                f"architecture {expected.architecture!r} in config.json",
            )  # fmt: skip
        wanted = {key: tuple(v.shape) for key, v in _empty(name).state_dict().items()}
        _compare(expected, folder, wanted, shapes)
        weights = str(config.get("weights", "unnamed"))
    with weights_file.open("rb") as handle:
        digest = hashlib.file_digest(handle, "sha256").hexdigest()
    return {"architecture": expected.architecture, "weights": weights, "sha256": digest}


def _stored_shapes(expected: Expected, file: Path) -> dict[str, tuple[int, ...]]:
    """Read names and shapes of stored weights from the head of the file; refuse a short file."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, framework="np") as stored:
            return {key: tuple(stored.get_slice(key).get_shape()) for key in stored.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise _refused(
            expected, file.parent, f"model.safetensors: {error}", "the whole file"
        ) from None


def _compare(
    expected: Expected,
    folder: Path,
    wanted: dict[str, tuple[int, ...]],
    stored: dict[str, tuple[int, ...]],
) -> None:
    """Refuse weights that are missing, too many, or of another shape."""
    wanted = {key: shape for key, shape in wanted.items() if "num_batches_tracked" not in key}
    missing = sorted(set(wanted) - set(stored))
    more = sorted(
        key
        for key in set(stored) - set(wanted)
        if not key.startswith(expected.ignored) and "num_batches_tracked" not in key
    )
    differ = [key for key in wanted if key in stored and wanted[key] != stored[key]]
    if missing or more or differ:
        parts = [
            f"{len(names)} weights {what}, for example {names[0]}"
            for what, names in (
                ("missing", missing), ("unknown", more), ("of another shape", differ)
            )
            if names
        ]  # fmt: skip
        raise _refused(
            expected, folder, "; ".join(parts), f"the {len(wanted)} weights of torchvision's model"
        )


def _refused(expected: Expected, folder: Path, found: str, wanted: str) -> ConfigError:
    return ConfigError(
        f"the folder of {expected.title} cannot be used",
        where=str(folder), found=found, expected=wanted,
        fix="convert the weights again (docs/evaluation.md says how), or leave its path out: then "
        "a small network is used and the report says so",
    )  # fmt: skip


def _empty(name: str) -> Any:
    """Return the network without memory for its weights."""
    import torch

    from afterimage.networks.alexnet import AlexNet
    from afterimage.networks.efficientnet import EfficientNetB1
    from afterimage.networks.inception import InceptionV3
    from afterimage.networks.resnet import ResNet50

    classes: dict[str, Any] = {
        "alexnet": AlexNet, "inception_v3": InceptionV3, "efficientnet_b1": EfficientNetB1,
        "resnet50": ResNet50,
    }  # fmt: skip
    with torch.device("meta"):
        return classes[NETWORKS[name].architecture]()


class MetricNetwork:
    """A network that turns pictures into the features of its named layers.

    Parameters
    ----------
    name : str
        A key of `NETWORKS`.
    path : str or Path
        Its folder, checked by `check_folder`.
    device : str
    """

    def __init__(self, name: str, path: str | Path, device: str = "cpu") -> None:
        self.name, self._device = name, device
        self._mean, self._std = OPENAI if name == "clip_vit_l14" else IMAGENET
        self._model = (_load_clip(path) if name == "clip_vit_l14" else _load(name, path)).to(
            device
        )

    def encode(self, images: torch.Tensor, layers: Collection[str]) -> dict[str, torch.Tensor]:
        """Return the features of pictures, flat, by layer.

        Parameters
        ----------
        images : tensor of shape (n, 3, height, width), float32
            Intensities 0..1, at the size that the network is given.
        layers : collection of str

        Returns
        -------
        dict of tensor of shape (n, n_features), float32
        """
        import torch

        mean, std = (torch.tensor(v)[None, :, None, None] for v in (self._mean, self._std))
        with torch.inference_mode():
            pixels = ((images - mean) / std).to(self._device)
            if self.name == "clip_vit_l14":
                found = {"final": self._model(pixel_values=pixels).image_embeds}
            else:
                found = self._model(pixels, layers)
        return {layer: found[layer].flatten(1).float().cpu() for layer in layers}


def _load(name: str, path: str | Path) -> Any:
    from safetensors.torch import load_file

    network = _empty(name)
    stored = load_file(Path(path) / "model.safetensors")
    wanted = network.state_dict()
    kept = {key: value.float() for key, value in stored.items() if key in wanted}
    for key, value in wanted.items():
        if key not in kept:  # only num_batches_tracked, which nothing uses when evaluating
            kept[key] = value.new_zeros(value.shape, device="cpu")
    network.load_state_dict(kept, assign=True)
    return network.eval().requires_grad_(False)


def _load_clip(path: str | Path) -> Any:
    import torch
    from transformers import CLIPVisionModelWithProjection

    model = CLIPVisionModelWithProjection.from_pretrained(
        path, local_files_only=True, use_safetensors=True, dtype=torch.float32
    )
    return model.eval().requires_grad_(False)
