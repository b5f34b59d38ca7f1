"""What must hold between the fields of a request, beyond each field's own form. Raises in Anthropic's words.

`check_call` looks at a request as it was sent; `check_order` at a whole conversation, a thread's earlier turns included.
"""

from collections import Counter
from collections.abc import Iterator, Sequence

from pensieve.api.messages.content_blocks import (
    ContentBlock,
    DocumentBlock,
    SearchResultBlock,
    TextBlock,
    ToolResultBlock,
    ToolUseBlock,
)
from pensieve.api.messages.options import EnabledThinking
from pensieve.api.messages.request import Conversation, CountTokensRequest, MessagesRequest, Turn
from pensieve.api.messages.tools import AnyChoice, NamedChoice, ServerTool
from pensieve.api.version import ApiVersion
from pensieve.errors import InvalidRequestError, TooManyToolsError

MAX_BLOCKS = 100_000
MAX_TOOLS = 128
MAX_DEFERRED_TOOLS = 10_000

_INTERLEAVED = "interleaved-thinking-2025-05-14"


def check_call(call: Conversation, edition: ApiVersion) -> None:
    """Raises `InvalidRequestError` where the fields of `call` contradict each other or its edition of the API."""
    _check_amounts(call)
    _check_tools(call)
    _check_places(call.messages, edition)
    match call:
        case MessagesRequest():
            _check_lengths(call, edition)
        case CountTokensRequest(thread=thread) if thread is not None:
            # Counting the new messages alone would be a wrong number.
            raise InvalidRequestError("thread: Extra inputs are not permitted")
        case _:
            pass


def _check_amounts(call: Conversation) -> None:
    """Bounds on what a request makes the server do, with more room than any client needs."""
    blocks = len(call.system)
    for turn in call.messages:
        results = (block for block in turn.content if isinstance(block, ToolResultBlock))
        blocks += len(turn.content) + sum(len(block.content) for block in results)
    if blocks > MAX_BLOCKS:
        raise InvalidRequestError(
            f"messages: at most {MAX_BLOCKS} content blocks can be given, not {blocks}"
        )
    loaded = sum(not tool.defer_loading for tool in call.tools)
    if loaded > MAX_TOOLS or len(call.tools) > MAX_DEFERRED_TOOLS:
        raise TooManyToolsError(
            f"tools: at most {MAX_TOOLS} tools can be given, and {MAX_DEFERRED_TOOLS} with"
            f" `defer_loading`, not {loaded} and {len(call.tools) - loaded}"
        )


def _check_tools(call: Conversation) -> None:
    names = Counter(tool.name for tool in call.tools if tool.name)
    if any(count > 1 for count in names.values()):
        raise InvalidRequestError("tools: Tool names must be unique.")
    own = [tool for tool in call.tools if not isinstance(tool, ServerTool)]
    has_search = any(isinstance(tool, ServerTool) and tool.is_search for tool in call.tools)
    if own and not has_search and all(tool.defer_loading for tool in own):
        raise InvalidRequestError(
            "tools: All tools have defer_loading: true. At least one must be loaded from the start."
        )


def check_choice(call: Conversation) -> None:
    """Raises `InvalidRequestError` for a choice of a tool that is not there. A thread's tools count."""
    match call.tool_choice:
        case NamedChoice(name=name) if name not in {tool.name for tool in call.tools}:
            raise InvalidRequestError(
                f"tool_choice.name: Tool '{name}' not found in provided tools"
            )
        case AnyChoice() if not call.tools:
            raise InvalidRequestError(
                "tool_choice: `tool_choice` may only be specified while providing `tools`."
            )
        case _:
            pass


def _check_lengths(call: MessagesRequest, edition: ApiVersion) -> None:
    if call.max_tokens == 0:
        _check_no_answer_is_shaped(call)
    elif isinstance(call.thinking, EnabledThinking):
        is_between_tools = _INTERLEAVED in edition.betas and bool(call.tools)
        if call.thinking.budget_tokens >= call.max_tokens and not is_between_tools:
            raise InvalidRequestError("`max_tokens` must be greater than `thinking.budget_tokens`.")


