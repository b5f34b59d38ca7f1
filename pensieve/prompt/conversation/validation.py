"""Check a whole conversation before it is rendered; the one place that refuses a valid body.

Refused are fields that contradict each other or the API's version, calls without results, and what
no model served here can do, so that nothing requested is ignored silently. Error messages are
Anthropic's, from which clients recover: Claude Code replaces an image.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

from pensieve.api.messages.content_blocks import (
    ContentBlock,
    ContentSource,
    DocumentBlock,
    DocumentPart,
    ImageBlock,
    MCPToolResultBlock,
    ReadImage,
    ResultPart,
    SearchResultBlock,
    TextBlock,
    ToolResultBlock,
    ToolUseBlock,
    UrlSource,
)
from pensieve.api.messages.options import EnabledThinking
from pensieve.api.messages.request import (
    ApiVersion,
    Conversation,
    CountTokensRequest,
    MessagesRequest,
    Turn,
)
from pensieve.api.messages.tools import AnyChoice, ComputerUseTool, NamedChoice, ServerTool
from pensieve.errors import InvalidRequestError, TooManyToolsError
from pensieve.prompt.conversation.turns import is_silent

MAX_BLOCKS = 100_000
MAX_TOOLS = 128
MAX_DEFERRED_TOOLS = 10_000

_INTERLEAVED = "interleaved-thinking-2025-05-14"


def validate(call: Conversation, api_version: ApiVersion, stored_turns: int = 0) -> None:
    """Raise `InvalidRequestError` for a conversation that cannot be answered as requested.

    Its first `stored_turns` turns come from its thread and were validated with their own request:
    paths in errors count from the turn after them.
    """
    sent = call.messages[stored_turns:]
    _check_limits(call, sent)
    _check_tools(call)
    _check_blocks(sent, api_version)
    match call:
        case MessagesRequest():
            _check_max_tokens(call, api_version)
        case CountTokensRequest(thread=thread) if thread is not None:
            # Counting the new messages alone would return a wrong number.
            raise InvalidRequestError("thread: Extra inputs are not permitted")
        case _:
            pass
    _check_content_supported(call, sent)
    _check_order(call.messages, stored_turns)
    _check_choice(call)
    if isinstance(call, MessagesRequest):
        _check_generation_supported(call)


# Fields that contradict each other or the API's version.


def _check_limits(call: Conversation, sent: Sequence[Turn]) -> None:
    """Limit the work of a request, generously for any real client."""
    blocks = len(call.system)
    for turn in sent:
        results = (block for block in turn.content if isinstance(block, ToolResultBlock))
        blocks += len(turn.content) + sum(len(block.content) for block in results)
    if blocks > MAX_BLOCKS:
        raise InvalidRequestError(
            f"messages: at most {MAX_BLOCKS} content blocks can be given, not {blocks}"
        )
    loaded = sum(not tool.defer_loading for tool in call.tools)
    if loaded > MAX_TOOLS or len(call.tools) > MAX_DEFERRED_TOOLS:
        deferred = len(call.tools) - loaded
        raise TooManyToolsError(
            f"tools: at most {MAX_TOOLS} tools can be given, and {MAX_DEFERRED_TOOLS} with"
            f" `defer_loading`, not {loaded} and {deferred}"
            if deferred
            else f"tools: at most {MAX_TOOLS} tools can be given, not {loaded}"
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


def _check_max_tokens(call: MessagesRequest, api_version: ApiVersion) -> None:
    if call.max_tokens == 0:
        _check_no_answer(call)
    elif isinstance(call.thinking, EnabledThinking):
        is_between_tools = _INTERLEAVED in api_version.betas and bool(call.tools)
        if call.thinking.budget_tokens >= call.max_tokens and not is_between_tools:
            raise InvalidRequestError("`max_tokens` must be greater than `thinking.budget_tokens`.")


def _check_no_answer(call: MessagesRequest) -> None:
    conflicts = {
        "`stream` is true": call.stream,
        "`thinking` is enabled": isinstance(call.thinking, EnabledThinking),
        "`output_config.format` is set": call.output_schema is not None,
        "`tool_choice` forces a tool": isinstance(call.tool_choice, AnyChoice | NamedChoice),
    }
    for condition, is_met in conflicts.items():
        if is_met:
            raise InvalidRequestError(
                f"max_tokens: Input should be greater than or equal to 1 when {condition}"
            )


def _check_blocks(turns: Sequence[Turn], api_version: ApiVersion) -> None:
    for index, turn in enumerate(turns):
        for block_index, block in enumerate(turn.content):
            path = f"messages.{index}.content.{block_index}"
            _check_role(turn, block, path)
            if api_version.version == "2026-10-21":
                _check_new_version(turn, block, path)


def _check_role(turn: Turn, block: ContentBlock, path: str) -> None:
    if isinstance(block, ToolUseBlock) and turn.role != "assistant":
        raise InvalidRequestError(f"{path}: `tool_use` blocks can only be in `assistant` messages")
    if isinstance(block, ToolResultBlock) and turn.role != "user":
        raise InvalidRequestError(f"{path}: `tool_result` blocks can only be in `user` messages")


def _check_new_version(turn: Turn, block: ContentBlock, path: str) -> None:
    if turn.role == "assistant" and isinstance(block, DocumentBlock):
        raise InvalidRequestError(f"{path}: `document` blocks can only be in `user` messages")
    if turn.role == "user":
        for text, text_path in _citable_texts(block, path):
            if text.citations:
                raise InvalidRequestError(f"{text_path}.citations: Extra inputs are not permitted")


def _citable_texts(block: ContentBlock, path: str) -> Iterator[tuple[TextBlock, str]]:
    if isinstance(block, TextBlock):
        yield block, f"{path}.text"
    if isinstance(block, SearchResultBlock):
        for index, text in enumerate(block.content):
            yield text, f"{path}.search_result.content.{index}"


def _check_choice(call: Conversation) -> None:
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


# Calls and their results.


def _check_order(turns: Sequence[Turn], stored_turns: int) -> None:
    """Check that tool uses have unique ids and that their results are in the next user turn."""
    unanswered: dict[str, int] = {}  # tool use id to turn index
    seen: set[str] = set()
    for index, turn in enumerate(turns):
        path_index = index - stored_turns if index >= stored_turns else index
        match turn.role:
            case "assistant":
                unanswered |= dict.fromkeys(_new_ids(turn, path_index, seen), path_index)
            case "user":
                _remove_answered(turn, path_index, unanswered)
                if not _is_followed_by_user(turns, index):
                    _check_all_answered(unanswered)
                    unanswered = {}
            case "system":
                pass
    _check_all_answered(unanswered)


def _new_ids(turn: Turn, path_index: int, seen: set[str]) -> list[str]:
    ids: list[str] = []
    for block_index, block in enumerate(turn.content):
        if isinstance(block, ToolUseBlock):
            if block.id in seen:
                raise InvalidRequestError(
                    f"messages.{path_index}.content.{block_index}: `tool_use` ids must be unique"
                )
            seen.add(block.id)
            ids.append(block.id)
    return ids


def _remove_answered(turn: Turn, path_index: int, unanswered: dict[str, int]) -> None:
    for block_index, block in enumerate(turn.content):
        if isinstance(block, ToolResultBlock) and unanswered.pop(block.tool_use_id, None) is None:
            raise InvalidRequestError(
                f"messages.{path_index}.content.{block_index}: unexpected `tool_use_id` found in"
                f" `tool_result` blocks: {block.tool_use_id}. Each `tool_result` block must"
                " have a corresponding `tool_use` block in the previous message."
            )


def _is_followed_by_user(turns: Sequence[Turn], index: int) -> bool:
    """Return whether the next turn, apart from system turns, is a user turn, too.

    Such user turns count as one.
    """
    after = index + 1
    while after < len(turns) and turns[after].role == "system":
        after += 1
    return after < len(turns) and turns[after].role == "user"


def _check_all_answered(unanswered: dict[str, int]) -> None:
    if not unanswered:
        return
    first = next(iter(unanswered.values()))
    ids = ", ".join(name for name, index in unanswered.items() if index == first)
    raise InvalidRequestError(
        f"messages.{first}: `tool_use` ids were found without `tool_result` blocks immediately"
        f" after: {ids}. Each `tool_use` block must have a corresponding `tool_result` block in the"
        " next message."
    )


# What no model served here can do.


def _check_content_supported(call: Conversation, sent: Sequence[Turn]) -> None:
    """Refuse content that text models cannot read, tools out of reach, and empty user turns."""
    if call.mcp_servers:
        raise InvalidRequestError(
            "mcp_servers: MCP servers are not reached from this server. Connect them to the client."
        )
    for index, tool in enumerate(call.tools):
        if isinstance(tool, ComputerUseTool):
            raise InvalidRequestError(
                f"tools.{index}: '{tool.type}' is not supported by this model: it needs image input"
            )
    for index, turn in enumerate(sent):
        _refuse_turn(turn, f"messages.{index}", call.model)


def _refuse_turn(turn: Turn, path: str, model: str) -> None:
    if turn.role == "user" and all(map(is_silent, turn.content)):
        raise InvalidRequestError(
            f"{path}: all messages must have non-empty content"
            " except for the optional final assistant message"
        )
    for part, part_path in _parts(turn.content, f"{path}.content"):
        if isinstance(part, ReadImage):
            if turn.role != "user":
                raise InvalidRequestError(
                    f"{part_path}: `image` blocks can only be in `user` messages"
                )
        elif isinstance(part, ImageBlock):
            raise InvalidRequestError(
                f"{part_path}.image: Could not process image:"
                f" model '{model}' does not support image input"
            )
        if isinstance(part, DocumentBlock) and isinstance(part.source, UrlSource):
            raise InvalidRequestError(
                f"{part_path}.document: Could not process document:"
                " documents by URL are not fetched; send them as base64"
            )


def _parts(
    blocks: Iterable[ContentBlock | ResultPart | DocumentPart], path: str
) -> Iterator[tuple[ContentBlock | ResultPart | DocumentPart, str]]:
    """Yield every block with its path, including those in tool results and documents."""
    for at, block in enumerate(blocks):
        part_path = f"{path}.{at}"
        yield block, part_path
        match block:
            case ToolResultBlock() | MCPToolResultBlock():
                yield from _parts(block.content, f"{part_path}.{block.type}.content")
            case DocumentBlock(source=ContentSource(content=content)):
                yield from _parts(content, f"{part_path}.document.source.content")
            case _:
                pass


def _check_generation_supported(call: MessagesRequest) -> None:
    if call.compaction is not None:
        raise InvalidRequestError("compaction: Extra inputs are not permitted")
    if call.output_schema is not None and call.messages[-1].role == "assistant":
        raise InvalidRequestError(
            "output_config.format: Prefilling assistant messages is not supported"
            " with structured output"
        )
    hosted = _server_tools(call)
    match call.tool_choice:
        case NamedChoice(name=name) if name in hosted:
            raise InvalidRequestError(
                f"tool_choice.name: '{name}' is a tool of the hosted API and cannot be run here"
            )
        case AnyChoice() if len(hosted) == len(call.tools):
            raise InvalidRequestError(
                "tool_choice: 'any' cannot be honoured: all tools are the hosted API's, and none of"
                " them can be run here"
            )
        case _:
            pass


def _server_tools(call: Conversation) -> set[str]:
    return {tool.name for tool in call.tools if isinstance(tool, ServerTool)}
