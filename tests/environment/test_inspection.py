"""What doctor is told of an environment."""

from pathlib import Path

import pytest

from archiver.environment.inspection import inspect
from archiver.environment.locks import inspect_lock
from archiver.errors import FormatError, NotFoundError
from tests.environment.live import heed_holder, make_environment, writer


def test_a_closed_environment(tmp_path: Path) -> None:
    make_environment(tmp_path)
    report = inspect(tmp_path)
    assert (report.method, report.refusal, report.lock.live) == ("cold", None, False)
    assert report.file_size == (report.last_page + 1) * report.page_size
    assert report.used_pages is not None
    assert report.idle_pages is not None
    assert report.idle_pages > 0
    assert report.used_pages + report.idle_pages == report.last_page + 1
    assert report.fullness == report.file_size / (1 << 28)


def test_a_live_one_is_left_as_it_was(tmp_path: Path) -> None:
    with writer(tmp_path) as live:
        report = inspect(tmp_path)
        assert (report.method, report.refusal, report.lock.holder) == ("locked", None, live.pid)
        assert inspect_lock(tmp_path).holder == live.pid


def test_one_that_cannot_be_read_safely_has_the_reason(tmp_path: Path) -> None:
    make_environment(tmp_path)
    with heed_holder(tmp_path) as live:
        report = inspect(tmp_path)
        assert (report.method, report.used_pages, report.idle_pages) == (None, None, None)
        assert (report.lock.version, report.lock.holder) == (2, live.pid)
        assert report.refusal is not None
        assert "lock format of heed" in report.refusal.message
        assert report.last_page > 2


def test_none_and_a_corrupt_one(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError):
        inspect(tmp_path)
    (tmp_path / "data.mdb").touch()
    with pytest.raises(FormatError):
        inspect(tmp_path)
