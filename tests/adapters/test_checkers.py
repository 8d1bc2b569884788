import os
from pathlib import Path

import pytest

from cfscale.adapters.checkers import check_stack
from cfscale.errors import ActionError

FILES = {"stack.yaml": 'version: "3.9"\nservices: {a: {image: "x", env_file: ["./secrets/a.env"]}}\n'}


def docker(folder: Path, body: str, monkeypatch: pytest.MonkeyPatch) -> None:
    script = folder / "docker"
    script.write_text(f"#!/bin/sh\n{body}\n")
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")


def test_without_the_client_the_check_is_left_out_and_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))

    assert check_stack(FILES, ()).startswith("stack.yaml was not checked by 'docker stack config': there is no command")


def test_an_old_client_does_not_know_the_checker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    docker(tmp_path, "echo 'unknown flag: --compose-file' >&2; exit 125", monkeypatch)

    assert "this Docker client has no 'docker stack config'" in check_stack(FILES, ())


def test_a_file_that_is_rejected_stops_the_rendering(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    docker(tmp_path, "echo 'services.a Additional property x is not allowed'; exit 1", monkeypatch)

    with pytest.raises(
        ActionError, match=r"nothing was written, docker stack rejects stack\.yaml: services\.a Additional"
    ):
        check_stack(FILES, ())


@pytest.mark.engine
def test_the_real_checker_reads_what_is_right_and_rejects_what_is_not() -> None:
    assert check_stack(FILES, ("a.env",)) == ""
    with pytest.raises(ActionError, match="Additional property nonsense is not allowed"):
        check_stack({"stack.yaml": FILES["stack.yaml"] + "nonsense: 1\n"}, ("a.env",))
