// A file that is dropped onto the page is not sent: only its name and size are, to find it in the folders allowed.
addEventListener("dragover", (event) => event.preventDefault());
addEventListener("drop", (event) => {
  event.preventDefault();
  const [file] = event.dataTransfer.files;
  if (file) emitEvent("dropped", { name: file.name, size: file.size });
});
