import math
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.schedules import LrSchedule, decay, ema_beta, ramp

ROUNDING = 1e-12
schedules = st.sampled_from(get_args(LrSchedule))
counts = st.integers(0, 10**9)
values = st.floats(-1e3, 1e3)
shares = st.floats(0, 1)
# Pairs of a total and a warm-up below it.
runs = st.integers(1, 10**8).flatmap(lambda total: st.tuples(st.just(total), st.integers(0, total - 1)))


@given(schedules, runs, shares)
def test_the_learning_rate_warms_up_from_0_to_1_and_ends_at_its_end(schedule, run, end):
    total, warmup = run
    assert decay(schedule, 0, total, warmup, end) == (0 if warmup else 1)
    assert decay(schedule, warmup, total, warmup, end) == 1
    for after in (total, total + 1, 10 * total):
        assert decay(schedule, after, total, warmup, end) == (1 if schedule == "constant" else end)


@given(schedules, runs, shares, counts, counts)
def test_the_learning_rate_rises_during_the_warm_up_and_falls_afterwards(schedule, run, end, a, b):
    total, warmup = run
    earlier, later = sorted((a, b))
    before, after = (decay(schedule, seen, total, warmup, end) for seen in (earlier, later))
    assert 0 <= before <= 1 + ROUNDING
    if later <= warmup:
        assert before <= after
    if earlier >= warmup:
        assert before >= after - ROUNDING
        assert after >= (1 if schedule == "constant" else end) - ROUNDING


@given(schedules, runs, shares, counts)
def test_the_learning_rate_does_not_jump(schedule, run, end, images_seen):
    """The steepest slope is that of the cosine: pi / 2 over the length of the warm-up or the decay."""
    total, warmup = run
    shortest = min(part for part in (warmup, total - warmup) if part)
    step = decay(schedule, images_seen + 1, total, warmup, end) - decay(schedule, images_seen, total, warmup, end)
    assert abs(step) <= math.pi / 2 / shortest + ROUNDING


def test_decays_agree_half_way_and_the_cosine_is_higher_after_a_quarter():
    assert decay("linear", 60, total=110, warmup=10, end=0.2) == pytest.approx(0.6)
    assert decay("cosine", 60, total=110, warmup=10, end=0.2) == pytest.approx(0.6)
    assert decay("linear", 25, total=100) == 0.75
    assert decay("cosine", 25, total=100) == pytest.approx((1 + math.sqrt(0.5)) / 2)
    assert decay("cosine", 5, total=110, warmup=10) == 0.5


@given(counts, values, values)
def test_a_ramp_runs_from_start_to_end_and_stays_there(duration, start, end):
    assert ramp(0, duration, start, end) == (start if duration else end)
    for after in (duration, duration + 1, 10 * duration):
        assert ramp(after, duration, start, end) == end
    assert ramp(duration, 2 * duration, start, end) == pytest.approx((start + end) / 2 if duration else end)


@given(counts, counts, st.integers(1, 10**8), values, values)
def test_a_ramp_is_monotone_between_its_ends(a, b, duration, start, end):
    earlier, later = sorted((a, b))
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
def test_after_one_half_life_weights_count_half_in_the_ema(images_seen, batch, half_life, ramp_up):
    h = min(half_life, ramp_up * images_seen)
    beta = ema_beta(images_seen, batch, half_life, ramp_up)
    assert 0 <= beta < 1
    if h > batch / 100:  # otherwise beta is below 2^-100
        assert beta ** (h / batch) == pytest.approx(0.5)
    else:
        assert beta == pytest.approx(0)


@given(counts, counts, batches, st.floats(0, 1e9))
def test_the_decay_of_the_ema_rises_until_the_half_life_is_reached(a, b, batch, half_life):
    earlier, later = sorted((a, b))
    betas = [ema_beta(seen, batch, half_life) for seen in (earlier, later)]
    assert betas == sorted(betas)
    if earlier >= 20 * half_life + 1:
        assert betas[0] == betas[1]


@given(batches, st.floats(0, 1e9), counts)
def test_the_ema_equals_the_weights_at_the_first_step_or_with_a_half_life_of_0(batch, half_life, images_seen):
    assert ema_beta(0, batch, half_life) == 0
    assert ema_beta(images_seen, batch, 0) == 0


@pytest.mark.parametrize(
    ("function", "arguments", "message"),
    [
        (decay, {"schedule": "step"}, "schedule must be one of constant, linear, cosine, got step"),
        (decay, {"images_seen": -1}, "images_seen must be at least 0, got -1"),
        (decay, {"total": 0}, "total must be at least 1, got 0"),
        (decay, {"warmup": -1}, "warmup must be at least 0 and below the total of 100, got -1"),
        (decay, {"warmup": 100}, "warmup must be at least 0 and below the total of 100, got 100"),
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
def test_an_argument_out_of_range_is_rejected_with_its_name(function, arguments, message):
    valid = {
        decay: {"schedule": "cosine", "images_seen": 10, "total": 100},
        ramp: {"images_seen": 10, "duration": 100, "start": 0.9, "end": 0.99},
        ema_beta: {"images_seen": 10, "batch": 1, "half_life": 100},
    }
    function(**valid[function])
    with pytest.raises(ValueError, match=message):
        function(**(valid[function] | arguments))
