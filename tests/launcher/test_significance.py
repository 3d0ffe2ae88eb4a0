"""Tests against a baseline, by published p-values, by hand and by scipy's own tests."""

from __future__ import annotations

import dataclasses

import pytest
from scipy import stats

from launcher.reporting.power import Design, least_difference, seeds_to_settle
from launcher.reporting.student import Student
from launcher.significance import TestName, compare, holm

PR_1514 = {0: 1.07928348, 42: 1.07996676, 1234: 1.08024795}
PR_1493 = {42: 1.08079, 314: 1.08103, 999: 1.08118}
PR_1769 = {314: 1.06356801, 2025: 1.0641313, 777: 1.06466993, 1: 1.06509678, 1337: 1.06516558}
PR_1736 = {42: 1.0661, 0: 1.06473, 1234: 1.06563}


@pytest.mark.parametrize(
    ("new", "old", "p_value"), [(PR_1514, PR_1493, 0.020), (PR_1769, PR_1736, 0.063)]
)
def test_the_published_p_values_are_those_of_the_one_sided_welch_test(
    new: dict[int, float], old: dict[int, float], p_value: float
) -> None:
    assert compare(new, old).p_value == pytest.approx(p_value, abs=0.0005)


@pytest.mark.parametrize("margin", [0.0, 0.0005, 0.002])
def test_a_margin_shifts_the_null_as_shifting_the_baseline_does(margin: float) -> None:
    old = [score - margin for score in PR_1493.values()]
    expected = stats.ttest_ind(
        list(PR_1514.values()), old, equal_var=False, alternative="less"
    ).pvalue
    assert compare(PR_1514, PR_1493, "welch", margin).p_value == pytest.approx(expected)


def test_the_interval_of_the_difference_is_scipys() -> None:
    outcome = compare(PR_1769, PR_1736)
    welch = stats.ttest_ind(list(PR_1736.values()), list(PR_1769.values()), equal_var=False)
    low, high = welch.confidence_interval(0.95)
    assert outcome.half_width is not None
    assert outcome.difference - outcome.half_width == pytest.approx(low)
    assert outcome.difference + outcome.half_width == pytest.approx(high)


def test_pairing_uses_the_common_seeds_only() -> None:
    old = {0: 1.0801, 42: 1.0811, 7: 9.0}
    outcome = compare(PR_1514, old, "paired")
    expected = stats.ttest_rel(
        [old[0], old[42]], [PR_1514[0], PR_1514[42]], alternative="greater"
    ).pvalue
    assert (outcome.count, outcome.p_value) == (2, pytest.approx(expected))
    alone = compare(PR_1514, {0: 1.08, 5: 1.08}, "paired")
    assert alone.p_value is None
    assert "1 common seeds" in alone.reason


def test_one_sample_holds_the_seeds_against_a_published_mean() -> None:
    outcome = compare(PR_1514, 1.081, "one-sample", 0.0001)
    expected = stats.ttest_1samp(list(PR_1514.values()), 1.0809, alternative="less").pvalue
    assert outcome.p_value == pytest.approx(expected)


def test_a_mean_alone_is_no_sample() -> None:
    outcome = compare(PR_1514, 1.081, "welch")
    assert outcome.p_value is None
    assert "--test one-sample" in outcome.reason


def test_permutation_deals_every_split() -> None:
    outcome = compare(PR_1769, PR_1736, "permutation")
    expected = stats.permutation_test(
        (list(PR_1769.values()), list(PR_1736.values())),
        lambda a, b: a.mean() - b.mean(),
        alternative="less",
        n_resamples=1000,
        vectorized=False,
    ).pvalue
    assert outcome.p_value == pytest.approx(expected)
    assert compare(PR_1514, PR_1493, "permutation").p_value == outcome_least(3, 3)


def outcome_least(ours: int, theirs: int) -> object:
    new = {seed: 1.0 + seed / 1000 for seed in range(ours)}
    old = {seed: 2.0 + seed / 1000 for seed in range(theirs)}
    return compare(new, old, "permutation").least_p


@pytest.mark.parametrize("test", ["welch", "one-sample", "permutation"])
def test_one_seed_gives_no_verdict(test: TestName) -> None:
    outcome = compare({1: 1.0}, PR_1493, test)
    assert outcome.p_value is None
    assert "one seed" in outcome.reason


def test_seeds_without_spread_give_no_verdict() -> None:
    outcome = compare({1: 1.0, 2: 1.0}, {1: 1.1, 2: 1.1})
    assert outcome.p_value is None
    assert outcome.difference == pytest.approx(0.1)


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.01, None]) == [pytest.approx(0.02), None]
    assert holm([0.9, 0.8]) == [1.0, 1.0]


def test_power_of_equal_groups_is_that_of_the_noncentral_t() -> None:
    design = Design(std=1.0, baseline_std=1.0, baseline_count=5, alpha=0.05, margin=0.0)
    critical = stats.t.ppf(0.95, 8)
    expected = stats.nct.sf(critical, 8, 2.0 / (2 / 5) ** 0.5)
    assert design.power(2.0, 5) == pytest.approx(expected)


@pytest.mark.parametrize("degrees", [1, 2, 2.5, 4, 17.3, 198])
def test_students_t_is_scipys(degrees: float) -> None:
    ours = Student(degrees)
    for t, shift in ((0.0, 0.0), (1.5, 0.0), (3.7, 0.0), (3.7, 2.5), (3.7, 6.0), (31.8, 12.0)):
        expected = stats.nct.sf(t, degrees, shift) if shift else stats.t.sf(t, degrees)
        assert ours.upper_tail(t, shift) == pytest.approx(expected, abs=2e-6)
    for upper in (0.05, 0.01, 0.001):
        assert ours.quantile(upper) == pytest.approx(stats.t.isf(upper, degrees), rel=1e-3)


def test_a_permutation_test_of_too_few_seeds_shows_no_difference_of_any_size() -> None:
    """Of 3 and 3 seeds the best of all splits is one of 20, of 5 and 5 one of 252."""
    three = Design(
        std=1.0, baseline_std=1.0, baseline_count=3, alpha=0.01, margin=0.0, test="permutation"
    )
    assert three.power(1e9, 3) == 0
    assert least_difference(three, 3) is None
    assert least_difference(dataclasses.replace(three, baseline_count=5), 5) is not None
    assert seeds_to_settle(three, 1e9) == 7  # 1 of 120


def test_the_least_difference_is_found_four_times_of_five_and_falls_with_seeds() -> None:
    design = Design(std=0.00068, baseline_std=0.00068, baseline_count=3, alpha=0.01, margin=0.002)
    three, six = least_difference(design, 3), least_difference(design, 6)
    assert three is not None
    assert six is not None
    assert design.power(three, 3) == pytest.approx(0.8, abs=1e-6)
    assert 0.002 < six < three
    assert seeds_to_settle(design, six) == 6
    assert seeds_to_settle(design, 0.002) is None
    assert least_difference(design, 1) is None
