"""Jobs of what a user may do with coarse masks instead of weighting them: refine, select, correct or filter."""

from pathlib import Path

from cli.files import read_json
from reports.experiment import OWN, PASSES, PLAIN, TEACHER, Cell
from reports.plan import Job, with_needs


def refined_masks(cell: Cell, method: str) -> Job:
    """CSV of the masks that `method` of benchmarks/refine_masks.py has refined; a job."""
    return cell.prepared(f"csv/train_{method}.csv", [cell.noisy, cell.clean], "benchmarks/refine_masks.py",
                         "--csv", cell.noisy.result, "--method", method, "--truth", cell.clean.result,
                         "--size", *cell.settings.size, "--theta", cell.settings.theta)


def refined(cell: Cell, method: str) -> Job:
    """A training on refined masks."""
    return cell.student(method, PLAIN, refined_masks(cell, method))


def refined_own(cell: Cell, method: str) -> Job:
    """The last of the passes of own weights on refined masks."""
    return cell.passes([f"{method}_{each}" for each in PASSES], OWN, refined_masks(cell, method))[-1]


def filtered(cell: Cell, name: str, drop: str) -> Job:
    """A training without the rows or pixels that confident learning drops, by the predictions of out-of-fold teachers."""
    teacher = cell.teacher(cell.settings.teacher)
    rows = cell.prepared(f"csv/train_{name}.csv", [cell.noisy, teacher], "benchmarks/confident_filter.py",
                         "--csv", cell.noisy.result, "--teacher", teacher.result.parent, "--drop", drop,
                         "--size", *cell.settings.size, *["--flip"] * cell.settings.flip)
    return cell.student(name, TEACHER, rows)


def small_loss(cell: Cell) -> Job:
    """A training on the samples of the smallest loss; the share of noisy masks is read from the CSV, as by Co-teaching."""
    return cell.student("small_loss", "benchmarks/small_loss.py", cell.noisy, "--ramp-epochs", cell.settings.ramp_epochs)


def drop_worst(cell: Cell) -> Job:
    """A training without the masks of the lowest BF by out-of-fold teachers, as many as are noisy."""
    share = 0.2 if isinstance(cell.share, str) or cell.share == 1 else cell.share  # where all are noisy as Co-teaching
    weights = cell.weights(cell.settings.teacher, "bf")
    return cell.student("drop_worst", PLAIN, weights, "--drop-worst", share)


def adele(cell: Cell) -> Job:
    """A training with early-learning correction."""
    return cell.student("adele", "benchmarks/adele.py", cell.noisy)


def seconds_spent(job: Job) -> float:
    """Seconds of a training and of all that prepares it: teachers, refinement, filter; without noise, scoring and tests."""
    spent = 0.0
    for each in with_needs([job]):
        for path in _records(each):
            spent += read_json(path).get("seconds", 0.0)
    return spent


def _records(job: Job) -> list[Path]:
    """The JSON files that tell the seconds of a job."""
    if job.result.name == "teacher.json":
        return sorted(job.result.parent.glob("fold*/result.json"))
    record = job.result.with_suffix(".json")
    return [record] if record.exists() else []
