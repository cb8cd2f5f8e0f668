"""LAD, label-assisted distillation (Qiu et al. 2024): a teacher that sees the label, noised, teaches one that does not."""
