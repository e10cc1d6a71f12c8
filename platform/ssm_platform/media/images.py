"""Still images (JPEG, PNG, HEIC, ...) to upright RGB uint8, and JPEG back.

Grey images become three equal channels, 16 bit becomes 8 bit, alpha is dropped, the orientation (EXIF, HEIF's `irot`)
is applied. A truncated JPEG is refused: OpenCV itself would fill the rest with grey and only print a line. What lies
behind a JPEG's own end (a phone's film) is not looked at. HEIF is read whole, all its tiles, by pillow-heif.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ssm_platform.media.errors import UnreadableVideo
from ssm_platform.media.formats import HEAD, in_words, picture_format
from ssm_platform.media.jpeg import picture_end

_SPOKEN = {"HEIF": "HEIC/HEIF", "AVIF": "AVIF"}


def read_image(path: str | Path) -> NDArray[np.uint8]:
    """An image file as (H, W, 3) RGB. UnreadableVideo with path and reason where there is none."""
    return decode_image(load_image(path), str(path))


def load_image(path: str | Path) -> bytes:
    """An image file as it is stored. UnreadableVideo where it cannot be opened."""
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise UnreadableVideo(path, error.strerror or "cannot be opened") from error


def decode_image(data: bytes | memoryview, name: str) -> NDArray[np.uint8]:
    """Encoded bytes as (H, W, 3) RGB; `name` is what errors call them."""
    if not len(data):
        raise UnreadableVideo(name, "the file is empty")
    head = bytes(data[:HEAD])
    kind = picture_format(head)
    if kind in ("HEIF", "AVIF"):
        return _decode_heif(bytes(data), kind, name)
    if kind is None and (told := in_words(head)):
        raise UnreadableVideo(name, f"it is {told}")
    if kind == "JPEG":
        data = picture_only(bytes(data), name)
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB)
    if image is None:
        raise UnreadableVideo(name, f"not an image OpenCV can decode ({len(data)} bytes)")
    return np.asarray(image, np.uint8)


def picture_only(data: bytes, name: str) -> bytes:
    """A JPEG without what lies behind its own end. UnreadableVideo where it has none."""
    end = picture_end(data)
    if end is None:
        raise UnreadableVideo(name, f"truncated JPEG ({len(data)} bytes, no end marker)")
    return data[:end]


def heif_size(data: bytes, kind: str, name: str) -> tuple[int, int]:
    """Width and height of the upright primary picture, from the header. UnreadableVideo as in `decode_image`."""
    with _heif_errors(kind, name):
        width, height = _heif(data, kind).size
        return int(width), int(height)


def _decode_heif(data: bytes, kind: str, name: str) -> NDArray[np.uint8]:
    with _heif_errors(kind, name):
        image = _heif(data, kind)
        return np.asarray((image.to_pillow() if kind == "HEIF" else image).convert("RGB"), np.uint8)


def _heif(data: bytes, kind: str) -> Any:
    """The opened file, upright and not decoded yet."""
    from PIL import Image, ImageOps

    if kind == "HEIF":
        import pillow_heif

        return pillow_heif.open_heif(data, convert_hdr_to_8bit=True)
    return ImageOps.exif_transpose(Image.open(io.BytesIO(data), formats=[kind]))


@contextmanager
def _heif_errors(kind: str, name: str) -> Iterator[None]:
    """What the libraries raise, as UnreadableVideo; it names the mend where no decoder is installed."""
    from PIL import UnidentifiedImageError

    try:
        yield
    except (ImportError, KeyError) as error:
        reason = f"it is a {_SPOKEN[kind]} picture, for which no decoder is installed"
        raise UnreadableVideo(name, f"{reason}: pip install 'ssm-platform[heic]', or make it JPEG") from error
    except (UnidentifiedImageError, OSError, EOFError, ValueError, RuntimeError, IndexError, SyntaxError) as error:
        raise UnreadableVideo(name, f"truncated or damaged {_SPOKEN[kind]} picture ({error})") from error


def encode_jpeg(image: NDArray[np.uint8], quality: int) -> bytes:
    """(H, W, 3) RGB as JPEG bytes, quality 1..100; at 100 colours are not subsampled either."""
    options = [cv2.IMWRITE_JPEG_QUALITY, quality]
    if quality == 100:
        options += [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444]
    good, data = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), options)
    if not good:
        raise ValueError(f"an image of shape {image.shape} cannot be stored as JPEG")
    return bytes(data)


def check_indices(name: str, indices: Sequence[int], length: int) -> None:
    """ValueError for the first index outside 0..length-1."""
    for index in indices:
        if not 0 <= index < length:
            raise ValueError(f"{name}: frame {index} is not in 0..{length - 1} (length {length})")
