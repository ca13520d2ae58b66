"""Image files as tensors, against Pillow and numpy."""

import struct
import zlib

import numpy as np
import pytest
import torch
from pictures import hwc, random_levels, save
from PIL import Image

from metapl.data.formats.decode import decode, header
from metapl.registry.errors import InputError

# ---------------------------------------------------------------- formats


@pytest.mark.parametrize("ending", ["png", "bmp", "tif", "tiff", "ppm"])
def test_colours_are_those_in_the_file(tmp_path, ending):
    levels = random_levels(5, 7, 3)
    x = decode(save(tmp_path / f"a.{ending}", levels), (3, 5, 7))
    assert x.dtype == torch.uint8
    assert x.is_contiguous()
    np.testing.assert_array_equal(x.numpy(), levels.transpose(2, 0, 1))


@pytest.mark.parametrize("ending", ["png", "bmp", "gif", "tif", "pgm"])
def test_grey_levels_are_those_in_the_file(tmp_path, ending):
    levels = random_levels(5, 7)
    file = save(tmp_path / f"a.{ending}", levels)
    np.testing.assert_array_equal(decode(file, (1, 5, 7))[0].numpy(), levels)
    np.testing.assert_array_equal(decode(file, (3, 5, 7)).numpy(), np.stack([levels] * 3))


@pytest.mark.parametrize("ending", ["jpg", "jpeg", "webp"])
def test_lossy_formats_are_as_pillow_decodes_them(tmp_path, ending):
    file = save(tmp_path / f"a.{ending}", random_levels(16, 24, 3))
    with Image.open(file) as image:
        np.testing.assert_array_equal(hwc(decode(file, (3, 16, 24))), np.asarray(image.convert("RGB")))


def test_colours_become_grey_by_the_standard_weights(tmp_path):
    levels = random_levels(9, 9, 3)
    found = decode(save(tmp_path / "a.png", levels), (1, 9, 9))[0].numpy()
    assert np.abs(found - levels @ [0.299, 0.587, 0.114]).max() <= 0.51


def test_a_palette_gives_its_colours(tmp_path):
    palette, index = random_levels(4, 3, seed=1), random_levels(6, 5) % 4
    image = Image.fromarray(index)
    image.putpalette(palette.tobytes())
    image.save(tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as saved:
        assert saved.mode == "P"
    np.testing.assert_array_equal(hwc(decode(tmp_path / "a.png", (3, 6, 5))), palette[index])


def test_a_transparent_palette_entry_is_white(tmp_path):
    index = np.array([[0, 1], [1, 2]], np.uint8)
    image = Image.fromarray(index)
    image.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90])
    image.save(tmp_path / "a.png", transparency=1)
    found = hwc(decode(tmp_path / "a.png", (3, 2, 2)))
    np.testing.assert_array_equal(found, [[[10, 20, 30], [255] * 3], [[255] * 3, [70, 80, 90]]])


@pytest.mark.parametrize("channels", [1, 3])
def test_transparency_is_as_it_looks_on_white(tmp_path, channels):
    levels = random_levels(8, 8, channels + 1)
    levels[0, :, -1], levels[1, :, -1] = 0, 255
    found = hwc(decode(save(tmp_path / "a.png", levels), (channels, 8, 8))).reshape(8, 8, channels)
    alpha = levels[..., -1:] / 255
    assert np.abs(found - (levels[..., :-1] * alpha + 255 * (1 - alpha))).max() <= 1
    assert (found[0] == 255).all()
    np.testing.assert_array_equal(found[1], levels[1, :, :-1])


@pytest.mark.parametrize("ending", ["png", "tif", "pgm"])
def test_of_16_bits_the_upper_8_count(tmp_path, ending):
    levels = random_levels(5, 7, dtype=np.uint16)
    found = decode(save(tmp_path / f"a.{ending}", levels), (1, 5, 7))[0].numpy()
    np.testing.assert_array_equal(found, levels // 256)


def test_big_endian_16_bits(tmp_path):
    levels = random_levels(5, 7, dtype=np.uint16)
    found = decode(save(tmp_path / "a.tif", levels.astype(">u2")), (1, 5, 7))[0].numpy()
    np.testing.assert_array_equal(found, levels // 256)


def test_black_and_white(tmp_path):
    bits = random_levels(5, 9) > 127
    Image.fromarray(bits).save(tmp_path / "a.png")
    np.testing.assert_array_equal(decode(tmp_path / "a.png", (1, 5, 9))[0].numpy(), bits * 255)


def test_cmyk(tmp_path):
    """Without a black part the colours are the inverse of the inks."""
    inks = random_levels(5, 7, 4)
    inks[..., 3] = 0
    Image.fromarray(inks, mode="CMYK").save(tmp_path / "a.tif")
    np.testing.assert_array_equal(hwc(decode(tmp_path / "a.tif", (3, 5, 7))), 255 - inks[..., :3])


def test_an_animation_gives_its_first_frame(tmp_path):
    frames = [Image.fromarray(random_levels(4, 4, seed=seed)) for seed in (0, 1)]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    np.testing.assert_array_equal(decode(tmp_path / "a.gif", (1, 4, 4))[0].numpy(), random_levels(4, 4))


# What a camera held that way makes of the upright image, by the EXIF standard.
HELD = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, 1),
    7: lambda a: np.rot90(a, 2).swapaxes(0, 1),
    8: lambda a: np.rot90(a, -1),
}


