"""No test reaches the network or the user's caches, and neither does a process that a test starts."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

FETCH = "import urllib.request; urllib.request.urlopen('http://example.org', timeout=5)"


@pytest.mark.parametrize("host", ["example.org", "192.0.2.1", "2001:db8::1"])
def test_other_machines_are_out_of_reach(host: str) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as sock, pytest.raises(RuntimeError, match="tests run without a network"):
        sock.connect((host, 80))
    with pytest.raises(RuntimeError, match="tests run without a network"):
        socket.getaddrinfo(host, 80)


def test_loopback_needs_its_fixture() -> None:
    with socket.socket() as sock, pytest.raises(RuntimeError, match="ask for the `loopback` fixture"):
        sock.bind(("127.0.0.1", 0))


@pytest.mark.usefixtures("loopback")
def test_loopback_works_with_its_fixture() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as client:
        accepted, _ = server.accept()
        with accepted:
            client.sendall(b"x")
            assert accepted.recv(1) == b"x"
    with socket.socket() as sock, pytest.raises(RuntimeError, match="tests run without a network"):
        sock.connect(("192.0.2.1", 80))


def test_pairs_of_sockets_work() -> None:
    left, right = socket.socketpair()
    with left, right:
        left.sendall(b"x")
        assert right.recv(1) == b"x"


def test_a_started_process_finds_no_network() -> None:
    done = subprocess.run([sys.executable, "-c", FETCH], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert "Connection refused" in done.stderr


def test_the_hub_is_offline_and_the_cache_is_the_tests_own(tmp_home: Path) -> None:
    assert os.environ["HF_HUB_OFFLINE"] == "1"
    assert os.environ["XDG_CACHE_HOME"] == str(tmp_home)
    assert list(tmp_home.iterdir()) == []
    assert Path.home() not in Path(os.environ["HF_HOME"]).parents
