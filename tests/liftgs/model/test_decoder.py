"""What the decoder promises whatever its weights are."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from torch import Tensor

from liftgs.model.decoder import Attention, Decoder, DecoderConfig, LayerOutput, SceneTokens, farthest_points

SMALL = DecoderConfig(layers=2, dim=16, heads=2, feedforward=32, dropout=0.0, proposals=6)


def scene(seed: int = 0, tokens: int = 30, voxels: int = 50) -> SceneTokens:
    g = torch.Generator().manual_seed(seed)
    return SceneTokens(
        torch.randn(tokens, 8, generator=g),
        torch.randn(tokens, 3, generator=g),
        torch.randn(voxels, 21, generator=g),
        torch.randn(tokens, 21, generator=g),
        torch.randn(tokens, 7, generator=g),
    )


def decoder(config: DecoderConfig = SMALL) -> Decoder:
    torch.manual_seed(0)
    return Decoder(config, 8, 12, 10).eval()


def ask(sets: int, count: int) -> tuple[Tensor, Tensor]:
    queries = torch.nn.functional.normalize(
        torch.randn(sets, count, 10, generator=torch.Generator().manual_seed(1)), dim=2
    )
    return queries, torch.zeros(sets, count, dtype=torch.bool)


def answer(network: Decoder, scene: SceneTokens, queries: Tensor, padding: Tensor) -> list[LayerOutput]:
    return network(scene, queries, queries[..., :7], padding)


@pytest.mark.parametrize("start", ["learned", "sampled"])
def test_every_layer_and_the_start_are_supervised(start: str) -> None:
    config = DecoderConfig(**{**vars(SMALL), "proposal_start": start})
    outputs = answer(decoder(config), scene(), *ask(3, 4))
    assert len(outputs) == 3
    for output in outputs:
        assert output.mask_embeds.shape == (3, 6, 21)
        assert output.token_logits.shape == (3, 6, 5)


def test_the_order_of_queries_does_not_matter() -> None:
    network, (queries, padding) = decoder(), ask(1, 4)
    order = torch.tensor([2, 0, 3, 1])
    a = answer(network, scene(), queries, padding)[-1]
    b = answer(network, scene(), queries[:, order], padding)[-1]
    torch.testing.assert_close(b.mask_embeds, a.mask_embeds)
    torch.testing.assert_close(b.token_logits[..., :-1], a.token_logits[..., order])
    torch.testing.assert_close(b.token_logits[..., -1], a.token_logits[..., -1])


def test_the_order_of_scene_tokens_does_not_matter() -> None:
    network, s = decoder(), scene()
    order = torch.randperm(30)
    moved = SceneTokens(
        s.features[order], s.xyz[order], s.mask_features, s.pooled_mask_features[order], s.pooled_features[order]
    )
    a, b = answer(network, s, *ask(1, 3))[-1], answer(network, moved, *ask(1, 3))[-1]
    torch.testing.assert_close(a.mask_embeds, b.mask_embeds, rtol=1e-4, atol=1e-5)


def test_padding_changes_nothing() -> None:
    network, (queries, padding) = decoder(), ask(1, 3)
    plain = answer(network, scene(), queries, padding)[-1]
    filler = torch.full((1, 2, 10), 9.0)
    hidden = torch.tensor([[False, False, False, True, True]])
    padded = answer(network, scene(), torch.cat((queries, filler), 1), hidden)[-1]
    torch.testing.assert_close(padded.mask_embeds, plain.mask_embeds, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(padded.token_logits[..., :3], plain.token_logits[..., :3], rtol=1e-4, atol=1e-4)
    assert (padded.token_logits[..., 3:5] == -math.inf).all()
    assert torch.isfinite(padded.token_logits[..., -1]).all()


def test_a_thing_named_twice_gets_two_equal_columns() -> None:
    queries, padding = ask(1, 3)
    twice = torch.cat((queries, queries[:, :1]), 1)
    logits = answer(decoder(), scene(), twice, torch.zeros(1, 4, dtype=torch.bool))[-1].token_logits
    torch.testing.assert_close(logits[..., 0], logits[..., 3])
    assert padding.shape == (1, 3)


def test_query_sets_do_not_see_each_other() -> None:
    network, (queries, padding) = decoder(), ask(2, 3)
    both = answer(network, scene(), queries, padding)[-1]
    alone = answer(network, scene(), queries[1:], padding[1:])[-1]
    torch.testing.assert_close(both.mask_embeds[1:], alone.mask_embeds, rtol=1e-4, atol=1e-5)


def test_a_proposal_looks_only_where_its_last_mask_is() -> None:
    """A token outside of every mask changes nothing in the next layer, for proposals whose masks are not empty."""
    torch.manual_seed(0)
    attention = Attention(16, 2)
    q, k = torch.randn(1, 4, 16), torch.randn(1, 9, 16)
    attend = torch.rand(1, 4, 9) < 0.5
    attend[:, :, 0] = True
    attend[:, :, 8] = False
    before = attention(q, k, k, attend)
    changed = k.clone()
    changed[:, 8] += 5
    torch.testing.assert_close(attention(q, changed, changed, attend), before)
    attend[:, 2, 8] = True
    after = attention(q, changed, changed, attend)
    assert not torch.allclose(after[:, 2], before[:, 2])


def test_an_empty_mask_looks_everywhere() -> None:
    network, s = decoder(), scene()
    nowhere = SceneTokens(s.features, s.xyz, s.mask_features, torch.zeros(30, 21), s.pooled_features)
    nowhere.pooled_mask_features[:, 4:] = -1  # every logit is below 0
    start = answer(network, nowhere, *ask(1, 2))[0]
    assert network._attended(start, nowhere, 2).all()
    assert torch.isfinite(answer(network, nowhere, *ask(1, 2))[-1].mask_embeds).all()


def test_a_local_mask_fades_with_the_distance_from_its_centre() -> None:
    network = decoder(DecoderConfig(**{**vars(SMALL), "proposal_start": "sampled"}))
    torch.nn.init.normal_(network.heads.extent.weight, std=0.3)
    proposals, centres, xyz = torch.randn(1, 6, 16), torch.randn(6, 3), torch.randn(50, 3)
    queries, padding = ask(1, 2)
    embeds = network.heads(proposals, torch.randn(1, 2, 16), padding, centres, scene(), queries[..., :7]).mask_embeds[0]
    voxels = torch.randn(50, 12)
    features = network.mask_features(voxels, xyz, xyz.square().sum(1, keepdim=True))
    normed = network.heads.norm(proposals)[0]
    offset, bias, stiffness = network.heads.extent(normed).split((3, 1, 1), 1)
    distance = (xyz[None] - (centres + offset)[:, None]).square().sum(2)
    learned = network.heads.mask(normed) @ network.mask_projection(voxels).T
    expected = learned + bias - torch.nn.functional.softplus(stiffness) * distance
    torch.testing.assert_close(embeds @ features.T, expected, rtol=1e-4, atol=1e-4)


def test_attention_is_the_textbook_one() -> None:
    torch.manual_seed(3)
    attention = Attention(8, 2)
    q, k, v = torch.randn(2, 3, 8), torch.randn(2, 5, 8), torch.randn(2, 5, 8)
    attend = torch.rand(2, 3, 5) < 0.6
    attend[..., 0] = True
    out = torch.zeros(2, 3, 8)
    for b in range(2):
        for h in range(2):
            part = slice(4 * h, 4 * h + 4)
            Q, K, V = attention.q(q[b])[:, part], attention.k(k[b])[:, part], attention.v(v[b])[:, part]
            for row in range(3):
                score = (K @ Q[row] / 2).masked_fill(~attend[b, row], -math.inf)
                out[b, row, part] = score.softmax(0) @ V
    torch.testing.assert_close(attention(q, k, v, attend), attention.out(out), rtol=1e-4, atol=1e-5)


def test_farthest_points_are_those_of_the_definition() -> None:
    xyz = torch.randn(40, 3, generator=torch.Generator().manual_seed(0))
    chosen = farthest_points(xyz, 10).tolist()
    assert chosen[0] == int((xyz - xyz.mean(0)).norm(dim=1).argmax())
    for i in range(1, 10):
        distances = torch.cdist(xyz, xyz[chosen[:i]]).amin(1)
        assert chosen[i] == int(distances.argmax())
    assert sorted(farthest_points(xyz, 100).tolist()) == list(range(40))


def test_what_points_look_like_within_a_mask_speaks_for_a_query() -> None:
    """Turning the features of a proposal's own mask towards a query raises that correspondence, and no other's."""
    network, s = decoder(), scene()
    queries, padding = ask(1, 3)
    before = answer(network, s, queries, padding)[0]
    inside = before.mask_embeds[0, 2] @ s.pooled_mask_features.T > 0
    towards = torch.where(inside[:, None], 5 * queries[0, 1, :7], s.pooled_features)
    turned = SceneTokens(s.features, s.xyz, s.mask_features, s.pooled_mask_features, towards)
    after = answer(network, turned, queries, padding)[0]
    change = (after.token_logits - before.token_logits)[0, 2]
    assert change[:3].argmax() == 1
    assert change[1] > 1
    assert change[3] == 0


def test_where_masks_are_and_what_is_in_them_is_float32_whatever_autocast_says() -> None:
    """Far from the origin metres and their squares need all digits; learned layers, here taken out, may have fewer."""
    network, far = decoder(), scene()
    far = dataclasses.replace(far, pooled_mask_features=torch.cat((far.pooled_mask_features[:, :-5], 30 * far.xyz), 1))
    far = dataclasses.replace(
        far,
        pooled_mask_features=torch.cat(
            (far.pooled_mask_features, far.xyz.square().sum(1, keepdim=True) * 900, torch.ones(30, 1)), 1
        ),
    )
    heads = network.heads
    heads.mask = heads.proposal_side = heads.query_side = torch.nn.Identity()
    x = torch.randn(1, 9, 16, generator=torch.Generator().manual_seed(2))
    arguments = (
        x[:, :6],
        x[:, 6:],
        torch.zeros(1, 3, dtype=torch.bool),
        30 * torch.randn(6, 3),
        far,
        ask(1, 3)[0][..., :7],
    )
    expected = heads(*arguments)
    with torch.autocast("cpu", torch.bfloat16):
        found = heads(*arguments)
        attended = network._attended(found, far, 3)
    assert torch.equal(found.mask_embeds, expected.mask_embeds)
    assert torch.equal(found.token_logits, expected.token_logits)
    assert torch.equal(attended, network._attended(expected, far, 3))


def test_rooms_may_be_covered_more_densely_than_in_training() -> None:
    fields = {**vars(SMALL), "inference_proposals": 11}
    network = decoder(DecoderConfig(**{**fields, "proposal_start": "sampled"}))
    assert answer(network.eval(), scene(), *ask(1, 2))[-1].mask_embeds.shape[1] == 11
    assert answer(network.train(), scene(), *ask(1, 2))[-1].mask_embeds.shape[1] == SMALL.proposals
    with pytest.raises(ValueError, match="inference_proposals is for proposals that are sampled"):
        DecoderConfig(**fields)
