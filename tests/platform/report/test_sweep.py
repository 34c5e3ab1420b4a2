"""The page about a sweep: says what the numbers allow, draws them where they are, and stands alone."""

from __future__ import annotations

import base64
import csv
import io
import math
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from made_sweep import RATIOS, made_sweep
from PIL import Image

from liftgs import cli
from liftgs_platform.report import sweep, sweep_tables, sweep_words
from liftgs_platform.sweep_answers import answer
from liftgs_platform.sweep_results import COMPUTE, SCRATCH, MultiplierRow, SweepResults

VOID = {"meta", "br", "img", "link", "input", "hr"}
HOSTILE = """<script>alert("1")</script>'&amp; <b>"""


class Page(HTMLParser):
    """Checks that every element is closed in order; keeps attributes and what one reads."""

    def __init__(self, page: str):
        super().__init__()
        self.open: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.words: list[str] = []
        self.tags: list[str] = []
        self.feed(page)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not {"style", "script"} & set(self.open):
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def page_of(results: SweepResults) -> Page:
    return Page(sweep.render(results, answer(results)))


def svgs(page: str) -> list[ElementTree.Element]:
    return [ElementTree.fromstring(found) for found in re.findall(r"<svg.*?</svg>", page, re.DOTALL)]


def row(
    multiplier: float = 2.3, low: float = 1.9, high: float = 2.8, censored: str = "", seeds: int = 3
) -> MultiplierRow:
    return MultiplierRow("A+B", None, multiplier, low, high, censored, seeds, "AP25")


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([row()], "Pretraining on A+B is worth 2.3× the labels, 95 % CI 1.9 to 2.8, from 3 seeds."),
        (
            [row(1.2, 0.8, 1.6)],
            "1.2× the labels, 95 % CI 0.80 to 1.6, from 3 seeds: the interval covers 1, so this sweep does not show",
        ),
        ([row(0.6, 0.4, 0.9)], "so it does harm here"),
        (
            [row(4.0, 3.1, math.inf, "above")],
            "worth at least 4.0× the labels, 95 % CI 3.1 and up, from 3 seeds: it scores higher than anything",
        ),
        ([row(2.0, 0.9, math.inf, "above")], "a lower bound; the interval covers 1"),
        ([row(0.5, 0.0, 0.8, "below")], "worth at most 0.50× the labels, 95 % CI up to 0.80"),
        (
            [row(2.3, math.nan, math.nan, seeds=1)],
            "from 1 seed: without a second seed there is no telling how sure that is.",
        ),
        ([], "No answer"),
        ([row(math.nan)], "No answer"),
        ([row(), replace(row(3.0), mix="C")], "Pretraining on C, the highest of 2 mixes, is worth 3.0×"),
    ],
)
def test_the_answer_claims_what_was_shown(rows: list[MultiplierRow], said: str) -> None:
    assert said in sweep_words.lead(rows, False, False)
    assert ("covers 1" in sweep_words.lead(rows, False, False)) == any(r.low <= 1 <= r.high for r in rows)


def test_an_unfair_comparison_is_never_an_answer() -> None:
    said = sweep_words.lead([replace(row(), undertrained=True)], undertrained=True, warned=True)
    assert said.startswith("Not to be quoted: pretraining on A+B is worth 2.3×")
    assert "scratch is under-trained" in said
    assert sweep_words.lead([row()], undertrained=False, warned=True).endswith("With reservations, which follow.")


def test_what_ends_before_scratch_is_under_trained_is_an_answer() -> None:
    low, middle = replace(row(4.0, 2.5, 6.0), ratio=0.1), replace(row(2.0, 1.5, 3.0, seeds=2), ratio=0.2)
    high = replace(row(1.1, 0.9, 1.3), ratio=1.0, undertrained=True)
    said = sweep_words.lead([low, middle, high, replace(row(), undertrained=True)], undertrained=True, warned=True)
    assert said == (
        "Pretraining on A+B is worth 4.0× the labels at ratio 0.1 and 2.0× at ratio 0.2 (95 % CI 2.5 to 6.0 and "
        "1.5 to 3.0, from 2 to 3 seeds). With reservations, which follow."
    )


