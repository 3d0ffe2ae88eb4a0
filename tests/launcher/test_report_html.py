"""The page: whole, self-contained, and of the same numbers as the report."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import pytest
from lab import Lab, train_and_eval
from test_report import SEEDS, finish, report_of

from launcher.experiment import Experiment
from launcher.reporting import svg
from launcher.reporting.curves import MAX_POINTS, means, picked
from launcher.reporting.html import page
from launcher.results import write_results

VOID = {"meta", "line", "circle", "rect", "polyline"}


@pytest.fixture
def experiment(lab: Lab) -> Experiment:
    found = lab.register([s for seed in SEEDS for s in train_and_eval(seed, "pass")])
    lab.experiments.clear()
    return found


class Nesting(HTMLParser):
    """Fails where tags do not close in order."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag != "meta":
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag in VOID

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_page_is_well_formed_and_needs_no_network(experiment: Experiment) -> None:
    for seed in SEEDS:
        finish(experiment, seed)
    report = report_of(experiment)
    write_results(report, experiment.paths)
    text = experiment.paths.report_html.read_text()
    parser = Nesting()
    parser.feed(text)
    parser.close()
    assert parser.open == []
    assert not re.search(r"https?:|<script|<link|@import|url\(", text)
    assert "nan" not in re.sub(r"<style>.*?</style>", "", text, flags=re.DOTALL).lower()


def test_the_page_shows_the_reports_numbers_and_a_chart_of_each_kind(
    experiment: Experiment,
) -> None:
    for seed in SEEDS:
        finish(experiment, seed)
    report = report_of(experiment)
    text = page(report)
    assert report.verdict in text
    assert "1.1200" in text
    for chart in ("training loss", "learning-rate scale", "BPB over all chunks", "per chunk"):
        assert chart in text
    assert text.count("<svg") >= 7
    assert "seeds/1337/train/metrics.jsonl" in text


def test_a_page_of_nothing_yet_says_so(experiment: Experiment) -> None:
    text = page(report_of(experiment))
    assert text.count("nothing measured yet") >= 5
    assert "Seeds that are not done" in text


def test_names_cannot_break_the_page() -> None:
    assert svg.escape("<b> & 'x'") == "&lt;b&gt; &amp; &#x27;x&#x27;"
    drawn = svg.bars([svg.Bar(name="<script>", value=2, limit=1, text="", classes="c0")])
    assert "<script>" not in drawn
    assert "over" in drawn


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0, 60, [0, 20, 40, 60]),
        (1, 14, [5, 10]),
        (2.08, 2.29, [2.1, 2.15, 2.2, 2.25]),
        (5, 5, [5]),
    ],
)
def test_ticks_are_round_numbers(low: float, high: float, expected: list[float]) -> None:
    assert svg.ticks(low, high, 4) == pytest.approx(expected)


def test_long_curves_are_thinned_and_keep_their_ends() -> None:
    points = [(float(x), float(x)) for x in range(10_000)]
    assert len(means(points)) == len(picked(points)) == MAX_POINTS
    assert (picked(points)[0], picked(points)[-1]) == (points[0], points[-1])
    assert means(points[:3]) == tuple(points[:3])
    assert means([]) == picked([]) == ()
