// @ts-check
// Keeps a page up to date. The server sends what has changed, as HTML that it has
// escaped. Without this script the page reloads itself.

/**
 * @typedef {object} Patch
 * @property {string} title
 * @property {Record<string, string>} [parts] parts of the page, by their ids
 * @property {Record<string, string>} [rows] rows of the table, by their ids
 * @property {string[] | null} order ids of the rows there are, null: those of before
 */

/** @type {EventSource | null} */
let source = null;
/** When the connection was lost, "" while there is one. */
let lost = "";

/** Looks for changes of the page at this address, in place of what was looked for before. */
function connect() {
  source?.close();
  source = new EventSource(location.href.replace(/#.*/, ""));
  source.onmessage = (event) => {
    lost = "";
    document.body.classList.remove("lost");
    apply(JSON.parse(event.data));
  };
  source.onerror = () => {
    lost ||= new Date().toLocaleTimeString();
    document.body.classList.add("lost");
    const status = document.getElementById("status");
    if (status) status.textContent = `No connection since ${lost}. What stands here is older.`;
    // A server that refuses a stream is not asked again by the browser.
    if (source?.readyState === EventSource.CLOSED) setTimeout(() => source && connect(), 5000);
  };
}

/** @param {Patch} patch */
function apply(patch) {
  document.title = patch.title;
  for (const [id, html] of Object.entries(patch.parts ?? {})) {
    const part = document.getElementById(id);
    if (part) keepFocus(part, () => { part.innerHTML = html; return part; });
  }
  const table = document.getElementById("rows");
  if (table) applyRows(table, patch);
}

/**
 * Replaces the rows that have changed, and puts them in order.
 * @param {HTMLElement} table
 * @param {Patch} patch
 */
function applyRows(table, patch) {
  /** @type {Map<string, Element>} */
  const rows = new Map();
  for (const row of table.children) rows.set(row.id, row);
  for (const [id, html] of Object.entries(patch.rows ?? {})) {
    const old = rows.get(id);
    const row = parseRow(html);
    if (!row || old?.isEqualNode(row)) continue;
    rows.set(id, row);
    if (old) keepFocus(old, () => { old.replaceWith(row); return row; });
  }
  if (!patch.order) return;
  const wanted = new Set(patch.order);
  for (const row of [...table.children]) if (!wanted.has(row.id)) row.remove();
  let next = table.firstElementChild;
  for (const id of patch.order) {
    const row = rows.get(id);
    if (!row) continue;
    if (row === next) next = next.nextElementSibling;
    else table.insertBefore(row, next);
  }
}

/** @param {string} html */
function parseRow(html) {
  const template = document.createElement("template");
  template.innerHTML = html;
  return template.content.firstElementChild;
}

/**
 * Changes a part of the page. A link in it that had the focus gets it back.
 * @param {Element} part
 * @param {() => Element} change
 */
function keepFocus(part, change) {
  const focused = document.activeElement;
  const href = focused && part.contains(focused) ? focused.getAttribute("href") : null;
  const changed = change();
  if (href === null) return;
  for (const link of changed.querySelectorAll("a")) {
    if (link.getAttribute("href") === href) return link.focus({ preventScroll: true });
  }
}

const search = /** @type {HTMLInputElement | null} */ (document.querySelector("input[type=search]"));
/** @type {number | undefined} */
let typing;

/** Shows what was searched for, at an address that says so. */
function searchNow() {
  const address = new URL(location.href);
  address.searchParams.delete("page");
  if (search?.value) address.searchParams.set("q", search.value);
  else address.searchParams.delete("q");
  history.replaceState(null, "", address);
  connect();
}

search?.addEventListener("input", () => {
  clearTimeout(typing);
  typing = setTimeout(searchNow, 250);
});
search?.form?.addEventListener("submit", (event) => {
  event.preventDefault();
  clearTimeout(typing);
  searchNow();
});

document.addEventListener("keydown", (event) => {
  const inField = event.target instanceof HTMLInputElement;
  if (event.key === "/" && search && !inField && !event.ctrlKey && !event.metaKey && !event.altKey) {
    event.preventDefault();
    search.select();
    search.focus();
  }
  if (event.key === "Escape" && event.target === search && search) search.blur();
});

// A page that nobody sees costs nothing.
document.addEventListener("visibilitychange", () => {
  if (document.hidden) {
    source?.close();
    source = null;
  } else if (!source) {
    connect();
  }
});
if (!document.hidden) connect();
