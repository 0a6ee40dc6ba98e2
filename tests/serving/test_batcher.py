import asyncio
import threading
from collections.abc import Awaitable, Callable
from functools import wraps

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.artifact import Generator, Given, Images
from serving import batcher as batching
from serving.batcher import Batcher, Labels, Source
from serving.errors import OverloadedError


@pytest.fixture(scope="module", params=["conditional", "unconditional"])
def generator(request, files) -> Generator:
    return Generator.open(files[request.param])


@pytest.fixture
def no_moment(monkeypatch):
    """Everything is made by threads, as with a network that takes long."""
    monkeypatch.setattr(batching, "MOMENT", 0)


class Held:
    """A generator whose runs wait until they are let go, and are counted."""

    def __init__(self, generator: Generator):
        self.card, self.images, self._generator = generator.card, generator.images, generator
        self.rows_per_run = generator.rows_per_run
        self.go, self.begun, self.runs = threading.Event(), threading.Semaphore(0), []

    def decode(self, latents, labels):
        self.runs.append(len(latents))
        self.begun.release()
        assert self.go.wait(30)
        return self._generator.decode(latents, labels)

    def asked(self, n: int, seed: int = 0):
        return self._generator.addressed(seed, 0, n)


@pytest.fixture
def held(generator, no_moment):
    held = Held(generator)
    yield held
    held.go.set()


def pairs(batcher: Batcher, source: Source, **how) -> Awaitable[tuple[Images, Labels]]:
    """Just the images and labels."""
    return batcher.decode(source, lambda images, labels: (images, labels), **how)


def on_a_loop(test: Callable[..., Awaitable[None]]) -> Callable[..., None]:
    @wraps(test)
    def run(*arguments, **fixtures) -> None:
        asyncio.run(asyncio.wait_for(test(*arguments, **fixtures), 60))

    return run


async def begun(held: Held) -> None:
    assert await asyncio.to_thread(held.begun.acquire, timeout=10)


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not true():
            await asyncio.sleep(0.01)


@settings(max_examples=20, deadline=None)
@given(sizes=st.lists(st.integers(1, 700), min_size=1, max_size=12), threads=st.integers(1, 3), moment=st.booleans())
def test_every_request_gets_its_own_images_whoever_comes_with_it(generator, sizes, threads, moment):
    asked = [generator.addressed(seed, 5, n) for seed, n in enumerate(sizes)]

    async def ask() -> None:
        batcher = Batcher(generator, threads, max_waiting=10**6)
        made = await asyncio.gather(*(pairs(batcher, one) for one in asked))
        assert batcher.waiting == 0
        for (images, labels), one in zip(made, asked, strict=True):
            latents, expected = one.rows(0, len(one))
            np.testing.assert_array_equal(images, generator.decode(latents, expected))
            assert (labels is None) == (expected is None)
            if labels is not None:
                np.testing.assert_array_equal(labels, expected)

    with pytest.MonkeyPatch.context() as patch:
        if not moment:
            patch.setattr(batching, "MOMENT", 0)
        asyncio.run(ask())


@on_a_loop
async def test_small_requests_of_one_moment_are_made_in_one_run_without_a_thread(generator, monkeypatch):
    monkeypatch.setattr(batching, "MOMENT", 10)
    batcher, runs = Batcher(generator, 1, max_waiting=1_000), []

    def decode(latents, labels):
        runs.append((len(latents), threading.current_thread()))
        return Generator.decode(generator, latents, labels)

    monkeypatch.setattr(generator, "decode", decode)
    await asyncio.gather(*(pairs(batcher, generator.addressed(i, 0, 3)) for i in range(8)))
    assert runs == [(24, threading.main_thread())]


@on_a_loop
async def test_those_that_come_while_the_thread_is_busy_share_its_next_run(held):
    batcher = Batcher(held, 1, max_waiting=1_000)
    first = [asyncio.create_task(pairs(batcher, held.asked(1))) for _ in range(2)]
    await begun(held)  # and the second is made ready
    others = [asyncio.create_task(pairs(batcher, held.asked(3, i))) for i in range(8)]
    await until(lambda: batcher.waiting == 24)
    held.go.set()
    await asyncio.gather(*first, *others)
    assert held.runs == [1, 1, 24]


@on_a_loop
async def test_a_lone_request_is_spread_over_all_threads(held):
    batcher = Batcher(held, 2, max_waiting=1_000)
    asked = asyncio.create_task(pairs(batcher, held.asked(200)))
    await begun(held)
    await begun(held)
    held.go.set()
    await asked
    assert held.runs == [100, 100]


