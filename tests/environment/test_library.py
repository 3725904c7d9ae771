"""How the lmdb wheel is opened, and what its exceptions become."""

import os
from pathlib import Path

import lmdb
import pytest

from archiver.environment.library import open_reading, translated
from archiver.errors import ArchiverError, FormatError, SourceError
from tests.environment.live import make_environment


def test_the_map_is_as_large_as_the_writers(tmp_path: Path) -> None:
    make_environment(tmp_path)
    with open_reading(tmp_path, databases=0) as environment:
        assert environment.info()["map_size"] == 1 << 28
        assert environment.flags()["readonly"]


def test_a_data_file_without_its_directory(tmp_path: Path) -> None:
    make_environment(tmp_path)
    (tmp_path / "data.mdb").rename(tmp_path / "copy")
    (tmp_path / "lock.mdb").unlink()
    with open_reading(tmp_path / "copy", databases=0) as environment:
        assert environment.stat()["entries"] > 0
    assert os.listdir(tmp_path) == ["copy"]


def test_only_the_engine_of_lmdb_0_9_is_used(tmp_path: Path) -> None:
    with lmdb.open(str(tmp_path), lib_version=1):
        pass
    with pytest.raises(FormatError, match="is corrupt"):
        open_reading(tmp_path, databases=0)


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (lmdb.IncompatibleError("x"), SourceError),
        (lmdb.DbsFullError("x"), SourceError),
        (lmdb.CorruptedError("x"), FormatError),
        (lmdb.PageNotFoundError("x"), FormatError),
        (lmdb.InvalidError("x"), FormatError),
        (lmdb.DiskError("x"), SourceError),
        (lmdb.Error("x"), SourceError),
    ],
)
def test_every_error_becomes_one_of_ours_and_names_the_environment(
    error: lmdb.Error, kind: type[ArchiverError]
) -> None:
    with pytest.raises(ArchiverError, match="/data/vector") as raised, translated(Path("/data/vector")):
        raise error
    assert type(raised.value) is kind
    assert raised.value.__cause__ is error
