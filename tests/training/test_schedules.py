import math
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.schedules import Shape, decay, ema_beta, ramp

ROUNDING = 1e-12
shapes = st.sampled_from(get_args(Shape))
counts = st.integers(0, 10**9)
values = st.floats(-1e3, 1e3)
shares = st.floats(0, 1)
# (total, warmup): a run, and a warm-up that fits in it.
runs = st.integers(1, 10**8).flatmap(lambda total: st.tuples(st.just(total), st.integers(0, total - 1)))


@given(shapes, runs, shares)
def test_the_learning_rate_starts_at_0_peaks_at_1_and_ends_at_end(shape, run, end):
    total, warmup = run
    assert decay(shape, 0, total, warmup, end) == (0 if warmup else 1)
    assert decay(shape, warmup, total, warmup, end) == 1
    for after in (total, total + 1, 10 * total):
        assert decay(shape, after, total, warmup, end) == (1 if shape == "constant" else end)


@given(shapes, runs, shares, counts, counts)
def test_the_learning_rate_rises_then_falls_within_its_bounds(shape, run, end, one, other):
    total, warmup = run
    earlier, later = sorted((one, other))
    before, after = (decay(shape, seen, total, warmup, end) for seen in (earlier, later))
    assert 0 <= before <= 1 + ROUNDING
    if later <= warmup:
        assert before <= after
    if earlier >= warmup:
        assert before >= after - ROUNDING
        assert after >= (1 if shape == "constant" else end) - ROUNDING


@given(shapes, runs, shares, counts)
def test_the_learning_rate_does_not_jump(shape, run, end, images_seen):
    """No slope is above pi / 2 per length of its part."""
    total, warmup = run
    shortest = min(part for part in (warmup, total - warmup) if part)
    step = decay(shape, images_seen + 1, total, warmup, end) - decay(shape, images_seen, total, warmup, end)
    assert abs(step) <= math.pi / 2 / shortest + ROUNDING


def test_half_way_both_decays_have_lost_half_and_a_quarter_way_the_cosine_has_lost_less():
    assert decay("linear", 60, total=110, warmup=10, end=0.2) == pytest.approx(0.6)
    assert decay("cosine", 60, total=110, warmup=10, end=0.2) == pytest.approx(0.6)
    assert decay("linear", 25, total=100) == 0.75
    assert decay("cosine", 25, total=100) == pytest.approx((1 + math.sqrt(0.5)) / 2)
    assert decay("cosine", 5, total=110, warmup=10) == 0.5


@given(counts, values, values)
def test_a_ramp_goes_from_start_to_end_and_stays(duration, start, end):
    assert ramp(0, duration, start, end) == (start if duration else end)
    for after in (duration, duration + 1, 10 * duration):
        assert ramp(after, duration, start, end) == end
    assert ramp(duration, 2 * duration, start, end) == pytest.approx((start + end) / 2 if duration else end)


@given(counts, counts, st.integers(1, 10**8), values, values)
def test_a_ramp_is_monotone_between_its_ends(one, other, duration, start, end):
    earlier, later = sorted((one, other))
    path = [start, ramp(earlier, duration, start, end), ramp(later, duration, start, end), end]
    rounding = ROUNDING * max(abs(start), abs(end))
    assert path == pytest.approx(sorted(path, reverse=start > end), rel=0, abs=rounding)


@given(counts, st.integers(1, 10**8), values, values)
def test_a_ramp_does_not_jump(images_seen, duration, start, end):
    step = ramp(images_seen + 1, duration, start, end) - ramp(images_seen, duration, start, end)
    rounding = ROUNDING * max(abs(start), abs(end))
    assert abs(step) <= abs(end - start) * math.pi / 2 / duration + rounding


batches = st.integers(1, 4096)


@given(counts, batches, st.floats(0, 1e9), st.floats(1e-3, 10))
def test_half_of_the_average_is_from_within_the_half_life(images_seen, batch, half_life, ramp_up):
    h = min(half_life, ramp_up * images_seen)
    beta = ema_beta(images_seen, batch, half_life, ramp_up)
    assert 0 <= beta < 1
    if h > batch / 100:  # beyond, it is below 2^-100
        assert beta ** (h / batch) == pytest.approx(0.5)
    else:
        assert beta == pytest.approx(0)


@given(counts, counts, batches, st.floats(0, 1e9))
def test_the_average_looks_back_further_and_further_up_to_the_half_life(one, other, batch, half_life):
    earlier, later = sorted((one, other))
    betas = [ema_beta(seen, batch, half_life) for seen in (earlier, later)]
    assert betas == sorted(betas)
    if earlier >= 20 * half_life + 1:
        assert betas[0] == betas[1]


@given(batches, st.floats(0, 1e9), counts)
def test_the_first_step_and_a_half_life_of_0_take_the_weights_as_they_are(batch, half_life, images_seen):
    assert ema_beta(0, batch, half_life) == 0
    assert ema_beta(images_seen, batch, 0) == 0


@pytest.mark.parametrize(
    ("schedule", "arguments", "message"),
    [
        (decay, {"shape": "step"}, "shape must be one of constant, linear, cosine, got step"),
        (decay, {"images_seen": -1}, "images_seen must be at least 0, got -1"),
        (decay, {"total": 0}, "total must be at least 1, got 0"),
        (decay, {"warmup": -1}, "warmup must be from 0 to below total, 100, got -1"),
        (decay, {"warmup": 100}, "warmup must be from 0 to below total, 100, got 100"),
        (decay, {"end": 1.5}, "end must be from 0 to 1, got 1.5"),
        (decay, {"end": math.nan}, "end must be from 0 to 1, got nan"),
        (ramp, {"images_seen": -1}, "images_seen must be at least 0, got -1"),
        (ramp, {"duration": -1}, "duration must be at least 0, got -1"),
        (ramp, {"start": math.inf}, "start must be finite, got inf"),
        (ramp, {"end": math.nan}, "end must be finite, got nan"),
        (ema_beta, {"images_seen": -1}, "images_seen must be at least 0, got -1"),
        (ema_beta, {"batch": 0}, "batch must be at least 1, got 0"),
        (ema_beta, {"half_life": -1}, "half_life must be at least 0 and finite, got -1"),
        (ema_beta, {"half_life": math.inf}, "half_life must be at least 0 and finite, got inf"),
        (ema_beta, {"ramp_up": 0}, "ramp_up must be above 0 and finite, got 0"),
    ],
)
def test_a_value_out_of_range_is_named(schedule, arguments, message):
    good = {
        decay: {"shape": "cosine", "images_seen": 10, "total": 100},
        ramp: {"images_seen": 10, "duration": 100, "start": 0.9, "end": 0.99},
        ema_beta: {"images_seen": 10, "batch": 1, "half_life": 100},
    }
    schedule(**good[schedule])
    with pytest.raises(ValueError, match=message):
        schedule(**(good[schedule] | arguments))