@pytest.mark.parametrize(
    ("made", "warning"), [({"plateau": False}, "ended before any plateau"), ({"compute": 1.5}, "under-trained")]
)
def test_an_undertrained_scratch_curve_is_told_at_once(made: dict[str, Any], warning: str) -> None:
    page = page_of(made_sweep({"A": 2.0}, **made))
    assert page.text.index("Not to be quoted") < page.text.index(warning)
    fair = page_of(made_sweep({"A": 2.0})).text
    assert "Not to be quoted" not in fair


def test_of_equal_bounds_the_higher_mix_leads_and_the_other_is_told_once() -> None:
    page = page_of(made_sweep({"A": 30.0, "B": 60.0}, ratios=(0.5, 1.0)))  # both above all that scratch reaches
    told = page.text[: page.text.index(" ratios of labels")]
    assert (told.count("retraining on A"), told.count("retraining on B")) == (1, 1)


def test_the_page_says_which_arms_went_on_with_pretraining() -> None:
    page = page_of(made_sweep({"A": 2.0, "B": 1.5}, replay={"A": 0.5}))
    assert re.search(
        r"A: [\d, to]+ steps, 50% of them on what it was pretrained on, \d+ of \d+ runs stopped", page.text
    )
    assert re.search(r"B: [\d, to]+ steps, \d+ of \d+ runs stopped", page.text)
    beyond = "the paper finetunes on labels alone"
    assert beyond in page.text
    assert beyond not in page_of(made_sweep({"A": 2.0})).text


def test_the_page_is_whole_and_stands_alone() -> None:
    results = made_sweep({"A": 1.5, "A+B": 2.2}, mixes={"A": {"a": 400}, "A+B": {"a": 400, "b": 120}})
    html = sweep.render(results, answer(results))
    page = Page(html)
    for name, value in page.attributes:
        if name in ("src", "href", "srcset", "poster", "data", "action", "xlink:href"):
            assert value.startswith("data:"), (name, value[:80])
        assert "url(" not in value
    assert "script" not in page.tags
    assert "link" not in page.tags
    assert not re.search(r"@import|url\(|https?://", html)
    assert all(drawing.tag == "svg" for drawing in svgs(html))
    assert not re.search(r"\b(nan|inf|None)\b", page.text)


def test_the_answer_comes_first_then_the_warnings_then_the_evidence() -> None:
    whole = made_sweep({"A": 2.0})
    text = page_of(replace(whole, cells=whole.cells[1:])).text
    places = [
        text.index(part)
        for part in ("worth", "are missing", "Scaling", "Multipliers", "fair?", "Beside the paper", "Cost")
    ]
    assert places == sorted(places)


def test_names_from_outside_stay_words() -> None:
    results = made_sweep({HOSTILE: 2.0}, name=HOSTILE, provenance={HOSTILE: {HOSTILE: HOSTILE}}, task_metric="AP25")
    cells = tuple(
        replace(
            c,
            classes={HOSTILE: c.classes["chair"]},
            groups={HOSTILE: c.groups["on"]},
            figures={"AP25": c.figures["AP25"], HOSTILE: c.figures["AP50"]},
            scenes={HOSTILE: 0.5},
            pictures={HOSTILE: HOSTILE},
        )
        for c in results.cells
    )
    page = page_of(replace(results, cells=cells, mixes={HOSTILE: {HOSTILE: 3}}, orderings=((HOSTILE, SCRATCH),)))
    assert "script" not in page.tags
    assert page.text.count(" ".join(HOSTILE.split())) > 10
    assert not any(name.startswith("on") for name, _ in page.attributes)


