"""report.html of an audit: one file that needs no other, made to stay quick with thousands of masks.

What a row says is small and stands together; its picture (a WebP, outlines as SVG paths) stands in chunks of CHUNK rows, which
the page reads when they are looked at.
"""

from __future__ import annotations

import base64
import hashlib
import itertools
import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd

from cli.lazy import jinja2
from data.pictures import resize_image

CHUNK = 25  # rows
LARGE, SMALL, LARGE_ROWS = 480, 200, 150  # px of the pictures' longer side: of the worst LARGE_ROWS rows, of all others
MANY = 1000  # rows: with fewer, all pictures are large
QUALITY = 62  # of WebP
FINE = 4  # parts of a pixel that outlines are drawn in
KINDS = {"loose": "too loose", "tight": "too tight", "hasty": "hasty outline", "missing": "object missing",
         "extra": "object too many", "swapped": "class swapped", "fine": "fine"}
WORDS = {
    "judge": "What your masks are compared with: a network's predictions, averaged over its training on these very masks, "
             "or the masks or the network that you named. A judge can be wrong: look before you fix.",
    "score": "How well a mask agrees with the judge, from 0 to 1. The order counts, not the number.",
    "too loose, too tight": "The outline lies outside, or inside, the judge's all along, by so many pixels of the mask's file.",
    "hasty outline": "The outline wanders to both sides of the judge's, cuts corners, or leaves parts of the object out.",
    "object missing": "The judge sees an object that is not annotated.",
    "object too many": "An object is annotated where the judge sees none of its class.",
    "class swapped": "The judge sees the same object, of another class.",
    "in doubt": "Share of all outlines that lie further from one another than the tolerance.",
}


def picture_side(position: int, count: int) -> int:
    """Longer side, px, of the picture of the row at a position of the ranking of `count` rows."""
    return LARGE if count <= MANY or position < LARGE_ROWS else SMALL


def picture_of(image: np.ndarray, labels: np.ndarray, predicted: np.ndarray, wrong: np.ndarray, classes: Sequence[int],
               side: int) -> list:
    """What the page needs to draw a row: [width, height, image, annotation, proposal, doubt].

    The image is a data address, the next three are SVG paths; all in FINE-ths of the picture's pixels.

    Args:
        image: uint8 (H, W, 3), RGB, of any size.
        labels, predicted: uint8 (H', W'), 255 = ignored.
        wrong: bool (H', W'), doubtful pixels.
        classes: whose outlines are drawn.
        side: px of the longer side.
    """
    height, width = labels.shape
    scale = side / max(height, width)
    size = max(1, round(height * scale)), max(1, round(width * scale))
    done, content = cv2.imencode(".webp", resize_image(image, size)[:, :, ::-1], [cv2.IMWRITE_WEBP_QUALITY, QUALITY])
    assert done
    scale *= FINE
    address = "data:image/webp;base64," + base64.b64encode(content.tobytes()).decode()
    own, other = (" ".join(filter(None, (path_of(each == c, scale) for c in classes))) for each in (labels, predicted))
    return [size[1] * FINE, size[0] * FINE, address, own, other, path_of(wrong, scale)]


def path_of(region: np.ndarray, scale: float) -> str:
    """The outlines of a region, bool (H, W), holes too, as an SVG path in whole units of 1 / scale px."""
    padded = cv2.copyMakeBorder(region.astype(np.uint8), 1, 1, 1, 1, cv2.BORDER_CONSTANT)
    # doubled, so that the outline runs along the pixels' edges and not through their centres
    outlines, _ = cv2.findContours(cv2.resize(padded, None, fx=2, fy=2, interpolation=cv2.INTER_NEAREST), cv2.RETR_CCOMP,
                                   cv2.CHAIN_APPROX_NONE)
    parts = []
    for outline in outlines:
        points = cv2.approxPolyDP((outline[:, 0] * 0.5 - 0.75).astype(np.float32) * scale, FINE * 0.6, closed=True)
        steps = np.rint(points[:, 0]).astype(int)
        if len(steps) > 2:
            moves = np.diff(steps, axis=0)
            parts.append(f"M{steps[0][0]} {steps[0][1]}l" + " ".join(f"{x} {y}" for x, y in moves) + "z")
    return "".join(parts)


