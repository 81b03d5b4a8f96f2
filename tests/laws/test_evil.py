"""Files of weights that were made to do harm: none is run, none takes memory, each is refused; sound ones open."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from regraft.backbone import tensors
from regraft.errors import ModelError, UsageError

CALLS = {
    "os.system": "touch {}",
    "posix.system": "touch {}",
    "os.popen": "touch {}",
    "os.mkdir": "{}",
    "posix.mkdir": "{}",
    "os.makedirs": "{}",
    "subprocess.getoutput": "touch {}",
    "subprocess.check_output": ["touch", "{}"],
    "subprocess.call": ["touch", "{}"],
    "subprocess.Popen": ["touch", "{}"],
    "builtins.eval": "open({!r}, 'w')",
    "__builtin__.eval": "open({!r}, 'w')",
    "builtins.exec": "open({!r}, 'w')",
    "builtins.open": ["{}", "w"],
    "io.open": ["{}", "w"],
    "_io.FileIO": ["{}", "w"],
    "pathlib.Path.touch": "{}",
    "pty.spawn": ["touch", "{}"],
    "platform.popen": "touch {}",
    "commands.getoutput": "touch {}",
    "asyncio.create_subprocess_shell": "touch {}",
    "timeit.timeit": "open({!r}, 'w')",
    "cProfile.run": "open({!r}, 'w')",
    "pdb.run": "open({!r}, 'w')",
    "code.interact": "x",
    "runpy.run_path": "{}",
    "importlib.import_module": "antigravity",
    "builtins.__import__": "antigravity",
    "distutils.spawn.spawn": ["touch", "{}"],
    "distutils.file_util.write_file": ["{}", "x"],
    "shutil.rmtree": "/nowhere/at/all",
    "logging.FileHandler": "{}",
    "torch.load": "{}",
    "torch.hub.load": "{}",
    "torch.serialization.load": "{}",
    "torch._dynamo.guards.GuardBuilder.get": "open({!r}, 'w')",
    "torch.utils.collect_env.run": "touch {}",
    "torch.utils._config_module.load_config": "x",
    "numpy.testing._private.utils.runstring": ["open({!r}, 'w')", "{}"],
    "marshal.loads": "x",
    "types.FunctionType": "x",
    "operator.attrgetter": "system",
    "functools.partial": "x",
    "webbrowser.open": "file:///{}",
    "socket.create_connection": "127.0.0.1",
}
"""What pickles of the wild call, and with what; `{}` is the file that would tell that it was done."""


def text(value: str) -> bytes:
    data = value.encode()
    return b"X" + struct.pack("<I", len(data)) + data


def argument(given: str | list[str], trace: Path) -> bytes:
    """The tuple of arguments as opcodes."""
    if isinstance(given, str):
        return text(given.format(str(trace))) + b"\x85"
    return b"(" + b"".join(text(one.format(str(trace))) for one in given) + b"l\x85"


def by_global(name: str, args: bytes) -> bytes:
    module, _, attribute = name.rpartition(".")
    return f"c{module}\n{attribute}\n".encode() + args + b"R"


def by_stack(name: str, args: bytes) -> bytes:
    module, _, attribute = name.rpartition(".")
    return text(module) + text(attribute) + b"\x93" + args + b"R"


def by_instance(name: str, args: bytes) -> bytes:
    module, _, attribute = name.rpartition(".")
    return b"(" + args + f"i{module}\n{attribute}\n".encode()


def by_new(name: str, args: bytes) -> bytes:
    module, _, attribute = name.rpartition(".")
    return f"c{module}\n{attribute}\n".encode() + args + b"\x81"


def by_state(name: str, args: bytes) -> bytes:
    """A harmless object whose state is set by a call."""
    return b"ccollections\nOrderedDict\n)R" + by_global(name, args) + b"b"


OPCODES = {"global": by_global, "stack": by_stack, "instance": by_instance, "new": by_new, "state": by_state}


def pickled(call: bytes, protocol: int = 2) -> bytes:
    """A dictionary with an entry that makes the call."""
    return b"\x80" + bytes([protocol]) + b"}" + text("a.weight") + call + b"s."


def archive(path: Path, data: bytes, *more: tuple[str, bytes], pressed: bool = False) -> Path:
    """A file as torch.save writes it, with this pickle."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED if pressed else zipfile.ZIP_STORED) as file:
        for name, held in (
            ("data.pkl", data),
            ("byteorder", b"little"),
            ("data/0", bytes(16)),
            ("version", b"3\n"),
            *more,
        ):
            file.writestr(f"archive/{name}", held)
    return path


def refused(path: Path, what: str = ".") -> str:
    with pytest.raises(ModelError, match=what) as caught:
        tensors.read_state(path)
    error = caught.value
    assert error.code == 4 and str(path) in error.saw and error.do and len(str(error)) < 900
    return error.what


