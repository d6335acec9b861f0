"""Text from elsewhere, such as a tensor's name or what a model writes, made safe for a terminal.

An escape sequence could move the cursor over what was said before, rename the window or fill the clipboard,
and marks of direction make text read as another.
"""

from __future__ import annotations

import re

# Controls but for the newline and the tab, DEL, the second set of controls, and marks that turn the direction
# of writing.
_UNSAFE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)


def shown(text: str) -> str:
    """The text with what a terminal would obey as what it is: \\x1b for an escape."""
    return _UNSAFE.sub(_escaped, text)


def _escaped(match: re.Match[str]) -> str:
    code = ord(match[0])
    return f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}"
