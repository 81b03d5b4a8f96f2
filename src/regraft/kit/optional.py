"""Look at packages that may be absent or broken, before a library trips over them."""

from __future__ import annotations

import importlib
import sys
from functools import cache

REPORTS = {"openvino": "openvino_telemetry"}
"""A package that tells its makers of every import, and the package that it does so through where that is there."""


@cache
def trouble(name: str) -> str:
    """Why a package does not import though it is there, in a sentence with its cure; "" if it works or is absent.

    A torchvision of another build than torch raises RuntimeError at import and takes whatever imports it along. A
    broken package is hidden from all that is imported later, which then does without it as if it were absent.

    What a package REPORTS through is hidden too. OpenVINO's own switch would write to the user's home and report that.
    """
    if name in REPORTS:
        sys.modules.setdefault(REPORTS[name], None)  # type: ignore[arg-type]
    try:
        importlib.import_module(name)
    except ImportError as error:
        if error.name == name:
            return ""
        reason = str(error)
    except Exception as error:  # whatever a half-matching binary raises
        reason = str(error)
    else:
        return ""
    sys.modules[name] = None  # type: ignore[assignment]
    first = reason.strip().splitlines()[0] if reason.strip() else "no reason given"
    return (
        f"{name} is broken here ({first[:120]}) and done without; "
        f"reinstall it from where torch comes from, or uninstall it"
    )
