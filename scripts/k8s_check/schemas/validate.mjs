// Reads checked/documents.json, [{id, module, kind, document}], and prints a line of JSON for each that is not valid.
import { readFileSync } from "node:fs";

for (const { id, module, kind, document } of JSON.parse(readFileSync("checked/documents.json", "utf8"))) {
  try {
    const models = await import(module);
    new models[kind](document).validate();
  } catch (error) {
    console.log(JSON.stringify({ id, problem: error.message }));
  }
}
