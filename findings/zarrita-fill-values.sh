#!/bin/sh
# Chunks that a Zarr array does not have read as its fill value, the same for every reader. zarrita
# 0.7.5, which viewers in browsers use, has two kinds of wrong ones. Whole numbers of 64 bits
# go through a double: 2**53 + 1 loses its last bit, the largest int64 becomes the smallest, the
# largest uint64 becomes 0. In stored chunks the same numbers are right. And a float that is given
# by its bits, as the specification of Zarr 3 allows ("0x3fc00000" is 1.5, "0x7fc00001" one of the
# NaNs), is read as the integer that these digits are. Missing labels are often the largest number.
# zarr-python and TensorStore read all of them rightly. This script needs Node.js and npm.
set -eu
box=$(mktemp -d)
trap 'rm -rf "$box"' EXIT
trap 'exit 2' HUP INT TERM
cd "$box"
npm install --silent --no-audit --no-fund --prefix . zarrita@0.7.5 || exit 2
cat >read.mjs <<'END'
import * as zarr from "zarrita";

async function filled(type, fill) {
  const text = `{"zarr_format": 3, "node_type": "array", "shape": [2], "data_type": "${type}",
    "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [1]}},
    "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
    "fill_value": ${fill}, "attributes": {},
    "codecs": [{"name": "bytes", "configuration": {"endian": "little"}}]}`;
  const store = new Map([["/zarr.json", new TextEncoder().encode(text)]]);
  if (type === "int64") {
    const stored = new BigInt64Array([BigInt(fill)]);
    store.set("/c/0", new Uint8Array(stored.buffer));
  }
  const array = await zarr.open.v3(store, { kind: "array" });
  const { data } = await zarr.get(array);
  const stored = type === "int64" ? ` (in a stored chunk: ${data[0]})` : "";
  console.log(type, "fill value", fill, "read:", String(data[1]) + stored);
  return String(data[1]);
}

const seen = [
  await filled("int64", "9007199254740993"),
  await filled("int64", "9223372036854775807"),
  await filled("uint64", "18446744073709551615"),
  await filled("float32", '"0x3fc00000"'),
  await filled("float32", '"0x7fc00001"'),
  await filled("float32", '"NaN"'),
  await filled("int32", "-7"),
];
const before = ["9007199254740992", "-9223372036854775808", "0", "1069547520", "2143289344", "NaN", "-7"];
if (JSON.stringify(seen) !== JSON.stringify(before)) {
  console.error("This has changed.");
  process.exit(1);
}
END
node read.mjs