def drawn(results: SweepResults) -> tuple[ElementTree.Element, dict[str, float]]:
    """The large figure, and where its axis has each ratio."""
    html = sweep.render(results, answer(results))
    large = next(found for found in svgs(html) if found.get("width") == "760")
    ticks = {t.text or "": float(t.get("x", "nan")) for t in large.iter("text") if t.get("text-anchor") == "middle"}
    return large, ticks


def arrows_of(large: ElementTree.Element) -> list[tuple[float, float, float, str, str]]:
    """Start, stop, height, kind and label of each."""
    found = []
    for group in large.iter("g"):
        for inner in group.findall("g"):
            if "arrow" in inner.get("class", ""):
                start, y, _ = map(float, re.findall(r"[-\d.]+", inner.find("path").get("d")))  # type: ignore[union-attr, arg-type]
                head = inner.find("polygon") if inner.find("polygon") is not None else inner.find("polyline")
                tip = float(head.get("points", "").split()[1].split(",")[0])  # type: ignore[union-attr]
                found.append((start, tip, y, inner.get("class", ""), group.findtext("text") or ""))
    return found


def test_arrows_run_from_the_pretrained_score_to_where_scratch_reaches_it() -> None:
    exact = made_sweep(
        {"A": 2.0}, ratios=(0.1, 0.2, 0.5), scratch_ratios=(0.1, 0.2, 0.4, 0.5, 1.0), noise=1e-6, zero_shot=False
    )
    large, ticks = drawn(exact)
    found = arrows_of(large)
    assert [label for *_, label in found] == ["2.0×"] * 3
    for (start, tip, _, _, _), (ratio, reached) in zip(
        found, (("0.1", "0.2"), ("0.2", "0.4"), ("0.5", "1")), strict=True
    ):
        assert start == pytest.approx(ticks[ratio], abs=0.2)
        assert tip == pytest.approx(ticks[reached], abs=0.6)
    marks = [
        m
        for group in large.iter("g")
        if group.get("class") == "k0"
        for m in group.findall("polygon")
        if m.get("class") == "mark"
    ]
    heights = [np.mean([float(p.split(",")[1]) for p in m.get("points", "").split()]) for m in marks]
    assert [y for _, _, y, _, _ in found] == pytest.approx(heights, abs=0.2)  # squares, so their middle is their place


def test_what_scratch_never_reaches_ends_open_at_the_edge() -> None:
    large, ticks = drawn(made_sweep({"A": 3.0}, scratch_ratios=RATIOS, noise=1e-6, zero_shot=False))
    *inside, last = arrows_of(large)
    assert last[1] > ticks["1"] + 5
    assert "bound" in last[3]
    assert last[4] == "≥ 1.0×"
    assert "bound" not in inside[0][3]


def test_harm_points_to_fewer_labels() -> None:
    large, _ = drawn(made_sweep({"A": 0.6}, ratios=(0.2, 0.5), noise=1e-6))
    assert all(tip < start for start, tip, *_ in arrows_of(large))


def test_zero_shot_stands_apart_on_the_logarithmic_axis() -> None:
    _, ticks = drawn(made_sweep({"A": 2.0}))
    assert ticks["0"] < ticks["0.1"] - 20


def test_missing_runs_are_said_and_do_not_break_the_page() -> None:
    whole = made_sweep({"A": 2.0})
    lost = tuple(
        c for c in whole.cells if (c.mix, c.ratio, c.seed) not in {("A", 0.2, 1), ("A", 0.2, 2), (SCRATCH, 0.5, 0)}
    )
    text = page_of(replace(whole, cells=lost)).text
    assert "Runs of A are missing, as yet or for good: ratio 0.2 (seed 1, 2)." in text
    assert "Runs of scratch are missing, as yet or for good: ratio 0.5 (seed 0)." in text


