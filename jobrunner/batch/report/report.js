"use strict";
// What a mark stands for is told beside the pointer, or where it was tapped.
const tip = document.createElement("div");
tip.id = "tip";
tip.hidden = true;
document.body.append(tip);
function tell(event) {
  const at = event.target instanceof Element ? event.target.closest("[data-tip]") : null;
  tip.hidden = at === null;
  if (at === null) return;
  tip.textContent = at.dataset.tip;
  const box = tip.getBoundingClientRect();
  const left = Math.min(event.clientX + 12, document.documentElement.clientWidth - box.width - 8);
  const above = event.clientY - box.height - 12;
  tip.style.left = Math.max(8, left) + "px";
  tip.style.top = (above < 8 ? event.clientY + 16 : above) + "px";
}
document.addEventListener("pointermove", tell, { passive: true });
document.addEventListener("click", tell);
document.addEventListener("scroll", () => { tip.hidden = true; }, { passive: true });

// A table is sorted by a column at a click on its head, and the other way round at the next.
for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const up = head.ariaSort !== "ascending";
      for (const other of heads) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", up ? "ascending" : "descending");
      const key = (row) => row.cells[column].dataset.key ?? row.cells[column].textContent;
      const rows = [...table.tBodies[0].rows].sort((one, other) => {
        const a = key(one), b = key(other), difference = Number(a) - Number(b);
        return (Number.isNaN(difference) ? a.localeCompare(b) : difference) * (up ? 1 : -1);
      });
      table.tBodies[0].append(...rows);
    });
  });
}
