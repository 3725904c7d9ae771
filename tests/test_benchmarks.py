"""The harness of the benchmarks: its line, its accounts, its sources and what it writes. Nothing asserts a speed."""

import hashlib
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from xml.etree import ElementTree as Xml

import pytest

from benchmarks import document, results, sources
from benchmarks.document import DOCUMENT, filled
from benchmarks.link import Line, link
from benchmarks.link_check import seconds, send, sink
from benchmarks.measure import CommandError, measure, processor_seconds, tree
from benchmarks.plot import plot
from benchmarks.results import Measured, Phase, Result
from benchmarks.sources import Kind
from benchmarks.tables import report
from tests.servers.process import REPOSITORY
from tests.waiting import wait_until

MIB = 1024 * 1024
FAST = Line(rate=1e9, round_trip=0.0)


def has_ended(connection: socket.socket) -> bool:
    connection.settimeout(10)
    try:
        return connection.recv(1) == b""
    except ConnectionError:
        return True


@pytest.mark.parametrize("connections", [1, 4])
def test_all_connections_share_the_rate(connections: int) -> None:
    with sink() as server, link(server, Line(rate=8e6, round_trip=0.0)) as running:
        took = seconds(running.port, 4_000_000, connections)
    # Not the other way round: a busy machine may be slower than any line.
    assert 0.5 <= took < 5


def test_each_connection_and_each_answer_take_a_round_trip() -> None:
    with sink() as server, link(server, Line(rate=1e9, round_trip=0.1)) as running:
        assert 0.2 <= seconds(running.port, 1, 1) < 2


def test_every_byte_arrives_in_both_directions_and_is_counted() -> None:
    data = random.Random(1).randbytes(3 * MIB + 1)
    with socket.create_server(("127.0.0.1", 0)) as listener, link(listener.getsockname()[1], FAST) as running:

        def echo() -> None:
            with listener.accept()[0] as connection:
                while piece := connection.recv(MIB):
                    connection.sendall(piece)

        server = threading.Thread(target=echo)
        server.start()
        with socket.create_connection(("127.0.0.1", running.port)) as connection:

            def give() -> None:
                connection.sendall(data)
                connection.shutdown(socket.SHUT_WR)

            sender = threading.Thread(target=give)
            sender.start()
            received = b"".join(iter(lambda: connection.recv(MIB), b""))
            sender.join()
        server.join()
        traffic = running.traffic()
    assert hashlib.sha256(received).digest() == hashlib.sha256(data).digest()
    assert (traffic.sent, traffic.received) == (len(data), len(data))


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_PUT(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.do_GET()

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(3 * MIB))
        self.end_headers()
        self.wfile.write(bytes(3 * MIB))

    def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002
        pass


@pytest.fixture
def http_server() -> Iterator[int]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = False
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


def test_requests_are_counted_by_method_and_bodies_are_not(http_server: int) -> None:
    with link(http_server, FAST) as running:
        client = HTTPConnection("127.0.0.1", running.port)
        for _ in range(3):
            client.request("GET", "/key")
            client.getresponse().read()
        before = running.traffic()
        client.putrequest("PUT", "/key")
        client.putheader("Content-Length", "9")
        client.endheaders()
        time.sleep(0.1)
        client.send(b"DELETE /x")
        client.getresponse().read()
        client.close()
        assert before.requests == {"GET": 3}
        assert running.traffic().requests == {"GET": 3, "PUT": 1}
        assert (running.traffic() - before).requests == {"PUT": 1}


def test_the_end_of_a_line_ends_its_connections() -> None:
    before = threading.active_count()
    with sink() as server:
        with link(server, FAST) as running:
            connection = socket.create_connection(("127.0.0.1", running.port))
            connection.sendall(b"!")
            send(running.port, 10)
        with connection:
            assert has_ended(connection)
    assert threading.active_count() == before


def test_a_server_that_is_not_there_ends_the_connection() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with link(port, FAST) as running, socket.create_connection(("127.0.0.1", running.port)) as connection:
        assert has_ended(connection)


