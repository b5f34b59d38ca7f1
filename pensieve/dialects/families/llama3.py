"""Llama 3.1 and later: an answer is either text, or the JSON of a call and nothing else."""

from pensieve.dialects.dialect import CallForm, Dialect

DIALECT = Dialect(
    "llama3",
    CallForm(
        opening="",
        before_name='{"name": "',
        after_name='", "parameters": ',
        after_arguments="}",
        closing="",
        between="; ",
        keys=("name", "parameters"),
    ),
)


def dialect_in(template: str) -> Dialect | None:
    return DIALECT if "<|start_header_id|>" in template and '"parameters"' in template else None
