// Shows the cards that have an answer of the chosen kind and evaluation, and all the words typed; #worst in the address
// chooses a kind. Without this script every card is shown.
"use strict";

const gallery = document.getElementById("gallery");
const cards = [...gallery.children];
const buttons = [...document.querySelectorAll("#filters button")];
const evaluation = document.getElementById("evaluation"); // null where there is one only
const words = document.getElementById("words");
const status = document.getElementById("status");
const said = new Map(cards.map((card) => [card, card.textContent.toLowerCase()]));

// The lowest or highest score among a card's answers that match; null where none matches, NaN where none has a score.
function matching(card, button) {
  const kind = button.dataset.kind;
  const chosen = evaluation ? evaluation.value : "";
  const answers = [...card.querySelectorAll(".answer")].filter(
    (answer) =>
      (chosen === "" || answer.dataset.evaluation === chosen) &&
      (kind === "all" || answer.dataset.kinds.split(" ").includes(kind)),
  );
  if (answers.length === 0) return null;
  const scores = answers.filter((answer) => answer.dataset.score).map((answer) => Number(answer.dataset.score));
  if (scores.length === 0) return NaN;
  return "bestFirst" in button.dataset ? Math.max(...scores) : Math.min(...scores);
}

function total(button) {
  const counts = (button.dataset.totals || "").split(" ").map(Number);
  return evaluation && evaluation.value !== "" ? counts[Number(evaluation.value)] : counts.reduce((a, b) => a + b);
}

function show() {
  for (const button of buttons) button.disabled = button.dataset.kind !== "all" && total(button) === 0;
  let pressed = buttons.find((button) => button.getAttribute("aria-pressed") === "true");
  if (pressed.disabled) {
    press("all");
    pressed = buttons[0];
  }
  const wanted = words.value.toLowerCase().split(/\s+/).filter(Boolean);
  const scores = new Map();
  for (const card of cards) {
    const score = matching(card, pressed);
    card.hidden = score === null || !wanted.every((word) => said.get(card).includes(word));
    scores.set(card, score);
  }
  const shown = cards.filter((card) => !card.hidden);
  if (pressed.dataset.kind !== "all") {
    const sign = "bestFirst" in pressed.dataset ? -1 : 1;
    const worth = (card) => (Number.isNaN(scores.get(card)) ? 0 : scores.get(card));
    shown.sort((a, b) => sign * (worth(a) - worth(b)));
  }
  gallery.append(...shown, ...cards.filter((card) => card.hidden)); // in the order they are read, tabbed and printed
  const all = pressed.dataset.kind === "all" ? "" : `, of ${total(pressed)} such answers`;
  status.value = `${shown.length} card${shown.length === 1 ? "" : "s"}${all}: ${pressed.dataset.meaning}`;
}

function press(kind) {
  for (const button of buttons) button.setAttribute("aria-pressed", String(button.dataset.kind === kind));
}

function fromAddress() {
  const kind = location.hash.slice(1);
  press(buttons.some((button) => button.dataset.kind === kind) ? kind : "all");
  show();
}

for (const button of buttons) {
  button.addEventListener("click", () => {
    press(button.dataset.kind);
    history.replaceState(null, "", "#" + button.dataset.kind);
    show();
  });
}
if (evaluation) evaluation.addEventListener("change", show);
words.addEventListener("input", show);
window.addEventListener("hashchange", fromAddress);
fromAddress();
