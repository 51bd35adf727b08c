// What is nicer with scripts. Every page does without this file.
"use strict";

// A phone's menu begins closed; where there is room it is always open.
const narrow = window.matchMedia("(max-width: 50rem)");
const menu = document.querySelector("details.menu");
function fold() { if (menu) menu.open = !narrow.matches; }
narrow.addEventListener("change", fold);
fold();

// Copy what stands in a command's box.
for (const button of document.querySelectorAll("button[data-copy]")) {
  button.hidden = false;
  button.addEventListener("click", async () => {
    const box = document.getElementById(button.dataset.copy);
    try {
      await navigator.clipboard.writeText(box.textContent.trim());
      button.textContent = "Copied";
    } catch {
      window.getSelection().selectAllChildren(box);
    }
  });
}

// Add a known name to a list of them.
for (const pick of document.querySelectorAll(".pick")) {
  pick.hidden = false;
  const [input, button] = [pick.querySelector("input"), pick.querySelector("button")];
  const area = document.getElementById(pick.dataset.into);
  function add() {
    const word = input.value.trim();
    const lines = area.value.split("\n").map((line) => line.trim()).filter(Boolean);
    if (word && !lines.includes(word)) {
      area.value = area.tagName === "INPUT" ? word : [...lines, word].join("\n");
      area.dispatchEvent(new Event("input", { bubbles: true }));
    }
    input.value = "";
    input.focus();
  }
  button.addEventListener("click", add);
  input.addEventListener("keydown", (event) => {
    if (event.key === "Enter") { event.preventDefault(); add(); }
  });
}

// Leaving a form that was changed asks first.
for (const form of document.querySelectorAll("form.fields")) {
  let dirty = false;
  form.addEventListener("input", () => { dirty = true; });
  form.addEventListener("submit", () => { dirty = false; });
  window.addEventListener("beforeunload", (event) => { if (dirty) event.preventDefault(); });
}

// A menu of a filter acts at once.
for (const select of document.querySelectorAll(".filter select")) {
  select.addEventListener("change", () => select.form.requestSubmit());
}

// What went wrong is read first.
document.querySelector("[data-focus]")?.focus();
