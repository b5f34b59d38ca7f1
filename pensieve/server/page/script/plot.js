// Plots in SVG: axes, what a drawing function adds, the figures under the pointer, and all of them
// in a table for those who read rather than look.

const HEIGHT = 168;
const MARGIN = { top: 8, right: 18, bottom: 22, left: 46 };

function svg(name, attributes = {}, ...children) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

// A scale turns a value into a share of the axis; `ticks` are the values with a line.

function linear(max) {
  const rough = max / 4 || 1;
  const magnitude = 10 ** Math.floor(Math.log10(rough));
  const step = magnitude * [1, 2, 5, 10].find((factor) => factor * magnitude >= rough);
  const top = step * Math.max(1, Math.ceil(max / step));
  const ticks = Array.from({ length: Math.round(top / step) + 1 }, (_, index) => index * step);
  return { place: (value) => value / top, ticks };
}

function logarithmic(values) {
  const low = Math.floor(Math.log10(Math.max(0.001, Math.min(0.1, ...values))));
  const high = Math.ceil(Math.log10(Math.max(10, ...values)));
  const place = (value) => (Math.log10(Math.max(value, 10 ** low)) - low) / (high - low);
  return {
    place,
    ticks: Array.from({ length: high - low + 1 }, (_, index) => 10 ** (low + index)),
  };
}

class Plot {
  // `label` is what the picture shows, `empty` what is said without figures.
  constructor(box, { label, empty, columns }) {
    this.label = label;
    this.readout = element("p", { class: "readout" });
    this.picture = svg("svg", { role: "img", height: HEIGHT });
    this.empty = element("p", { class: "empty" }, empty);
    this.body = element("tbody");
    this.table = element("details", {}, element("summary", {}, "Values"));
    const heads = columns.map((name) => element("th", { scope: "col" }, name));
    const table = element(
      "table",
      {},
      element("thead", {}, element("tr", {}, ...heads)),
      this.body,
    );
    this.table.append(
      element(
        "div",
        { class: "scroll", role: "region", "aria-label": `${label}: values`, tabindex: 0 },
        table,
      ),
    );
    box.append(this.readout, this.picture, this.empty, this.table);
    this.picture.addEventListener("pointermove", (event) =>
      this.point(event.clientX - this.picture.getBoundingClientRect().left),
    );
    this.picture.addEventListener("pointerleave", () => this.point(null));
    this.table.addEventListener("toggle", () => this.fillTable());
    new ResizeObserver(() => this.redraw()).observe(box);
  }

  // chart: {x, xTicks, y, yText, marks, points, summary, rows}; x and y are scales, `marks` returns
  // elements, and points are {x, text} in the order of x.
  draw(chart) {
    this.chart = chart;
    this.redraw();
    this.fillTable();
  }

  redraw() {
    const { chart, picture } = this;
    const width = picture.parentElement.clientWidth;
    if (!chart || !width) return;
    const hasPoints = chart.points.length > 0;
    show(this.empty, !hasPoints);
    this.table.classList.toggle("vacant", !hasPoints);
    set(picture, "viewBox", `0 0 ${width} ${HEIGHT}`);
    set(picture, "width", width);
    set(
      picture,
      "aria-label",
      `${this.label}: ${hasPoints ? chart.summary : this.empty.textContent}`,
    );
    const inner = {
      width: width - MARGIN.left - MARGIN.right,
      height: HEIGHT - MARGIN.top - MARGIN.bottom,
    };
    this.xOf = (value) => MARGIN.left + inner.width * chart.x(value);
    const yOf = (value) => MARGIN.top + inner.height * (1 - chart.y.place(value));
    this.marker = svg("line", { class: "marker", y1: MARGIN.top, y2: MARGIN.top + inner.height });
    picture.replaceChildren(
      ...this.axes(chart, yOf, width),
      ...(hasPoints ? chart.marks(this.xOf, yOf, inner) : []),
      this.marker,
    );
    this.point(this.pointerX ?? null);
  }

  axes(chart, yOf, width) {
    const bottom = HEIGHT - MARGIN.bottom;
    const rows = chart.y.ticks.flatMap((value) => [
      svg("line", {
        class: "grid",
        x1: MARGIN.left,
        x2: width - MARGIN.right,
        y1: yOf(value),
        y2: yOf(value),
      }),
      svg(
        "text",
        { x: MARGIN.left - 7, y: yOf(value) + 4, "text-anchor": "end" },
        chart.yText(value),
      ),
    ]);
    const columns = chart.xTicks(width).flatMap(([value, text]) => [
      svg("line", {
        class: "tick",
        x1: this.xOf(value),
        x2: this.xOf(value),
        y1: bottom,
        y2: bottom + 4,
      }),
      svg("text", { x: this.xOf(value), y: HEIGHT - 4, "text-anchor": "middle" }, text),
    ]);
    return [...rows, ...columns];
  }

