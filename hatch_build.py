"""Compiles the catalogue to JSON when a wheel is built, so that planning does not load a YAML parser."""

import sys
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class CompileCatalogue(BuildHookInterface[Any]):
    """Adds ``cfscale/_assets/catalogue.json``; an editable install gets it in place."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile before the files of the wheel are collected."""
        if self.target_name != "wheel":
            return
        sys.path.insert(0, self.root)
        from cfscale.adapters.assets import compile_catalogue  # noqa: PLC0415 - importable only from here on

        target = Path(self.root, "cfscale", "_assets", "catalogue.json")
        target.parent.mkdir(exist_ok=True)
        target.write_bytes(compile_catalogue())
        build_data["artifacts"].append("cfscale/_assets/catalogue.json")
