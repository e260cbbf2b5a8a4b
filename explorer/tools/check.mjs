// SPDX-License-Identifier: GPL-2.0-only
// Fails unless the built page in the Python package is what the sources give.

import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { bundle, committed, names } from "./bundle.mjs";

const read = (folder, name) => readFile(join(folder, name), "utf8").catch(() => null);
const fresh = await mkdtemp(join(tmpdir(), "rmaplab-explorer-"));
try {
  await bundle(fresh);
  for (const name of names) {
    if ((await read(fresh, name)) !== (await read(committed, name))) {
      console.error(`${name} differs from its sources: run "npm run build" in explorer/ and commit the result`);
      process.exitCode = 1;
    }
  }
} finally {
  await rm(fresh, { recursive: true });
}