@pytest.mark.parametrize("name", CALLS)
def test_no_call_of_a_pickle_is_made(name: str, tmp_path: Path) -> None:
    """Each call by each opcode that makes one, in an archive and as a bare pickle: refused before it is done."""
    trace = tmp_path / "trace"
    for opcode, made in OPCODES.items():
        data = pickled(made(name, argument(CALLS[name], trace)), 4 if opcode == "stack" else 2)
        said = {refused(archive(tmp_path / "a.pth", data))}
        (tmp_path / "a.bin").write_bytes(data)
        said.add(refused(tmp_path / "a.bin"))
        assert "this file is a pickle that runs code when opened" in said, opcode
        assert not trace.exists(), f"{name} was run by {opcode}"


# ---------------------------------------------------------------- memory and time


def bombs(place: Path) -> dict[str, tuple[Path, str]]:
    """Name → a small file that claims much, and what is said of it."""
    grown = torch.zeros(1).expand(10**12)
    made = {name: place / f"{name}.pth" for name in ("stride", "stride-legacy", "stride-parameter", "sparse", "meta")}
    torch.save({"a": grown}, made["stride"])
    torch.save({"a": grown}, made["stride-legacy"], _use_new_zipfile_serialization=False)
    torch.save({"a": nn.Parameter(grown)}, made["stride-parameter"])
    torch.save({"a": torch.sparse_coo_tensor([[0]], [1.0], (10**9,), check_invariants=True)}, made["sparse"])
    torch.save({"a": torch.empty(10**12, device="meta")}, made["meta"])
    grows = b"c__builtin__\nbytearray\nJ\x00\x00\x00\x70\x85R"
    held = {name: (path, "is not what it says") for name, path in made.items()}
    more = "unpack to more than the file holds"
    held["zeros"] = archive(place / "zeros.pth", pickled(b"N"), ("data/1", bytes(300_000_000)), pressed=True), more
    held["bytearray"] = archive(place / "bytearray.pth", pickled(grows)), more
    (place / "bytearray.bin").write_bytes(pickled(grows))
    held["bytearray-legacy"] = place / "bytearray.bin", more
    long = b"\x8e" + struct.pack("<Q", 2**40) + b"x"
    held["long-bytes"] = archive(place / "bytes.pth", pickled(long, 4)), "cannot be read|runs code"
    doubled = b"".join(b"(h%ch%ct\x94" % (i, i) for i in range(60))
    held["doubled"] = archive(place / "doubled.pth", pickled(b"]\x94" + doubled, 4)), ""
    held["deep"] = archive(place / "deep.pth", pickled(b"]" * 200_000 + b"a" * 199_999)), ""
    return held


LIES: dict[str, Any] = {
    "huge shape": {"a": {"dtype": "F32", "shape": [10**12], "data_offsets": [0, 16]}},
    "overflowing shape": {"a": {"dtype": "F32", "shape": [2**63, 2], "data_offsets": [0, 16]}},
    "negative shape": {"a": {"dtype": "F32", "shape": [-4], "data_offsets": [0, 16]}},
    "offsets outside": {"a": {"dtype": "F32", "shape": [8], "data_offsets": [0, 32]}},
    "offsets backwards": {"a": {"dtype": "F32", "shape": [4], "data_offsets": [16, 0]}},
    "overlap": {x: {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]} for x in "ab"},
    "hole": {"a": {"dtype": "F32", "shape": [2], "data_offsets": [8, 16]}},
    "unknown dtype": {"a": {"dtype": "X99", "shape": [4], "data_offsets": [0, 16]}},
    "no tensor": {},
    "nested lists": b"[" * 100_000,
    "not JSON": b"{'a': 1}",
    "not UTF-8": b'{"\xff": 1}',
}


def header(value: Any, length: int | None = None) -> bytes:
    data = value if isinstance(value, bytes) else json.dumps(value).encode()
    return struct.pack("<Q", len(data) if length is None else length) + data + bytes(16)


def read_all(place: Path) -> None:
    """Open every file in a folder with little memory to take; prints name, error, what, and peak MB over the start."""
    import resource

    def peak() -> int:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    before = peak()
    for path in sorted(place.iterdir()):
        try:
            told = f"opened {len(tensors.read_state(path)[0])}"
        except Exception as error:
            told = f"{type(error).__name__}: {error}".splitlines()[0]
        print(f"{path.name}\t{(peak() - before) // 1024}\t{told}", flush=True)


