#!/bin/sh
# TIFF stores differences of pixels (predictor 2), and of the bytes of floats from the highest to the
# lowest (predictor 3), to compress better; the first in the byte order of the file, the second in one
# order for both. geotiff 3.0.5, by which maps in browsers read GeoTIFF, takes both in the order of the
# machine: of a big-endian file, int16 with 2, 3, 300 and 299 are read as 2, 3, 300 and 44, int32
# likewise, and floats such as 2 and 1.5 are 9e-44 and 7e-41. The same pixels in a little-endian file,
# and int8, are exact. Nothing is said. tifffile reads both.
set -eu
box=$(mktemp -d)
trap 'rm -rf "$box"' EXIT
trap 'exit 2' HUP INT TERM
cd "$box"
npm install --silent --no-audit --no-fund --prefix . geotiff@3.0.5 || exit 2
cat >read.mjs <<'END'
import { fromArrayBuffer } from "geotiff";
import { deflateSync } from "node:zlib";

const pixels = [2, 3, 300, 299, 1.5, 2];

// The bytes of one row of pixels, as differences.
function differences(float, bits, little) {
  const size = bits / 8;
  const view = new DataView(new ArrayBuffer(pixels.length * size));
  if (!float) {
    const put = (i, value) => (bits === 8 ? view.setInt8(i, value) : bits === 16
      ? view.setInt16(2 * i, value, little) : view.setInt32(4 * i, value, little));
    pixels.forEach((value, i) => put(i, Math.trunc(value) - (i ? Math.trunc(pixels[i - 1]) : 0)));
    return new Uint8Array(view.buffer);
  }
  pixels.forEach((value, i) => view.setFloat32(4 * i, value));
  const planes = new Uint8Array(view.byteLength);
  for (let i = 0; i < planes.length; i++) {
    planes[i] = view.getUint8(4 * (i % pixels.length) + Math.floor(i / pixels.length));
  }
  return planes.map((byte, i) => byte - (i ? planes[i - 1] : 0));
}

function written(float, bits, little) {
  const data = deflateSync(differences(float, bits, little));
  const tags = [[256, pixels.length], [257, 1], [258, bits], [259, 8], [262, 1], [273, 200], [277, 1],
    [278, 1], [279, data.length], [317, float ? 3 : 2], [339, float ? 3 : 2]];
  const view = new DataView(new ArrayBuffer(200 + data.length));
  view.setUint16(0, little ? 0x4949 : 0x4d4d);
  view.setUint16(2, 42, little);
  view.setUint32(4, 8, little);
  view.setUint16(8, tags.length, little);
  tags.forEach(([tag, value], i) => {
    view.setUint16(10 + 12 * i, tag, little);
    view.setUint16(12 + 12 * i, 4, little);
    view.setUint32(14 + 12 * i, 1, little);
    view.setUint32(18 + 12 * i, value, little);
  });
  new Uint8Array(view.buffer).set(data, 200);
  return view.buffer;
}

let asSeen = true;
for (const [float, bits] of [[false, 8], [false, 16], [false, 32], [true, 32]]) {
  const name = `${float ? "float" : "int"}${bits}`;
  const right = pixels.map((value) => (float ? value : bits === 8 ? (value << 24) >> 24 : Math.trunc(value)));
  for (const little of [true, false]) {
    const image = await (await fromArrayBuffer(written(float, bits, little))).getImage();
    const read = Array.from(await image.readRasters({ interleave: true }));
    const same = String(read) === String(right);
    console.log(name, little ? "little" : "big", read.join(" "), same ? "" : "WRONG");
    asSeen &&= same === (little || bits === 8);
  }
}
if (!asSeen) throw new Error("This has changed.");
END
node read.mjs
