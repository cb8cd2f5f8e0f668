"""The rows of the paper's tables, each with the job of its run; `tables.py` runs and tabulates them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum

from reports.experiment import DRAWN, KD, OWN, PASSES, PLAIN, TEACHER, Cell
from reports.plan import Job
from reports.rivals import adele, drop_worst, filtered, refined, refined_own, small_loss

Plan = Callable[[Cell], Job]


class Role(Enum):
    """What a row is for."""

    METHOD = "the method or one of its variants"
    BASELINE = "a training without weights"
    UPPER_BOUND = "a training on clean masks"
    CONTROL = "a check that a gain comes from the weights"


@dataclass
class Row:
    """A line of a table.

    Args:
        name: of its run.
        title: what the reader sees.
        job: function of a cell that gives the job of its run.
        role: controls and upper bounds run once, at the highest share of noisy masks.
        upper: of a baseline, the name of the upper bound of its network: without noise it stands in for the baseline.
        on_clean: whether a method also runs without noise.
        needs_noise_levels: whether its weights need to know which masks are noisy.
    """

    name: str
    title: str
    job: Plan
    role: Role = Role.METHOD
    upper: str | None = None
    on_clean: bool = False
    needs_noise_levels: bool = False

    def stands_at(self, share: float | str, shares: Sequence[float | str]) -> bool:
        """Whether the row has a run at one of the shares."""
        if share == DRAWN and self.needs_noise_levels:
            return False
        if self.role in (Role.UPPER_BOUND, Role.CONTROL):
            return share == shares[-1]
        return share != 0 or self.on_clean


def teacher_row(name: str, title: str, metric: str, student: str = TEACHER, teacher: str | None = None,
                model: str = "smp_unet", on_clean: bool = False, rounds: int = 1, sharpen: bool = False) -> Row:
    """A row of weights by one teacher.

    Args:
        metric: of the weights.
        student: its train script.
        teacher: its network; None: --teacher.
        model: network of the student.
        rounds, sharpen: see `Cell.weights`.
    """
    def job(cell: Cell) -> Job:
        weights = cell.weights(teacher or cell.settings.teacher, metric, rounds, sharpen)
        flags = ["--lambda-warmup", cell.settings.lambda_warmup] if student == KD else []
        return cell.student(name, student, weights, *flags, model=model)

    return Row(name, title, job, on_clean=on_clean)


def two_network_row(name: str, title: str, ramp: bool = True) -> Row:
    """A row of a method that trains two networks at once.

    Args:
        name: of the run; train_NAME.py is its script.
        ramp: whether the script has --ramp-epochs. Co-teaching reads the share of noisy masks from the CSV.
    """
    def job(cell: Cell) -> Job:
        flags = ["--ramp-epochs", cell.settings.ramp_epochs] if ramp else []
        return cell.student(name, f"train_{name}.py", cell.noisy, *flags, model=None)

    return Row(name, title, job)


def baseline_row(name: str, title: str, upper: str, model: str = "smp_unet") -> Row:
    """A row without weights."""
    return Row(name, title, lambda cell: cell.student(name, PLAIN, cell.noisy, model=model), Role.BASELINE, upper)


def upper_bound_row(name: str, title: str, model: str = "smp_unet") -> Row:
    """A row without weights on clean masks."""
    return Row(name, title, lambda cell: cell.student(name, PLAIN, cell.clean, model=model), Role.UPPER_BOUND)


def oracle_row(name: str, title: str, weight: float, role: Role = Role.METHOD) -> Row:
    """A row whose noisy masks, as the noise tool marks them, have one fixed weight."""
    return Row(name, title, lambda cell: cell.student(name, TEACHER, cell.oracle_weights(weight)), role,
               needs_noise_levels=True)


def alternative_row(name: str, title: str, weights_of: Plan | None = None) -> Row:
    """A row of benchmarks/alternatives.py, by the sharpened weights or by those that `weights_of(cell)` gives."""
    def job(cell: Cell) -> Job:
        weights = (weights_of or sharp_weights)(cell)
        return cell.student(name, "benchmarks/alternatives.py", weights, "--way", name, "--pred-dir", weights.pseudo)

    return Row(name, title, job)


def weight_controls(weights_of: Plan, prefix: str = "", needs_noise_levels: bool = False) -> list[Row]:
    """Two controls of the weights that `weights_of(cell)` gives: the same weights in a random order, and their mean for all."""
    def row(name: str, title: str, flag: str) -> Row:
        return Row(name, title, lambda cell: cell.student(name, TEACHER, weights_of(cell), flag), Role.CONTROL,
                   needs_noise_levels=needs_noise_levels)

    return [row(f"{prefix}shuffled", "control: weights of other masks", "--shuffle-weights"),
            row(f"{prefix}constant", "control: everywhere the mean weight", "--mean-weights")]


def pixel_row(name: str, title: str, *flags: str, role: Role = Role.METHOD, on_clean: bool = False) -> Row:
    """A row of sharpened weights by pixels: a mask of low weight still counts in the pixels where its teacher agrees."""
    def job(cell: Cell) -> Job:
        weights = sharp_weights(cell)
        return cell.student(name, TEACHER, weights, "--pixels", weights.pseudo, *flags)

    return Row(name, title, job, role, on_clean=on_clean)


def own_row(passes: Sequence[str], title: str, *flags: str, role: Role = Role.METHOD) -> Row:
    """A row by the student's own scores: the last of these passes, each of which follows the one before."""
    return Row(passes[-1], title, lambda cell: cell.passes(passes, OWN, cell.noisy, *flags)[-1], role,
               on_clean=role is Role.METHOD)


