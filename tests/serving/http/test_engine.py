"""The engine: batching, threads, the queue, cancellation and errors."""

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
from serving.http import loaded_model
from serving.http.engine import Engine
from serving.http.errors import RequestError
from serving.http.loaded_model import LoadedModel


@pytest.fixture(scope="module", params=["conditional", "unconditional"])
def generator(request, files) -> Generator:
    return Generator.open(files[request.param])


@pytest.fixture
def threads_only(monkeypatch):
    """Makes the engine decode all images in threads, as with a slow network."""
    monkeypatch.setattr(loaded_model, "INLINE_BUDGET_SECONDS", 0)


class BlockedGenerator:
    """A generator that blocks in `decode` until `go` is set. `runs` lists the number of rows of each call."""

    def __init__(self, generator: Generator):
        self.card, self.images, self._generator = generator.card, generator.images, generator
        self.rows_per_run = generator.rows_per_run
        self.go, self.begun, self.runs = threading.Event(), threading.Semaphore(0), []
        self.model = LoadedModel("blocked", self)

    def decode(self, latents, labels):
        self.runs.append(len(latents))
        self.begun.release()
        assert self.go.wait(30)
        return self._generator.decode(latents, labels)

    def request(self, n: int, seed: int = 0):
        return self._generator.seeded_latents(seed, 0, n)


@pytest.fixture
def blocked(generator, threads_only):
    blocked = BlockedGenerator(generator)
    yield blocked
    blocked.go.set()


def on_a_loop(test: Callable[..., Awaitable[None]]) -> Callable[..., None]:
    @wraps(test)
    def run(*arguments, **fixtures) -> None:
        asyncio.run(asyncio.wait_for(test(*arguments, **fixtures), 60))

    return run


async def wait_for_run(blocked: BlockedGenerator) -> None:
    """Waits until the generator has begun another run."""
    assert await asyncio.to_thread(blocked.begun.acquire, timeout=10)


async def wait_until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.01)


@settings(max_examples=20, deadline=None)
@given(sizes=st.lists(st.integers(1, 700), min_size=1, max_size=12), threads=st.integers(1, 3), inline=st.booleans())
def test_every_request_gets_its_own_images_from_shared_batches(generator, sizes, threads, inline):
    sources = [generator.seeded_latents(seed, 5, n) for seed, n in enumerate(sizes)]

    async def decode_all() -> None:
        engine, model = Engine(threads, max_queued_images=10**6), LoadedModel("test", generator)
        results = await asyncio.gather(*(engine.decode(model, source) for source in sources))
        assert engine.queued_images == 0
        for (images, labels), source in zip(results, sources, strict=True):
            latents, expected_labels = source.rows(0, len(source))
            np.testing.assert_array_equal(images, generator.decode(latents, expected_labels))
            np.testing.assert_array_equal(labels, expected_labels)

    with pytest.MonkeyPatch.context() as patch:
        if not inline:
            patch.setattr(loaded_model, "INLINE_BUDGET_SECONDS", 0)
        asyncio.run(decode_all())


@on_a_loop
async def test_small_requests_of_one_loop_iteration_are_decoded_in_one_batch_on_the_event_loop(generator, monkeypatch):
    monkeypatch.setattr(loaded_model, "INLINE_BUDGET_SECONDS", 10)
    engine, model, runs = Engine(1, max_queued_images=1_000), LoadedModel("test", generator), []

    def decode(latents, labels):
        runs.append((len(latents), threading.current_thread()))
        return Generator.decode(generator, latents, labels)

    monkeypatch.setattr(generator, "decode", decode)
    await asyncio.gather(*(engine.decode(model, generator.seeded_latents(i, 0, 3)) for i in range(8)))
    assert runs == [(24, threading.main_thread())]


@on_a_loop
async def test_requests_that_arrive_while_the_thread_is_busy_share_its_next_batch(blocked):
    engine = Engine(1, max_queued_images=1_000)
    first = [asyncio.create_task(engine.decode(blocked.model, blocked.request(1))) for _ in range(2)]
    await wait_for_run(blocked)  # the other one is prepared in the additional thread
    others = [asyncio.create_task(engine.decode(blocked.model, blocked.request(3, i))) for i in range(8)]
    await wait_until(lambda: engine.queued_images == 24)
    blocked.go.set()
    await asyncio.gather(*first, *others)
    assert blocked.runs == [1, 1, 24]