def test_what_no_arm_has_is_missed_too() -> None:
    """A mix whose pretraining failed, a seed that is not there yet, a ratio, zero-shot: no arm shows their lack."""
    whole = made_sweep({"A": 2.0, "B": 3.0})
    kept = tuple(c for c in whole.cells if c.mix != "B" and c.seed < 2 and c.ratio not in (0.0, 0.5))
    text = page_of(replace(whole, cells=kept)).text
    assert f"{len(kept)} networks of {len(whole.cells)}, " in text
    assert "Runs of B are missing, as yet or for good: zero-shot (seed 0, 1, 2), ratio 0.1 (seed 0, 1, 2)" in text
    assert "Runs of A are missing, as yet or for good: zero-shot (seed 0, 1, 2), ratio 0.1 (seed 2)" in text
    assert "ratio 0.5 (seed 0, 1, 2)" in text
    assert "With reservations, which follow." in text


def test_a_sweep_at_one_ratio_answers_with_its_orderings_and_is_not_spared_the_warnings() -> None:
    made: dict[str, Any] = {"ratios": (0.2,), "scratch_ratios": (0.2,), "compute": None, "plateau": False}
    results = made_sweep({"A": 2.0, "B": 4.0}, orderings=(("B", "A", SCRATCH),), **made)
    text = page_of(results).text
    assert re.search(r"Not to be quoted: B > A: \w[\w ]* \(\+[\d.]+ points, 95 % CI .*; A > scratch: holds", text)
    assert "Runs of A ended before any plateau was seen (3 of 3 at ratio 0.2)" in text
    assert "pretrained on B (filled)" in text, "the highest mix stands for a best one"


def test_ratios_that_are_no_whole_scenes_are_told() -> None:
    results = made_sweep({"A": 2.0})
    assert "multipliers are read at the ratios" not in page_of(results).text
    cells = tuple(replace(c, labelled_scenes={0.1: 2, 0.2: 4}.get(c.ratio, round(16 * c.ratio))) for c in results.cells)
    text = page_of(replace(results, cells=cells)).text
    assert "Of 16 labelled scenes, ratio 0.1 is 2 scenes, 0.2 is 4 scenes; multipliers are read at the ratios" in text


def test_mixes_are_ranked_by_what_all_of_them_have() -> None:
    """One that ended at the low ratios alone must not look worse for it."""
    whole = made_sweep({"A": 1.2, "B": 3.0})
    cells = tuple(c for c in whole.cells if c.mix != "B" or c.ratio in (0.1, 0.2))
    assert answer(replace(whole, cells=cells)).highest == "B"


def test_one_seed_draws_no_interval() -> None:
    results = made_sweep({"A": 2.0}, seeds=1)
    html = sweep.render(results, answer(results))
    assert "no intervals, which take a second seed" in Page(html).text
    assert not re.search(r"[ \"MHV,]nan", html)


def test_data_transferred_is_told_at_each_ratio_whether_or_not_a_law_fits() -> None:
    text = page_of(made_sweep({"A": 2.0}, ratios=(0.1, 0.2, 0.5), noise=1e-6)).text
    found = re.search(
        r"transferred by A: ([\d.]+), ([\d.]+) and ([\d.]+) labelled scenes beside 8, 16 and 40; about", text
    )
    assert found
    assert [float(part) for part in found.groups()] == pytest.approx([8, 16, 40], rel=0.2)
    harm = page_of(made_sweep({"A": 0.7}, ratios=(0.2, 0.5), noise=1e-6)).text
    assert re.search(r"transferred by A: −[\d.]+ and −[\d.]+ labelled scenes beside 16 and 40\.", harm)


@pytest.mark.parametrize(
    "keep",
    [
        lambda c: c.mix != SCRATCH,
        lambda c: c.mix == SCRATCH,
        lambda c: c.ratio in (0.0, 0.1),
        lambda c: c.seed == 0,
        lambda c: c.ratio == 0,
        lambda c: False,
    ],
    ids=["no scratch", "only scratch", "one ratio", "one seed", "only zero-shot", "nothing"],
)
def test_half_a_sweep_still_has_a_page(keep: Any) -> None:
    whole = made_sweep({"A": 2.0})
    page = page_of(replace(whole, cells=tuple(filter(keep, whole.cells))))
    one_seed = any(keep(c) and c.mix == SCRATCH for c in whole.cells) and keep(
        next(c for c in whole.cells if c.mix == "A" and c.ratio == 0.5)
    )
    assert ("No answer" in page.text) == (not one_seed)
    assert not re.search(r"\b(nan|inf|None)\b", page.text)


