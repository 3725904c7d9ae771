"""Sample environments of the shape that a Ucotron server writes: for the demonstration, the tests and the benchmarks.

``vector`` holds ``nodes`` (metadata and a 384-dimensional embedding of little-endian f32) and ``hnsw_index`` (one large
value, rewritten whole); ``graph`` holds nine databases of nodes, edges and adjacency. Keys are little-endian u64.
"""

import json
import struct
from pathlib import Path
from random import Random

import lmdb

DIMENSIONS = 384
GRAPH_DATABASES = (
    b"nodes",
    b"edges",
    b"adj_out",
    b"adj_in",
    b"nodes_by_type",
    b"community_assign",
    b"community_members",
    b"agents",
    b"shares",
)
_TYPES = ("Entity", "Event", "Fact", "Skill")
_WORDS = [
    "ada",
    "backup",
    "berlin",
    "cache",
    "delta",
    "entropy",
    "fjord",
    "graph",
    "harbour",
    "index",
    "journal",
    "kernel",
    "lattice",
    "memory",
    "node",
    "oslo",
    "page",
    "query",
    "restore",
    "snapshot",
    "tree",
    "update",
    "vector",
    "writer",
    "zurich",
]
_EDGES_PER_NODE = 3
_BATCH = 5000

# The high byte of a little-endian f32: sign and upper exponent of values between about 0.008 and 0.5 in magnitude.
_HIGH_BYTES = bytes((0x3C, 0x3D, 0xBC, 0xBD)[value & 3] for value in range(256))


def write_sample(root: Path, nodes: int, *, seed: int = 1, map_size: int = 16 << 30) -> None:
    """Write ``root/vector`` and ``root/graph`` with ``nodes`` nodes, derived from ``seed``, of about 2.3 KB each.

    Called again with another seed on the same root it overwrites the nodes with the same ids.
    """
    random = Random(seed)  # noqa: S311 - sample data
    _write_vectors(root / "vector", nodes, random, map_size)
    _write_graph(root / "graph", nodes, random, map_size)


def _write_vectors(directory: Path, nodes: int, random: Random, map_size: int) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    with lmdb.open(str(directory), map_size=map_size, max_dbs=5, mode=0o600, sync=False) as environment:
        database = environment.open_db(b"nodes")
        index = environment.open_db(b"hnsw_index")
        for start in range(0, nodes, _BATCH):
            with environment.begin(write=True) as transaction:
                for node in range(start, min(start + _BATCH, nodes)):
                    transaction.put(_key(node), _node(node, random) + _embedding(random), db=database)
        with environment.begin(write=True) as transaction:
            transaction.put(b"index", random.randbytes(64 * nodes), db=index)
        environment.sync(True)


def _write_graph(directory: Path, nodes: int, random: Random, map_size: int) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    with lmdb.open(str(directory), map_size=map_size, max_dbs=9, mode=0o600, sync=False) as environment:
        databases = {name: environment.open_db(name) for name in GRAPH_DATABASES}
        for start in range(0, nodes, _BATCH):
            with environment.begin(write=True) as transaction:
                for node in range(start, min(start + _BATCH, nodes)):
                    _write_node(transaction, databases, node, nodes, random)
        environment.sync(True)


def _write_node(
    transaction: lmdb.Transaction, databases: dict[bytes, "lmdb._Database"], node: int, nodes: int, random: Random
) -> None:
    key = _key(node)
    neighbours = [random.randrange(nodes) for _ in range(_EDGES_PER_NODE)]
    packed = b"".join(_key(neighbour) for neighbour in neighbours)
    transaction.put(key, _node(node, random), db=databases[b"nodes"])
    transaction.put(key, packed, db=databases[b"adj_out"])
    transaction.put(key, packed[::-1], db=databases[b"adj_in"])
    transaction.put(key, _key(node % 32), db=databases[b"community_assign"])
    transaction.put(_key(node % 32) + key, b"", db=databases[b"community_members"])
    transaction.put(_TYPES[node % len(_TYPES)].encode() + key, b"", db=databases[b"nodes_by_type"])
    for neighbour in neighbours:
        weight = struct.pack("<f", random.random())
        transaction.put(key + _key(neighbour), weight + b"RELATES_TO", db=databases[b"edges"])


def _key(node: int) -> bytes:
    return struct.pack("<Q", node)


def _node(node: int, random: Random) -> bytes:
    text = " ".join(random.choices(_WORDS, k=24))
    return json.dumps(
        {"id": node, "type": _TYPES[node % len(_TYPES)], "content": text, "confidence": round(random.random(), 3)}
    ).encode()


def _embedding(random: Random) -> bytes:
    raw = bytearray(random.randbytes(4 * DIMENSIONS))
    raw[3::4] = raw[3::4].translate(_HIGH_BYTES)
    return bytes(raw)
