"""The text of a COCO JSON, read so that the classes of its annotations can be changed and every other byte stays."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cli.files import UserError

SPACE = re.compile(r"[ \t\r\n]*")
DECODER = json.JSONDecoder()
Span = tuple[int, int]  # where a value begins and ends in the text


def is_whole(value: Any) -> bool:
    """Whether a value of a JSON is a whole number; true and false are none."""
    return isinstance(value, int) and not isinstance(value, bool)


def is_coco(path: Path | str) -> bool:
    """Whether a file of rows is a COCO JSON, by its name's end."""
    return Path(path).suffix.lower() == ".json"


def categories_of(path: Path | str, content: Any) -> list[dict]:
    """The categories of a COCO JSON by ascending id: dicts with `id`, `name` and, where the file has it, `supercategory`.

    Args:
        path: for messages.
        content: of the file.

    Raises:
        UserError: there are fewer than two, or ids or names are missing or occur twice.
    """
    found = content.get("categories") if isinstance(content, dict) else None
    if not isinstance(found, list) or not all(isinstance(each, dict) and is_whole(each.get("id"))
                                              and isinstance(each.get("name"), str) for each in found):
        raise UserError(f"{path}: not a COCO JSON: `categories` must be a list of objects, each with a whole `id` and a `name`")
    for key in ("id", "name"):
        if len({each[key] for each in found}) < len(found):
            raise UserError(f"{path}: two categories have the same {key}")
    if len(found) < 2:
        raise UserError(f"{path}: {len(found)} categories; two or more are needed")
    return sorted(found, key=lambda each: each["id"])


class CocoText:
    """A COCO JSON as text.

    Attributes:
        ids: of the annotations, list of N.
        labels: their category ids as text, list of N str.
        names, groups: of the C categories by ascending id; a category without a super-category is a group of its own.
        numbers: int64 (N,), position of each annotation's category among them.
    """

    def __init__(self, path: Path | str) -> None:
        """Read a file.

        Raises:
            UserError: it is no COCO JSON, or an annotation has no id or a category that the file does not list.
        """
        try:
            self._text = Path(path).read_bytes().decode("utf-8")
            content = json.loads(self._text)
        except OSError as error:
            raise UserError(f"{path}: {error.strerror or error}") from None
        except (ValueError, RecursionError) as error:
            raise UserError(f"{path}: not a JSON ({str(error).splitlines()[0]})") from None
        categories = categories_of(path, content)
        self.category_ids = [each["id"] for each in categories]
        self.names = [each["name"] for each in categories]
        self.groups = [each.get("supercategory") or f"only {each['name']}" for each in categories]
        annotations = content.get("annotations")
        if not isinstance(annotations, list) or not annotations:
            raise UserError(f"{path}: has no `annotations`")
        position = {number: place for place, number in enumerate(self.category_ids)}
        for place, each in enumerate(annotations):
            if not isinstance(each, dict) or not is_whole(each.get("id")) or not is_whole(each.get("category_id")) or (
                    each["category_id"] not in position):
                raise UserError(f"{path}: annotation {place + 1} of the list needs an `id`, and a `category_id` that is one of "
                                "`categories`, both whole numbers")
        self.ids = [each["id"] for each in annotations]
        if len(set(self.ids)) < len(self.ids):
            raise UserError(f"{path}: two annotations have the same id")
        self.numbers = np.array([position[each["category_id"]] for each in annotations], dtype=np.int64)
        self.labels = [str(each["category_id"]) for each in annotations]
        self._spans = list(_category_spans(self._text))
        if len(self._spans) != len(annotations):
            raise UserError(f"{path}: a key stands twice in the file or in one annotation; write it anew by a JSON library")

    def with_labels(self, labels: Sequence[str]) -> str:
        """The text with N other category ids."""
        pieces, done = [], 0
        for (start, end), label in zip(self._spans, labels):
            pieces += [self._text[done:start], label]
            done = end
        return "".join([*pieces, self._text[done:]])


def _category_spans(text: str) -> Iterator[Span]:
    """Where the value of each annotation's `category_id` stands, in the order of the file; `text` is a valid JSON."""
    for key, (start, _) in _members(text, SPACE.match(text, 0).end()):  # type: ignore[union-attr]
        if key == "annotations":
            for element, _ in _elements(text, start):
                yield from (span for name, span in _members(text, element) if name == "category_id")


def _members(text: str, start: int) -> Iterator[tuple[str, Span]]:
    """(key, span of the value) of each member of the object that begins at `start`."""
    position = _after(text, start + 1)
    while text[position] != "}":
        key, position = DECODER.raw_decode(text, position)
        value = _after(text, _after(text, position) + 1)  # behind the colon
        end = DECODER.raw_decode(text, value)[1]
        yield key, (value, end)
        position = _after(text, end)
        position = _after(text, position + 1) if text[position] == "," else position


def _elements(text: str, start: int) -> Iterator[Span]:
    """Span of each element of the array that begins at `start`."""
    position = _after(text, start + 1)
    while text[position] != "]":
        end = DECODER.raw_decode(text, position)[1]
        yield position, end
        position = _after(text, end)
        position = _after(text, position + 1) if text[position] == "," else position


def _after(text: str, position: int) -> int:
    """The first position from here on that is no space."""
    found = SPACE.match(text, position)
    assert found  # it matches anything
    return found.end()
