// How figures are written. A missing one is a dash.

const NONE = "–";
const integers = new Intl.NumberFormat("en-US", { maximumFractionDigits: 0 });

const fractions = new Intl.NumberFormat("en-US", { maximumFractionDigits: 2 });

const short = (value) => fractions.format(value);

const count = (value) => (value == null ? NONE : integers.format(value));

const plural = (value, noun) => `${count(value)} ${noun}${value === 1 ? "" : "s"}`;

function rate(value) {
  if (value == null) return NONE;
  return value < 100 ? value.toFixed(1) : count(value);
}

function percent(part, whole) {
  if (part == null || !whole) return NONE;
  const value = (100 * part) / whole;
  // Neither all nor nothing by rounding alone.
  if (value > 0 && value < 1) return "<1 %";
  return value > 99 && value < 100 ? ">99 %" : `${Math.round(value)} %`;
}

function seconds(value) {
  if (value == null) return NONE;
  if (value < 9.95) return `${value < 0.0995 ? value.toFixed(2) : value.toFixed(1)} s`;
  const whole = Math.round(value);
  if (whole < 60) return `${whole} s`;
  const [minutes, rest] = [Math.floor(whole / 60), whole % 60];
  if (minutes < 60) return `${minutes} min ${String(rest).padStart(2, "0")} s`;
  return `${Math.floor(minutes / 60)} h ${String(minutes % 60).padStart(2, "0")} min`;
}

function bytes(value) {
  if (value == null) return NONE;
  if (value >= 9.95e9) return `${(value / 1e9).toFixed(1)} GB`;
  if (value >= 0.9995e9) return `${(value / 1e9).toFixed(2)} GB`;
  return `${count(value / 1e6)} MB`;
}

const clock = (unix, options = {}) =>
  new Date(unix * 1000).toLocaleTimeString("en-GB", {
    hour: "2-digit",
    minute: "2-digit",
    ...options,
  });

const exactClock = (unix) => clock(unix, { second: "2-digit" });
