"""Files of pictures as squares of records."""

from __future__ import annotations

import io
import os
import struct
import time
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps, features

from cifar10_lib.base.errors import UserError
from cifar10_lib.data import photos
from cifar10_lib.data.framing import Framing
from tests.helpers.samples import ODD, make_odd, unix

RNG = np.random.default_rng(0)
NOISE = RNG.integers(0, 256, [32, 32, 3], dtype=np.uint8)

# A square of 64 x 64 in the middle, blue, between red on either side.
BANNER = np.zeros([64, 160, 3], np.uint8)
BANNER[:, :, 0] = 255
BANNER[:, 48:112] = [0, 0, 255]


def read(path: Path, **framing: Any) -> np.ndarray:
    return photos.read(str(path), Framing(**framing))


def smooth(height: int, width: int) -> np.ndarray:
    """A picture that scaling and JPEG change little."""
    rows, columns = np.mgrid[0:height, 0:width]
    channels = [rows * 200 / height, columns * 200 / width, 100 + 0 * rows]
    return np.stack(channels, axis=-1).astype(np.uint8)


@pytest.mark.parametrize('ending', ['png', 'bmp', 'tiff', 'ppm'])
def test_a_picture_of_a_records_size_stays_as_it_is(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f'picture.{ending}'
    Image.fromarray(NOISE).save(path)
    np.testing.assert_array_equal(read(path), NOISE)


@pytest.mark.parametrize(
    'ending', ['png', 'bmp', 'jpg', 'gif', 'webp', 'tif', 'ppm', 'jp2', 'avif']
)
@pytest.mark.parametrize('upended', [False, True])
def test_the_central_square_is_kept(tmp_path: Path, ending: str, upended: bool) -> None:
    if ending == 'avif' and not features.check('avif'):
        pytest.skip('this Pillow reads no AVIF')
    path = tmp_path / f'picture.{ending}'
    banner = Image.fromarray(BANNER.swapaxes(0, 1) if upended else BANNER)
    # Which formats other than JPEG ignore.
    banner.save(path, quality=95, subsampling='4:4:4')
    for side in (32, 192):
        pixels = read(path, size=side)
        assert pixels.shape == (side, side, 3) and pixels.dtype == np.uint8
        # Not the two rows beside red, where JPEG's blocks and scaling mix a little in.
        inner = pixels[side // 16 : -side // 16, side // 16 : -side // 16].astype(int)
        assert np.abs(inner - [0, 0, 255]).max() <= 6


def test_shrinking_does_not_alias(tmp_path: Path) -> None:
    """Lines of one pixel become grey; every ninth of them, picked out, would stay lines."""
    lines = np.zeros([288, 288], np.uint8)
    lines[::2] = 255
    Image.fromarray(lines).save(tmp_path / 'lines.png')
    assert np.abs(read(tmp_path / 'lines.png')[2:-2].astype(int) - 127.5).max() < 4


def test_grey_and_alpha(tmp_path: Path) -> None:
    grey = NOISE[:, :, 0]
    alpha = NOISE[:, :, 1]
    on_white = np.rint(grey * (alpha / 255.0) + 255 - alpha)
    Image.fromarray(grey).save(tmp_path / 'grey.png')
    Image.merge('LA', [Image.fromarray(grey), Image.fromarray(alpha)]).save(tmp_path / 'la.png')
    colours = [Image.fromarray(NOISE[:, :, i]) for i in range(3)]
    rgba = Image.merge('RGBA', [*colours, Image.fromarray(alpha)])
    rgba.save(tmp_path / 'rgba.png')
    np.testing.assert_array_equal(read(tmp_path / 'grey.png'), np.stack([grey] * 3, axis=-1))
    for name, channel in (('la.png', 2), ('rgba.png', 0)):
        difference = read(tmp_path / name)[:, :, channel] - on_white
        assert np.abs(difference).max() <= 0.5, name


def test_deep_and_indexed_colours(tmp_path: Path) -> None:
    deep = (np.arange(1024, dtype=np.uint16) * 64).reshape(32, 32)
    Image.fromarray(deep).save(tmp_path / 'deep.png')
    assert np.abs(read(tmp_path / 'deep.png')[:, :, 0] - deep / 257.0).max() <= 0.5
    indexed = Image.fromarray(smooth(32, 32)).quantize(16)
    indexed.save(tmp_path / 'indexed.png')
    np.testing.assert_array_equal(read(tmp_path / 'indexed.png'), np.array(indexed.convert('RGB')))


def test_print_colours_are_turned_into_light(tmp_path: Path) -> None:
    picture = Image.fromarray(smooth(32, 32)).convert('CMYK')
    picture.save(tmp_path / 'cmyk.jpg', quality=95)
    expected = np.array(Image.open(tmp_path / 'cmyk.jpg').convert('RGB')).astype(int)
    assert np.abs(read(tmp_path / 'cmyk.jpg') - expected).max() <= 6


def test_of_a_gif_the_first_frame(tmp_path: Path) -> None:
    frames = [Image.new('RGB', (40, 40), colour) for colour in ('lime', 'red')]
    frames[0].save(tmp_path / 'two.gif', save_all=True, append_images=frames[1:])
    assert (read(tmp_path / 'two.gif') == [0, 255, 0]).all()


@pytest.mark.parametrize('orientation', range(1, 9))
def test_a_photo_is_turned_upright(tmp_path: Path, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(smooth(32, 32)).save(tmp_path / 'photo.jpg', quality=95, exif=exif)
    upright = ImageOps.exif_transpose(Image.open(tmp_path / 'photo.jpg'))
    assert np.abs(read(tmp_path / 'photo.jpg') - np.array(upright).astype(int)).max() <= 4


@pytest.mark.parametrize('kind', ['WEBP', 'GIF', 'PNG', 'TIFF'])
def test_of_an_animation_the_first_frame(tmp_path: Path, kind: str) -> None:
    """A WebP of two frames, the second of them transparent, once ended the process."""
    frames = [
        Image.new('RGB', (40, 40), 'lime'),
        Image.new('RGBA', (40, 40), (255, 0, 0, 128)),
    ]
    path = tmp_path / 'moving'
    frames[0].save(path, kind, save_all=True, append_images=frames[1:], duration=100, lossless=True)
    assert (read(path) == [0, 255, 0]).all()


def chunk(name: bytes, content: bytes) -> bytes:
    return (
        struct.pack('>I', len(content))
        + name
        + content
        + struct.pack('>I', zlib.crc32(name + content))
    )


def png_with(*chunks: bytes) -> bytes:
    """`NOISE` as a PNG with more chunks behind its first."""
    content = png_bytes(NOISE)
    return content[:33] + b''.join(chunks) + content[33:]


def png_bytes(image: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, 'PNG')
    return buffer.getvalue()


MIB2 = zlib.compress(bytes(2 << 20))
METADATA = {
    'a broken EXIF block': chunk(b'eXIf', b'MM\0*\0\0\xff\xff'),
    'two EXIF blocks': 2 * chunk(b'eXIf', b'MM\0*\0\0\0\x08\0\0'),
    'a colour profile of 2 MiB': chunk(b'iCCP', b'name\0\0' + MIB2),
    'a text of 2 MiB': chunk(b'zTXt', b'name\0\0' + MIB2),
    'a broken colour profile': chunk(b'iCCP', b'name\0\0' + MIB2[:50]),
}


@pytest.mark.parametrize('kind', METADATA)
def test_trouble_with_metadata_is_no_trouble_with_pixels(tmp_path: Path, kind: str) -> None:
    (tmp_path / 'x.png').write_bytes(png_with(METADATA[kind]))
    np.testing.assert_array_equal(read(tmp_path / 'x.png'), NOISE)


@pytest.mark.parametrize('exif', [b'Exif\0\0MM\0*\xff\xff', b'Exif\0\0junk', b'Exif\0\0'])
def test_a_photo_with_a_broken_exif_block_is_read(tmp_path: Path, exif: bytes) -> None:
    Image.fromarray(smooth(32, 32)).save(tmp_path / 'x.jpg', quality=95)
    plain = read(tmp_path / 'x.jpg')
    Image.fromarray(smooth(32, 32)).save(tmp_path / 'x.jpg', quality=95, exif=exif)
    np.testing.assert_array_equal(read(tmp_path / 'x.jpg'), plain)
    content = (tmp_path / 'x.jpg').read_bytes()
    # The block a second time, right after the first.
    size = struct.unpack('>H', content[4:6])[0] + 2
    (tmp_path / 'x.jpg').write_bytes(content[:2] + 2 * content[2 : 2 + size] + content[2 + size :])
    np.testing.assert_array_equal(read(tmp_path / 'x.jpg'), plain)


@pytest.mark.parametrize('orientation', [0, 9, 65535])
def test_a_wrong_orientation_counts_as_upright(tmp_path: Path, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(NOISE).save(tmp_path / 'x.png', exif=exif)
    np.testing.assert_array_equal(read(tmp_path / 'x.png'), NOISE)


@pytest.mark.parametrize('kind', ['PNG', 'WEBP', 'TIFF'])
def test_other_formats_are_turned_upright_too(tmp_path: Path, kind: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(NOISE).save(tmp_path / 'x', kind, exif=exif, lossless=True)
    np.testing.assert_array_equal(read(tmp_path / 'x'), np.rot90(NOISE, -1))


# Red with a hole in the middle, in each way that a format knows holes.
HOLE = np.zeros([32, 32], bool)
HOLE[8:24, 8:24] = True


def transparent(kind: str) -> tuple[Image.Image, dict[str, Any]]:
    red = Image.new('RGBA', (32, 32), 'red')
    red.putalpha(Image.fromarray(np.where(HOLE, 0, 255).astype(np.uint8)))
    if kind == 'alpha':
        return red, {}
    colours = np.where(HOLE[..., np.newaxis], [0, 0, 9], [255, 0, 0]).astype(np.uint8)
    if kind == 'colour key':
        return Image.fromarray(colours), {'transparency': (0, 0, 9)}
    palette = Image.fromarray(HOLE.astype(np.uint8))
    palette.putpalette([255, 0, 0, 0, 0, 9])
    return palette, {'transparency': 1 if kind == 'palette key' else b'\xff\0'}


@pytest.mark.parametrize(
    ('ending', 'kind'),
    [
        ('png', 'alpha'),
        ('png', 'colour key'),
        ('png', 'palette key'),
        ('png', 'palette of alphas'),
        ('gif', 'palette key'),
        ('webp', 'alpha'),
        ('tiff', 'alpha'),
    ],
)
def test_what_is_transparent_is_white(tmp_path: Path, ending: str, kind: str) -> None:
    image, options = transparent(kind)
    image.save(tmp_path / f'x.{ending}', lossless=True, **options)
    expected = np.where(HOLE[..., np.newaxis], 255, [255, 0, 0])
    np.testing.assert_array_equal(read(tmp_path / f'x.{ending}'), expected)


def test_deep_grey_has_a_colour_key_too(tmp_path: Path) -> None:
    deep = np.where(HOLE, 77, 257 * 100).astype(np.uint16)
    Image.fromarray(deep).save(tmp_path / 'x.png')
    content = (tmp_path / 'x.png').read_bytes()
    (tmp_path / 'x.png').write_bytes(content[:33] + chunk(b'tRNS', b'\0\x4d') + content[33:])
    np.testing.assert_array_equal(read(tmp_path / 'x.png')[..., 1], np.where(HOLE, 255, 100))


def bmp(
    bits: int, rows: bytes, compression: int = 0, masks: bytes = b'', more: bytes = b''
) -> bytes:
    """A BMP of 32 x 32 pixels."""
    head = struct.pack('<IiiHHIIiiII', 40, 32, 32, 1, bits, compression, len(rows), 0, 0, 0, 0)
    start = 14 + len(head) + len(masks)
    return (
        struct.pack('<2sIHHI', b'BM', start + len(rows), 0, 0, start) + head + masks + rows + more
    )


# Blue, green, red and an unused byte, upside down; and the masks of colours one byte further.
NOISE_AND_ZERO = np.dstack([NOISE[::-1, :, ::-1], np.zeros([32, 32], np.uint8)])
SHIFTED = (0xFF000000, 0xFF0000, 0xFF00)
BLACK_AND_WHITE = struct.pack('<8B', 0, 0, 0, 0, 255, 255, 255, 0)
BMPS = {
    '32 bits without alpha': (bmp(32, NOISE_AND_ZERO.tobytes()), NOISE),
    'two bytes at the end': (
        bmp(24, NOISE[::-1, :, ::-1].tobytes(), more=b'\0\0'),
        NOISE,
    ),
    '1 bit': (
        bmp(1, np.packbits(HOLE[::-1], axis=1).tobytes(), masks=BLACK_AND_WHITE),
        np.repeat(HOLE[..., np.newaxis] * 255, 3, axis=2),
    ),
    'usual masks': (
        bmp(32, NOISE_AND_ZERO.tobytes(), 3, struct.pack('<3I', 0xFF0000, 0xFF00, 0xFF)),
        NOISE,
    ),
    'exchanged masks': (
        bmp(32, np.roll(NOISE_AND_ZERO, 1, 2).tobytes(), 3, struct.pack('<3I', *SHIFTED)),
        NOISE,
    ),
    '16 bits': (
        bmp(16, np.full([32, 32], 0b0_11111_00000_00000, '<u2').tobytes()),
        np.full([32, 32, 3], [255, 0, 0]),
    ),
}


@pytest.mark.parametrize('kind', BMPS)
def test_bmps_of_all_kinds_have_their_colours(tmp_path: Path, kind: str) -> None:
    content, expected = BMPS[kind]
    (tmp_path / 'x.bmp').write_bytes(content)
    np.testing.assert_array_equal(read(tmp_path / 'x.bmp'), expected)


def test_a_bmp_of_unknown_masks_is_an_error_and_not_other_colours(tmp_path: Path) -> None:
    content = bmp(32, NOISE_AND_ZERO.tobytes(), 3, struct.pack('<3I', 0xFF, 0xFF000000, 0xFF00))
    (tmp_path / 'x.bmp').write_bytes(content)
    with pytest.raises(UserError, match='x.bmp: cannot be decoded: Unsupported BMP'):
        read(tmp_path / 'x.bmp')


# --------------------------------------------------------------------------- squares


def test_pad_keeps_all_between_black_bars(tmp_path: Path) -> None:
    Image.new('RGB', (64, 32), 'white').save(tmp_path / 'x.png')
    found = read(tmp_path / 'x.png', fit='pad')
    assert (found[8:24] == 255).all() and not found[:8].any() and not found[24:].any()
    assert (read(tmp_path / 'x.png', fit='stretch') == 255).all()


def test_stretch_keeps_all_without_bars(tmp_path: Path) -> None:
    Image.fromarray(BANNER).save(tmp_path / 'x.png')
    found = read(tmp_path / 'x.png', fit='stretch')
    assert (found[:, :8] == [255, 0, 0]).all() and (found[:, 11:21] == [0, 0, 255]).all()


def test_a_digit_keeps_its_size_in_the_middle(tmp_path: Path) -> None:
    digit = NOISE[:28, :28, 0]
    Image.fromarray(digit).save(tmp_path / 'x.png')
    found = read(tmp_path / 'x.png', inner=28)
    expected = np.zeros([32, 32], np.uint8)
    expected[2:30, 2:30] = digit
    np.testing.assert_array_equal(found, np.stack([expected] * 3, axis=-1))
    inverted = read(tmp_path / 'x.png', inner=28, invert=True)
    expected[2:30, 2:30] = 255 - digit
    np.testing.assert_array_equal(inverted[..., 1], expected)


@pytest.mark.parametrize('size', [16, 33, 128])
def test_a_square_has_the_size_asked_for(tmp_path: Path, size: int) -> None:
    Image.fromarray(BANNER).save(tmp_path / 'x.png')
    for fit in ('crop', 'pad', 'stretch'):
        assert read(tmp_path / 'x.png', size=size, fit=fit).shape == (size, size, 3)


def test_a_large_photo_is_decoded_smaller_and_looks_the_same(tmp_path: Path) -> None:
    large = Image.fromarray(smooth(1024, 1024))
    large.save(tmp_path / 'x.jpg', quality=95)
    large.save(tmp_path / 'x.png')
    assert photos.load(str(tmp_path / 'x.jpg')).size == (256, 256)
    difference = read(tmp_path / 'x.jpg').astype(int) - read(tmp_path / 'x.png')
    assert np.abs(difference).max() <= 3


# ---------------------------------------------------------------------------- refusals


def png(side: int) -> bytes:
    buffer = io.BytesIO()
    Image.new('1', (side, side)).save(buffer, 'PNG')
    return buffer.getvalue()


@pytest.mark.parametrize(
    ('content', 'fault'),
    [
        (b'', 'has 0 bytes; expected a JPEG, PNG, GIF, BMP, WebP, TIFF, PPM'),
        (b'no picture at all', 'not a picture that can be read; expected a JPEG'),
        (png(64)[:50], 'x.png: cannot be decoded: '),
        (png(8001), 'has 8,001 x 8,001 pixels; expected at most 64,000,000 in all'),
        (png(15000), 'cannot be decoded: .*exceeds limit'),
    ],
)
def test_what_is_no_picture_is_named(tmp_path: Path, content: bytes, fault: str) -> None:
    path = tmp_path / 'x.png'
    path.write_bytes(content)
    with pytest.raises(UserError, match=fault) as error:
        read(path)
    assert str(error.value).startswith(str(path)) and '\n' not in str(error.value)


def test_an_unsupported_format_is_named(tmp_path: Path) -> None:
    Image.fromarray(NOISE).save(tmp_path / 'x.eps')
    with pytest.raises(UserError, match=r'x\.eps: not a picture that can be read; expected a JPEG'):
        read(tmp_path / 'x.eps')


def test_a_picture_too_large_is_refused_before_it_is_decoded(tmp_path: Path) -> None:
    (tmp_path / 'x.png').write_bytes(png(10000))
    start = time.monotonic()
    with pytest.raises(UserError, match='has 10,000 x 10,000 pixels'):
        read(tmp_path / 'x.png')
    assert time.monotonic() - start < 0.2


def test_decoding_has_a_time_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(photos, 'MAX_SECONDS', -1.0)
    noise = np.random.default_rng(0).integers(0, 256, [200, 200, 3], np.uint8)
    Image.fromarray(noise).save(tmp_path / 'x.png')
    with pytest.raises(UserError, match='x.png: takes more than -1 seconds to decode'):
        read(tmp_path / 'x.png')


@pytest.mark.skipif(os.name != 'posix' or os.geteuid() == 0, reason='root may read all')
def test_a_file_that_may_not_be_read_is_called_that(tmp_path: Path) -> None:
    (tmp_path / 'x.png').write_bytes(png(64))
    (tmp_path / 'x.png').chmod(0)
    with pytest.raises(UserError, match='x.png: Permission denied'):
        read(tmp_path / 'x.png')


def test_pictures_are_told_by_ending_or_first_bytes(tmp_path: Path) -> None:
    for name, content, expected in (
        ('a.JPG', b'damaged', True),
        ('b.webp', b'', True),
        ('c', png(8), True),
        ('d.dat', png(8), True),
        ('e.txt', b'text', False),
        ('f', b'', False),
    ):
        (tmp_path / name).write_bytes(content)
        assert photos.is_picture(str(tmp_path / name)) == expected, name
    assert not photos.is_picture(str(tmp_path / 'missing'))


@unix
@pytest.mark.parametrize('kind', ODD)
def test_an_odd_file_is_named(tmp_path: Path, kind: str) -> None:
    path = tmp_path / 'x.png'
    make_odd(str(path), kind)
    with pytest.raises(UserError, match=ODD[kind]):
        read(path)
