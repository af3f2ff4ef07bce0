// Bundles each viewer into the one file that ships in the Python package: `node build.mjs [FOLDER]`.
import { build } from "esbuild";
import { copyFile } from "node:fs/promises";
import { fileURLToPath } from "node:url";
import path from "node:path";

const here = path.dirname(fileURLToPath(import.meta.url));
const folder = process.argv[2] ?? path.join(here, "../../nbserve/trace/static");

await build({
  absWorkingDir: here,
  entryPoints: ["src/trace/main.ts"],
  outfile: path.join(folder, "trace.js"),
  bundle: true,
  minify: true,
  format: "iife",
  target: "es2022",
  charset: "ascii",
  legalComments: "none",
  loader: { ".css": "text" },
});

// The picture is drawn in Python with the same colours.
await copyFile(path.join(here, "src/trace/look.json"), path.join(folder, "look.json"));
