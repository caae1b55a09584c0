"""The only importer of libp2p and multiaddr (ADR-0007).

Always: `lean` has run before any module here imports libp2p, so that what we never use of it (QUIC,
websockets, mDNS, Kademlia, relays, certificates) is not loaded.
"""

from peerd.overlay import lean as lean
