"""Render the Helm chart without a helm binary: values in, one stream of YAML documents out.

The Helm SDK is a native library of some 60 MB, so it is loaded when something is rendered, and not before.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .paths import REPOSITORY

CHART = REPOSITORY / "charts" / "isotrack"
RELEASE = "isotrack"


def render_files(values: Mapping[str, Any], namespace: str, release: str = RELEASE) -> dict[str, str]:
    """Render each template: its path in the chart → text. Values that values.schema.json refuses raise `HelmError`."""
    import helm_python as helm  # native library: see above

    with helm.Chart.load(CHART) as chart:
        rendered = chart.render(dict(values), name=release, namespace=namespace, is_install=True)
    return {path.removeprefix("isotrack/templates/"): text for path, text in sorted(rendered.items())}


def render(values: Mapping[str, Any], namespace: str, release: str = RELEASE) -> str:
    """Render the release as `kubectl apply -f -` takes it. CRDs come first."""
    files = {path: text for path, text in render_files(values, namespace, release).items() if path.endswith(".yaml")}
    ordered = sorted(files, key=lambda path: (not path.startswith("crds/"), path))
    return "---\n".join(files[path].strip("\n") + "\n" for path in ordered if files[path].strip())
