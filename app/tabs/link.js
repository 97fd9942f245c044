// Copies a link to this page and says so on the button; where the browser does not allow that, shows the link.
window.zoCopyLink = async (id, query) => {
  const button = document.querySelector(id), link = location.origin + location.pathname + query;
  button.dataset.name ||= button.textContent;
  try { await navigator.clipboard.writeText(link); button.textContent = "Link copied"; }
  catch (error) { prompt("The link:", link); }
  setTimeout(() => { button.textContent = button.dataset.name; }, 2500);
};
