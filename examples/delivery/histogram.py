"""Submit a request to a delivery service, and draw a histogram of what comes.

Start the service first, and name it in ``servicex.yaml``, as docs/delivery.md says; then::

    python histogram.py 'glob:*.root' Events MET_pt --cut 'MET_pt > 20'

Needs servicex, awkward and matplotlib.
"""

from __future__ import annotations

import argparse

import awkward as ak
import numpy as np
import servicex
from servicex import dataset, query


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("did", help="the dataset, such as 'glob:*.root'")
    parser.add_argument("tree", help="the tree, such as Events")
    parser.add_argument("column", help="the column, such as MET_pt")
    parser.add_argument("--cut", help="the entries to take, such as 'MET_pt > 20'")
    parser.add_argument("--config", help="the path of servicex.yaml")
    parser.add_argument("--output", default="histogram.png", help="the picture (histogram.png)")
    options = parser.parse_args()

    # -- what is asked for --------------------------------------------------------------------
    scheme, _, rest = options.did.partition(":")
    selection = {"treename": options.tree, "filter_name": options.column}
    if options.cut:
        selection["cut"] = options.cut
    spec = {
        "General": {"OutputFormat": "parquet"},
        "Sample": [
            {
                "Name": options.column,
                "Dataset": dataset.GenericDataSet(scheme, rest.removeprefix("//")),
                "Query": query.UprootRaw([selection]),
            }
        ],
    }

    # -- the files come while others are made -------------------------------------------------
    files = list(servicex.deliver(spec, config_path=options.config)[options.column])
    values = ak.to_numpy(ak.flatten(ak.from_parquet(files)[options.column], axis=None))
    print(f"{len(files)} files, {len(values):,} values, mean {np.mean(values):.3f}")

    # -- the histogram ------------------------------------------------------------------------
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    plt.figure(figsize=(6, 4), layout="constrained")
    plt.hist(values, bins=60, histtype="stepfilled", alpha=0.8)
    plt.xlabel(options.column)
    plt.ylabel("entries")
    plt.title(options.cut or "all entries", fontsize="medium")
    plt.savefig(options.output, dpi=120)


if __name__ == "__main__":
    main()
