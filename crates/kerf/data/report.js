"use strict";
// Searching, sorting and unfolding of the table; without it, links still unfold an entry.
const table = document.getElementById("table");
const search = document.getElementById("search");
const texts = new Map();

function textOf(body) {
  if (!texts.has(body)) texts.set(body, body.textContent.toLowerCase());
  return texts.get(body);
}

function filter() {
  const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
  let shown = 0;
  for (const body of table.tBodies) {
    body.hidden = !words.every(word => textOf(body).includes(word));
    if (!body.hidden) shown += 1;
  }
  document.getElementById("count").textContent = shown + " of " + table.tBodies.length;
}

function sort(header) {
  const column = header.cellIndex;
  const down = header.getAttribute("aria-sort") === "ascending";
  for (const other of header.parentNode.cells) other.removeAttribute("aria-sort");
  header.setAttribute("aria-sort", down ? "descending" : "ascending");
  const key = body => {
    const cell = body.rows[0].cells[column];
    return cell.dataset.n === undefined ? cell.textContent : Number(cell.dataset.n);
  };
  const order = (a, b) => typeof a === "number" ? a - b : a.localeCompare(b, "en", { numeric: true });
  const keyed = [...table.tBodies].map(body => [key(body), body]);
  keyed.sort((a, b) => down ? order(b[0], a[0]) : order(a[0], b[0]));
  table.append(...keyed.map(pair => pair[1]));
}

function openLinked() {
  const body = document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (!body || body.parentNode !== table) return;
  body.hidden = false;
  body.classList.add("open");
  body.scrollIntoView();
}

table.classList.add("script");
for (const header of table.tHead.rows[0].cells) {
  const button = document.createElement("button");
  button.textContent = header.textContent;
  button.addEventListener("click", () => sort(header));
  header.replaceChildren(button);
}
table.addEventListener("click", event => {
  const row = event.target.closest("tr");
  if (!row || row.parentNode.tagName !== "TBODY" || row !== row.parentNode.rows[0]) return;
  if (row.closest("table") !== table) return;
  // A link unfolds too, and puts the entry into the address; a second click folds it.
  if (!row.parentNode.classList.toggle("open")) event.preventDefault();
});
search.addEventListener("input", filter);
search.parentNode.hidden = false;
addEventListener("hashchange", openLinked);
filter();
openLinked();
