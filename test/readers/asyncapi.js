// Checks an AsyncAPI document: asyncapi.js FILE. Prints what is wrong with it.
const { Parser, fromFile } = require("@asyncapi/parser");

async function main() {
  const { document, diagnostics } = await fromFile(new Parser(), process.argv[2]).parse();
  for (const d of diagnostics) console.log(`${["error", "warning", "information", "hint"][d.severity]}: ${d.path.join(".")}: ${d.message}`);
  if (!document) process.exit(1);
  for (const m of document.allMessages()) console.log(`message: ${m.id()}`);
}

main();
