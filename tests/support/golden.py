"""Golden files: built objects as YAML beside the test. `pytest --rewrite-golden` writes them anew; the diff is reviewed like code."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml


@dataclass(frozen=True, slots=True)
class Golden:
    """The folder `golden/` beside a test module."""

    folder: Path
    rewrite: bool

    def check(self, name: str, value: Any) -> None:
        """Compare an object (written as YAML, keys sorted) or a text with the file of this name."""
        text = value if isinstance(value, str) else yaml.safe_dump(value, sort_keys=True, width=120, allow_unicode=True)
        file = self.folder / name
        if self.rewrite:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text, encoding="utf-8")
            return
        assert file.is_file(), f"{file.name} does not exist: run pytest --rewrite-golden and review it"
        assert text == file.read_text(encoding="utf-8"), (
            f"{file.name} differs: run pytest --rewrite-golden and review the diff"
        )
