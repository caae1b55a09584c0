"""peerd: peer-to-peer distribution of container images, AI models and large files."""

__version__ = "0.1.0"
