"""Files take their names when they are whole, and a model never stands beside the data of another save.

A model's first save calls its data `<model>.data`. The name stays as long as the same bytes would take it. Where the
model that is there refers to data already, a save with other data gives these a name of their own,
`<model>.<digest>.data`, and only the model itself is replaced, by one rename. So whoever reads the model, in whatever
moment, finds the data that belong to it, or none. The old data are removed then.

Savers of one folder take turns with the renames (`flock` on the folder). What a killed one leaves is removed by the
next: temporary files whose lock nobody holds, and data that no model of the folder names.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import stat
from collections.abc import Iterator, Sequence
from typing import Any

try:
    import fcntl
except ImportError:  # a system without: nothing is locked, and nothing left behind is removed
    fcntl = None  # type: ignore[assignment]

_DIGEST_BYTES = 8
_PIECE = 256 * 1024


class Temporary:
    """A file beside the place that it will take, gone after ``stack`` unless it took it. A raw, unbuffered file.

    Args:
        stack: removes and closes it.
        folder: where it is made.
        name: of the model; the temporary's begins with it.
        private: whether nobody else may read it until it has its name: another's permissions will be given to it.
    """

    def __init__(self, stack: contextlib.ExitStack, folder: str, name: str, *, private: bool) -> None:
        while True:
            self.path = os.path.join(folder, f".{name[:100]}.{os.urandom(8).hex()}.tmp")
            stack.callback(remove, self.path)
            flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
            descriptor = os.open(self.path, flags, 0o600 if private else 0o666)
            self.file = stack.enter_context(os.fdopen(descriptor, "r+b", buffering=0))
            if _lock_at_once(descriptor) is not False and os.fstat(descriptor).st_nlink:
                return  # else a saver that was tidying up took it for an abandoned one

    def sync(self) -> None:
        """Put it on the disk before it takes a name, so that a power cut, too, leaves the old file or the new one."""
        sync(self.file.fileno())

    def digest(self) -> bytes:
        """A digest of the content."""
        found = hashlib.blake2b(digest_size=_DIGEST_BYTES)
        self.file.seek(0)
        while piece := self.file.read(_PIECE):
            found.update(piece)
        return found.digest()

    def holds(self, path: str) -> bool:
        """Whether another file has the same content."""
        with contextlib.suppress(OSError), open(path, "rb", buffering=0) as other:
            if os.fstat(other.fileno()).st_size != os.fstat(self.file.fileno()).st_size:
                return False
            self.file.seek(0)
            while piece := self.file.read(_PIECE):
                if other.read(len(piece)) != piece:
                    return False
            return True
        return False

    def take(self, target: str, like: str | None) -> None:
        """Take a name, with the permissions of another file, and where possible its owner and group."""
        if like is not None:
            with contextlib.suppress(FileNotFoundError):
                self._resemble(os.stat(like))
        if fcntl is None:
            self.file.close()  # Windows renames no open file
        os.replace(self.path, target)

    def _resemble(self, other: os.stat_result) -> None:
        descriptor = self.file.fileno()
        own = os.fstat(descriptor)
        if hasattr(os, "fchown") and (own.st_uid, own.st_gid) != (other.st_uid, other.st_gid):
            for owner in (other.st_uid, -1):  # the owner is changed by root alone, the group by its members
                with contextlib.suppress(OSError):
                    os.fchown(descriptor, owner, other.st_gid)
                    break
        if hasattr(os, "fchmod"):
            with contextlib.suppress(PermissionError):
                os.fchmod(descriptor, stat.S_IMODE(other.st_mode))


class Place:
    """The place of a model and its data, while nobody else saves there. Use :func:`locked`.

    Args:
        path: of the model, absolute. Data lie in this folder, and the model where its links lead.
        target: of the model, resolved.
        alone: whether others are kept from saving.
    """

    def __init__(self, path: str, target: str, alone: bool) -> None:
        self._folder, self._name = os.path.split(path)
        self._target, self._alone = target, alone
        plain, digest = rf"{re.escape(self._name)}", rf"\.[0-9a-f]{{{2 * _DIGEST_BYTES}}}"
        self._own = re.compile(rf"{plain}({digest})?\.data(_\d+)?")
        self._data: list[str] = []
        with contextlib.suppress(PermissionError):  # a folder that can be written but not listed
            self._data = sorted(name for name in os.listdir(self._folder) if self._own.fullmatch(name))
        self._named = names_in(target, [*self._data, f"{self._name}.data"])
        """Data files that the model that is there refers to."""
        self._same: set[str] = set()
        """Data files that are there and hold what would take their place."""

    def locations(self, written: Sequence[Temporary]) -> list[str]:
        """The names that data files get: one for each, in their order."""
        plain = [f"{self._name}.data{f'_{i}' if i else ''}" for i in range(len(written))]
        if not self._named:
            if not self._needed_elsewhere(plain):
                return plain
        elif set(plain) <= self._named and self._hold(written, plain):
            return plain
        digest = hashlib.blake2b(b"".join(file.digest() for file in written), digest_size=_DIGEST_BYTES).hexdigest()
        listed = [f"{self._name}.{digest}.data{f'_{i}' if i else ''}" for i in range(len(written))]
        self._hold(written, listed)
        return listed

    def _hold(self, written: Sequence[Temporary], names: Sequence[str]) -> bool:
        """Whether the data files of these names hold what was written; if so, they are added to ``_same``."""
        pairs = zip(written, names)
        same = {name for file, name in pairs if name in self._data and file.holds(os.path.join(self._folder, name))}
        if len(same) < len(set(names)):
            return False
        self._same = same
        return True

    def put(self, written: Sequence[Temporary], locations: Sequence[str], model: Temporary) -> None:
        """Give the data files their names, then the model its own, and remove what it replaces."""
        placed: list[str] = []
        old = next((os.path.join(self._folder, name) for name in self._data if name in self._named), None)
        like = old if old is not None else self._target if os.path.exists(self._target) else None
        try:
            for file, location in zip(written, locations):
                target = os.path.join(self._folder, location)
                if location in self._same:
                    continue
                if location not in self._named:
                    placed.append(target)
                file.take(target, like)
            if placed:
                sync_folder(self._folder)
            model.take(self._target, self._target)
        except BaseException:
            if os.path.exists(model.path):
                for target in placed:
                    remove(target)
            raise
        sync_folder(os.path.dirname(self._target))
        self._tidy(set(locations))

    def _tidy(self, kept: set[str]) -> None:
        """Remove the data of the replaced model, and what a killed save left, unless another model names it."""
        unused = [name for name in self._data if name not in kept]
        if not any(self._has_digest(name) for name in self._named):
            unused = [name for name in unused if name in self._named or self._has_digest(name)]
        if not self._alone:  # data may have their name already while their model, of another saver, hasn't
            unused = [name for name in unused if name in self._named]
        for name in set(unused) - self._needed_elsewhere(unused) - names_in(self._target, unused):
            remove(os.path.join(self._folder, name))

    def _has_digest(self, name: str) -> bool:
        """The name is one that nothing else gives; where it is in use, the plain one belongs to older data."""
        match = self._own.fullmatch(name)
        return match is not None and match[1] is not None

    def _needed_elsewhere(self, names: Sequence[str]) -> set[str]:
        """The data files among these that another model of the folder refers to."""
        present = [name for name in names if name in self._data]
        if not present:
            return set()
        others = [entry.path for entry in os.scandir(self._folder) if entry.name.endswith(".onnx")]
        return {name for path in others if os.path.realpath(path) != self._target for name in names_in(path, present)}


@contextlib.contextmanager
def locked(path: str, target: str) -> Iterator[Place]:
    """The place of a model; other saves to its folder wait."""
    with contextlib.ExitStack() as stack:
        alone = False
        with contextlib.suppress(OSError):  # a folder that can't be read, or a file system without locks
            handle = os.open(os.path.dirname(target), os.O_RDONLY)
            stack.callback(os.close, handle)
            if fcntl is not None:
                fcntl.flock(handle, fcntl.LOCK_EX)
                alone = True
        yield Place(path, target, alone)


def names_in(path: str, names: Sequence[str]) -> set[str]:
    """Find the names that occur in a file's bytes; none where there is no such file."""
    missing = {os.fsencode(name): name for name in names}
    overlap, found, tail = max(map(len, missing), default=0), set(), b""
    with contextlib.suppress(OSError), open(path, "rb", buffering=0) as file:
        while missing and (piece := file.read(_PIECE)):
            tail += piece
            found |= {missing.pop(name) for name in list(missing) if name in tail}
            tail = tail[-overlap:]
    return found