  // Shows the figures at a place of the picture; without one, the last ones.
  point(pointerX) {
    this.pointerX = pointerX;
    const points = this.chart?.points ?? [];
    const distance = (point) => Math.abs(this.xOf(point.x) - pointerX);
    const isPointed = pointerX !== null && points.length > 0;
    const found = isPointed
      ? points.reduce((best, each) => (distance(each) < distance(best) ? each : best))
      : points.at(-1);
    write(this.readout, found?.text ?? "");
    if (!this.marker) return;
    this.marker.classList.toggle("on", isPointed);
    if (isPointed) for (const end of ["x1", "x2"]) set(this.marker, end, this.xOf(found.x));
  }

  fillTable() {
    if (!this.table.open || !this.chart) return;
    const row = (cells) => {
      const [first, ...others] = cells;
      return element(
        "tr",
        {},
        element("th", { scope: "row" }, first),
        ...others.map((cell) => element("td", {}, cell)),
      );
    };
    const rows = this.chart.rows().map(row);
    if (
      rows.map((each) => each.textContent).join() !==
      [...this.body.rows].map((each) => each.textContent).join()
    ) {
      this.body.replaceChildren(...rows);
    }
  }
}

// Series over time, of an hour at most.

const WINDOWS_S = [600, 1800, 3600];
const STEPS_S = [120, 300, 600, 900, 1800, 3600];
const median = (values) => values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)];

function summaryOf(values) {
  return [
    ["last", values.at(-1)],
    ["median", median(values)],
    ["lowest", Math.min(...values)],
    ["highest", Math.max(...values)],
  ];
}

// The seconds before `at` that a plot shows: fewer than an hour while there is nothing older.
function windowOf({ at, speed, first_token: first }) {
  const oldest = Math.min(at, ...[...speed, ...first].map(([time]) => time));
  return WINDOWS_S.find((window) => at - oldest <= window) ?? WINDOWS_S.at(-1);
}

function timeTicks(at, window, width) {
  const step = STEPS_S.find((each) => window / each <= width / 70);
  const first = Math.ceil((at - window * 0.97) / step) * step;
  return Array.from({ length: Math.floor((at - first) / step) + 1 }, (_, index) => [
    first + index * step,
    clock(first + index * step),
  ]);
}

function timeChart(history, series, { scale, yText, text, hasLine }) {
  const { at, interval_s } = history;
  const window = windowOf(history);
  const values = series.map(([, value]) => value);
  return {
    x: (time) => (time - at + window) / window,
    xTicks: (width) => timeTicks(at, window, width),
    y: scale(values),
    yText,
    marks: (xOf, yOf) => timeMarks(series, xOf, yOf, hasLine ? 3 * interval_s : 0),
    points: series.map(([time, value]) => ({
      x: time,
      text: `${text(value)} at ${exactClock(time)}`,
    })),
    summary: summaryOf(values)
      .map(([name, value]) => `${name} ${text(value)}`)
      .join(", "),
    rows: () => fiveMinuteRows(series, text),
  };
}

// A line and its area, interrupted where nothing was answered; without `maxGap` a dot for each.
function timeMarks(series, xOf, yOf, maxGap) {
  const runs = [];
  for (const [time, value] of series) {
    const run = runs.at(-1);
    if (run && time - run.at(-1)[0] <= maxGap) run.push([time, value]);
    else runs.push([[time, value]]);
  }
  return runs.flatMap((run) => {
    const places = run.map(([time, value]) => `${xOf(time).toFixed(1)},${yOf(value).toFixed(1)}`);
    if (run.length === 1)
      return [svg("circle", { class: "dot", cx: xOf(run[0][0]), cy: yOf(run[0][1]), r: 3 })];
    const [from, to, ground] = [xOf(run[0][0]), xOf(run.at(-1)[0]), yOf(0)];
    return [
      svg("path", { class: "area", d: `M${from},${ground}L${places.join("L")}L${to},${ground}Z` }),
      svg("path", { class: "line", d: `M${places.join("L")}` }),
    ];
  });
}

function fiveMinuteRows(series, text) {
  const groups = Map.groupBy(series, ([time]) => Math.floor(time / 300) * 300);
  return [...groups].reverse().map(([time, points]) => {
    const values = points.map(([, value]) => value);
    return [
      `${clock(time)}–${clock(time + 300)}`,
      text(median(values)),
      text(Math.min(...values)),
      text(Math.max(...values)),
    ];
  });
}
