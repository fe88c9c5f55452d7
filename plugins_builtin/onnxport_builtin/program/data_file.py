"""Files of weights that stay open, so that what is read belongs to what was opened, whatever takes the name later."""

from __future__ import annotations

import errno
import os
import stat
import threading
import weakref
from collections.abc import Iterable, Iterator

from onnxport import FileError, MissingFileError

OPEN_AT_ONCE = 128
"""Files of one model that are held open; further ones are opened at each read, and must be the same file then."""

_WHY = {
    errno.ENOENT: "there is no such file. Check the path; external data lies beside the model",
    errno.ENOTDIR: "a part of the path is a file, not a folder. Check the path",
    errno.EACCES: "there is no permission to read it. Change its permissions",
    errno.EPERM: "there is no permission to read it. Change its permissions",
    errno.ELOOP: "its links lead around in a circle. Copy the file that is meant",
    errno.ENAMETOOLONG: "the name is too long. Check the path",
    errno.EMFILE: "the process has too many files open. Raise the limit (ulimit -n)",
    errno.EIO: "the disk can't read it. Copy the file from another place",
}


def cannot_read(path: str, error: OSError, what: str = "") -> FileError:
    """The error for a file that the system doesn't open or read."""
    reason = _WHY.get(error.errno or 0, f"{error.strerror or error}. Check the file")
    kind = MissingFileError if isinstance(error, FileNotFoundError) else FileError
    return kind(f"{what or 'The file'} {path!r} can't be read: {reason}.", path=path)


def absolute(path: str | os.PathLike[str]) -> str:
    """The absolute form of a path.

    Raises:
        MissingFileError: it is relative to a working directory that was removed.
    """
    try:
        return os.path.abspath(path)
    except FileNotFoundError as error:
        raise MissingFileError(
            f"{os.fspath(path)!r} is relative to the working directory, which was removed. Give an absolute path.",
            path=os.fspath(path),
        ) from error


def open_regular(path: str, what: str = "") -> int:
    """Open a regular file for reading; its descriptor. A pipe or a device would wait, or never end.

    Raises:
        FileError: it can't be opened, or is no regular file; a MissingFileError where nothing is there.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    except OSError as error:
        raise cannot_read(path, error, what) from error
    if stat.S_ISREG(os.fstat(descriptor).st_mode):
        return descriptor
    folder = stat.S_ISDIR(os.fstat(descriptor).st_mode)
    os.close(descriptor)
    kind = "is a folder. Give the path of a file in it" if folder else "is no regular file. Copy it to one"
    raise FileError(f"{what or 'The file'} {path!r} {kind}.", path=path)


class DataFile:
    """A file of weights, open for reading.

    Args:
        path: absolute, and resolved.
        keep: whether it stays open; otherwise it is opened at each read.

    Attributes:
        path: as given.
        size: in bytes, when it was opened.

    Raises:
        FileError: it can't be opened.
    """

    __slots__ = ("__weakref__", "_descriptor", "_identity", "_lock", "path", "size")

    def __init__(self, path: str, *, keep: bool = True) -> None:
        self.path = path
        descriptor = open_regular(path, "The data file")
        self._identity = _identity(descriptor)
        self.size = os.fstat(descriptor).st_size
        self._lock = threading.Lock()
        self._descriptor: int | None = descriptor
        if keep:
            weakref.finalize(self, os.close, descriptor)
        else:
            os.close(descriptor)
            self._descriptor = None

    @property
    def links(self) -> int:
        """The number of names (hard links) of the file."""
        return os.stat(self._descriptor if self._descriptor is not None else self.path).st_nlink

    def read_into(self, view: memoryview, offset: int) -> None:
        """Fill a view with the bytes from an offset on.

        Raises:
            FileError: the file ended before, can't be read, or is another one than was opened.
        """
        if self._descriptor is not None:
            self._fill(self._descriptor, view, offset)
            return
        descriptor = open_regular(self.path, "The data file")
        try:
            if _identity(descriptor) != self._identity:
                raise FileError(f"{self.path!r} was replaced since it was loaded. Load it again.", path=self.path)
            self._fill(descriptor, view, offset)
        finally:
            os.close(descriptor)

    def chunks(self, offset: int, length: int, limit: int) -> Iterator[memoryview]:
        """Yield bytes piece by piece, each of at most ``limit``, and valid until the next one is asked for."""
        buffer = memoryview(bytearray(min(limit, length)))
        for start in range(0, length, limit):
            piece = buffer[: min(limit, length - start)]
            self.read_into(piece, offset + start)
            yield piece

    def _fill(self, descriptor: int, view: memoryview, offset: int) -> None:
        while view.nbytes:
            try:
                count = self._read(descriptor, view, offset)
            except OSError as error:
                raise cannot_read(self.path, error, "The data file") from error
            if not count:
                raise FileError(f"{self.path!r} ended before its data: it was cut short. Get it again.", path=self.path)
            view, offset = view[count:], offset + count

    def _read(self, descriptor: int, view: memoryview, offset: int) -> int:
        if hasattr(os, "preadv"):
            return os.preadv(descriptor, [view], offset)
        with self._lock:  # the position belongs to the descriptor
            os.lseek(descriptor, offset, os.SEEK_SET)
            data = os.read(descriptor, view.nbytes)
        view[: len(data)] = data
        return len(data)


def open_all(paths: Iterable[str]) -> dict[str, DataFile]:
    """Open files, by their paths; no more than a process may have open are kept so.

    Raises:
        FileError: one can't be opened.
    """
    listed = list(dict.fromkeys(paths))
    return {path: DataFile(path, keep=i < OPEN_AT_ONCE) for i, path in enumerate(listed)}


def _identity(descriptor: int) -> tuple[int, ...]:
    found = os.fstat(descriptor)
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


def folder_of(path: str) -> list[str]:
    """The folders that the data of a file may lie in, resolved: the one it is named in, and the one it really is in.

    Caches of downloads have a link for each file of a model, all of them to one folder.
    """
    path = os.path.abspath(path)
    folders = [os.path.realpath(os.path.dirname(path)), os.path.dirname(os.path.realpath(path))]
    return list(dict.fromkeys(folders))


def inside(folder: str, roots: Iterable[str], location: str, what: str) -> str:
    """The resolved path of a file that another one names, which has to lie in one of some folders.

    Args:
        folder: what the location is relative to.
        roots: resolved folders; the file has to be below one of them.
        location: as the other file says.
        what: names what is said to be there, for the message.

    Raises:
        FileError: it is an absolute path, or leads out of the folders, by ``..`` or by a link.
    """
    problem = ""
    if not location or "\0" in location:
        problem = "names no file"
    elif os.path.isabs(location) or os.path.splitdrive(location)[0] or location.startswith(("/", "\\")):
        problem = "is an absolute path"
    else:
        resolved = os.path.realpath(os.path.join(folder, location))
        if any(_is_below(resolved, root) for root in roots):
            return resolved
        problem = "lies outside of its folder"
    raise FileError(
        f"{what} names {location!r}, which {problem}. Nothing is read from there. If you trust it, copy the data into "
        "the folder, and name them by their path in it.",
        path=location,
    )


def _is_below(path: str, root: str) -> bool:
    try:
        return os.path.commonpath([path, root]) == root and path != root
    except ValueError:  # on another drive
        return False
