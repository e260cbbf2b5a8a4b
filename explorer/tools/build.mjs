// SPDX-License-Identifier: GPL-2.0-only
// Builds the page into the Python package.

import { stat } from "node:fs/promises";
import { join } from "node:path";
import { bundle, committed, names } from "./bundle.mjs";

await bundle(committed);
for (const name of names) {
  const { size } = await stat(join(committed, name));
  console.log(`${name}: ${size} bytes`);
}
