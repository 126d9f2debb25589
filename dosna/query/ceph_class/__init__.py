"""The object class `dosna`, with which the OSDs of a Ceph cluster evaluate conditions on chunks.

``cls_dosna.cc`` is the class, and ``python -m dosna.query.ceph_class build --to DIR`` compiles it.
`dosna.query.ceph_class.protocol` encodes the requests to its methods and decodes their answers.
This package does not need Ceph.

=========  =====================================================================================
version    the version of the protocol
mask       the rows of a chunk for which a program is true
filter     these rows, and their values
take       the values of given rows
stats      the least and the largest value and the number of NaN, for each range of rows
=========  =====================================================================================
"""
