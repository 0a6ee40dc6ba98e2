import dataclasses
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.common.checksum import write_checksum
from models.common.errors import InputError, ModelFileError
from models.onnx_file.card import Card
from models.onnx_file.generator import Generator
from models.onnx_file.golden import pack_golden
from models.onnx_file.session import MAX_ROWS_PER_RUN


@pytest.fixture(scope="module")
def generators(files) -> dict[str, Generator]:
    return {kind: Generator.open(file) for kind, file in files.items()}


@pytest.fixture(scope="module")
def conditional(generators) -> Generator:
    return generators["conditional"]


def test_images_and_labels_have_their_documented_shapes(generators):
    images, labels = generators["conditional"].images(seed=1, first=0, n=7)
    assert (images.shape, images.dtype) == ((7, 1, 28, 28), np.uint8)
    assert (labels.shape, labels.dtype) == ((7,), np.int64)
    assert generators["unconditional"].images(seed=1, first=0, n=7)[1] is None


@given(
    st.integers(0, 2**53 - 1),
    st.integers(0, 2**53 - 1_000),
    st.integers(0, 300),
    st.integers(1, 300),
    st.text("0189", min_size=1),
)
@settings(deadline=None, max_examples=40)
def test_an_image_is_identical_in_every_range_that_contains_it(conditional, seed, first, skip, n, asked):
    for labels in (None, asked):
        whole = conditional.images(seed, first, skip + n, labels)
        part = conditional.images(seed, first + skip, n, labels)
        np.testing.assert_array_equal(part[0], whole[0][skip:])
        np.testing.assert_array_equal(part[1], whole[1][skip:])


def test_a_range_longer_than_one_run_is_complete(conditional):
    n = 2 * MAX_ROWS_PER_RUN + 3
    images, _ = conditional.images(seed=5, first=0, n=n)
    assert len(images) == n
    np.testing.assert_array_equal(images[-1:], conditional.images(seed=5, first=n - 1, n=1)[0])


def test_many_threads_on_one_generator_get_the_same_images(conditional):
    expected = [conditional.images(seed, 0, 20)[0] for seed in range(40)]
    with ThreadPoolExecutor(8) as pool:
        for image, alone in zip(
            pool.map(lambda seed: conditional.images(seed, 0, 20)[0], range(40)), expected, strict=True
        ):
            np.testing.assert_array_equal(image, alone)


def test_labels_are_cycled_by_index(conditional):
    assert conditional.images(seed=1, first=0, n=5, labels="379")[1].tolist() == [3, 7, 9, 3, 7]
    assert conditional.images(seed=1, first=4, n=3, labels="379")[1].tolist() == [7, 9, 3]


def test_giving_the_labels_that_would_be_drawn_changes_nothing(conditional):
    images, labels = conditional.images(seed=1, first=0, n=30)
    np.testing.assert_array_equal(conditional.images(seed=1, first=0, n=30, labels=labels.tolist())[0], images)


def test_truncation_reduces_the_variance_of_the_images(conditional):
    def spread(truncation: float) -> float:
        return conditional.images(seed=1, first=0, n=200, labels="3", truncation=truncation)[0].std(axis=0).mean()

    assert spread(0.01) < spread(0.5) < spread(1.0)


@pytest.mark.parametrize("truncation", [0, -1, 1.01, float("nan"), float("inf")])
def test_a_truncation_out_of_range_is_rejected(conditional, truncation):
    with pytest.raises(InputError, match="truncation"):
        conditional.images(seed=1, first=0, n=1, truncation=truncation)


