"""The lines of a README that open a network from the user's own code; test_module.py runs them."""

from __future__ import annotations

from torch import nn

from regraft.providers import _lines
from regraft.waist import InputSpec


def test_the_network_is_imported_or_the_readers_own() -> None:
    layer = 'network.set_submodule("fc", nn.Linear(2, 3))'
    imported, found = (_lines.building(kind, "", layer) for kind in (nn.Linear, None))
    assert imported[2:4] == ["from torch.nn.modules.linear import Linear", "network = Linear()"]
    assert found[2] == _lines.FOUND and layer in imported and layer in found
    behind = _lines.building(None, "nn.Sequential(network, nn.Linear(2, 3))", layer)
    assert "network = nn.Sequential(network, nn.Linear(2, 3))" in behind and layer not in behind


def test_every_setting_is_written() -> None:
    settings = {"resample": 3, "scale": 0.5, "shift": -1.0, "centre": "even", "crop_height": 4, "crop_width": 6}
    spec = InputSpec("image", (3, 4, 6), (0.5, 0.5, 0.5), (1.0, 1.0, 2.0), settings=tuple(settings.items()))
    text = "\n".join(_lines.preparing(spec))
    assert "round((picture.width - 6) / 2), round((picture.height - 4) / 2)" in text and "resize" not in text
    assert "* 0.5 + -1.0" in text and "torch.tensor([1.0, 1.0, 2.0])" in text
    plain = InputSpec("image", (3, 4, 6), settings=(("height", 4), ("width", 6), *list(settings.items())[:3]))
    assert "picture.resize((6, 4), 3)" in "\n".join(_lines.preparing(plain))
    assert _lines.preparing(plain)[-1] == "    return pixels"


def test_lines_are_source_that_compiles() -> None:
    build = _lines.building(None, "", "pass")
    spec = InputSpec("image", (3, 4, 4), settings=(("resample", 2), ("scale", 1.0), ("shift", 0.0), ("shorter", 4)))
    for kind in ("class", "multi", "number"):
        compile(_lines.use(build, spec, kind), "use", "exec")
    compile(_lines.check(build), "check", "exec")
