"""The run directory: whose it is, who may enter, and what is in it."""

from __future__ import annotations

import os
import socket

import pytest

import gpool.observer
from gpool.observer.run_dir import LONGEST, RunDir, RunDirError, default, is_node


class TestDefault:
    def test_is_where_the_environment_says(self, monkeypatch):
        """GPOOL_RUN_DIR, else below XDG_RUNTIME_DIR, else a folder for this user's id."""
        monkeypatch.setenv("XDG_RUNTIME_DIR", "/run/user/1")
        monkeypatch.setenv("GPOOL_RUN_DIR", "/run/mine")
        assert str(default()) == "/run/mine"
        monkeypatch.setenv("GPOOL_RUN_DIR", "")
        assert str(default()) == "/run/user/1/gpool"
        monkeypatch.delenv("XDG_RUNTIME_DIR")
        assert default().name == f"gpool-{os.geteuid()}"

    def test_stays_where_it_was_when_the_process_goes_elsewhere(self, monkeypatch, run_dir):
        """A daemon changes its directory, and still finds its socket."""
        monkeypatch.chdir(run_dir)
        directory = RunDir("here")
        monkeypatch.chdir("/")
        directory.make()
        assert directory.path == run_dir / "here"
        assert (run_dir / "here").is_dir()


class TestMaking:
    def test_lets_nobody_else_in(self, run_dir):
        """The directory is this user's alone, its parents are made."""
        directory = RunDir(run_dir / "a" / "b")
        directory.make()
        assert directory.path.stat().st_mode & 0o777 == 0o700
        directory.make()
        assert directory.nodes() == []

    def _refused(self, path, words):
        with pytest.raises(RunDirError, match=words) as caught:
            gpool.observer.start(run_dir=path)
        assert str(path) in str(caught.value)
        assert "set GPOOL_RUN_DIR to a directory of yours" in str(caught.value)

    def test_refuses_one_that_others_may_enter(self, run_dir):
        """Who may enter may look."""
        run_dir.chmod(0o750)
        self._refused(run_dir, r"others may enter it \(mode 750\)")

    def test_refuses_what_is_no_directory(self, run_dir):
        """A file, or a link to somewhere."""
        (run_dir / "file").touch()
        self._refused(run_dir / "file", "it is no directory")
        (run_dir / "link").symlink_to(run_dir)
        self._refused(run_dir / "link", "it is no directory")
        (run_dir / "dangling").symlink_to("/nowhere")
        self._refused(run_dir / "dangling", "it is no directory")
        self._refused(run_dir / "file" / "below", "cannot be made|no directory")

    def test_refuses_one_that_is_too_long(self, run_dir):
        """The kernel would cut the path of a socket."""
        self._refused(run_dir / ("x" * LONGEST), "too long")

    @pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a directory away")
    def test_refuses_one_of_somebody_else(self, run_dir):
        """Its owner may put a socket of his own there."""
        os.chown(run_dir, 65534, 65534)
        self._refused(run_dir, "it belongs to uid 65534")

    @pytest.mark.parametrize("path", [5, b"/x", object()])
    def test_refuses_what_is_no_path(self, path):
        """With what was expected."""
        with pytest.raises(TypeError, match="run_dir: expected a path"):
            RunDir(path)

    def test_refuses_a_path_with_a_nul(self):
        """No file can be called so."""
        with pytest.raises(RunDirError, match="NUL"):
            RunDir("/tmp/a\0b")


class TestNodes:
    def test_are_the_sockets_with_a_number(self, run_dir):
        """By number, whatever else lies there."""
        for name in ("10.sock", "9.sock", "9-2.sock", "x.sock", ".7", "7.txt", "٣.sock", "-1.sock"):
            (run_dir / name).touch()
        assert RunDir(run_dir).nodes() == ["9", "9-2", "10"]

    @pytest.mark.parametrize(
        "name", ["", "..", "../x", "1/2", "1.sock", "1-", "-1", "٣", "1\n", "1" * 11, "1-12345"]
    )
    def test_have_no_other_names(self, name, run_dir):
        """What could lead elsewhere names none."""
        assert not is_node(name)
        with pytest.raises(ValueError, match="node: expected the number of a process"):
            RunDir(run_dir).socket(name)

    def test_have_paths_short_enough(self, run_dir):
        """Whatever their number is."""
        longest = RunDir(run_dir / ("x" * (LONGEST - len(str(run_dir)) - 22)))
        longest.make()
        sock = socket.socket(socket.AF_UNIX)
        sock.bind(str(longest.socket("1234567890-9999")))
        sock.close()
