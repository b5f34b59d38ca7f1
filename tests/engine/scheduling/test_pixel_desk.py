from pensieve.engine.scheduling.pixel_desk import WAIT_S, PixelDesk


def test_a_picture_is_asked_for_once_a_generation() -> None:
    desk = PixelDesk()
    for key in (1, 1, 2):
        desk.want(key, "a")
    assert desk.take_wanted() == [(1, "a"), (2, "a")]
    assert desk.take_wanted() == []


def test_parts_become_a_picture_that_is_kept_until_it_was_looked_at() -> None:
    desk = PixelDesk()
    desk.want(1, "a")
    desk.add("a", b"12", is_last=False)
    assert desk.pixels("a") is None
    desk.add("a", b"3", is_last=True)
    assert desk.pixels("a") == b"123"
    desk.drop("a")
    assert desk.pixels("a") is None


def test_pictures_that_nothing_wants_are_not_kept() -> None:
    desk = PixelDesk()
    desk.add("a", b"1", is_last=True)
    assert desk.pixels("a") is None
    for key, name in ((1, "b"), (2, "b"), (1, "c")):
        desk.want(key, name)
    for name in "bc":
        desk.add(name, b"1", is_last=True)
    desk.forget(1)
    assert (desk.pixels("b"), desk.pixels("c")) == (b"1", None)
    assert desk.take_wanted() == [(2, "b")]


def test_the_main_loop_waits_only_until_a_picture_comes() -> None:
    desk = PixelDesk(is_awaited=True)
    assert desk.wait_s == WAIT_S
    desk.add("a", b"", is_last=False)
    assert desk.wait_s == 0
