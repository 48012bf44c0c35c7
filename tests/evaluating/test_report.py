"""The page, as a reader's browser would see it."""

import base64
import io
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import sync_playwright

from millrace.evaluating.asking import Answer, Failure, Outcome
from millrace.evaluating.data import Example
from millrace.evaluating.kinds import Kind
from millrace.evaluating.report import write_report
from millrace.evaluating.result import Result, read_result, write_result
from tests.evaluating.examples import labelled, make_dataset, make_result, scored
from tests.load.test_report import CHROMIUM, HOSTILE, TEXTS_OUTSIDE, Page


def page_of(result: Result, folder: Path) -> Page:
    write_report(result, folder / "report.html")
    return Page((folder / "report.html").read_text())


def animals(*labels: str, wrong: int = 3) -> Result:
    """Some wrong, compared with one of which more are."""
    examples = labelled(*labels)
    names = sorted(set(labels))

    def answer(place: int, truth: str, count: int) -> Answer:
        given = names[(names.index(truth) + (place < count)) % len(names)]
        return scored(**{name: 0.8 if name == given else 0.2 / max(len(names) - 1, 1) for name in names})

    after, before = (
        {one.id: answer(place, one.truth, count) for place, one in enumerate(examples)} for count in (wrong, 2 * wrong)
    )
    return make_result(make_dataset(examples), after, before=before)


@pytest.fixture(scope="module")
def usual() -> Result:
    return animals(*["cat", "dog", "owl"] * 10)


def test_a_page_needs_nothing_but_itself(usual: Result, tmp_path: Path) -> None:
    page = page_of(usual, tmp_path)
    assert "default-src 'none'" in page.html
    for tag, attributes in page.elements:
        assert tag not in {"script", "iframe", "object", "embed"}
        for name in ("src", "href", "data"):
            assert (attributes.get(name) or "#").startswith(("#", "data:")), (tag, attributes)
    assert not re.search(r"url\((?!#)", page.html)


def test_a_classification_has_all_its_figures(usual: Result, tmp_path: Path) -> None:
    page = page_of(usual, tmp_path)
    assert page.titles() == {"Confusion matrix", "ROC", "Precision over recall", "Calibration"}
    assert "#0a0b" not in page.html
    assert "Accuracy 90.00 % 74.38 to 96.54 % " in page.text
    assert "animals/1 animals/2 difference" in page.text
    assert "cat dog" in page.text


def test_text_of_others_is_shown_and_never_obeyed(tmp_path: Path) -> None:
    examples = [
        Example(id=HOSTILE, text=HOSTILE, truth=HOSTILE),
        Example(id="1", text="a", truth=r"$\frac{"),
        Example(id="2", text="a", truth="c"),
    ]
    outcomes: dict[str, Outcome] = {
        HOSTILE: Answer(label="c", scores={HOSTILE: 0.1, "c": 0.9}),
        "1": Answer(label=HOSTILE, scores={HOSTILE: 0.8, r"$\frac{": 0.2}),
        "2": Failure(code="INTERNAL", reason=HOSTILE, message=HOSTILE),
    }
    page = page_of(make_result(make_dataset(examples, name=HOSTILE), outcomes), tmp_path)
    assert "script" not in {tag for tag, _ in page.elements}
    assert page.text.count(HOSTILE) >= 8
    assert r"$\frac{" in page.text


def test_examples_that_failed_are_told_with_what_the_service_says(tmp_path: Path) -> None:
    failed = Failure(code="INVALID_ARGUMENT", reason="INVALID_REQUEST", message="text: is too long")
    outcomes: dict[str, Outcome] = {"0": scored(cat=1.0), "1": failed, "2": failed}
    result = make_result(make_dataset(labelled("cat", "cat", "cat")), outcomes)
    assert (result.system.answered, result.system.failed) == (1, 2)
    assert "INVALID_ARGUMENT INVALID_REQUEST 2 1 text: is too long" in page_of(result, tmp_path).text


def test_a_long_text_is_cut(tmp_path: Path) -> None:
    examples = [Example(id="0", text="x" * 100_000, truth="cat")]
    result = make_result(make_dataset(examples), {"0": scored(dog=1.0)})
    assert len(page_of(result, tmp_path).html) < 60_000
    assert result.system.worst[0].excerpt.endswith("…")


