"""The object class `dosna`, by which the OSDs of a Ceph cluster look at chunks themselves.

``cls_dosna.cc`` is the class, and ``python -m dosna.query.ceph_class build --to DIR`` compiles it.
`dosna.query.ceph_class.protocol` has what is sent to its methods and what they return. This
package does not need Ceph.

=========  =====================================================================================
version    the version of the protocol
mask       the rows of a chunk for which a program is true
filter     these rows, and their values
take       the values of given rows
stats      the least and the largest value and the number of NaN, for each range of rows
=========  =====================================================================================
"""
