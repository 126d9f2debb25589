"""The pure core: what an index means, which chunks it touches, what a dataset is.

It needs only NumPy, and does no input or output.
"""
