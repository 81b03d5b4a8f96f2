"""Seconds go on over sittings; the peak sees memory that was held since the start."""

from __future__ import annotations

import time

from regraft.kit.meter import Meter


def test_seconds_add_up_over_sittings() -> None:
    meter = Meter.start(spent_s=100.0)
    before = meter.seconds()
    time.sleep(0.01)
    assert before >= 100.0 and before + 0.01 <= meter.seconds() < 160


def test_the_peak_remembers_what_was_given_back() -> None:
    meter = Meter.start()
    before = meter.peak_bytes()
    held = bytearray(b"1" * 300_000_000)
    del held
    assert meter.peak_bytes() >= max(before, 300_000_000)


def test_the_peak_is_known_without_proc(monkeypatch) -> None:  # type: ignore[no-untyped-def]
    from pathlib import Path

    def absent(*_: object, **__: object) -> str:
        raise FileNotFoundError

    monkeypatch.setattr(Path, "read_text", absent)
    monkeypatch.setattr(Path, "open", absent)
    assert Meter.start().peak_bytes() > 1_000_000
