"""What every test gets: no network, no user's cache, one thread, and `../shared` where it is there."""

from __future__ import annotations

import ipaddress
import os
import socket
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent
SHARED = ROOT.parent / "shared"
NO_SHARED = "there is no ../shared folder with data and models beside this checkout"

# Processes that tests start inherit these; a proxy that nobody listens at keeps them off the network too.
NOWHERE = "http://127.0.0.1:9"
ENVIRONMENT = {
    "HF_HUB_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "DO_NOT_TRACK": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "OMP_NUM_THREADS": "1",
    "HTTP_PROXY": NOWHERE,
    "HTTPS_PROXY": NOWHERE,
    "ALL_PROXY": NOWHERE,
    "NO_PROXY": "127.0.0.1,localhost,::1",
}


class NetworkBlocked(RuntimeError):
    """A test tried to reach the network. Not an OSError, so that no retry loop swallows it."""


class _Guard:
    """The socket functions that tests see: AF_UNIX passes, loopback when a test asked for it, the rest raises."""

    loopback = False
    methods = ("connect", "connect_ex", "bind", "sendto")

    def install(self) -> None:
        for name in self.methods:
            setattr(socket.socket, name, self.watched(name))
        self.resolve, socket.getaddrinfo = socket.getaddrinfo, self.looked_up

    def remove(self) -> None:
        for name in self.methods:
            delattr(socket.socket, name)
        socket.getaddrinfo = self.resolve

    def watched(self, name: str) -> Callable[..., Any]:
        original = getattr(socket.socket, name)

        def call(sock: socket.socket, *args: Any) -> Any:
            if sock.family != getattr(socket, "AF_UNIX", None):
                self.check(args[-1])
            return original(sock, *args)

        return call

    def looked_up(self, host: Any, *args: Any, **options: Any) -> Any:
        self.check((host,))
        return self.resolve(host, *args, **options)

    def check(self, address: Any) -> None:
        host = address[0] if isinstance(address, tuple) else address
        if not (self.loopback and is_loopback(host)):
            hint = "ask for the `loopback` fixture" if is_loopback(host) else "tests run without a network"
            raise NetworkBlocked(f"a test reached for {host!r}; {hint}")


def is_loopback(host: object) -> bool:
    """Whether a host is this machine alone."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(str(host)).is_loopback
    except ValueError:
        return False


GUARD = _Guard()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--regold", action="store_true", help="rewrite the numbers of tests/golden")


def pytest_configure(config: pytest.Config) -> None:
    os.environ.update(ENVIRONMENT)
    # Fixtures that outlive a test, and tests that never ask, stay out of the user's caches as well.
    cache = tempfile.TemporaryDirectory(prefix="regraft-tests-")
    config.add_cleanup(cache.cleanup)
    os.environ.update(XDG_CACHE_HOME=cache.name, HF_HOME=str(Path(cache.name) / "huggingface"))
    for name in [name for name in os.environ if name.startswith("REGRAFT_")]:
        del os.environ[name]
    GUARD.install()
    config.add_cleanup(GUARD.remove)

    from hypothesis import settings

    settings.register_profile("regraft", database=None, deadline=None, derandomize=True, print_blob=True)
    settings.load_profile("regraft")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "shared" in getattr(item, "fixturenames", ()):
            item.add_marker("shared")
        if item.get_closest_marker("shared") and not SHARED.is_dir():
            item.add_marker(pytest.mark.skip(reason=NO_SHARED))


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("image"):
        try:
            import timm  # noqa: F401
            import torchvision  # noqa: F401
        except Exception as error:  # a torchvision of another build raises RuntimeError, not ImportError
            pytest.skip(f"torchvision and timm do not work here: {error}")


@pytest.fixture
def shared() -> Path:
    """The folder ../shared with `data/` and `models/`; the test is skipped where it is absent."""
    if not SHARED.is_dir():
        pytest.skip(NO_SHARED)
    return SHARED


@pytest.fixture
def loopback() -> Iterator[None]:
    """Let this test talk to servers on this machine."""
    GUARD.loopback = True
    yield
    GUARD.loopback = False


@pytest.fixture(autouse=True)
def tmp_home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache folder of the test's own, so that no test reads what another one left."""
    home = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("XDG_CACHE_HOME", str(home))
    return home


@pytest.fixture(autouse=True)
def one_thread() -> None:
    """Whatever the test before did, one torch thread and one seed to start with (torch is not imported for it)."""
    if torch := sys.modules.get("torch"):
        torch.set_num_threads(1)
        torch.manual_seed(0)
