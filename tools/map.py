"""Draw ARCHITECTURE.md's map from the first docstring line of every source file, and print sizes against targets.

python tools/map.py            rewrite the map between its two markers
python tools/map.py --check    print what differs and exit 1 when the map is out of date
python tools/map.py --sizes    print sizes against the targets; a breach is a question, not a failure
"""

from __future__ import annotations

import argparse
import ast
import difflib
import statistics
import sys
from collections.abc import Iterator
from pathlib import Path

from floors import EMBEDDED, FLOORS, SHELVES, TOP_FILES, room

ROOT = Path(__file__).resolve().parent.parent
SOURCE = ROOT / "src" / "regraft"
PAGE = ROOT / "ARCHITECTURE.md"
BEGIN, END = "<!-- map:begin -->", "<!-- map:end -->"

FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


def sentence(path: Path) -> str:
    """The first docstring line of a file, or what to do where there is none."""
    text = ast.get_docstring(ast.parse(path.read_text("utf-8"))) or "(no docstring yet)"
    return text.splitlines()[0]


def sources() -> list[Path]:
    """Every source file, as a path relative to the package's folder, sorted."""
    return sorted(path.relative_to(SOURCE) for path in SOURCE.rglob("*.py"))


def drawn() -> str:
    """The map: a heading for each floor, a line for each folder and file."""
    files = sources()
    lines: list[str] = []
    for floor in sorted(set(FLOORS.values())):
        here = [name for name, number in FLOORS.items() if number == floor]
        entries = [line for name in here for line in _entry(name, files)]
        if entries:
            lines += [f"**Floor {floor}**", "", *entries, ""]
    beside = [line for line in _entry(EMBEDDED, files)]
    unplaced = sorted({room(p.as_posix()) for p in files} - {*FLOORS, EMBEDDED})
    beside += [f"- `{name}`: has no floor in tools/floors.py" for name in unplaced]
    if beside:
        lines += ["**No floor**", "", *beside, ""]
    return "\n".join(lines).rstrip()


def _entry(name: str, files: list[Path]) -> Iterator[str]:
    """The lines of one entry of the floor table: a top file, or a folder with its files below it."""
    if name in TOP_FILES:
        path = Path(f"{name}.py")
        if path in files:
            yield f"- `{path}`: {sentence(SOURCE / path)}"
        return
    inside = [path for path in files if path.parts[0] == name and len(path.parts) > 1]
    if not inside:
        return
    init = Path(name, "__init__.py")
    about = f": {sentence(SOURCE / init)}" if init in inside else ""
    if name in SHELVES and not about.startswith(": Shelf"):
        about = f" (shelf){about}"
    yield f"- `{name}/`{about}"
    for path in inside:
        if path != init:
            yield f"  - `{path.relative_to(name).as_posix()}`: {sentence(SOURCE / path)}"


def redrawn(page: str) -> str:
    """The page with its map drawn anew.

    Raises: SystemExit: the page lacks one of the two markers.
    """
    if page.count(BEGIN) != 1 or page.count(END) != 1:
        raise SystemExit(f"{PAGE.name} must hold {BEGIN} and {END} once each")
    before, rest = page.split(BEGIN)
    after = rest.split(END)[1]
    return f"{before}{BEGIN}\n{drawn()}\n{END}{after}"


def difference() -> str:
    """How the map on the page differs from the sources, as a diff; empty when it is up to date."""
    page = PAGE.read_text("utf-8")
    return "".join(
        difflib.unified_diff(
            page.splitlines(keepends=True),
            redrawn(page).splitlines(keepends=True),
            fromfile=PAGE.name,
            tofile="as the sources say (run `make map`)",
        )
    )


# ---------------------------------------------------------------- sizes


