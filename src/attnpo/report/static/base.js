// What every other file uses: elements made from data (text is always text, never markup), and numbers as words.

const byId = (id) => document.getElementById(id);

function make(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== null && value !== undefined && value !== false) node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.filter((child) => child !== null && child !== undefined && child !== ""));
  return node;
}

const known = (value) => value !== null && value !== undefined;
const count = (value) => (known(value) ? Math.round(value).toLocaleString("en-US") : "–");
const plural = (number, noun) => `${count(number)} ${noun}${number === 1 ? "" : "s"}`;

// A few significant digits with a true minus sign.
function small(value, digits = 3, signed = false) {
  if (!known(value)) return "–";
  const text = String(Number(Math.abs(value).toPrecision(digits)));
  return (value < 0 ? "−" : signed && value > 0 ? "+" : "") + text;
}

const times = (value, unit) => (known(value) && unit ? `${small(value / unit, 2)}×` : "–");