def test_three_rows_stand_in_every_comparison() -> None:
    text = page_of(made_sweep({"A": 2.0})).text
    assert "ratio scratch scratch, more compute A 0 zero-shot" in text
    results = made_sweep({"A": 2.0})
    _, _, scores = results.scores(SCRATCH, "AP25", COMPUTE)
    assert f"{100 * scores[0, :, 0].mean():.1f}" in text


def test_the_downloads_are_the_tables() -> None:
    results = made_sweep({"A": 2.0})
    links = [value for name, value in page_of(results).attributes if name == "href"]
    tables = [
        list(csv.DictReader(io.StringIO(base64.b64decode(link.partition("base64,")[2]).decode()))) for link in links
    ]
    assert list(tables[0][0]) == [
        "mix",
        "ratio",
        "multiplier",
        "low",
        "high",
        "censored",
        "seeds",
        "metric",
        "undertrained",
    ]
    assert [line["ratio"] for line in tables[0]] == ["0.1", "0.2", "0.5", "1.0", "all"]
    assert len(tables[1]) == len(results.cells)


def test_costs_count_every_stage_as_often_as_a_plain_grid_would() -> None:
    results = made_sweep({"A": 2.0}, seeds=2)  # label for 8 networks, pretraining for 8
    text = page_of(results).text
    assert re.search(r"label .* pretrain .* finetune .* evaluate .* all ", text[text.index("plain grid saved") :])
    grid, once = 900 * 8 + 4000 * 8 + 600 + 60, 900 + 4000 + 600 + 60
    assert f"saves {grid - once:,} stage-seconds ({1 - once / grid:.0%})" in text


def test_provenance_names_what_was_set() -> None:
    spec = {"labelled": [{"uri": "", "source": "procedural:rooms"}], "label": [], "on_ray": False}
    rows = {
        one["key"]: one["value"]
        for one in sweep_tables.provenance(SweepResults("a", "AP25", (), provenance={"spec": spec}))
    }
    assert rows == {"spec.labelled.0.source": "procedural:rooms", "spec.on_ray": "False"}


def test_the_paper_is_marked_as_another_data_set() -> None:
    for name, number in (
        ("sweep", "Table 6"),
        ("losses", "Table 4"),
        ("teachers", "Table 7"),
        ("baselines", "Table 8"),
    ):
        text = page_of(made_sweep({"A": 2.0}, name=name)).text
        assert f"The paper's {number}, another data set" in text
        assert "numbers may not" in text


def test_classes_that_gain_most_come_first_and_disagreeing_seeds_are_not_bold() -> None:
    results = made_sweep({"A": 2.0}, ratios=(0.1,), seeds=2)
    torn = replace(
        results,
        cells=tuple(
            replace(
                c,
                classes={
                    **c.classes,
                    "torn": {"AP25": 0.3 + (0.1 if c.seed else -0.1) * (c.mix == "A"), "instances": 4.0},
                },
            )
            for c in results.cells
        ),
    )
    html = sweep.render(torn, answer(torn))
    table = html[html.index("<h2>Classes") :]
    names = re.findall(r"<tr><td>(\w+)</td>", table[: table.index("</table>")])
    assert names[0] == "plant"
    assert names[-1] == "torn"
    assert re.search(r"<td>torn</td>.*\n?.*<td class=\"n\">0\.0</td></tr>", table)
    assert re.search(r"<td>plant</td>.*\n?.*<td class=\"n\"><b>\+", table)


