"""House rules that a reader cannot keep in mind: no tunnels, no code from data, one writer, short functions.

A rule is a function from a file's tree to its breaches. `ALLOWED` lists the places that may break one, each with the
reason; a breach anywhere else names its file and line.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from floors import lives_in
from map import FUNCTIONS, function_lines, function_parameters

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "src" / "regraft"
FILES = sorted(path.relative_to(SOURCE).as_posix() for path in SOURCE.rglob("*.py"))

Found = Iterator[tuple[int, str]]

ALLOWED: dict[str, dict[str, str]] = {
    "tunnel": {
        "backbone/patching.py": "its wrappers pass on what a model's forward takes",
        "cli/knobs.py": "one wrapper passes on the knobs of the strategies that a command line names",
    },
    "mode": {
        "engine/freeze.py": "the one room that says what trains",
        "embedded/make.py": "a script that trains a model of its own",
    },
    "flags": {"backbone/stages.py": "tracing turns gradients on for one pass and puts every flag back"},
    "first eval": {
        "backbone": "a backbone is handed over in eval mode",
        "providers": "a backbone is handed over in eval mode",
    },
    "load": {"backbone/tensors.py": "opens state dicts, with weights_only=True written out in the call"},
    "write": {
        "kit/durable.py": "the one writer",
        "kit/meter.py": "resets a counter of the kernel under /proc: no disk",
        "embedded/make.py": "a script that writes what the package ships",
    },
    "save_pretrained": {
        "deliver/pack.py": "the native library writes into a staging folder that kit/durable.py seals and renames",
        "providers": "the same, for the layout of the library that the provider speaks for",
        "embedded/make.py": "a script that writes what the package ships",
    },
    "parameters": {
        "api.py": "the verbs' options",
        "cli": "the verbs' options",
        "backbone/view.py": "what a provider says of a backbone, by keyword alone",
    },
}

LINES, PARAMETERS = 80, 7
LONGER = {"engine/fit.py": ("fit", 200), "cli/adapt.py": ("adapt", 130), "cli/advise.py": ("advise", 120)}
"""The training loop is one generator that reads from top to bottom; the commands' options are most of their lines."""

BANNED_NAMES = ("utils", "util", "helpers", "helper", "common", "base", "manager", "handler", "misc")


def violations(source: str, where: str) -> list[str]:
    """What breaks a rule in the file `where` (relative to src/regraft), each as `file:line: reason`."""
    tree = ast.parse(source)
    found = {breach for rule in RULES for breach in rule(tree, where)}
    return [f"{where}:{line}: {reason}" for line, reason in sorted(found)]


def may(rule: str, where: str) -> bool:
    """Whether `where` may break `rule`."""
    return lives_in(where, tuple(ALLOWED[rule]))


