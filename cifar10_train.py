r"""Trains the CIFAR-10 network on one device.

    python cifar10_train.py --max_steps=4000

Prints, every ten steps, a line like

    2026-11-21 12:00:00.000000: step 100, loss = 4.12 (1050.3 examples/sec; 0.122 sec/batch)

or on a terminal one progress line; and keeps checkpoints, summaries and history.jsonl
in --train_dir, from which the same command resumes after an interruption.
Now and then it measures the precision on some images (--eval_every); `cifar10_eval.py` measures
it on all.

4,000 steps take 2.6 minutes on 2 CPU cores with AVX-512, and reach a precision @ 1 of
0.762 (mean of 3 seeds, 0.757 to 0.768).
"""

from __future__ import annotations

from cifar10_lib.base.start import start
from cifar10_lib.training.settings import OneDeviceTrainSettings

# Before TensorFlow is imported, which takes seconds.
start(__name__, OneDeviceTrainSettings)

import cifar10
from cifar10_lib.base.flags import run_script
from cifar10_lib.training.begin import begin, network_options, num_parts, training_batches
from cifar10_lib.training.session import session_config, training_session


def train(settings: OneDeviceTrainSettings) -> None:
    """Trains until `settings.max_steps`, or until the user stops it."""
    # cifar10.inference, unless --model names another network.
    network = cifar10.NETWORKS[settings.model]
    with begin(settings, network, settings.batch_size) as run:
        global_step, examples_seen = cifar10.create_counters(run.start.step, run.start.examples)
        images, labels = training_batches(run, settings.batch_size)

        # The batch begins at this position of the stream, so that dropout derives from it.
        options = network_options(run, num_parts(settings, network))
        logits = network.inference(images, options, training=True, position=examples_seen)
        total_loss = cifar10.loss(logits, labels, recipe=run.settings)
        train_op = cifar10.train(
            total_loss,
            global_step,
            examples_seen,
            run.batch_size,
            run.data.num_examples,
            recipe=run.settings,
            use_fp16=settings.use_fp16,
        )

        # Restores the newest checkpoint, saves and reports, and explains what fails.
        config = session_config(settings)
        with training_session(run, images, labels, total_loss, train_op, config) as session:
            while not session.should_stop():
                session.run(train_op)


if __name__ == '__main__':
    run_script(train, OneDeviceTrainSettings)
