// Draws histograms of UHI's JSON on a canvas, and tells what is under the pointer.

const INK = "#1d2730", SOFT = "#5c6b78", GRID = "#e7ecf0", FILL = "#cfe2f3", EDGE = "#1f6fb2";
// Colours of viridis, between which is interpolated.
const COLOURS = [
  [68, 1, 84], [72, 40, 120], [62, 74, 137], [49, 104, 142], [38, 130, 142],
  [31, 158, 137], [53, 183, 121], [110, 206, 88], [181, 222, 43], [253, 231, 37],
];
const FONT = '12px system-ui, "DejaVu Sans", sans-serif';

export const shortly = (value) => {
  if (!Number.isFinite(value)) return String(value);
  const size = Math.abs(value);
  if (size !== 0 && (size >= 1e6 || size < 1e-4)) return value.toExponential(4).replace(/\.?0+e/, "e");
  return String(Number(value.toPrecision(6)));
};

/** Return about `count` round numbers between two. */
function ticks(lower, upper, count) {
  const raw = (upper - lower) / count;
  const ten = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 2.5, 5, 10].map((m) => m * ten).find((s) => s >= raw) ?? 10 * ten;
  const found = [];
  for (let n = Math.ceil(lower / step - 1e-9); n * step <= upper + 1e-9 * step; n++) {
    found.push(n * step);
  }
  return found;
}

function powers(upper) {
  const found = [];
  for (let power = 0; 10 ** power <= upper; power++) found.push(10 ** power);
  return found;
}

export class Plot {
  constructor(canvas, hover, zoomed) {
    this.canvas = canvas;
    this.hover = hover;
    this.zoomed = zoomed;
    this.histogram = null;
    this.log = false;
    canvas.addEventListener("pointermove", (event) => this.moved(event));
    canvas.addEventListener("pointerleave", () => { hover.hidden = true; });
    canvas.addEventListener("pointerdown", (event) => this.pressed(event));
    canvas.addEventListener("pointerup", (event) => this.released(event));
    canvas.addEventListener("dblclick", () => zoomed(null));
    new ResizeObserver(() => this.draw()).observe(canvas.parentElement);
  }

  show(histogram, log) {
    this.histogram = histogram;
    this.log = log;
    this.draw();
  }

  get pair() { return this.histogram.axes.length === 2; }

  /** Return the count of a bin, without those below and above the axes. */
  count(i, j) {
    const values = this.histogram.storage.values;
    return j === undefined ? values[i + 1] : values[i + 1][j + 1];
  }

  measure() {
    const width = Math.max(320, this.canvas.parentElement.clientWidth);
    const height = Math.round(Math.min(520, Math.max(280, width * 0.58)));
    const scale = window.devicePixelRatio || 1;
    this.canvas.width = Math.round(width * scale);
    this.canvas.height = Math.round(height * scale);
    this.canvas.style.height = `${height}px`;
    const c = this.canvas.getContext("2d");
    c.setTransform(scale, 0, 0, scale, 0, 0);
    this.area = { x: 72, y: 14, w: width - (this.pair ? 172 : 92), h: height - 66 };
    c.fillStyle = "#fff";
    c.fillRect(0, 0, width, height);
    c.font = FONT;
    return c;
  }

  draw() {
    if (!this.histogram || !this.canvas.parentElement.clientWidth) return;
    const c = this.measure(), [x, y] = this.histogram.axes;
    let most = 0;
    for (let i = 0; i < x.bins; i++) {
      for (let j = 0; j < (y ? y.bins : 1); j++) most = Math.max(most, y ? this.count(i, j) : this.count(i));
    }
    this.most = most;
    if (y) this.drawPair(c, x, y, most); else this.drawOne(c, x, most);
    this.axis(c, x, true);
    c.strokeStyle = INK;
    c.lineWidth = 1;
    c.strokeRect(this.area.x + .5, this.area.y + .5, this.area.w - 1, this.area.h - 1);
    this.box(c);
  }

