// Build the page of `dosna view` into dosna/serve/static/, which is part of the wheel.
//
//   npm ci && npm run build    after a change of src/ or package-lock.json
//   npm ci && npm run check    exit with 1 if what is there differs from what the sources give
//
// The script and the style sheet are kept compressed. What is compared is their text, because
// releases of zlib differ. LICENSES.txt has the licences of all packages that are in the script.

import { build } from "esbuild";
import { existsSync, mkdirSync, readFileSync, readdirSync, writeFileSync } from "node:fs";
import { dirname, join, relative } from "node:path";
import { fileURLToPath } from "node:url";
import { gunzipSync, gzipSync } from "node:zlib";

const HERE = dirname(fileURLToPath(import.meta.url));
const STATIC = join(HERE, "..", "dosna", "serve", "static");

async function bundle() {
  const result = await build({
    absWorkingDir: HERE,
    entryPoints: { page: "src/main.jsx" },
    outdir: "built",
    alias: { ndarray: "./src/ndarray.js", "ndarray-ops": "./src/ndarray.js" },
    bundle: true,
    minify: true,
    write: false,
    metafile: true,
    format: "esm",
    jsx: "automatic",
    target: "es2022",
    charset: "utf8",
    legalComments: "none", // LICENSES.txt has the whole texts
    define: { "process.env.NODE_ENV": '"production"' },
    logLevel: "warning",
  });
  const files = new Map();
  for (const file of result.outputFiles) {
    files.set(`${relative(join(HERE, "built"), file.path)}.gz`, file.text);
  }
  files.set("LICENSES.txt", licences(packages(Object.keys(result.metafile.inputs))));
  return files;
}

// Return the folders of the packages that the inputs of a build are from.
function packages(inputs) {
  const found = new Set();
  for (const input of inputs) {
    const match = /^(.*node_modules\/(?:@[^/]+\/)?[^/]+)\//.exec(input);
    if (match) found.add(match[1]);
  }
  return [...found].sort();
}

// Return the names, versions and licences of packages; each text occurs once.
function licences(folders) {
  const texts = new Map();
  for (const folder of folders) {
    const { name, version, license } = JSON.parse(
      readFileSync(join(HERE, folder, "package.json"), "utf8"),
    );
    const file = readdirSync(join(HERE, folder)).find((n) => /^(licen[cs]e|copying)/i.test(n));
    const text = file
      ? readFileSync(join(HERE, folder, file), "utf8").replace(/\r/g, "").trim()
      : `The package has no text of its licence, which is: ${license}`;
    if (!license) throw new Error(`${name} ${version} names no licence`);
    if (!texts.has(text)) texts.set(text, new Set());
    texts.get(text).add(`${name} ${version} (${license})`);
  }
  const parts = [...texts].map(([text, names]) => `${[...names].join("\n")}\n\n${text}`);
  const head = "page.js contains the following packages, under these licences.";
  return [head, ...parts].join(`\n\n${"-".repeat(78)}\n\n`) + "\n";
}

function kept(name) {
  const path = join(STATIC, name);
  if (!existsSync(path)) return undefined;
  const data = readFileSync(path);
  return (name.endsWith(".gz") ? gunzipSync(data) : data).toString("utf8");
}

const files = await bundle();
const changed = [...files].filter(([name, text]) => kept(name) !== text);
if (process.argv.includes("--check")) {
  for (const [name] of changed) console.error(`${name} is not what the sources in web/ give`);
  process.exitCode = changed.length ? 1 : 0;
} else {
  mkdirSync(STATIC, { recursive: true });
  for (const [name, text] of changed) {
    const data = name.endsWith(".gz") ? gzipSync(text, { level: 9 }) : text;
    writeFileSync(join(STATIC, name), data);
    console.log(`${name}: ${data.length} bytes`);
  }
}
