"""LIFT-GS: (points, queries) -> (Gaussians G, masks M, correspondences C), and its checkpoints."""

from __future__ import annotations

import dataclasses
import difflib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

import fsspec
import safetensors.torch
import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from liftgs.codecs import bad_values
from liftgs.formats import check_format
from liftgs.model.decoder import Decoder, DecoderConfig, LayerOutput, SceneTokens
from liftgs.model.gaussians import GaussianConfig, GaussianHead
from liftgs.model.sparse_pyramid import Pyramid, build_pyramid
from liftgs.model.unet import SpUNet, UNetConfig
from liftgs.model.voxels import Voxels, batch_grid, voxelise_cloud
from liftgs.render.gaussians import Gaussians
from liftgs.scene import BadInput, PointCloud
from liftgs.teachers.clip import ClipModel, build_clip
from liftgs.teachers.configs import EmbedConfig

T = TypeVar("T")
_CONFIGS = Path(__file__).parent / "configs"
_WEIGHTS = Path(__file__).parent / "weights"
FORMAT = "liftgs-model/1"
_CONFIG_FILE, _WEIGHTS_FILE = "config.json", "model.safetensors"


@dataclass(frozen=True)
class LiftGSConfig:
    """A network.

    Attributes:
        voxel_size_m: edge of a voxel; 5 cm in the paper.
        embed_dim: length F of a query embedding; 768 for CLIP-L.
        clip: the CLIP whose embeddings are queries: "tiny" or an open_clip model name.
        clip_pretrained: weights of that open_clip model.
        unet: the point encoder.
        gaussians: the Gaussian head.
        decoder: the grounding decoder.
    """

    voxel_size_m: float = 0.05
    embed_dim: int = 768
    clip: str = "ViT-L-14-quickgelu"
    clip_pretrained: str = "openai"
    unet: UNetConfig = field(default_factory=UNetConfig)
    gaussians: GaussianConfig = field(default_factory=GaussianConfig)
    decoder: DecoderConfig = field(default_factory=DecoderConfig)

    @staticmethod
    def named(name: str) -> LiftGSConfig:
        """A config that ships: "base" (the paper's network) or "tiny" (pretrains on two cores).

        Raises:
            ValueError: there is no such config.
        """
        file = _CONFIGS / f"{name}.json"
        if not file.is_file():
            raise ValueError(f"no config {name!r}; there are {sorted(path.stem for path in _CONFIGS.glob('*.json'))}")
        return config_from_json(json.loads(file.read_text()), str(file))


@dataclass(frozen=True, eq=False)
class EncodedScene:
    """What the network knows of a cloud before it hears a question.

    Attributes:
        voxels: its input.
        gaussians: one per voxel.
        colours: about 0..1.
        features: unit rows; dot products with `LiftGS.project_embeds` are the contrastive loss' cosines.
        tokens: for the decoder.
    """

    voxels: Voxels
    gaussians: Gaussians
    colours: Float[Tensor, "n 3"]
    features: Float[Tensor, "n f"]
    tokens: SceneTokens


@dataclass(frozen=True, eq=False)
class Prediction:
    """Masks and correspondences of one cloud.

    Attributes:
        mask_logits: of each proposal over the cells of a scene: the points that went in, or their voxels.
        token_probs: of each proposal over the queries; what is missing from 1 is "no match".
    """

    mask_logits: Float[Tensor, "m n"]
    token_probs: Float[Tensor, "m t"]


