r"""Query a dataset as SkyhookDM's client does, and write the result as Parquet.

::

    python skim.py ceph:beamline?conffile=/etc/ceph/ceph.conf aod \
        'select nMuon >= 2, project Events;1.Muon_pt,Events;1.Muon_eta' --out skim.parquet

``--write`` writes files as the dataset first.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from dosna.errors import DosnaError
from dosna.skyhook import SkyhookDM


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("address", help="of a connection, or of a Dask scheduler")
    parser.add_argument("dataset")
    parser.add_argument("query")
    parser.add_argument("--write", nargs="+", metavar="URL", help="ROOT files")
    parser.add_argument("--out", type=Path, default=Path("skim.parquet"))
    options = parser.parse_args()
    with SkyhookDM() as sk:
        sk.connect(options.address)
        if options.write:
            sk.writeDataset(options.write, options.dataset)
        tables = sk.runQuery(sk.getDataset(options.dataset), options.query)
    table = pa.concat_tables(tables)
    pq.write_table(table, options.out)
    print(f"{table.num_rows} entries in {options.out}")


if __name__ == "__main__":
    try:
        main()
    except DosnaError as error:
        sys.exit(f"skim.py: {error}")
