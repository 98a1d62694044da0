"""The data sets by name, and where they are found and put. Plain data, without TensorFlow."""

# Where data is looked for and put by default, and the folder below it that the published archive
# unpacks to.
DATA_DIR = 'cifar10_data'
CIFAR10_DIRECTORY = 'cifar-10-batches-bin'

DATA_URL = 'https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz'

DATASETS = ('cifar10', 'synthetic', 'own', 'auto')

DATASET_HELP = (
    'The images: cifar10; synthetic (drawn, needs no download); own (of classes that '
    'batches.meta.txt names); or auto (cifar10 where it can be had, else synthetic). By default '
    'your own that --data_dir holds, else cifar10.'
)
