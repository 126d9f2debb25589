#!/bin/sh
# Rows that a filter selects should not depend on how a Parquet file is cut into row groups.
# Parquet's statistics leave out NaN, which the format says, so a reader may not conclude from them
# that a group has none. pyarrow.dataset 26.0.1 and DuckDB 2.0.1 do. In a group whose other values
# are all the same, is_nan() and isnan(), which are to find what is broken, find nothing, nor does
# `x != 5`. To DuckDB NaN is the largest number, so `x > 50` has NaN in a table of its own, but from
# a file only those of groups that also have a number above 50. Polars 2.1.0, with the same order,
# finds all. Dead channels with one value and NaN are of this kind.
set -eu
box=$(mktemp -d)
trap 'rm -rf "$box"' EXIT
trap 'exit 2' HUP INT TERM
cd "$box"
"${PYTHON:-python3}" -m venv venv || exit 2
venv/bin/python -m pip install --quiet --disable-pip-version-check \
    pyarrow==26.0.1 duckdb==2.0.1 polars==2.1.0 numpy==2.4.6 || exit 2
venv/bin/python -I - <<'END'
import duckdb
import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq

nan = float("nan")
pq.write_table(pa.table({"i": range(4), "x": [5, 5, nan, 5.0]}), "same.parquet")
cut = pa.table({"i": range(6), "x": [1, nan, 2, 60, nan, 3]})
pq.write_table(cut, "cut.parquet", row_group_size=3)
held = pq.ParquetFile("same.parquet").metadata.row_group(0).column(1).statistics
assert (held.min, held.max, held.null_count) == (5, 5, 0)


def by_duckdb(where):
    return [row[0] for row in duckdb.sql(f"select i from {where} order by i").fetchall()]


same, x = ds.dataset("same.parquet"), ds.field("x")
memory = ds.dataset(pq.read_table("same.parquet"))
seen = {}
for name, chosen in {"is_nan()": x.is_nan(), "x != 5": x != 5}.items():
    both = [source.to_table(filter=chosen)["i"].to_pylist() for source in (memory, same)]
    seen["pyarrow", name] = tuple(both)
copies = {"same": "t", "cut": "u"}
for file, table in copies.items():
    duckdb.sql(f"create table {table} as from '{file}.parquet'")
for file, test in (("same", "isnan(x)"), ("same", "x <> 5"), ("cut", "x > 50")):
    both = [by_duckdb(f"{source} where {test}") for source in (copies[file], f"'{file}.parquet'")]
    seen["DuckDB", test] = tuple(both)
for file, test in (("same", pl.col("x").is_nan()), ("cut", pl.col("x") > 50)):
    frames = pl.read_parquet(f"{file}.parquet").lazy(), pl.scan_parquet(f"{file}.parquet")
    seen["Polars", file] = tuple(f.filter(test).collect()["i"].to_list() for f in frames)
for what, (of_memory, of_file) in seen.items():
    print(*what, "rows in memory:", of_memory, "rows of the file:", of_file)

as_seen = seen == {
    ("pyarrow", "is_nan()"): ([2], []),
    ("pyarrow", "x != 5"): ([2], []),
    ("DuckDB", "isnan(x)"): ([2], []),
    ("DuckDB", "x <> 5"): ([2], []),
    ("DuckDB", "x > 50"): ([1, 3, 4], [3, 4]),
    ("Polars", "same"): ([2], [2]),
    ("Polars", "cut"): ([1, 3, 4], [1, 3, 4]),
}
raise SystemExit(0 if as_seen else "This has changed.")
END