def longer_row(name: str, title: str, annotations: Plan) -> Row:
    """A control of as many epochs as three passes of own weights: three trainings without weights, each from the network of
    the one before, the first of them the run `name`; `annotations(cell)` gives the CSV."""
    names = (name, f"{name}2", f"{name}3")
    return Row(names[-1], title, lambda cell: cell.passes(names, PLAIN, annotations(cell))[-1], Role.CONTROL)


def own_controls(name: str, title: str, flag: str) -> list[Row]:
    """A control of own weights, after one and after three passes; each pass follows the control's own pass before."""
    passes = [f"{each}_{name}" for each in PASSES]
    return [own_row(passes[:1], f"control: own weight, {title}", flag, role=Role.CONTROL),
            own_row(passes, f"control: own weight, third pass, {title}", flag, role=Role.CONTROL)]


def refined_rows(method: str, title: str) -> list[Row]:
    """Rows of masks that `method` of benchmarks/refine_masks.py has refined: without weights, and with own weights."""
    return [Row(method, title, lambda cell: refined(cell, method)),
            Row(f"{method}_own3", f"{title}, then own weight, third pass", lambda cell: refined_own(cell, method))]


def sharp_weights(cell: Cell) -> Job:
    """The weights of the option beyond the paper: sharpened BF of second-round teachers."""
    return cell.weights(cell.settings.teacher, "bf", rounds=2, sharpen=True)


NOISY = baseline_row("noisy", "no weights (baseline)", "clean")
CLEAN = upper_bound_row("clean", "upper bound: clean masks")
DEEPLAB = baseline_row("deeplab", "DeepLabv3+, no weights", "deeplab_clean", "deeplabv3plus")
DEEPLAB_CLEAN = upper_bound_row("deeplab_clean", "DeepLabv3+, clean masks", "deeplabv3plus")
NLKD = teacher_row("bm_kd", "BFmIoU reweight + KD (NLKD)", "bm", KD, on_clean=True)
SHARP = Row("sharp", "beyond the paper: sharpened BF, second round",
            lambda cell: cell.student("sharp", TEACHER, sharp_weights(cell)), on_clean=True)
