"""Nats, bits, bytes per token, margins and known validation sets."""

from __future__ import annotations

import pytest

from launcher.errors import LaunchError
from launcher.reporting.scores import Scores, SeedScore, incomparable
from launcher.reporting.units import (
    KNOWN_SETS,
    Margin,
    ValidationSet,
    bytes_per_token,
    parse_margin,
    resembles,
    to_bpb,
    to_nats,
    totals_problem,
)


def scores(name: str, **validation: object) -> Scores:
    return Scores(
        name=name,
        kind="experiment",
        source="",
        seeds={1: SeedScore(val_bpb=1.1, val_loss=1.9)},
        validation=ValidationSet(**validation),  # type: ignore[arg-type]
    )


def test_published_pairs_of_units_give_the_bytes_per_token_of_the_known_set() -> None:
    known = KNOWN_SETS["sp1024"]
    assert known.bytes is not None
    assert known.tokens is not None
    expected = known.bytes / known.tokens
    assert bytes_per_token(1.93592275, 1.14656250) == pytest.approx(expected, rel=1e-8)


def test_units_convert_there_and_back() -> None:
    assert to_nats(to_bpb(0.005, 2.436), 2.436) == pytest.approx(0.005)
    assert to_bpb(0.005, 3.7266) == pytest.approx(0.0019357, abs=1e-6)


@pytest.mark.parametrize(
    ("text", "unit", "amount"),
    [("0.005nats", "nats", 0.005), ("2e-3 BPB", "bpb", 0.002), ("0nats/token", "nats", 0.0)],
)
def test_a_margin_is_an_amount_and_its_unit(text: str, unit: str, amount: float) -> None:
    margin = parse_margin(text)
    assert (margin.unit, margin.amount) == (unit, amount)


@pytest.mark.parametrize("text", ["0.005", "nats", "-1nats", "1e999bpb", "0.1 furlongs", "1-2bpb"])
def test_a_margin_without_amount_or_unit_is_refused(text: str) -> None:
    with pytest.raises(LaunchError, match="with its unit"):
        parse_margin(text)


def test_a_margin_in_nats_needs_the_bytes_per_token() -> None:
    margin = Margin(amount=0.005, unit="nats")
    assert margin.within("bpb", 3.7266) == pytest.approx(0.0019357, abs=1e-6)
    with pytest.raises(LaunchError, match="bytes per token"):
        margin.within("bpb", None)
    assert Margin(amount=0.0, unit="nats").within("bpb", None) == 0


def test_wrong_bytes_of_a_known_set_are_told() -> None:
    assert totals_problem(62_021_632, 151_080_363) == ""
    assert "151,080,363" in totals_problem(62_021_632, 151_000_000)
    assert totals_problem(300, 700) == ""


def test_another_cut_of_a_known_set_is_the_same_text() -> None:
    assert resembles(62_021_632 + 213, 151_080_363 + 519) is KNOWN_SETS["sp1024"]
    assert resembles(62_021_632 + 213, 140_000_000) is None
    assert resembles(62_121_632, 151_080_363) is None


def test_other_texts_never_compare_and_other_tokens_only_in_bits() -> None:
    bible, web = scores("a", text="kjv", tokenizer="x"), scores("b", text="web", tokenizer="x")
    assert "different texts" in incomparable(bible, web, "bpb")
    small = scores("c", text="web", tokenizer="y")
    assert incomparable(web, small, "bpb") == ""
    assert "another amount" in incomparable(web, small, "nats")
    fewer = scores("d", text="web", tokenizer="x", tokens=5)
    more = scores("e", text="web", tokenizer="x", tokens=6)
    assert "same tokens" in incomparable(fewer, more, "nats")
    assert "not recorded" in incomparable(scores("f"), web, "bpb")


def test_scores_survive_their_passage_through_plain_values() -> None:
    before = scores("a", text="kjv", tokens=3, bytes=7)
    assert Scores.read_back(before.plain()) == before
