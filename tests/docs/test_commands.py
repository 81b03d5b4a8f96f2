"""README.md and the pages of the commands, run on tiny stand-ins and on the demo's digits."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.docs import running, stages

STAGES: dict[str, stages.Stage] = {
    "README.md": stages.small,
    "docs/close.md": stages.small,
    "docs/commands.md": stages.zoo,
    "docs/config.md": stages.digits,
    "docs/few.md": stages.digits,
    "docs/files.md": stages.digits,
    "docs/adapters.md": stages.small,
    "docs/imbalance.md": stages.small,
    "docs/many.md": stages.tasks,
    "docs/models.md": stages.network,
    "docs/report.md": stages.digits,
    "docs/speed.md": stages.small,
    "docs/when_wrong.md": stages.wrong,
}
pytestmark = pytest.mark.timeout(900)


@pytest.mark.parametrize("page", STAGES)
def test_the_page_does_what_it_says(page: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    running.page(page, STAGES[page], tmp_path, request)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_the_readme_does_what_it_says_at_full_length(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    running.page("README.md", STAGES["README.md"], tmp_path, request, full=True)
