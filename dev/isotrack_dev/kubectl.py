"""Run kubectl against one cluster: our own stack, or whichever a kubeconfig names."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

from .errors import DevError
from .namespaces import ENVIRONMENT


@dataclass(frozen=True, slots=True)
class Kubectl:
    """A kubectl and the cluster that it speaks to."""

    program: Path
    kubeconfig: Path
    ours: bool = True
    """Whether the cluster is a stack: then nothing of our environment (a proxy, say) matters to it. Others may need it."""

    def __call__(self, *arguments: str, stdin: str | None = None, seconds: float = 60) -> str:
        """Run it to its end and return its output.

        Raises:
            DevError: It failed or took longer than `seconds`; the text is what it said.
        """
        command = [str(self.program), "--kubeconfig", str(self.kubeconfig), *arguments]
        # kubectl keeps a cache of the API in HOME; that of a stack goes with the stack
        environment = {**ENVIRONMENT, "HOME": str(self.kubeconfig.parent)} if self.ours else dict(os.environ)
        try:
            done = subprocess.run(
                command, input=stdin or "", env=environment, capture_output=True, text=True, timeout=seconds
            )
        except subprocess.TimeoutExpired as error:
            raise DevError(f"kubectl {' '.join(arguments)[:200]} took longer than {seconds:g} s") from error
        if done.returncode:
            raise DevError(f"kubectl {' '.join(arguments)[:200]}: {done.stderr.strip()[-2000:]}")
        return done.stdout
