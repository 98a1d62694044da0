"""How bytes on disk become a batch: format, reader, order, distortions, evaluation crop."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

import cifar10_input
from cifar10_input import Distortions, RecordFormat, View

# Both sides compute in float32, in another order of the same few operations on
# values of up to about 300: a few units in the last place.
FLOAT32_TOLERANCE = 1e-4


def evaluate(build: Callable[[], Any]) -> Any:
    """The value of the tensors that `build` makes, in a graph of their own."""
    with tf.Graph().as_default():
        tensors = build()
        with tf.Session() as session:
            return session.run(tensors)


def first_batches(
    directory: Path, count: int, batch_size: int, seed: int = 0, start: int = 0, **options: Any
) -> tuple[np.ndarray, np.ndarray]:
    """Images and labels of the first `count` training batches, one after the other."""
    with tf.Graph().as_default():
        batch = cifar10_input.distorted_inputs(str(directory), batch_size, seed, start, **options)
        with tf.Session() as session:
            batches = [session.run(batch) for _ in range(count)]
    images, labels = zip(*batches, strict=True)
    return np.concatenate(images), np.concatenate(labels)


def stream_ids(
    directory: Path, count: int, seed: int = 0, start: int = 0, held_out: Sequence[int] = ()
) -> list[int]:
    """Places in the files of `count` records of the training stream."""
    with tf.Graph().as_default():
        files = cifar10_input.train_files(str(directory))
        stream = cifar10_input.record_stream(files, seed, start, held_out=held_out)
        record = tf.data.make_one_shot_iterator(stream).get_next()
        with tf.Session() as session:
            return [session.run(record)[1] for _ in range(count)]


# ------------------------------------------------------------------ record format


def test_record_sizes() -> None:
    assert cifar10_input.CIFAR10_RECORD.record_bytes == 1 + 32 * 32 * 3
    assert RecordFormat(label_bytes=2).record_bytes == 2 + 32 * 32 * 3
    assert RecordFormat(height=28, width=28, depth=1).record_bytes == 1 + 28 * 28


def test_decode_puts_each_byte_where_the_format_says() -> None:
    rows, columns = np.mgrid[0:32, 0:32].astype(np.uint8)
    blue = np.full([32, 32], 200, np.uint8)
    record = bytes([7]) + rows.tobytes() + columns.tobytes() + blue.tobytes()

    images, labels = evaluate(lambda: cifar10_input.decode_records(tf.constant([record])))

    assert labels.dtype == np.int32 and labels.tolist() == [7]
    assert images.dtype == np.uint8
    np.testing.assert_array_equal(images[0], np.stack([rows, columns, blue], axis=-1))


def test_decode_label_of_255_is_not_negative() -> None:
    record = bytes([255]) + bytes(3072)
    _, labels = evaluate(lambda: cifar10_input.decode_records(tf.constant([record])))
    assert labels.tolist() == [255]


@pytest.mark.parametrize(('label_index', 'expected'), [(-1, 99), (0, 19)])
def test_decode_cifar100_record(label_index: int, expected: int) -> None:
    record_format = RecordFormat(label_bytes=2, label_index=label_index)
    record = bytes([19, 99]) + bytes([5]) * 3072
    images, labels = evaluate(
        lambda: cifar10_input.decode_records(tf.constant([record]), record_format)
    )
    assert labels.tolist() == [expected]
    assert (images == 5).all()


# --------------------------------------------------------------------------- order


def test_an_epoch_is_a_permutation_and_epochs_differ(records: Path) -> None:
    ids = stream_ids(records, 180)
    epochs = [ids[0:60], ids[60:120], ids[120:180]]
    for epoch in epochs:
        assert sorted(epoch) == list(range(60))
    assert epochs[0] != epochs[1] != epochs[2] != epochs[0]
    assert list(range(60)) not in epochs


def test_order_agrees_for_one_seed_and_differs_for_another(records: Path) -> None:
    assert stream_ids(records, 100, seed=3) == stream_ids(records, 100, seed=3)
    assert stream_ids(records, 60, seed=3) != stream_ids(records, 60, seed=4)


@pytest.mark.parametrize('start', [1, 59, 60, 61, 150])
def test_the_stream_can_begin_anywhere(records: Path, start: int) -> None:
    whole = stream_ids(records, start + 70)
    assert stream_ids(records, 70, start=start) == whole[start:]


def test_order_does_not_depend_on_the_graph_level_seed(records: Path) -> None:
    def ids_with_graph_seed(graph_seed: int) -> list[int]:
        files = cifar10_input.train_files(str(records))
        with tf.Graph().as_default():
            tf.set_random_seed(graph_seed)
            stream = cifar10_input.record_stream(files, seed=0).take(60).batch(60)
            batch = tf.data.make_one_shot_iterator(stream).get_next()
            with tf.Session() as session:
                return [record[1] for record in session.run(batch)]

    assert ids_with_graph_seed(1) == ids_with_graph_seed(2)


def test_a_small_shuffle_window_still_gives_every_record(
    records: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cifar10_input, 'SHUFFLE_WINDOW', 7)
    assert sorted(stream_ids(records, 60)) == list(range(60))


# Places of 13 of the 60 training records, the first and the last among them.
HELD_OUT = (0, 1, 7, *range(20, 27), 40, 58, 59)
KEPT = [place for place in range(60) if place not in HELD_OUT]


def test_what_is_held_out_is_never_given(records: Path) -> None:
    ids = stream_ids(records, 94, held_out=HELD_OUT)
    assert sorted(ids[:47]) == sorted(ids[47:]) == KEPT
    assert stream_ids(records, 10, start=60, held_out=HELD_OUT) == ids[60:70]
    with pytest.raises(ValueError, match='no record of 3073 bytes'):
        stream_ids(records, 1, held_out=range(60))


def test_no_record_at_all_is_an_error(tmp_path: Path) -> None:
    (tmp_path / 'short.bin').write_bytes(bytes(3072))
    with pytest.raises(ValueError, match=r'no record of 3073 bytes in .*short\.bin'):
        cifar10_input.record_stream([str(tmp_path / 'short.bin')], seed=0)


# -------------------------------------------------------------------- distortions


def test_random_numbers_belong_to_a_position() -> None:
    def rows(position: int, count: int) -> np.ndarray:
        return evaluate(
            lambda: cifar10_input.random_numbers(5, tf.constant(position, tf.int64), count)
        )

    whole = rows(0, 100)
    np.testing.assert_array_equal(rows(40, 60), whole[40:])
    np.testing.assert_array_equal(rows(7, 1), whole[7:8])
    assert whole.dtype == np.float32
    assert len(np.unique(whole)) > 0.99 * whole.size


def test_random_numbers_are_uniform_and_depend_on_the_seed() -> None:
    def rows(seed: int) -> np.ndarray:
        return evaluate(lambda: cifar10_input.random_numbers(seed, tf.constant(0, tf.int64), 20000))

    numbers = rows(0)
    assert numbers.min() >= 0 and numbers.max() < 1
    # Standard errors at 20,000 draws: 0.002 of the mean, 0.0006 of the variance.
    np.testing.assert_allclose(numbers.mean(axis=0), 0.5, atol=0.012)
    np.testing.assert_allclose(numbers.var(axis=0), 1 / 12, atol=0.004)
    correlation = np.corrcoef(numbers, rowvar=False) - np.eye(8)
    assert np.abs(correlation).max() < 0.04
    assert not np.array_equal(numbers, rows(1))


def test_crop_and_flip_equals_slicing() -> None:
    rng = np.random.default_rng(1)
    images = rng.integers(0, 256, [50, 32, 32, 3], dtype=np.uint8)
    top, left = rng.integers(0, 9, [2, 50], dtype=np.int32)
    flip = rng.random(50) < 0.5

    cropped = evaluate(
        lambda: cifar10_input.crop_and_flip(
            tf.constant(images), tf.constant(top), tf.constant(left), tf.constant(flip)
        )
    )

    for i in range(50):
        expected = images[i, top[i] : top[i] + 24, left[i] : left[i] + 24]
        np.testing.assert_array_equal(cropped[i], expected[:, ::-1] if flip[i] else expected)


def test_brightness_and_contrast_equal_the_plain_ops() -> None:
    rng = np.random.default_rng(2)
    images = rng.uniform(0, 255, [20, 24, 24, 3]).astype(np.float32)
    delta = rng.uniform(-63, 63, 20).astype(np.float32)
    factor = rng.uniform(0.2, 1.8, 20).astype(np.float32)

    def build() -> list[tf.Tensor]:
        return [
            cifar10_input.adjust_brightness(tf.constant(images), tf.constant(delta)),
            tf.stack(
                [tf.image.adjust_brightness(x, d) for x, d in zip(images, delta, strict=True)]
            ),
            cifar10_input.adjust_contrast(tf.constant(images), tf.constant(factor)),
            tf.stack([tf.image.adjust_contrast(x, f) for x, f in zip(images, factor, strict=True)]),
        ]

    brightness, plain_brightness, contrast, plain_contrast = evaluate(build)
    np.testing.assert_array_equal(brightness, plain_brightness)
    np.testing.assert_allclose(contrast, plain_contrast, atol=FLOAT32_TOLERANCE)


def test_distort_applies_the_plain_ops_in_the_tutorials_order() -> None:
    rng = np.random.default_rng(3)
    images = rng.integers(0, 256, [30, 32, 32, 3], dtype=np.uint8)
    numbers = rng.random([30, 8]).astype(np.float32)

    def plain(image: np.ndarray, row: np.ndarray) -> tf.Tensor:
        top, left = int(row[0] * 9), int(row[1] * 9)
        x = tf.cast(image[top : top + 24, left : left + 24], tf.float32)
        if row[2] < 0.5:
            x = tf.image.flip_left_right(x)
        x = tf.image.adjust_brightness(x, (2 * row[3] - 1) * 63)
        x = tf.image.adjust_contrast(x, 0.2 + 1.6 * row[4])
        return tf.image.per_image_standardization(x)

    distorted, expected = evaluate(
        lambda: [
            cifar10_input.distort(tf.constant(images), tf.constant(numbers)),
            tf.stack([plain(x, row) for x, row in zip(images, numbers, strict=True)]),
        ]
    )
    assert distorted.shape == (30, 24, 24, 3) and distorted.dtype == np.float32
    np.testing.assert_allclose(distorted, expected, atol=FLOAT32_TOLERANCE)


def test_an_image_of_one_colour_becomes_zeros() -> None:
    images = np.full([1, 32, 32, 3], 80, np.uint8)
    distorted = evaluate(
        lambda: cifar10_input.distort(tf.constant(images), tf.constant(np.zeros([1, 8], 'f')))
    )
    assert np.abs(distorted).max() < 1e-3


def test_the_pipeline_crops_and_flips_everywhere_alike(tmp_path: Path) -> None:
    # A single bright pixel on a dark image: where it lies in the crop tells the place.
    image = np.zeros([3, 32, 32], np.uint8)
    image[:, 15, 12] = 255
    record = bytes([1]) + image.tobytes()
    for name in cifar10_input.TRAIN_FILES:
        (tmp_path / name).write_bytes(record * 10)

    images, _ = first_batches(tmp_path, count=8, batch_size=500)

    bright = images[..., 0].reshape(4000, -1).argmax(axis=1)
    rows, columns = 15 - bright // 24, bright % 24
    # Unflipped, the column is 12 - left, from 4 to 12; flipped, 23 - (12 - left), 11 to 19.
    counts = np.histogram2d(rows, columns, bins=[np.arange(10), np.arange(4, 21)])[0]
    assert counts.sum() == 4000
    # 4,000 crops in 9 rows: 444 each, standard deviation 20.
    assert np.abs(counts.sum(axis=1) - 4000 / 9).max() < 100
    # A column of 4 to 10 or 13 to 19 has one place of 18: 222, standard deviation 14.5.
    single = np.concatenate([counts[:, :7].sum(axis=0), counts[:, 9:].sum(axis=0)])
    assert np.abs(single - 4000 / 18).max() < 75


@pytest.mark.parametrize(('max_shift', 'expected'), [(0, [4]), (1, [3, 4, 5]), (4, range(9))])
def test_crops_lie_no_further_from_the_centre_than_asked(max_shift: int, expected: Any) -> None:
    # One bright row: where it lies in a crop tells the crop's top.
    image = np.zeros([32, 32, 3], np.uint8)
    image[15] = 255
    numbers = np.random.default_rng(5).random([400, 8]).astype(np.float32)
    distortions = cifar10_input.Distortions(max_shift=max_shift, flip=False)
    images = np.broadcast_to(image, [400, *image.shape])
    distorted = evaluate(
        lambda: cifar10_input.distort(tf.constant(images), tf.constant(numbers), distortions)
    )
    tops = 15 - distorted[:, :, 0, 0].argmax(axis=1)
    assert set(tops.tolist()) == set(expected)


@pytest.mark.parametrize(('flip', 'low', 'high'), [(False, 0, 0), (True, 70, 130)])
def test_only_flip_mirrors_half_of_the_images(flip: bool, low: int, high: int) -> None:
    images = np.zeros([200, 32, 32, 3], np.uint8)
    images[:, :, 10] = 255
    numbers = np.random.default_rng(6).random([200, 8]).astype(np.float32)
    distortions = cifar10_input.Distortions(max_shift=0, flip=flip)
    distorted = evaluate(
        lambda: cifar10_input.distort(tf.constant(images), tf.constant(numbers), distortions)
    )
    mirrored = distorted[:, 0, :, 0].argmax(axis=1) == 23 - 6
    assert low <= mirrored.sum() <= high


PLAIN: dict[str, Any] = {'flip': False, 'max_brightness': 0.0, 'max_contrast': 0.0}
WHOLE = View(size=32, scaling='unit')


def test_reflect_padding_is_numpys() -> None:
    """Every offset of the crop in the enlarged image comes about, and no other."""
    image = np.random.default_rng(2).integers(0, 256, [32, 32, 3], dtype=np.uint8)
    padded = np.pad(image, [(2, 2), (2, 2), (0, 0)], mode='reflect') / 255
    crops = {
        padded[top : top + 32, left : left + 32].astype(np.float32).tobytes(): (top, left)
        for top in range(5)
        for left in range(5)
    }
    distortions = Distortions(reflect_padding=2, **PLAIN)
    with tf.Graph().as_default():
        batch = tf.constant(np.broadcast_to(image, [400, 32, 32, 3]))
        distorted = cifar10_input.distort_at(batch, 0, tf.constant(0, tf.int64), distortions, WHOLE)
        with tf.Session() as session:
            found = np.round(session.run(distorted) * 255) / 255
    places = [crops[values.astype(np.float32).tobytes()] for values in found]
    assert set(places) == set(crops.values())


def test_alternating_flip_mirrors_each_image_in_every_other_epoch(records: Path) -> None:
    distortions = Distortions(alternating_flip=True, **{**PLAIN, 'flip': True})
    options: dict[str, Any] = {'distortions': distortions, 'view': WHOLE, 'seed': 5}
    images, _ = first_batches(records, 3, 60, **options)
    epochs = [np.round(epoch * 255).astype(np.uint8) for epoch in np.split(images, 3)]
    originals: dict[bytes, int] = {}
    for file in cifar10_input.train_files(str(records)):
        for record in np.fromfile(file, np.uint8).reshape(-1, 3073):
            image = record[1:].reshape(3, 32, 32).transpose(1, 2, 0)
            originals[image.tobytes()] = len(originals)
            originals[image[:, ::-1].tobytes()] = originals[image.tobytes()] + 1
    places = [{originals[image.tobytes()] for image in epoch} for epoch in epochs]
    first, second, third = ({place // 2: place % 2 for place in epoch} for epoch in places)
    assert first.keys() == second.keys() and len(first) == 60
    assert all(second[image] == 1 - mirrored for image, mirrored in first.items())
    assert third == first
    assert 15 <= sum(first.values()) <= 45
    other, _ = first_batches(records, 1, 60, **{**options, 'seed': 6})
    mirrored = {originals[np.round(image * 255).astype(np.uint8).tobytes()] for image in other}
    assert mirrored != places[0]
    # Also where an epoch ends within the batch.
    resumed, _ = first_batches(records, 1, 20, start=50, **options)
    np.testing.assert_array_equal(resumed, images[50:70])


def test_cutout_blanks_one_square_inside_the_crop() -> None:
    distortions = Distortions(max_shift=0, cutout=12, **PLAIN)
    numbers = np.random.default_rng(3).random([500, 8]).astype(np.float32)
    images = np.full([500, 32, 32, 3], 255, np.uint8)
    (found,) = evaluate(
        lambda: [
            cifar10_input.distort(
                tf.constant(images), tf.constant(numbers), distortions, View(scaling='unit')
            )
        ]
    )
    for image, row in zip(found, numbers, strict=True):
        # 13 places of a square of 12 in 24.
        top, left = (int(place * 13) for place in row[5:7])
        expected = np.ones([24, 24, 3])
        expected[top : top + 12, left : left + 12] = 0
        np.testing.assert_array_equal(image, expected)
    assert {int(place * 13) for place in numbers[:, 5]} == set(range(13))


def test_scaling_by_channels_is_by_cifar10s_mean_and_deviation() -> None:
    images = np.random.default_rng(4).integers(0, 256, [3, 32, 32, 3], dtype=np.uint8)
    view = View(size=32, scaling='channels')
    found = evaluate(lambda: cifar10_input.evaluation_crop(tf.constant(images), view))
    expected = (images / 255 - [0.4914, 0.4822, 0.4465]) / [0.2470, 0.2435, 0.2616]
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_no_brightness_and_no_contrast_leave_the_evaluation_crop() -> None:
    images = np.random.default_rng(7).integers(0, 256, [20, 32, 32, 3], dtype=np.uint8)
    numbers = np.random.default_rng(8).random([20, 8]).astype(np.float32)
    none = cifar10_input.Distortions(0, flip=False, max_brightness=0.0, max_contrast=0.0)
    distorted, expected = evaluate(
        lambda: [
            cifar10_input.distort(tf.constant(images), tf.constant(numbers), none),
            cifar10_input.evaluation_crop(tf.constant(images)),
        ]
    )
    np.testing.assert_allclose(distorted, expected, atol=FLOAT32_TOLERANCE)


# --------------------------------------------------------------------------- mixup

# The function of Beta(alpha, alpha) in closed form.
BETA = {
    0.5: lambda x: 2 / np.pi * np.arcsin(np.sqrt(x)),
    1.0: lambda x: x,
    2.0: lambda x: x**2 * (3 - 2 * x),
}


@pytest.mark.parametrize('alpha', BETA)
def test_a_quantile_of_beta_has_its_probability(alpha: float) -> None:
    probabilities = np.linspace(0.01, 0.99, 99, dtype=np.float32)
    found = evaluate(lambda: cifar10_input.beta_quantile(alpha, tf.constant(probabilities)))
    np.testing.assert_allclose(BETA[alpha](found.astype(np.float64)), probabilities, atol=1e-5)


def test_shares_of_small_alphas_are_all_but_0_or_1() -> None:
    numbers = np.random.default_rng(0).random(2000, np.float32)
    found = evaluate(lambda: cifar10_input.beta_quantile(0.1, tf.constant(numbers)))
    assert found.min() >= 0 and found.max() <= 1
    # Variance of Beta(a, a): 1 / (4 (2 a + 1)).
    assert found.mean() == pytest.approx(0.5, abs=0.03)
    assert found.var() == pytest.approx(1 / 4.8, abs=0.01)


def test_mixup_mixes_an_image_with_its_neighbour() -> None:
    rng = np.random.default_rng(1)
    images = rng.standard_normal([4, 5, 5, 3]).astype(np.float32)
    labels = np.array([2, 0, 1, 1], np.int32)

    def build() -> Any:
        position = tf.constant(10, tf.int64)
        numbers = cifar10_input.random_numbers(7, position, 4, 1, stream=2)
        mixed = cifar10_input.mix_up(
            tf.constant(images), tf.constant(labels), 1.0, 7, position, num_classes=3
        )
        return numbers, mixed

    # Of Beta(1, 1) the quantile is the probability.
    shares, (mixed, mixed_labels) = evaluate(build)
    others = [1, 0, 3, 2]
    classes = np.eye(3)[labels]
    np.testing.assert_allclose(
        mixed_labels, shares * classes + (1 - shares) * classes[others], atol=1e-6
    )
    shares = shares.reshape(4, 1, 1, 1)
    np.testing.assert_allclose(mixed, shares * images + (1 - shares) * images[others], atol=1e-5)


def test_mixed_batches_are_cut_from_one_stream(records: Path) -> None:
    """Whatever their size and start, and by several readers."""
    options: dict[str, Any] = {'distortions': Distortions(mixup=0.5)}
    images, labels = first_batches(records, 3, 12, **options)
    assert labels.shape == (36, 10) and labels.dtype == np.float32
    np.testing.assert_allclose(labels.sum(axis=1), 1, atol=1e-6)
    assert ((labels > 0.1) & (labels < 0.9)).any()
    for count, size, start in ((6, 6, 0), (2, 12, 12), (9, 4, 0)):
        found, found_labels = first_batches(records, count, size, start=start, **options)
        np.testing.assert_array_equal(found, images[start:])
        np.testing.assert_array_equal(found_labels, labels[start:])
    share, share_labels = first_batches(records, 3, 6, share=1, num_shares=2, **options)
    np.testing.assert_array_equal(
        share, images.reshape(3, 2, 6, *images.shape[1:])[:, 1].reshape(18, *images.shape[1:])
    )
    np.testing.assert_array_equal(share_labels, labels.reshape(3, 2, 6, 10)[:, 1].reshape(18, 10))


# -------------------------------------------------------------------------- warping

# A channel that holds each pixel's x, and one that holds its y.
PLACES = np.stack(np.meshgrid(np.arange(32), np.arange(32)), axis=-1).astype(np.float32)


def warped(numbers: np.ndarray, distortions: Distortions, side: int = 32) -> np.ndarray:
    images = np.broadcast_to(PLACES, [len(numbers), *PLACES.shape])
    return evaluate(
        lambda: cifar10_input.warp(
            tf.constant(images), tf.constant(numbers.astype(np.float32)), distortions, side
        )
    )


def test_warped_pixels_come_from_where_turning_zooming_and_moving_lead() -> None:
    numbers = np.random.default_rng(10).random([20, 8])
    distortions = Distortions(max_rotation=30, max_zoom=0.2, max_translation=0.1)
    found = warped(numbers, distortions, side=24)
    turn, zoom_x, zoom_y, move_x, move_y = (2 * numbers[:, :5] - 1).T[..., None, None]
    # The plane of complex numbers, with the centre of the image at 0.
    x, y = PLACES[..., 0] - 15.5, PLACES[..., 1] - 15.5
    shown = x * (1 + 0.2 * zoom_x) + 1j * y * (1 + 0.2 * zoom_y)
    places = shown * np.exp(1j * np.radians(30 * turn)) + 2.4 * (move_x + 1j * move_y)
    # Interpolated, such a channel is as exact as its pixels; beyond the edge it has its last.
    expected = np.clip(np.stack([places.real, places.imag], axis=-1) + 15.5, 0, 31)
    np.testing.assert_allclose(found, expected, atol=1e-3)
    assert found.min() == 0 and found.max() == 31


def test_numbers_in_the_middle_warp_nothing() -> None:
    distortions = Distortions(max_rotation=30, max_zoom=0.2, max_translation=0.1)
    np.testing.assert_array_equal(warped(np.full([1, 8], 0.5), distortions)[0], PLACES)


@pytest.mark.parametrize('kind', ['max_rotation', 'max_zoom', 'max_translation'])
def test_the_pipeline_warps_as_its_parts_do(records: Path, kind: str) -> None:
    """With numbers of their own, so that crops and flips stay those of the unwarped images."""
    values: dict[str, Any] = {'max_brightness': 0.0, 'max_contrast': 0.0}
    with_warp: dict[str, Any] = {**values, kind: 0.3}
    warping = Distortions(**with_warp)
    view = View(scaling='unit')

    def parts() -> tf.Tensor:
        stream = cifar10_input.record_stream(cifar10_input.train_files(str(records)), seed=0)
        batch = tf.data.make_one_shot_iterator(stream.batch(20)).get_next()
        position = tf.constant(0, tf.int64)
        images, _ = cifar10_input.decode_records(batch)
        numbers = cifar10_input.random_numbers(0, position, 20, stream=1)
        images = cifar10_input.warp(images, numbers, warping, 24)
        numbers = cifar10_input.random_numbers(0, position, 20)
        return cifar10_input.distort(images, numbers, warping, view)

    images, _ = first_batches(records, 1, 20, distortions=warping, view=view)
    np.testing.assert_allclose(images, evaluate(parts), atol=1e-6)
    unwarped, _ = first_batches(records, 1, 20, distortions=Distortions(**values), view=view)
    # By no more than a third of a degree in one of the cases.
    assert np.abs(images - unwarped).mean(axis=(1, 2, 3)).min() > 1e-4
    resumed, _ = first_batches(records, 1, 5, start=15, distortions=warping, view=view)
    np.testing.assert_array_equal(resumed, images[15:])


# ---------------------------------------------------------------------------- views


@pytest.mark.parametrize(('size', 'depth'), [(32, 3), (28, 1), (24, 2)])
def test_a_view_of_unit_scale_is_the_centre_of_the_first_channels(size: int, depth: int) -> None:
    view = View(size, depth, 'unit')
    images = np.random.default_rng(11).integers(0, 256, [6, 32, 32, 3], dtype=np.uint8)
    margin = (32 - size) // 2
    centre = images[:, margin : margin + size, margin : margin + size, :depth] / 255
    none = Distortions(0, flip=False, max_brightness=0.0, max_contrast=0.0)
    cropped, distorted, views = evaluate(
        lambda: [
            cifar10_input.evaluation_crop(tf.constant(images), view),
            cifar10_input.distort_at(tf.constant(images), 3, tf.constant(0, tf.int64), none, view),
            cifar10_input.evaluation_views(tf.constant(images), view),
        ]
    )
    for found in (cropped, distorted, views[::10], views[5::10, :, ::-1]):
        np.testing.assert_allclose(found, centre, atol=1e-7)
    corner = images[:, -size:, -size:, :depth] / 255
    np.testing.assert_allclose(views[4::10], corner, atol=1e-7)


@pytest.mark.parametrize('size', [32, 24])
def test_six_views_are_the_centre_and_shifts_by_a_pixel(size: int) -> None:
    view = View(size, scaling='unit')
    images = np.random.default_rng(12).integers(0, 256, [4, 32, 32, 3], dtype=np.uint8)
    found = evaluate(lambda: cifar10_input.evaluation_views(tf.constant(images), view, 6))
    padded = np.pad(images, [(0, 0), (1, 1), (1, 1), (0, 0)], mode='reflect') / 255
    margin = (32 - size) // 2
    for i, shift in enumerate((1, 0, 2)):
        first = margin + shift
        expected = padded[:, first : first + size, first : first + size]
        np.testing.assert_allclose(found[i::6], expected, atol=1e-6)
        np.testing.assert_allclose(found[i + 3 :: 6], expected[:, :, ::-1], atol=1e-6)


def test_inputs_take_a_view(records: Path) -> None:
    view = View(28, 1, 'unit')
    images, _ = first_batches(records, 1, 4, view=view)
    with tf.Graph().as_default(), tf.Session() as session:
        scored, _ = session.run(cifar10_input.inputs('test', str(records), 4, view=view))
    for found in (images, scored):
        assert found.shape == (4, 28, 28, 1)
    assert 0 <= scored.min() < 0.01 and 0.99 < scored.max() <= 1


def test_the_pipeline_distorts_as_its_parts_do(records: Path) -> None:
    def parts() -> tuple[tf.Tensor, tf.Tensor]:
        files = cifar10_input.train_files(str(records))
        stream = cifar10_input.record_stream(files, seed=9, start=5).batch(20)
        batch = tf.data.make_one_shot_iterator(stream).get_next()
        images, labels = cifar10_input.decode_records(batch)
        numbers = cifar10_input.random_numbers(9, tf.constant(5, tf.int64), 20)
        return cifar10_input.distort(images, numbers), labels

    images, labels = first_batches(records, 1, 20, seed=9, start=5)
    expected_images, expected_labels = evaluate(parts)
    np.testing.assert_array_equal(labels, expected_labels)
    np.testing.assert_allclose(images, expected_images, atol=FLOAT32_TOLERANCE)


# ------------------------------------------------------------- training batches


def test_shapes_and_types_of_training_batches(records: Path) -> None:
    with tf.Graph().as_default():
        images, labels = cifar10_input.distorted_inputs(str(records), 8)
        assert images.shape.as_list() == [8, 24, 24, 3] and images.dtype == tf.float32
        assert labels.shape.as_list() == [8] and labels.dtype == tf.int32


@pytest.mark.parametrize('step', [1, 6, 7, 20])
def test_resuming_at_a_step_gives_the_batch_of_that_step(records: Path, step: int) -> None:
    images, labels = first_batches(records, count=step + 2, batch_size=9, seed=2)
    resumed = first_batches(records, 2, batch_size=9, seed=2, start=9 * step)
    np.testing.assert_array_equal(resumed[0], images[9 * step :])
    np.testing.assert_array_equal(resumed[1], labels[9 * step :])


def test_the_batch_size_only_cuts_the_stream(records: Path) -> None:
    images, labels = first_batches(records, count=3, batch_size=28)
    small_images, small_labels = first_batches(records, count=12, batch_size=7)
    np.testing.assert_array_equal(small_labels, labels)
    # The same numbers, but a reduction may go over them in another order.
    np.testing.assert_allclose(small_images, images, atol=FLOAT32_TOLERANCE)


def test_an_example_is_distorted_anew_in_each_epoch(records: Path) -> None:
    images, _ = first_batches(records, count=2, batch_size=60)
    order = np.array(stream_ids(records, 120))
    first, second = images[:60][np.argsort(order[:60])], images[60:][np.argsort(order[60:])]
    changed = np.abs(first - second).max(axis=(1, 2, 3)) > 0.1
    # Two crops agree in place and flip once in 162.
    assert changed.sum() >= 57


# ------------------------------------------------------------------- evaluation


def evaluation_batches(
    directory: Path,
    eval_data: str,
    batch_size: int,
    num_examples: int = -1,
    held_out: Sequence[int] = (),
) -> list[tuple[np.ndarray, np.ndarray]]:
    """All batches of `inputs`, to the end."""
    batches = []
    with tf.Graph().as_default():
        batch = cifar10_input.inputs(
            eval_data, str(directory), batch_size, num_examples, held_out=held_out
        )
        with tf.Session() as session:
            while True:
                try:
                    batches.append(session.run(batch))
                except tf.errors.OutOfRangeError:
                    return batches


def test_evaluation_crop_equals_the_plain_ops_exactly() -> None:
    images = np.random.default_rng(4).integers(0, 256, [20, 32, 32, 3], dtype=np.uint8)

    def plain(image: np.ndarray) -> tf.Tensor:
        crop = tf.image.resize_with_crop_or_pad(tf.cast(image, tf.float32), 24, 24)
        return tf.image.per_image_standardization(crop)

    cropped, expected = evaluate(
        lambda: [
            cifar10_input.evaluation_crop(tf.constant(images)),
            tf.stack([plain(image) for image in images]),
        ]
    )
    np.testing.assert_array_equal(cropped, expected)


def test_each_test_image_comes_once_and_in_order(records: Path) -> None:
    batches = evaluation_batches(records, 'test', 10)
    assert [len(labels) for _, labels in batches] == [10, 10, 5]
    stored = np.fromfile(records / 'test_batch.bin', np.uint8).reshape(25, 3073)
    np.testing.assert_array_equal(np.concatenate([labels for _, labels in batches]), stored[:, 0])


def test_train_eval_reads_the_training_files(records: Path) -> None:
    labels = np.concatenate([labels for _, labels in evaluation_batches(records, 'train_eval', 16)])
    stored = [
        np.fromfile(file, np.uint8).reshape(-1, 3073)[:, 0]
        for file in cifar10_input.train_files(str(records))
    ]
    np.testing.assert_array_equal(labels, np.concatenate(stored))


def test_training_and_held_out_images_are_scored_apart(records: Path) -> None:
    stored = np.concatenate(
        [
            np.fromfile(file, np.uint8).reshape(-1, 3073)[:, 0]
            for file in cifar10_input.train_files(str(records))
        ]
    )
    for eval_data, expected in (('train_eval', stored[KEPT]), ('held_out', stored[[*HELD_OUT]])):
        batches = evaluation_batches(records, eval_data, 10, held_out=HELD_OUT)
        np.testing.assert_array_equal(np.concatenate([labels for _, labels in batches]), expected)
        places = cifar10_input.evaluation_places(eval_data, str(records), HELD_OUT)
        np.testing.assert_array_equal(stored[places], expected)
    (batch,) = evaluation_batches(records, 'held_out', 60, 5, held_out=HELD_OUT)
    np.testing.assert_array_equal(batch[1], stored[[*HELD_OUT[:5]]])


def test_num_examples_limits_the_evaluation(records: Path) -> None:
    batches = evaluation_batches(records, 'test', 10, 12)
    assert [len(labels) for _, labels in batches] == [10, 2]


def test_a_truncated_file_is_an_error_that_names_it(records: Path, tmp_path: Path) -> None:
    whole = (records / 'test_batch.bin').read_bytes()
    (tmp_path / 'test_batch.bin').write_bytes(whole[:-100])
    with pytest.raises(tf.errors.InvalidArgumentError, match='test_batch.bin'):
        evaluation_batches(tmp_path, 'test', 10)


def test_other_eval_data_is_an_error(records: Path) -> None:
    with pytest.raises(ValueError, match="test, train_eval, held_out, found 'valid'"):
        cifar10_input.inputs('valid', str(records), 10)


# -------------------------------------------------------------------- real CIFAR-10


def test_real_test_set_has_a_thousand_images_of_each_class(real_data: str) -> None:
    batches = evaluation_batches(Path(real_data), 'test', 1000)
    labels = np.concatenate([labels for _, labels in batches])
    assert np.bincount(labels).tolist() == [1000] * 10


def test_real_training_set_has_the_published_mean(real_data: str) -> None:
    def build() -> tuple[tf.Tensor, tf.Tensor]:
        files = cifar10_input.train_files(real_data)
        stream = cifar10_input.record_stream(files, seed=0).batch(50000)
        return cifar10_input.decode_records(tf.data.make_one_shot_iterator(stream).get_next())

    images, labels = evaluate(build)
    assert np.bincount(labels).tolist() == [5000] * 10
    mean = images.mean(axis=(0, 1, 2), dtype=np.float64) / 255
    np.testing.assert_allclose(mean, [0.4914, 0.4822, 0.4465], atol=5e-5)
