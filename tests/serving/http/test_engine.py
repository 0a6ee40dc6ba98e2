import asyncio
import threading
from collections.abc import Awaitable, Callable
from functools import wraps

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.onnx_file.generator import Generator
from models.onnx_file.latent_sources import LatentBatch
from serving.http import engine as engines
from serving.http.engine import Engine
from serving.http.errors import RequestError


@pytest.fixture(scope="module", params=["conditional", "unconditional"])
def generator(request, files) -> Generator:
    return Generator.open(files[request.param])


@pytest.fixture
def threads_only(monkeypatch):
    """All images are decoded by threads, as with a network that takes long."""
    monkeypatch.setattr(engines, "INLINE_BUDGET_SECONDS", 0)


class BlockedGenerator:
    """A generator whose runs block until the event `go` is set, and are counted."""

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
        return self._generator.seeded_latents(seed, 0, n)


@pytest.fixture
def held(generator, threads_only):
    held = BlockedGenerator(generator)
    yield held
    held.go.set()


def on_a_loop(test: Callable[..., Awaitable[None]]) -> Callable[..., None]:
    @wraps(test)
    def run(*arguments, **fixtures) -> None:
        asyncio.run(asyncio.wait_for(test(*arguments, **fixtures), 60))

    return run


async def begun(held: BlockedGenerator) -> None:
    assert await asyncio.to_thread(held.begun.acquire, timeout=10)


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not true():
            await asyncio.sleep(0.01)


@settings(max_examples=20, deadline=None)
@given(sizes=st.lists(st.integers(1, 700), min_size=1, max_size=12), threads=st.integers(1, 3), inline=st.booleans())
def test_every_request_gets_its_own_images_whatever_it_shares_batches_with(generator, sizes, threads, inline):
    asked = [generator.seeded_latents(seed, 5, n) for seed, n in enumerate(sizes)]

    async def ask() -> None:
        engine = Engine(generator, threads, max_queued_images=10**6)
        made = await asyncio.gather(*(engine.decode(one) for one in asked))
        assert engine.queued_images == 0
        for (images, labels), one in zip(made, asked, strict=True):
            latents, expected = one.rows(0, len(one))
            np.testing.assert_array_equal(images, generator.decode(latents, expected))
            assert (labels is None) == (expected is None)
            if labels is not None:
                np.testing.assert_array_equal(labels, expected)

    with pytest.MonkeyPatch.context() as patch:
        if not inline:
            patch.setattr(engines, "INLINE_BUDGET_SECONDS", 0)
        asyncio.run(ask())


@on_a_loop
async def test_small_requests_of_one_loop_turn_are_decoded_in_one_batch_on_the_event_loop(generator, monkeypatch):
    monkeypatch.setattr(engines, "INLINE_BUDGET_SECONDS", 10)
    engine, runs = Engine(generator, 1, max_queued_images=1_000), []

    def decode(latents, labels):
        runs.append((len(latents), threading.current_thread()))
        return Generator.decode(generator, latents, labels)

    monkeypatch.setattr(generator, "decode", decode)
    await asyncio.gather(*(engine.decode(generator.seeded_latents(i, 0, 3)) for i in range(8)))
    assert runs == [(24, threading.main_thread())]


@on_a_loop
async def test_requests_that_arrive_while_the_thread_is_busy_share_its_next_batch(held):
    engine = Engine(held, 1, max_queued_images=1_000)
    first = [asyncio.create_task(engine.decode(held.asked(1))) for _ in range(2)]
    await begun(held)  # and the second is made ready
    others = [asyncio.create_task(engine.decode(held.asked(3, i))) for i in range(8)]
    await until(lambda: engine.queued_images == 24)
    held.go.set()
    await asyncio.gather(*first, *others)
    assert held.runs == [1, 1, 24]


@on_a_loop
async def test_a_single_request_is_split_across_all_threads(held):
    engine = Engine(held, 2, max_queued_images=1_000)
    asked = asyncio.create_task(engine.decode(held.asked(200)))
    await begun(held)
    await begun(held)
    held.go.set()
    await asked
    assert held.runs == [100, 100]


@on_a_loop
async def test_a_small_request_does_not_wait_for_the_end_of_a_large_one(held):
    engine = Engine(held, 1, max_queued_images=10_000)
    large = asyncio.create_task(engine.decode(held.asked(5_000)))
    await begun(held)
    small = asyncio.create_task(engine.decode(held.asked(1)))
    await until(lambda: engine.queued_images == 5_000 - 2 * 256 + 1)
    held.go.set()
    await small
    assert not large.done()
    await large