  drawOne(c, x, most) {
    const a = this.area, top = this.log ? Math.max(10, most * 2) : Math.max(1, most * 1.08);
    const least = 0.5;
    const height = (count) => this.log
      ? count ? a.h * Math.log(count / least) / Math.log(top / least) : 0
      : a.h * count / top;
    c.textAlign = "right";
    c.textBaseline = "middle";
    for (const value of this.log ? powers(top) : ticks(0, top, 6)) {
      const at = Math.round(a.y + a.h - height(value)) + .5;
      c.strokeStyle = GRID;
      c.beginPath(); c.moveTo(a.x, at); c.lineTo(a.x + a.w, at); c.stroke();
      c.fillStyle = SOFT;
      c.fillText(shortly(value), a.x - 7, at);
    }
    const left = (i) => a.x + a.w * i / x.bins, base = a.y + a.h;
    c.beginPath();
    c.moveTo(a.x, base);
    for (let i = 0; i < x.bins; i++) {
      const at = base - height(this.count(i));
      c.lineTo(left(i), at);
      c.lineTo(left(i + 1), at);
    }
    c.lineTo(a.x + a.w, base);
    c.fillStyle = FILL;
    c.fill();
    c.strokeStyle = EDGE;
    c.lineWidth = 1.4;
    c.lineJoin = "round";
    c.stroke();
    this.upright(c, "entries", a.x - 54);
  }

  drawPair(c, x, y, most) {
    const a = this.area, part = (count) => this.log
      ? Math.log(count) / Math.log(Math.max(2, most)) : count / Math.max(1, most);
    for (let i = 0; i < x.bins; i++) {
      for (let j = 0; j < y.bins; j++) {
        const count = this.count(i, j);
        if (!count) continue;
        c.fillStyle = colour(part(count));
        const x0 = Math.floor(a.x + a.w * i / x.bins), x1 = Math.floor(a.x + a.w * (i + 1) / x.bins);
        const y0 = Math.floor(a.y + a.h * (1 - (j + 1) / y.bins));
        const y1 = Math.floor(a.y + a.h * (1 - j / y.bins));
        c.fillRect(x0, y0, Math.max(1, x1 - x0), Math.max(1, y1 - y0));
      }
    }
    const bar = a.x + a.w + 18;
    for (let n = 0; n < a.h; n++) {
      c.fillStyle = colour(1 - n / a.h);
      c.fillRect(bar, a.y + n, 14, 1.5);
    }
    c.textAlign = "left";
    c.textBaseline = "middle";
    c.fillStyle = SOFT;
    for (const value of this.log ? powers(most) : ticks(0, Math.max(1, most), 5)) {
      c.fillText(shortly(value), bar + 19, a.y + a.h * (1 - part(Math.max(value, this.log ? 1 : 0))));
    }
    this.axis(c, y, false);
  }

  axis(c, axis, across) {
    const a = this.area, width = axis.upper - axis.lower;
    c.fillStyle = SOFT;
    c.strokeStyle = INK;
    for (const value of ticks(axis.lower, axis.upper, across ? 8 : 6)) {
      const part = (value - axis.lower) / width;
      if (part < 0 || part > 1) continue;
      c.beginPath();
      if (across) {
        const at = Math.round(a.x + a.w * part) + .5;
        c.moveTo(at, a.y + a.h); c.lineTo(at, a.y + a.h + 5); c.stroke();
        c.textAlign = "center"; c.textBaseline = "top";
        c.fillText(shortly(value), at, a.y + a.h + 8);
      } else {
        const at = Math.round(a.y + a.h * (1 - part)) + .5;
        c.moveTo(a.x, at); c.lineTo(a.x - 5, at); c.stroke();
        c.textAlign = "right"; c.textBaseline = "middle";
        c.fillText(shortly(value), a.x - 8, at);
      }
    }
    const label = axis.metadata?.label ?? "";
    if (across) {
      c.fillStyle = INK;
      c.textAlign = "right"; c.textBaseline = "top";
      c.fillText(label, a.x + a.w, a.y + a.h + 28);
    } else this.upright(c, label, a.x - 54);
  }

  upright(c, text, x) {
    c.save();
    c.translate(x, this.area.y);
    c.rotate(-Math.PI / 2);
    c.fillStyle = INK;
    c.textAlign = "right"; c.textBaseline = "middle";
    c.fillText(text, 0, 0);
    c.restore();
  }

