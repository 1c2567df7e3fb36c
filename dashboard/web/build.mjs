// Bundles the page into the folder that the first argument names: hashed files, index.html, manifest.json, licenses.txt.
import { createHash } from "node:crypto";
import { readFileSync, readdirSync, writeFileSync } from "node:fs";
import { basename, join } from "node:path";
import { build } from "esbuild";

const [folder, sources] = process.argv.slice(2);
const digest = (algorithm, bytes) => `${algorithm}-${createHash(algorithm).update(bytes).digest("base64")}`;

const { metafile } = await build({
  entryPoints: ["src/main.tsx"],
  outdir: folder,
  bundle: true,
  splitting: true,
  minify: true,
  format: "esm",
  target: ["chrome111", "firefox114", "safari16.4"],
  jsx: "automatic",
  jsxImportSource: "preact",
  entryNames: "page-[hash]",
  chunkNames: "part-[hash]",
  legalComments: "none", // licenses.txt has the notices
  metafile: true,
  logLevel: "warning",
});

/** The names of packages in the bundle, with the licence that each of them carries. */
function licences() {
  const packages = new Set();
  for (const input of Object.keys(metafile.inputs)) {
    const found = /node_modules\/((?:@[^/]+\/)?[^/]+)\//.exec(input);
    if (found) packages.add(found[1]);
  }
  return [...packages].sort().map((name) => {
    const home = join("node_modules", name);
    const { version, license } = JSON.parse(readFileSync(join(home, "package.json"), "utf8"));
    const file = readdirSync(home).find((one) => /^licen[cs]e/i.test(one));
    if (!file) throw new Error(`${name} carries no licence`);
    return `${name} ${version} (${license})\n\n${readFileSync(join(home, file), "utf8").trim()}\n`;
  });
}

const outputs = Object.keys(metafile.outputs).map((path) => basename(path));
const entry = outputs.find((name) => /^page-.*\.js$/.test(name));
const style = outputs.find((name) => name.endsWith(".css"));
writeFileSync(join(folder, "licenses.txt"), licences().join(`\n${"-".repeat(80)}\n\n`));
writeFileSync(join(folder, "icon.svg"), readFileSync("src/icon.svg"));

const files = {};
for (const name of [...outputs, "icon.svg", "licenses.txt"]) files[name] = digest("sha384", readFileSync(join(folder, name)));

// Integrity of modules that other modules import: a script of its own, which the policy of the page allows by its hash.
const parts = outputs.filter((name) => name.endsWith(".js") && name !== entry);
const map = JSON.stringify({ integrity: Object.fromEntries(parts.map((name) => [`/assets/${name}`, files[name]])) });
const page = readFileSync("src/index.html", "utf8").replace("<!-- built files -->", [
  `<script type="importmap">${map}</script>`,
  `<link rel="stylesheet" href="/assets/${style}" integrity="${files[style]}">`,
  `<script type="module" src="/assets/${entry}" integrity="${files[entry]}"></script>`,
].join("\n"));
writeFileSync(join(folder, "index.html"), page);
files["index.html"] = digest("sha384", Buffer.from(page));
const manifest = { sources, inline_script: digest("sha256", Buffer.from(map)), files };
writeFileSync(join(folder, "manifest.json"), `${JSON.stringify(manifest, null, 1)}\n`);
