"""Bytes to bytes: measuring, zstd frames and age encryption, and their inverses; no I/O inside."""
