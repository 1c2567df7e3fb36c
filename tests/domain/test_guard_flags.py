"""Flags of the guard: raised, extended by new evidence, and the parameters of rules."""

import pytest

from domain.abuse.findings import RuleFinding, benjamini_hochberg
from domain.abuse.guard import Guard, parameters_of
from domain.events import facts
from tests.support.documents import Document
from tests.support.guard_story import Story


def test_a_flag_is_raised_once_grows_with_evidence_and_again_only_on_new_evidence() -> None:
    story = Story()
    for number in range(12):
        story.gives(f"A-{number % 4}", 10, customer="C-claims", order=f"O-{number}", reason=f"reason {number}")
    assert story.rules() == ["R10"]
    assert [one.number for one in story.raised] == [1, 2, 3, 4, 5, 6, 7]  # at three tenths of the chance
    story.guard.reviewed(story.raised[0].flag_id, len(story.seen))
    story.gives("A-1", 10, customer="C-claims", order="O-new", reason="new")
    assert story.rules() == ["R10"]
    for number in range(6):
        story.gives(f"A-{number % 4}", 10, customer="C-claims", order=f"P-{number}", reason=f"new {number}")
    assert story.rules() == ["R10", "R10"]


def test_a_pattern_without_end_is_told_anew_ever_more_seldom() -> None:
    story = Story()
    for number in range(400):
        for giver, receiver in (("A-1", "A-2"), ("A-2", "A-1")):
            fields: Document = {"recognition_id": f"t-{giver}-{number}", "giver_id": giver, "receiver_id": receiver}
            story.tell(facts.RecognitionGiven(**fields, reason="thanks", points=10), number / 10)
    assert story.rules() == ["R11"]
    assert len(story.raised) < 25  # at three tenths of the chance, then at half as much evidence again


def test_the_same_history_gives_the_same_flags() -> None:
    story = Story()
    story.ordinary()
    for number in range(15):
        story.gives("A-0", 19.0 + number % 10 / 10)
    story.night()
    again = Guard()
    assert [one for seen in story.seen for one in again.take(seen)] == story.raised


def test_parameters_are_known_or_refused() -> None:
    assert parameters_of({"R1": {"fraction": 0.95}})["R1"]["fraction"] == pytest.approx(0.95)
    with pytest.raises(ValueError, match="there is no rule R99"):
        parameters_of({"R99": {}})
    with pytest.raises(ValueError, match="R1 has no parameter x"):
        parameters_of({"R1": {"x": 1}})  # type: ignore[typeddict-unknown-key]


def test_benjamini_and_hochbergs_own_example() -> None:
    """Their fifteen p-values of 1995, table in section 3.2: at q = 0.05 four are rejected."""
    values = [
        0.0001,
        0.0004,
        0.0019,
        0.0095,
        0.0201,
        0.0278,
        0.0298,
        0.0344,
        0.0459,
        0.3240,
        0.4262,
        0.5719,
        0.6528,
        0.7590,
        1.0,
    ]
    findings = [RuleFinding("R1", 1, (f"agent:{place}",), "", "", (1,), p) for place, p in enumerate(values)]
    assert len(benjamini_hochberg(findings, len(values), 0.05)) == 4
