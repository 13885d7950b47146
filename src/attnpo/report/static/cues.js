// Under a table that is wider than its box: that it scrolls, until all of it was seen.

function cue(box) {
  const wide = box.scrollWidth > box.clientWidth + 1;
  let said = box.nextElementSibling?.classList.contains("cue") ? box.nextElementSibling : null;
  if (!wide) {
    said?.remove();
    return;
  }
  if (!said) {
    said = make("p", { class: "cue", "aria-hidden": true });
    box.after(said);
  }
  const [left, right] = [box.scrollLeft > 1, box.scrollLeft + box.clientWidth < box.scrollWidth - 1];
  box.classList.toggle("moved", !right);
  said.textContent = right ? `${left ? "← " : ""}more columns: scroll sideways →` : "← scroll back";
}

function startCues() {
  const sizes = new ResizeObserver((entries) => entries.forEach(({ target }) => cue(target)));
  for (const box of document.querySelectorAll(".scroll")) {
    sizes.observe(box);
    box.addEventListener("scroll", () => cue(box), { passive: true });
  }
}
