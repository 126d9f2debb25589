"""HSDS, HDF5 as a service: requests to a server, and what its types mean.

Where the server is, and who one is there, h5pyd says: the environment (``HS_ENDPOINT``,
``HS_USERNAME``, ``HS_PASSWORD``, ``HS_API_KEY``), ``~/.hscfg``, OpenID. Data go by the REST API
itself, so that several threads read and write at a time, in bounded memory and bounded time.
"""

from dosna.hsds.client import Failure, HsdsClient, HsdsOptions, domain_of

__all__ = ["Failure", "HsdsClient", "HsdsOptions", "domain_of"]
