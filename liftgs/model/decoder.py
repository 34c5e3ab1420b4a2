"""The grounding decoder: mask proposals look at the scene and at the language queries, in turns.

Follows MaskFormer and UniVLG: learned proposals cross-attend to the scene, each only to what its mask of the layer
before covers; proposals and queries attend to each other; heads after every layer (and before the first) predict masks
M and correspondences C as dot products. Scene features are not rewritten from layer to layer, so one set of mask
features serves all heads, and a mask is linear in it: rendering a mask is the same as rendering the features first.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from liftgs.precision import without_autocast

#: All of PyTorch's but cuDNN's, which compiles a plan for each new shape, and no two rooms have as many voxels. Without
#: it a finetuning step of `tiny` on an H200 took 0.109 instead of 0.181 s.
_ATTENTION = [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]


@dataclass(frozen=True)
class DecoderConfig:
    """Attributes:
    layers: transformer blocks; 8 in the paper.
    dim: hidden width; 512 in the paper.
    heads: of each attention; 8 in the paper.
    feedforward: hidden width of the MLPs; 2048 in the paper.
    dropout: 0.15 in the paper.
    proposals: mask candidates m; 256 in the paper.
    proposal_start: "learned": each is an embedding of its own (the paper). "sampled": each starts from the feature and
        the place of one of m farthest-point samples of the scene, as in Mask3D (Schult et al. 2022), and its mask
        fades with the distance from a centre that it predicts near there. This converges far sooner, and rooms may
        be covered more densely than in training.
    inference_proposals: how many are sampled outside of training; 0 is as many as in training.
    scene_level: U-Net level whose voxels the proposals attend to; 0 is all voxels (the paper), each level up halves the
        resolution. Masks are always at level 0.
    """

    layers: int = 8
    dim: int = 512
    heads: int = 8
    feedforward: int = 2048
    dropout: float = 0.15
    proposals: int = 256
    proposal_start: Literal["learned", "sampled"] = "learned"
    inference_proposals: int = 0
    scene_level: int = 0

    def __post_init__(self) -> None:
        if self.inference_proposals and self.proposal_start == "learned":
            raise ValueError("inference_proposals is for proposals that are sampled")
        if self.dim % self.heads:
            raise ValueError(f"dim {self.dim} is not a multiple of heads {self.heads}")


@dataclass(frozen=True, eq=False)
class SceneTokens:
    """What the decoder sees of one scene.

    Attributes:
        features: of the voxels at `scene_level`.
        xyz: their places, metres, relative to the scene's origin.
        mask_features: of the voxels at level 0, from `Decoder.mask_features`; a mask is a dot product with them.
        pooled_mask_features: their mean over each voxel of `scene_level`.
        pooled_features: the mean of the contrastive features likewise, the space of `LiftGS.project_embeds`.
    """

    features: Float[Tensor, "t c"]
    xyz: Float[Tensor, "t 3"]
    mask_features: Float[Tensor, "n e"]
    pooled_mask_features: Float[Tensor, "t e"]
    pooled_features: Float[Tensor, "t g"]


@dataclass(frozen=True, eq=False)
class LayerOutput:
    """One supervised head's answer, for b query sets over one scene.

    Attributes:
        mask_embeds: dot products with mask features are the logits M.
        token_logits: the correspondence C; the last column is "no match", padding is -inf.
    """

    mask_embeds: Float[Tensor, "b m e"]
    token_logits: Float[Tensor, "b m t+1"]

    def of_set(self, number: int, queries: int) -> LayerOutput:
        """The answer to one query set, which has so many queries before its padding."""
        logits = self.token_logits[number, None]
        return LayerOutput(self.mask_embeds[number, None], torch.cat((logits[..., :queries], logits[..., -1:]), -1))


class Decoder(nn.Module):
    """(scene, query sets) -> one `LayerOutput` per layer, the first from the proposals as they start."""

    def __init__(self, config: DecoderConfig, scene_channels: int, voxel_channels: int, embed_dim: int):
        """Args:
        config: sizes.
        scene_channels: of the features at `scene_level`.
        voxel_channels: of the features at level 0.
        embed_dim: length of a query embedding.
        """
        super().__init__()
        self.config = config
        dim = config.dim
        self.scene_projection = nn.Sequential(nn.Linear(scene_channels, dim), nn.LayerNorm(dim))
        self.mask_projection = nn.Linear(voxel_channels, dim)
        self.query_projection = nn.Linear(embed_dim, dim)
        self.position = nn.Sequential(nn.Linear(3, dim), nn.LayerNorm(dim), nn.ReLU(), nn.Linear(dim, dim))
        learned = config.proposals if config.proposal_start == "learned" else 1
        self.proposal_content = nn.Parameter(torch.randn(learned, dim) * 0.02)
        self.proposal_place = nn.Parameter(torch.randn(learned, dim) * 0.02)
        self.kind = nn.Parameter(torch.zeros(2, dim))  # tells proposals from queries
        self.blocks = nn.ModuleList(DecoderBlock(config) for _ in range(config.layers))
        self.heads = Heads(dim, local=config.proposal_start == "sampled")

    def mask_features(
        self, voxels: Float[Tensor, "n c"], xyz: Float[Tensor, "n 3"], squares: Float[Tensor, "n 1"]
    ) -> Float[Tensor, "n e"]:
        """What masks are dot products with: learned channels, then x, y, z, their sum of squares, and 1.

        The last five let a proposal add a bias and a paraboloid around a centre, in one dot product.

        Args:
            voxels: U-Net features at level 0, or means of them.
            xyz: metres, relative to the scene's origin; or means.
            squares: squared distances from there; or means.
        """
        return torch.cat((self.mask_projection(voxels).float(), xyz, squares, torch.ones_like(squares)), 1)

    def forward(
        self,
        scene: SceneTokens,
        queries: Float[Tensor, "b t f"],
        query_features: Float[Tensor, "b t g"],
        padding: Bool[Tensor, "b t"],
    ) -> list[LayerOutput]:
        """Args:
        scene: from `LiftGS.encode`.
        queries: unit embeddings, in any order.
        query_features: the same in the space of the contrastive features.
        padding: True where a set has no query.
        """
        sets, count = queries.shape[:2]
        keys = self.scene_projection(scene.features)
        place = self.position(scene.xyz)
        content, own_place, centres = self._start(keys, scene.xyz, place)
        m = len(content)
        x = torch.cat(((content + self.kind[0]).expand(sets, -1, -1), self.query_projection(queries) + self.kind[1]), 1)
        where = torch.cat((own_place, own_place.new_zeros(count, own_place.shape[1])))
        key_padding = torch.cat((padding.new_zeros(sets, m), padding), 1)
        outputs = [self.heads(x[:, :m], x[:, m:], padding, centres, scene, query_features)]
        for block in self.blocks:
            attend = self._attended(outputs[-1], scene, count)
            x = block(x, where, keys, place, attend, key_padding)
            outputs.append(self.heads(x[:, :m], x[:, m:], padding, centres, scene, query_features))
        return outputs

    def _start(
        self, keys: Float[Tensor, "t d"], xyz: Float[Tensor, "t 3"], place: Float[Tensor, "t d"]
    ) -> tuple[Float[Tensor, "m d"], Float[Tensor, "m d"], Float[Tensor, "m 3"]]:
        """Content and positional embedding of the proposals, and where they are."""
        if self.config.proposal_start == "learned":
            return self.proposal_content, self.proposal_place, xyz.new_zeros(self.config.proposals, 3)
        count = self.config.proposals if self.training else self.config.inference_proposals or self.config.proposals
        chosen = farthest_points(xyz, count)
        return self.proposal_content + keys[chosen], self.proposal_place + place[chosen], xyz[chosen]

    @torch.no_grad()
    @without_autocast
    def _attended(self, last: LayerOutput, scene: SceneTokens, queries: int) -> Bool[Tensor, "b x t"]:
        """Where each row may look: a proposal within its last mask, or anywhere if that is empty; a query anywhere."""
        inside = last.mask_embeds @ scene.pooled_mask_features.T >= 0
        inside |= ~inside.any(dim=2, keepdim=True)
        return torch.cat((inside, inside.new_ones(len(inside), queries, inside.shape[2])), 1)


class DecoderBlock(nn.Module):
    """Masked cross-attention to the scene, self-attention among proposals and queries, feed-forward; pre-norm."""

    def __init__(self, config: DecoderConfig):
        super().__init__()
        dim = config.dim
        self.norms = nn.ModuleList(nn.LayerNorm(dim) for _ in range(3))
        self.cross = Attention(dim, config.heads)
        self.self_attention = Attention(dim, config.heads)
        self.feedforward = nn.Sequential(
            nn.Linear(dim, config.feedforward),
            nn.ReLU(),
            nn.Dropout(config.dropout),
            nn.Linear(config.feedforward, dim),
        )
        self.dropout = nn.Dropout(config.dropout)

    def forward(
        self,
        x: Float[Tensor, "b x d"],
        where: Float[Tensor, "x d"],
        keys: Float[Tensor, "t d"],
        place: Float[Tensor, "t d"],
        attend: Bool[Tensor, "b x t"],
        padding: Bool[Tensor, "b x"],
    ) -> Float[Tensor, "b x d"]:
        """`where` and `place` are positional embeddings, added to what attends and what is attended to."""
        y = self.norms[0](x)
        x = x + self.dropout(self.cross(y + where, (keys + place)[None], keys[None], attend))
        y = self.norms[1](x)
        x = x + self.dropout(self.self_attention(y + where, y + where, y, ~padding[:, None]))
        return x + self.dropout(self.feedforward(self.norms[2](x)))


class Attention(nn.Module):
    """Multi-head attention; nothing is attended to where `attend` is False."""

    def __init__(self, dim: int, heads: int):
        super().__init__()
        self.heads = heads
        self.q, self.k, self.v, self.out = (nn.Linear(dim, dim) for _ in range(4))

    def forward(
        self,
        q: Float[Tensor, "b x d"],
        k: Float[Tensor, "#b t d"],
        v: Float[Tensor, "#b t d"],
        attend: Bool[Tensor, "#b #x t"],
    ) -> Float[Tensor, "b x d"]:
        """Standard scaled dot product; keys and values of one scene serve all its query sets."""

        def split(y: Tensor) -> Tensor:
            return y.unflatten(-1, (self.heads, -1)).transpose(1, 2).expand(len(q), -1, -1, -1)

        with sdpa_kernel(_ATTENTION):
            mixed = nn.functional.scaled_dot_product_attention(
                split(self.q(q)), split(self.k(k)), split(self.v(v)), attn_mask=attend[:, None]
            )
        return self.out(mixed.transpose(1, 2).flatten(-2))


class Heads(nn.Module):
    """Proposals and queries -> mask embeddings and correspondences; shared by all layers, as in MaskFormer.

    A mask's logit is a learned dot product plus a bias; for a local proposal it also falls by its stiffness, per square
    metre, with the squared distance from its centre, which is where it started plus an offset.

    A correspondence is the scaled cosine of proposal and query as the layers have refined them, plus that of the mean
    contrastive feature within the proposal's mask and the query's own: what the decoder concluded, and what the points
    look like. Both are dot products; the second knows what things are called long before the first does.
    """

    def __init__(self, dim: int, local: bool):
        super().__init__()
        self.local = local
        self.norm = nn.LayerNorm(dim)
        self.mask = nn.Sequential(nn.Linear(dim, dim), nn.ReLU(), nn.Linear(dim, dim), nn.ReLU(), nn.Linear(dim, dim))
        self.extent = nn.Linear(dim, 5)  # centre offset (3), bias, stiffness before softplus
        nn.init.zeros_(self.extent.weight)
        nn.init.zeros_(self.extent.bias)
        self.proposal_side = nn.Linear(dim, dim)
        self.query_side = nn.Linear(dim, dim)
        self.no_match = nn.Parameter(torch.randn(dim) * 0.02)
        self.log_scales = nn.Parameter(torch.full((2,), math.log(1 / 0.07)))  # CLIP's and UniVLG's temperature
        self.threshold = nn.Parameter(torch.tensor(0.5))  # the cosine of features that "no match" stands for

    def forward(
        self,
        proposals: Float[Tensor, "b m d"],
        queries: Float[Tensor, "b t d"],
        padding: Bool[Tensor, "b t"],
        centres: Float[Tensor, "m 3"],
        scene: SceneTokens,
        query_features: Float[Tensor, "b t g"],
    ) -> LayerOutput:
        """Args:
        proposals: as refined so far.
        queries: likewise.
        padding: True where a set has no query.
        centres: where proposals started.
        scene: for the features within the masks.
        query_features: in the space of the contrastive features.
        """
        proposals, queries = self.norm(proposals), self.norm(queries)
        no_match = self.no_match.expand(len(queries), 1, -1)
        columns = nn.functional.normalize(torch.cat((self.query_side(queries), no_match), 1).float(), dim=-1)
        rows = nn.functional.normalize(self.proposal_side(proposals).float(), dim=-1)
        embeds = torch.cat((self.mask(proposals).float(), self._extent(proposals, centres)), -1)
        logits = self._correspondences(rows, columns, self._looks(embeds, scene), query_features)
        hidden = torch.cat((padding, padding.new_zeros(len(padding), 1)), 1)
        return LayerOutput(embeds, logits.masked_fill(hidden[:, None], -math.inf))

    @without_autocast
    def _correspondences(
        self,
        rows: Float[Tensor, "b m d"],
        columns: Float[Tensor, "b t+1 d"],
        looks: Float[Tensor, "b m g"],
        query_features: Float[Tensor, "b t g"],
    ) -> Float[Tensor, "b m t+1"]:
        scale, feature_scale = self.log_scales.float().clamp(max=math.log(100)).exp()
        looks = looks @ query_features.transpose(1, 2)
        looks = torch.cat((looks, self.threshold.expand(*looks.shape[:2], 1)), -1)
        return scale * rows @ columns.transpose(1, 2) + feature_scale * looks

    @staticmethod
    @without_autocast
    def _looks(embeds: Float[Tensor, "b m e"], scene: SceneTokens) -> Float[Tensor, "b m g"]:
        """The unit mean feature within each mask. Masks are not taught by it: they should fit, not average well."""
        with torch.no_grad():
            within = (embeds @ scene.pooled_mask_features.T).sigmoid()
        return nn.functional.normalize(within @ scene.pooled_features, dim=-1)

    def _extent(self, proposals: Float[Tensor, "b m d"], centres: Float[Tensor, "m 3"]) -> Float[Tensor, "b m 5"]:
        """Coefficients of x, y, z, x^2 + y^2 + z^2 and 1: bias - stiffness * |xyz - centre|^2."""
        offset, bias, stiffness = self.extent(proposals).float().split((3, 1, 1), -1)
        centre = centres + offset
        stiffness = nn.functional.softplus(stiffness) if self.local else torch.zeros_like(stiffness)
        constant = bias - stiffness * centre.square().sum(-1, keepdim=True)
        return torch.cat((2 * stiffness * centre, -stiffness, constant), -1)


def farthest_points(xyz: Float[Tensor, "t 3"], count: int) -> Int[Tensor, " m"]:
    """Indices of `count` points (or all, if fewer) spread over a cloud: each next one is farthest from those before.

    Starts at the point farthest from the mean, so that the choice is a function of the cloud.
    """
    count = min(count, len(xyz))
    axes = xyz.detach().float().T.contiguous()  # sums over rows are several times faster than within them
    chosen = torch.empty(count, dtype=torch.long, device=xyz.device)
    chosen[0] = (axes - axes.mean(1, keepdim=True)).square().sum(0).argmax()
    distance = torch.full((len(xyz),), math.inf, device=xyz.device)
    for i in range(1, count):
        distance = torch.minimum(distance, (axes - axes[:, chosen[i - 1], None]).square().sum(0))
        chosen[i] = distance.argmax()
    return chosen
