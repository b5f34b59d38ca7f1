import datetime
import time
from pathlib import Path

import pytest

from pensieve.errors import InvalidRequestError
from pensieve.models.tokenizer.chat_template import ChatTemplate

MESSAGES = [{"role": "user", "content": "Hi"}]

# Jinja escapes that work without a sandbox; each would create {file}.
ESCAPES = [
    "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "{{ messages.__class__.__base__.__subclasses__() }}",
    "{{ cycler.__init__.__globals__.os.popen('touch {file}').read() }}",
    "{{ joiner.__init__.__globals__['os'].system('touch {file}') }}",
    "{{ lipsum.__globals__.os.system('touch {file}') }}",
    "{{ self.__init__.__globals__.__builtins__.open('{file}', 'w') }}",
    "{{ raise_exception.__globals__['json'].codecs.open('{file}', 'w') }}",
    "{{ strftime_now.__globals__.json.codecs.open('{file}', 'w') }}",
    "{{ strftime_now.__closure__[0].cell_contents.__self__.__class__ }}",
    "{{ ('{0.__class__.__init__.__globals__}').format(cycler) }}",
    "{{ (''|attr('__class__')).__mro__ }}",
    "{{ (messages|map(attribute='__class__')|list)[0].__mro__ }}",
    "{{ messages.append('x') }}",
    "{{ messages[0].update({'role': 'system'}) }}",
    "{% for n in range(999999999) %}x{% endfor %}",
    "{% set f = namespace.__init__ %}{{ f.__globals__ }}",
    "{% include '/etc/passwd' %}",
    "{% import '/etc/passwd' as p %}",
    "{{ dict.__base__.__subclasses__()[0] }}",
    "{{ raise_exception.__code__.co_consts }}",
]


