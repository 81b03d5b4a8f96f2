"""The package: quick to import, its verbs loaded when they are first used."""

from __future__ import annotations

import subprocess
import sys

import pytest

import regraft
from regraft import api


def test_the_verbs_are_those_of_the_api() -> None:
    assert regraft.adapt is api.adapt and regraft.open is api.open_result and regraft.Run is api.Run


def test_an_unknown_name_is_told_what_there_is() -> None:
    with pytest.raises(
        AttributeError,
        match="no attribute 'train'; it has Run, __version__, adapt, adapt_many, advise, compare, evaluate, "
        "evaluate_many, open",
    ):
        _ = regraft.train


def test_importing_it_takes_no_library_with_it() -> None:
    script = "import sys, regraft\nprint(sorted({'torch', 'numpy', 'pydantic', 'typer'} & set(sys.modules)))"
    made = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert made.stdout == "[]\n"