def python(program: str) -> list[str]:
    return [sys.executable, "-c", program]


def test_the_whole_tree_is_accounted_for(tmp_path: Path) -> None:
    child = "import time\nkept = bytearray(b'x' * 60_000_000)\nwhile time.process_time() < 0.5: pass\ntime.sleep(0.5)"
    # Started by another thread than the first.
    parent = (
        "import subprocess, sys, threading\n"
        f"thread = threading.Thread(target=lambda: subprocess.run([sys.executable, '-c', {child!r}], check=True))\n"
        "thread.start(); thread.join()"
    )
    run = measure(python(parent), cwd=tmp_path)
    assert run.peak > 60_000_000
    assert run.cpu >= 0.5
    assert run.wall >= 0.5


def test_a_command_that_fails_is_an_error_with_its_words(tmp_path: Path) -> None:
    with pytest.raises(CommandError, match=r"ended with 3:\nno such bucket"):
        measure(["bash", "-c", "echo no such bucket >&2; exit 3"], cwd=tmp_path)


def test_nothing_of_an_interrupted_command_is_left(tmp_path: Path) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.5)
        with pytest.raises(KeyboardInterrupt):
            measure(["bash", "-c", "sleep 1000 & echo $! > child; wait"], cwd=tmp_path)
    finally:
        signal.signal(signal.SIGALRM, before)
    assert not Path(f"/proc/{int((tmp_path / 'child').read_text())}/exe").exists()


def test_processor_time_is_read_of_a_name_with_spaces(tmp_path: Path) -> None:
    program = shutil.copy(shutil.which("sleep") or "", tmp_path / "a ) b")
    with subprocess.Popen([program, "1000"]) as process:
        assert tree(process.pid) == [process.pid]
        assert 0 <= processor_seconds(process.pid) < 1
        process.kill()


@pytest.mark.parametrize("kind", ["environment", "files", "media"])
def test_sources_change_and_what_is_not_restored_is_found(tmp_path: Path, kind: Kind) -> None:
    source, copy = tmp_path / "source", tmp_path / "copy"
    scale = {"environment": 0.0005, "files": 0.01, "media": 0.0001}[kind]
    sources.make(kind, source, scale)
    assert sources.size(source) > 100_000
    sources.warm(source)
    shutil.copytree(source, copy)
    sources.compare(kind, source, copy)
    for turn in (1, 2):
        sources.change(kind, source, turn)
        with pytest.raises(ValueError, match="copy"):
            sources.compare(kind, source, copy)
        shutil.rmtree(copy)
        shutil.copytree(source, copy)
        sources.compare(kind, source, copy)


def test_one_percent_of_the_files_changes_and_some_are_new(tmp_path: Path) -> None:
    sources.make("files", tmp_path, 0.02)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*.bin")}
    sources.change("files", tmp_path, 1)
    after = {path: path.read_bytes() for path in tmp_path.rglob("*.bin")}
    assert (len(before), len(after)) == (400, 402)
    assert sum(after[path] != content for path, content in before.items()) == 4


