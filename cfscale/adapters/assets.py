"""The catalogue and the templates, from the wheel or from a checkout.

``catalogue.json`` is compiled from ``tiers/`` when a wheel is built, so that planning never loads a YAML parser. It
carries the checksum of its sources: where they have been edited since, as in a checkout, the sources are read instead.
"""

import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec

from cfscale.core.tier import Catalogue
from cfscale.errors import InputError

_PACKAGE = Path(__file__).resolve().parent.parent
_COMPILED = _PACKAGE / "_assets" / "catalogue.json"
LISTS = ("phases", "node_shapes", "conflicts")
TIERS = ("single-user", "team", "department", "enterprise")


def _root() -> Path:
    checkout = _PACKAGE.parent
    return checkout if (checkout / "tiers").is_dir() and (checkout / "templates").is_dir() else _PACKAGE / "_assets"


def load_catalogue() -> Catalogue:
    """The catalogue; raises InputError where a file of it is missing or malformed."""
    sources = _sources(_root() / "tiers")
    compiled = _COMPILED.read_bytes() if _COMPILED.is_file() else b""
    if not compiled.startswith(_header(sources)):
        compiled = compile_catalogue(sources)
    try:
        return msgspec.json.decode(compiled.partition(b"\n")[2], type=Catalogue)
    except msgspec.ValidationError as error:
        raise InputError(f"{_root() / 'tiers'}: the catalogue is malformed: {error}") from error


def _sources(folder: Path) -> dict[str, bytes]:
    names = (*TIERS, "rules", "services", "images", "ledger")
    try:
        return {name: (folder / f"{name}.yaml").read_bytes() for name in names}
    except OSError as error:
        raise InputError(f"{folder}: the catalogue cannot be read: {error.strerror}; reinstall cfscale") from error


def _header(sources: Mapping[str, bytes]) -> bytes:
    """Tells edited sources from those that were compiled; a checksum will do, and loads in a tenth of a digest's time."""
    whole = b"\0".join(name.encode() + b"\0" + text for name, text in sources.items())
    return f'"{zlib.crc32(whole):08x}-{len(whole)}"\n'.encode()


def compile_catalogue(sources: Mapping[str, bytes] | None = None) -> bytes:
    """The catalogue as one line with the checksum of its sources and one of JSON."""
    import yaml  # an installed cfscale reads the compiled catalogue and needs no YAML

    sources = sources if sources is not None else _sources(_root() / "tiers")
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    parsed = {name: yaml.load(text, Loader=loader) for name, text in sources.items()}  # noqa: S506 - a safe loader
    leaves = dict(_leaves(parsed["rules"], ""))
    document = {
        "tiers": [parsed[name] for name in TIERS],
        "rules": {**{name: parsed["rules"][name] for name in LISTS}, "leaves": leaves},
        "services": parsed["services"],
        "images": parsed["images"],
        "ledger": parsed["ledger"],
    }
    return _header(sources) + msgspec.json.encode(document) + b"\n"


def _leaves(node: Mapping[str, Any], path: str) -> Iterator[tuple[str, object]]:
    """Every single value below a mapping by its dotted path; lists are left to those who know them."""
    for name, value in node.items():
        if isinstance(value, dict) and "unit" in value:
            yield f"{path}{name}", value
        elif isinstance(value, dict):
            yield from _leaves(value, f"{path}{name}.")


def load_templates() -> Mapping[str, str]:
    """Every template by its path below ``templates/``, in sorted order."""
    root = _root() / "templates"
    return {str(path.relative_to(root)): path.read_text(encoding="utf-8") for path in _files(root)}


def _files(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.iterdir()):
        if path.is_dir():
            yield from _files(path)
        elif not path.name.startswith("."):
            yield path
