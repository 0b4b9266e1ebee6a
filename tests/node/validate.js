// SPDX-License-Identifier: GPL-3.0-or-later
// Prints the Khronos glTF validator's report on one file as JSON: node validate.js FILE
"use strict";
const fs = require("fs");
const validator = require("gltf-validator");

const path = process.argv[2];
if (!path) {
  console.error("usage: node validate.js FILE");
  process.exit(2);
}
validator
  .validateBytes(new Uint8Array(fs.readFileSync(path)), { uri: path, maxIssues: 100 })
  .then((report) => {
    console.log(JSON.stringify(report));
  })
  .catch((error) => {
    console.error(String(error));
    process.exit(1);
  });