@on_a_loop
async def test_a_single_request_is_split_across_all_threads(blocked):
    engine = Engine(2, max_queued_images=1_000)
    task = asyncio.create_task(engine.decode(blocked.model, blocked.request(200)))
    await wait_for_run(blocked)
    await wait_for_run(blocked)
    blocked.go.set()
    await task
    assert blocked.runs == [100, 100]


@on_a_loop
async def test_a_small_request_does_not_wait_for_the_end_of_a_large_one(blocked):
    engine = Engine(1, max_queued_images=10_000)
    large = asyncio.create_task(engine.decode(blocked.model, blocked.request(5_000)))
    await wait_for_run(blocked)
    small = asyncio.create_task(engine.decode(blocked.model, blocked.request(1)))
    await wait_until(lambda: engine.queued_images == 5_000 - 2 * 256 + 1)
    blocked.go.set()
    await small
    assert not large.done()
    await large


@on_a_loop
async def test_a_batch_has_requests_of_one_model_only(blocked):
    engine, other = Engine(1, max_queued_images=1_000), LoadedModel("other", blocked)
    first = [asyncio.create_task(engine.decode(blocked.model, blocked.request(1))) for _ in range(2)]
    await wait_for_run(blocked)
    sizes = [(other, 2), (blocked.model, 3), (other, 4), (blocked.model, 5)]
    later = [asyncio.create_task(engine.decode(model, blocked.request(n))) for model, n in sizes]
    await wait_until(lambda: engine.queued_images == 14)
    blocked.go.set()
    await asyncio.gather(*first, *later)
    assert blocked.runs[:2] == [1, 1]
    assert sorted(blocked.runs[2:]) == [6, 8]  # two threads may begin them in any order


@on_a_loop
async def test_small_requests_for_two_models_are_decoded_on_the_event_loop_in_one_batch_for_each(files, monkeypatch):
    monkeypatch.setattr(loaded_model, "INLINE_BUDGET_SECONDS", 10)
    engine, runs = Engine(1, max_queued_images=1_000), []
    models = [LoadedModel(kind, Generator.open(file)) for kind, file in files.items()]
    for model in models:
        decode = model.generator.decode
        monkeypatch.setattr(model.generator, "decode", lambda z, y, decode=decode: runs.append(len(z)) or decode(z, y))
    requests = [(models[i % 2], i) for i in range(6)]
    results = await asyncio.gather(
        *(engine.decode(model, model.generator.seeded_latents(seed, 0, 2)) for model, seed in requests)
    )
    assert runs == [6, 6]
    for (model, seed), (images, labels) in zip(requests, results, strict=True):
        expected_images, expected_labels = model.generator.images(seed, 0, 2)
        np.testing.assert_array_equal(images, expected_images)
        np.testing.assert_array_equal(labels, expected_labels)


@on_a_loop
async def test_one_bound_of_the_queue_covers_all_models(blocked):
    engine, other = Engine(1, max_queued_images=100), LoadedModel("other", blocked)
    large = asyncio.create_task(engine.decode(blocked.model, blocked.request(656)))
    await wait_for_run(blocked)
    with pytest.raises(RequestError, match="144 images are queued"):
        await engine.decode(other, blocked.request(1))
    blocked.go.set()
    await large


@on_a_loop
async def test_a_full_queue_rejects_requests_but_a_single_request_may_exceed_it(blocked):
    engine = Engine(1, max_queued_images=100)
    large = asyncio.create_task(engine.decode(blocked.model, blocked.request(656)))
    await wait_for_run(blocked)
    with pytest.raises(RequestError, match="144 images are queued"):
        await engine.decode(blocked.model, blocked.request(1))
    blocked.go.set()
    images, _ = await large
    assert len(images) == 656


