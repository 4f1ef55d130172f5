"use strict";
const list = document.getElementById("cards");
const cards = list ? [...list.children] : [];
const tools = document.getElementById("tools");
const isReview = document.body.classList.contains("review");
const words = new Map(cards.map((card) =>
  [card, card.querySelector(".content").textContent.toLowerCase()]));

const ORDERS = {
  rank: (a, b) => a.dataset.rank - b.dataset.rank,
  "-rank": (a, b) => b.dataset.rank - a.dataset.rank,
  pair: (a, b) => a.dataset.pair - b.dataset.pair || ORDERS.rank(a, b),
  row: (a, b) => a.dataset.row.localeCompare(b.dataset.row, undefined, { numeric: true }),
};

function matches(card) {
  const { search, pair, show } = tools.elements;
  return words.get(card).includes(search.value.trim().toLowerCase())
    && (!pair.value || card.dataset.pair === pair.value)
    && (!show?.value || ("decision" in card.dataset) === (show.value === "done"));
}

function filter() {
  for (const card of cards) card.hidden = !matches(card);
  document.getElementById("none").hidden = visible().length > 0;
  count();
}

function sort() {
  list.append(...cards.sort(ORDERS[tools.elements.order.value]));
}

function visible() {
  return cards.filter((card) => !card.hidden);
}

function count() {
  const shown = visible().length;
  const rows = shown === cards.length ? `${shown} rows` : `${shown} of ${cards.length} rows`;
  const decided = cards.filter((card) => "decision" in card.dataset).length;
  document.getElementById("count").textContent = isReview ? `${rows}, ${decided} decided` : rows;
}

function start() {
  tools.addEventListener("submit", (event) => event.preventDefault());
  tools.elements.order.addEventListener("change", sort);
  tools.addEventListener("input", filter);
  document.addEventListener("click", (event) => {
    const cell = event.target.closest(".matrix [data-pair]");
    if (!cell) return;
    tools.elements.pair.value = cell.dataset.pair;
    filter();
    document.getElementById("rows").scrollIntoView();
  });
  sort();
  filter();
  if (isReview) startReview();
}

// Decisions: asked for one after the other, shown only once the server has stored them.

let current = null;
let waiting = Promise.resolve();
let round = 0; // of decisions that do not depend on a failed one
const done = []; // cards decided in this tab, the last one to be undone first

function select(card) {
  current?.classList.remove("current");
  current = card ?? null;
  if (!current) return;
  current.classList.add("current");
  current.focus({ preventScroll: true });
  if (current !== visible()[0]) current.scrollIntoView({ block: "center" });
}

function step(by) {
  const shown = visible();
  const at = shown.indexOf(current);
  select(shown[Math.min(Math.max(at + by, 0), shown.length - 1)]);
}

function nextUndecided(card) {
  const isOpen = (other) => !other.hidden && other !== card && !("decision" in other.dataset);
  const at = cards.indexOf(card);
  return cards.slice(at).find(isOpen) ?? cards.find(isOpen) ?? card;
}

async function send(card, decision, label) {
  const response = await fetch("decisions", {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ card: Number(card.dataset.card), decision, label }),
  });
  if (!response.ok) throw new Error(await response.text());
  return response.json();
}

function show(card, { decision, said }) {
  if (decision) card.dataset.decision = decision;
  else delete card.dataset.decision;
  card.querySelector(".decision").textContent = said;
}

async function decide(card, decision, label = null) {
  show(card, await send(card, decision, label));
  done.push(card);
  select(nextUndecided(card));
  filter();
}

async function undo(card) {
  if (!("decision" in card.dataset)) return;
  show(card, await send(card, "undo", null));
  const at = done.lastIndexOf(card);
  if (at >= 0) done.splice(at, 1);
  filter();
  card.hidden = false;
  select(card);
}

function ask(card) {
  const dialog = document.getElementById("other");
  dialog.returnValue = "";
  dialog.showModal();
  return new Promise((resolve) => dialog.addEventListener("close", () => {
    const label = document.getElementById("class").value;
    resolve(dialog.returnValue === "choose" && label !== "" ? Number(label) : null);
  }, { once: true }));
}

async function act(name, card) {
  if (!card) return;
  if (name === "undo") return undo(card);
  if (name !== "other") return decide(card, name);
  const label = await ask(card);
  if (label !== null) await decide(card, name, label);
}

function enqueue(action) {
  const own = round;
  waiting = waiting.then(() => (own === round ? action() : null)).then(
    () => own === round && say(""),
    (error) => { round += 1; say(error.message); },
  );
}

function say(problem) {
  const place = document.getElementById("problem");
  place.hidden = !problem;
  place.textContent = `Not saved: ${problem.replace(/\.$/, "")}. If this goes on, run noisyfit review again and open its new address.`;
  if (problem) place.scrollIntoView({ block: "center" });
}

const KEYS = {
  k: () => act("keep", current),
  a: () => act("accept", current),
  o: () => act("other", current),
  s: () => act("skip", current),
  u: () => act("undo", current && "decision" in current.dataset ? current : done.at(-1)),
  arrowdown: () => step(1), arrowright: () => step(1),
  arrowup: () => step(-1), arrowleft: () => step(-1),
};

function startReview() {
  document.addEventListener("keydown", (event) => {
    const isTyping = event.target.closest("input, select, dialog");
    const action = KEYS[event.key.toLowerCase()];
    if (!action || isTyping || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    enqueue(action);
  });
  list.addEventListener("click", (event) => {
    const card = event.target.closest(".card");
    const name = event.target.closest("[data-do]")?.dataset.do;
    if (card && name) enqueue(() => act(name, card));
    else if (card) select(card);
  });
  const choose = () => document.getElementById("other").close("choose");
  const classes = document.getElementById("class");
  classes.addEventListener("dblclick", choose);
  classes.addEventListener("keydown", (event) => event.key === "Enter" && choose());
  select(visible().find((card) => !("decision" in card.dataset)) ?? visible()[0]);
}

if (cards.length) start();
