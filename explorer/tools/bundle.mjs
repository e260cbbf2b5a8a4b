// SPDX-License-Identifier: GPL-2.0-only
// Bundles the page's script and style sheet, and copies its template, into a folder.

import { copyFile, mkdir } from "node:fs/promises";
import { fileURLToPath } from "node:url";
import { join } from "node:path";
import { build } from "esbuild";

export const root = fileURLToPath(new URL("..", import.meta.url));
export const committed = join(root, "../src/rmaplab/data/explorer");
export const names = ["explorer.js", "explorer.css", "page.html"];

const licence = "/* SPDX-License-Identifier: GPL-2.0-only. Built from the folder explorer/ of rmaplab: change that, not this. */";

export async function bundle(folder) {
  await mkdir(folder, { recursive: true });
  await build({
    absWorkingDir: root,
    entryPoints: { "explorer": "src/main.ts" },
    outdir: folder,
    bundle: true,
    format: "iife",
    target: "es2022",
    charset: "ascii",
    minify: true,
    legalComments: "none",
    banner: { js: licence },
    logLevel: "warning",
  });
  await build({
    absWorkingDir: root,
    entryPoints: { "explorer": "src/explorer.css" },
    outdir: folder,
    charset: "ascii",
    minify: true,
    legalComments: "none",
    banner: { css: licence },
    logLevel: "warning",
  });
  await copyFile(join(root, "src/page.html"), join(folder, "page.html"));
}