@pytest.mark.parametrize("source", ESCAPES)
def test_a_template_cannot_leave_its_sandbox(source: str, tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    template = ChatTemplate(source.replace("{file}", str(canary)), {})
    messages = [dict(message) for message in MESSAGES]
    with pytest.raises(InvalidRequestError):
        template.render(messages)
    assert not canary.exists()
    assert messages == MESSAGES


@pytest.mark.parametrize("source", ESCAPES)
def test_client_text_is_never_a_template(source: str) -> None:
    template = ChatTemplate("{{ messages[0].content }}", {})
    assert template.render([{"role": "user", "content": source}]) == source


def test_a_refused_conversation_is_an_invalid_request() -> None:
    template = ChatTemplate("{{ raise_exception('roles must alternate') }}", {})
    with pytest.raises(InvalidRequestError, match="roles must alternate"):
        template.render(MESSAGES)


@pytest.mark.parametrize(
    "source", ["{{ messages[7].content }}", "{{ 1 + messages[0].content }}", "{{ 1 // 0 }}"]
)
def test_a_failing_template_is_an_invalid_request(source: str) -> None:
    with pytest.raises(InvalidRequestError):
        ChatTemplate(source, {}).render(MESSAGES)


def test_templates_get_transformers_functions() -> None:
    source = """\
{%- for m in messages %}
    {%- if m.role == 'skip' %}{% continue %}{% endif %}
    {%- generation %}{{ m | tojson }}{% endgeneration %}
    {%- break %}
{%- endfor %}
{{- bos_token }}{{ strftime_now('%d %b %Y') }}{{ add_generation_prompt }}{{ tools is none }}\
{{ sep_token is defined }}"""
    template = ChatTemplate(
        source, {"bos_token": "<s>"}, now=lambda: datetime.datetime(2026, 11, 22)
    )
    messages = [{"role": "skip"}, {"role": "user", "content": "<é & 'x'>"}, {"role": "user"}]
    assert template.render(messages) == (
        '{"role": "user", "content": "<é & \'x\'>"}<s>22 Nov 2026TrueTrueFalse'
    )


def test_blocks_add_no_whitespace() -> None:
    source = (
        "{% for m in messages %}\n    {% if true %}\n{{ m.content }}\n    {% endif %}\n"
        "{% endfor %}\n"
    )
    assert ChatTemplate(source, {}).render(MESSAGES) == "Hi\n"


def test_tojson_accepts_transformers_options() -> None:
    source = "{{ messages[0] | tojson(indent=1, ensure_ascii=True) }}"
    assert ChatTemplate(source, {}).render([{"a": "é"}]) == '{\n "a": "\\u00e9"\n}'


# Templates that would never end or grow without limit.
SPINNING = [
    "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
    "{% for a in range(99999) %}{% for b in range(99999) if a == -b - 1 %}{% endfor %}{% endfor %}",
    "{% macro m(n) %}{% if n %}{{ m(n - 1) }}{{ m(n - 1) }}{% endif %}{% endmacro %}{{ m(60) }}",
    "{% set n = namespace(x='ab') %}{% for a in range(999) %}{% set n.x = n.x ~ n.x %}{% endfor %}",
    "{% set n = namespace(x='ab') %}{% for a in range(999) %}{% set n.x = n.x + n.x %}{% endfor %}",
    "{% set n = namespace(x=[1]) %}{% for a in range(999) %}{% set n.x = n.x + n.x %}{% endfor %}",
    (
        "{% set n = namespace(x=[1]) %}{% for a in range(60) %}{% set n.x = [n.x, n.x] %}"
        "{% endfor %}{{ n.x }}"
    ),
    (
        "{% set n = namespace(x=[1]) %}{% for a in range(60) %}{% set n.x = [n.x, n.x] %}"
        "{% endfor %}{{ n.x | tojson }}"
    ),
    (
        "{% set n = namespace(x='ab') %}{% for a in range(999) %}{% set x %}{{ n.x }}"
        "{{ n.x }}{% endset %}{% set n.x = x %}{% endfor %}"
    ),
    "{% set x = 'ab' * 9999999 %}{% for a in range(99999) %}{{ x }}{% endfor %}",
    "{{ 9 ** 9 ** 9 ** 9 }}",
    "{{ 'x' * 99999999999 }}",
    "{{ [1] * 99999999999 }}",
    "{{ 'x'.center(99999999999) }}",
    "{{ 'x' | center(99999999999) }}",
    "{{ [1] | slice(99999999999) | list }}",
    "{{ [1] | batch(99999999999, 'x') | list }}",
    "{{ 1.5 | round(9999999999) }}",
    "{{ '%999999999d' % 1 }}",
    "{{ '{:999999999}'.format(1) }}",
    "{{ lipsum(999999999) }}",
]


@pytest.mark.parametrize("source", SPINNING)
def test_an_endless_template_is_ended(source: str) -> None:
    """By the thread's CPU time: a busy machine does not shorten it."""
    began_at = time.thread_time()
    with pytest.raises(InvalidRequestError):
        ChatTemplate(source, {}, limit_s=0.2).render(MESSAGES)
    assert time.thread_time() - began_at < 2.0


def test_loop_variables_work_with_limits() -> None:
    """As without limits."""
    source = """\
{%- for m in messages %}{{ loop.index }}/{{ loop.length }}{{ loop.last }}\
{{ loop.previtem is defined }}{{ loop.nextitem }};{% else %}none{% endfor %}
{%- for a, b in pairs.items() %}{{ a ~ b }}{% endfor %}
{%- for m in messages if m != 1 recursive %}{{ m }}{{ loop([7]) if m == 2 }}{% endfor %}
{%- for m in nothing %}{% else %}none{% endfor %}{{ loop_controls }}"""
    template = ChatTemplate(source, {})
    assert template.render([1, 2], {"pairs": {"x": 1}}) == "1/2FalseFalse2;2/2TrueTrue;x127none"


def test_a_long_conversation_is_within_the_limits() -> None:
    source = "{% for m in messages %}{{ '<' ~ m.role ~ '>' + m.content | trim }}{% endfor %}"
    messages = [{"role": "user", "content": "x" * 300}] * 20_000
    assert len(ChatTemplate(source, {}).render(messages)) == 6_120_000


def test_the_names_that_a_template_reads_are_collected() -> None:
    source = "{% set own = told %}{{ own }}{% if enable_thinking is defined %}x{% endif %}"
    template = ChatTemplate(source, {}, tool_source="{{ reasoning_effort }}")
    assert template.names >= {"told", "enable_thinking", "reasoning_effort"}


def test_probes_take_at_most_two_time_limits() -> None:
    render = ChatTemplate(SPINNING[0], {}, limit_s=0.1).probing_render()
    began_at = time.thread_time()
    for _ in range(200):
        with pytest.raises(InvalidRequestError):
            render(MESSAGES)
    assert time.thread_time() - began_at < 0.5
