r"""Trains the CIFAR-10 network on several devices, one tower each.

    python cifar10_multi_gpu_train.py --num_gpus=2

Every tower computes the gradients of its own --batch_size images; their mean
updates the one set of variables. So N towers of batch b take the steps of one
device with batch N * b, unless the network normalises batches. Output, checkpoints and
resuming are those of `cifar10_train.py`: either script resumes the other's runs.

The variables are on the first tower by default; --variables=cpu keeps them on the CPU, and
--variables=mirrored a copy on every tower. docs/scaling.md says which pays where.

Without GPUs, --tower_device=cpu runs the towers on virtual CPU devices: two towers of
64 images train at 3,160 to 3,240 examples a second on 2 CPU cores with AVX-512 (medians
of 2 runs). The speed on GPUs has not been measured.
"""

from __future__ import annotations

from cifar10_lib.base.start import start
from cifar10_lib.training.settings import MultiGpuTrainSettings

# Before TensorFlow is imported, which takes seconds.
start(__name__, MultiGpuTrainSettings)

import tensorflow.compat.v1 as tf

import cifar10
from cifar10_lib.base.errors import UserError
from cifar10_lib.base.flags import run_script
from cifar10_lib.nn.towers import CPU, tower_gradients
from cifar10_lib.training.begin import begin, network_options, training_batches
from cifar10_lib.training.session import session_config, training_session


def tower_devices(tower_device: str, num_towers: int) -> list[str]:
    """Names of the towers' devices, like '/gpu:0'.

    Raises:
      UserError: there are fewer GPUs than towers.
    """
    if tower_device == 'gpu':
        gpus = tf.config.list_physical_devices('GPU')
        if len(gpus) < num_towers:
            found = ', '.join(device.name for device in tf.config.list_physical_devices())
            raise UserError(
                f'--num_gpus={num_towers}: found {len(gpus)} GPUs among the devices {found}; '
                'give a smaller --num_gpus, or --tower_device=cpu for virtual CPU devices'
            )
    return [f'/{tower_device}:{i}' for i in range(num_towers)]


def train(settings: MultiGpuTrainSettings) -> None:
    """Trains until `settings.max_steps`, or until the user stops it."""
    # cifar10.inference, unless --model names another network.
    network = cifar10.NETWORKS[settings.model]
    devices = tower_devices(settings.tower_device, settings.num_gpus)
    home = '/cpu:0' if settings.variables == CPU else devices[0]
    batch_size = settings.batch_size * len(devices)
    with begin(settings, network, batch_size) as run, tf.device('/cpu:0'):
        global_step, examples_seen = cifar10.create_counters(run.start.step, run.start.examples)
        images, labels = training_batches(run, run.batch_size)

        def tower_loss(
            images: tf.Tensor, labels: tf.Tensor, position: tf.Tensor, tower: int
        ) -> tf.Tensor:
            options = network_options(run, summaries=tower == 0)
            logits = network.inference(images, options, training=True, position=position)
            # The weight decay counts once for all towers.
            return cifar10.loss(logits, labels, 0 if tower else len(devices), run.settings)

        # What is done once for all towers is done where the variables are.
        with tf.device(home):
            total_loss, gradients, copies = tower_gradients(
                tower_loss,
                images,
                labels,
                devices,
                examples_seen,
                settings.variables,
                settings.use_fp16,
            )
            train_op = cifar10.apply_gradients(
                gradients,
                total_loss,
                global_step,
                examples_seen,
                run.batch_size,
                run.data.num_examples,
                recipe=run.settings,
                copies=copies,
            )

        # Restores the newest checkpoint, saves and reports, and explains what fails.
        config = session_config(
            settings, num_cpu_devices=len(devices) if settings.tower_device == 'cpu' else 1
        )
        with training_session(run, images, labels, total_loss, train_op, config) as session:
            while not session.should_stop():
                session.run(train_op)


if __name__ == '__main__':
    run_script(train, MultiGpuTrainSettings)
