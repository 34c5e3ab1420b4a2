"""What is typed -> what is shown, in words and colours, and what is refused."""

from __future__ import annotations

import pytest

from liftgs.ground import EncodedScan, Grounder, encode, ground, load
from liftgs.ground import grounding as network
from liftgs.ground.files import phrase_colours
from liftgs.viewer.answers import MAX_CHARS, MAX_PHRASES, MAX_TOP, Answers, Finder, split_phrases
from liftgs.viewer.panel import describe, looking

ROOM = "procedural:apartments/000005?seed=1000000&width=96&height=96"


@pytest.fixture(scope="module")
def grounder() -> Grounder:
    return load("tiny")


@pytest.fixture(scope="module")
def known(grounder: Grounder) -> EncodedScan:
    return encode(grounder, ROOM)


@pytest.fixture
def find(grounder: Grounder, known: EncodedScan) -> Finder:
    return Finder(grounder, known)


def shown(answers: Answers) -> list[tuple[str, int, float]]:
    return [(found.match.phrase, found.match.rank, found.match.score) for found in answers.highlights]


@pytest.mark.parametrize(
    ("text", "phrases"),
    [
        ("a plant", ("a plant",)),
        (" a  plant ,the red chair", ("a plant", "the red chair")),
        ("a plant, a plant, a rug, a plant", ("a plant", "a rug")),
        ("a plant,", ("a plant",)),
        ("", ()),
        (" , ,", ()),
    ],
)
def test_commas_part_phrases(text: str, phrases: tuple[str, ...]) -> None:
    assert split_phrases(text) == phrases


def test_each_phrase_has_a_colour_of_its_own_also_on_its_masks(find: Finder) -> None:
    answers = find("a plant, a bookshelf, a rug", top=3, threshold=0)
    assert [phrase for phrase, _ in answers.phrases] == ["a plant", "a bookshelf", "a rug"]
    assert len({tuple(colour) for _, colour in answers.phrases}) == 3
    for phrase, colour in answers.phrases:
        assert 1 <= len(answers.of(phrase)) <= 3
        assert all((found.colour == colour).all() for found in answers.of(phrase))


def test_as_many_phrases_fit_as_there_are_colours_for_the_colour_blind(find: Finder) -> None:
    okabe_ito = {(230, 159, 0), (86, 180, 233), (0, 158, 115), (240, 228, 66), (0, 114, 178), (213, 94, 0)}
    assert {tuple(colour) for colour in phrase_colours(MAX_PHRASES).tolist()} == okabe_ito | {(204, 121, 167)}
    text = ",".join(f"thing {i}" for i in range(MAX_PHRASES + 1))
    assert "at most 7" in find(text, 1, 0).message


def test_the_viewer_finds_what_ground_finds(find: Finder, grounder: Grounder, known: EncodedScan) -> None:
    for top, threshold in ((1, 0.0), (3, 0.0), (MAX_TOP, 0.3)):
        expected = ground(grounder, known.scan, ["a plant", "a rug"], top, threshold)
        found = shown(find("a plant, a rug", top, threshold))
        assert found == [(match.phrase, match.rank, match.score) for match in expected.matches]
        assert found


def test_another_threshold_does_not_ask_the_network_again(find: Finder, monkeypatch: pytest.MonkeyPatch) -> None:
    everything = shown(find("a plant", MAX_TOP, 0))
    monkeypatch.setattr(network, "propose", lambda *_: pytest.fail("asked again"))
    limit = everything[1][2]
    assert shown(find("a plant", MAX_TOP, limit)) == everything[:2]
    assert shown(find("  a plant,", 1, 0)) == everything[:1]
    nothing = find("a plant", 1, 1.0)
    assert not nothing.highlights
    assert "nothing found" in describe(nothing)


def test_an_empty_text_takes_everything_back(find: Finder) -> None:
    assert find("a plant", 1, 0).highlights
    for text in ("", "  ", ","):
        answers = find(text, 1, 0)
        assert (answers.phrases, answers.highlights, answers.message) == ((), (), "")
        assert "Type what to look for" in describe(answers)


def test_a_text_that_cannot_be_asked_says_why_and_the_next_is_answered(find: Finder) -> None:
    answers = find("a plant, " + "very " * MAX_CHARS + "long", 1, 0)
    assert not answers.highlights
    assert f"at most {MAX_CHARS}" in answers.message
    assert answers.message in describe(answers)
    assert find("a plant", 1, 0).highlights


def test_the_panel_lists_phrases_with_colours_and_scores(find: Finder) -> None:
    answers = find("a plant, a rug", 2, 0)
    html = describe(answers)
    for phrase, colour in answers.phrases:
        assert phrase in html
        assert f"rgb({','.join(map(str, colour.tolist()))})" in html
        assert " ".join(f"{found.match.score:.2f}" for found in answers.of(phrase)) in html


def test_what_is_typed_is_text_and_never_markup(find: Finder) -> None:
    """All visitors see what one of them types."""
    text = "<img src=x onerror=alert(1)>"
    for html in (describe(find(text, 1, 0)), looking(text), describe(Answers(message=text))):
        assert "<img" not in html
        assert "&lt;img" in html