  /** Draw the box of statistics. */
  box(c) {
    const found = this.histogram.metadata, a = this.area;
    const lines = [["Entries", found.entries]];
    if (this.pair) {
      lines.push(["Mean x", found.x_mean], ["Mean y", found.y_mean]);
      lines.push(["Std dev x", found.x_std], ["Std dev y", found.y_std]);
    } else {
      lines.push(["Mean", found.x_mean], ["Std dev", found.x_std]);
      if (found.underflow) lines.push(["Underflow", found.underflow]);
      if (found.overflow - found.nan) lines.push(["Overflow", found.overflow - found.nan]);
    }
    if (found.nan) lines.push(["NaN", found.nan]);
    const w = 156, h = 17 * lines.length + 10, x = a.x + a.w - w - 10, y = a.y + 10;
    c.fillStyle = "rgba(255, 255, 255, .86)";
    c.fillRect(x, y, w, h);
    c.strokeStyle = "#9fb0bd";
    c.strokeRect(x + .5, y + .5, w - 1, h - 1);
    c.textBaseline = "middle";
    lines.forEach(([name, value], n) => {
      const at = y + 14 + 17 * n;
      c.fillStyle = SOFT; c.textAlign = "left"; c.fillText(name, x + 8, at);
      c.fillStyle = INK; c.textAlign = "right";
      c.fillText(Number.isInteger(value) ? String(value) : shortly(value), x + w - 8, at);
    });
  }

  /** Return the place of a pointer on the axes, from 0 to 1. */
  place(event) {
    const box = this.canvas.getBoundingClientRect(), a = this.area;
    return [(event.clientX - box.left - a.x) / a.w, 1 - (event.clientY - box.top - a.y) / a.h];
  }

  moved(event) {
    if (!this.histogram) return;
    const parts = this.place(event), { axes } = this.histogram;
    if (this.from) this.band(parts[0]);
    const inside = parts.every((part) => part >= 0 && part < 1);
    this.hover.hidden = !inside;
    if (!inside) return;
    const bins = axes.map((axis, n) => Math.floor(parts[n] * axis.bins));
    const lines = axes.map((axis, n) => {
      const width = (axis.upper - axis.lower) / axis.bins, low = axis.lower + width * bins[n];
      return `${axis.metadata.label}: ${shortly(low)} to ${shortly(low + width)}`;
    });
    this.hover.textContent = [...lines, `entries: ${this.count(...bins)}`].join("\n");
    const box = this.canvas.getBoundingClientRect();
    this.hover.style.left = `${Math.min(event.clientX - box.left + 14, box.width - 220)}px`;
    this.hover.style.top = `${event.clientY - box.top + 14}px`;
  }

  pressed(event) {
    if (!this.histogram) return;
    this.from = this.place(event);
    this.canvas.setPointerCapture(event.pointerId);
  }

  band(to) {
    this.draw();
    const c = this.canvas.getContext("2d"), a = this.area;
    const [low, high] = [this.from[0], to].sort((p, q) => p - q).map((p) => Math.min(1, Math.max(0, p)));
    c.fillStyle = "rgba(31, 111, 178, .15)";
    c.fillRect(a.x + a.w * low, a.y, a.w * (high - low), a.h);
  }

  released(event) {
    const from = this.from, to = this.place(event);
    this.from = null;
    if (!from || Math.abs(to[0] - from[0]) * this.area.w < 6) return;
    this.zoomed(this.histogram.axes.map((axis, n) => {
      const [low, high] = [from[n], to[n]].sort((p, q) => p - q);
      const first = Math.max(0, Math.floor(low * axis.bins));
      const last = Math.min(axis.bins, Math.max(first + 1, Math.ceil(high * axis.bins)));
      const width = (axis.upper - axis.lower) / axis.bins;
      return n === 0 || this.pair ? [axis.lower + first * width, axis.lower + last * width] : null;
    }));
  }
}

function colour(part) {
  const at = Math.min(1, Math.max(0, part)) * (COLOURS.length - 1);
  const n = Math.min(COLOURS.length - 2, Math.floor(at)), rest = at - n;
  const mixed = COLOURS[n].map((low, k) => Math.round(low + (COLOURS[n + 1][k] - low) * rest));
  return `rgb(${mixed.join(",")})`;
}
