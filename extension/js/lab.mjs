// Builds JupyterLab's side panel with Lab's own builder, so that it shares Lab's packages.
import { createRequire } from "node:module";
import { fileURLToPath } from "node:url";
import path from "node:path";
import { rspack } from "@rspack/core";

const here = path.dirname(fileURLToPath(import.meta.url));
const require = createRequire(import.meta.url);

export async function buildLab(folder) {
  const configure = require("@jupyter/builder/lib/extensionConfig").default;
  // The builder takes the folder from package.json alone: from the object that `require` keeps for all.
  require("./package.json").jupyterlab.outputDir = path.relative(here, folder);
  const corePackageFile = require.resolve("@jupyterlab/core-meta/core.package.json");
  await run(configure({ packagePath: here, corePackageFile }).map((config) => ({ ...config, context: here })));
}

function run(configs) {
  return new Promise((resolve, reject) => {
    rspack(configs, (error, stats) => {
      if (error ?? stats.hasErrors()) reject(error ?? new Error(stats.toString("errors-only")));
      else resolve();
    });
  });
}
