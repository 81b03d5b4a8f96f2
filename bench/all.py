"""All benches, one after the other, each in a process of its own; what is measured is not measured again.

Run it again to go on: a bench keeps each comparison as it is made. With `--hours` no bench begins after so many.

    python bench/all.py [--quick] [--hours 1] [--only probe,heads]
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time

from results import HERE, ROOT

ENGINE = ("heads", "policy", "probe", "full", "growing", "taps", "suffix", "grid", "views", "rerun")
BENCHES = (*ENGINE, "many", "shots", "shots_pictures", "price", "budget", "oracle", "advice", "replay")
"""Files of this folder, the shortest first; advice and the replay are judged by the oracle."""


def main() -> int:
    parse = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parse.add_argument("--quick", action="store_true", help="a short look at each")
    parse.add_argument("--hours", type=float, default=0.0, help="begin none after so many; 0 for all")
    parse.add_argument("--only", default="", help=f"of {', '.join(BENCHES)}, with commas between them")
    given = parse.parse_args()
    chosen = [name for name in given.only.split(",") if name] or list(BENCHES)
    if wrong := [name for name in chosen if name not in BENCHES]:
        parse.error(f"no bench is called {', '.join(wrong)}: there are {', '.join(BENCHES)}")
    begun, failed, late = time.monotonic(), [], []
    environment = {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"} | os.environ
    for name in chosen:
        if given.hours and time.monotonic() - begun > 3600 * given.hours:
            late.append(name)
            continue
        print(f"== {name}", flush=True)
        command = [sys.executable, str(HERE / f"{name}.py"), *(["--quick"] if given.quick else [])]
        if subprocess.run(command, cwd=ROOT, env=environment, check=False).returncode:
            failed.append(name)
    if late:
        print(f"not begun: {', '.join(late)}; run it again")
    if failed:
        print(f"ended with an error: {', '.join(failed)}", file=sys.stderr)
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
