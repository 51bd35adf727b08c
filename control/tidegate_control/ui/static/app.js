// What is nicer with scripts, beside what htmx does by attributes. Every page does without both files.
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
      for (const kind of ["input", "change"]) area.dispatchEvent(new Event(kind, { bubbles: true }));
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

// An error takes the place of what was asked for, as one line of text; htmx by itself leaves it out.
function tell(target, words) {
  const [note, line] = [document.createElement("div"), document.createElement("p")];
  note.className = "note bad";
  note.setAttribute("role", "alert");
  line.textContent = words;
  note.append(line);
  target.replaceChildren(note);
}
document.addEventListener("htmx:beforeSwap", ({ detail }) => {
  if (detail.xhr.status < 400) return;
  detail.isError = false;
  const said = new DOMParser().parseFromString(detail.xhr.responseText, "text/html").querySelector(".note p");
  tell(detail.target, said?.textContent.trim() || `The server answered with status ${detail.xhr.status}.`);
});
document.addEventListener("htmx:sendError", ({ detail }) => tell(detail.target, "The server does not answer."));

// The same address twice is one step of the way back.
document.addEventListener("htmx:beforeHistoryUpdate", ({ detail }) => {
  if (detail.history.path === location.pathname + location.search) detail.history.type = "replace";
});

document.addEventListener("htmx:afterSettle", () => {
  // A field says by itself whether something is wrong with it; a fieldset may not.
  for (const box of document.querySelectorAll("form.fields [id^=problem-]")) {
    const field = document.getElementById(box.id.replace("problem", "field"));
    if (!field || field.tagName === "FIELDSET") continue;
    if (box.childElementCount) field.setAttribute("aria-invalid", "true");
    else field.removeAttribute("aria-invalid");
  }
  // Where the link that was followed is gone, the keyboard goes on at what was found.
  if (document.activeElement === document.body) document.getElementById("found")?.focus();
});

// What went wrong is read first.
document.querySelector("[data-focus]")?.focus();
