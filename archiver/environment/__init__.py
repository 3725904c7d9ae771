"""Everything that knows LMDB: locks, snapshots, copies, inspection and verification."""