def audit_page(rows: list[dict[str, Any]], pictures: Iterable[list], title: str, lead: str, tolerance: str,
               tables: list[dict]) -> Iterator[str]:
    """The page, piece by piece, so that no more than a chunk of pictures is in memory.

    Args:
        rows: of each mask, worst first: `image`, `mask` (texts), `score`, `kind`, `offset` (px or None), `class`, `doubt`,
            `annotator` (text or None), `verdict` (a sentence), `parts` (sentences), `shape` (width, height).
        pictures: of `picture_of`, in the same order.
        lead: paragraph on top.
        tolerance: in words.
        tables: each a dict of `title`, `heading`, `lines`.
    """
    # ticks are kept under it: the same masks keep them when they are judged anew
    digest = hashlib.sha1(json.dumps(sorted([row["image"], row["mask"]] for row in rows)).encode()).hexdigest()[:16]
    folder = Path(__file__).parent
    template = jinja2.Environment(loader=jinja2.FileSystemLoader(folder), autoescape=True).get_template("audit.html")
    data = _inline({"id": digest, "chunk": CHUNK, "rows": rows, "kinds": list(KINDS.items())})
    bars = histogram([row["score"] for row in rows], [row["kind"] for row in rows])
    return template.generate(title=title, lead=lead, tolerance=tolerance, tables=tables, words=WORDS, data=data,
                             chunks=_chunks(pictures), histogram=bars,
                             css=(folder / "audit.css").read_text(encoding="utf-8"),
                             js=(folder / "audit.js").read_text(encoding="utf-8"))


def _chunks(pictures: Iterable[list]) -> Iterator[str]:
    """The pictures, CHUNK of them at a time, as JSON for the page."""
    pictures = iter(pictures)
    while chunk := list(itertools.islice(pictures, CHUNK)):
        yield _inline(chunk)


def _inline(content: Any) -> str:
    """JSON that may stand inside a script element: no tag can end it."""
    return json.dumps(content, separators=(",", ":"), ensure_ascii=False).replace("<", "\\u003c")


def histogram(scores: Sequence[float], kinds: Sequence[str], bars: int = 20, height: int = 85) -> list[dict]:
    """Bars of the scores' distribution: dicts of `fine` and `wrong`, px of the masks that are fine or not, and `text`."""
    fine = np.array([kind == "fine" for kind in kinds], bool)
    edges = np.linspace(0, 1, bars + 1)
    parts = [np.histogram(np.array(scores, float)[chosen], edges)[0] for chosen in (fine, ~fine)]  # (bars,) each
    most = max(1, (parts[0] + parts[1]).max())
    return [{"fine": round(height * good / most), "wrong": round(height * bad / most),
             "text": f"{edges[k]:.2f} to {edges[k + 1]:.2f}: {good} fine, {bad} not"}
            for k, (good, bad) in enumerate(zip(*parts))]


def group_table(table: pd.DataFrame, column: str, title: str) -> dict:
    """Masks, mean score and kinds of each value of a column, as a table of the page, lowest mean score first.

    Args:
        table: of the rows: `column`, `score`, `kind`, `offset`.
    """
    kinds = [kind for kind in KINDS if (table["kind"] == kind).any()]
    lines = []
    groups = table.groupby(column)
    for name in groups["score"].mean().sort_values().index:
        group = groups.get_group(name)
        offset = group.loc[group["kind"].isin(["loose", "tight"]), "offset"].median()
        lines.append([str(name), str(len(group)), f"{group['score'].mean():.2f}", "-" if np.isnan(offset) else f"{offset:+.1f}",
                      *(f"{100 * (group['kind'] == kind).mean():.0f} %" for kind in kinds)])
    return {"title": title, "heading": [column, "masks", "mean score", "median offset, px", *(KINDS[kind] for kind in kinds)],
            "lines": lines}