def remove_abandoned(folder: str, name: str) -> None:
    """Remove the temporary files that killed saves of a model left in a folder."""
    if fcntl is None:
        return
    pattern = re.compile(rf"\.{re.escape(name[:100])}(\.data(_\d+)?)?\.[0-9a-f]{{16}}\.tmp")
    with contextlib.suppress(OSError):  # a folder that can be written but not listed
        for found in os.listdir(folder):
            if pattern.fullmatch(found):
                path = os.path.join(folder, found)
                with contextlib.suppress(OSError):
                    descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW)
                    try:
                        if _lock_at_once(descriptor):
                            os.unlink(path)
                    finally:
                        os.close(descriptor)


def remove(path: str) -> None:
    """Remove a file, if it is there and can be."""
    with contextlib.suppress(OSError):
        os.unlink(path)


def sync_folder(folder: str) -> None:
    """Put the names of a folder on the disk."""
    if fcntl is None:  # Windows opens no folder
        return
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except PermissionError:  # a folder that can be written but not read
        return
    try:
        sync(descriptor)
    finally:
        os.close(descriptor)


def sync(descriptor: int) -> None:
    """Put a file on the disk, where the file system can be asked to."""
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.ENOSYS):  # a file system that has no such thing
            raise


def _lock_at_once(descriptor: int) -> Any:
    """True if a file is locked now, False if another holds it, None where there are no locks."""
    if fcntl is None:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True
