"""Mixed precision: float16 on GPUs, bfloat16 on CPUs, and warnings where neither is faster.

In float16 the network itself is built (`nn.layers.Options.use_fp16`). To bfloat16 TensorFlow
rewrites the graph, so that convolutions, matrix products and the operations between them take
it. In both the variables are float32, and so are the sums of their gradients, the update, the
moving averages and the checkpoints.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import tensorflow.compat.v1 as tf

from cifar10_lib.base.errors import UserError

_CPUINFO = Path('/proc/cpuinfo')

# Linux's names of the x86 instructions for products of bfloat16.
_BF16_INSTRUCTIONS = frozenset({'avx512_bf16', 'amx_bf16'})

# Of GPUs with tensor cores, the only ones where float16 is faster.
_LEAST_CAPABILITY = (7, 0)


def check(use_fp16: bool, use_bf16: bool) -> None:
    """Warns on stderr where the precision that was asked for isn't faster.

    Raises:
      UserError: both were asked for.
    """
    if use_fp16 and use_bf16:
        raise UserError('--use_bf16: found --use_fp16 as well; expected one of them')
    if use_fp16:
        _warn_without_tensor_cores()
    if use_bf16:
        _warn_where_bf16_is_not_faster()


def _warn_without_tensor_cores() -> None:
    gpus = tf.config.list_physical_devices('GPU')
    details = [tf.config.experimental.get_device_details(gpu) for gpu in gpus]
    if not any(gpu.get('compute_capability', (0, 0)) >= _LEAST_CAPABILITY for gpu in details):
        print(
            'Warning: --use_fp16 will be slower than float32 here: no GPU of compute '
            f'capability 7.0 or more is at hand (found {len(gpus)} GPUs)',
            file=sys.stderr,
        )


def _warn_where_bf16_is_not_faster() -> None:
    if tf.config.list_physical_devices('GPU'):
        reason = 'it changes nothing on a GPU, for which --use_fp16 is'
    elif not _onednn_is_on():
        reason = 'TF_ENABLE_ONEDNN_OPTS is 0'
    elif _has_bf16_instructions() is False:
        reason = f'{_CPUINFO} names none of {", ".join(sorted(_BF16_INSTRUCTIONS))}'
    else:
        return
    print(f'Warning: --use_bf16 will not be faster than float32 here: {reason}', file=sys.stderr)


def multiplies_bf16() -> bool:
    """Whether --use_bf16 is known to have instructions for it on this machine's CPU."""
    return bool(_has_bf16_instructions()) and _onednn_is_on()


def _onednn_is_on() -> bool:
    """Whether TensorFlow computes by oneDNN, which has the products of bfloat16."""
    return os.environ.get('TF_ENABLE_ONEDNN_OPTS') != '0'


def _has_bf16_instructions() -> bool | None:
    """None: unknown, as on other systems than Linux and other processors than x86."""
    try:
        lines = _CPUINFO.read_text(encoding='utf-8', errors='replace').splitlines()
    except OSError:
        return None
    words = {
        word
        for line in lines
        if line.startswith('flags')
        for word in line.partition(':')[2].split()
    }
    return bool(words & _BF16_INSTRUCTIONS) if words else None


def compute_in_bf16(config: tf.ConfigProto) -> None:
    """Makes a session rewrite its graph to bfloat16, where that is safe, on CPUs alone."""
    rewrites = config.graph_options.rewrite_options
    rewrites.auto_mixed_precision_onednn_bfloat16 = rewrites.ON