def sizes() -> str:
    """A line for each size target: the value, the target, and the places that exceed it."""
    lines = {path.as_posix(): _count(SOURCE / path) for path in sources()}
    lengths, parameters = _functions()
    tests = {p.relative_to(ROOT).as_posix(): _count(p) for p in sorted((ROOT / "tests").rglob("*.py"))}
    rooms = [name for name in lines if room(name) not in (*SHELVES, EMBEDDED) and not name.endswith("__init__.py")]
    scored = [count for name, count in lines.items() if not name.endswith("__init__.py")] or [0]
    limits = {"waist.py": 300, "engine/fit.py": 200}
    source_lines, test_lines = sum(lines.values()), sum(tests.values())
    ordered = sorted(lengths.values()) or [0]
    report = [
        ("room files", len(rooms), 34, []),
        ("file median", round(statistics.median(scored)), 130, []),
        ("file", max(scored), 400, _above(lines, 400, limits)),
        ("strategy file", max([0, *_in(lines, "strategies")]), 60, _above(_shelf(lines, "strategies"), 60)),
        ("function median", round(statistics.median(ordered)), 10, []),
        ("function p95", ordered[int(0.95 * (len(ordered) - 1))], 45, []),
        ("function", ordered[-1], 80, _above(lengths, 80)),
        ("parameters", max([0, *parameters.values()]), 7, _above(parameters, 7)),
        ("folder depth", max(name.count("/") for name in lines) + 1 if lines else 0, 2, []),
        ("test lines for 100 source lines", round(100 * test_lines / max(source_lines, 1)), 150, []),
        ("test file", max([0, *tests.values()]), 500, _above(tests, 500)),
    ]
    text = [f"{len(lines)} source files, {source_lines} lines; {len(tests)} test files, {test_lines} lines"]
    for what, value, target, places in report:
        mark = "over" if value > target or places else "ok"
        text.append(f"{mark:5}{what:32}{value:6} (target {target})" + "".join(f"\n       {place}" for place in places))
    return "\n".join(text)


def _functions() -> tuple[dict[str, int], dict[str, int]]:
    """Lines (without the docstring) and parameters of every function, keyed by `file:line name`."""
    lengths, parameters = {}, {}
    for path in sources():
        for node in ast.walk(ast.parse((SOURCE / path).read_text("utf-8"))):
            if isinstance(node, FUNCTIONS):
                key = f"{path.as_posix()}:{node.lineno} {node.name}"
                lengths[key] = function_lines(node)
                if path.as_posix() != "api.py" and path.parts[0] != "cli":
                    parameters[key] = function_parameters(node)
    return lengths, parameters


def function_lines(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines of a function from `def` to its end, its docstring left out."""
    first = node.body[0]
    told = isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and isinstance(first.value.value, str)
    docstring = (first.end_lineno or first.lineno) - first.lineno + 1 if told else 0
    return (node.end_lineno or node.lineno) - node.lineno + 1 - docstring


def function_parameters(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Parameters of a function, `self` and `cls` left out."""
    named = [a.arg for a in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)]
    return len(named) - (named[:1] in (["self"], ["cls"])) + (node.args.vararg is not None)


def _count(path: Path) -> int:
    return len(path.read_text("utf-8").splitlines())


def _shelf(lines: dict[str, int], name: str) -> dict[str, int]:
    return {path: count for path, count in lines.items() if path.startswith(f"{name}/")}


def _in(lines: dict[str, int], name: str) -> list[int]:
    return list(_shelf(lines, name).values())


def _above(counts: dict[str, int], limit: int, limits: dict[str, int] | None = None) -> list[str]:
    own = limits or {}
    over = {name: count for name, count in counts.items() if count > own.get(name, limit)}
    return [f"{count:5} {name}" for name, count in sorted(over.items(), key=lambda item: -item[1])]


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--check", action="store_true", help="exit 1 with a diff when the map is out of date")
    parser.add_argument("--sizes", action="store_true", help="print sizes against their targets")
    flags = parser.parse_args()
    if flags.sizes:
        print(sizes())
        return 0
    if flags.check:
        diff = difference()
        print(diff or f"the map in {PAGE.name} is up to date")
        return 1 if diff else 0
    PAGE.write_text(redrawn(PAGE.read_text("utf-8")), "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
