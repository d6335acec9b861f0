"""A command starts again with huge pages where that helps, and only there."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from jaxmodels.launch import hugepages

pytestmark = pytest.mark.fast


@pytest.fixture
def started(monkeypatch, tmp_path):
    """What a machine that offers huge pages would have started."""
    (pages := tmp_path / "enabled").write_text("always [madvise] never\n")
    calls = []
    monkeypatch.setattr(hugepages, "OFFERED", pages)
    monkeypatch.setattr(os, "confstr", lambda name: "glibc 2.36", raising=False)
    monkeypatch.setattr(os, "execv", lambda *args: calls.append(args))
    monkeypatch.delenv("GLIBC_TUNABLES", raising=False)
    monkeypatch.delenv("JAXMODELS_HUGEPAGES", raising=False)
    return calls


def test_the_same_command_starts_again_with_huge_pages(started, monkeypatch):
    monkeypatch.setattr(sys, "orig_argv", ["python", "-X", "dev", "-m", "jaxmodels", "--version"])
    hugepages.restart()
    assert started == [(sys.executable, [sys.executable, "-X", "dev", "-m", "jaxmodels", "--version"])]
    assert os.environ["GLIBC_TUNABLES"] == "glibc.malloc.hugetlb=1"
    hugepages.restart()
    assert len(started) == 1


def test_other_tunables_are_kept(started, monkeypatch):
    monkeypatch.setenv("GLIBC_TUNABLES", "glibc.malloc.arena_max=2")
    hugepages.restart()
    assert os.environ["GLIBC_TUNABLES"] == "glibc.malloc.arena_max=2:glibc.malloc.hugetlb=1" and started


@pytest.mark.parametrize("pages", ["[always] madvise never", "always madvise [never]", None])
def test_nothing_happens_where_linux_gives_them_to_all_or_to_none(started, pages):
    if pages is None:
        hugepages.OFFERED.unlink()
    else:
        hugepages.OFFERED.write_text(pages)
    hugepages.restart()
    assert not started


@pytest.mark.parametrize("libc", ["glibc 2.31", "musl 1.2", "", None])
def test_nothing_happens_where_the_c_library_cannot(started, monkeypatch, libc):
    monkeypatch.setattr(os, "confstr", lambda name: libc, raising=False)
    hugepages.restart()
    assert not started


def test_nothing_happens_on_systems_without_confstr(started, monkeypatch):
    monkeypatch.delattr(os, "confstr")
    hugepages.restart()
    assert not started


def test_a_users_own_choice_stands(started, monkeypatch):
    monkeypatch.setenv("GLIBC_TUNABLES", "glibc.malloc.hugetlb=0")
    hugepages.restart()
    assert not started


def test_the_switch_turns_it_off(started, monkeypatch):
    monkeypatch.setenv("JAXMODELS_HUGEPAGES", "0")
    hugepages.restart()
    assert not started and "GLIBC_TUNABLES" not in os.environ


def test_a_process_that_starts_again_runs_its_command_once():
    env = {k: v for k, v in os.environ.items() if k not in ("GLIBC_TUNABLES", "JAXMODELS_HUGEPAGES")}
    done = subprocess.run(
        [sys.executable, "-m", "jaxmodels", "--version"], capture_output=True, text=True, env=env
    )
    assert done.returncode == 0 and done.stdout.count("jaxmodels ") == 1
