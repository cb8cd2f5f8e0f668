"""A report as one HTML page that needs no other file: tables, figures with captions, and a legend in words."""

import base64
import re
from pathlib import Path

from cli.lazy import jinja2

CAPTIONS = {
    "noise": "Test scores against the share of noisy training annotations: a line per method, a band of one standard deviation "
             "over the seeds. The dotted line is the training on clean annotations.",
    "gain": "The score above the baseline against the AUROC of the weights. It shows whether weights that find more of the "
            "noisy annotations also win more. Each point is a method at one share of noisy annotations.",
    "learning_curves": "Scores on the validation annotations after each epoch, or, without validation, the training loss. "
                       "Noisy validation annotations can rank the methods differently from the test annotations.",
    "weights": "How many annotations have which weight, for each set of weights. Good weights put noisy annotations on the "
               "left and untouched ones on the right.",
    "examples": "The annotations with the lowest and the highest weights: image, annotation, and the teacher's pseudo-label. "
                "The file name of the annotation stands below it.",
}
SCORE_WORDS = {  # by the title of a score; a page explains those that its tables show
    "mIoU": "Overlap of prediction and annotation: common area over joint area, averaged over the classes. 100 % is a perfect "
            "match.",
    "BF": "Match of the outlines: precision and recall of boundary pixels within a small tolerance (--theta). Coarse masks "
          "change it more than they change mIoU.",
    "Dice": "Overlap like mIoU: twice the common area over the sum of both areas.",
    "Boundary IoU": "mIoU of narrow bands along the outlines alone. Small errors of the outline lower it more than mIoU.",
    "Accuracy": "Share of the test images whose predicted class is their true class.",
    "Balanced accuracy": "Accuracy of each class, averaged over the classes: rare classes count as much as frequent ones.",
    "Recall": "Share of the test images of a class that are predicted as this class.",
    "AP": "Average precision: area under the curve of precision over recall. 100 % means that all objects are found, and "
          "nothing else.",
}
RUN_WORDS = {  # by the name of a run of the main job; a page explains those that its tables show
    "noisy": "The run without weights: all masks count alike.",
    "kd_bm": "The run by weights of teacher and student, the paper's NLKD. bm is the mean of BF and mIoU, from 0 to 1: how "
             "well a mask and a prediction agree.",
    "own": "The run by own weights: the network's own scores, averaged over its training, say which masks to doubt. It needs "
           "no teacher.",
    "own2": "A second pass after own: it goes on from that network, which says where doubted masks count and, of binary ones, "
            "where their outlines belong.",
    "own3": "A third pass after own2, the recommended option. All three together are three trainings.",
    "clean": "The run on masks without noise, the best that weights could reach.",
}
WORDS = {
    "\u0394": "Difference to the baseline, the training without weights, in percentage points. A difference of less than "
              "about 2 points in one seed may be chance.",
    "gap recovered": "Share of the distance between the baseline and the training on clean annotations that a method wins "
                     "back, in percent: 0 is as low as the baseline, 100 as high as the training on clean annotations.",
    "AUROC": "How well the weights tell untouched annotations from noisy ones: 1 means always right, 0.5 means chance. It is "
             "known only where the noise was added.",
    "weights": "Trust in each training annotation, from 0 (does not count) to 1 (counts fully), such as how well the "
               "prediction of a teacher agrees with it, or how likely a classifier finds the label.",
    "noise": "Share of the training annotations known to be changed or wrong, whether the noise was added or the annotations "
             "came with it. No noise is added to test annotations.",
}


def report_page(title: str, text: str, pictures: dict[str, Path], lead: str | None = None) -> str:
    """A report as HTML.

    Args:
        title: heading of the page.
        text: Markdown of tables and paragraphs.
        pictures: dict of a name in CAPTIONS -> path of a PNG.
        lead: the paragraph of `text` that stands on top.
    """
    figures = [{"name": name, "caption": CAPTIONS.get(name, name), "data": base64.b64encode(Path(path).read_bytes()).decode()}
               for name, path in pictures.items()]
    folder = jinja2.FileSystemLoader(Path(__file__).parent)
    template = jinja2.Environment(loader=folder, autoescape=True).get_template("page.html")
    blocks = [_block(block) for block in text.strip().split("\n\n")]
    words = {word: meaning for word, meaning in SCORE_WORDS.items() if any(_names(block, word) for block in blocks)}
    runs = {line[0].split(",")[0] for block in blocks for line in block.get("lines", [])}
    if "kd_bm" in runs:  # no other runs than those of the main job bear this name
        words = {**{name: meaning for name, meaning in RUN_WORDS.items() if name in runs}, **words}
    return template.render(title=title, lead=lead, blocks=blocks, figures=figures, words={**words, **WORDS})


def _names(block: dict, word: str) -> bool:
    """Whether the heading of a table names a score: as the whole title, beside others ("IoU / BF"), or with a spread."""
    parts = [part.split(" \u00b1 ")[0] for cell in block.get("heading", []) for part in cell.split(" / ")]
    return word.lower() in (part.lower() for part in parts)


def _block(block: str) -> dict:
    """A block of Markdown for the template.

    Returns:
        of a table, dict of `heading` (texts), `lines` (lists of texts) and `files` (whether it lists files); of other text,
        dict of `text`.
    """
    if not block.startswith("|"):
        return {"text": block}
    heading, _, *lines = [[cell.replace("\\|", "|").strip() for cell in re.split(r"(?<!\\)\|", line.strip()[1:-1])]
                          for line in block.splitlines()]
    return {"heading": heading, "lines": lines, "files": "mask" in heading}
