// Of a file that is dropped onto the page the name and size are sent, to find it in the folders allowed.  A photograph
// that is not of these is sent when the page asks for it.
let dropped = null;
function sendDropped() {
  if (dropped) fetch(`${location.pathname}/photograph?name=${encodeURIComponent(dropped.name)}`, { method: "POST", body: dropped });
}
addEventListener("dragover", (event) => event.preventDefault());
addEventListener("drop", (event) => {
  event.preventDefault();
  const [file] = event.dataTransfer.files;
  dropped = file ?? null;
  if (file) emitEvent("dropped", { name: file.name, size: file.size });
});

// What is typed into a list that can be searched: as it is typed, when Enter is pressed, and when the field is left.
// Quasar puts the old choice back without a word where nothing of that name is there.  A press on the list itself does
// not leave the field: what is pointed at is picked when it ends, and until then the list must stay as it is.
let pressed = false;
addEventListener("pointerdown", ({ target }) => { pressed = Boolean(target.closest?.(".q-menu, .q-dialog")); }, true);
addEventListener("click", () => { pressed = false; }, true);
for (const [event, kind] of [["input", "typed"], ["keydown", "entered"], ["focusout", "left"]]) {
  addEventListener(event, ({ target, key }) => {
    if (!target.closest?.(".picker") || (kind === "entered" && key !== "Enter") || (kind === "left" && pressed)) return;
    emitEvent("picked", { field: target.id, kind, text: target.value ?? "" });
  }, true);
}