@pytest.mark.parametrize("orientation", HELD)
@pytest.mark.parametrize("ending", ["png", "tif"])
def test_images_are_turned_as_their_exif_says(tmp_path, ending, orientation):
    upright = random_levels(5, 7, 3)
    exif = Image.Exif()
    exif[0x0112] = orientation
    file = save(tmp_path / f"a.{ending}", np.ascontiguousarray(HELD[orientation](upright)), exif=exif)
    np.testing.assert_array_equal(hwc(decode(file, (3, 5, 7))), upright)
    assert header(file)[:2] == (5, 7)


def test_a_photograph_is_turned_too(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    file = save(tmp_path / "a.jpg", random_levels(16, 24, 3), exif=exif)
    with Image.open(file) as image:
        expected = np.rot90(np.asarray(image), -1)
    np.testing.assert_array_equal(hwc(decode(file, (3, 24, 16))), expected)


@pytest.mark.parametrize("exif", [b"MM\0*garbage", b"nothing", b"II*\0\xff\xff\xff\xff", b"MM\0*\0\0\0"])
@pytest.mark.parametrize("ending", ["png", "jpg"])
def test_broken_exif_does_not_break_the_image(tmp_path, ending, exif):
    file = save(tmp_path / f"a.{ending}", random_levels(8, 8), exif=b"Exif\0\0" + exif)
    assert torch.equal(decode(file, (1, 8, 8)), decode(save(tmp_path / f"b.{ending}", random_levels(8, 8)), (1, 8, 8)))


# ---------------------------------------------------------------- sizes


@pytest.mark.parametrize("size", [(12, 12), (16, 8), (7, 20), (64, 64), (40, 41)])
def test_the_centre_is_scaled_to_fit(tmp_path, size):
    """A linear ramp stays one, about the same centre: bicubic scaling and centring keep it, but for the edges."""
    height, width = 40, 60
    rows, columns = np.mgrid[:height, :width]
    levels = (100 + 1.0 * (rows - 19.5) + 1.5 * (columns - 29.5)).round().clip(0, 255).astype(np.uint8)
    found = decode(save(tmp_path / "a.png", levels), (1, *size))[0].numpy()
    step = min(height / size[0], width / size[1])
    rows, columns = np.mgrid[: size[0], : size[1]]
    middle = [(side - 1) / 2 for side in size]
    expected = 100 + step * (rows - middle[0]) + 1.5 * step * (columns - middle[1])
    inner = (slice(2, -2), slice(2, -2))
    assert np.abs(found[inner] - expected[inner]).max() < 1.6


def test_scaling_is_that_of_pillow_with_antialiasing(tmp_path):
    file = save(tmp_path / "a.png", random_levels(64, 64, 3))
    with Image.open(file) as image:
        expected = np.asarray(image.resize((16, 16), Image.Resampling.BICUBIC))
    np.testing.assert_array_equal(hwc(decode(file, (3, 16, 16))), expected)
    assert expected.std() < 0.5 * random_levels(64, 64, 3).std()


def test_what_is_too_long_is_cut_on_both_sides(tmp_path):
    levels = random_levels(10, 30)
    found = decode(save(tmp_path / "a.png", levels), (1, 10, 10))[0].numpy()
    np.testing.assert_array_equal(found, levels[:, 10:20])


@pytest.mark.parametrize("size", [(1, 1000), (1000, 1), (1, 1)])
def test_extreme_sizes(tmp_path, size):
    file = save(tmp_path / "a.png", np.full(size, 77, np.uint8))
    assert decode(file, (3, 8, 8)).unique().tolist() == [77]


# ---------------------------------------------------------------- what is no image


def pixels_of_nothing(width, height):
    """A small PNG file of many black pixels, one bit each, written by hand."""

    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    packer = zlib.compressobj()
    rows = b"".join(packer.compress(bytes(1 + (width + 7) // 8) * 100) for _ in range(height // 100)) + packer.flush()
    head = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def refusal(file, shape=(3, 8, 8)):
    with pytest.raises(InputError) as caught:
        decode(file, shape)
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    assert message.startswith(str(file))
    assert message.endswith("remove it")
    return message


@pytest.mark.parametrize("content", [b"", b"not an image", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"GIF89a"])
def test_a_file_that_is_no_image(tmp_path, content):
    file = tmp_path / "a.png"
    file.write_bytes(content)
    assert "no image that can be read" in refusal(file)


@pytest.mark.parametrize("ending", ["png", "jpg", "webp", "bmp", "gif", "tif", "ppm"])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.95])
def test_an_image_that_is_cut_short(tmp_path, ending, share):
    file = save(tmp_path / f"a.{ending}", random_levels(64, 64, 3))
    content = file.read_bytes()
    file.write_bytes(content[: int(share * len(content))])
    assert "no image that can be read" in refusal(file)


def test_a_file_that_is_not_there(tmp_path):
    assert "cannot be read (No such file" in refusal(tmp_path / "a.png")


@pytest.mark.parametrize("levels", [np.ones((4, 4), np.float32), np.full((4, 4), 10**6, np.int32)])
def test_levels_without_a_white_are_refused(tmp_path, levels):
    assert "grey levels" in refusal(save(tmp_path / "a.tif", levels), (1, 4, 4))


def test_a_decompression_bomb_is_refused(tmp_path):
    file = tmp_path / "a.png"
    file.write_bytes(pixels_of_nothing(20_000, 10_000))
    assert "more than 67,108,864 pixels" in refusal(file)


def test_a_name_of_two_lines_makes_a_message_of_one(tmp_path):
    file = tmp_path / "a\nb\x1b[0m.png"
    file.write_bytes(b"")
    with pytest.raises(InputError, match=r"^'.*a\\nb\\x1b\[0m.png': no image .* remove it$"):
        decode(file, (1, 2, 2))
