"""Loads of libp2p what we use, and keeps out what we do not.

`import libp2p` pulls in every transport and discovery it has: 1,350 modules, 54 MB and about a
second. Of that a TCP, Noise, yamux and gossipsub host runs less than half. So the package's
`__init__` is not executed, and the parts named in UNUSED stand as empty modules while ours load.

Always: outside `load` the interpreter is as it was: the finder is gone, and no third-party name
resolves to a stand-in.
"""

from __future__ import annotations

import importlib
import importlib.machinery
import sys
from collections.abc import Sequence
from types import ModuleType

UNUSED = (
    "aioquic",
    "dns",
    "miniupnpc",
    "prometheus_client",
    "requests",
    "zeroconf",
    "libp2p.bitswap",
    "libp2p.discovery",
    "libp2p.kad_dht",
    "libp2p.relay",
    "libp2p.security.tls",
    "libp2p.transport.quic",
    "libp2p.transport.websocket",
)
"""Measured with it: 0.3 s and 20 MB instead of 0.7–1.1 s and 54 MB (Python 3.11, 2 cores)."""

USED = (
    "libp2p.transport",
    "libp2p.host.basic_host",
    "libp2p.network.swarm",
    "libp2p.network.connection.swarm_connection",
    "libp2p.security.noise.transport",
    "libp2p.stream_muxer.yamux.yamux",
    "libp2p.pubsub.gossipsub",
    "libp2p.pubsub.pubsub",
    "libp2p.utils.connection_shutdown",
    "libp2p.identity.identify_push.identify_push",
)
"""In this order: libp2p.abc and libp2p.transport import each other, and only this way round works.
The last two are imported by libp2p inside functions, when stand-ins are gone again."""


class _StandIn(ModuleType):
    """A module whose every name is an empty class: enough for imports and annotations."""

    __path__: list[str] = []  # noqa: RUF012 -- read by the import system, never written

    def __getattr__(self, name: str) -> type:
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (Exception,) if name.endswith("Error") else (), {})


class _Finder:
    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if any(name == unused or name.startswith(unused + ".") for unused in UNUSED):
            return importlib.machinery.ModuleSpec(name, self, is_package=True)  # type: ignore[arg-type]
        return None

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType:
        return _StandIn(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        """A stand-in has nothing to execute."""


def load() -> None:
    """Imports USED, once. Does nothing where the whole of libp2p is there already."""
    if "libp2p" in sys.modules:
        return
    spec = importlib.machinery.PathFinder.find_spec("libp2p")
    if spec is None or spec.submodule_search_locations is None:
        raise ModuleNotFoundError("libp2p is not installed; peerd needs libp2p 0.8.1")
    package = ModuleType("libp2p")
    package.__spec__, package.__path__ = spec, list(spec.submodule_search_locations)
    package.__file__ = spec.origin
    sys.modules["libp2p"] = package
    finder = _Finder()
    sys.meta_path.insert(0, finder)
    try:
        for name in USED:
            importlib.import_module(name)
    finally:
        sys.meta_path.remove(finder)
        for name in [name for name, module in sys.modules.items() if type(module) is _StandIn]:
            if not name.startswith("libp2p."):
                del sys.modules[name]


load()
