// SPDX-License-Identifier: GPL-2.0-only
// A line's number of cases, when pressed, becomes their names.
const data = JSON.parse(document.getElementById("cases").textContent);
document.addEventListener("click", (event) => {
  const button = event.target.closest("button[data-who]");
  if (!button) return;
  const shown = button.parentElement.querySelector("ul");
  button.setAttribute("aria-expanded", String(!shown));
  if (shown) {
    shown.remove();
    return;
  }
  const list = document.createElement("ul");
  list.className = "cases";
  data.who[button.dataset.who].forEach((spans, cell) => {
    for (const span of spans) {
      const [first, last] = Array.isArray(span) ? span : [span, span];
      for (let number = first; number <= last; number++) {
        const item = document.createElement("li");
        item.textContent = `${data.cells[cell].name}  ${data.cells[cell].cases[number]}`;
        list.append(item);
      }
    }
  });
  button.parentElement.append(list);
});
