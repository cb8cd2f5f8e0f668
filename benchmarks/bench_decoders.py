"""Readers of PNG masks and of JPEG photographs, relative to OpenCV, which data/ uses: is there a faster one?

    python benchmarks/bench_decoders.py --photos data/generated/people

Each reads a file to an array, on one thread, in turn with the others. Processor seconds count, and the arrays must be equal
(photographs: within 3 grey levels, on average). No reader turns a photograph upright by its EXIF, as data/ does after decoding.
`inflate alone` decompresses the bytes of a mask and leaves the filters of its rows undone: no reader with that library is
faster. A reader that is not installed, or cannot read these files, is left out: pip install pyspng imagecodecs simplejpeg isal
zlib-ng deflate. So are masks that are no PNG of grey levels, since readers turn palettes into different things.
"""

import statistics
import struct
import sys
import tempfile
import time
from functools import partial
from importlib import import_module, metadata
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from benchmarks.measure import RESULTS, in_turn, keep, ratio, table
from benchmarks.pairs import draw_person, draw_regions
from cli.command_line import command_line, positive_int, tool_parser
from cli.files import UserError
from data.pictures import write_mask
from data.splits import pair_folder

PACKAGES = ("pillow", "torchvision", "pyspng", "imagecodecs", "simplejpeg", "isal", "zlib-ng", "deflate")
OPENCV = "OpenCV"
CLOSE = 3.0  # mean difference of photographs, grey levels: decoders of JPEG round differently


def by_opencv(path):
    return cv2.imread(path, cv2.IMREAD_UNCHANGED)


def photo_by_opencv(path):
    """RGB as the file holds it: other readers leave a photograph on its side, too, where EXIF says that it lies there."""
    return cv2.imread(path, cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)[:, :, ::-1]


def by_pillow(path):
    with Image.open(path) as file:
        return np.array(file)


def by_torchvision(path):
    torch, io = import_module("torch"), import_module("torchvision.io")
    torch.set_num_threads(1)
    return io.decode_image(io.read_file(path)).permute(1, 2, 0).numpy()


def by_bytes(module, function, **settings):
    """A reader that is a function of the file's content in an optional package."""
    return lambda path: getattr(import_module(module), function)(Path(path).read_bytes(), **settings)


def compressed(path):
    """(the compressed bytes of a PNG of one byte a pixel, how many they become)."""
    content, place, parts = Path(path).read_bytes(), 8, []
    width, height = struct.unpack(">II", content[16:24])
    while place < len(content):
        length, kind = struct.unpack(">I4s", content[place:place + 8])
        if kind == b"IDAT":
            parts.append(content[place + 8:place + 8 + length])
        place += 12 + length
    return b"".join(parts), height * (width + 1)


def inflate_by_deflate(path):
    return import_module("deflate").zlib_decompress(*compressed(path))


def inflate_by(module, path):
    return import_module(module).decompress(compressed(path)[0])


MASKS = {OPENCV: by_opencv, "Pillow": by_pillow, "torchvision": by_torchvision, "pyspng": by_bytes("pyspng", "load"),
         "imagecodecs, libpng": by_bytes("imagecodecs", "png_decode"),
         "imagecodecs, libspng": by_bytes("imagecodecs", "spng_decode"),
         "inflate alone, zlib": partial(inflate_by, "zlib"), "inflate alone, ISA-L": partial(inflate_by, "isal.isal_zlib"),
         "inflate alone, zlib-ng": partial(inflate_by, "zlib_ng.zlib_ng"), "inflate alone, libdeflate": inflate_by_deflate}
PHOTOS = {OPENCV: photo_by_opencv, "Pillow": by_pillow, "torchvision": by_torchvision,
          "simplejpeg": by_bytes("simplejpeg", "decode_jpeg"),
          "imagecodecs, libjpeg-turbo": by_bytes("imagecodecs", "jpeg8_decode")}


def usable(ways, files):
    """The ways that are installed and read the files; a UserError if one of them reads something else than OpenCV.

    Args:
        ways: dict of name -> function of a path.
        files: paths.
    """
    some, found = files[:10], {}
    expected = [by_shape(read_by_opencv(ways, path)) for path in some]
    for name, read in ways.items():
        try:
            content = [read(path) for path in some]
        except Exception as error:  # each library raises its own exceptions, at a codec that it was built without, too
            print(f"{name}: left out ({(str(error) or type(error).__name__).splitlines()[0]})", file=sys.stderr)
            continue
        found[name] = read
        for path, values, right in zip(some, content, expected):
            if isinstance(values, np.ndarray):  # else bytes that are not a picture yet
                check_equal(right, by_shape(values), f"{path}: {name}")
    return found


