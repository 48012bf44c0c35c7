"""Encoded images become a graph's input: formats, orientation, transparency, sizes; what is hostile is refused."""

import contextlib
import io
import struct
import zlib
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from services.worker.batch.graph import DATATYPES, Port, Ports
from services.worker.batch.processor import Rejected
from services.worker.tasks.image import ImageFrontEnd, read_fields

Dims = tuple[int | str, ...]
RED, GREEN, BLUE, WHITE, BLACK = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255), (0, 0, 0)
QUARTERS = np.array([[RED, GREEN], [BLUE, WHITE]], np.uint8)
"""What is where tells how a picture was turned."""


def front_end(
    dims: tuple[int | str, ...] = ("rows", 3, 2, 2), kind: str = "tensor(float)", **keys: Any
) -> ImageFrontEnd:
    datatype, dtype = DATATYPES[kind]
    port = Port(name="pixels", datatype=datatype, dtype=np.dtype(dtype), dims=dims)
    return ImageFrontEnd(read_fields({"image": keys}), Ports(inputs=(port,), outputs=(), batched=True))


def encoded(pixels: Any, form: str = "PNG", mode: str | None = None, **options: Any) -> bytes:
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(np.asarray(pixels))
    file = io.BytesIO()
    (image.convert(mode) if mode else image).save(file, form, **options)
    return file.getvalue()


def fed(front: ImageFrontEnd, image: bytes) -> npt.NDArray[Any]:
    (array,) = front.feed(image).values()
    return np.asarray(array[0])


def colours(front: ImageFrontEnd, image: bytes) -> npt.NDArray[Any]:
    """[height, width, channels] from 0 to 255, of [channels, height, width] from 0 to 1."""
    return np.round(fed(front, image).transpose(1, 2, 0) * 255)


def refused(front: ImageFrontEnd, image: bytes) -> str:
    with pytest.raises(Rejected) as caught:
        front.feed(image)
    assert caught.value.failure.field == "image"
    return caught.value.failure.message


@pytest.mark.parametrize(
    ("form", "options", "tolerance"),
    [("PNG", {}, 0), ("WEBP", {"lossless": True}, 0), ("WEBP", {"quality": 95}, 12), ("JPEG", {"quality": 95}, 12)],
)
def test_png_jpeg_and_webp_are_decoded(form: str, options: dict[str, Any], tolerance: int) -> None:
    pixels = np.kron(QUARTERS, np.ones((16, 16, 1), np.uint8))
    found = colours(front_end(("rows", 3, 32, 32)), encoded(pixels, form, **options))
    difference = np.abs(found - pixels)
    difference[14:18], difference[:, 14:18] = 0, 0  # where colours meet, compression blurs
    assert difference.max() <= tolerance


