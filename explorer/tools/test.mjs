// SPDX-License-Identifier: GPL-2.0-only
// Compiles the unit tests and runs them with node's own runner.

import { readdir, rm } from "node:fs/promises";
import { spawnSync } from "node:child_process";
import { join } from "node:path";
import { build } from "esbuild";
import { root } from "./bundle.mjs";

const sources = (await readdir(join(root, "tests"))).filter((name) => name.endsWith(".test.ts")).sort();
const folder = join(root, "build/tests");
await rm(folder, { recursive: true, force: true });
await build({
  absWorkingDir: root,
  entryPoints: sources.map((name) => `tests/${name}`),
  outdir: folder,
  outExtension: { ".js": ".mjs" },
  bundle: true,
  platform: "node",
  format: "esm",
  target: "node20",
  sourcemap: "inline",
  logLevel: "warning",
});
const files = sources.map((name) => join(folder, name.replace(/\.ts$/, ".mjs")));
const run = spawnSync(process.execPath, ["--test", ...files], { stdio: "inherit", cwd: root });
process.exitCode = run.status ?? 1;
