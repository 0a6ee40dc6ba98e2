// Links to a state of the page, and the clipboard.

// Returns the URL of the page with a state, an object of texts and numbers.
export function linkTo(state) {
  const given = Object.entries(state).filter(([, value]) => value !== undefined && value !== "");
  return `${location.href.split("#")[0]}#${new URLSearchParams(given)}`;
}

// Returns the state in the URL of the page as an object of texts, which is empty for a plain URL.
export function stateInUrl() {
  return Object.fromEntries(new URLSearchParams(location.hash.slice(1)));
}

// Copies a text. Browsers offer their interface for it only over https and on localhost.
export async function copy(text) {
  if (navigator.clipboard) return navigator.clipboard.writeText(text);
  const focused = document.activeElement;
  const field = document.createElement("textarea");
  field.value = text;
  document.body.append(field);
  field.select();
  const copied = document.execCommand("copy");
  field.remove();
  focused?.focus({ preventScroll: true });
  if (!copied) throw new Error("The browser did not allow the page to copy");
}
