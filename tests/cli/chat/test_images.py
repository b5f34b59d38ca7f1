"""Pictures of a question: by an option, or dragged into the line."""

import json
from base64 import b64decode
from pathlib import Path

import pytest

from pensieve.cli.chat.images import MAX_BYTES, dragged, read_image
from pensieve.cli.chat.transcript import Transcript, load, save
from pensieve.cli.client.messages import Turn
from pensieve.errors import UsageError
from tests.cli.chat.test_conversation import talk
from tests.cli.fake_server import message, serving
from tests.cli.program import pensieve
from tests.support.pictures import picture


def written(folder: Path, name: str = "a.png", content: bytes | None = None) -> Path:
    path = folder / name
    path.write_bytes(picture() if content is None else content)
    return path


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "WEBP"])
def test_a_picture_is_known_by_its_first_bytes(kind: str, tmp_path: Path) -> None:
    block = read_image(written(tmp_path, content=picture(kind=kind)))
    assert block.source.media_type == f"image/{kind.lower()}"
    assert b64decode(block.source.data) == picture(kind=kind)


def test_other_files_are_refused(tmp_path: Path) -> None:
    for path, words in [
        (written(tmp_path, content=b"text"), "is no PNG, JPEG, GIF or WebP picture"),
        (written(tmp_path, "b.png", picture() + bytes(MAX_BYTES)), "is larger than 7 MB"),
        (tmp_path / "none.png", "cannot be read: No such file"),
        (tmp_path, "cannot be read: Is a directory"),
    ]:
        with pytest.raises(UsageError, match=words):
            read_image(path)


def test_dragged_paths_are_pictures_and_the_rest_is_the_question(tmp_path: Path) -> None:
    one, two = written(tmp_path), written(tmp_path, "two words.PNG")
    written(tmp_path, "a.txt")
    escaped = str(two).replace(" ", "\\ ")
    assert dragged(f"{one} what is it?") == ("what is it?", (one,))
    assert dragged(f"compare {escaped} '{two}' \"{one}\"") == ("compare", (two, two, one))
    for line in ("what's up", f"{tmp_path}/a.txt x", f"{tmp_path}/no.png", "a.png", "it's /a.png'"):
        assert dragged(line) == (line, ())


def test_a_dragged_picture_is_sent_before_the_question_and_again(tmp_path: Path) -> None:
    path = written(tmp_path)
    with talk(tmp_path, message("Red."), message("Square.")) as chat:
        assert chat.run(f"{path} Which colour?", "Which shape?") == 0
        (_, first), (_, second) = chat.server.calls
    image, text = first["messages"][0]["content"]
    assert b64decode(image["source"]["data"]) == picture()
    assert text["text"] == "Which colour?"
    assert second["messages"][0] == first["messages"][0]
    assert len(second["messages"][2]["content"]) == 1


def test_a_picture_alone_waits_for_the_question(tmp_path: Path) -> None:
    path = written(tmp_path)
    with talk(tmp_path, message("Red.")) as chat:
        assert chat.run(str(path), "Which colour?") == 0
        ((_, call),) = chat.server.calls
    assert [block["type"] for block in call["messages"][0]["content"]] == ["image", "text"]


def test_pictures_of_an_option_are_sent_in_their_order(tmp_path: Path) -> None:
    red = written(tmp_path)
    blue = written(tmp_path, "b.png", picture(colour="blue"))
    with serving(message("x")) as server:
        where = {"PENSIEVE_PORT": str(server.server_port)}
        files = ["--image", str(red), "--image", str(blue)]
        done = pensieve("chat", *files, "What?", home=tmp_path, **where)
        ((_, body),) = server.calls
    assert done.returncode == 0
    *images, text = body["messages"][0]["content"]
    contents = [b64decode(image["source"]["data"]) for image in images]
    assert contents == [picture(), picture(colour="blue")]
    assert text["text"] == "What?"
    refused = pensieve("chat", "--image", "none.png", "What?", home=tmp_path)
    assert refused.returncode != 0
    assert b"none.png cannot be read" in refused.stderr


def test_a_saved_conversation_has_its_pictures(tmp_path: Path) -> None:
    question = Turn("user", "Which?", images=(read_image(written(tmp_path)),))
    path = tmp_path / "saved.json"
    save(path, Transcript((question, Turn("assistant", "Red.")), ""))
    assert load(path).turns[0] == question
    broken = json.loads(path.read_text())
    broken["messages"][0]["content"].reverse()
    path.write_text(json.dumps(broken))
    with pytest.raises(UsageError, match="is not a conversation"):
        load(path)
