"""The pure core: the meaning of an index, the chunks that it touches, metadata of datasets.

It needs only NumPy, and does no input or output.
"""