def test_rooms_are_shown_best_and_worst_and_a_lost_picture_is_said(tmp_path: Path) -> None:
    Image.new("RGB", (40, 20), (250, 0, 0)).save(tmp_path / "room.png")
    (tmp_path / "broken.png").write_bytes(b"no picture")
    pictures = dict.fromkeys((f"room-{i:02d}" for i in range(12)), str(tmp_path / "room.png"))
    pictures["room-03"] = str(tmp_path / "broken.png")
    results = made_sweep({"A": 2.0})
    scenes = {name: i / 20 for i, name in enumerate(pictures)}
    cells = tuple(
        replace(c, pictures=pictures, scenes={n: v - 0.3 + (v if c.mix == "A" else 0.2) for n, v in scenes.items()})
        for c in results.cells
    )
    page = page_of(replace(results, cells=cells))
    assert [w for w in page.words if re.fullmatch(r"room-\d\d: \S+ points", w)] == [
        "room-11: +35.0 points",
        "room-10: +30.0 points",
        "room-09: +25.0 points",
        "room-00: −20.0 points",
    ]
    assert page.tags.count("img") == 8
    lost = page_of(replace(results, cells=tuple(replace(c, pictures={"room-03": pictures["room-03"]}) for c in cells)))
    assert "no picture" in lost.text


def test_the_command_writes_the_page_or_says_what_is_wrong(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def run(results: str, *more: str) -> int | str | None:
        with pytest.raises(SystemExit) as ended:
            cli.main(["sweep-report", results, *more])
        return ended.value.code

    made_sweep({"A": 2.0}, seeds=2, draws=10).write(str(tmp_path / "results.json.gz"))
    target = tmp_path / "page.html"
    assert run(str(tmp_path / "results.json.gz"), "--output", str(target)) == 0
    assert "worth" in Page(target.read_text(encoding="utf-8")).text
    (tmp_path / "other.json").write_text("{}")
    for uri in (str(tmp_path / "other.json"), str(tmp_path / "missing.json"), "q3://a/b", "/etc/passwd/x"):
        assert run(uri) == 1
        said = capsys.readouterr().err
        assert said.startswith("liftgs: ")
        assert uri in said
        assert said.count("\n") == 1


def test_a_corpus_counts_by_the_labels_that_it_saves() -> None:
    """Worth 1.5 and 2.4 times the labels: the second corpus is worth 60 % more of them."""
    mixes = {"A": {"a": 400}, "A+B": {"a": 400, "b": 120}, "A+C": {"a": 300, "c": 120}}
    results = made_sweep(
        {"A": 1.5, "A+B": 2.4, "A+C": 2.0}, mixes=mixes, noise=1e-6, ratios=(0.1, 0.15, 0.2, 0.4, 0.6, 1.0)
    )
    found = answer(results).additions
    assert {(one.base, one.mix, one.adds) for one in found} == {("A", "A+B", "b")}  # A+C holds less of a
    assert found[0].growth == pytest.approx(0.3)
    assert [one.labels.value for one in found[:4]] == pytest.approx([0.6] * 4, abs=0.03)
    assert found[-1].labels.censored == "above"


def test_claims_hold_are_reversed_or_are_not_shown() -> None:
    results = made_sweep(
        {"A": 2.0, "B": 2.0, "C": 4.0}, orderings=(("C", "A", SCRATCH), ("A", "C"), ("A", "B"), ("A", "nowhere"))
    )
    claims = {(one.better, one.worse): one for one in answer(results).claims}
    assert {pair: one.verdict for pair, one in claims.items()} == {
        ("C", "A"): "holds",
        ("A", SCRATCH): "holds",
        ("A", "C"): "reversed",
        ("A", "B"): "not shown",
        ("A", "nowhere"): "not run",
    }
    gap = results.scores("C", "AP25")[2][1:, :, 0].mean() - results.scores("A", "AP25")[2][1:, :, 0].mean()
    assert claims["C", "A"].by.value == pytest.approx(gap)
    assert claims["C", "A"].chance == 1