@on_a_loop
async def test_a_full_queue_refuses_requests_but_a_single_request_may_be_large(held):
    engine = Engine(held, 1, max_queued_images=100)
    large = asyncio.create_task(engine.decode(held.asked(656)))
    await begun(held)
    with pytest.raises(RequestError, match="144 images are queued"):
        await engine.decode(held.asked(1))
    held.go.set()
    images, _ = await large
    assert len(images) == 656


@on_a_loop
async def test_a_cancelled_request_is_not_decoded_and_the_others_are(held):
    engine = Engine(held, 1, max_queued_images=10_000)
    first = [asyncio.create_task(engine.decode(held.asked(1))) for _ in range(2)]
    await begun(held)
    leaver = asyncio.create_task(engine.decode(held.asked(5_000)))
    stayer = asyncio.create_task(engine.decode(held.asked(2)))
    await until(lambda: engine.queued_images == 5_002)
    leaver.cancel()
    await until(lambda: engine.queued_images == 2)
    held.go.set()
    images, _ = await stayer
    await asyncio.gather(*first)
    assert len(images) == 2
    assert leaver.cancelled()
    assert sum(held.runs) == 4


@pytest.mark.parametrize("budget", [0, 10])
@on_a_loop
async def test_a_batch_that_fails_raises_for_its_requests_and_the_next_one_works(generator, monkeypatch, budget):
    monkeypatch.setattr(engines, "INLINE_BUDGET_SECONDS", budget)
    engine = Engine(generator, 1, max_queued_images=100)
    with monkeypatch.context() as broken:
        broken.setattr(generator, "decode", lambda *_: 1 / 0)
        failed = await asyncio.gather(
            *(engine.decode(generator.seeded_latents(i, 0, 1)) for i in range(3)), return_exceptions=True
        )
        assert [type(error) for error in failed] == [ZeroDivisionError] * 3
    images, _ = await engine.decode(LatentBatch(*generator.draw(0, 0, 1)))
    assert len(images) == 1


@pytest.mark.parametrize("n", [2, 400])
@on_a_loop
async def test_finish_is_called_by_the_thread_that_decodes_the_last_images_or_on_the_event_loop(generator, n):
    engine = Engine(generator, 2, max_queued_images=1_000)
    thread = await engine.decode(
        generator.seeded_latents(0, 0, n), finish=lambda *_: threading.current_thread(), in_thread=True
    )
    assert thread.name.startswith("engine")
    thread = await engine.decode(generator.seeded_latents(0, 0, n), finish=lambda *_: threading.current_thread())
    assert thread is threading.main_thread()


@pytest.mark.parametrize("in_thread", [False, True])
@on_a_loop
async def test_an_error_of_finish_concerns_its_own_request_only(held, in_thread):
    engine = Engine(held, 1, max_queued_images=1_000)
    first = [asyncio.create_task(engine.decode(held.asked(1))) for _ in range(2)]
    await begun(held)
    broken = asyncio.create_task(engine.decode(held.asked(2), lambda *_: 1 / 0, in_thread))
    whole = asyncio.create_task(engine.decode(held.asked(3)))
    await until(lambda: engine.queued_images == 5)
    held.go.set()
    with pytest.raises(ZeroDivisionError):
        await broken
    images, _ = await whole
    await asyncio.gather(*first)
    assert held.runs == [1, 1, 5]
    assert len(images) == 3


@on_a_loop
async def test_after_many_requests_and_cancellations_all_threads_are_idle_again(generator, threads_only):
    engine = Engine(generator, 2, max_queued_images=10**9)
    asked = [asyncio.create_task(engine.decode(generator.seeded_latents(i, 0, 1 + i * 37 % 600))) for i in range(600)]
    await asyncio.sleep(0.05)
    for task in asked[::5]:
        task.cancel()
    await asyncio.gather(*asked, return_exceptions=True)
    assert not [task for task in asked if not task.cancelled() and task.exception()]
    await until(lambda: engine._idle_threads == 3)
    assert engine.queued_images == 0
    both = threading.Barrier(2, timeout=10)

    class Meeting:
        """Ends a run only once another is under way."""

        card = generator.card
        rows_per_run = generator.rows_per_run

        def decode(self, *arguments):
            both.wait()
            return generator.decode(*arguments)

    engine._generator = Meeting()
    await asyncio.gather(*(engine.decode(generator.seeded_latents(seed, 0, 1)) for seed in range(2)))
