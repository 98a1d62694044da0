"""Pictures of any format, size and shape become the square of a record.

Pillow decodes them, within bounds of pixels, bytes and time. What it says of metadata never
decides whether a picture can be read.
"""

from __future__ import annotations

import functools
import io
import os
import time
import warnings

import numpy as np
from PIL import Image, ImageFile, PngImagePlugin, UnidentifiedImageError

from cifar10_input import CIFAR10_RECORD
from cifar10_lib.base.errors import UserError, os_errors_named
from cifar10_lib.base.files import regular_size
from cifar10_lib.data.framing import Framing

# Bounds of one picture. The largest takes about 1 GB while it is laid on white.
MAX_PIXELS = 64_000_000
MAX_FILE_BYTES = 1 << 28
MAX_SECONDS = 30.0

# Side in pixels of what is drawn of a picture.
DRAWN_SIZE = 192

# Pillow's names of the formats that are read, and people's. Left out are those that run another
# program or that almost any file could be. AVIF needs a Pillow with libavif, HEIC pillow-heif.
_FORMATS = {
    'JPEG': 'JPEG',
    'MPO': 'JPEG',
    'PNG': 'PNG',
    'GIF': 'GIF',
    'BMP': 'BMP',
    'WEBP': 'WebP',
    'TIFF': 'TIFF',
    'PPM': 'PPM',
    'JPEG2000': 'JPEG 2000',
    'AVIF': 'AVIF',
    'HEIF': 'HEIC',
}

# Where Pillow puts metadata that can hold an orientation.
_ORIENTATION_KEYS = ('exif', 'Raw profile type exif', 'xmp', 'XML:com.adobe.xmp')
_ORIENTATION_TAG = 0x0112

_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

_LARGEST_16_BITS = 65535


def read(path: str, framing: Framing) -> np.ndarray:
    """The picture in a file as uint8 [size, size, 3]: see `load` and `square`."""
    return square(load(path, framing.size), framing)


def load(path: str, size: int = CIFAR10_RECORD.height) -> Image.Image:
    """The picture in a file, upright, in colour and on white; of an animation the first frame.

    Args:
      path: of the file.
      size: of the square that it shall become; a large JPEG may be decoded smaller, but with
        at least twice as many pixels.

    Raises:
      UserError: names the file that can't be read as a picture.
    """
    num_bytes = regular_size(path, _expected())
    if not 0 < num_bytes <= MAX_FILE_BYTES:
        raise UserError(
            f'{path}: has {num_bytes:,} bytes; {_expected()} of at most {MAX_FILE_BYTES:,} bytes'
        )
    with os_errors_named(path), open(path, 'rb') as file:
        return decode(file.read(), path, size)


def decode(content: bytes, name: str, size: int = CIFAR10_RECORD.height) -> Image.Image:
    """As `load`, of a file's bytes; `name` is for errors."""
    try:
        is_large = len(content) > ImageFile.MAXBLOCK  # A decoder reads others at once.
        file = _TimedBytes(content) if is_large else io.BytesIO(content)
        image = Image.open(file, formats=_formats())
        width, height = image.size
        if width * height > MAX_PIXELS:
            raise UserError(
                f'{name}: has {width:,} x {height:,} pixels; expected at most {MAX_PIXELS:,} in all'
            )
        # Scaling within the decoder costs a fraction, and leaves the last step to `square`.
        least = max(DRAWN_SIZE, 2 * size)
        image.draft(None, (least, least))
        image.load()
        return _on_white(_upright(image))
    except UserError:
        raise
    except UnidentifiedImageError:
        raise UserError(f'{name}: not a picture that can be read; {_expected()}') from None
    except TimeoutError:
        raise UserError(f'{name}: takes more than {MAX_SECONDS:g} seconds to decode') from None
    except Exception as error:  # Damaged files make Pillow's readers raise almost anything.
        reason = ' '.join(str(error).split())[:200] or type(error).__name__
        raise UserError(f'{name}: cannot be decoded: {reason}') from error


def is_picture(path: str) -> bool:
    """Whether a file is a picture by the ending of its name, or else by its first bytes."""
    ending = os.path.splitext(path)[1].lower()
    if _endings().get(ending) in _FORMATS:
        return True
    try:
        regular_size(path, '')
        with Image.open(path, formats=_formats()):
            return True
    except Exception:  # As in `decode`.
        return False


def square(image: Image.Image, framing: Framing) -> np.ndarray:
    """A picture in RGB as uint8 [size, size, 3], scaled bicubically, free of aliasing.

    One that has the size already stays as it is.
    """
    inner = framing.inner or framing.size
    width, height = image.size
    box, size = (0, 0, width, height), (inner, inner)
    if framing.fit == 'crop':
        side = min(width, height)
        left, top = (width - side) // 2, (height - side) // 2
        box = (left, top, left + side, top + side)
    elif framing.fit == 'pad':
        scale = inner / max(width, height)
        size = (max(round(width * scale), 1), max(round(height * scale), 1))
    if image.size != size or box != (0, 0, width, height):
        image = image.resize(size, Image.Resampling.BICUBIC, box)
    pixels = np.asarray(image)
    return centred(255 - pixels if framing.invert else pixels, framing.size)


def centred(pixels: np.ndarray, size: int) -> np.ndarray:
    """An image [height, width, ...], neither above `size`, in the middle of a black square."""
    height, width = pixels.shape[:2]
    if (height, width) == (size, size):
        return pixels
    top, left = (size - height) // 2, (size - width) // 2
    result = np.zeros([size, size, *pixels.shape[2:]], pixels.dtype)
    result[top : top + height, left : left + width] = pixels
    return result


