"""Measuring: the stream as it was, its size, and the hash that ``b3sum`` prints."""

import subprocess
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from archiver.buffers import Buffer
from archiver.stages.measure import Count, Meter, counted, measured

EMPTY = "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262"


@given(st.lists(st.binary(max_size=100)))
def test_passes_the_same_buffers_and_hashes_their_bytes(buffers: list[bytes]) -> None:
    meter, whole = Meter(), Meter()
    received: list[Buffer] = list(measured(buffers, meter))
    assert received == buffers
    whole.update(b"".join(buffers))
    assert (meter.size, meter.blake3) == (whole.size, whole.blake3)


def test_the_hash_is_that_of_b3sum() -> None:
    data = bytes(range(256)) * 5000
    meter = Meter()
    list(measured([data[:70_001], memoryview(data)[70_001:]], meter))
    printed = subprocess.run(["b3sum", "--no-names"], input=data, capture_output=True, check=True).stdout
    assert meter.blake3 == printed.decode().strip()
    assert Meter().blake3 == EMPTY


def test_counts_what_has_passed_when_the_stream_fails() -> None:
    def failing() -> Iterator[bytes]:
        yield b"abc"
        raise OSError("disk")

    meter = Meter()
    with pytest.raises(OSError, match="disk"):
        list(measured(failing(), meter))
    assert meter.size == 3


def test_closing_it_closes_the_stream_that_it_measures() -> None:
    closed = []

    def endless() -> Iterator[bytes]:
        try:
            while True:
                yield b"x"
        finally:
            closed.append(True)

    stream = measured(endless(), Meter())
    next(stream)
    stream.close()
    assert closed == [True]


@given(st.lists(st.binary(max_size=100)))
def test_counting_passes_the_same_buffers_and_tells_of_each(buffers: list[bytes]) -> None:
    count, heard = Count(), list[int]()
    assert list(counted(buffers, count, heard.append)) == buffers
    assert count.size == sum(heard) == sum(map(len, buffers))