def test_wrong_answers_come_before_right_ones_that_were_not_sure() -> None:
    outcomes: dict[str, Outcome] = {"0": scored(cat=0.51, dog=0.49), "1": scored(cat=0.6, dog=0.4)}
    result = make_result(make_dataset(labelled("cat", "dog")), outcomes)
    assert [one.id for one in result.system.worst] == ["1", "0"]


def thumbnail(example: Example) -> Image.Image | None:
    result = make_result(make_dataset([example], "infer"), {example.id: Answer(label="no")})
    encoded = result.system.worst[0].thumbnail
    return Image.open(io.BytesIO(base64.b64decode(encoded))) if encoded else None


@pytest.mark.parametrize("shape", [(8, 8), (1, 8, 8), (3, 8, 8), (8, 8, 3), (200, 100)])
def test_tensors_that_may_be_pictures_are_shown(shape: tuple[int, ...]) -> None:
    array = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    shown = thumbnail(Example(id="0", arrays={"x": array}, truth="yes"))
    assert shown is not None
    assert max(shown.size) == min(max(shape), 72)


@pytest.mark.parametrize("array", [np.zeros(3), np.zeros((2, 2)), np.full((8, 8), np.nan), np.array([["a"] * 8] * 8)])
def test_tensors_that_are_none_are_not(array: np.ndarray) -> None:
    assert thumbnail(Example(id="0", arrays={"x": array}, truth="yes")) is None


def test_images_are_shown_small_and_broken_ones_not_at_all(tmp_path: Path) -> None:
    Image.new("RGB", (640, 480), "red").save(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes((tmp_path / "a.png").read_bytes()[:60])
    shown = thumbnail(Example(id="0", file=tmp_path / "a.png", medium="image", truth="yes"))
    assert shown is not None
    assert shown.size == (72, 54)
    assert thumbnail(Example(id="0", file=tmp_path / "b.png", medium="image", truth="yes")) is None


def vectors() -> dict[str, Outcome]:
    from millrace.evaluating.asking.answer import from_vector

    return {"d0": from_vector([1, 0]), "d1": from_vector([0, 1]), "q": from_vector([1, 0.5])}


@pytest.mark.parametrize(
    ("kind", "examples", "outcomes", "said"),
    [
        ("generate", labelled("a", "b"), {"0": Answer(text="a"), "1": Answer(text="c")}, "Exact match 50.00 %"),
        ("perplexity", labelled(""), {"0": Answer(nats=2.0, tokens=2, bytes=4)}, "Perplexity 2.718"),
        ("transcribe", labelled("a b"), {"0": Answer(text="a c")}, "1 of 2 words"),
        (
            "embed",
            [Example(id="d0"), Example(id="d1"), Example(id="q", text="who", relevant={"d1": 1.0})],
            vectors(),
            "NDCG@10 63.09 %",
        ),
    ],
)
def test_each_kind_has_a_page(
    kind: Kind, examples: list[Example], outcomes: dict[str, Outcome], said: str, tmp_path: Path
) -> None:
    page = page_of(make_result(make_dataset(examples, kind), outcomes), tmp_path)
    assert said in page.text
    assert "nan" not in page.words


def test_data_of_one_class_and_of_very_many_have_pages_too(tmp_path: Path) -> None:
    assert "Confusion matrix" not in page_of(animals("cat", "cat", wrong=0), tmp_path).titles()
    many = page_of(animals(*(f"label {place}" for place in range(150))), tmp_path)
    assert "Confusion matrix" not in many.titles()


def test_a_result_survives_being_written(usual: Result, tmp_path: Path) -> None:
    write_result(usual, tmp_path / "result.json")
    assert read_result(tmp_path / "result.json") == usual
    assert '"schema": "millrace.evaluation/1"' in (tmp_path / "result.json").read_text()
    (tmp_path / "result.json").write_text("{}")
    with pytest.raises(ValueError, match="is not a result"):
        read_result(tmp_path / "result.json")


@pytest.mark.skipif(not CHROMIUM.exists(), reason="needs Debian's Chromium")
def test_a_browser_shows_it_without_scrolling_sideways_or_complaints(usual: Result, tmp_path: Path) -> None:
    page_of(usual, tmp_path)
    said: list[str] = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 800, "height": 900})
        page.on("console", lambda message: said.append(message.text))
        page.goto((tmp_path / "report.html").as_uri())
        for width in (420, 800, 1240):
            page.set_viewport_size({"width": width, "height": 900})
            assert page.evaluate("document.documentElement.scrollWidth") <= width
            assert page.evaluate(TEXTS_OUTSIDE) == []
        browser.close()
    assert said == []
