"""The lower limit of utils/get_weight.py's time: only read its CSV and decode both files of each row.

    python benchmarks/decode_only.py weights.csv pseudo [--pillow]
"""

import csv
import os
import sys

if __name__ == "__main__":
    table, folder = sys.argv[1:3]
    if "--pillow" in sys.argv:
        import numpy
        from PIL import Image

        def decode(path):
            with Image.open(path) as file:
                return numpy.array(file)
    else:
        import cv2

        def decode(path):
            return cv2.imread(path, cv2.IMREAD_UNCHANGED)
    with open(table, encoding="utf-8") as file:
        for image, mask, *_ in list(csv.reader(file))[1:]:
            decode(mask)
            decode(os.path.join(folder, os.path.basename(image)))
