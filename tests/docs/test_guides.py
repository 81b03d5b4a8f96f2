"""The five-minute pages and what they lead to, run on the real data of ../shared in a cheap form."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.docs import running, stages

STAGES: dict[str, stages.Stage] = {
    "docs/five_minutes_pictures.md": stages.photos,
    "docs/five_minutes_text.md": stages.requests,
    "docs/five_minutes_tables.md": stages.ratings,
    "docs/which_way.md": stages.photos,
}
pytestmark = [pytest.mark.shared, pytest.mark.timeout(900)]


@pytest.mark.parametrize("page", STAGES)
def test_the_page_does_what_it_says(page: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    running.page(page, STAGES[page], tmp_path, request)


@pytest.mark.slow
@pytest.mark.parametrize("page", STAGES)
def test_the_page_does_what_it_says_at_full_length(page: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    running.page(page, STAGES[page], tmp_path, request, full=True)
