"""The data sets by name, and where they are found and put. Plain data, without TensorFlow."""

# Where data is looked for and put by default, and the folder below it that the published archive
# unpacks to.
DATA_DIR = 'cifar10_data'
CIFAR10_DIRECTORY = 'cifar-10-batches-bin'

DATA_URL = 'https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz'

# The folder below it of each data set of digits or clothes, once it is converted.
IDX_DIRECTORIES = {'mnist': 'mnist-batches-bin', 'fashion_mnist': 'fashion-mnist-batches-bin'}

DATASETS = ('cifar10', 'synthetic', 'own', 'auto', *IDX_DIRECTORIES)

# Of a synthetic set: 3 GB, which take two minutes to draw.
MAX_DRAWN_IMAGES = 1_000_000

# How a picture becomes a square: see `framing.Framing`.
FITS = ('crop', 'pad', 'stretch')

# Sides of a record, in pixels, and that of CIFAR-10. Below the least, three quarters of it leave
# nothing of two poolings.
SIZE = 32
MIN_SIZE, MAX_SIZE = 16, 128

DATASET_HELP = (
    'The images: cifar10; mnist; fashion_mnist; synthetic (drawn, needs no download); own (of '
    'classes that batches.meta.txt names); or auto (cifar10 where it can be had, else synthetic). '
    'By default your own that --data_dir holds, else cifar10.'
)
