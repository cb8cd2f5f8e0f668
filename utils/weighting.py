"""Rules that make weights, on tensors alone. Legend: B samples; every weight lies in 0..1."""


def uniform(weights):
    """w = 1 for every sample; (B,) like `weights`."""
    return weights.new_ones(weights.shape)


def lambda_at(epoch, epochs, warmup=10, maximum=0.5):
    """The student's share in the weight: 0 for the first `warmup` epochs, then linear, `maximum` in the last one.

    Args:
        epoch: current epoch, 0-based.
        epochs: epochs of the whole run; with `epochs` <= `warmup` the share stays 0.

    Source: paper, section 3 (0 for 10 epochs, then up to 0.5).
    """
    if epoch < warmup:
        return 0.0
    return maximum * (epoch - warmup + 1) / (epochs - warmup)


def mix(student, teacher, share):
    """W = share * w_student + (1 - share) * w_teacher, (B,) each (paper, eq. 6)."""
    return share * student + (1 - share) * teacher


def floored(weights, minimum):
    """Weights (B,), none below `minimum`."""
    return weights.clamp(min=minimum)