def read_by_opencv(ways, path):
    """What all others are compared with.

    Raises:
        UserError: OpenCV cannot read the file.
    """
    try:
        values = ways[OPENCV](path)
    except (cv2.error, TypeError):  # imread gives None, which photographs index
        values = None
    if values is None:
        raise UserError(f"{path}: {OPENCV} cannot read it; remove it")
    return values


def check_equal(expected, values, reader):
    """Raise UserError if a reader's array (H, W, channels) is not OpenCV's; photographs may differ a little."""
    limit = CLOSE if expected.shape[2] == 3 else 0
    if expected.shape != values.shape or np.abs(expected.astype(int) - values).mean() > limit:
        raise UserError(f"{reader} reads other values than {OPENCV}")


def grey_levels(masks):
    """Those of the mask files that are PNGs of one byte a pixel and no palette; how many are left out is told on stderr.

    Raises:
        UserError: none is.
    """
    found = []
    for path in masks:
        with Image.open(path) as file:
            if file.format == "PNG" and file.mode == "L":
                found.append(path)
    if len(found) < len(masks):
        print(f"{len(masks) - len(found)} of {len(masks)} masks are no PNG of grey levels and are left out", file=sys.stderr)
    if not found:
        raise UserError(f"{masks[0]} and the others: no mask is a PNG of grey levels; name another folder by --photos")
    return found


def by_shape(values):
    """An array (H, W) or (H, W, channels) as (H, W, channels)."""
    return values.reshape(*values.shape[:2], -1)


def processor_seconds(read, files):
    """Seconds that reading all files takes this process."""
    began = time.process_time()
    for path in files:
        read(path)
    return time.process_time() - began


def drawn(folder, draw, count, num_classes):
    """Paths of masks that `draw` draws, as data/ writes them; each number gives a mask and a noisy one."""
    rng = np.random.default_rng(0)
    for number in range(count):
        for kind, labels in zip("ab", draw(rng)):
            write_mask(folder / f"{num_classes}{kind}{number}.png", labels, num_classes)
    return sorted(map(str, folder.glob(f"{num_classes}*.png")))


def main():
    parser = tool_parser(__doc__)
    parser.add_argument("--out", default=str(RESULTS / "decoders.json"), help="JSON of the results")
    parser.add_argument("--photos", metavar="DIR", help="take photographs, and the binary masks, from DIR/images and DIR/masks")
    parser.add_argument("--limit", type=positive_int, default=200, help="files of each kind; of the largest, a tenth")
    parser.add_argument("--rounds", type=positive_int, default=5)
    args = parser.parse_args()
    cv2.setNumThreads(1)
    content, tables = {}, {}
    with tempfile.TemporaryDirectory() as name:
        few = max(1, args.limit // 20)
        kinds = {"masks of 321x321, binary": (MASKS, drawn(Path(name), partial(draw_person, photos=args.photos), 10 * few, 2)),
                 "masks of 2048x1024, 19 classes": (MASKS, drawn(Path(name), draw_regions, few, 19))}
        if args.photos:
            pairs = pair_folder(args.photos)[:args.limit]
            kinds["masks as they are"] = (MASKS, grey_levels(pairs["mask"].tolist()))
            kinds["photographs"] = (PHOTOS, pairs["image"].tolist())
        for kind, (ways, files) in kinds.items():
            print(kind, file=sys.stderr)
            seconds = in_turn({way: partial(processor_seconds, read, files) for way, read in usable(ways, files).items()},
                              args.rounds)
            content[kind] = seconds
            tables[f"Reading {kind}"] = table(("reader", "ms a file", f"/ {OPENCV}"), [
                (way, f"{1000 * statistics.median(each) / len(files):.3f}", f"{ratio(seconds, way, OPENCV):.2f}")
                for way, each in seconds.items()])
    there = {found.metadata["Name"].lower().replace("_", "-") for found in metadata.distributions()}
    keep(args.out, content, tables, [package for package in PACKAGES if package in there])


if __name__ == "__main__":
    command_line(main)
