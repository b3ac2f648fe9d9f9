"use strict";
// Balls and sticks on a canvas: drawn from back to front, turned by mouse, finger or arrow keys.
class Viewer {
  constructor(canvas, scene) {
    this.canvas = canvas;
    this.scene = scene;
    this.zoom = 1;
    const points = scene.cell.concat(scene.atoms);
    this.turn = Viewer.times(Viewer.about("x", 0.28), Viewer.times(Viewer.about("y", -0.5), Viewer.first(scene.cell)));
    this.reach = Math.max(...points.map(([x, y, z]) => Math.hypot(x, y, z))) + 0.45;
    this.listen();
    new ResizeObserver(() => this.draw()).observe(canvas);
    this.draw();
  }

  // rows: right, up, towards the eye; z is up, but a long cell lies
  static first(cell) {
    const spans = [0, 1, 2].map((i) => Math.max(...cell.map((one) => one[i])) - Math.min(...cell.map((one) => one[i])));
    if (spans[2] > 1.4 * Math.max(spans[0], spans[1])) return [[0, 0, 1], [1, 0, 0], [0, 1, 0]];
    return [[1, 0, 0], [0, 0, 1], [0, -1, 0]];
  }

  static about(axis, angle) {
    const c = Math.cos(angle), s = Math.sin(angle);
    return axis === "x" ? [[1, 0, 0], [0, c, -s], [0, s, c]] : [[c, 0, s], [0, 1, 0], [-s, 0, c]];
  }

  static times(a, b) {
    return a.map((row) => [0, 1, 2].map((j) => row[0] * b[0][j] + row[1] * b[1][j] + row[2] * b[2][j]));
  }

  rotate(dx, dy) {
    this.turn = Viewer.times(Viewer.about("x", dy), Viewer.times(Viewer.about("y", dx), this.turn));
    this.canvas.dataset.turned = String(Number(this.canvas.dataset.turned || 0) + 1);
    this.draw();
  }

  listen() {
    const canvas = this.canvas;
    let last = null;
    canvas.addEventListener("pointerdown", (event) => { last = [event.clientX, event.clientY]; canvas.setPointerCapture(event.pointerId); });
    canvas.addEventListener("pointermove", (event) => {
      if (!last) return;
      this.rotate((event.clientX - last[0]) * 0.011, (event.clientY - last[1]) * 0.011);
      last = [event.clientX, event.clientY];
    });
    for (const name of ["pointerup", "pointercancel"]) canvas.addEventListener(name, () => { last = null; });
    canvas.addEventListener("keydown", (event) => {
      const step = { ArrowLeft: [-0.15, 0], ArrowRight: [0.15, 0], ArrowUp: [0, -0.15], ArrowDown: [0, 0.15] }[event.key];
      if (step) { event.preventDefault(); this.rotate(...step); }
      const scale = { "+": 1.12, "-": 1 / 1.12 }[event.key];
      if (scale) { this.zoom = Math.min(3, Math.max(0.5, this.zoom * scale)); this.draw(); }
    });
    canvas.addEventListener("wheel", (event) => {
      if (!event.ctrlKey && document.activeElement !== canvas) return; // the page is scrolled
      event.preventDefault();
      this.zoom = Math.min(3, Math.max(0.5, this.zoom * (event.deltaY < 0 ? 1.08 : 1 / 1.08)));
      this.draw();
    }, { passive: false });
  }

  draw() {
    const canvas = this.canvas, ratio = window.devicePixelRatio || 1;
    const width = canvas.clientWidth, height = canvas.clientHeight;
    if (!width || !height) return;
    canvas.width = width * ratio;
    canvas.height = height * ratio;
    const g = canvas.getContext("2d");
    g.scale(ratio, ratio);
    const size = (Math.min(width, height) / 2 / this.reach) * this.zoom, far = 5 * this.reach;
    const project = ([x, y, z]) => {
      const [a, b, c] = this.turn.map((row) => row[0] * x + row[1] * y + row[2] * z);
      const near = far / (far - c);
      return { x: width / 2 + a * size * near, y: height / 2 - b * size * near, z: c, k: size * near };
    };
    const atoms = this.scene.atoms.map((one) => ({ ...project(one), kind: this.scene.elements[one[3]] }));
    const corners = this.scene.cell.map(project);
    const parts = [];
    for (const [i, j] of this.scene.edges) {
      const a = corners[i], b = corners[j];
      parts.push({ z: (a.z + b.z) / 2 - 0.01, draw: () => this.edge(g, a, b) });
    }
    for (const [i, j] of this.scene.bonds) {
      const a = atoms[i], b = atoms[j], middle = { x: (a.x + b.x) / 2, y: (a.y + b.y) / 2, k: (a.k + b.k) / 2 };
      for (const [from, z] of [[a, (3 * a.z + b.z) / 4], [b, (a.z + 3 * b.z) / 4]]) {
        parts.push({ z: z - 0.02, draw: () => this.stick(g, from, middle) });
      }
    }
    for (const one of atoms) parts.push({ z: one.z, draw: () => this.ball(g, one) });
    parts.sort((a, b) => a.z - b.z).forEach((one) => one.draw());
  }

  edge(g, a, b) {
    g.strokeStyle = "#8b95a5";
    g.lineWidth = 1.1;
    g.beginPath();
    g.moveTo(a.x, a.y);
    g.lineTo(b.x, b.y);
    g.stroke();
  }

  stick(g, from, to) {
    g.lineCap = "butt";
    for (const [colour, width] of [[Viewer.shade(from.kind[1], -0.35), 0.24], [from.kind[1], 0.17], [Viewer.shade(from.kind[1], 0.45), 0.05]]) {
      g.strokeStyle = colour;
      g.lineWidth = Math.max(1, width * to.k);
      g.beginPath();
      g.moveTo(from.x, from.y);
      g.lineTo(to.x, to.y);
      g.stroke();
    }
  }

  ball(g, one) {
    const r = (0.2 + 0.2 * one.kind[2]) * one.k;
    const light = g.createRadialGradient(one.x - r * 0.35, one.y - r * 0.4, r * 0.05, one.x, one.y, r);
    light.addColorStop(0, Viewer.shade(one.kind[1], 0.75));
    light.addColorStop(0.35, one.kind[1]);
    light.addColorStop(1, Viewer.shade(one.kind[1], -0.45));
    g.fillStyle = light;
    g.beginPath();
    g.arc(one.x, one.y, r, 0, 2 * Math.PI);
    g.fill();
  }

  // towards white (amount above 0) or black
  static shade(colour, amount) {
    const parts = [1, 3, 5].map((i) => parseInt(colour.slice(i, i + 2), 16));
    return `rgb(${parts.map((one) => Math.round(amount > 0 ? one + (255 - one) * amount : one * (1 + amount))).join(",")})`;
  }
}
