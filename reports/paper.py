"""What the paper reports (NLKD, section 4): mIoU and BF in percent, by table, row and share of noisy masks.

Rows go by the names of `tables.py`. Tables 1, 3, 4 and 5 have one figure a row, or one per kind of annotation: the paper's
"Manual Coarse" stands under the name MANUAL, annotations without added noise under 0.
"""

MANUAL = "manual"

Figures = dict[float | str, tuple[float, float]]  # by share of noisy masks
TABLES: dict[str, dict[str, Figures]] = {
    "table1": {  # Supervisely: 4000 clean masks; 500 coarse ones added, with weight 1, with weight 0.5
        "oracle": {MANUAL: (86.88, 59.77)}, "noisy": {MANUAL: (86.14, 55.79)}, "half": {MANUAL: (87.44, 59.74)}},
    "table2": {
        "noisy": {0: (87.10, 60.01), 0.1: (86.14, 55.79), 0.2: (86.13, 52.37), 0.3: (84.64, 48.62), 0.4: (84.60, 44.30),
                  0.5: (84.74, 43.96)},
        "miou": {0.1: (86.69, 57.60), 0.2: (85.89, 53.93), 0.3: (86.38, 52.71), 0.4: (85.03, 50.02), 0.5: (85.13, 43.91)},
        "bf": {0.1: (87.04, 59.34), 0.2: (86.60, 58.05), 0.3: (85.99, 57.53), 0.4: (85.63, 53.48), 0.5: (84.45, 50.14)},
        "bf_kd": {0.1: (87.28, 59.51), 0.2: (86.85, 58.45), 0.3: (86.20, 57.39), 0.4: (85.86, 54.63), 0.5: (85.63, 54.12)},
        "bm": {0.1: (86.62, 57.31), 0.2: (86.82, 57.31), 0.3: (87.24, 58.46), 0.4: (87.08, 57.89), 0.5: (84.95, 46.63)},
        "bm_kd": {0: (87.76, 61.12), 0.1: (87.44, 59.74), 0.2: (86.94, 57.95), 0.3: (86.77, 58.55), 0.4: (87.41, 59.67),
                  0.5: (86.80, 58.03)}},
    "table3": {  # of the paper's two data sets the portraits; CITYSCAPES are the street scenes
        "noisy": {0: (87.10, 60.01), MANUAL: (84.74, 43.96)}, "bm_kd": {0: (87.76, 61.12), MANUAL: (86.80, 58.03)}},
    "table4": {
        "noisy": {MANUAL: (84.74, 43.96)}, "ocrnet_bm_kd": {MANUAL: (85.16, 48.92)},
        "pointrend_bm_kd": {MANUAL: (86.80, 58.03)}, "deeplab": {MANUAL: (86.70, 50.41)},
        "deeplab_ocrnet_bm_kd": {MANUAL: (87.59, 56.12)},
        "deeplab_pointrend_bm_kd": {MANUAL: (87.95, 58.06)}},
    "table5": {
        "noisy": {MANUAL: (84.74, 43.96)}, "decoupling": {MANUAL: (84.12, 43.41)}, "co_teaching": {MANUAL: (84.14, 44.57)},
        "co_teaching+": {MANUAL: (83.16, 41.56)}, "deeplab_taught_bm_kd": {MANUAL: (85.92, 51.63)}},
}
CITYSCAPES: dict[str, Figures] = {
    "noisy": {0: (67.97, 45.50), MANUAL: (59.79, 34.01)}, "bm_kd": {0: (69.51, 48.16), MANUAL: (62.56, 42.98)}}


def published(table: str, row: str, share: float, data_set: str | None) -> tuple[float, float] | None:
    """The paper's (mIoU, BF) in percent, or None.

    Args:
        share: of noisy masks, 0..1. Beyond the shares of Table 2, and in the other tables, every share above 0 counts as the
            paper's Manual Coarse.
        data_set: what is trained on, as its prepare script calls it: "supervisely", "cityscapes" (Table 3 alone); of others
            the paper has no figures.
    """
    tables = {"supervisely": TABLES, "cityscapes": {"table3": CITYSCAPES}}.get(data_set or "", {})
    figures: Figures = tables.get(table, {}).get(row, {})
    return figures.get(share) or (figures.get(MANUAL) if share > 0 else None)
