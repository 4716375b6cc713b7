"""Who the kernel ends first when memory runs out."""

from __future__ import annotations

from pathlib import Path

import pytest

from restpipe.host import expendable
from restpipe.host.expendable import Expendable


@pytest.mark.parametrize(
    ("before", "meanwhile"), [("0", "500"), ("300", "800"), ("900", "1000"), ("-500", "0")]
)
def test_it_goes_first_until_it_serves(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, before: str, meanwhile: str
) -> None:
    score = tmp_path / "oom_score_adj"
    score.write_text(f"{before}\n")
    monkeypatch.setattr(expendable, "_ADJUSTMENT", score)
    process = Expendable()
    assert score.read_text() == meanwhile
    process.keep()
    assert score.read_text() == before


def test_where_it_may_not_say_so_it_serves_all_the_same(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(expendable, "_ADJUSTMENT", tmp_path / "none" / "none")
    Expendable().keep()
    assert not (tmp_path / "none").exists()
