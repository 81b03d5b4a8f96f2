"""Read the machine: threads, memory, processor, environment. The only place that looks at any of them."""

from __future__ import annotations

import importlib.metadata
import math
import os
import platform
import shutil
import time
from functools import cache
from pathlib import Path

from regraft.waist import Budget

QUIET = {
    "HF_HUB_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "TRANSFORMERS_VERBOSITY": "error",
    "DO_NOT_TRACK": "1",
}
MICRO_FLOPS = 2.5e9
CACHE_BYTES = 10_000_000_000


def quiet_libraries() -> None:
    """Keep the libraries below offline and silent, unless the user's environment says otherwise."""
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)


def child_environment() -> dict[str, str]:
    """The environment for a process of ours: the user's, kept offline and silent."""
    return {**QUIET, **os.environ}


def variables(prefix: str) -> dict[str, str]:
    """The environment variables whose names begin with `prefix`, by name."""
    return {name: value for name, value in sorted(os.environ.items()) if name.startswith(prefix)}


def choose(threads: int = 0, cache_folder: str = "", cache_size: str = "") -> None:
    """Settle threads, folder and size of the cache for this process and those that it starts; 0 and "" leave them."""
    chosen = {"THREADS": str(threads or ""), "CACHE": cache_folder, "CACHE_SIZE": cache_size}
    os.environ.update({f"REGRAFT_{name}": value for name, value in chosen.items() if value})


def begun() -> float:
    """When this process began, by `time.monotonic()`: a budget counts its imports too."""
    import psutil

    return time.monotonic() - (time.time() - psutil.Process().create_time())


def threads() -> int:
    """Threads to compute with: REGRAFT_THREADS, OMP_NUM_THREADS, or processors allowed by affinity and quota."""
    for name in ("REGRAFT_THREADS", "OMP_NUM_THREADS"):
        value = os.environ.get(name, "")
        if value.isascii() and value.isdigit() and int(value) > 0:
            return int(value)
    return processors()


def processors() -> int:
    """Processors allowed by affinity and quota."""
    allowed = len(os.sched_getaffinity(0)) if platform.system() == "Linux" else os.cpu_count() or 1
    return max(1, min(allowed, _quota()))


def spare() -> bool:
    """Whether a processor is free beside the threads that compute."""
    return threads() < processors()


def settle(count: int) -> None:
    """Give torch `count` threads, so that a resumed run computes as the first one did."""
    import torch

    if torch.get_num_threads() != count:
        torch.set_num_threads(count)


def memory_bytes() -> int:
    """Physical memory, or the control group's limit where that is smaller."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limit = _read("/sys/fs/cgroup/memory.max")
    return min(total, int(limit)) if limit.isdigit() else total


@cache
def processor() -> str:
    """The processor's name with the widest vector instructions that torch uses on it."""
    import torch

    lines = _read("/proc/cpuinfo").splitlines()
    name = next((ln.split(":", 1)[1].strip() for ln in lines if ln.startswith("model name")), platform.processor())
    return f"{name or platform.machine()} ({torch.backends.cpu.get_cpu_capability()})"


def versions() -> tuple[tuple[str, str], ...]:
    """Name and version of the libraries whose code decides bits or files."""
    wanted = ("regraft", "torch", "transformers", "timm", "torchvision", "tokenizers", "safetensors", "numpy", "pillow")
    found = [("python", platform.python_version())]
    for name in wanted:
        try:
            found.append((name, importlib.metadata.version(name)))
        except importlib.metadata.PackageNotFoundError:
            found.append((name, "absent"))
    return tuple(found)


def cache_folder() -> Path:
    """Where trunk activations are kept: REGRAFT_CACHE, else regraft/ in the user's cache folder."""
    if own := os.environ.get("REGRAFT_CACHE"):
        return Path(own)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "regraft"


def cache_bytes() -> int:
    """The most that the cache may keep: REGRAFT_CACHE_SIZE, such as 500MB, else 10 GB."""
    try:
        return Budget.parse(os.environ.get("REGRAFT_CACHE_SIZE", "")).bytes or CACHE_BYTES
    except ValueError:
        return CACHE_BYTES


def hub_folders() -> tuple[tuple[str, Path], ...]:
    """Where libraries keep models that they fetched: (library, folder), by the variables that the libraries read.

    `huggingface` is HF_HUB_CACHE, else hub/ in HF_HOME; `torch` is hub/checkpoints in TORCH_HOME; both else in the
    user's cache folder.
    """
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    face = Path(os.environ.get("HF_HUB_CACHE") or Path(os.environ.get("HF_HOME") or home / "huggingface", "hub"))
    torch = Path(os.environ.get("TORCH_HOME") or home / "torch", "hub", "checkpoints")
    return ("huggingface", face.expanduser()), ("torch", torch.expanduser())


def free_bytes(place: Path) -> int:
    """What the disk that `place` lies on, or would lie on, has free."""
    there = place.absolute()
    while not there.exists():
        there = there.parent
    return shutil.disk_usage(there).free


def micro_batch(flops: int, threads: int) -> int:
    """Rows in one trunk pass, a power of two up to 64: a rule in FLOPs per example, not a measurement.

    At least four rows a thread, up to four threads: more of them leave the processor's caches (with one thread 4 rows
    of MobileNetV2 were 1.16 times as fast as 8, of ResNet-50 1.08), fewer leave threads idle. Small ones also leave
    less to fill up where the last of a size are few.

    >>> micro_batch(600_000_000, 2), micro_batch(20_000_000, 2), micro_batch(4_000_000_000, 1)
    (8, 64, 4)
    """
    least = 4 * min(4, 1 << (threads - 1).bit_length())
    return max(least, 1 << min(6, max(0, round(math.log2(MICRO_FLOPS / max(flops, 1))))))


def compile_apart() -> None:
    """Keep what torch compiles in a folder of this user's alone, not in the one for temporary files."""
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(cache_folder() / "compiled"))


def bf16_gain() -> float:
    """How many times faster this processor is in bfloat16 than in float32: a GEMM and a convolution, the worse one.

    Takes some milliseconds where bfloat16 instructions exist and up to a second where they are emulated.
    """
    import torch

    def seconds(dtype: torch.dtype) -> tuple[float, float]:
        a, b = torch.ones(256, 384, dtype=dtype), torch.ones(384, 768, dtype=dtype)
        x, w = torch.ones(1, 32, 28, 28, dtype=dtype), torch.ones(32, 32, 3, 3, dtype=dtype)
        best = [math.inf, math.inf]
        for _ in range(3):
            start = time.perf_counter()
            torch.mm(a, b)
            middle = time.perf_counter()
            torch.nn.functional.conv2d(x, w)
            best = [min(best[0], middle - start), min(best[1], time.perf_counter() - middle)]
        return best[0], best[1]

    with torch.inference_mode():
        full, half = seconds(torch.float32), seconds(torch.bfloat16)
    return min(f / h for f, h in zip(full, half, strict=True))


def _quota() -> int:
    """Processors that the control group grants, rounded up; a large number where it sets no quota."""
    words = _read("/sys/fs/cgroup/cpu.max").split()
    if len(words) == 2 and words[0].isdigit() and words[1].isdigit():
        return max(1, math.ceil(int(words[0]) / int(words[1])))
    return 1 << 20


def _read(path: str) -> str:
    try:
        return Path(path).read_text("utf-8", "replace").strip()
    except OSError:
        return ""
