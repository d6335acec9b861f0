"""The process that measures: requests as lines of JSON on stdin, answers as lines of JSON on stdout."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Iterator
from typing import Any

from jaxmodels.planning.lowering import measure
from jaxmodels.planning.survey import survey


@contextlib.contextmanager
def _own_stdout() -> Iterator[Any]:
    """Compilers print to the process's stdout: it is theirs, and the answer goes to a copy of it."""
    answer = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    try:
        yield answer
    finally:
        answer.close()


def main() -> int:
    """Answers the requests on stdin, one a line."""
    with _own_stdout() as answer:

        def say(text: str) -> None:
            print(json.dumps({"doing": text}), file=answer, flush=True)

        for line in sys.stdin:
            try:
                request = json.loads(line)
                answer_it = survey if request.get("survey") else measure
                reply: dict[str, Any] = {"facts": answer_it(request, say)}
            except (ValueError, OSError) as error:
                reply = {"error": str(error)}
            print(json.dumps(reply), file=answer, flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
