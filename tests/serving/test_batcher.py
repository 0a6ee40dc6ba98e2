import threading
import time
from concurrent.futures import CancelledError, ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.artifact import Generator
from models.errors import InputError
from serving.batcher import Batcher
from serving.errors import OverloadedError


@pytest.fixture(scope="module", params=["conditional", "unconditional"])
def generator(request, files) -> Generator:
    return Generator.open(files[request.param])


class Held:
    """A generator whose runs wait until they are let go, and are counted."""

    def __init__(self, generator: Generator):
        self.card, self.check, self._generator = generator.card, generator.check, generator
        self.go, self.begun, self.runs = threading.Event(), threading.Semaphore(0), []

    def decode(self, latents, labels):
        self.runs.append(len(latents))
        self.begun.release()
        assert self.go.wait(30)
        return self._generator.decode(latents, labels)


@pytest.fixture
def held(generator):
    held = Held(generator)
    yield held
    held.go.set()


@settings(max_examples=20, deadline=None)
@given(sizes=st.lists(st.integers(1, 700), min_size=1, max_size=12), threads=st.integers(1, 3))
def test_every_request_gets_its_own_images_whoever_comes_with_it(generator, sizes, threads):
    batcher = Batcher(generator, threads, max_waiting=10**6)
    drawn = [generator.draw(seed, 0, n) for seed, n in enumerate(sizes)]
    with ThreadPoolExecutor(len(sizes)) as callers:
        made = list(callers.map(lambda one: batcher.decode(*one), drawn))
    for images, one in zip(made, drawn, strict=True):
        np.testing.assert_array_equal(images, generator.decode(*one))
    assert batcher.waiting == 0


def test_those_that_come_while_the_thread_is_busy_share_its_next_run(held):
    batcher = Batcher(held, 1, max_waiting=1000)
    with ThreadPoolExecutor(9) as callers:
        first = callers.submit(batcher.decode, *held._generator.draw(0, 0, 1))
        assert held.begun.acquire(timeout=10)
        others = [callers.submit(batcher.decode, *held._generator.draw(0, i, 3)) for i in range(8)]
        wait_until(lambda: batcher.waiting == 24)
        held.go.set()
        for future in (first, *others):
            future.result(10)
    assert held.runs == [1, 24]


def test_a_small_request_does_not_wait_for_the_end_of_a_large_one(held):
    batcher = Batcher(held, 1, max_waiting=10_000)
    with ThreadPoolExecutor(2) as callers:
        large = callers.submit(batcher.decode, *held._generator.draw(0, 0, 5_000))
        assert held.begun.acquire(timeout=10)
        small = callers.submit(batcher.decode, *held._generator.draw(1, 0, 1))
        wait_until(lambda: batcher.waiting == 5_000 - 256 + 1)
        held.go.set()
        small.result(10)
        assert not large.done()
        large.result(30)


def test_who_asks_for_more_than_may_wait_is_told_and_one_alone_may_be_large(held):
    batcher = Batcher(held, 1, max_waiting=100)
    with ThreadPoolExecutor(2) as callers:
        large = callers.submit(batcher.decode, *held._generator.draw(0, 0, 400))
        assert held.begun.acquire(timeout=10)
        with pytest.raises(OverloadedError, match="144 images wait"):
            batcher.decode(*held._generator.draw(0, 0, 1))
        held.go.set()
        assert len(large.result(10)) == 400


def test_what_nobody_waits_for_is_not_made_and_its_neighbours_are(held):
    batcher, gone = Batcher(held, 1, max_waiting=10_000), threading.Event()
    with ThreadPoolExecutor(3) as callers:
        first = callers.submit(batcher.decode, *held._generator.draw(0, 0, 1))
        assert held.begun.acquire(timeout=10)
        leaver = callers.submit(batcher.decode, *held._generator.draw(0, 0, 5_000), gone.is_set)
        stayer = callers.submit(batcher.decode, *held._generator.draw(0, 0, 2))
        wait_until(lambda: batcher.waiting == 5_002)
        gone.set()
        held.go.set()
        with pytest.raises(CancelledError):
            leaver.result(10)
        assert len(stayer.result(10)) == 2
        first.result(10)
    assert sum(held.runs) == 3
    assert batcher.waiting == 0


def test_bad_input_harms_nobody_else(generator):
    batcher = Batcher(generator, 1, max_waiting=100)
    latents, labels = generator.draw(0, 0, 2)
    with pytest.raises(InputError):
        batcher.decode(np.full_like(latents, np.nan), labels)
    assert len(batcher.decode(latents, labels)) == 2


def test_a_run_that_fails_is_told_and_the_next_one_works(generator, monkeypatch):
    batcher = Batcher(generator, 1, max_waiting=100)
    with monkeypatch.context() as broken:
        broken.setattr(generator, "decode", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            batcher.decode(*generator.draw(0, 0, 1))
    assert len(batcher.decode(*generator.draw(0, 0, 1))) == 1


def wait_until(true) -> None:
    deadline = time.monotonic() + 10
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_after_a_storm_of_requests_as_many_runs_may_be_under_way_as_before(generator):
    batcher = Batcher(generator, 2, max_waiting=10**9)

    def ask(number: int) -> bool:
        latents, labels = generator.draw(number, 0, 1 + number * 37 % 600)
        try:
            return len(batcher.decode(latents, labels, lambda: number % 5 == 0)) == len(latents)
        except CancelledError:
            return True

    with ThreadPoolExecutor(32) as pool:
        assert all(pool.map(ask, range(600)))
    both = threading.Barrier(2, timeout=10)

    class Held:
        """Ends a run only once another is under way."""

        def __getattr__(self, name):
            return getattr(generator, name)

        def decode(self, *arguments):
            both.wait()
            return generator.decode(*arguments)

    batcher._generator = Held()
    with ThreadPoolExecutor(2) as pool:
        assert [len(made) for made in pool.map(lambda seed: batcher.decode(*generator.draw(seed, 0, 5)), range(2))]
    assert batcher.waiting == 0
