// Drives a browser for browser_test.go: commands are lines of JSON on stdin, answers are lines on stdout.
// Arguments: the folder of playwright-core, the browser's program.
import { createRequire } from "node:module";
import { createInterface } from "node:readline";

const [, , playwright, program] = process.argv;
const { chromium } = createRequire(import.meta.url)(playwright);
const browser = await chromium.launch({ executablePath: program, args: ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"] });
const pages = new Map();
const complaints = [];

const commands = {
  // Opens a page of its own, whose name is id.
  async open({ id, url, width = 1200, height = 800, dark = false, script = true, still = true }) {
    await pages.get(id)?.context().close();
    const context = await browser.newContext({
      viewport: { width, height }, colorScheme: dark ? "dark" : "light", javaScriptEnabled: script,
      deviceScaleFactor: 1, reducedMotion: "reduce",
    });
    const page = await context.newPage();
    page.on("console", (m) => { if (["error", "warning"].includes(m.type())) complaints.push(`${m.text()} (${m.location().url})`); });
    page.on("pageerror", (error) => complaints.push(String(error)));
    page.on("dialog", (dialog) => { complaints.push(`dialog: ${dialog.message()}`); dialog.dismiss(); });
    pages.set(id, page);
    const response = await page.goto(url, { waitUntil: still ? "load" : "commit", timeout: 60000 });
    return response?.status() ?? 0;
  },
  // Runs an expression in the page.
  async eval({ id, js }) { return pages.get(id).evaluate(js); },
  // Waits until an expression is true in the page, and returns for how long, in ms. The page's policy forbids that
  // the page itself evaluates it.
  async wait({ id, js, timeout }) {
    const began = performance.now();
    const holds = () => pages.get(id).evaluate(`Boolean(${js})`).catch((error) => {
      if (!/context was destroyed|navigation/i.test(String(error))) throw error; // it is on its way to another page
    });
    while (!(await holds())) {
      if (performance.now() - began > timeout) {
        const text = await pages.get(id).evaluate("document.body.innerText");
        throw new Error(`waited for ${js} in vain: ${text.slice(0, 2000)}`);
      }
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
    return performance.now() - began;
  },
  async fill({ id, selector, text }) { await pages.get(id).fill(selector, text); },
  async click({ id, selector }) { await pages.get(id).click(selector); },
  async press({ id, key }) { await pages.get(id).keyboard.press(key); },
  async screenshot({ id, path, full = false }) { await pages.get(id).screenshot({ path, fullPage: full }); },
  async close({ id }) { await pages.get(id)?.context().close(); pages.delete(id); },
  // What the console, scripts and dialogs have said since it was asked for last.
  async complaints() { return complaints.splice(0); },
};

for await (const line of createInterface({ input: process.stdin })) {
  const command = JSON.parse(line);
  let answer;
  try {
    answer = { is: (await commands[command.do](command)) ?? null };
  } catch (error) {
    answer = { error: String(error?.stack ?? error) };
  }
  process.stdout.write(JSON.stringify(answer) + "\n");
}
await browser.close();
