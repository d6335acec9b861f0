"""Adapters in a server: each name stands for one."""

from __future__ import annotations

import pytest

from jaxmodels.commands.serve import serve


@pytest.mark.parametrize("words", [["one"], ["=x"], ["one="], ["one=x", "one=y"], ["base=x"]])
def test_an_adapter_without_a_name_of_its_own_is_refused(words, tmp_path):
    (tmp_path / "base").mkdir()
    with pytest.raises(ValueError, match="--adapter: got"):
        serve(tmp_path / "base", adapter=words, port=0)
