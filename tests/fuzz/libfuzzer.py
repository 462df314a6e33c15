"""One harness under atheris (libFuzzer with coverage of Python byte code): `python -m fuzz.libfuzzer HARNESS [flags]`.

libFuzzer takes the process over and ends it, so this is a program of its own; `campaign` starts it and reads its report.
NB: coverage comes from byte code that is rewritten at import, so nothing of ours may be imported before.
"""

from __future__ import annotations

import importlib.util
import sys


def available() -> bool:
    """Whether atheris is installed here (extra `fuzz`; Linux on x86-64)."""
    return importlib.util.find_spec("atheris") is not None


def main(arguments: list[str]) -> None:
    """Fuzz until a limit among the flags, or a finding, ends the process."""
    import atheris  # type: ignore[import-untyped, unused-ignore]  # an option: see available()

    with atheris.instrument_imports(include=["isotrack_recorder", "isotrack_api", "isotrack_operator"]):
        from fuzz.targets import all_harnesses
    harness = all_harnesses()[arguments[0]]
    atheris.Setup([sys.argv[0], *arguments[1:]], harness.fuzz)
    atheris.Fuzz()


if __name__ == "__main__":
    main(sys.argv[1:])
