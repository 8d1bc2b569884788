"""The chart as the archive that ``helm install`` takes: the same bytes for the same files, whoever makes it and when.

Helm's own packaging puts the times of the files into the archive.
"""

import gzip
import io
import tarfile
from collections.abc import Iterator, Mapping

_CHART = "cfscale"
# what ``.helmignore`` names as well
_LEFT_OUT = ("images/", ".helmignore", "cfscale.lock.json")
_MODE = 0o644


def packaged(files: Mapping[str, str]) -> bytes:
    """The archive of a chart, which depends on the files alone."""
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for member, content in _members(files):
            tar.addfile(member, io.BytesIO(content))
    packed = io.BytesIO()
    # no name and no time in the header either
    with gzip.GzipFile(filename="", fileobj=packed, mode="wb", compresslevel=9, mtime=0) as out:
        out.write(archive.getvalue())
    return packed.getvalue()


def _members(files: Mapping[str, str]) -> Iterator[tuple[tarfile.TarInfo, bytes]]:
    # Helm wants to see Chart.yaml first
    order = sorted(files, key=lambda path: (path != "Chart.yaml", path))
    for path in (path for path in order if not path.startswith(_LEFT_OUT)):
        content = files[path].encode()
        member = tarfile.TarInfo(f"{_CHART}/{path}")
        member.size, member.mode, member.mtime = len(content), _MODE, 0
        yield member, content
