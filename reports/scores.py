"""The names and titles of scores. A run's result.json tells them: `titles` (score name -> title) and `compared` (names)."""

from collections.abc import Sequence

from cli.files import UserError
from engine.task import SEGMENTATION
from utils.metrics import markdown_table, mean_percent

Results = dict[str, dict]  # folder of a run -> content of its result.json
PER_CLASS = "_per_class"  # end of the name of a score that is a list, one value per class


def titles_of(result: dict) -> dict[str, str]:
    """Score name -> title. A result.json without `titles` is of a segmentation run: an older
    version, which had only segmentation, wrote it."""
    return result.get("titles") or SEGMENTATION.columns()


def compared_of(result: dict) -> list[str]:
    """Names of the scores that runs are compared by."""
    return list(result.get("compared") or SEGMENTATION.compared)


def check_same_scores(results: Results) -> None:
    """Raise UserError unless all runs are compared by the same scores."""
    first_folder, first = next(iter(results.items()))
    for folder, result in results.items():
        if compared_of(result) != compared_of(first):
            raise UserError(f"{folder}: is compared by {', '.join(compared_of(result))}, {first_folder} by "
                            f"{', '.join(compared_of(first))}; tabulate them apart")


def compared_titles(results: Results) -> dict[str, str]:
    """Name -> title of the scores that runs are compared by."""
    first = next(iter(results.values()))
    return {name: titles_of(first).get(name, name) for name in compared_of(first)}


def column_titles(results: Results) -> dict[str, str]:
    """Name -> title of the scores that have a column: the compared ones first, then all that are one share in every run."""
    first, compared = next(iter(results.values())), compared_titles(results)
    others = {name: title for name, title in titles_of(first).items() if name not in compared and _is_share(name, results)}
    return {**compared, **others}


def _is_share(name: str, results: Results) -> bool:
    """Whether each run has the score, as a float or as None; lists and counts are none."""
    tests = [scores for result in results.values() for which in ("test", "test_last") for scores in result[which]]
    return all(name in scores and (scores[name] is None or isinstance(scores[name], float)) for scores in tests)


def class_titles(results: Results) -> dict[str, str]:
    """Name -> title of the scores of each class, where there are more than two classes: recall_per_class -> Recall."""
    first = next(iter(results.values()))
    titles, scores = titles_of(first), first["test"][0]
    names = [name for name in scores if name.endswith(PER_CLASS) and isinstance(scores[name], list) and len(scores[name]) > 2]
    names.sort(key=lambda name: list(titles).index(name) if name in titles else len(titles))
    found = {name: titles.get(name) or titles.get(name.removesuffix(PER_CLASS), name) for name in names}
    return {name: title.removesuffix(" per class") for name, title in found.items()}


def class_count(result: dict) -> int | None:
    """The number of classes: by --num-classes, else by the scores of each class; None where neither is known."""
    lengths = [len(value) for name, value in result["test"][0].items() if name.endswith(PER_CLASS) and isinstance(value, list)]
    return result["args"].get("num_classes") or next(iter(lengths), None)


def class_table(scores_of: dict[str, list[dict]], titles: dict[str, str], classes: Sequence[str]) -> str:
    """The scores of each class as a Markdown table: percent, means over the seeds, a line per class.

    Args:
        scores_of: dict of column title -> test scores, one dict per seed.
        titles: of `class_titles`.
        classes: their names.
    """
    lines = [[name, *(" / ".join(mean_percent(scores[key][c] for scores in seeds) for key in titles)
                      for seeds in scores_of.values())] for c, name in enumerate(classes)]
    return markdown_table([" / ".join(titles.values()), *scores_of], lines)
