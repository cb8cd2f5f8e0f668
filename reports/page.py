"""A report as one HTML page that needs no other file: tables, figures with captions, and a legend in words."""

import base64
import re
from pathlib import Path

from cli.lazy import LazyModule

jinja2 = LazyModule("jinja2")

CAPTIONS = {
    "noise": "Test scores against the share of noisy training masks: a line per method, a band of one standard deviation over "
             "the seeds. The dotted line is the training on clean masks.",
    "gain": "BF above the baseline against AUROC: do weights that find more of the noisy masks also win more? A point per "
            "method and share of noisy masks.",
    "learning_curves": "Scores after each epoch on the validation annotations, or the training loss where there are none. "
                       "Coarse validation annotations can rank the methods otherwise than the test masks do.",
    "weights": "How many annotations have which weight, for each set of weights. Good weights put noisy masks on the left and "
               "untouched ones on the right.",
    "examples": "The annotations with the lowest and the highest weights: image, annotation, and the teacher's pseudo-label. "
                "The mask's file name stands under its annotation.",
}
WORDS = {
    "mIoU": "Overlap of prediction and test mask: common area over joint area, averaged over the classes. 100 % is a perfect "
            "match.",
    "BF": "Match of the outlines: precision and recall of boundary pixels within a small tolerance (--theta). It reacts to "
          "coarse masks more than mIoU does.",
    "\u0394": "Difference to the baseline, the training without weights, in percentage points. Differences of one seed below "
              "about 2 points may be chance.",
    "gap recovered": "Share of the distance between the baseline and the training on clean masks that a method wins back, in "
                     "percent: 0 is as bad as no weights, 100 as good as clean masks.",
    "AUROC": "How well the weights tell untouched masks from noisy ones: 1 is always, 0.5 is by chance. It is known only where "
             "the noise was added.",
    "weights": "Trust in each training mask, from 0 (does not count) to 1 (counts fully). A teacher that never saw the mask "
               "gives it, by how well its own prediction agrees with the mask.",
    "noise": "Masks that were made coarse on purpose, at random, to see whether the weights find them. Test masks are never "
             "changed.",
}


def report_page(title: str, text: str, pictures: dict, lead: str | None = None) -> str:
    """The page.

    Args:
        text: Markdown of tables and paragraphs.
        pictures: dict of a name in CAPTIONS -> path of a PNG.
        lead: the paragraph of `text` that stands on top.
    """
    figures = [{"name": name, "caption": CAPTIONS.get(name, name), "data": base64.b64encode(Path(path).read_bytes()).decode()}
               for name, path in pictures.items()]
    folder = jinja2.FileSystemLoader(Path(__file__).parent)
    template = jinja2.Environment(loader=folder, autoescape=True).get_template("page.html")
    blocks = [_block(block) for block in text.strip().split("\n\n")]
    return template.render(title=title, lead=lead, blocks=blocks, figures=figures, words=WORDS)


def _block(block):
    """A Markdown table as dict of `heading`, `lines` and `files`, whether it lists files; other text as dict of `text`."""
    if not block.startswith("|"):
        return {"text": block}
    heading, _, *lines = [[cell.replace("\\|", "|").strip() for cell in re.split(r"(?<!\\)\|", line.strip()[1:-1])]
                          for line in block.splitlines()]
    return {"heading": heading, "lines": lines, "files": "mask" in heading}
