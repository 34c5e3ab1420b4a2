"""SAM's mask decoder for many single-point prompts on one image, without the work that the stock forward repeats.

The same modules and mathematics as `segment_anything.modeling.MaskDecoder`, hence the same masks (to rounding):

- the image is not copied once per prompt, so the first layer's projections of it are computed once;
- predicted IoU comes out before any mask is made, and only the masks that a caller asks for are made;
- the 2x2 transposed convolutions are matrix products in the tokens' own layout, and attention to a handful of tokens
  keeps the long axis last. On a CPU this takes half the time of the stock code.

Differentiable, so the trainer of the small teacher uses it too.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from segment_anything.modeling import MaskDecoder, Sam, TwoWayTransformer
from segment_anything.modeling.transformer import Attention
from torch import Tensor, nn


@dataclass(frozen=True, eq=False)
class Prompted:
    """The decoder's state after its transformer: everything that masks are made from.

    Attributes:
        tokens: mask tokens, the single-mask token first, then SAM's three multimask tokens.
        image: image features as each prompt sees them, row-major over the feature map.
        iou: predicted IoU of each mask token's mask.
        grid: height and width of the feature map.
    """

    tokens: Float[Tensor, "prompts masks dim"]
    image: Float[Tensor, "prompts cells dim"]
    iou: Float[Tensor, "prompts masks"]
    grid: tuple[int, int]


def prompt_points(
    sam: Sam, image_embedding: Float[Tensor, "1 dim gh gw"], points: Float[Tensor, "prompts 2"]
) -> Prompted:
    """Run the decoder's transformer for one foreground point per prompt.

    Args:
        image_embedding: of one image, from `sam.image_encoder`; its grid may differ from the prompt encoder's when
            `sam` is being trained at several sizes.
        points: (x, y) in pixels of the model's input image.
    """
    decoder = sam.mask_decoder
    labels = torch.ones(len(points), 1, dtype=torch.int, device=points.device)
    sparse, dense = sam.prompt_encoder(points=(points[:, None], labels), boxes=None, masks=None)
    outputs = torch.cat([decoder.iou_token.weight, decoder.mask_tokens.weight])
    tokens = torch.cat([outputs.expand(len(points), -1, -1), sparse], dim=1)
    # `dense` is the same "no mask" vector for every prompt and cell.
    image = _as_tokens(image_embedding + dense[:1])
    position = _as_tokens(sam.prompt_encoder.get_dense_pe())
    tokens, image = _two_way(decoder.transformer, tokens, image, position)
    mask_tokens = tokens[:, 1 : 1 + decoder.num_mask_tokens]
    height, width = image_embedding.shape[-2:]
    return Prompted(mask_tokens, image, decoder.iou_prediction_head(tokens[:, 0]), (height, width))


def mask_logits(decoder: MaskDecoder, prompted: Prompted) -> Float[Tensor, "prompts masks h w"]:
    """Low-resolution logits (4x the feature map) of every mask of every prompt, the single-mask token's first."""
    count, masks, _ = prompted.tokens.shape
    blocks = _query(decoder, prompted.tokens) @ _upscaled(decoder, prompted.image).transpose(1, 2)
    return _unblock(blocks.flatten(0, 1), prompted.grid).unflatten(0, (count, masks))


def chosen_mask_logits(
    decoder: MaskDecoder, prompted: Prompted, prompt_index: Tensor, mask_index: Tensor
) -> Float[Tensor, "chosen h w"]:
    """Low-resolution logits of some masks only. `prompt_index` must be sorted, as `torch.nonzero` gives it."""
    prompts, row = torch.unique_consecutive(prompt_index, return_inverse=True)
    queries = _query(decoder, prompted.tokens[prompts])
    blocks = queries @ _upscaled(decoder, prompted.image[prompts]).transpose(1, 2)
    return _unblock(blocks[row, mask_index], prompted.grid)


def _as_tokens(image: Tensor) -> Tensor:
    return image.flatten(2).transpose(1, 2).contiguous()


def _two_way(transformer: TwoWayTransformer, tokens: Tensor, image: Tensor, position: Tensor) -> tuple[Tensor, Tensor]:
    """`TwoWayTransformer.forward` with one image for all prompts; the image gets its prompt axis in the first layer."""
    prompt = tokens
    for layer in transformer.layers:
        if layer.skip_first_layer_pe:
            tokens = layer.self_attn(q=tokens, k=tokens, v=tokens)
        else:
            q = tokens + prompt
            tokens = tokens + layer.self_attn(q=q, k=q, v=tokens)
        tokens = layer.norm1(tokens)
        attended = _attend(layer.cross_attn_token_to_image, tokens + prompt, image + position, image)
        tokens = layer.norm2(tokens + attended)
        tokens = layer.norm3(tokens + layer.mlp(tokens))
        attended = _attend(layer.cross_attn_image_to_token, image + position, tokens + prompt, tokens)
        image = layer.norm4(image + attended)
    attended = _attend(transformer.final_attn_token_to_image, tokens + prompt, image + position, image)
    return transformer.norm_final_attn(tokens + attended), image


def _attend(attention: Attention, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """`segment_anything`'s downscaled attention; batch axes broadcast."""

    def heads(x: Tensor) -> Tensor:
        return x.unflatten(-1, (attention.num_heads, -1)).transpose(1, 2)

    q, k, v = heads(attention.q_proj(q)), heads(attention.k_proj(k)), heads(attention.v_proj(v))
    scale = 1 / math.sqrt(q.shape[-1])
    if k.shape[-2] < q.shape[-2]:  # a softmax over a handful of keys is slow along the last axis
        out = ((k * scale) @ q.transpose(-1, -2)).softmax(dim=-2).transpose(-1, -2) @ v
    else:
        out = ((q * scale) @ k.transpose(-1, -2)).softmax(dim=-1) @ v
    return attention.out_proj(out.transpose(1, 2).flatten(2))


def _query(decoder: MaskDecoder, tokens: Tensor) -> Tensor:
    """What each mask looks for in the upscaled features."""
    return torch.stack([mlp(tokens[:, i]) for i, mlp in enumerate(decoder.output_hypernetworks_mlps)], dim=1)


def _upscaled(decoder: MaskDecoder, image: Tensor) -> Float[Tensor, "prompts cells*16 channels"]:
    """`decoder.output_upscaling`, with the 16 pixels of a cell kept together as (y, x, sub-y, sub-x)."""
    first, norm, activation, second, _ = decoder.output_upscaling
    x = _deconvolve(first, image)
    x = activation(F.layer_norm(x, x.shape[-1:], norm.weight, norm.bias, norm.eps))
    return activation(_deconvolve(second, x)).flatten(1, 3)


def _deconvolve(convolution: nn.ConvTranspose2d, x: Tensor) -> Tensor:
    """A transposed convolution whose kernel equals its stride, per cell: [..., in] -> [..., ky*kx, out]."""
    weight = convolution.weight.permute(2, 3, 1, 0).flatten(0, 2)  # [ky*kx*out, in]
    taps = convolution.kernel_size[0] * convolution.kernel_size[1]
    assert convolution.bias is not None
    return F.linear(x, weight, convolution.bias.repeat(taps)).unflatten(-1, (taps, -1))


def _unblock(blocks: Float[Tensor, "n cells*16"], grid: tuple[int, int]) -> Float[Tensor, "n h w"]:
    height, width = grid
    cells = blocks.reshape(len(blocks), height, width, 2, 2, 2, 2)  # row, column, y, x, sub-y, sub-x
    return cells.permute(0, 1, 3, 5, 2, 4, 6).reshape(len(blocks), 4 * height, 4 * width)
