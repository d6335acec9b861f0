"""The planning process: requests as lines of JSON on stdin, replies as lines of JSON on stdout."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Iterator
from typing import Any

from jaxmodels.planning.lowering import lower_and_analyze
from jaxmodels.planning.survey import survey


@contextlib.contextmanager
def _reserved_stdout() -> Iterator[Any]:
    """A copy of stdout for replies: compilers print to stdout, which goes to stderr meanwhile."""
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    try:
        yield replies
    finally:
        replies.close()


def main() -> int:
    """Answers the requests on stdin, one a line."""
    with _reserved_stdout() as replies:

        def progress(text: str) -> None:
            print(json.dumps({"doing": text}), file=replies, flush=True)

        for line in sys.stdin:
            try:
                request = json.loads(line)
                answer = survey if request.get("survey") else lower_and_analyze
                reply: dict[str, Any] = {"facts": answer(request, progress)}
            except (ValueError, OSError) as error:
                reply = {"error": str(error)}
            print(json.dumps(reply), file=replies, flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
