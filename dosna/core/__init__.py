"""The pure core: what an index means, which chunks it touches, what a dataset is.

NumPy only, and no input or output.
"""
