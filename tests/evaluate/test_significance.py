import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm4rec.errors import InputError
from llm4rec.evaluate import significance
from llm4rec.evaluate.significance import Gain, holm, interval, paired


def test_interval_is_about_two_standard_errors_each_way() -> None:
    values = np.random.default_rng(1).normal(3, 2, size=400)
    low, high = interval(values, draws=4000)
    error = values.std() / np.sqrt(400)
    assert low == pytest.approx(values.mean() - 1.96 * error, abs=0.15 * error)
    assert high == pytest.approx(values.mean() + 1.96 * error, abs=0.15 * error)


def test_the_same_seed_gives_the_same_interval_however_it_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.arange(10.0)
    whole = interval(values, seed=3)
    assert interval(values, seed=3) == whole
    assert interval(values, seed=4) != whole
    monkeypatch.setattr(significance, "DRAWS_AT_ONCE", 70)
    assert interval(values, seed=3) == whole


def test_paired_sees_what_two_intervals_cannot() -> None:
    rng = np.random.default_rng(2)
    base = rng.normal(0, 10, size=200)
    better = base + 0.1 + rng.normal(0, 0.1, size=200)
    assert interval(base)[1] > interval(better)[0]
    result = paired(better, base)
    assert result.difference == pytest.approx(np.mean(better - base))
    assert 0.05 < result.low < result.difference < result.high < 0.15
    assert result.p == pytest.approx(2 / 2001)


def test_no_difference_is_no_evidence() -> None:
    same = np.arange(5.0)
    assert paired(same, same) == significance.Paired(0.0, 0.0, 0.0, 1.0)


def test_p_is_the_share_on_the_other_side_twice() -> None:
    # One person up by 3, one down by 1: the mean of two draws is 3, 1, 1 or −1, each with chance 1/4.
    result = paired(np.array([3.0, 0.0]), np.array([0.0, 1.0]), draws=8000)
    assert result.p == pytest.approx(0.5, abs=0.03)


def test_chance_alone_is_found_significant_as_often_as_promised() -> None:
    rng = np.random.default_rng(5)
    hits = sum(paired(rng.normal(size=80), rng.normal(size=80), draws=400).p < 0.1 for _ in range(300))
    assert 15 <= hits <= 50  # 30 expected, 5 is one standard deviation


@pytest.mark.parametrize("values", [np.array([]), np.array([1.0, np.nan])])
def test_values_that_are_no_figures_are_refused(values: np.ndarray) -> None:
    with pytest.raises(InputError, match="finite"):
        interval(values)


def test_a_gain_by_hand() -> None:
    # differences of -.1, .1, .3, .1: mean .1, standard deviation √.02, standard error √.02 / 2 = .0707
    gain = Gain.of(np.array([-0.1, 0.1, 0.3, 0.1]))
    assert (gain.mean, gain.error) == pytest.approx((0.1, np.sqrt(0.02) / 2))
    assert gain.exceeds() and gain.exceeds(1.4) and not gain.exceeds(1.5)
    assert not Gain.of(np.zeros(3)).exceeds()


def test_paired_needs_the_same_people() -> None:
    with pytest.raises(InputError, match="3 against 2"):
        paired(np.ones(3), np.ones(2))


def test_holm_by_hand() -> None:
    # sorted .005 .01 .03 .04: ×4, ×3, ×2, ×1 = .02 .03 .06 .04, and no step back: .02 .03 .06 .06
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.9]) == [1, 1]
    assert holm([]) == []


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_laws(p: list[float]) -> None:
    adjusted = holm(p)
    assert all(raw <= new <= 1 for raw, new in zip(p, adjusted, strict=True))
    assert [adjusted[i] for i in np.argsort(p, kind="stable")] == sorted(adjusted)
    assert min(adjusted) == pytest.approx(min(1, min(p) * len(p)))


@given(st.lists(st.floats(-5, 5, width=16), min_size=1, max_size=30), st.floats(-3, 3, width=16))
def test_interval_laws(values: list[float], shift: float) -> None:
    array = np.array(values)
    low, high = interval(array, draws=100)
    assert array.min() - 1e-9 <= low <= high <= array.max() + 1e-9
    moved = interval(array + shift, draws=100)
    assert moved == pytest.approx((low + shift, high + shift), abs=1e-9)
    there, back = paired(array, array[::-1], draws=100), paired(array[::-1], array, draws=100)
    assert there.difference == pytest.approx(-back.difference)
    assert (there.low, there.high) == pytest.approx((-back.high, -back.low), abs=1e-9)
