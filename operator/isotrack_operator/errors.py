"""Errors of the operator, by consequence.

    OperatorError               exit 1
    ├─ ConfigError              exit 64: options or environment are wrong; ends the process
    ├─ ClusterError             the API server refused or did not answer: the reconcile of this key is repeated, later each time
    │  ├─ NotFoundError         404
    │  ├─ AlreadyExistsError    409 on create: somebody (most likely an earlier run of ours) was here first
    │  ├─ ConflictError         409 on update: what we decided on is stale; read again and decide again
    │  └─ ForbiddenError        403: RBAC, quota or admission says no
    └─ SourceError              the SFU did not answer; becomes a condition with reason SourceUnavailable
       └─ SourceRefusedError    it does not take our credentials; reason SourceRefused

Client errors are translated in the module that talks to the client (`cluster`, `source`), nowhere else.
"""

from __future__ import annotations

from typing import ClassVar

MAX_FOREIGN_TEXT = 300
_PASSING = (409, 429)
_WEBHOOK = "failed calling webhook"
"""In the API server's words (apiserver, pkg/admission/plugin/webhook): with failurePolicy Fail it answers 500 for as long as that lasts."""


def cut(text: object, limit: int = MAX_FOREIGN_TEXT) -> str:
    """Foreign text on one line, printable, at most `limit` characters."""
    line = " ".join(str(text).split())
    line = "".join(char if char.isprintable() else "?" for char in line)
    return line if len(line) <= limit else line[: limit - 1] + "…"


class OperatorError(Exception):
    """Anything that ends a reconcile or the process. The text is one line."""

    exit_code: ClassVar[int] = 1


class ConfigError(OperatorError):
    """Options or environment are wrong."""

    exit_code = 64


class ClusterError(OperatorError):
    """The API server refused a request or could not be reached. Carries the HTTP `status`, 0 without an answer."""

    def __init__(self, message: str, status: int = 0) -> None:
        super().__init__(message)
        self.status = status

    @property
    def is_refusal(self) -> bool:
        """The API server does not let us: RBAC, quota, admission, or a webhook that it cannot reach. Somebody has to see to that."""
        webhook = self.status >= 500 and _WEBHOOK in str(self)
        return webhook or (400 <= self.status < 500 and self.status not in _PASSING)


class NotFoundError(ClusterError):
    """No such object."""


class AlreadyExistsError(ClusterError):
    """An object of this name is there already."""


class ConflictError(ClusterError):
    """The object changed since it was read, or is another one than was meant (uid)."""


class ForbiddenError(ClusterError):
    """Not allowed: RBAC, quota or admission policy."""


class SourceError(OperatorError):
    """The SFU cannot be reached or does not work."""

    reason: ClassVar[str] = "SourceUnavailable"


class SourceRefusedError(SourceError):
    """The SFU does not take our credentials."""

    reason = "SourceRefused"