@on_a_loop
async def test_a_cancelled_request_is_not_decoded_but_others_are(blocked):
    engine = Engine(1, max_queued_images=10_000)
    first = [asyncio.create_task(engine.decode(blocked.model, blocked.request(1))) for _ in range(2)]
    await wait_for_run(blocked)
    cancelled = asyncio.create_task(engine.decode(blocked.model, blocked.request(5_000)))
    other = asyncio.create_task(engine.decode(blocked.model, blocked.request(2)))
    await wait_until(lambda: engine.queued_images == 5_002)
    cancelled.cancel()
    await wait_until(lambda: engine.queued_images == 2)
    blocked.go.set()
    images, _ = await other
    await asyncio.gather(*first)
    assert len(images) == 2
    assert cancelled.cancelled()
    assert sum(blocked.runs) == 4


@pytest.mark.parametrize("budget", [0, 10])
@on_a_loop
async def test_a_failed_batch_fails_its_requests_and_the_next_batch_works(generator, monkeypatch, budget):
    monkeypatch.setattr(loaded_model, "INLINE_BUDGET_SECONDS", budget)
    engine, model = Engine(1, max_queued_images=100), LoadedModel("test", generator)
    with monkeypatch.context() as broken:
        broken.setattr(generator, "decode", lambda *_: 1 / 0)
        failed = await asyncio.gather(
            *(engine.decode(model, generator.seeded_latents(i, 0, 1)) for i in range(3)), return_exceptions=True
        )
        assert [type(error) for error in failed] == [ZeroDivisionError] * 3
    images, _ = await engine.decode(model, LatentBatch(*generator.draw(0, 0, 1)))
    assert len(images) == 1


@pytest.mark.parametrize("n", [2, 400])
@on_a_loop
async def test_finish_runs_in_the_worker_thread_or_on_the_event_loop(generator, n):
    engine, model = Engine(2, max_queued_images=1_000), LoadedModel("test", generator)
    thread = await engine.decode(
        model, generator.seeded_latents(0, 0, n), finish=lambda *_: threading.current_thread(), in_thread=True
    )
    assert thread.name.startswith("engine")
    thread = await engine.decode(model, generator.seeded_latents(0, 0, n), finish=lambda *_: threading.current_thread())
    assert thread is threading.main_thread()


@pytest.mark.parametrize("in_thread", [False, True])
@on_a_loop
async def test_an_error_of_finish_fails_only_its_own_request(blocked, in_thread):
    engine = Engine(1, max_queued_images=1_000)
    first = [asyncio.create_task(engine.decode(blocked.model, blocked.request(1))) for _ in range(2)]
    await wait_for_run(blocked)
    broken = asyncio.create_task(engine.decode(blocked.model, blocked.request(2), lambda *_: 1 / 0, in_thread))
    whole = asyncio.create_task(engine.decode(blocked.model, blocked.request(3)))
    await wait_until(lambda: engine.queued_images == 5)
    blocked.go.set()
    with pytest.raises(ZeroDivisionError):
        await broken
    images, _ = await whole
    await asyncio.gather(*first)
    assert blocked.runs == [1, 1, 5]
    assert len(images) == 3


@on_a_loop
async def test_after_many_requests_and_cancellations_all_threads_are_idle_again(generator, threads_only):
    engine, model = Engine(2, max_queued_images=10**9), LoadedModel("test", generator)
    sources = [generator.seeded_latents(i, 0, 1 + i * 37 % 600) for i in range(600)]
    tasks = [asyncio.create_task(engine.decode(model, source)) for source in sources]
    await asyncio.sleep(0.05)
    for task in tasks[::5]:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert not [task for task in tasks if not task.cancelled() and task.exception()]
    await wait_until(lambda: engine._idle_threads == 3)
    assert engine.queued_images == 0
    both = threading.Barrier(2, timeout=10)

    class TwoAtATime:
        """A generator that ends a run only when a second run is in progress."""

        card = generator.card
        rows_per_run = generator.rows_per_run

        def decode(self, *arguments):
            both.wait()
            return generator.decode(*arguments)

    model.generator = TwoAtATime()
    await asyncio.gather(*(engine.decode(model, generator.seeded_latents(seed, 0, 1)) for seed in range(2)))
