from pathlib import Path

import pytest
from hypothesis import assume, given, reject
from hypothesis import strategies as st

from pensieve.errors import ModelUnavailableError
from pensieve.models.catalog.find import find
from pensieve.models.catalog.sources import CATALOG, EmbeddedModel, HubModel, LocalModel
from pensieve.models.folder.snapshot import folder_of
from pensieve.settings.resolve import DEFAULT_MODEL

MODELS = Path("/models")


def test_the_default_is_in_the_catalog() -> None:
    assert find(DEFAULT_MODEL) == HubModel(
        "phi-3-mini", "mlx-community/Phi-3-mini-128k-instruct-4bit"
    )


def test_a_catalog_model_is_found_by_its_repository_too_in_any_case() -> None:
    for model in CATALOG:
        assert find(model.repo) is find(model.name.upper()) is model


def test_the_embedded_model_is_pinned_by_hash() -> None:
    model = find("smollm2-135m")
    assert isinstance(model, EmbeddedModel)
    assert len(model.wheel_sha256) == len(model.gguf_sha256) == 64


def test_any_other_repository_name_is_accepted() -> None:
    assert find("mlx-community/Qwen3-0.6B-4bit") == HubModel(
        "mlx-community/Qwen3-0.6B-4bit", "mlx-community/Qwen3-0.6B-4bit"
    )


def test_a_repository_can_name_its_revision_and_has_a_folder_for_it() -> None:
    model = find("owner/name@refs/pr/1")
    assert model == HubModel("owner/name@refs/pr/1", "owner/name", "refs/pr/1")
    assert folder_of(model, MODELS) == MODELS / "owner--name@refs--pr--1"


def test_an_existing_model_folder_precedes_a_repository_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "owner" / "name"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    monkeypatch.chdir(tmp_path)
    assert (
        find("owner/name")
        == find("./owner/name")
        == find(str(folder))
        == LocalModel("name", folder)
    )


def test_a_name_that_begins_like_a_path_is_a_path() -> None:
    assert find("/no/such/folder") == LocalModel("folder", Path("/no/such/folder"))


def test_an_unknown_name_is_refused_with_the_nearest_and_the_list() -> None:
    with pytest.raises(ModelUnavailableError) as refused:
        find("phi3-mini")
    assert refused.value.message == "There is no model called 'phi3-mini'. Did you mean phi-3-mini?"
    assert "pensieve models" in (refused.value.hint or "")
    assert refused.value.exit_code == 69


@pytest.mark.parametrize(
    "name",
    [
        "",
        "gpt",
        "a/b/c",
        "../../etc/passwd/x"[6:],
        "owner/..",
        "owner/na--me",
        "owner/name@",
        "o/n@../x",
        "o/n@-x",
        "ä/b",
    ],
)
def test_an_invalid_name_is_refused(name: str) -> None:
    with pytest.raises(ModelUnavailableError):
        find(name)


valid_parts = st.text("aZ0", min_size=1, max_size=3)
odd_parts = st.text("aZ0._-/@~\\ \n\0é", max_size=8) | st.sampled_from(["..", ".", "a..", "-"])
parts = valid_parts | valid_parts | odd_parts


@given(name=st.tuples(parts, parts).map("/".join))
def test_no_name_leads_outside_the_models_folder(name: str) -> None:
    try:
        source = find(name)
    except ModelUnavailableError:
        reject()
    assume(not isinstance(source, LocalModel))
    folder = folder_of(source, MODELS)
    assert folder.parent == MODELS
    assert folder.name not in {"", ".", ".."}