@pytest.mark.parametrize("form", ["GIF", "BMP", "TIFF", "PPM", "ICO"])
def test_other_formats_are_refused(form: str) -> None:
    assert "neither PNG, JPEG nor WebP" in refused(front_end(), encoded(QUARTERS, form))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_picture_is_turned_as_exif_says(orientation: int) -> None:
    """`stored` is by the rule of each orientation: which sides of the scene its first row and column are."""
    scene = QUARTERS
    stored = {
        1: scene,
        2: scene[:, ::-1],
        3: scene[::-1, ::-1],
        4: scene[::-1],
        5: scene.transpose(1, 0, 2),
        6: np.rot90(scene),
        7: scene[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(scene, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    for form in ("PNG", "WEBP"):
        found = colours(front_end(), encoded(np.ascontiguousarray(stored), form, exif=exif.tobytes(), lossless=True))
        np.testing.assert_array_equal(found, scene)


def test_broken_exif_is_no_orientation() -> None:
    image = encoded(QUARTERS, exif=b"Exif\0\0II*\0\xff\xff\xff\xff")
    np.testing.assert_array_equal(colours(front_end(), image), QUARTERS)


def test_what_is_transparent_shows_the_background() -> None:
    pixels = np.zeros((2, 2, 4), np.uint8)
    pixels[0, 0] = (*RED, 255)
    pixels[1, 1] = (*BLACK, 51)
    expected = np.array([[RED, WHITE], [WHITE, (204, 204, 204)]])
    for form in ("PNG", "WEBP"):
        np.testing.assert_array_equal(colours(front_end(), encoded(pixels, form, lossless=True, exact=True)), expected)
    found = colours(front_end(background=0), encoded(pixels))
    np.testing.assert_array_equal(found, [[RED, BLACK], [BLACK, BLACK]])


@pytest.mark.parametrize("transparency", [None, 0, bytes([0, 255, 255, 255])])
def test_palettes_are_colours(transparency: Any) -> None:
    image = Image.new("P", (2, 2))
    image.putpalette([*RED, *GREEN, *BLUE, *WHITE])
    image.putdata([0, 1, 2, 3])
    options = {} if transparency is None else {"transparency": transparency}
    expected = QUARTERS.copy()
    if transparency is not None:
        expected[0, 0] = WHITE
    np.testing.assert_array_equal(colours(front_end(), encoded(image, **options)), expected)


def test_of_sixteen_bits_the_upper_ones_are_kept() -> None:
    pixels = np.array([[0, 257], [0x80FF, 0xFFFF]], np.uint16)
    found = fed(front_end(("rows", 1, 2, 2)), encoded(pixels))
    np.testing.assert_array_equal(np.round(found[0] * 255), [[0, 1], [0x80, 255]])


def test_colours_become_grey_and_grey_colours() -> None:
    grey = np.array([[10, 20], [30, 40]], np.uint8)
    np.testing.assert_array_equal(colours(front_end(), encoded(grey))[..., 2], grey)
    found = fed(front_end(("rows", 1, 2, 2)), encoded(QUARTERS))
    np.testing.assert_allclose(found[0] * 255, [[76, 150], [29, 255]], atol=1)
    cmyk = Image.new("CMYK", (2, 2), (0, 0, 0, 255))
    assert colours(front_end(), encoded(cmyk, "JPEG")).max() < 20


@pytest.mark.parametrize("form", ["PNG", "WEBP"])
def test_of_an_animation_the_first_picture_is_taken(form: str) -> None:
    frames = [Image.new("RGB", (2, 2), colour) for colour in (RED, GREEN, BLUE)]
    image = encoded(frames[0], form, save_all=True, append_images=frames[1:], lossless=True)
    assert (colours(front_end(), image) == RED).all()


STRIPES = np.repeat(np.array([[BLUE, RED, RED, GREEN]], np.uint8), 2, axis=0)


@pytest.mark.parametrize(
    ("resize", "expected"),
    [
        ("crop", [[RED, RED], [RED, RED]]),
        ("stretch", [[(127, 0, 127), (127, 127, 0)]] * 2),
        ("pad", [[(127, 0, 127), (127, 127, 0)], [WHITE, WHITE]]),
    ],
)
def test_another_shape_is_cropped_stretched_or_padded(resize: str, expected: Any) -> None:
    found = colours(front_end(resize=resize, filter="box"), encoded(STRIPES))
    np.testing.assert_allclose(found, expected, atol=1)


@pytest.mark.parametrize("size", [(300, 400), (400, 300), (256, 999), (50, 77)])
def test_a_crop_is_what_resizing_the_whole_and_cropping_gives(size: tuple[int, int]) -> None:
    """As torchvision has it: Resize(256), CenterCrop(224)."""
    pixels = np.random.default_rng(1).integers(0, 256, (*size, 3), np.uint8)
    height, width = (256 * side // min(size) for side in size)
    whole = Image.fromarray(pixels).resize((width, height), Image.Resampling.BILINEAR)
    left, top = round((width - 224) / 2), round((height - 224) / 2)
    expected = np.asarray(whole.crop((left, top, left + 224, top + 224)))
    found = colours(front_end(("rows", 3, 224, 224), shortest=256), encoded(pixels))
    np.testing.assert_allclose(found, expected, atol=1)


def test_values_are_scaled_and_normalised_by_channel() -> None:
    mean, deviation = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
    found = fed(front_end(mean=mean, std=deviation), encoded(QUARTERS))
    expected = (QUARTERS / 255 - mean) / deviation
    np.testing.assert_allclose(found.transpose(1, 2, 0), expected, rtol=1e-5)


def test_layout_order_inversion_and_type_are_the_files_and_the_graphs() -> None:
    whole = fed(front_end(("rows", 2, 2, 3), "tensor(uint8)", channels="bgr"), encoded(QUARTERS))
    assert whole.dtype == np.uint8
    np.testing.assert_array_equal(whole, QUARTERS[..., ::-1])
    flat = front_end((1, "h", "w", 3), size=[1, 2], invert=True, scale=1, resize="stretch")
    inverted = fed(flat, encoded(QUARTERS[:1]))
    np.testing.assert_array_equal(inverted, 255 - QUARTERS[:1].astype(np.float32))
    grey = fed(front_end(("rows", 28, 28), "tensor(float16)"), encoded(QUARTERS))
    assert grey.shape == (28, 28)
    assert grey.dtype == np.float16


def bomb(width: int, height: int) -> bytes:
    """A PNG of a few bytes that says it is that large, and is black as far as it goes."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")


@pytest.mark.parametrize(("width", "height"), [(8_001, 8_000), (60_000, 60_000), (2**31 - 1, 2**31 - 1)])
def test_a_picture_that_is_too_large_is_refused_before_it_is_decoded(width: int, height: int) -> None:
    assert "at most 64000000 are taken" in refused(front_end(), bomb(width, height))


def test_the_file_says_how_large_a_picture_may_be() -> None:
    assert "has 2 × 2 pixels: at most 3 are taken" in refused(front_end(max_pixels=3), encoded(QUARTERS))


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP"])
def test_a_picture_that_ends_early_is_refused(form: str) -> None:
    pixels = np.random.default_rng(2).integers(0, 256, (64, 64, 3), np.uint8)
    image = encoded(pixels, form)
    for length in (0, 1, 12, 40, len(image) // 2, len(image) - 40):
        refused(front_end(), image[:length])


def test_a_jpeg_of_very_many_scans_is_refused() -> None:
    image = encoded(np.kron(QUARTERS, np.ones((16, 16, 1), np.uint8)), "JPEG", progressive=True)
    front_end().feed(image)
    start = image.rindex(b"\xff\xda")
    assert "scans" in refused(front_end(), image[:-2] + image[start:-2] * 200 + image[-2:])


def test_a_picture_that_is_very_narrow_does_not_grow() -> None:
    image = encoded(np.zeros((1_000_000, 1), np.uint8))
    wide = ("rows", 1, 224, 224)
    assert "too narrow" in refused(front_end(wide, resize="stretch"), image)
    assert fed(front_end(wide, resize="pad"), image).shape == (1, 224, 224)
    assert fed(front_end(wide, shortest=256), image).shape == (1, 224, 224)


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_damaged_pictures_are_decoded_or_refused(data: st.DataObject) -> None:
    form = data.draw(st.sampled_from(["PNG", "JPEG", "WEBP"]))
    image = bytearray(encoded(np.kron(QUARTERS, np.ones((8, 8, 1), np.uint8)), form))
    for _ in range(data.draw(st.integers(1, 5))):
        image[data.draw(st.integers(0, len(image) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(Rejected):
        assert fed(front_end(), bytes(image)).shape == (3, 2, 2)


@pytest.mark.parametrize(
    ("dims", "keys", "sentence"),
    [
        (("rows", 3, "h", "w"), {}, "image.size: must be given"),
        (("rows", 3, 8, 8), {"size": 9}, "image.size: pixels takes 8 × 8"),
        (("rows", 3, 8, 3), {}, "image.layout: must be given"),
        (("rows", 3, 8, 8), {"channels": "grey"}, "image.channels: pixels has 3"),
        (("rows", 4, 8, 8), {"layout": "nchw"}, "has 4 channels"),
        (("rows", 64), {}, "image: pixels is FP32"),
        ((4, 3, 8, 8), {}, "image: pixels is FP32"),
        (("rows", 3, 8, 8), {"shortest": 7}, "image.shortest: is for crop, and at least 8"),
        (("rows", 3, 8, 8), {"shortest": 9, "resize": "pad"}, "image.shortest: is for crop"),
        (("rows", 3, 8, 8), {"mean": [1, 2]}, "image.mean: the graph has 3 channels, not 2"),
        (("rows", 3, 8, 8), {"std": [0]}, "image.std: must be positive"),
        (("rows", 3, 8, 8), {"sise": 8}, "image.sise: "),
        (("rows", 3, 8, 8), {"size": 8_193}, "image.size"),
    ],
)
def test_keys_that_do_not_fit_are_refused(dims: Dims, keys: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        front_end(dims, **keys)


def test_whole_values_are_not_scaled() -> None:
    with pytest.raises(ValueError, match="neither scale, mean nor std"):
        front_end(("rows", 3, 8, 8), "tensor(uint8)", scale=1)
