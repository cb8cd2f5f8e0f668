"""From files to samples. A label map holds class numbers 0..C-1 and IGNORE_INDEX; see `cli.files` and `data.rows`."""

IGNORE_INDEX = 255  # label of pixels that scores and losses leave out
