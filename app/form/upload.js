// A file over the limit is refused before a byte of it is sent, in one sentence beside the control.
(function () {
  "use strict";
  const limit = Number(document.currentScript.dataset.limit);
  const inWords = (bytes) => (bytes >= 1e9 ? (bytes / 1e9).toFixed(1) + " GB" : (bytes / 1e6).toFixed(0) + " MB");

  function check(event, files) {
    if (!(event.target instanceof Element) || !event.target.closest("#zo-file") || !files || !files.length) return;
    const place = document.querySelector("#zo-too-large");
    const large = [...files].find((file) => file.size > limit);
    place.textContent = "";
    place.className = "";
    if (!large) return;
    event.preventDefault();
    event.stopImmediatePropagation();
    if (event.target.value) event.target.value = "";
    place.className = "zo-error";
    place.textContent = large.name + " has " + inWords(large.size) + ", over the limit of " + inWords(limit) + ": use a part";
  }

  document.addEventListener("change", (event) => check(event, event.target.files), true);
  document.addEventListener("drop", (event) => check(event, event.dataTransfer && event.dataTransfer.files), true);
})();