def measured(contender: str, phase: Phase, wall: float, *, sent: int = 0) -> Measured:
    return Measured(contender, phase, wall, 2 * wall, 1.0, 100 * MIB, 3_000_000_000, sent, sent // 100, sent // 10**7)


def example() -> dict[str, Result]:
    versions = {"archiver": "archiver 1"}
    local = [
        measured(name, phase, wall)
        for phase in results.ALL_PHASES
        for name, wall in (("archiver", 10.0), ("archiver", 30.0), ("archiver", 20.0), ("slow", 100.0))
    ]
    line = [measured("archiver", "first", 50.0, sent=1_000_000_000)]
    return {
        "environment": Result("environment", 4_300_000_000, 3, None, local, "2026-11-29", "a machine", versions),
        "line-files": Result("files", 27_000_000, 1, Line(25e6, 0.04), line, "2026-11-29", "a machine", versions),
    }


def test_results_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "new" / "results.json"
    assert results.read(path) == {}
    results.write(path, example())
    assert results.read(path) == example()


def test_tables_show_medians_ratios_and_how_full_the_line_was() -> None:
    text = report(example())
    assert text.count("Machine: a machine.") == 1
    assert "### An environment of 4.3 GB\n\n`environment`, 2026-11-29, medians of 3 runs." in text
    assert "| restore | archiver | 20.00 | 1.00 | 40.0 | 1.0 | 100 | 3,000 |" in text
    assert "| restore | slow | 100.00 | 5.00 |" in text
    assert "### Small files, 27 MB, over 200 Mbit/s and 40 ms" in text
    assert "| first backup | archiver | 50.00 | 1.00 | 1,000.0 | 10.0 | 100 | 80% | 3,000 |" in text
    columns = {line.count("|") for line in text.splitlines() if line.startswith("|")}
    assert columns == {9, 10}


def test_figures_of_another_machine_stand_apart() -> None:
    one, other = example().items()
    text = report({one[0]: one[1], other[0]: replace(other[1], machine="another")})
    assert text.index("Machine: a machine.") < text.index("Another run: another.")


def test_the_plot_is_an_svg_with_a_bar_for_each() -> None:
    root = Xml.fromstring(plot(example()))  # noqa: S314 - written here
    name = "{http://www.w3.org/2000/svg}"
    bars = [element for element in root.iter(f"{name}rect") if element.get("x")]
    assert len(bars) == 7
    texts = [element.text for element in root.iter(f"{name}text")]
    assert texts.count("5.00 → (100.0 s)") == 3
    _, _, width, height = map(float, root.get("viewBox", "").split())
    assert all(float(bar.get("x", "")) + float(bar.get("width", "")) <= width for bar in bars)
    assert all(float(bar.get("y", "")) <= height for bar in bars)


def test_the_document_has_room_for_the_tables() -> None:
    text = filled(DOCUMENT.read_text(), "@one@")
    assert filled(text, "@two@").replace("@two@", "@one@") == text
    with pytest.raises(ValueError, match="lacks one of the marks"):
        filled("# Benchmarks", "tables")


def test_what_was_measured_goes_into_the_document(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copy = Path(shutil.copy(DOCUMENT, tmp_path))
    monkeypatch.setattr(document, "DOCUMENT", copy)
    for _ in range(2):
        document.write_document(example())
    assert copy.read_text().count(report(example())) == 1
    assert "(benchmarks.svg)" in copy.read_text()
    assert (tmp_path / "benchmarks.svg").read_text() == plot(example())
    assert results.read(tmp_path / "benchmarks.json") == example()


def bench(directory: Path, *arguments: str) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "benchmarks", "--results", str(directory / "results.json"), *arguments]
    return subprocess.Popen(
        command,
        cwd=REPOSITORY,
        env={**os.environ, "BENCH_DIR": str(directory)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.slow
def test_a_small_run_from_one_end_to_the_other(tmp_path: Path) -> None:
    chosen = ("--contenders", "archiver", "pipeline", "--only", "line-environment", "--scale", "0.01")
    with bench(tmp_path, *chosen) as process:
        printed, said = process.communicate()
    assert process.returncode == 0, said
    assert "| restore | pipeline |" in printed
    [result] = results.read(tmp_path / "results.json").values()
    assert {one.contender for one in result.measured if one.requests} == {"archiver", "pipeline"}
    assert [path.name for path in tmp_path.iterdir()] == ["results.json"]


@pytest.mark.slow
@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_nothing_is_left_of_a_run_that_is_ended(tmp_path: Path, number: signal.Signals, status: int) -> None:
    with bench(tmp_path, "--contenders", "pipeline", "--only", "files") as process:
        wait_until(lambda: list(tmp_path.glob("bench-*/work-*/output.log")))
        started = tree(process.pid)[1:]
        process.send_signal(number)
        process.communicate()
    assert process.returncode == status
    assert started
    assert not [pid for pid in started if Path(f"/proc/{pid}/exe").exists()]
    assert list(tmp_path.iterdir()) == []
