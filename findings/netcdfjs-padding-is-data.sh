#!/bin/sh
# A NetCDF-3 variable has as many values as its dimensions say; in the file it is padded to four bytes.
# netcdfjs 4.0.0 returns the padding as data: three int16 are four, the last of them -32767 where the
# padding is the fill value, as netCDF-C writes it; and an int8 of three is three lists of one and a
# fourth. float32 and float64 need no padding and are right. Nothing is said. A sum or a largest value
# over such a variable is wrong, and an image from it has other columns. The file here is written by
# hand, byte by byte, as the format says; what netCDF-C writes is read in the same way.
set -eu
box=$(mktemp -d)
trap 'rm -rf "$box"' EXIT
trap 'exit 2' HUP INT TERM
cd "$box"
npm install --silent --no-audit --no-fund --prefix . netcdfjs@4.0.0 || exit 2
cat >read.mjs <<'END'
import { NetCDFReader } from "netcdfjs";

// One variable "v" over one dimension "x" of three, with the values 1, 2 and 3.
function written(type, size, put, padding) {
  const head = [0x43444601, 0, 10, 1, 1, 0x78000000, 3, 0, 0, 11, 1, 1, 0x76000000, 1, 0, 0, 0];
  const begin = 4 * (head.length + 3);
  const length = Math.ceil((3 * size) / 4) * 4;
  const view = new DataView(new ArrayBuffer(begin + length));
  [...head, type, length, begin].forEach((word, i) => view.setUint32(4 * i, word));
  for (let i = 0; i < length / size; i++) view[put](begin + i * size, i < 3 ? i + 1 : padding);
  return view.buffer;
}

let asSeen = true;
for (const [name, type, size, put, padding, expected] of [
  ["int8", 1, 1, "setInt8", -127, "[[1],[2],[3],[129]]"],
  ["int16", 3, 2, "setInt16", -32767, "[1,2,3,-32767]"],
  ["int32", 4, 4, "setInt32", 0, "[1,2,3]"],
  ["float32", 5, 4, "setFloat32", 0, "[1,2,3]"],
  ["float64", 6, 8, "setFloat64", 0, "[1,2,3]"],
]) {
  const reader = new NetCDFReader(written(type, size, put, padding));
  const read = JSON.stringify(reader.getDataVariable("v"));
  console.log(`${name} 1, 2, 3 over x(${reader.dimensions[0].size}):`, read);
  asSeen &&= read === expected;
}
if (!asSeen) throw new Error("This has changed.");
END
node read.mjs
