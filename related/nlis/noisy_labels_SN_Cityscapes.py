"""Symmetric noise on the instances of Cityscapes: a label is wrong with probability r, all other classes alike.

    python related/nlis/noisy_labels_SN_Cityscapes.py --r 0.4 --p_a gtFine_train.json --p_g train_SN40.json

r, p_a, p_g and run are what the published script of this name asks to be typed into it. Unlike there the true class is never
drawn and the last one can be; --original-sampling draws as published. Any COCO JSON will do. See utils/class_noise.py for
what is written.
"""

from cli.command_line import command_line
from related.nlis.noise_doors import make_cityscapes_noise

if __name__ == "__main__":
    command_line(lambda: make_cityscapes_noise(__doc__, "symmetric"))
