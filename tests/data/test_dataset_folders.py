import hashlib
from pathlib import Path

import pytest

from jaxmodels.data import locate

pytestmark = pytest.mark.fast


def test_the_folder_is_the_argument_else_the_variable_else_the_users_cache(monkeypatch):
    monkeypatch.setenv("JAXMODELS_DATA", "/data")
    assert locate.folder("digits", "/here") == Path("/here")
    assert locate.folder("digits") == Path("/data/digits")
    monkeypatch.delenv("JAXMODELS_DATA")
    monkeypatch.setenv("HOME", "/home/someone")
    assert locate.folder("digits") == Path("/home/someone/.cache/jaxmodels/data/digits")


def test_a_folder_as_expected_passes(tmp_path):
    (tmp_path / "a").write_bytes(b"123")
    locate.check(tmp_path, {"a": (3, hashlib.sha256(b"123").hexdigest())}, where="there")
    locate.check(tmp_path, {"a": (3, None)}, where="there")


def test_what_is_missing_is_named_with_where_to_get_it(tmp_path):
    (tmp_path / "a").write_bytes(b"123")
    with pytest.raises(
        FileNotFoundError, match=r"got no b, c; expected a, b, c. Get them from there.*JAXMODELS_DATA"
    ):
        locate.check(tmp_path, {"a": (3, None), "b": (1, None), "c": (1, None)}, where="there")


@pytest.mark.parametrize("content, message", [(b"12", "got 2 bytes; expected 3"), (b"124", "got sha256")])
def test_a_wrong_size_or_content_is_named(tmp_path, content, message):
    (tmp_path / "a").write_bytes(content)
    with pytest.raises(ValueError, match=rf"a: {message}.*from there"):
        locate.check(tmp_path, {"a": (3, hashlib.sha256(b"123").hexdigest())}, where="there")
