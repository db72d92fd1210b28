// Ranking by keyboard, by drag and by buttons. The list on the page is the state: ranked responses lie on top, best
// first, and `tied` marks one that shares the place of the one above.
"use strict";

let shownAt = performance.now();

const form = () => document.getElementById("answer");
const cards = () => [...document.querySelectorAll("#responses .response")];
const ranked = () => cards().filter((card) => card.classList.contains("ranked"));
const isTied = (card) => card.classList.contains("tied");

function ranks() {
  const found = new Map();
  let place = 0;
  for (const card of ranked()) {
    if (!isTied(card) || place === 0) place += 1;
    found.set(card, place);
  }
  return found;
}

function show() {
  if (!form()) return;
  if (ranked().length) ranked()[0].classList.remove("tied");
  const found = ranks();
  const places = [...found.values()];
  let unranked = false;
  for (const card of cards()) {
    const place = found.get(card);
    const shared = places.filter((other) => other === place).length > 1;
    card.querySelector(".rank").textContent = place ? place + (shared ? "=" : "") : "";
    card.querySelector(".tie").setAttribute("aria-pressed", String(isTied(card)));
    card.querySelector(".tie").disabled = !place || card === ranked()[0];
    card.classList.toggle("first-unranked", !place && !unranked);
    unranked ||= !place;
  }
  const byPlace = cards().sort((a, b) => a.dataset.place - b.dataset.place);
  form().elements.ranks.value = byPlace.map((card) => found.get(card) || "").join(",");
  document.getElementById("submit").disabled = found.size < 2;
}

// Puts a card at an index of the ranked ones; a tie belongs to the place that a card leaves.
function put(card, index) {
  unrank(card);
  const rest = ranked();
  const list = document.getElementById("responses");
  const next = index < rest.length ? rest[index] : cards().find((other) => other !== card && !other.classList.contains("ranked"));
  card.classList.add("ranked");
  list.insertBefore(card, next || null);
}

function unrank(card) {
  const next = ranked()[ranked().indexOf(card) + 1];
  if (card.classList.contains("ranked") && next && isTied(next) && !isTied(card)) next.classList.remove("tied");
  card.classList.remove("ranked", "tied");
}

function takeBack(card) {
  unrank(card);
  const later = cards().filter((other) => other !== card && !other.classList.contains("ranked"));
  const next = later.find((other) => Number(other.dataset.place) > Number(card.dataset.place));
  document.getElementById("responses").insertBefore(card, next || null);
}

function tie(card) {
  if (card && card.classList.contains("ranked") && card !== ranked()[0]) card.classList.toggle("tied");
}

function move(card, step) {
  const index = ranked().indexOf(card);
  if (index < 0) put(card, step < 0 ? ranked().length : ranked().length);
  else if (index + step >= 0 && index + step < ranked().length) put(card, index + step);
}

function clear() {
  for (const card of ranked()) card.classList.remove("ranked", "tied");
  const list = document.getElementById("responses");
  for (const card of cards().sort((a, b) => a.dataset.place - b.dataset.place)) list.append(card);
}

function pressed(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || event.isComposing) return;
  const tag = event.target.tagName;
  if (tag === "INPUT" && event.target.type !== "checkbox") return;
  if (event.key.toLowerCase() === "u" && document.getElementById("undo")) {
    document.getElementById("undo").click();
    return;
  }
  if (!form()) return;
  const card = cards().find((one) => Number(one.dataset.place) + 1 === Number(event.key));
  if (card) {
    if (card.classList.contains("ranked")) takeBack(card);
    else put(card, ranked().length);
  } else if (event.key === "=" || event.key.toLowerCase() === "t") {
    tie(event.target.closest?.(".response.ranked") || ranked().at(-1));
  } else if (event.key === "Backspace") {
    if (ranked().length) takeBack(ranked().at(-1));
  } else if (event.key === "Enter" && !["BUTTON", "SUMMARY", "A"].includes(tag)) {
    document.getElementById("submit").click();
  } else if (event.key.toLowerCase() === "s") {
    const skipping = document.getElementById("skipping");
    skipping.open = !skipping.open;
    if (skipping.open) skipping.querySelector("button").focus();
  } else if (event.key.toLowerCase() === "g") {
    const guidelines = document.querySelector(".guidelines");
    if (guidelines) guidelines.open = !guidelines.open;
  } else {
    return;
  }
  event.preventDefault();
  show();
}

function clicked(event) {
  const card = event.target.closest(".response");
  if (event.target.id === "clear") clear();
  else if (card && event.target.closest(".up")) move(card, -1);
  else if (card && event.target.closest(".down")) move(card, 1);
  else if (card && event.target.closest(".tie")) tie(card);
  else return;
  event.target.closest("button").focus();
  show();
}

// Pointer events serve mouse, pen and finger alike.
let dragged = null;

function grabbed(event) {
  const side = event.target.closest(".side");
  if (!side || event.button !== 0) return;
  dragged = { card: side.closest(".response"), y: event.clientY, moved: false };
  side.setPointerCapture(event.pointerId);
}

function carried(event) {
  if (!dragged) return;
  if (!dragged.moved && Math.abs(event.clientY - dragged.y) < 6) return;
  dragged.moved = true;
  dragged.card.classList.add("dragging");
  const others = cards().filter((card) => card !== dragged.card);
  const below = others.find((card) => {
    const box = card.getBoundingClientRect();
    return event.clientY < box.top + box.height / 2;
  });
  const list = document.getElementById("responses");
  if ((dragged.card.nextElementSibling || null) !== (below || null)) {
    const { pointerId } = event;
    unrank(dragged.card);
    list.insertBefore(dragged.card, below || null);
    dragged.card.querySelector(".side").setPointerCapture(pointerId);
  }
}

function dropped() {
  if (!dragged) return;
  const { card, moved } = dragged;
  dragged = null;
  card.classList.remove("dragging");
  if (moved) {
    // Whoever puts cards in order by hand means the whole order: all that lies above is ranked, too.
    const all = cards();
    const last = Math.max(all.indexOf(card), ...all.map((one, index) => (one.classList.contains("ranked") ? index : -1)));
    all.slice(0, last + 1).forEach((one) => one.classList.add("ranked"));
  } else if (card.classList.contains("ranked")) {
    takeBack(card);
  } else {
    put(card, ranked().length);
  }
  show();
}

function tell(text) {
  const error = document.getElementById("error");
  error.textContent = text;
  error.hidden = !text;
}

document.addEventListener("keydown", pressed);
document.addEventListener("click", clicked);
document.addEventListener("pointerdown", grabbed);
document.addEventListener("pointermove", carried);
document.addEventListener("pointerup", dropped);
document.addEventListener("pointercancel", dropped);
document.addEventListener("htmx:configRequest", (event) => {
  event.detail.parameters.set?.("seconds", ((performance.now() - shownAt) / 1000).toFixed(1));
});
document.addEventListener("htmx:afterSwap", () => {
  shownAt = performance.now();
  tell("");
  window.scrollTo(0, 0);
  show();
});
document.addEventListener("htmx:responseError", (event) => tell(event.detail.xhr.responseText || "The server refused this."));
document.addEventListener("htmx:sendError", () => tell("Not saved: the server does not answer. Submit again in a moment; nothing is counted twice."));
// A page from the browser's memory may show an item that has been answered since.
window.addEventListener("pageshow", (event) => { if (event.persisted) location.reload(); });
show();
