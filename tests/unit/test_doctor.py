"""The doctor: what works, what is absent for which extra, what is broken; the exit code tells of the core alone."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from regraft.deliver import doctor
from regraft.kit import optional
from tests.calls import call, object_of

Captured = pytest.CaptureFixture[str]
SOUND = ["numpy>=1.26", "pydantic>=2", "no-such-package; extra == 'odd'", "rich; extra == 'shown'"]


@pytest.fixture
def broken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A package that is installed and does not import."""
    (tmp_path / "halfway.py").write_text("raise RuntimeError('operator torchvision::nms does not exist')")
    info = tmp_path / "halfway-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: halfway\nVersion: 1.0\n")
    empty = tmp_path / "hollow-2.0.dist-info"
    empty.mkdir()
    (empty / "METADATA").write_text("Metadata-Version: 2.1\nName: hollow\nVersion: 2.0\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(sys.modules, "halfway", None)
    monkeypatch.delitem(sys.modules, "halfway")
    optional.trouble.cache_clear()
    return "halfway"


def test_packages_work_or_are_absent() -> None:
    found = {p.name: p for p in doctor.look(SOUND)}
    assert [(p.state, p.needed) for p in found.values()] == [
        ("works", ("core",)),
        ("works", ("core",)),
        ("absent", ("odd",)),
        ("works", ("shown",)),
    ]
    assert found["numpy"].version and not found["no-such-package"].version


def test_a_broken_package_is_told_with_its_cure(broken: str) -> None:
    half, hollow = doctor.look([broken, "hollow; extra == 'x'"])
    assert (half.state, half.version, hollow.state) == ("broken", "1.0", "broken")
    assert "halfway is broken here (operator torchvision::nms" in half.trouble and "reinstall it" in half.trouble
    assert hollow.trouble == "it is installed, but there is no module hollow: reinstall it"


@pytest.mark.parametrize(
    ("requires", "wanted"),
    [
        (["huggingface_hub>=1", "PyYAML>=6"], {"huggingface-hub": ("core",), "pyyaml": ("core",)}),
        (["a; extra == 'x'", "a; extra == 'y'", "b; extra == 'y'"], {"a": ("x", "y"), "b": ("y",)}),
        (["a; extra == 'serve'", "a; extra == 'ui'"], {"a": ("serve",)}),
        (["a; extra == 'x'", "b; extra == 'y'", "a; extra == 'all'", "b; extra == 'all'"], {"a": ("x",), "b": ("y",)}),
        (['ray[train,tune]>=2; (sys_platform == "linux") and extra == "ray"'], {"ray": ("ray",)}),
        (["regraft[serve]; extra == 'ui'"], {}),
    ],
)
def test_needs_are_read_from_the_metadata(requires: list[str], wanted: dict[str, tuple[str, ...]]) -> None:
    assert doctor.needs(requires) == wanted


def test_our_own_metadata_is_read() -> None:
    needs = doctor.needs(doctor.declared())
    assert needs["torch"] == ("core",) and needs["timm"] == ("image",) and needs["openvino"] == ("openvino",)
    assert "all" not in str(needs.values())


def test_cures_are_one_line_each(broken: str) -> None:
    found = doctor.look([broken, "gone", "lost; extra == 'x'", "missing; extra == 'x'"])
    first, *rest = doctor.cures(found)
    assert first.startswith("halfway: halfway is broken here")
    assert rest == ["pip install --force-reinstall regraft  (gone)", 'pip install "regraft[x]"  (lost, missing)']


def test_only_the_core_decides_whether_it_works(broken: str) -> None:
    assert doctor.examine(requires=SOUND).trouble is None
    trouble = doctor.examine(requires=["numpy", broken, "gone"]).trouble
    assert trouble is not None and (trouble.code, trouble.what) == (4, "regraft cannot work here")
    assert trouble.saw.startswith("halfway is broken: ") and trouble.saw.endswith("; gone is absent")


def test_places_are_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REGRAFT_CACHE", str(tmp_path / "cache"))
    (tmp_path / "cache" / "trunk").mkdir(parents=True)
    (tmp_path / "cache" / "trunk" / "a.block").write_bytes(b"x" * 100)
    (tmp_path / "cache" / "loop").symlink_to(tmp_path / "cache")
    found = {p.name: p for p in doctor.examine(tmp_path / "runs", requires=[]).places}
    assert list(found) == ["runs", "cache", "huggingface", "torch"]
    assert found["cache"].there and 100 <= found["cache"].bytes < 1000 and found["cache"].free_bytes > 0
    assert not found["runs"].there and found["runs"].bytes == 0 and found["runs"].free_bytes > 0


def test_the_command_tells_what_it_found(capsys: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "declared", lambda: ["torch", *SOUND])
    code, out, _ = call(["doctor"], capsys)
    assert code == 0 and "no-such-package" in out and 'pip install "regraft[odd]"' in out and "bfloat16 " in out
    told = object_of(["doctor"], capsys)
    assert told["bf16_gain"] > 0 and told["threads"] == 1 and told["cures"][0].startswith("pip install")


def test_a_core_that_cannot_work_has_an_exit_code(capsys: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "declared", lambda: ["gone-missing"])
    code, out, err = call(["doctor"], capsys)
    assert code == 4 and "bfloat16 not measured" in out and "regraft cannot work here" in err
    code, out, err = call(["doctor", "--json"], capsys)
    assert code == 4 and '"ok": false' in out and '"packages"' in out and len(out.splitlines()) == 1 and not err
