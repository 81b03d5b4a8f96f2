"""The checkout itself: no host, no path of one machine, nothing large, and a wheel with all it needs."""

from __future__ import annotations

import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LARGEST_BYTES = 3_000_000

# Written in pieces, so that this file does not hold what it looks for.
HOSTS = re.compile("py" + r"pi\.org|python" + r"hosted\.|registry" + r"\.npm|deb" + r"ian\.org")
MACHINE = re.compile(r"(?<![\w.~}])/(?:work|root|farm|opt|tmp|home/\w+|Users/\w+)/(?=[\w.])")
SOURCES_OF_PACKAGES = re.compile(r"://|index-url|find-links|^\s*-", re.MULTILINE)
PIN = re.compile(r"[a-z0-9][a-z0-9.-]*==[0-9][\w.]*( ; .+)?")


def tracked() -> list[str]:
    """Every file that git tracks or would take, relative to the root."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip("not a git checkout")
    return sorted(name for name in set(done.stdout.split("\0")) if name and (ROOT / name).is_file())


def violations(text: str, where: str) -> list[str]:
    """Hosts of registries and paths of one machine in a file, each as `file:line: reason`."""
    found = []
    for number, line in enumerate(text.splitlines(), 1):
        found += [f"{where}:{number}: names the host {match[0]}" for match in HOSTS.finditer(line)]
        found += [f"{where}:{number}: names a path of one machine: {match[0]}" for match in MACHINE.finditer(line)]
    return found


def test_no_hosts_and_no_machine_paths() -> None:
    found = []
    for where in tracked():
        data = (ROOT / where).read_bytes()
        if b"\0" not in data[:8192]:
            found += violations(data.decode("utf-8", "replace"), where)
    assert not found, "\n" + "\n".join(found)


@pytest.mark.parametrize("path", sorted((ROOT / "constraints").glob("*.txt")), ids=lambda path: path.name)
def test_constraints_are_plain_pins(path: Path) -> None:
    first, *rest = path.read_text("utf-8").splitlines()
    assert re.fullmatch(r"# uv pip compile .* fetches \d+ MB.*", first)
    assert [line for line in (first, *rest) if SOURCES_OF_PACKAGES.search(line)] == []
    assert [line for line in rest if not PIN.fullmatch(line)] == []


def test_the_light_lane_pins_no_build_of_torch() -> None:
    assert "torch==2.13.0" in (ROOT / "constraints" / "core.txt").read_text("utf-8").splitlines()


def test_nothing_large_is_tracked() -> None:
    sizes = {where: (ROOT / where).stat().st_size for where in tracked()}
    assert {where: size for where, size in sizes.items() if size > LARGEST_BYTES} == {}


def test_the_wheel_holds_the_whole_package(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, timeout=60)
    (wheel,) = tmp_path.glob("*.whl")
    inside = set(zipfile.ZipFile(wheel).namelist())
    package = {where.removeprefix("src/") for where in tracked() if where.startswith("src/regraft/")}
    assert package - inside == set()
    assert {name.split("/")[0] for name in inside - package} == {
        f"{wheel.name.removesuffix('-py3-none-any.whl')}.dist-info"
    }


BREACHES = [
    ("see https://" + "py" + "pi.org/simple", "names the host"),
    ("files.python" + "hosted.org", "names the host"),
    ("cd /wo" + "rk/main", "names a path of one machine"),
    ("'/tm" + "p/full/bin/python'", "names a path of one machine"),
    ("/ho" + "me/ada/data", "names a path of one machine"),
]


@pytest.mark.parametrize(("text", "reason"), BREACHES)
def test_a_breach_is_found(text: str, reason: str) -> None:
    (found,) = violations(f"x = 1\n{text}", "docs/guide.md")
    assert found.startswith("docs/guide.md:2: ")
    assert reason in found


@pytest.mark.parametrize(
    "text", ["../shared/data/ants_bees", "runs/work/x", "$HOME/work/x", "~/root/x", "a/tmp/b", "/proc/self"]
)
def test_relative_paths_pass(text: str) -> None:
    assert violations(text, "README.md") == []


@pytest.mark.parametrize("line", ["--index-url x", "a @ file:///x", "-e .", "  -r more.txt"])
def test_a_constraint_that_names_a_source_is_found(line: str) -> None:
    assert SOURCES_OF_PACKAGES.search(line)
    assert not PIN.fullmatch(line)
