"""What is wrong with a request, said in the form of OpenAI's errors: one JSON object, never a traceback."""

from __future__ import annotations

from typing import Any

KINDS = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    405: "invalid_request_error",
    408: "timeout_error",
    413: "invalid_request_error",
    415: "invalid_request_error",
    429: "rate_limit_error",
    503: "overloaded_error",
}


class Refused(ValueError):
    """A request that is not answered.

    status: of HTTP. field: of the request, as a path such as messages[0].content. code: a word for programs.
    retry_after: seconds after which the same request may be answered.
    """

    def __init__(
        self,
        message: str,
        *,
        status: int = 400,
        field: str | None = None,
        code: str | None = None,
        retry_after: float | None = None,
    ):
        super().__init__(message)
        self.status, self.field, self.code, self.retry_after = status, field, code, retry_after

    @property
    def body(self) -> dict[str, Any]:
        """OpenAI's object of an error."""
        kind = KINDS.get(self.status, "server_error")
        error = {"message": str(self), "type": kind, "param": self.field, "code": self.code}
        return {"error": error}

    @property
    def headers(self) -> dict[str, str]:
        """Headers that belong to the status."""
        if self.retry_after is not None:
            return {"retry-after": str(max(1, round(self.retry_after)))}
        return {"www-authenticate": "Bearer"} if self.status == 401 else {}
