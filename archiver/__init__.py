"""Consistent, encrypted, restorable backups of LMDB environments and the media files beside them."""

__version__ = "0.1.0"
