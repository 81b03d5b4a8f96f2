"""Measure a piece of work: seconds that passed and the most memory that was held."""

from __future__ import annotations

import resource
import time
from dataclasses import dataclass, field
from pathlib import Path

COUNTERS = Path("/sys/class/powercap")


def joules() -> float | None:
    """What the processor's packages have drawn since some moment, by their own counters; None where they do not say.

    Reference: Linux, the power capping framework (intel-rapl, also on AMD).
    """
    try:
        found = [int(path.read_text("ascii")) for path in COUNTERS.glob("intel-rapl:?/energy_uj")]
    except (OSError, ValueError):
        return None
    return sum(found) / 1e6 if found else None


@dataclass
class Meter:
    """Seconds and peak resident bytes since `start`, on top of `spent_s` of earlier sittings."""

    spent_s: float = 0.0
    _begun: float = field(default_factory=time.perf_counter)

    @classmethod
    def start(cls, spent_s: float = 0.0) -> Meter:
        """Begin to measure; the kernel's high-water mark of memory is put back where the system allows it."""
        try:
            with Path("/proc/self/clear_refs").open("wb") as file:
                file.write(b"5")
        except OSError:
            pass  # then the peak is the whole process's, which is an upper bound
        return cls(spent_s)

    def seconds(self) -> float:
        return self.spent_s + time.perf_counter() - self._begun

    def peak_bytes(self) -> int:
        """The most memory the process held since `start`, in bytes."""
        try:
            status = Path("/proc/self/status").read_text("ascii", "replace")
            return next(int(ln.split()[1]) * 1024 for ln in status.splitlines() if ln.startswith("VmHWM"))
        except (OSError, StopIteration):
            return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
