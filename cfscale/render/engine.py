"""Templates to text: an immutable sandbox in which an unknown name or an unquoted value is an error.

Templates are looked up in the mapping that is passed in; nothing is read from disk.
"""

from collections.abc import Mapping

from jinja2 import DictLoader, StrictUndefined, TemplateError, Undefined
from jinja2.sandbox import ImmutableSandboxedEnvironment

from cfscale.errors import ActionError
from cfscale.render import emit


class Engine:
    """A set of templates, ready to render."""

    def __init__(self, templates: Mapping[str, str]) -> None:
        self._environment = ImmutableSandboxedEnvironment(
            loader=DictLoader(templates),
            undefined=StrictUndefined,
            finalize=_quoted,
            autoescape=False,  # not HTML; ``finalize`` lets nothing through that no filter has quoted
            trim_blocks=True,
            lstrip_blocks=True,
            keep_trailing_newline=True,
        )
        self._environment.filters = {"yaml": emit.yaml, "cfg": emit.cfg, "word": emit.word, "raw": emit.raw}

    def render(self, name: str, context: Mapping[str, object]) -> str:
        """The text of one template; raises ActionError naming it, and InputError for a value that cannot be written."""
        try:
            return self._environment.get_template(name).render(context)
        except TemplateError as error:
            raise ActionError(f"templates/{name}: {error}: repair the template or reinstall cfscale") from error


def _quoted(value: object) -> object:
    if isinstance(value, emit.Emitted | Undefined):
        return value
    raise ActionError("a template prints a value that no filter has quoted: add '| yaml', '| cfg' or '| word'")
