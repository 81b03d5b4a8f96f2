"""Resolve constraints/*.txt anew, and measure what a fresh install of each fetches.

    .venv-dev/bin/python tools/lock.py

Each file holds plain `name==version ; marker` lines for every platform; its first line says how it was made. The
measurement downloads every wheel for this machine into a scratch folder (6 GB for the full lane).
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CONSTRAINTS = ROOT / "constraints"
COMPILE = "uv pip compile pyproject.toml --universal --no-header --no-annotate"

# The light lane pins the torch of which CPU builds are at hand; the pin names no build, so that any machine accepts it.
LIGHT_TORCH = "torch==2.13.0"

TORCH_FAMILY = ("torch-", "nvidia_", "cuda_", "triton-")


def resolve(flags: list[str], pins: str = "") -> str:
    """The constraint lines for every platform and Python; `flags` choose extras and groups, `pins` hold versions."""
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as held:
        held.write(pins)
        held.flush()
        command = [*COMPILE.split(), "--quiet", "--upgrade", *flags, "-c", held.name]
        command[0] = str(Path(sys.executable).parent / "uv")
        return subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout


def fetched(constraints: str, *, plain: bool) -> tuple[float, float]:
    """Megabytes (10^6 bytes) that pip fetches for this machine: torch with what it brings, and everything else.

    Args:
        constraints: Lines as they stand in the file.
        plain: Look at pip's default index only, as a machine does on which nothing was set up.
    """
    environment = dict(os.environ)
    if plain:
        environment["PIP_CONFIG_FILE"] = os.devnull
        environment.pop("PIP_FIND_LINKS", None)
    wanted = [line for line in constraints.splitlines() if line and not line.startswith("#")]
    with tempfile.TemporaryDirectory() as folder:
        lines = Path(folder) / "requirements.in"
        lines.write_text("\n".join(wanted))
        wheels = Path(folder) / "wheels"
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "-d", str(wheels), "-r", str(lines)]
        subprocess.run(command, check=True, env=environment)
        sizes = {wheel.name.lower(): wheel.stat().st_size / 1e6 for wheel in wheels.iterdir()}
    torch = sum(size for name, size in sizes.items() if name.startswith(TORCH_FAMILY))
    return torch, sum(sizes.values()) - torch


def write(name: str, how: str, cost: str, lines: str) -> None:
    """Write one constraints file, its first line saying how it was made and what it fetches."""
    where = f"linux x86_64, Python {sys.version_info.major}.{sys.version_info.minor}"
    (CONSTRAINTS / name).write_text(f"# {how}; a fresh install ({where}) fetches {cost}\n{lines}")


def main() -> None:
    core = resolve([], pins=LIGHT_TORCH)
    rest = fetched(core, plain=False)[1]
    cpu, cuda = fetched(LIGHT_TORCH, plain=False)[0], fetched(core, plain=True)[0]
    cost = (
        f"{rest:.0f} MB, and torch: {cpu:.0f} MB where pip finds a CPU build, {cuda:.0f} MB where it takes CUDA along"
    )
    write("core.txt", f"{COMPILE}, with {LIGHT_TORCH} held", cost, core)

    flags = ["--extra", "image", "--extra", "minilm", "--extra", "datasets", "--extra", "openvino", "--group", "dev"]
    full = resolve(flags)
    torch, rest = fetched(full, plain=True)
    write(
        "dev.txt", f"{COMPILE} {' '.join(flags)}", f"{torch + rest:.0f} MB ({torch:.0f} of them torch and CUDA)", full
    )


if __name__ == "__main__":
    main()