def calls(tree: ast.AST) -> Iterator[tuple[ast.Call, str]]:
    """Every call with the dotted name of what is called; `?` stands for anything that is no plain name."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield node, dotted(node.func)


def dotted(node: ast.expr) -> str:
    """`os.path.join` for an attribute chain on a name, `?.write_text` for one on anything else."""
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else "?"


def taken(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Every imported name, dotted: `import a.b` and `from a import b` both give `a.b`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield from ((node.lineno, f"{node.module}.{alias.name}") for alias in node.names)


# ---------------------------------------------------------------- tunnels, probes


def tunnels(tree: ast.AST, where: str) -> Found:
    for node in ast.walk(tree):
        if isinstance(node, (*FUNCTIONS, ast.Lambda)) and node.args.kwarg and not may("tunnel", where):
            yield node.lineno, f"takes **{node.args.kwarg.arg}: name the options, or pass a record"


def probes(tree: ast.AST, where: str) -> Found:
    for node, name in calls(tree):
        if name == "hasattr":
            yield node.lineno, "hasattr: state the contract in a Protocol or a record"


# ---------------------------------------------------------------- code from data

UNSAFE_MODULES = ("pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "marshal", "shelve")
UNSAFE_CALLS = (
    *("eval", "exec", "compile", "os.system", "os.popen", "torch.load", "torch.jit.load", "torch.hub.load"),
    *("yaml.load", "yaml.load_all", "yaml.full_load", "yaml.unsafe_load", "pd.read_pickle", "pandas.read_pickle"),
)
UNSAFE_OPTIONS = {"shell": True, "allow_pickle": True, "trust_remote_code": True, "weights_only": False}


def unsafe(tree: ast.AST, where: str) -> Found:
    for line, name in taken(tree):
        if name.split(".")[0] in UNSAFE_MODULES or name in UNSAFE_CALLS:
            yield line, f"takes {name}: data must never run as code"
    for node, name in calls(tree):
        if name == "torch.load" and may("load", where) and careful(node):
            continue
        if name in UNSAFE_CALLS or name.endswith((".to_pickle", ".extractall")):
            yield node.lineno, f"calls {name}: data must never run as code"
        for option in node.keywords:
            harmless = option.arg not in UNSAFE_OPTIONS or (
                isinstance(option.value, ast.Constant) and option.value.value is not UNSAFE_OPTIONS[option.arg]
            )
            if not harmless:
                yield node.lineno, f"gives {option.arg}={ast.unparse(option.value)}: data must never run as code"


def careful(call: ast.Call) -> bool:
    """Whether a call says weights_only=True in so many words."""
    return any(
        option.arg == "weights_only" and isinstance(option.value, ast.Constant) and option.value.value is True
        for option in call.keywords
    )


# ---------------------------------------------------------------- what trains


def modes(tree: ast.AST, where: str) -> Found:
    if may("mode", where):
        return
    for node, name in calls(tree):
        word = name.rpartition(".")[2]
        if "." not in name or word not in ("train", "eval", "requires_grad_"):
            continue
        if not (word == "eval" and not node.args and may("first eval", where)):
            yield node.lineno, f"calls {name}(): what trains is set in engine/freeze.py alone"
    for node in ast.walk(tree):
        if isinstance(node, (ast.Assign, ast.AnnAssign, ast.AugAssign)):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            for target in targets:
                flagged = isinstance(target, ast.Attribute) and target.attr in ("requires_grad", "training")
                if flagged and not may("flags", where):
                    yield node.lineno, f"sets {dotted(target)}: what trains is set in engine/freeze.py alone"


# ---------------------------------------------------------------- one writer

WRITING_CALLS = (
    *("os.rename", "os.renames", "os.replace", "os.link", "os.symlink", "os.truncate", "os.write", "os.fdopen"),
    *("shutil.move", "shutil.copy", "shutil.copy2", "shutil.copyfile", "shutil.copytree", "shutil.make_archive"),
    *("torch.save", "safetensors.torch.save_file", "safetensors.numpy.save_file", "onnx.save", "torch.export.save"),
    *("np.save", "np.savez", "np.savez_compressed", "np.savetxt", "numpy.save", "numpy.savez", "numpy.savetxt"),
    *("open_memmap", "np.lib.format.open_memmap", "save_file", "save_model", "zipfile.ZipFile.write"),
)
WRITING_METHODS = (
    "write_text",
    "write_bytes",
    "symlink_to",
    "hardlink_to",
    "touch",
    "tofile",
    "write_table",
    "save_file",
)
WRITING_TABLES = ("to_csv", "to_json", "to_parquet", "to_feather", "to_excel", "to_html")
MOVING_METHODS = ("rename", "replace")
MODE = re.compile(r"[rwaxbtU+]{1,4}")
WRITING_FLAGS = ("O_WRONLY", "O_RDWR", "O_CREAT", "O_APPEND", "O_TRUNC")


def writers(tree: ast.AST, where: str) -> Found:
    if not may("save_pretrained", where):
        for node, name in calls(tree):
            if name.endswith(".save_pretrained"):
                yield node.lineno, f"calls {name}: only {', '.join(ALLOWED['save_pretrained'])} may"
    if may("write", where):
        return
    for line, name in taken(tree):
        if name in WRITING_CALLS:
            yield line, f"takes {name}: persistent bytes go through kit/durable.py"
    for node, name in calls(tree):
        if writes(node, name):
            yield node.lineno, f"writes with {name}: persistent bytes go through kit/durable.py"


def writes(node: ast.Call, name: str) -> bool:
    """Whether a call puts bytes, or a name, on the disk."""
    method = name.rpartition(".")[2] if "." in name else ""
    if name in WRITING_CALLS or method in WRITING_METHODS:
        return True
    if method in WRITING_TABLES:
        return bool(node.args) or any(option.arg in ("path", "path_or_buf", "buf") for option in node.keywords)
    if method in MOVING_METHODS:  # Path.replace(target); text.replace(old, new) and records take more, or keywords
        return len(node.args) == 1 and not node.keywords and not name.startswith("dataclasses.")
    if name == "os.open":
        return any(flag in ast.unparse(node) for flag in WRITING_FLAGS)
    if name == "open" or method in ("open", "memmap"):
        return opens_to_write(node, builtin=name in ("open", "io.open", "gzip.open", "bz2.open", "lzma.open"))
    return False


def opens_to_write(node: ast.Call, *, builtin: bool) -> bool:
    """Whether an `open` has a mode that writes; a mode that is no literal counts as one."""
    given = {option.arg: option.value for option in node.keywords}
    at_place = node.args[1:2] if builtin else node.args[:3]
    for value in [*at_place, *([given["mode"]] if "mode" in given else [])]:
        if isinstance(value, ast.Constant):
            text = value.value
            if isinstance(text, str) and MODE.fullmatch(text) and set(text) & set("wax+"):
                return True
        elif builtin or value is given.get("mode"):
            return True
    return False


# ---------------------------------------------------------------- sizes, names, docstrings


def lengths(tree: ast.AST, where: str) -> Found:
    for node in ast.walk(tree):
        if not isinstance(node, FUNCTIONS):
            continue
        name, longer = LONGER.get(where, ("", LINES))
        limit = longer if node.name == name else LINES
        if (n := function_lines(node)) > limit:
            yield node.lineno, f"{node.name} has {n} lines without its docstring, of {limit} at most"
        if (n := function_parameters(node)) > PARAMETERS and not may("parameters", where):
            yield node.lineno, f"{node.name} has {n} parameters, of {PARAMETERS} at most: pass a record"


def docstring(tree: ast.Module, where: str) -> Found:
    lines = (ast.get_docstring(tree) or "").splitlines() or [""]
    if not re.fullmatch(r"\S.* .*[.!?]", lines[0]):
        yield 1, f"the docstring's first line is no sentence: {lines[0]!r}"


def naming(tree: ast.AST, where: str) -> Found:
    for part in Path(where).parts:
        if set(part.removesuffix(".py").split("_")) & set(BANNED_NAMES):
            yield 1, f"{part} says nothing of what is in it"


RULES: tuple[Callable[[ast.Module, str], Found], ...] = (
    tunnels,
    probes,
    unsafe,
    modes,
    writers,
    lengths,
    docstring,
    naming,
)


@pytest.mark.parametrize("where", FILES)
def test_house_rules(where: str) -> None:
    found = violations((SOURCE / where).read_text("utf-8"), where)
    assert not found, "\n" + "\n".join(found)


@pytest.mark.parametrize("folder", ["src", "tests", "tools", "bench"])
def test_names_say_what_is_inside(folder: str) -> None:
    files = [path.relative_to(ROOT).as_posix() for path in (ROOT / folder).rglob("*.py")]
    assert [f"{where}: {reason}" for where in files for _, reason in naming(ast.Module([], []), where)] == []


# ---------------------------------------------------------------- the rules themselves

LONG = "def fit():\n" + "    x = 1\n" * 80
WIDE = "def f(self, a, b, c, d, e, f, *, g, h): ..."

BREACHES = [
    ("kit/store.py", "def f(**options): ...", "takes **options"),
    ("kit/store.py", "f = lambda **k: k", "takes **k"),
    ("kit/store.py", "hasattr(x, 'y')", "hasattr"),
    ("kit/store.py", "import pickle", "takes pickle"),
    ("kit/store.py", "from joblib import dump", "takes joblib.dump"),
    ("kit/store.py", "eval('1')", "calls eval"),
    ("kit/store.py", "torch.load(path)", "calls torch.load"),
    ("kit/store.py", "torch.load(path, weights_only=True)", "calls torch.load"),
    ("backbone/tensors.py", "torch.load(path)", "calls torch.load"),
    ("kit/store.py", "from yaml import load", "takes yaml.load"),
    ("kit/store.py", "yaml.load(text, yaml.SafeLoader)", "calls yaml.load"),
    ("kit/store.py", "subprocess.run('ls', shell=True)", "gives shell=True"),
    ("kit/store.py", "subprocess.run('ls', shell=flag)", "gives shell=flag"),
    ("kit/store.py", "load(name, trust_remote_code=True)", "gives trust_remote_code=True"),
    ("kit/store.py", "archive.extractall(place)", "calls archive.extractall"),
    ("engine/fit.py", "model.train()", "calls model.train()"),
    ("engine/fit.py", "self.body.module.eval()", "calls self.body.module.eval()"),
    ("backbone/view.py", "model.train(False)", "calls model.train()"),
    ("engine/fit.py", "p.requires_grad_(False)", "calls p.requires_grad_()"),
    ("engine/fit.py", "p.requires_grad = True", "sets p.requires_grad"),
    ("engine/fit.py", "model.training = False", "sets model.training"),
    ("engine/cache.py", "open(path, 'wb')", "writes with open"),
    ("engine/cache.py", "open(path, mode)", "writes with open"),
    ("engine/cache.py", "path.open(mode='a')", "writes with path.open"),
    ("engine/cache.py", "(place / 'x').open('r+b')", "writes with ?.open"),
    ("engine/cache.py", "np.memmap(path, dtype, 'w+')", "writes with np.memmap"),
    ("engine/cache.py", "np.memmap(path, mode='r+')", "writes with np.memmap"),
    ("engine/cache.py", "os.open(path, os.O_CREAT | os.O_WRONLY)", "writes with os.open"),
    ("engine/cache.py", "Path(a).write_text('x')", "writes with ?.write_text"),
    ("engine/cache.py", "path.replace(target)", "writes with path.replace"),
    ("engine/cache.py", "path.rename(target)", "writes with path.rename"),
    ("engine/cache.py", "os.replace(a, b)", "writes with os.replace"),
    ("engine/cache.py", "from shutil import move", "takes shutil.move"),
    ("engine/cache.py", "from safetensors.torch import save_file", "takes safetensors.torch.save_file"),
    ("engine/cache.py", "torch.save(x, path)", "writes with torch.save"),
    ("cli/predict.py", "frame.to_csv(path)", "writes with frame.to_csv"),
    ("deliver/pack.py", "path.write_bytes(b'')", "writes with path.write_bytes"),
    ("deliver/report.py", "model.save_pretrained(place)", "calls model.save_pretrained"),
    ("engine/freeze.py", LONG, "fit has 81 lines without its docstring, of 80 at most"),
    ("engine/fit.py", "def step():\n" + "    x = 1\n" * 80, "step has 81 lines"),
    ("kit/store.py", WIDE, "f has 8 parameters"),
    ("kit/utils.py", "", "utils.py says nothing"),
    ("kit/run_manager.py", "", "run_manager.py says nothing"),
]


@pytest.mark.parametrize(("where", "source", "reason"), BREACHES)
def test_a_breach_is_found(where: str, source: str, reason: str) -> None:
    found = violations('"""A file of a test."""\n' + source, where)
    assert len(found) == 1
    assert reason in found[0]
    assert re.match(rf"{re.escape(where)}:\d+: ", found[0])


@pytest.mark.parametrize("source", ["", "x = 1", '"""Word."""', '"""No full stop"""', '"""A line that goes\non."""'])
def test_a_docstring_that_is_no_sentence_is_found(source: str) -> None:
    (found,) = violations(source, "kit/store.py")
    assert found.startswith("kit/store.py:1: the docstring's first line is no sentence: ")


LAWFUL = [
    ("backbone/patching.py", "def f(*a, **k): ...\nmodel.eval()"),
    ("backbone/stages.py", "p.requires_grad = True"),
    ("backbone/tensors.py", "torch.load(path, map_location='cpu', weights_only=True)"),
    ("providers/timm.py", "body = load(name).eval()"),
    ("engine/freeze.py", "m.train(True); m.eval(); p.requires_grad_(False); p.requires_grad = True"),
    ("engine/fit.py", LONG),
    ("engine/fit.py", 'def f():\n    """Long.\n' + "\n" * 90 + '    """'),
    ("engine/fit.py", "if p.requires_grad and not model.training: train(p)"),
    ("api.py", WIDE),
    ("kit/durable.py", "path.open('wb'); os.replace(a, b); path.write_text('x')"),
    ("deliver/pack.py", "model.save_pretrained(place)"),
    ("embedded/make.py", "model.train(); save_file(x, path); model.save_pretrained(place)"),
    ("data/read.py", "open(path); open(path, 'rb'); path.open(); path.open('rb'); Image.open(path)"),
    ("data/read.py", "text.replace('a', 'b'); replace(plan, seed=1); dataclasses.replace(plan, seed=1)"),
    ("data/read.py", "np.memmap(path, dtype, mode='r'); np.memmap(path, np.float32, 'r')"),
    (
        "data/read.py",
        "load(name, trust_remote_code=False); yaml.safe_load(text); frame.to_csv(); frame.to_csv(index=False)",
    ),
    ("data/read.py", "frame.rename(columns=names); os.open(place, os.O_RDONLY)"),
]


@pytest.mark.parametrize(("where", "source"), LAWFUL)
def test_what_the_rules_allow_passes(where: str, source: str) -> None:
    assert violations('"""A file of a test."""\n' + source, where) == []
