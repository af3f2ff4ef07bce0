// Builds what ships in the Python packages: `node build.mjs [ROOT]`, where ROOT gets the folders that the repository has.
import { build } from "esbuild";
import { copyFile } from "node:fs/promises";
import { fileURLToPath } from "node:url";
import path from "node:path";
import { buildLab } from "./lab.mjs";

const here = path.dirname(fileURLToPath(import.meta.url));
const root = path.resolve(process.argv[2] ?? path.join(here, "../.."));
const traceFolder = path.join(root, "nbserve/trace/static");
const settings = {
  absWorkingDir: here,
  bundle: true,
  minify: true,
  target: "es2022",
  charset: "ascii",
  legalComments: "none",
  loader: { ".css": "text" },
};

await build({ ...settings, entryPoints: ["src/trace/main.ts"], outfile: path.join(traceFolder, "trace.js"), format: "iife" });
await build({ ...settings, entryPoints: ["src/panel/main.ts"], outfile: path.join(root, "nbserve/notebook/static/panel.js"), format: "esm" });

// The picture is drawn in Python with the same colours.
await copyFile(path.join(here, "src/shared/look.json"), path.join(traceFolder, "look.json"));

await buildLab(path.join(root, "extension/nbserve_extension/labextension"));
