"""What the small CLIP is trained for. Images against texts, and what each text's tokens must tell."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Bool, Float, Int64
from open_clip.tokenizer import SimpleTokenizer
from torch import Tensor, nn
from torch.nn import functional

from liftgs.procedural.colours import COLOURS
from liftgs.teachers.clip_text import project, token_spans
from liftgs.teachers.train.clip_batches import Batch, fits
from liftgs.teachers.train.clip_data import ALL_KINDS, Crops, RoomExpression

#: roles of a token in an expression
OTHER, TARGET, ANCHOR = 0, 1, 2
_IGNORE = -100
#: kinds are what the small network finds hardest, and what its users ask for first; the other losses weigh 1
WEIGHTS = {"kind": 2.0}


def token_states(model: Any, tokens: Int64[Tensor, "n l"]) -> Float[Tensor, "n l f"]:
    """Projected states of a CLIP's tokens, of unit length. As `model.encode_text`, but for texts of any length up to
    its context, which is much cheaper for short ones and the same for a causal tower.
    """
    length = tokens.shape[1]
    states = model.token_embedding(tokens) + model.positional_embedding[:length]
    states = model.ln_final(model.transformer(states, attn_mask=model.attn_mask[:length, :length]))
    return functional.normalize(project(model.text_projection, states), dim=-1)


def trimmed(tokenizer: SimpleTokenizer, texts: Sequence[str]) -> tuple[Int64[Tensor, "n l"], Int64[Tensor, " n"]]:
    """Tokens without the padding that no text needs, and the place of each end mark."""
    tokens = tokenizer(list(texts))
    ends = (tokens == tokenizer.eot_token_id).int().argmax(dim=1)
    return tokens[:, : int(ends.max()) + 1], ends


def pooled(states: Float[Tensor, "n l f"], ends: Int64[Tensor, " n"]) -> Float[Tensor, "n f"]:
    """The end marks' states."""
    return states[torch.arange(len(ends)), ends]


def multi_positive(logits: Float[Tensor, "n m"], positive: Bool[Tensor, "n m"]) -> Tensor:
    """Cross entropy of a softmax over the columns against equal shares for all positives; rows without any are
    left out.

    Source: Khosla et al. 2020, eq. 2.
    """
    rows = positive.any(dim=1)
    if not rows.any():
        return logits.sum() * 0
    share = positive[rows].float()
    share = share / share.sum(dim=1, keepdim=True)
    return -(share * functional.log_softmax(logits[rows], dim=1)).sum(dim=1).mean()


class TokenTasks(nn.Module):
    """Linear read-outs that exist in training only: the end mark must tell the target, the relation and the first
    anchor, and every token whether it belongs to the target or to an anchor, and the last one of a mention its kind and
    colour. Without them, nothing would make the text tower keep what a single crop cannot show.

    Args:
        width: F.
        relations: names, "" included.
    """

    def __init__(self, width: int, relations: Sequence[str]):
        super().__init__()
        self.relations = tuple(relations)
        kinds, colours = len(ALL_KINDS) + 1, len(COLOURS) + 1
        sizes = {
            "target kind": kinds,
            "target colour": colours,
            "relation": len(self.relations),
            "anchor kind": kinds,
            "anchor colour": colours,
        }
        self.whole = nn.ModuleDict({name: nn.Linear(width, size) for name, size in sizes.items()})
        self.role = nn.Linear(width, 3)
        self.kind = nn.Linear(width, kinds)
        self.colour = nn.Linear(width, colours)

    def forward(
        self,
        states: Float[Tensor, "n l f"],
        ends: Int64[Tensor, " n"],
        expressions: Sequence[RoomExpression],
        tokenizer: SimpleTokenizer,
    ) -> Tensor:
        """The mean of all cross entropies."""
        states = states * states.shape[-1] ** 0.5  # unit rows are too short for linear layers of usual scale
        last = pooled(states, ends)
        losses = []
        facts = [self._facts(expression) for expression in expressions]
        for name, head in self.whole.items():
            losses.append(functional.cross_entropy(head(last), torch.tensor([fact[name] for fact in facts])))
        roles, kinds, colours = (torch.full(states.shape[:2], _IGNORE) for _ in range(3))
        for i, expression in enumerate(expressions):
            _mark(i, expression, tokenizer, roles, kinds, colours)
        for head, wanted in ((self.role, roles), (self.kind, kinds), (self.colour, colours)):
            there = wanted != _IGNORE
            losses.append(functional.cross_entropy(head(states[there]), wanted[there]))
        return torch.stack(losses).mean()

    def _facts(self, expression: RoomExpression) -> dict[str, int]:
        anchors = expression.mentions[1:]
        none = (len(ALL_KINDS), len(COLOURS))
        anchor = _indices(expression, 1) if anchors else none
        kind, colour = _indices(expression, 0)
        return {
            "target kind": kind,
            "target colour": colour,
            "relation": self.relations.index(expression.relation),
            "anchor kind": anchor[0],
            "anchor colour": anchor[1],
        }


