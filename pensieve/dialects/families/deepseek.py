"""DeepSeek: a section of calls between its own tokens. V3 and R1 also fence the arguments."""

# ruff: noqa: RUF001 -- the family's marks contain these characters

from pensieve.dialects.dialect import CallForm, Dialect

V3 = Dialect(
    "deepseek-v3",
    CallForm(
        opening="<｜tool▁calls▁begin｜>",
        before_name="<｜tool▁call▁begin｜>function<｜tool▁sep｜>",
        after_name="\n```json\n",
        after_arguments="\n```<｜tool▁call▁end｜>",
        closing="<｜tool▁calls▁end｜>",
        separator="\n",
    ),
)
V3_1 = Dialect(
    "deepseek-v3.1",
    CallForm(
        opening="<｜tool▁calls▁begin｜>",
        before_name="<｜tool▁call▁begin｜>",
        after_name="<｜tool▁sep｜>",
        after_arguments="<｜tool▁call▁end｜>",
        closing="<｜tool▁calls▁end｜>",
        separator="",
    ),
)


def dialect_in(template: str) -> Dialect | None:
    if "<｜tool▁calls▁begin｜>" not in template:
        return None
    return V3 if "```json" in template else V3_1
