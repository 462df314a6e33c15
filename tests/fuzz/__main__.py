"""`python -m fuzz [HARNESS…]`: fuzz parsers, or repeat one input."""

from __future__ import annotations

import argparse
import os
import sys
import traceback
from pathlib import Path

from . import libfuzzer
from .campaign import Result, Settings, run_campaign
from .targets import all_harnesses


def main(argv: list[str] | None = None) -> int:
    """Returns 0 when nothing was found, 1 when something was, 64 for wrong usage."""
    harnesses = all_harnesses()
    parser = argparse.ArgumentParser(
        prog="python -m fuzz",
        description="Feed parsers with broken input. Harnesses: " + ", ".join(harnesses),
    )
    parser.add_argument("names", nargs="*", metavar="HARNESS", help="default: all")
    parser.add_argument(
        "--inputs", type=int, default=1_000_000, help="per harness (default: 1,000,000; some take a share)"
    )
    parser.add_argument("--seconds", type=float, help="per harness, at most")
    parser.add_argument("--engine", choices=("auto", "atheris", "mutate"), default="auto")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--folder", type=Path, default=Path(".fuzz"), help="for what is found (default: .fuzz)")
    parser.add_argument("--input", type=Path, metavar="FILE", help="run one input of one harness, with its trace")
    options = parser.parse_args(argv)
    unknown = [name for name in options.names if name not in harnesses]
    if unknown or (options.input is not None and len(options.names) != 1):
        sys.stderr.write(f"no such harness: {', '.join(unknown)}\n" if unknown else "--input needs one harness\n")
        return 64
    if options.input is not None:
        return _repeat(options.names[0], options.input.read_bytes())
    chosen = [harness for name, harness in harnesses.items() if not options.names or name in options.names]
    engine = options.engine if options.engine != "auto" else "atheris" if libfuzzer.available() else "mutate"
    settings = Settings(options.inputs, options.seconds, options.seed, engine, options.folder.resolve())
    sys.stdout.write(f"engine {engine}, {options.jobs} at once\n")
    clean = True
    for result in run_campaign(chosen, settings, max(1, options.jobs)):
        clean &= not result.findings
        _print(result)
    return 0 if clean else 1


def _repeat(name: str, data: bytes) -> int:
    try:
        all_harnesses()[name].fuzz(data)
    except Exception:  # noqa: BLE001 - this is what was asked for
        traceback.print_exc()
        return 1
    sys.stdout.write(f"{name}: {len(data)} bytes, nothing found\n")
    return 0


def _print(result: Result) -> None:
    rate = result.inputs / max(result.seconds, 0.001)
    sys.stdout.write(
        f"{result.name:20} {result.inputs:>9} inputs {rate:>8.0f}/s {result.seconds:>7.1f} s  coverage {result.coverage:>5}"
        f"  new corpus {result.corpus:>4}  findings {len(result.findings)}\n"
    )
    for title, path in result.findings:
        place = os.path.relpath(path)
        sys.stdout.write(f"    {title}\n    repeat: python -m fuzz {result.name} --input {place}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    raise SystemExit(main())
