"""Queries and their pages."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pensieve.api.files import FilesQuery, page_token, upload_fields
from pensieve.api.models import ModelsQuery
from pensieve.api.pagination import CursorQuery, window
from pensieve.errors import InvalidRequestError

IDS = [f"id_{number}" for number in range(50)]


@given(count=st.integers(0, 50), limit=st.integers(1, 60))
def test_forward_pages_contain_every_id_once_in_order(count: int, limit: int) -> None:
    ids, seen, query = IDS[:count], [], CursorQuery(limit=limit)
    while (page := window(ids, query)).has_more:
        seen += ids[page.start : page.stop]
        query = CursorQuery(limit=limit, after_id=seen[-1])
    assert seen + ids[page.start : page.stop] == ids


@given(start=st.integers(0, 49), limit=st.integers(1, 60))
def test_backward_pages_contain_every_earlier_id_once(start: int, limit: int) -> None:
    seen: list[str] = []
    query = CursorQuery(limit=limit, before_id=IDS[start])
    while (page := window(IDS, query)).has_more:
        seen = IDS[page.start : page.stop] + seen
        query = CursorQuery(limit=limit, before_id=seen[0])
    assert IDS[page.start : page.stop] + seen == IDS[:start]


@pytest.mark.parametrize("name", ["after_id", "before_id"])
def test_an_unknown_cursor_is_refused(name: str) -> None:
    with pytest.raises(InvalidRequestError, match=f"{name}: no object here has this id"):
        window(IDS, CursorQuery.of([(name, "unknown")]))


def test_two_cursors_are_refused() -> None:
    with pytest.raises(InvalidRequestError, match="only one"):
        window(IDS, CursorQuery.of([("after_id", "id_1"), ("before_id", "id_2")]))


@pytest.mark.parametrize(
    ("limit", "message"),
    [
        ("0", "limit: Input should be greater than or equal to 1"),
        ("-1", "limit: Input should be greater than or equal to 1"),
        ("1001", "limit: Input should be less than or equal to 1000"),
        *(
            (
                text,
                "limit: Input should be a valid integer, unable to parse string as an integer",
            )
            for text in ("", "x", "1.0", "1_0", " 1", "+1", "\u0661", "9" * 5000)
        ),
    ],
)
def test_an_invalid_limit_is_refused(limit: str, message: str) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        CursorQuery.of([("limit", limit)])
    assert caught.value.message == message


def test_a_query_takes_the_last_value_or_the_whole_list_and_ignores_unknown_names() -> None:
    query = ModelsQuery.of(
        [
            ("limit", "5"),
            ("beta", "true"),
            ("limit", "7"),
            ("lifecycle[]", "active"),
            ("lifecycle[]", "retired"),
        ]
    )
    assert (query.limit, query.lifecycle) == (7, ("active", "retired"))


def test_an_unknown_lifecycle_is_refused() -> None:
    with pytest.raises(InvalidRequestError, match=r"lifecycle\[\].1: Input should be 'active', "):
        ModelsQuery.of([("lifecycle[]", "active"), ("lifecycle[]", "young")])


@pytest.mark.parametrize("other", [("limit", "5"), ("page", page_token((1.0, "file_x")))])
def test_ids_together_with_a_page_or_limit_are_refused(other: tuple[str, str]) -> None:
    assert FilesQuery.of([("ids[]", "a"), ("ids[]", "b")]).ids == ("a", "b")
    with pytest.raises(InvalidRequestError, match=r"ids\[\]: not together with page or limit"):
        FilesQuery.of([("ids[]", "a"), other])


def test_more_than_a_hundred_distinct_ids_are_refused() -> None:
    ids = [("ids[]", f"file_{number}") for number in range(100)]
    assert len(FilesQuery.of([*ids, ids[0]]).ids) == 101
    with pytest.raises(InvalidRequestError, match="at most 100"):
        FilesQuery.of([*ids, ("ids[]", "file_100")])


@pytest.mark.parametrize("seconds", [3600, 7776000])
def test_an_expiry_of_an_hour_to_ninety_days_is_accepted(seconds: int) -> None:
    assert upload_fields({"expires_in_seconds": str(seconds)}).expires_in_seconds == seconds
    assert upload_fields({"other": "x"}).expires_in_seconds is None


@pytest.mark.parametrize("text", ["3599", "7776001", "", "1h", "3600.5"])
def test_any_other_expiry_is_refused(text: str) -> None:
    with pytest.raises(InvalidRequestError, match="expires_in_seconds: Input should be"):
        upload_fields({"expires_in_seconds": text})
