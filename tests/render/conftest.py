"""The templates as shipped, with build contexts of our own: those of the images are no part of what is tested here."""

from collections.abc import Mapping

import pytest

from cfscale.adapters.assets import load_templates

IMAGES = {
    "images/coordinator/Dockerfile": "FROM node:20-slim\n",
    "images/coordinator/package.json": "{}\n",
    "images/agents/Dockerfile": "FROM node:20-slim\n",
    "images/database/Dockerfile": "FROM postgres:17\n",
}


@pytest.fixture(scope="session")
def templates() -> Mapping[str, str]:
    shipped = {path: text for path, text in load_templates().items() if not path.startswith("images/")}
    return {**shipped, **IMAGES}