class LiftGS(nn.Module):
    """The network.

    `encode` runs the U-Net and the Gaussian head once per cloud; `decode` answers any number of query sets about it;
    `predict` does both for one cloud. World frame, metres; nothing here knows a camera.
    """

    def __init__(self, config: LiftGSConfig):
        super().__init__()
        self.config = config
        channels = config.unet.output_channels
        self.unet = SpUNet(config.unet)
        self.gaussian_head = GaussianHead(config.gaussians, channels[0], config.voxel_size_m)
        self.decoder = Decoder(config.decoder, channels[config.decoder.scene_level], channels[0], config.embed_dim)
        self.embed_projection: nn.Module = (
            nn.Identity()
            if config.embed_dim == config.gaussians.features
            else nn.Linear(config.embed_dim, config.gaussians.features, bias=False)
        )

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.parameters()).device

    def encode(self, clouds: Sequence[Voxels]) -> list[EncodedScene]:
        """One pass over a batch of clouds."""
        pyramid = build_pyramid(batch_grid(clouds), self.config.unet.num_levels)
        inputs = torch.cat([cloud.inputs() for cloud in clouds])
        levels = self.unet(inputs, pyramid)
        xyz, rgb = torch.cat([cloud.xyz for cloud in clouds]), torch.cat([cloud.rgb for cloud in clouds])
        gaussians, colours, features = self.gaussian_head(levels[0], xyz, rgb)
        mask_inputs = (levels[0], inputs[:, :3], inputs[:, :3].square().sum(1, keepdim=True))
        of_voxel = _ancestors(pyramid, self.config.decoder.scene_level)
        of_level = levels[self.config.decoder.scene_level]
        # Mask features are linear in these, so the means of the narrow rows give those of the wide ones.
        narrow = (*mask_inputs, features)
        pooled = _mean_by(torch.cat(narrow, 1), of_voxel, len(of_level)).split([x.shape[1] for x in narrow], 1)
        per_voxel = (gaussians.means, gaussians.covars, gaussians.opacities, colours, features)
        per_token = (of_level, pooled[1], self.decoder.mask_features(*pooled[:3]), pooled[3])
        counts = torch.bincount(pyramid.levels[self.config.decoder.scene_level].coords[:, 0]).tolist()
        sizes = [len(cloud) for cloud in clouds]
        scenes = zip(
            clouds,
            zip(*(x.split(sizes) for x in per_voxel), strict=True),
            self.decoder.mask_features(*mask_inputs).split(sizes),
            zip(*(x.split(counts) for x in per_token), strict=True),
            strict=True,
        )
        return [
            EncodedScene(
                cloud, Gaussians(means, covars, opacities), colour, feature, SceneTokens(token, place, mask, *means_of)
            )
            for cloud, (means, covars, opacities, colour, feature), mask, (token, place, *means_of) in scenes
        ]

    def decode(
        self, scene: EncodedScene, queries: Float[Tensor, "b t f"], padding: Bool[Tensor, "b t"] | None = None
    ) -> list[LayerOutput]:
        """Answers to several query sets about one scene, one per supervised head, the best last."""
        if padding is None:
            padding = torch.zeros(queries.shape[:2], dtype=torch.bool, device=queries.device)
        return self.decoder(scene.tokens, queries, self.project_embeds(queries), padding)

    def decode_sets(self, scene: EncodedScene, sets: Sequence[Float[Tensor, "t f"]]) -> list[list[LayerOutput]]:
        """As `decode`, for query sets of different lengths; of each set what each head says, batch dimension 1."""
        queries = pad_sequence(list(sets), batch_first=True)
        counts = torch.tensor([len(one) for one in sets], device=queries.device)
        outputs = self.decode(scene, queries, torch.arange(queries.shape[1], device=queries.device) >= counts[:, None])
        return [[output.of_set(number, len(one)) for output in outputs] for number, one in enumerate(sets)]

    def mask_logits(self, scene: EncodedScene, mask_embeds: Float[Tensor, "*b m e"]) -> Float[Tensor, "*b m n"]:
        """M over the voxels of a scene. In memory voxel by voxel, as renderers take channels and losses read masks."""
        return (scene.tokens.mask_features @ mask_embeds.flatten(0, -2).T).T.unflatten(0, mask_embeds.shape[:-1])

    def project_embeds(self, embeds: Float[Tensor, "*s f"]) -> Float[Tensor, "*s g"]:
        """CLIP embeddings -> unit rows comparable with `EncodedScene.features`."""
        return nn.functional.normalize(self.embed_projection(embeds).float(), dim=-1)

    @torch.inference_mode()
    def predict(self, cloud: PointCloud, queries: Float[Tensor, "t f"]) -> Prediction:
        """Masks over the points of a cloud for a set of queries.

        Args:
            cloud: metres; of any density, it is voxelised here.
            queries: unit CLIP embeddings; see `text.encode_phrases`.

        Raises:
            ValueError: an empty cloud, or one that is not finite.
        """
        scene = self.encode([self.voxelise(cloud)])[0]
        found = self.answer(scene, queries)
        return Prediction(found.mask_logits[:, scene.voxels.of_point], found.token_probs)

    def answer(self, scene: EncodedScene, queries: Float[Tensor, "t f"]) -> Prediction:
        """As `predict`, for a cloud that is encoded already, and over its voxels: points may be far more."""
        last = self.decode(scene, queries.to(self.device)[None])[-1]
        masks = self.mask_logits(scene, last.mask_embeds[0]).contiguous()
        return Prediction(masks, last.token_logits[0].softmax(-1)[:, :-1])

    def voxelise(self, cloud: PointCloud) -> Voxels:
        """A cloud in the network's voxels."""
        return voxelise_cloud(cloud, self.config.voxel_size_m, self.device)

    def clip(self) -> ClipModel:
        """The CLIP that embeds this model's phrases."""
        return build_clip(EmbedConfig(model=self.config.clip, pretrained=self.config.clip_pretrained), self.device)

    def save(self, folder: str | Path, dtype: torch.dtype | None = None) -> None:
        """Write config.json and model.safetensors into a folder; floats as `dtype`, by default as they are."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        config = {"format": FORMAT, **dataclasses.asdict(self.config)}
        (folder / _CONFIG_FILE).write_text(json.dumps(config, indent=2) + "\n")
        state = {
            name: value.to("cpu", dtype if value.is_floating_point() else None).contiguous()
            for name, value in self.state_dict().items()
        }
        safetensors.torch.save_file(state, folder / _WEIGHTS_FILE)

    @classmethod
    def from_pretrained(cls, uri: str | Path, device: torch.device | str = "cpu") -> LiftGS:
        """Load a checkpoint, ready for inference.

        Args:
            uri: the name of a checkpoint that ships with the package, or a folder with config.json and
                model.safetensors: a path or any fsspec URL.
            device: where to.

        Raises:
            FileNotFoundError: there is no such checkpoint.
            BadInput: it is damaged, or of another architecture.
        """
        uri = str(uri)
        config_uri, weights_uri = (f"{_folder(uri)}/{name}" for name in (_CONFIG_FILE, _WEIGHTS_FILE))
        config = config_from_json(_json(_read(config_uri, uri), config_uri), config_uri)
        try:
            state = safetensors.torch.load(_read(weights_uri, uri))
        except safetensors.SafetensorError as error:
            raise BadInput(weights_uri, f"not a whole safetensors file: {error}") from None
        with torch.device("meta"):
            size = sum(value.numel() for value in cls(config).state_dict().values())
        if size > (there := sum(value.numel() for value in state.values())):  # before so much memory is taken
            raise BadInput(weights_uri, f"does not fit {config_uri}: holds {there:,} numbers of {size:,}")
        model = cls(config)
        try:
            model.load_state_dict(
                {name: value.float() if value.is_floating_point() else value for name, value in state.items()}
            )
        except RuntimeError as error:
            raise BadInput(weights_uri, f"does not fit {config_uri}: {error}") from None
        return model.eval().to(device)


def weights_bytes(checkpoint: str) -> bytes:
    """The weights of a checkpoint as they are stored.

    Raises:
        FileNotFoundError: there is no such checkpoint.
    """
    return _read(f"{_folder(checkpoint)}/{_WEIGHTS_FILE}", checkpoint)


def _folder(uri: str) -> str:
    shipped = _WEIGHTS / uri
    return str(shipped) if "/" not in uri and shipped.is_dir() else uri.rstrip("/")


def _read(uri: str, asked: str) -> bytes:
    try:
        with fsspec.open(uri, "rb") as file:
            return bytes(file.read())
    except (FileNotFoundError, NotADirectoryError):
        shipped = sorted(path.name for path in _WEIGHTS.glob("*/")) if _WEIGHTS.is_dir() else []
        choice = f"those that ship are {shipped}" if shipped else "none ships yet, jobs/pretrain.yaml makes one"
        raise FileNotFoundError(f"no checkpoint {asked!r}: {uri} is missing; {choice}") from None


def _json(data: bytes, uri: str) -> Any:
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        raise BadInput(uri, f"not JSON: {error}") from None


def config_from_json(value: Any, uri: str) -> LiftGSConfig:
    """A config from parsed JSON; absent keys take their defaults.

    Raises:
        BadInput: an unknown key, a value that the config refuses, or a format that newer code wrote.
    """
    if isinstance(value, Mapping):
        with bad_values(uri):
            check_format(value.get("format", "liftgs-model/1"), FORMAT, uri)
        value = {key: inner for key, inner in value.items() if key != "format"}
    return _build(LiftGSConfig, value, uri, "")


def _build(cls: type[T], value: Any, uri: str, prefix: str) -> T:
    if not isinstance(value, Mapping):
        raise BadInput(uri, f"{prefix or 'it'} is not a JSON object")
    hints = get_type_hints(cls)
    known = [f.name for f in dataclasses.fields(cls)]  # type: ignore[arg-type]
    for key in value:
        if key not in known:
            near = difflib.get_close_matches(key, known, 1)
            raise BadInput(uri, f"unknown key {prefix + key!r}" + (f"; did you mean {near[0]!r}?" if near else ""))
    made = {
        key: _build(hints[key], inner, uri, f"{prefix}{key}.")
        if dataclasses.is_dataclass(hints[key])
        else tuple(inner)
        if isinstance(inner, list)
        else inner
        for key, inner in value.items()
    }
    try:
        return cls(**made)
    except (TypeError, ValueError) as error:
        raise BadInput(uri, str(error)) from None


def _ancestors(pyramid: Pyramid, level: int) -> Tensor:
    """For each voxel of level 0 the voxel of `level` that holds it."""
    of_voxel = torch.arange(len(pyramid.levels[0].coords), device=pyramid.levels[0].coords.device)
    for lower in pyramid.levels[:level]:
        assert lower.coarsening is not None  # only the coarsest level has none
        of_voxel = lower.coarsening.parents.long()[of_voxel]
    return of_voxel


def _mean_by(x: Float[Tensor, "n c"], group: Tensor, groups: int) -> Float[Tensor, "g c"]:
    """Mean of the rows of each group."""
    sums = x.new_zeros(groups, x.shape[1]).index_add(0, group, x)
    return sums / torch.bincount(group, minlength=groups).clamp(min=1)[:, None]
