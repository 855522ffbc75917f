// Parses every mermaid diagram in the repository's Markdown with mermaid itself. A diagram that GitHub and
// the book could not draw is reported with its file and line, and the exit code is 1.
//
// node parse.mjs [FILE.md ...]      without a file: all files that git does not ignore
//
// First, the script checks that it would notice an error: it parses one valid diagram and one that is not.

import { execFileSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { JSDOM } from "jsdom";

// mermaid cleans labels with DOMPurify, which needs a browser's window even if no diagram is drawn.
const { window } = new JSDOM("");
globalThis.window = window;
globalThis.document = window.document;
const { default: mermaid } = await import("mermaid");

/** The mermaid blocks of a page: each with the line of its fence and its lines of text. */
function diagrams(page) {
  const found = [];
  let open = null;
  for (const [number, line] of page.split("\n").entries()) {
    const fence = line.match(/^\s*(?:[-*>]\s+)*(`{3,}|~{3,})\s*(\S*)/);
    if (open && fence && fence[2] === "" && fence[1].startsWith(open.fence)) {
      if (open.info === "mermaid") found.push(open);
      open = null;
    } else if (open) {
      open.lines.push(line);
    } else if (fence) {
      open = { fence: fence[1], info: fence[2], line: number + 1, lines: [] };
    }
  }
  if (open?.info === "mermaid") found.push(open);
  return found;
}

/** What is wrong with a diagram, and in which line of its page; null where nothing is. */
async function fault(diagram) {
  try {
    await mermaid.parse(diagram.lines.join("\n"));
    return null;
  } catch (error) {
    // mermaid counts lines from the first line of the diagram, and skips comments.
    const isComment = (line) => /^\s*%%(?!\{)/.test(line);
    const counted = [...diagram.lines.entries()].filter(([, line]) => !isComment(line));
    const first = counted.findIndex(([, line]) => line.trim() !== "");
    const said = Number(/line (\d+)/.exec(error.message)?.[1] ?? 0);
    const place = said ? counted[Math.min(first + said, counted.length) - 1][0] : -1;
    return { line: diagram.line + place + 1, message: error.message };
  }
}

/** A parser that lets everything pass would look just like diagrams without a fault. */
async function proveThatFaultsAreFound() {
  const page = (arrow) => `# T\n\n\`\`\`mermaid\nsequenceDiagram\n  %% code: a.rs\n  A->>B: GET /\n  B${arrow}A: 200\n\`\`\`\n`;
  const [[good], [bad]] = ["-->>", "=?>"].map((arrow) => diagrams(page(arrow)));
  const [none, one] = [await fault(good), await fault(bad)];
  if (none !== null || one?.line !== 7) {
    console.error(`parse.mjs: expected one fault, in line 7, and got ${JSON.stringify([none, one])}`);
    process.exit(1);
  }
}

await proveThatFaultsAreFound();
const root = execFileSync("git", ["rev-parse", "--show-toplevel"], { encoding: "utf8" }).trim();
const listed = () =>
  execFileSync("git", ["ls-files", "-co", "--exclude-standard", "*.md"], { cwd: root, encoding: "utf8" })
    .split("\n")
    .filter(Boolean);
const given = process.argv.slice(2);
let [parsed, wrong] = [0, 0];
for (const file of given.length ? given : listed()) {
  const page = readFileSync(given.length ? file : `${root}/${file}`, "utf8");
  for (const diagram of diagrams(page)) {
    const found = await fault(diagram);
    if (found) {
      console.error(`${file}:${found.line}: ${found.message}`);
      wrong += 1;
    } else {
      parsed += 1;
    }
  }
}
console.log(`${parsed} diagrams parse${wrong ? `, ${wrong} do not` : ""}`);
process.exit(wrong ? 1 : 0);
