"""The parts of a training step and their shares of its time, from PyTorch's profiler.

The time of each operation, without the operations that it calls, goes to a part by the outermost of its callers that a part
knows. A convolution is told by the shape of its weights, (out, in / groups, height, width).
"""

import re
from collections import defaultdict

from cli.lazy import torch

OTHER, CONVERSION = "Python and the rest", "conversion to bf16 and back"
WEIGHTS, LOSS, BATCH = "the method's weights", "loss", "batch: bytes to normalised images"
PARTS = [  # part, pattern of its operations; the first one that fits
    (WEIGHTS, re.escape(WEIGHTS)), (LOSS, re.escape(LOSS)), (BATCH, re.escape(BATCH)),
    ("optimizer", r"Optimizer\.step"), ("gradients set to none", r"Optimizer\.zero_grad"),
    ("gradients clipped", r"aten::(_foreach_)?clamp"),
    (CONVERSION, r"aten::(to|_to_copy)$|ToCopyBackward"),
    ("batch norm, forward", r"aten::batch_norm"), ("batch norm, backward", r"BatchNormBackward"),
    ("activation, forward", r"aten::(hardtanh|relu)"), ("activation, backward", r"(Hardtanh|Relu)Backward"),
    ("upsampling, concatenation, sums", r"aten::(upsample|interpolate|cat|add|pad|replication_pad|slice)|"
                                        r"(Upsample\w+|Cat|Add|\w*Pad\w*|Slice|MaxPool\w+)Backward|aten::max_pool"),
    (LOSS, r"(BinaryCrossEntropy\w+|Where|Sum|Mean|Div|Mul|Select)Backward"),
    ("gradients gathered", r"AccumulateGrad"),
]
CONVOLUTION, BACKWARD = re.compile(r"aten::conv2d$|ConvolutionBackward|aten::conv_transpose2d"), re.compile("Backward")


def kind_of(weights):
    """The kind of a convolution by the shape of its weights."""
    if tuple(weights[2:]) == (1, 1):
        return "convolution 1 x 1"
    return "convolution, depthwise" if weights[1] == 1 else f"convolution {weights[2]} x {weights[3]}"


def part_of(event):
    """The part that an operation belongs to by its own name, or None."""
    if CONVOLUTION.search(event.name):
        return f"{kind_of(weights_of(event))}, {'backward' if BACKWARD.search(event.name) else 'forward'}"
    return next((part for part, pattern in PARTS if re.search(pattern, event.name)), None)


def weights_of(event):
    """The shape of a convolution's weights: the second input of its forward pass, the third of its backward pass."""
    if event.name == "aten::convolution_backward":
        return event.input_shapes[2]
    if event.name in ("aten::conv2d", "aten::conv_transpose2d"):
        return event.input_shapes[1]
    return next(weights_of(child) for child in event.cpu_children if "onvolution" in child.name)  # autograd's node


def owner_of(event):
    """The part of an operation: that of its outermost caller that is of one; conversions in a convolution are parts, too."""
    found = None
    while event is not None:
        own = part_of(event)
        if own and not (found == CONVERSION and own.startswith("convolution")):
            found = own
        event = event.cpu_parent
    return found or OTHER


def parts_of(action):
    """Run a function; dict of part -> share of its time, 0..1, largest first."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], record_shapes=True) as trace:
        with torch.profiler.record_function("whole"):
            action()
    shares = defaultdict(float)
    for event in trace.events():
        shares[owner_of(event)] += event.self_cpu_time_total
    whole = sum(shares.values())
    return dict(sorted(((part, share / whole) for part, share in shares.items()), key=lambda item: -item[1]))


def marked(function, name):
    """The function, its time marked for `parts_of` as one part."""
    def call(*args, **kwargs):
        with torch.profiler.record_function(name):
            return function(*args, **kwargs)

    return call
