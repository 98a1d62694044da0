"""Training in float16 and in bfloat16, and what it says of the machine."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

import cifar10
from cifar10_lib.base.errors import UserError
from cifar10_lib.training import mixed_precision
from cifar10_lib.training import session as session_module
from tests.helpers.runs import checkpoint_values, settings_for, train

BF16_RELATIVE_STEP = 2.0**-8
"""Of 8 significant bits, the distance of 1 to the next number, halved by rounding."""

LARGEST_CHANGE = 0.3
"""Part of the way that an array goes in two steps of 8 images by which rounding may move it.

Each layer's gradient is a sum of terms that nearly cancel, of which bfloat16 keeps 8 bits: here
about 0.1 of it is noise. A gradient without its bits would make this 1 or more.
"""


def losses(output: str) -> list[float]:
    return [float(loss) for loss in re.findall(r'step \d+, loss = (\S+)', output)]


def cpuinfo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    path = tmp_path / 'cpuinfo'
    path.write_text(text)
    monkeypatch.setattr(mixed_precision, '_CPUINFO', path)


def test_float16_trains_and_warns_where_it_is_slower(
    synthetic_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if tf.config.list_physical_devices('GPU'):
        pytest.skip('a GPU is at hand, where float16 may be faster')
    train(synthetic_data, tmp_path, use_fp16=True, log_frequency=1)
    output = capsys.readouterr()
    values = checkpoint_values(tmp_path)
    assert 'Warning: --use_fp16 will be slower than float32 here' in output.err
    assert len(losses(output.out)) == 1 and np.isfinite(losses(output.out)).all()
    assert values['conv1/weights'].dtype == np.float32
    assert all(np.isfinite(value).all() for value in values.values())


def test_bfloat16_trains_to_nearly_the_same_float32_weights(
    synthetic_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train(synthetic_data, tmp_path / 'float32', log_frequency=1)
    plain_losses = losses(capsys.readouterr().out)
    train(synthetic_data, tmp_path / 'bfloat16', use_bf16=True, log_frequency=1)
    np.testing.assert_allclose(
        losses(capsys.readouterr().out), plain_losses, rtol=4 * BF16_RELATIVE_STEP
    )
    first = checkpoint_values(tmp_path / 'float32' / 'model.ckpt-0')
    plain = checkpoint_values(tmp_path / 'float32')
    rounded = checkpoint_values(tmp_path / 'bfloat16')
    assert plain.keys() == rounded.keys()
    for name, value in plain.items():
        assert rounded[name].dtype == value.dtype
        change = np.linalg.norm(rounded[name] - value)
        assert change <= LARGEST_CHANGE * np.linalg.norm(value - first[name]), name


def test_bfloat16_reaches_the_convolutions_and_their_gradients(
    synthetic_data: Path, tmp_path: Path
) -> None:
    if not mixed_precision.multiplies_bf16():
        pytest.skip('this processor does not multiply in bfloat16')
    settings = settings_for(synthetic_data, tmp_path, use_bf16=True)
    options = tf.RunOptions(output_partition_graphs=True)
    ran = tf.RunMetadata()
    with tf.Graph().as_default():
        images = tf.random.stateless_uniform([8, 24, 24, 3], [1, 2])
        total_loss = cifar10.loss(cifar10.inference(images), tf.zeros([8], tf.int32))
        gradients = [gradient for gradient, _ in cifar10.compute_gradients(total_loss)]
        with tf.Session(config=session_module.session_config(settings)) as session:
            session.run(tf.global_variables_initializer())
            # What is fetched itself is never rewritten.
            session.run(tf.global_norm(gradients), options=options, run_metadata=ran)
    convolutions = [
        node for graph in ran.partition_graphs for node in graph.node if 'Conv2D' in node.op
    ]
    assert {node.attr['T'].type for node in convolutions} == {tf.bfloat16.as_datatype_enum}
    assert any('BackpropFilter' in node.op for node in convolutions)


def test_two_precisions_are_refused_and_leave_nothing(synthetic_data: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match='--use_bf16: found --use_fp16 as well'):
        train(synthetic_data, tmp_path / 'run', use_fp16=True, use_bf16=True)
    assert not (tmp_path / 'run').exists()


@pytest.mark.parametrize(
    ('text', 'expected'),
    [
        ('flags\t\t: fpu sse avx512f avx512_bf16\n', True),
        ('flags\t\t: fpu amx_bf16 amx_tile\n', True),
        ('flags\t\t: fpu sse avx512f\nbugs\t\t: amx_bf16\n', False),
        ('Features\t: fp asimd bf16\n', False),
    ],
)
def test_the_processor_tells_whether_it_multiplies_bfloat16(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, expected: bool
) -> None:
    cpuinfo(tmp_path, monkeypatch, text)
    monkeypatch.delenv('TF_ENABLE_ONEDNN_OPTS', raising=False)
    assert mixed_precision.multiplies_bf16() is expected
    monkeypatch.setenv('TF_ENABLE_ONEDNN_OPTS', '0')
    assert not mixed_precision.multiplies_bf16()


@pytest.mark.parametrize(
    ('text', 'environment', 'reason'),
    [
        ('flags : fpu avx2\n', '1', 'names none of amx_bf16, avx512_bf16'),
        ('flags : fpu avx512_bf16\n', '0', 'TF_ENABLE_ONEDNN_OPTS is 0'),
        ('flags : fpu avx512_bf16\n', '1', None),
        ('Features : fp asimd\n', '1', None),
    ],
)
def test_a_machine_where_bfloat16_is_not_faster_is_warned_of(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    text: str,
    environment: str,
    reason: str | None,
) -> None:
    if tf.config.list_physical_devices('GPU'):
        pytest.skip('a GPU is at hand, which is warned of first')
    cpuinfo(tmp_path, monkeypatch, text)
    monkeypatch.setenv('TF_ENABLE_ONEDNN_OPTS', environment)
    mixed_precision.check(use_fp16=False, use_bf16=True)
    error = capsys.readouterr().err
    if reason:
        assert 'Warning: --use_bf16 will not be faster than float32 here' in error
        assert reason in error
    else:
        assert error == ''