def test_what_claims_more_than_it_holds_takes_no_memory(tmp_path: Path) -> None:
    made = bombs(tmp_path)
    for name, value in LIES.items():
        (tmp_path / f"{name}.safetensors").write_bytes(header(value))
    for length in (0, 2**62, 2**64 - 1, 99):
        (tmp_path / f"length {length}.safetensors").write_bytes(header({}, length))
    code = f"from pathlib import Path; from tests.laws import test_evil; test_evil.read_all(Path({str(tmp_path)!r}))"
    root = Path(__file__).resolve().parents[2]
    ran = subprocess.run(
        [sys.executable, "-c", code], cwd=root, capture_output=True, text=True, timeout=120, check=True
    )
    told = {name: (int(peak), said) for name, peak, said in (line.split("\t") for line in ran.stdout.splitlines())}
    assert len(told) == len(list(tmp_path.iterdir())) >= 25
    for name, (peak, said) in told.items():
        assert said.startswith("ModelError: ") and peak < 256, (name, peak, said)
    for path, what in made.values():
        assert not what or any(part in told[path.name][1] for part in what.split("|")), told[path.name]


def program() -> nn.Module:
    return nn.Sequential(nn.Linear(2, 2))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("ending", [".pt", ".pth"])
def test_programs_are_refused(ending: str, tmp_path: Path) -> None:
    torch.jit.save(torch.jit.trace(program(), torch.ones(1, 2)), tmp_path / f"a{ending}")
    assert "program" in refused(tmp_path / f"a{ending}", "TorchScript or torch.export")
    torch.export.save(torch.export.export(program(), (torch.ones(1, 2),)), tmp_path / "b.pt2")
    (tmp_path / "b.pt2").rename(tmp_path / f"b{ending}")
    assert "program" in refused(tmp_path / f"b{ending}", "TorchScript or torch.export")


# ---------------------------------------------------------------- folders

ASKS: dict[str, Callable[[dict[str, Any]], None]] = {
    "auto_map": lambda told: told.update(auto_map={"AutoModel": "evil.Model"}),
    "nested": lambda told: told.update(vision_config={"deep": [{"auto_map": {"AutoModel": "evil.Model"}}]}),
    "with its flag": lambda told: told.update(trust_remote_code=True, auto_map={"AutoConfig": "evil.Config"}),
}


@pytest.mark.parametrize("asks", ASKS)
def test_a_folder_that_wants_to_run_code_of_its_own_is_refused(asks: str, tmp_path: Path) -> None:
    from regraft.providers import transformers as provider
    from tests import places

    folder = places.model(tmp_path / "model")
    told = json.loads((folder / "config.json").read_text())
    ASKS[asks](told)
    (folder / "config.json").write_text(json.dumps(told))
    (folder / "evil.py").write_text(f"open({str(tmp_path / 'trace')!r}, 'w')\nModel = Config = None\n")
    with pytest.raises(ModelError, match=r"wants to run code of its own .*never runs remote code"):
        provider.load(str(folder))
    assert not (tmp_path / "trace").exists()


def test_weights_that_are_no_numbers_are_refused_by_name(tmp_path: Path) -> None:
    from safetensors.torch import load_file

    from regraft import flow
    from regraft.waist import Options
    from tests import places

    folder = places.model(tmp_path / "model")
    held = load_file(folder / "model.safetensors")
    name = next(name for name in held if name.endswith("weight") and held[name].ndim == 4)
    held[name].view(-1)[3] = torch.nan
    save_file(held, folder / "model.safetensors", {"format": "pt"})
    options = Options(str(places.pictures(tmp_path / "data")), str(folder), strategies=("probe",))
    with pytest.raises(ModelError, match=r"not all finite numbers · saw: 1 of [\d,]+ in "):
        flow.finish(flow.steps(options, tmp_path / "runs"))


# ---------------------------------------------------------------- what is sound opens


@pytest.mark.parametrize("legacy", [False, True])
def test_sound_files_open(legacy: bool, tmp_path: Path) -> None:
    """Shared and small expanded tensors, half precision, a training script's own entries around the weights."""
    one = torch.arange(6.0).reshape(2, 3)
    held: dict[str, Any] = {
        "a.weight": one,
        "tied.weight": one,
        "half": one.half(),
        "turned": one.t(),
        "part": torch.arange(100.0)[10:20],
        "ids": torch.arange(8).expand(1, -1),
        "mask": torch.zeros(1).expand(16),
        "counted": torch.tensor(3),
        "none": torch.zeros(0, 4),
        "parameter": nn.Parameter(one),
    }
    whole = {"state_dict": held, "epoch": 3, "args": {"lr": 0.1, "name": "x", "betas": (0.9, 0.99)}, "best": None}
    torch.save(whole, tmp_path / "a.pth", _use_new_zipfile_serialization=not legacy)
    found, _ = tensors.read_state(tmp_path / "a.pth")
    assert found.keys() == held.keys() and all(torch.equal(found[k], v) for k, v in held.items())


def test_a_file_that_is_no_file_of_weights_is_left_to_others(tmp_path: Path) -> None:
    from regraft.providers import weights

    with pytest.raises(UsageError, match="without --arch"):
        weights.load(archive(tmp_path / "a.pth", pickled(b"N")), "image")
