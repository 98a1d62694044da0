"""Files of pictures as squares of records."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from cifar10_lib.base.errors import UserError
from cifar10_lib.data.photos import Reader
from tests.helpers.samples import ODD, make_odd, unix

RNG = np.random.default_rng(0)
NOISE = RNG.integers(0, 256, [32, 32, 3], dtype=np.uint8)

# A square of 64 x 64 in the middle, blue, between red on either side.
BANNER = np.zeros([64, 160, 3], np.uint8)
BANNER[:, :, 0] = 255
BANNER[:, 48:112] = [0, 0, 255]


def read(path: Path) -> np.ndarray:
    return Reader().read(str(path)).pixels


def smooth(height: int, width: int) -> np.ndarray:
    """A picture that scaling and JPEG change little."""
    rows, columns = np.mgrid[0:height, 0:width]
    channels = [rows * 200 / height, columns * 200 / width, 100 + 0 * rows]
    return np.stack(channels, axis=-1).astype(np.uint8)


@pytest.mark.parametrize('ending', ['png', 'bmp'])
def test_a_picture_of_a_records_size_stays_as_it_is(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f'picture.{ending}'
    Image.fromarray(NOISE).save(path)
    np.testing.assert_array_equal(read(path), NOISE)


@pytest.mark.parametrize('ending', ['png', 'bmp', 'jpg', 'gif'])
@pytest.mark.parametrize('upended', [False, True])
def test_the_central_square_is_kept(tmp_path: Path, ending: str, upended: bool) -> None:
    path = tmp_path / f'picture.{ending}'
    banner = Image.fromarray(BANNER.swapaxes(0, 1) if upended else BANNER)
    # Which formats other than JPEG ignore.
    banner.save(path, quality=95, subsampling=0)
    picture = Reader().read(str(path))
    for pixels, side in ((picture.pixels, 32), (picture.drawn, 192)):
        assert pixels.shape == (side, side, 3) and pixels.dtype == np.uint8
        # Not the two rows beside red, where JPEG's blocks and scaling mix a little in.
        inner = pixels[side // 16 : -side // 16, side // 16 : -side // 16].astype(int)
        assert np.abs(inner - [0, 0, 255]).max() <= 3


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
    rgba.save(tmp_path / 'rgba.bmp')
    np.testing.assert_array_equal(read(tmp_path / 'grey.png'), np.stack([grey] * 3, axis=-1))
    for name, channel in (('la.png', 2), ('rgba.png', 0), ('rgba.bmp', 0)):
        difference = read(tmp_path / name)[:, :, channel] - on_white
        assert np.abs(difference).max() <= 0.5, name


def test_deep_and_indexed_colours(tmp_path: Path) -> None:
    deep = (np.arange(1024, dtype=np.uint16) * 64).reshape(32, 32)
    Image.fromarray(deep).save(tmp_path / 'deep.png')
    assert np.abs(read(tmp_path / 'deep.png')[:, :, 0] - deep / 256.0).max() <= 1
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


def png(side: int) -> bytes:
    buffer = io.BytesIO()
    Image.new('1', (side, side)).save(buffer, 'PNG')
    return buffer.getvalue()


def indexed_bmp() -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(NOISE).quantize(16).save(buffer, 'BMP')
    return buffer.getvalue()


@pytest.mark.parametrize(
    ('content', 'fault'),
    [
        (b'', 'has 0 bytes; expected a JPEG, PNG, GIF or BMP'),
        (b'no picture at all', 'not a picture that can be read; expected a JPEG'),
        (png(64)[:60], 'x.png: .*; expected a JPEG'),
        (png(8001), 'has 8001 x 8001 pixels; expected at most 64,000,000 in all'),
        (png(15000), 'too large: '),
        (indexed_bmp(), 'a BMP with a palette'),
    ],
)
def test_what_is_no_picture_is_named(tmp_path: Path, content: bytes, fault: str) -> None:
    path = tmp_path / 'x.png'
    path.write_bytes(content)
    with pytest.raises(UserError, match=fault) as error:
        read(path)
    assert str(error.value).startswith(str(path)) and '\n' not in str(error.value)


def test_an_unsupported_format_is_named(tmp_path: Path) -> None:
    Image.fromarray(NOISE).save(tmp_path / 'x.tiff')
    with pytest.raises(UserError, match=r'x\.tiff: .*; expected a JPEG, PNG, GIF or BMP'):
        read(tmp_path / 'x.tiff')


@unix
@pytest.mark.parametrize('kind', ODD)
def test_an_odd_file_is_named(tmp_path: Path, kind: str) -> None:
    path = tmp_path / 'x.png'
    make_odd(str(path), kind)
    with pytest.raises(UserError, match=ODD[kind]):
        read(path)