def from_array(pixels: np.ndarray, framing: Framing, name: str) -> np.ndarray:
    """Pixels of a data set, uint8 [height, width] or [height, width, 1 or 3], as a picture's are.

    Grey ones that are smaller than the square stand in its middle, as MNIST's do.

    Returns:
      uint8 [size, size, 3].

    Raises:
      UserError: `name` has another shape.
    """
    if pixels.ndim == 3 and pixels.shape[2] == 1:
        pixels = pixels[..., 0]
    if pixels.ndim not in (2, 3) or (pixels.ndim == 3 and pixels.shape[2] != 3):
        raise UserError(f'{name}: found the shape {pixels.shape}; expected grey or RGB pixels')
    if pixels.ndim == 2 and max(pixels.shape) <= framing.size:
        grey = centred(255 - pixels if framing.invert else pixels, framing.size)
        return np.repeat(grey[..., np.newaxis], 3, axis=2)
    return square(Image.fromarray(pixels).convert('RGB'), framing)


def to_array(content: bytes, name: str, size: int) -> np.ndarray:
    """A picture in a file's bytes: uint8 [height, width] of a grey one, else [height, width, 3]."""
    pixels = np.asarray(decode(content, name, size))
    return pixels[..., 0] if (pixels == pixels[..., :1]).all() else pixels


def inner_side(pixels: np.ndarray, framing: Framing) -> int:
    """`Framing.inner` of the square that `from_array` makes."""
    is_grey = pixels.ndim == 2 or pixels.shape[2] == 1
    side = max(pixels.shape[:2])
    return side if is_grey and side < framing.size else framing.inner


# ------------------------------------------------------------------------------ Pillow


class _TimedBytes(io.BytesIO):
    """A file in memory that fails once its time is over: decoders read bit by bit."""

    def __init__(self, content: bytes) -> None:
        super().__init__(content)
        self._deadline = time.monotonic() + MAX_SECONDS

    def read(self, size: int | None = -1, /) -> bytes:
        if time.monotonic() > self._deadline:
            raise TimeoutError
        return super().read(size)


@functools.cache
def _formats() -> tuple[str, ...]:
    """The formats that the installed Pillow and its plug-ins read, ready for use."""
    try:
        import pillow_heif

        pillow_heif.register_heif_opener()
    except ImportError:
        pass
    Image.init()
    # Ours is the check of the first size that a file states; Pillow's is for those within.
    Image.MAX_IMAGE_PIXELS = MAX_PIXELS
    # Of damaged metadata, and of sizes between its limit and ours.
    warnings.filterwarnings('ignore', module=r'PIL\.')
    # Colour profiles and texts may be longer than the 1 MiB that Pillow grants each of them.
    PngImagePlugin.MAX_TEXT_CHUNK = PngImagePlugin.MAX_TEXT_MEMORY
    return tuple(name for name in _FORMATS if name in Image.OPEN)


@functools.cache
def _endings() -> dict[str, str]:
    _formats()
    return Image.registered_extensions()


@functools.cache
def _expected() -> str:
    names = list(dict.fromkeys(_FORMATS[name] for name in _formats()))
    return f'expected a {", ".join(names[:-1])} or {names[-1]}'


def _upright(image: Image.Image) -> Image.Image:
    """The image as the camera saw it; one whose metadata can't be read stays as it is."""
    if not any(key in image.info for key in _ORIENTATION_KEYS):
        return image
    try:
        turn = _UPRIGHT.get(image.getexif().get(_ORIENTATION_TAG, 1))
    except Exception:  # As in `decode`.
        return image
    if turn is None:
        return image
    turned = image.transpose(turn)
    turned.info = image.info  # A colour key is there.
    return turned


def _on_white(image: Image.Image) -> Image.Image:
    """The image in RGB, where it is transparent over white."""
    if image.mode in ('I', 'F') or image.mode.startswith('I;'):
        return _from_deep(image)
    if not image.has_transparency_data:
        return image if image.mode == 'RGB' else image.convert('RGB')
    key = image.info.get('transparency')
    if isinstance(key, tuple) and max(key) > 255:
        # Of 16 bits a channel, of which Pillow keeps the upper eight.
        image.info['transparency'] = tuple(value >> 8 for value in key)
    transparent = image.convert('RGBA')
    if image.format == 'BMP' and not transparent.getchannel('A').getbbox():
        # Nobody draws a picture that can't be seen: the fourth byte is unused.
        return transparent.convert('RGB')
    white = Image.new('RGBA', transparent.size, 'white')
    return Image.alpha_composite(white, transparent).convert('RGB')


def _from_deep(image: Image.Image) -> Image.Image:
    """Grey values of 16 bits in eight."""
    values = np.asarray(image)
    low, high = values.min(), values.max()
    if image.mode == 'F' or low < 0 or high > _LARGEST_16_BITS:
        raise ValueError(f'has values of {low:g} to {high:g}; expected whole numbers of 16 bits')
    grey = (values.astype(np.uint32) * 255 + _LARGEST_16_BITS // 2) // _LARGEST_16_BITS
    grey = np.where(values == image.info.get('transparency', -1), 255, grey)
    return Image.fromarray(grey.astype(np.uint8)).convert('RGB')
