// Elements that change in place: nothing is written that is already there, so that neither a
// selection, the focus nor a screen reader's place is lost. Text goes in as text, never as HTML.

const byId = (id) => document.getElementById(id);

function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) set(made, key, value);
  made.append(...children);
  return made;
}

function set(target, name, value) {
  if (value == null || value === false) target.removeAttribute(name);
  else if (target.getAttribute(name) !== String(value)) target.setAttribute(name, value);
}

function write(target, text) {
  if (target.textContent !== String(text)) target.textContent = text;
}

function show(target, isShown) {
  if (target.hidden === isShown) target.hidden = !isShown;
}

// Makes the children of `parent` those of `items`, in order; an item keeps its element.
function fill(parent, items, keyOf, make, update) {
  const old = new Map([...parent.children].map((child) => [child.dataset.key, child]));
  const keys = new Set(items.map((item) => String(keyOf(item))));
  for (const [key, child] of old) if (!keys.has(key)) child.remove();
  let next = parent.firstElementChild;
  for (const item of items) {
    const key = String(keyOf(item));
    const child = old.get(key) ?? make(item);
    child.dataset.key = key;
    update(child, item);
    if (child === next) next = next.nextElementSibling;
    else parent.insertBefore(child, next);
  }
}

// A `<dl>` of names and texts; pairs without a text are left out.
function fillPairs(list, pairs) {
  const shown = pairs.filter(([, text]) => text);
  fill(
    list,
    shown,
    ([name]) => name,
    ([name]) => element("div", {}, element("dt", {}, name), element("dd")),
    (row, [, text]) => write(row.lastChild, text),
  );
}

// A bar of parts `{name, value, kind}` of one whole. Sizes are set through the CSSOM, which the
// page's policy allows, unlike a style attribute.
function fillBar(bar, parts, whole) {
  fill(
    bar,
    parts,
    (part) => part.kind,
    (part) => element("span", { class: part.kind }),
    (span, part) => {
      span.style.width = `${whole ? Math.min(100, (100 * part.value) / whole) : 0}%`;
    },
  );
}
