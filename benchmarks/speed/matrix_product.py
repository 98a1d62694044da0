"""The ceiling: GFLOP/s of a large float32 matrix product.

    python -m benchmarks.speed.matrix_product

prints lines like `...: step 20 (250.1 GFLOP/sec; 0.069 sec/product)` without end.
"""

from __future__ import annotations

import tensorflow.compat.v1 as tf

from benchmarks.speed.worker import Ticker

# Large enough to be limited by arithmetic, small enough for a dozen in a second.
SIDE = 2048

LOG_FREQUENCY = 10


def main() -> None:
    """Multiplies two square matrices, again and again."""
    with tf.Graph().as_default(), tf.Session() as session:
        # Variables: the product of two constants would be computed once and kept.
        factors = [tf.get_variable(name, [SIDE, SIDE]) for name in 'ab']
        product = tf.matmul(*factors).op
        session.run(tf.global_variables_initializer())
        ticker = Ticker(2 * SIDE**3 / 1e9, LOG_FREQUENCY, unit='GFLOP', step='product')
        while True:
            session.run(product)
            ticker.tick()


if __name__ == '__main__':
    main()
