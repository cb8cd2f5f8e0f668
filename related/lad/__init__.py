"""LAD, label-assisted distillation (Qiu et al. 2024): a teacher that sees its label, noised, teaches a network that sees none."""
