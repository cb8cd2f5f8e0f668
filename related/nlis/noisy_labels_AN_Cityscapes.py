"""Asymmetric noise on the instances of Cityscapes: person <-> rider, truck <-> bus, motorcycle <-> bicycle, with probability r.

    python related/nlis/noisy_labels_AN_Cityscapes.py --r 0.4 --p_a gtFine_train.json --p_g train_AN40.json

Cars and trains are never wrong. r, p_a, p_g and run are what the published script of this name asks to be typed into it. See
utils/class_noise.py for what is written.
"""

from cli.command_line import command_line
from related.nlis.noise_doors import make_cityscapes_noise

if __name__ == "__main__":
    command_line(lambda: make_cityscapes_noise(__doc__, "asymmetric"))