@pytest.mark.parametrize(
    ("field", "latents", "labels"),
    [
        ("latents", np.zeros((2, 15)), np.zeros(2, np.int64)),
        ("latents", np.zeros(16), np.zeros(1, np.int64)),
        ("latents", np.zeros((0, 16)), np.zeros(0, np.int64)),
        ("latents", np.full((1, 16), np.nan), np.zeros(1, np.int64)),
        ("latents", np.full((1, 16), 1e300), np.zeros(1, np.int64)),
        ("labels", np.zeros((2, 16)), None),
        ("labels", np.zeros((2, 16)), np.array([0])),
        ("labels", np.zeros((2, 16)), np.array([0, 10])),
        ("labels", np.zeros((2, 16)), np.array([0, -1])),
    ],
)
def test_invalid_latents_and_labels_are_rejected_by_name(conditional, field, latents, labels):
    with pytest.raises(InputError) as caught:
        conditional.decode(latents, labels)
    assert caught.value.field == field


def test_a_generator_without_classes_takes_no_labels(generators):
    with pytest.raises(InputError, match="without classes"):
        generators["unconditional"].images(seed=1, first=0, n=1, labels="3")
    with pytest.raises(InputError, match="without classes"):
        generators["unconditional"].decode(np.zeros((1, 16)), np.zeros(1, np.int64))


@given(st.data())
@settings(deadline=None, max_examples=60)
def test_a_flipped_bit_is_detected_wherever_it_is(files, tmp_path_factory, data):
    whole = files["conditional"].read_bytes()
    damaged = bytearray(whole)
    damaged[data.draw(st.integers(0, len(whole) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    with pytest.raises(ModelFileError):
        Generator.from_bytes(bytes(damaged))


@given(st.data())
@settings(deadline=None, max_examples=60)
def test_a_truncated_or_extended_file_is_detected(files, data):
    whole = files["conditional"].read_bytes()
    for damaged in (whole[: data.draw(st.integers(0, len(whole) - 1))], whole + data.draw(st.binary(min_size=1))):
        with pytest.raises(ModelFileError):
            Generator.from_bytes(damaged)


def with_changed_card(file: bytes, change) -> bytes:
    """Returns a file with a changed card and a correct checksum."""
    model = onnx.load_from_string(file)
    card = change(Card.from_json(model.metadata_props[0].value))
    model.metadata_props[0].value = dataclasses.replace(card, file_sha256="0" * 64).to_json()
    return write_checksum(model.SerializeToString())


@pytest.mark.parametrize(
    ("message", "change"),
    [
        ("golden", lambda card: dataclasses.replace(card, golden=dataclasses.replace(card.golden, seed=1))),
        ("golden", lambda card: dataclasses.replace(card, golden=dataclasses.replace(card.golden, pixels="bad"))),
        (
            "golden",
            lambda card: dataclasses.replace(
                card, golden=dataclasses.replace(card.golden, pixels=pack_golden(np.zeros((16, 1, 28, 28), np.uint8)))
            ),
        ),
        ("golden", lambda card: dataclasses.replace(card, golden=dataclasses.replace(card.golden, n=-1))),
        ("golden", lambda card: dataclasses.replace(card, golden=dataclasses.replace(card.golden, n=""))),
        ("inputs", lambda card: dataclasses.replace(card, latent_dim=17)),
        ("inputs", lambda card: dataclasses.replace(card, conditional=False)),
        ("outputs", lambda card: dataclasses.replace(card, image_shape=(3, 28, 28))),
        ("latents are of version 2", lambda card: dataclasses.replace(card, latents_version=2)),
    ],
)
def test_a_file_that_contradicts_its_card_is_rejected(files, message, change):
    with pytest.raises(ModelFileError, match=message):
        Generator.from_bytes(with_changed_card(files["conditional"].read_bytes(), change))


def test_a_file_with_an_unchanged_card_opens(files):
    Generator.from_bytes(with_changed_card(files["conditional"].read_bytes(), lambda card: card))


def test_the_error_names_the_file(tmp_path):
    with pytest.raises(ModelFileError, match=r"nothing\.onnx: No such file"):
        Generator.open(tmp_path / "nothing.onnx")
    with pytest.raises(ModelFileError, match=str(tmp_path)):
        Generator.open(tmp_path)