PIXELS = pixel_row("pixels", "beyond the paper: the same, by pixels", on_clean=True)
OWN1 = own_row(PASSES[:1], "beyond the paper: own weight, one run")
OWN2 = own_row(PASSES[:2], "beyond the paper: own weight, second pass")
OWN3 = own_row(PASSES, "beyond the paper: own weight, third pass")
BEYOND = [SHARP, PIXELS, OWN1, OWN2, OWN3]
ORACLE = oracle_row("oracle", "control: told which masks are noisy, drops them", 0, Role.CONTROL)
CONTROLS = [*weight_controls(sharp_weights), ORACLE,
            pixel_row("pixels_shuffled", "control: by pixels, weights of other masks", "--shuffle-weights", role=Role.CONTROL),
            *own_controls("shuffled", "weights of other masks", "--shuffle-weights"),
            *own_controls("constant", "the mean weight everywhere", "--mean-weights"),
            longer_row("noisy", "control: no weights, three times as long", lambda cell: cell.noisy),
            longer_row("clean", "control: clean masks, three times as long", lambda cell: cell.clean)]

RIVALS = [
    *refined_rows("grabcut", "masks refined by GrabCut"), *refined_rows("densecrf", "masks refined by a dense CRF"),
    Row("small_loss", "small-loss selection", small_loss), Row("drop_worst", "drop the worst by BF, first round", drop_worst),
    Row("adele", "ADELE, correction of labels alone", adele),
    Row("confident_rows", "confident learning drops masks", lambda cell: filtered(cell, "confident_rows", "rows")),
    Row("confident_pixels", "confident learning ignores pixels", lambda cell: filtered(cell, "confident_pixels", "pixels"))]

TABLES: dict[str, tuple[str, list[Row]]] = {
    "table1": ("Table 1: fixed weights for coarse masks among clean ones", [
        NOISY, oracle_row("oracle", "clean ones alone", 0), oracle_row("half", "coarse ones with weight 0.5", 0.5),
        *weight_controls(lambda cell: cell.oracle_weights(0.5), "half_", needs_noise_levels=True), CLEAN]),
    "table2": ("Table 2: weights over the share of noisy masks", [
        NOISY, teacher_row("miou", "mIoU reweight", "miou"), teacher_row("bf", "BF reweight", "bf"),
        teacher_row("bf_kd", "BF reweight + KD", "bf", KD), teacher_row("bm", "BFmIoU reweight", "bm"), NLKD, *BEYOND,
        *CONTROLS, CLEAN]),
    "table3": ("Table 3: clean and coarse annotations", [NOISY, NLKD, *BEYOND, *CONTROLS, CLEAN]),
    "table4": ("Table 4: students and teachers", [
        NOISY, teacher_row("ocrnet_bm_kd", "U-Net + OCRNet", "bm", KD, "ocrnet"),
        teacher_row("pointrend_bm_kd", "U-Net + PointRend", "bm", KD, "pointrend"),
        DEEPLAB,
        teacher_row("deeplab_ocrnet_bm_kd", "DeepLabv3+ + OCRNet", "bm", KD, "ocrnet", "deeplabv3plus"),
        teacher_row("deeplab_pointrend_bm_kd", "DeepLabv3+ + PointRend", "bm", KD, "pointrend", "deeplabv3plus"),
        *BEYOND, *CONTROLS, CLEAN, DEEPLAB_CLEAN]),
    "table5": ("Table 5: methods of two networks", [
        NOISY, two_network_row("decoupling", "Decoupling", ramp=False), two_network_row("co_teaching", "Co-teaching"),
        two_network_row("co_teaching+", "Co-teaching+"),
        teacher_row("deeplab_taught_bm_kd", "NLKD, teacher DeepLabv3+", "bm", KD, "deeplabv3plus"), *BEYOND,
        *CONTROLS, CLEAN, DEEPLAB, DEEPLAB_CLEAN]),
    "alternatives": ("Weightings beyond the paper", [
        NOISY, NLKD, *BEYOND, teacher_row("sharp_once", "sharpened BF, first round", "bf", sharpen=True),
        teacher_row("bf2", "BF as it is, second round", "bf", rounds=2),
        alternative_row("cubed", "BF cubed, second round", lambda cell: cell.weights(cell.settings.teacher, "bf", rounds=2)),
        alternative_row("band", "the band of doubted outlines, second round"),
        alternative_row("relabel", "doubted masks replaced by pseudo-labels"), *CONTROLS, CLEAN]),
    "rivals": ("Instead of weights", [NOISY, *RIVALS, *BEYOND, *CONTROLS, CLEAN]),
}
PAPERS = [table for table in TABLES if table not in ("alternatives", "rivals")]