@on_a_loop
async def test_a_small_request_does_not_wait_for_the_end_of_a_large_one(held):
    batcher = Batcher(held, 1, max_waiting=10_000)
    large = asyncio.create_task(pairs(batcher, held.asked(5_000)))
    await begun(held)
    small = asyncio.create_task(pairs(batcher, held.asked(1)))
    await until(lambda: batcher.waiting == 5_000 - 2 * 256 + 1)
    held.go.set()
    await small
    assert not large.done()
    await large


@on_a_loop
async def test_who_asks_for_more_than_may_wait_is_told_and_one_alone_may_be_large(held):
    batcher = Batcher(held, 1, max_waiting=100)
    large = asyncio.create_task(pairs(batcher, held.asked(656)))
    await begun(held)
    with pytest.raises(OverloadedError, match="144 images wait"):
        await pairs(batcher, held.asked(1))
    held.go.set()
    images, _ = await large
    assert len(images) == 656


@on_a_loop
async def test_what_nobody_waits_for_is_not_made_and_its_neighbours_are(held):
    batcher = Batcher(held, 1, max_waiting=10_000)
    first = [asyncio.create_task(pairs(batcher, held.asked(1))) for _ in range(2)]
    await begun(held)
    leaver = asyncio.create_task(pairs(batcher, held.asked(5_000)))
    stayer = asyncio.create_task(pairs(batcher, held.asked(2)))
    await until(lambda: batcher.waiting == 5_002)
    leaver.cancel()
    await until(lambda: batcher.waiting == 2)
    held.go.set()
    images, _ = await stayer
    await asyncio.gather(*first)
    assert len(images) == 2
    assert leaver.cancelled()
    assert sum(held.runs) == 4


@pytest.mark.parametrize("moment", [0, 10])
@on_a_loop
async def test_a_run_that_fails_is_told_and_the_next_one_works(generator, monkeypatch, moment):
    monkeypatch.setattr(batching, "MOMENT", moment)
    batcher = Batcher(generator, 1, max_waiting=100)
    with monkeypatch.context() as broken:
        broken.setattr(generator, "decode", lambda *_: 1 / 0)
        failed = await asyncio.gather(
            *(pairs(batcher, generator.addressed(i, 0, 1)) for i in range(3)), return_exceptions=True
        )
        assert [type(error) for error in failed] == [ZeroDivisionError] * 3
    images, _ = await pairs(batcher, Given(*generator.draw(0, 0, 1)))
    assert len(images) == 1


@pytest.mark.parametrize("n", [2, 400])
@on_a_loop
async def test_what_takes_long_to_encode_is_encoded_by_a_thread_and_the_rest_on_the_loop(generator, n):
    batcher = Batcher(generator, 2, max_waiting=1_000)
    asked = generator.addressed(0, 0, n)
    light, heavy = [
        await batcher.decode(asked, lambda *_: threading.current_thread(), heavy=heavy) for heavy in (False, True)
    ]
    assert light is threading.main_thread()
    assert heavy.name.startswith("batcher")


@pytest.mark.parametrize("heavy", [False, True])
@on_a_loop
async def test_who_cannot_be_encoded_fails_alone(held, heavy):
    batcher = Batcher(held, 1, max_waiting=1_000)
    first = [asyncio.create_task(pairs(batcher, held.asked(1))) for _ in range(2)]
    await begun(held)
    broken = asyncio.create_task(batcher.decode(held.asked(2), lambda *_: 1 / 0, heavy=heavy))
    whole = asyncio.create_task(pairs(batcher, held.asked(3), heavy=heavy))
    await until(lambda: batcher.waiting == 5)
    held.go.set()
    with pytest.raises(ZeroDivisionError):
        await broken
    images, _ = await whole
    await asyncio.gather(*first)
    assert held.runs == [1, 1, 5]
    assert len(images) == 3


@on_a_loop
async def test_after_a_storm_of_requests_as_many_runs_may_be_under_way_as_before(generator, no_moment):
    batcher = Batcher(generator, 2, max_waiting=10**9)
    asked = [asyncio.create_task(pairs(batcher, generator.addressed(i, 0, 1 + i * 37 % 600))) for i in range(600)]
    await asyncio.sleep(0.05)
    for task in asked[::5]:
        task.cancel()
    await asyncio.gather(*asked, return_exceptions=True)
    assert not [task for task in asked if not task.cancelled() and task.exception()]
    await until(lambda: batcher._free == 3)
    assert batcher.waiting == 0
    both = threading.Barrier(2, timeout=10)

    class Meeting:
        """Ends a run only once another is under way."""

        card = generator.card
        rows_per_run = generator.rows_per_run

        def decode(self, *arguments):
            both.wait()
            return generator.decode(*arguments)

    batcher._generator = Meeting()
    await asyncio.gather(*(pairs(batcher, generator.addressed(seed, 0, 1)) for seed in range(2)))
