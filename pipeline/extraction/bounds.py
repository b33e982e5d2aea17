"""How much a file from elsewhere may ask for: so many times its own size and no more, checked before it is given.

A file of a kilobyte can claim gigabytes: by a shape, a length, a ratio of compression, or one value named many times.
"""

import zipfile
from collections.abc import Iterator
from contextlib import contextmanager

from pipeline.core.params import UserError

FLOOR_BYTES = 1 << 24  # a small file may ask for this much, whatever its size


def most_bytes(size: int, ratio: int) -> int:
    """What a file of ``size`` bytes may ask for in all."""
    return FLOOR_BYTES + ratio * size


def members(archive: zipfile.ZipFile, size: int, ratio: int) -> dict[str, zipfile.ZipInfo]:
    """The members of an archive of ``size`` bytes, by name.

    Raises ``UserError`` for two members of one name (readers differ in which one they take), for an encrypted member,
    and for one that is neither stored nor deflated (LZMA allocates whatever the file asks for). The same where all
    members together claim more bytes than the archive has, or unpack to more than ``ratio`` times its size.
    """
    infos = archive.infolist()
    found = {info.filename: info for info in infos}
    if len(found) < len(infos):
        names = [info.filename for info in infos]
        raise UserError(f"the archive has two members of one name: {some(n for n in found if names.count(n) > 1)}")
    if locked := [name for name, info in found.items() if info.flag_bits & 1]:
        raise UserError(f"the archive is encrypted: {some(locked)}")
    known = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
    if other := [name for name, info in found.items() if info.compress_type not in known]:
        raise UserError(
            f"the archive is compressed by another method than deflate, save it uncompressed: {some(other)}"
        )
    if (packed := sum(info.compress_size for info in infos)) > size:
        raise UserError(f"the archive has {size:,} bytes, and its members claim to lie in {packed:,}")
    unpacked, most = sum(info.file_size for info in infos), most_bytes(size, ratio)
    if unpacked > most:
        raise UserError(
            f"the archive has {size:,} bytes and would unpack to {unpacked:,}, more than the {most:,} that are "
            "plausible; where that is right, save it uncompressed"
        )
    return found


def some(names: Iterator[str] | list[str], most: int = 10) -> str:
    """The first names, and how many more there are."""
    names = list(names)
    more = f" and {len(names) - most:,} more" if len(names) > most else ""
    return f"{[name[:100] for name in names[:most]]}{more}"


@contextmanager
def border(start: str) -> Iterator[None]:
    """Turns any error inside into a ``UserError`` that begins with ``start``: a damaged file breaks a decoder anywhere.

    A ``UserError`` goes through as it is.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"{start}: {one_line(error)}") from error


def one_line(error: BaseException) -> str:
    """What an error says, on one line; led by its type where its own words do not stand for themselves."""
    words = " ".join(str(error).split())[:300]
    return words if isinstance(error, OSError | ValueError) and words else f"{type(error).__name__}: {words}"
