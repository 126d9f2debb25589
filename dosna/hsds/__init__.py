"""HSDS, HDF5 as a service: requests to a server, and the meaning of its types.

The address of the server and the credentials come from h5pyd: from the environment
(``HS_ENDPOINT``, ``HS_USERNAME``, ``HS_PASSWORD``, ``HS_API_KEY``), from ``~/.hscfg``, or from
OpenID. Data go through the REST API itself, so that several threads can read and write at the
same time, in bounded memory and bounded time.
"""

from dosna.hsds.client import Failure, HsdsClient, HsdsOptions, domain_of

__all__ = ["Failure", "HsdsClient", "HsdsOptions", "domain_of"]
