import pytest

from cfscale.errors import ActionError, InputError
from cfscale.render.engine import Engine


def test_a_quoted_value_is_printed_and_never_evaluated_again() -> None:
    assert Engine({"a": "x: {{ value | yaml }}\n"}).render("a", {"value": "{{ 7 * 7 }}"}) == 'x: "{{ 7 * 7 }}"\n'


@pytest.mark.parametrize("template", ["{{ value }}", "{{ 'text' }}", "{{ 7 }}", "{{ value | yaml ~ 'x' }}"])
def test_an_unquoted_value_is_an_error(template: str) -> None:
    with pytest.raises(ActionError, match="no filter has quoted"):
        Engine({"a": template}).render("a", {"value": "x"})


@pytest.mark.parametrize(
    "template",
    ["{{ valeu | yaml }}", "{{ value.nothing | yaml }}", "{% if value %}", "{{ value | upper }}", "{% include 'b' %}"],
    ids=["name", "attribute", "syntax", "filter", "include"],
)
def test_a_mistake_in_a_template_names_the_template(template: str) -> None:
    with pytest.raises(ActionError, match=r"^templates/a\.j2: "):
        Engine({"a.j2": template}).render("a.j2", {"value": "x"})


@pytest.mark.parametrize(
    "template",
    [
        "{{ value.__class__ | yaml }}",
        "{{ ''.__class__.__mro__[1].__subclasses__() | yaml }}",
        "{{ cycler.__init__.__globals__.os.system('id') | yaml }}",
        "{% if value.append('x') %}{% endif %}",
    ],
)
def test_the_sandbox_holds(template: str) -> None:
    with pytest.raises(ActionError):
        Engine({"a": template}).render("a", {"value": ["x"]})


def test_a_value_that_cannot_be_written_is_the_input_s_fault() -> None:
    with pytest.raises(InputError):
        Engine({"a": "{{ value | cfg }}"}).render("a", {"value": "a\nb"})
