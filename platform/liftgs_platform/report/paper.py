"""What the paper reports, to stand beside our own tables: Cao et al. 2025, "From Thousands to Billions" (LIFT-GS).

Its networks, scenes and expressions are others than ours, so only directions compare, never numbers.
"""

from __future__ import annotations

from dataclasses import dataclass

_ACCURACIES = ("Acc@.25", "Acc@.5", "Acc@.75")


@dataclass(frozen=True)
class PaperTable:
    """A table of the paper.

    Attributes:
        number: its own, e.g. "Table 6".
        title: what it shows.
        columns: heads after the first.
        rows: name, then a value per column, in percent unless the head says otherwise; None where it is not printed.
        note: what has to be known to read it.
    """

    number: str
    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, tuple[float | None, ...]], ...]
    note: str = "ScanRefer, SR3D and NR3D together, on ScanNet."


FINETUNE_SCALING = PaperTable(
    "Table 5, figures 7 and 8",
    "share of the labels for finetuning",
    ("scratch", "pretrained", "multiplier"),
    (
        ("0.1", (None, None, 2.0)),
        ("0.2", (None, None, 2.0)),
        ("0.5", (None, None, 2.0)),
        ("1", (27.23, 33.75, None)),
    ),
    "Acc@.5. The text says that the multiplier is about 2 at 10, 20 and 50 % of the labels, and that half of them "
    "pretrained equals all of them from scratch; the last line is that of Table 4. On instance segmentation (figure 8) "
    "it is less.",
)
PRETRAIN_MIX = PaperTable(
    "Table 6",
    "corpora for pretraining",
    _ACCURACIES,
    (
        ("ScanNet", (47.53, 33.75, 13.49)),
        ("+ ScanNet++", (48.29, 34.35, 14.06)),
        ("++ Taskonomy and Aria", (48.49, 34.41, 14.35)),
    ),
    "ScanRefer, SR3D and NR3D together, on ScanNet. The text says that ScanNet++, 30 % of the data, was worth 15 % "
    "more labels.",
)
LOSSES = PaperTable(
    "Table 4",
    "losses of pretraining",
    _ACCURACIES,
    (
        ("scratch", (42.19, 27.23, 9.66)),
        ("ground", (46.34, 31.54, 12.50)),
        ("ground + RGB", (46.67, 31.81, 12.45)),
        ("RGB + feature", (47.69, 31.35, 11.36)),
        ("ground + RGB + feature", (47.53, 33.75, 13.49)),
    ),
)
TEACHERS = PaperTable(
    "Table 7",
    "2D teachers",
    _ACCURACIES,
    (
        ("SAM-B + CLIP-B", (46.31, 31.50, 12.41)),
        ("SAM-H + CLIP-L", (47.53, 33.75, 13.49)),
        ("SAM-H + LLaMA captions", (47.50, 32.78, 13.25)),
    ),
    "ScanRefer, SR3D and NR3D together, on ScanNet. The first line is MobileSAM (ViT-tiny), says the text.",
)
PONDER = PaperTable(
    "Table 3",
    "other ways to pretrain",
    _ACCURACIES,
    (
        ("scratch", (42.19, 27.23, 9.66)),
        ("PonderV2 (official)", (40.92, 25.97, 8.84)),
        ("PonderV2 on SAM-CLIP", (45.40, 29.36, 9.29)),
        ("LIFT-GS", (47.53, 33.75, 13.49)),
    ),
)
LIFTED = PaperTable(
    "Table 8",
    "against lifted 3D pseudo-labels",
    ("Acc@.25", "Acc@.5"),
    (
        ("scratch (RGB)", (44.1, 30.6)),
        ("3D pseudo-labels", (50.1, 34.7)),
        ("2D pseudo-labels (LIFT-GS features)", (51.8, 38.3)),
        ("LIFT-GS (finetuned)", (54.7, 40.5)),
    ),
    "With a larger mask decoder than its other tables have.",
)

_PRESETS = {
    "pretrain_mix": (PRETRAIN_MIX,),
    "losses": (LOSSES,),
    "teachers": (TEACHERS,),
    "baselines": (PONDER, LIFTED),
}


def tables_for(sweep: str) -> tuple[PaperTable, ...]:
    """What to show beside a sweep's table of arms: that of the preset in its name, else Table 6."""
    return next((tables for preset, tables in _PRESETS.items() if preset in sweep), (PRETRAIN_MIX,))