def _indices(expression: RoomExpression, mention: int) -> tuple[int, int]:
    """(kind, colour) of a mention as far as its words say; one past the end otherwise."""
    named = expression.mentions[mention]
    words = expression.text[slice(*named.chars)].lower()
    kind = ALL_KINDS.index(named.kind) if named.kind in words else len(ALL_KINDS)
    colour = COLOURS.index(named.colour) if named.colour in words.split() else len(COLOURS)
    return kind, colour


def _mark(
    row: int, expression: RoomExpression, tokenizer: SimpleTokenizer, roles: Tensor, kinds: Tensor, colours: Tensor
) -> None:
    spans = token_spans(tokenizer, expression.text)
    roles[row, 1 : len(spans) - 1] = OTHER
    for i, mention in enumerate(expression.mentions):
        inside = [t for t, (low, high) in enumerate(spans) if low < mention.chars[1] and mention.chars[0] < high]
        inside = [t for t in inside if t < roles.shape[1] - 1]
        if inside:
            roles[row, inside] = TARGET if i == 0 else ANCHOR
            kinds[row, inside[-1]], colours[row, inside[-1]] = _indices(expression, i)


def objective(
    model: Any,
    tasks: TokenTasks,
    tokenizer: SimpleTokenizer,
    images: Float[Tensor, "b f"],
    crops: Crops,
    batch: Batch,
) -> tuple[Tensor, dict[str, float]]:
    """The loss of a step, and its parts for the log.

    Args:
        model: open_clip's CLIP.
        tasks: read-outs.
        tokenizer: of the model.
        images: unit rows of the batch's crops.
        crops: the training set.
        batch: the step.
    """
    scale = model.logit_scale.exp()
    short = [*batch.kinds, *batch.colours, *(phrase.text for phrase in batch.phrases)]
    tokens, ends = trimmed(tokenizer, short)
    texts = pooled(token_states(model, tokens), ends)
    logits = scale * images @ texts.T
    of_kinds, of_colours, of_phrases = logits.split([len(batch.kinds), len(batch.colours), len(batch.phrases)], dim=1)
    kinds = torch.tensor([ALL_KINDS.index(kind) for kind in crops.kinds[batch.rows]])
    colours = torch.tensor([COLOURS.index(colour) for colour in crops.colours[batch.rows]])
    fitting = torch.from_numpy(fits(batch.phrases, crops, batch.rows))
    losses = {
        "kind": functional.cross_entropy(of_kinds, kinds),
        "colour": functional.cross_entropy(of_colours, colours),
        "phrase": (multi_positive(of_phrases, fitting.T) + multi_positive(of_phrases.T, fitting)) / 2,
    }
    if batch.expressions:
        expressions = [expression for expression, _ in batch.expressions]
        tokens, ends = trimmed(tokenizer, [expression.text for expression in expressions])
        states = token_states(model, tokens)
        fitting = torch.from_numpy(fits([claim for _, claim in batch.expressions], crops, batch.rows))
        losses["expression"] = multi_positive(scale * pooled(states, ends) @ images.T, fitting)
        losses["tokens"] = tasks(states, ends, expressions, tokenizer)
    report = {name: float(loss.detach()) for name, loss in losses.items()}
    with torch.no_grad():
        report["kind right"] = float((of_kinds.argmax(dim=1) == kinds).float().mean())
        report["colour right"] = float((of_colours.argmax(dim=1) == colours).float().mean())
    return torch.stack([WEIGHTS.get(name, 1.0) * loss for name, loss in losses.items()]).sum(), report


def relation_names(expressions: Sequence[RoomExpression]) -> list[str]:
    """All relations of a training set, "" first."""
    return sorted({"", *(expression.relation for expression in expressions)})