def _check_no_answer_is_shaped(call: MessagesRequest) -> None:
    shaped = {
        "`stream` is true": call.stream,
        "`thinking` is enabled": isinstance(call.thinking, EnabledThinking),
        "`output_config.format` is set": call.output_schema is not None,
        "`tool_choice` forces a tool": isinstance(call.tool_choice, AnyChoice | NamedChoice),
    }
    for words, is_so in shaped.items():
        if is_so:
            raise InvalidRequestError(
                f"max_tokens: Input should be greater than or equal to 1 when {words}"
            )


def _check_places(turns: Sequence[Turn], edition: ApiVersion) -> None:
    for index, turn in enumerate(turns):
        for at, block in enumerate(turn.content):
            path = f"messages.{index}.content.{at}"
            _check_role(turn, block, path)
            if edition.version == "2026-10-21":
                _check_newer_rules(turn, block, path)


def _check_role(turn: Turn, block: ContentBlock, path: str) -> None:
    if isinstance(block, ToolUseBlock) and turn.role != "assistant":
        raise InvalidRequestError(f"{path}: `tool_use` blocks can only be in `assistant` messages")
    if isinstance(block, ToolResultBlock) and turn.role != "user":
        raise InvalidRequestError(f"{path}: `tool_result` blocks can only be in `user` messages")


def _check_newer_rules(turn: Turn, block: ContentBlock, path: str) -> None:
    if turn.role == "assistant" and isinstance(block, DocumentBlock):
        raise InvalidRequestError(f"{path}: `document` blocks can only be in `user` messages")
    if turn.role == "user":
        for cited, where in _cited(block, path):
            if cited.citations:
                raise InvalidRequestError(f"{where}.citations: Extra inputs are not permitted")


def _cited(block: ContentBlock, path: str) -> Iterator[tuple[TextBlock, str]]:
    if isinstance(block, TextBlock):
        yield block, f"{path}.text"
    if isinstance(block, SearchResultBlock):
        for at, text in enumerate(block.content):
            yield text, f"{path}.search_result.content.{at}"


def check_order(turns: Sequence[Turn], *, kept: int = 0) -> None:
    """Every tool use has one id of its own and its result in the next user turn, and no result is without its use.

    kept: how many of the turns a thread already held; paths count from the first that was sent.
    """
    asked: dict[str, int] = {}
    seen: set[str] = set()
    for index, turn in enumerate(turns):
        shown = index - kept if index >= kept else index
        match turn.role:
            case "assistant":
                asked |= dict.fromkeys(_new_ids(turn, shown, seen), shown)
            case "user":
                _answer(turn, shown, asked)
                if not _is_followed_by_user(turns, index):
                    _check_all_answered(asked)
                    asked = {}
            case "system":
                pass
    _check_all_answered(asked)


def _new_ids(turn: Turn, shown: int, seen: set[str]) -> list[str]:
    ids: list[str] = []
    for at, block in enumerate(turn.content):
        if isinstance(block, ToolUseBlock):
            if block.id in seen:
                raise InvalidRequestError(
                    f"messages.{shown}.content.{at}: `tool_use` ids must be unique"
                )
            seen.add(block.id)
            ids.append(block.id)
    return ids


def _answer(turn: Turn, shown: int, asked: dict[str, int]) -> None:
    for at, block in enumerate(turn.content):
        if isinstance(block, ToolResultBlock) and asked.pop(block.tool_use_id, None) is None:
            raise InvalidRequestError(
                f"messages.{shown}.content.{at}: unexpected `tool_use_id` found in `tool_result`"
                f" blocks: {block.tool_use_id}. Each `tool_result` block must have a corresponding"
                " `tool_use` block in the previous message."
            )


def _is_followed_by_user(turns: Sequence[Turn], index: int) -> bool:
    """User turns after each other are one; a system turn between them does not part them."""
    after = index + 1
    while after < len(turns) and turns[after].role == "system":
        after += 1
    return after < len(turns) and turns[after].role == "user"


def _check_all_answered(asked: dict[str, int]) -> None:
    if not asked:
        return
    first = next(iter(asked.values()))
    ids = ", ".join(name for name, shown in asked.items() if shown == first)
    raise InvalidRequestError(
        f"messages.{first}: `tool_use` ids were found without `tool_result` blocks immediately"
        f" after: {ids}. Each `tool_use` block must have a corresponding `tool_result` block in the"
        " next message."
    )
