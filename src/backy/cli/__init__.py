"""Floor 5: the command line, one command a file."""

import gc

# Loading modules, and lists of extents, make many objects and no garbage: looking for some after every
# 700 of them takes a tenth of a short command's time.
gc.set_threshold(50_000)
