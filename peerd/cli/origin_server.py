"""`python -m peerd.cli.origin_server`: an HTTP origin to try peerd with, and every fault of one.

Always: it is ready when its one line of JSON is out; the same seed gives the same bytes everywhere.
It needs the standard library alone and is up before a daemon is. It is for tests and
demonstrations: no TLS, and whoever reaches its port is served.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import random
import sys
import tempfile
from collections.abc import Sequence
from urllib.parse import unquote

from peerd.cli.origin_serving import Content, Faults, OriginServer
from peerd.units import MIB, parse_size

CONTENT_PATH = "/content.bin"


class Folder:
    """Files below a folder; once `changed`, each under a new validator."""

    def __init__(self, root: str) -> None:
        self._root = os.path.realpath(root)
        self.changed = False

    def open(self, path: str) -> Content | None:
        name = os.path.realpath(os.path.join(self._root, unquote(path).lstrip("/")))
        if os.path.commonpath([name, self._root]) != self._root or not os.path.isfile(name):
            return None
        try:
            descriptor = os.open(name, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return None
        state = os.fstat(descriptor)
        word = "-changed" if self.changed else ""
        etag = f'"{state.st_ino:x}-{state.st_mtime_ns:x}-{state.st_size:x}{word}"'
        return Content(descriptor, state.st_size, etag)


class Made:
    """One file of pseudo-random bytes, and what it changes into. Their disk space goes with us."""

    def __init__(self, size_bytes: int, seed: int, *, changes: bool) -> None:
        self.changed = False
        self._size_bytes = size_bytes
        made = [_make(size_bytes, seed + step) for step in range(2 if changes else 1)]
        self._descriptors = [descriptor for descriptor, _ in made]
        self.digests = [digest for _, digest in made]

    def open(self, path: str) -> Content | None:
        if path != CONTENT_PATH:
            return None
        which = -1 if self.changed else 0
        descriptor, digest = self._descriptors[which], self.digests[which]
        return Content(os.dup(descriptor), self._size_bytes, f'"{digest}"')


def main(arguments: Sequence[str] | None = None) -> None:
    """Serves until it is killed."""
    options = _parser().parse_args(arguments)
    faults = Faults(**{name: getattr(options, name) for name in Faults.__dataclass_fields__})
    said: dict[str, object] = {}
    path = "/"
    library: Folder | Made
    if options.root is not None:
        library = Folder(options.root)
    else:
        library = Made(options.size, options.seed, changes=options.change_after is not None)
        path = CONTENT_PATH
        said = {"sha256": library.digests[0], "bytes": options.size}
        if options.change_after is not None:
            said["sha256_changed"] = library.digests[1]
    server = OriginServer(library, faults, options.host, options.port)
    said |= {"port": server.port, "url": f"http://{server.host}:{server.port}{path}"}
    sys.stdout.write(json.dumps(said) + "\n")
    sys.stdout.flush()
    with contextlib.suppress(KeyboardInterrupt):
        server.serve_forever()


def _make(size_bytes: int, seed: int) -> tuple[int, str]:
    """An unlinked file's descriptor, and the SHA-256 of what is in it."""
    source, digest = random.Random(seed), hashlib.sha256()
    with tempfile.TemporaryFile() as file:
        for start in range(0, size_bytes, MIB):
            block = source.randbytes(min(MIB, size_bytes - start))
            digest.update(block)
            file.write(block)
        file.flush()
        return os.dup(file.fileno()), digest.hexdigest()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m peerd.cli.origin_server",
        description=__doc__.partition("\n")[0] if __doc__ else None,
        epilog="Example: python -m peerd.cli.origin_server --size 64MiB --rate 10MiB --no-range",
    )
    add = parser.add_argument
    add("--host", default="127.0.0.1")
    add("--port", type=int, default=0, help="0: any free one; it is in the line of JSON")
    add("--root", help="serve this folder's files")
    add("--size", type=parse_size, default=64 * MIB, help=f"else one made file, {CONTENT_PATH}")
    add("--seed", type=int, default=1, help="of the made file's bytes")
    add("--no-range", action="store_true", help="answer every range with the whole content")
    add("--require-header", type=_header, metavar="'K: V'", help="401 without this header")
    add("--chunked", action="store_true", help="do not say the length")
    add("--no-validator", action="store_true", help="send no ETag")
    add("--rate", type=parse_size, help="bytes a second, of all connections together")
    add("--cut-after", type=parse_size, help="close each body after so many bytes")
    add("--cut-times", type=int, help="but no more often than this")
    add("--stall-after", type=parse_size, help="go silent in each body after so many bytes")
    add("--stall-times", type=int, help="but no more often than this")
    add("--status-first", type=_count_and_status, metavar="N:CODE", help="first N requests fail")
    add("--retry-after", help="the Retry-After of a 429 or 503")
    add("--change-after", type=parse_size, help="after so many bytes sent, another content")
    add("--connection-delay", type=float, default=0.0, help="seconds before each first answer")
    return parser


def _header(text: str) -> tuple[str, str]:
    name, colon, value = text.partition(":")
    if not colon:
        raise argparse.ArgumentTypeError(f"{text!r} is no header; write 'Name: value'")
    return name.strip().lower(), value.strip()


def _count_and_status(text: str) -> tuple[int, int]:
    try:
        count, _, status = text.partition(":")
        return int(count), int(status)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r}: write 3:503, say") from None


if __name__ == "__main__":
    main()
