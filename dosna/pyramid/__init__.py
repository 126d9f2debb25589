"""Pyramids: smaller and smaller copies of a dataset, for programs that show images and volumes.

`dosna.Dataset.pyramid` creates them as the multiscale images of OME-Zarr 0.5.
"""

from dosna.pyramid.making import pyramid
from dosna.pyramid.multiscales import Levels, levels_of

__all__ = ["Levels", "levels_of", "pyramid"]
