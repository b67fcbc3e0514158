'use strict';
(() => {
const data = JSON.parse(document.getElementById('data').textContent);
const { config, machine, result, versions } = data;
const by = (id) => document.getElementById(id);
const SVG = 'http://www.w3.org/2000/svg';
const HEAT_PER_DECADE = data.heat_cells_per_decade;

// ---- Words and numbers

const grouped = (n) => Math.round(n).toLocaleString('en-US');
const digits = (x) => (x >= 99.95 ? x.toFixed(0) : x >= 9.995 ? x.toFixed(1) : x.toFixed(2));
function duration(ns) {
  for (const [factor, unit] of [[1e9, 's'], [1e6, 'ms'], [1e3, 'µs']]) {
    if (ns >= factor * 0.9995) return `${digits(ns / factor)} ${unit}`;
  }
  return `${Math.round(ns)} ns`;
}
function bytes(n) {
  for (const [factor, unit] of [[2 ** 40, 'TiB'], [2 ** 30, 'GiB'], [2 ** 20, 'MiB'], [2 ** 10, 'KiB']]) {
    if (n >= factor * 0.9995) return `${digits(n / factor)} ${unit}`;
  }
  return `${Math.round(n)} B`;
}
function amount(n) {
  for (const [factor, unit] of [[1e9, 'G'], [1e6, 'M'], [1e3, 'k']]) {
    if (n >= factor * 0.9995) return `${digits(n / factor)}${unit}`;
  }
  return n >= 10 || n === Math.round(n) ? `${Math.round(n)}` : digits(n);
}
const percent = (x) => `${digits(x * 100)} %`;
const time = (s) => (s >= 120 ? `${Math.floor(s / 60)}:${String(Math.round(s % 60)).padStart(2, '0')} min` : `${+s.toFixed(1)} s`);
const words = (name) => name.replaceAll('_', ' ');

function el(name, attributes, ...children) {
  const node = document.createElement(name);
  Object.assign(node, attributes);
  node.append(...children);
  return node;
}
function svg(name, attributes, parent) {
  const node = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  if (parent) parent.append(node);
  return node;
}

// ---- Scales and axes

// Steps of 1, 2, 5 for a linear axis of about so many ticks.
function linear(max, ticks) {
  const rough = (max || 1) / ticks;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((n) => n * power).find((s) => s >= rough * 0.999);
  const top = Math.ceil((max || 1) / step - 1e-9) * step;
  const all = [];
  for (let at = 0; at <= top * 1.0001; at += step) all.push(at);
  return { min: 0, max: top, ticks: all, at: (v) => v / top };
}
function logarithmic(min, max) {
  const low = Math.floor(Math.log10(Math.max(min, 1)) + 1e-9);
  const high = Math.max(Math.ceil(Math.log10(Math.max(max, 1)) - 1e-9), low + 1);
  const ticks = [];
  for (let power = low; power <= high; power++) ticks.push(10 ** power);
  return { min: 10 ** low, max: 10 ** high, ticks, at: (v) => (Math.log10(Math.max(v, 10 ** low)) - low) / (high - low) };
}
// Seconds, or minutes where there are many.
function seconds(end, width) {
  const most = Math.max(2, width / 80);
  const step = [0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 1800, 3600, 7200, 14400].find((s) => end / s <= most) || end / 4;
  const ticks = [];
  for (let at = 0; at <= end + 1e-9; at += step) ticks.push(at);
  return { ticks, at: (v) => v / end, label: (v) => (step >= 60 ? `${v / 60} min` : `${+v.toFixed(1)} s`) };
}

const charts = [];
const LEFT = 58, RIGHT = 10;

// A chart that is drawn anew when its width changes. `draw(frame)` draws into it.
function chart(id, height, bottom, draw) {
  const host = typeof id === 'string' ? by(id) : id;
  if (host.closest('[hidden]')) return;
  charts.push({ host, height, bottom, draw });
}
function redraw(it) {
  const width = Math.max(Math.floor(it.host.clientWidth), 240);
  it.host.replaceChildren();
  const root = svg('svg', { viewBox: `0 0 ${width} ${it.height}`, height: it.height, role: 'img' }, it.host);
  const box = { left: LEFT, right: width - RIGHT, top: 8, bottom: it.height - it.bottom };
  it.draw({ root, box, width: box.right - box.left, height: box.bottom - box.top });
}
const x = (frame, share) => frame.box.left + share * frame.width;
const y = (frame, share) => frame.box.bottom - share * frame.height;

function axes(frame, horizontal, vertical, label) {
  const { root, box } = frame;
  for (const tick of vertical.ticks) {
    const at = y(frame, vertical.at(tick));
    svg('line', { class: 'gridline', x1: box.left, x2: box.right, y1: at, y2: at }, root);
    svg('text', { x: box.left - 7, y: at + 4, 'text-anchor': 'end' }, root).textContent = label(tick);
  }
  if (horizontal) {
    for (const tick of horizontal.ticks) {
      const at = x(frame, horizontal.at(tick));
      const anchor = at > box.right - 14 ? 'end' : 'middle';
      svg('line', { class: 'axis', x1: at, x2: at, y1: box.bottom, y2: box.bottom + 4 }, root);
      svg('text', { x: at, y: box.bottom + 17, 'text-anchor': anchor }, root).textContent = horizontal.label(tick);
    }
  }
  svg('line', { class: 'axis', x1: box.left, x2: box.right, y1: box.bottom, y2: box.bottom }, root);
}
// A line over time: each value stands for all of its step.
function overTime(frame, values, color, options) {
  const points = steps.flatMap((s, i) => [[s.start_s / end, values[i]], [Math.min((s.start_s + s.seconds) / end, 1), values[i]]]);
  line(frame, points, color, options);
}
function line(frame, points, color, options = {}) {
  if (points.length === 0) return;
  const path = points.map(([px, py], i) => `${i && py !== null && points[i - 1][1] !== null ? 'L' : 'M'}${x(frame, px).toFixed(1)} ${y(frame, py ?? 0).toFixed(1)}`).join('');
  if (options.area) {
    const from = x(frame, points[0][0]).toFixed(1), to = x(frame, points.at(-1)[0]).toFixed(1);
    svg('path', { d: `${path}L${to} ${frame.box.bottom}L${from} ${frame.box.bottom}Z`, fill: color, opacity: 0.14 }, frame.root);
  }
  svg('path', {
    d: path, fill: 'none', stroke: color, 'stroke-width': options.thin ? 1.3 : 2, 'stroke-linejoin': 'round',
    ...(options.dashed ? { 'stroke-dasharray': '5 4' } : {}),
  }, frame.root);
}

// ---- What the pointer is at

const tooltip = by('tooltip');
const cursors = new Set();
function point(frame, find) {
  const { root, box } = frame;
  const cursor = svg('line', { class: 'cursor', y1: box.top, y2: box.bottom, visibility: 'hidden' }, root);
  const hide = () => {
    tooltip.hidden = true;
    cursors.forEach((other) => other.setAttribute('visibility', 'hidden'));
  };
  const show = (event) => {
    const rect = root.getBoundingClientRect();
    const share = (event.clientX - rect.left - box.left) / frame.width;
    const found = share >= -0.02 && share <= 1.02 ? find(Math.min(Math.max(share, 0), 1), event.clientY - rect.top) : null;
    if (!found) return hide();
    const rows = found.rows.map(([name, value]) => el('tr', {}, el('td', { textContent: name }), el('td', { textContent: value })));
    tooltip.replaceChildren(el('b', { textContent: found.title }), el('table', {}, ...rows));
    tooltip.hidden = false;
    const size = tooltip.getBoundingClientRect();
    const left = event.clientX + 14 + size.width > innerWidth ? event.clientX - 14 - size.width : event.clientX + 14;
    tooltip.style.left = `${Math.max(4, left)}px`;
    tooltip.style.top = `${Math.min(Math.max(4, event.clientY - size.height / 2), innerHeight - size.height - 4)}px`;
    const shared = frame.shares ? [...cursors].filter((other) => other.shares) : [cursor];
    for (const other of shared) {
      const at = other.frame ? x(other.frame, found.share) : x(frame, found.share);
      other.setAttribute('x1', at);
      other.setAttribute('x2', at);
      other.setAttribute('visibility', 'visible');
    }
  };
  cursor.frame = frame;
  cursor.shares = frame.shares;
  cursors.add(cursor);
  root.addEventListener('pointermove', show);
  root.addEventListener('pointerdown', show);
  root.addEventListener('pointerleave', hide);
}

// ---- Headline, notes, tiles

const operations = Object.entries(result.operations);
// What somebody beside the clients does is not what it is about.
const foreground = operations.filter(([name]) => name in config.percent);
const busiest = (foreground.length > 0 ? foreground : operations).reduce((a, b) => (b[1].ops > a[1].ops ? b : a), (foreground[0] || operations[0]));
const isOpen = config.loop === 'open';
const engine = { ourodb: 'OuroDB' }[config.engine] || config.engine;
by('headline').textContent = `${engine}: ${data.title}`;
const rateWords = config.rate_ops_per_s ? `open loop at ${grouped(config.rate_ops_per_s)}/s` : config.rate ? `open loop at ${config.rate}` : 'at the times of the trace';
const pace = isOpen ? `${rateWords}${config.arrivals === 'poisson' ? ', Poisson arrivals' : ''}` : 'closed loop';
const kind = config.client_kind === 'thread' ? '' : ` ${config.client_kind}`;
by('subtitle').textContent = `${grouped(config.clients)}${kind} client${config.clients === 1 ? '' : 's'}${config.depth > 1 ? ` of depth ${config.depth}` : ''}, ${pace}; `
  + `${grouped(result.records)} records of ${config.key_sizes} + ${config.value_sizes} bytes; ${config.durability}; ${time(result.elapsed_s)}; ${data.started.replace('T', ' ').replace('Z', ' UTC')}`;

// Without operations there is nothing to draw.
const isEmpty = result.ops === 0;
for (const section of ['tiles', 'curve-section', 'time-section', 'figures-section']) by(section).hidden = isEmpty;

const note = (text, bad) => by('notes').append(el('p', { className: bad ? 'note bad' : 'note', textContent: text }));
const unmeasured = data.command === 'load' ? '' : ', and nothing was measured';
if (data.failure && data.cut_short_in) note(`Partial: it failed while ${data.cut_short_in}${unmeasured} (${data.failure}).`, true);
else if (data.failure) note(`Partial: it failed (${data.failure}); the figures are those of what was done until then.`, true);
else if (data.cut_short_in) note(`Partial: it was cut short while ${data.cut_short_in}${unmeasured}.`);
else if (data.partial) note('Partial: it was cut short; the figures are those of what was done.');
if (versions.debug_build) note('A debug build: its figures say little.', true);
if (result.unsent_ops > 0 && data.partial) note(`${grouped(result.unsent_ops)} operations were due and not yet sent when it was cut short.`);
else if (result.unsent_ops > 0) note(`Overload: ${grouped(result.unsent_ops)} operations were due and never sent; the percentiles are those of the others.`, true);
else if (result.behind_s) note(`Behind: the last operations ended ${duration(result.behind_s * 1e9)} after the schedule did: the rate was not kept up with, and the longer the run, the longer they wait.`, true);
if (result.wrong_reads > 0) note(`Wrong: ${grouped(result.wrong_reads)} reads returned something else than what was written; first: ${result.first_wrong_read}`, true);
if (result.saturated_ops > 0) note(`${grouped(result.saturated_ops)} operations took longer than an hour, and count as an hour.`, true);
const microseconds = (text) => text.replace(/(\d)us\b/g, '$1 µs');
if (result.warm_up_steady && !result.warm_up_steady.is_steady) note(`Steady state was not reached in the warm-up: ${microseconds(result.warm_up_steady.reason)}.`);
if (result.steady && !result.steady.is_steady) note(`Steady state was not reached: ${microseconds(result.steady.reason)}.`);
if (data.search) {
  const tried = result.find_max.steps.map((s) => `${grouped(s.rate_ops_per_s)}/s ${s.is_kept ? 'kept' : 'broken'}`).join(', ');
  note(`${data.search}${tried ? ` Tried: ${tried}.` : ''}`);
}
const SHARES = [['reads_per_s', 'reads a second'], ['bytes_read_per_s', 'read bandwidth'], ['bytes_written_per_s', 'write bandwidth'], ['durable_writes_per_s', 'durable writes a second']];
if (result.device_share) {
  const shares = SHARES.filter(([key]) => result.device_share[key]?.share >= 0.001).map(([key, name]) => `${percent(result.device_share[key].share)} of its ${name}`);
  if (shares.length > 0) note(`Of what the disk can do: ${shares.join(', ')}.`);
}

const tile = (value, what) => by('tiles').append(el('div', { className: 'tile' }, el('b', { textContent: value }), el('span', { textContent: what })));
tile(grouped(result.ops_per_s), 'operations a second');
if (busiest) {
  const [name, { latency_ns: latency }] = busiest;
  tile(duration(latency.p50), `p50 of ${words(name)}`);
  tile(duration(latency.p99), `p99 of ${words(name)}`);
  tile(duration(latency.p99_9), `p99.9 of ${words(name)}`);
  tile(duration(latency.max), `longest ${words(name)}`);
}
if (result.cpu_ns_per_op !== null) tile(duration(result.cpu_ns_per_op), 'CPU an operation, all of the process');
if (result.bytes_written_per_byte_put !== null) tile(digits(result.bytes_written_per_byte_put), 'bytes written per byte put');
if (result.device_reads_per_get !== null) tile(digits(result.device_reads_per_get), 'device reads per get');
if (result.device_reads_per_scan !== null) tile(digits(result.device_reads_per_scan), 'device reads per scan');

// ---- Percentile curves

const COLORS = ['var(--c1)', 'var(--c2)', 'var(--c3)', 'var(--c4)', 'var(--c5)'];
const color = (i) => COLORS[i % COLORS.length];
function legend(id, entries) {
  by(id).replaceChildren(...entries.map(([name, stroke, dashed]) => {
    const mark = el('i', { className: dashed ? 'dashed' : '' });
    mark.style.borderColor = stroke;
    return el('span', {}, mark, name);
  }));
}
const curves = operations.filter(([, of]) => of.ops > 0).flatMap(([name, of], i) => {
  const both = [{ name: of.service_quantiles ? `${words(name)}, from when it was due` : words(name), color: color(i), points: of.quantiles, ops: of.ops }];
  if (of.service_quantiles) both.push({ name: `${words(name)}, from when it was sent`, color: color(i), dashed: true, points: of.service_quantiles, ops: of.ops });
  return both;
});
legend('curve-legend', curves.map((c) => [c.name, c.color, c.dashed]));
by('curve-hint').textContent = isOpen
  ? 'Response time counts from when an operation was due, so it has all waiting in it; service time from when it was sent.'
  : 'A closed loop: each client waits for its operation, so a stall holds back those that would have met it.';
// 0 at the median's left end, 1 for 90 %, 2 for 99 %: the share that is slower, by tens.
const nines = (q, ops) => Math.min(-Math.log10(Math.max(1 - q, 1e-12)), Math.log10(Math.max(ops, 2)));
chart('curve', 320, 28, (frame) => {
  const most = Math.max(1, ...curves.map((c) => Math.log10(Math.max(c.ops, 2))));
  const values = curves.flatMap((c) => c.points.map((p) => p[1])).filter((v) => v > 0);
  const vertical = logarithmic(Math.min(...values, 1e9), Math.max(...values, 1));
  const marks = [];
  const each = frame.width / most < 66 ? 2 : 1;
  for (let n = 0; n <= most; n += each) marks.push(n);
  const horizontal = {
    ticks: marks, at: (n) => n / most,
    label: (n) => (n === 0 ? '0 %' : n <= 2 ? `${100 - 10 ** (2 - n)} %` : `99.${'9'.repeat(n - 2)} %`),
  };
  axes(frame, horizontal, vertical, duration);
  for (const c of curves) {
    line(frame, c.points.map(([q, ns]) => [nines(q, c.ops) / most, vertical.at(ns)]), c.color, { dashed: c.dashed });
  }
  point(frame, (share) => {
    const n = share * most, q = 1 - 10 ** -n;
    const at = (c) => (c.points.find(([p]) => p >= q - 1e-12) || c.points.at(-1))[1];
    const exact = q === 0 ? '0 %' : `${(q * 100).toFixed(Math.max(1, Math.ceil(n) - 1))} %`;
    return { share, title: `fastest ${exact}`, rows: curves.map((c) => [c.name, `within ${duration(at(c))}`]) };
  });
});

// ---- Over time

const steps = data.steps;
const end = Math.max(...steps.map((s) => s.start_s + s.seconds), 0.001);
const middle = (s) => (s.start_s + s.seconds / 2) / end;
let shown = busiest ? busiest[0] : null;
const stepAt = (share) => steps.find((s) => share * end < s.start_s + s.seconds) || steps.at(-1);
const spanOf = (s) => (s.seconds > 1.001 ? `${time(s.start_s)} to ${time(s.start_s + s.seconds)}` : `second ${Math.floor(s.start_s) + 1}`);

function timeChart(id, height, bottom, draw, rows) {
  chart(id, height, bottom, (frame) => {
    frame.shares = true;
    const horizontal = bottom > 12 ? seconds(end, frame.width) : null;
    draw(frame, horizontal);
    point(frame, (share, top) => {
      const step = stepAt(share);
      return step && { share: middle(step), title: spanOf(step), rows: rows(step, top, frame) };
    });
  });
}
if (operations.length > 1) {
  by('tabs').replaceChildren(...operations.filter(([, of]) => of.ops > 0).map(([name]) => {
    const button = el('button', { type: 'button', textContent: words(name) });
    button.setAttribute('aria-pressed', name === shown);
    button.addEventListener('click', () => {
      shown = name;
      by('tabs').querySelectorAll('button').forEach((b) => b.setAttribute('aria-pressed', b === button));
      drawAll();
    });
    return button;
  }));
}
timeChart('throughput', 150, 22, (frame, horizontal) => {
  const vertical = linear(Math.max(...steps.map((s) => s.ops_per_s)), 3);
  axes(frame, horizontal, vertical, amount);
  overTime(frame, steps.map((s) => vertical.at(s.ops_per_s)), 'var(--c1)', { area: true });
}, (step) => [['all operations', `${grouped(step.ops_per_s)}/s`],
  ...Object.entries(step.operations).map(([name, of]) => [words(name), `${grouped(of.ops / step.seconds)}/s`])]);

const LINES = [['p50', 'p50', 'var(--c3)'], ['p99', 'p99', 'var(--c1)'], ['p99_9', 'p99.9', 'var(--c2)'], ['max', 'longest', 'var(--c5)']];
legend('latency-legend', LINES.map(([, name, stroke]) => [name, stroke]));
const latencyOf = (step) => step.operations[shown]?.latency_ns;
timeChart('latency', 220, 22, (frame, horizontal) => {
  const all = steps.map(latencyOf).filter(Boolean);
  const vertical = logarithmic(Math.min(...all.map((l) => l.p50), 1e9), Math.max(...all.map((l) => l.max), 1));
  axes(frame, horizontal, vertical, duration);
  for (const [key, , stroke] of LINES) {
    overTime(frame, steps.map((s) => (latencyOf(s) ? vertical.at(latencyOf(s)[key]) : null)), stroke, { thin: key === 'max' });
  }
}, (step) => (latencyOf(step) ? LINES.map(([key, name]) => [name, duration(latencyOf(step)[key])]) : [['no operation ended', '']]));

// Bars below them: what went on in the background.
const rate = (step, value) => (step.system ? value / Math.max(step.system.seconds, 1e-9) : 0);
const activity = (step) => step.system?.activity;
const STRIPS = [
  ['Flushes', (s) => rate(s, activity(s)?.flushed_bytes ?? 0), (v) => `${bytes(v)}/s`, 'var(--c3)'],
  ['Compactions', (s) => rate(s, activity(s)?.compaction_written_bytes ?? 0), (v) => `${bytes(v)}/s`, 'var(--c4)'],
  ['Writes held back', (s) => rate(s, activity(s)?.write_delay_ns ?? 0), (v) => `${duration(v)} of waiting a second`, 'var(--c2)'],
  ['Stalls', (s) => rate(s, activity(s)?.write_stalls ?? 0), (v) => `${amount(v)} a second`, 'var(--c5)'],
];
if (steps.some(activity)) {
  const none = STRIPS.filter(([, value]) => steps.every((s) => value(s) === 0)).map(([name]) => name.toLowerCase());
  if (none.length > 0) by('strips').append(el('p', { className: 'hint', textContent: `There were no ${none.join(', no ')}.` }));
  for (const [name, value, label, fill] of STRIPS) {
    const host = el('div', { className: 'chart' });
    const most = Math.max(...steps.map(value));
    if (most === 0) continue;
    by('strips').append(el('h3', { textContent: `${name}, at most ${label(most)}` }), host);
    timeChart(host, 44, 4, (frame) => {
      svg('line', { class: 'axis', x1: frame.box.left, x2: frame.box.right, y1: frame.box.bottom, y2: frame.box.bottom }, frame.root);
      for (const step of steps) {
        const share = value(step) / most;
        if (share === 0) continue;
        const left = x(frame, step.start_s / end), width = Math.max((step.seconds / end) * frame.width - 0.6, 1);
        svg('rect', { x: left, width, y: y(frame, share), height: Math.max(share * frame.height, 1), fill }, frame.root);
      }
    }, (step) => [[name, label(value(step))]]);
  }
}

timeChart('heat', 260, 22, (frame, horizontal) => {
  const cells = steps.flatMap((s) => s.operations[shown]?.cells || []);
  const low = Math.min(...cells.map(([cell]) => cell)), high = Math.max(...cells.map(([cell]) => cell)) + 1;
  if (cells.length === 0) return;
  const vertical = logarithmic(10 ** (low / HEAT_PER_DECADE), 10 ** (high / HEAT_PER_DECADE));
  axes(frame, horizontal, vertical, duration);
  const most = Math.log(1 + Math.max(...steps.flatMap((s) => (s.operations[shown]?.cells || []).map(([, n]) => n / s.seconds))));
  for (const step of steps) {
    const left = x(frame, step.start_s / end), width = (step.seconds / end) * frame.width + 0.4;
    for (const [cell, count] of step.operations[shown]?.cells || []) {
      const top = y(frame, vertical.at(10 ** ((cell + 1) / HEAT_PER_DECADE)));
      const height = y(frame, vertical.at(10 ** (cell / HEAT_PER_DECADE))) - top;
      const share = Math.log(1 + count / step.seconds) / most;
      const fill = `color-mix(in srgb, rgb(var(--heat-full)) ${Math.round(Math.max(0, share - 0.5) * 200)}%, rgb(var(--heat)))`;
      svg('rect', { x: left, width, y: top, height: height + 0.4, style: `fill: ${fill}; opacity: ${(0.12 + 0.88 * Math.min(1, share * 2)).toFixed(2)}` }, frame.root);
    }
  }
  frame.vertical = vertical;
}, (step, top, frame) => {
  const cells = step.operations[shown]?.cells || [];
  if (!frame.vertical) return [];
  const { min, max } = frame.vertical;
  const ns = min * (max / min) ** ((frame.box.bottom - top) / frame.height);
  const cell = Math.floor(Math.log10(ns) * HEAT_PER_DECADE);
  const count = (cells.find(([c]) => c === cell) || [0, 0])[1];
  return [[`${duration(10 ** (cell / HEAT_PER_DECADE))} to ${duration(10 ** ((cell + 1) / HEAT_PER_DECADE))}`, grouped(count)]];
});

// ---- Engine, device, process

const device = (key) => (s) => (s.system?.device?.[key] == null ? null : rate(s, s.system.device[key]));
const SYSTEM = [
  ['CPU, cores', (s) => s.system && rate(s, s.system.cpu_ns) / 1e9, amount],
  ['Memory of the process', (s) => s.system?.resident_bytes, bytes],
  ['Cache hit rate', (s) => s.system?.cache_hit_rate, percent],
  ['Device reads a second', device('reads'), amount],
  ['Device bytes read a second', device('bytes_read'), bytes],
  ['Device writes a second', device('writes'), amount],
  ['Device bytes written a second', device('bytes_written'), bytes],
  ['Device flushes a second', device('syncs'), amount],
  ['Tables of level 0', (s) => activity(s)?.level_0_tables, amount],
  ['Bytes that wait for compaction', (s) => activity(s)?.compaction_debt_bytes, bytes],
  ['Memtables waiting for a flush', (s) => activity(s)?.immutable_memtables, amount],
];
const known = SYSTEM.filter(([, value]) => steps.some((s) => value(s) != null));
const present = known.filter(([, value]) => steps.some((s) => value(s)));
by('system-section').hidden = known.length === 0;
const zero = known.filter((one) => !present.includes(one)).map(([name]) => name.toLowerCase());
by('system-hint').textContent = zero.length > 0 ? `Always zero: ${zero.join(', ')}.` : '';
for (const [name, value, label] of present) {
  const host = el('div', { className: 'chart' });
  by('system').append(el('div', {}, el('h3', { textContent: name }), host));
  timeChart(host, 112, 22, (frame, horizontal) => {
    const most = Math.max(...steps.map((s) => value(s) ?? 0));
    const vertical = label === percent ? { ticks: [0, 0.5, 1], at: (v) => v } : label === bytes ? binary(most) : linear(most, 2);
    axes(frame, horizontal, vertical, (v) => (label === percent ? `${v * 100} %` : label(v)));
    overTime(frame, steps.map((s) => (value(s) == null ? null : vertical.at(value(s)))), 'var(--c1)', { area: steps.every((s) => value(s) != null) });
  }, (step) => [[name, value(step) == null ? 'not known' : label(value(step))]]);
}
// An axis of bytes has round numbers of KiB, MiB or GiB.
function binary(max) {
  const unit = 1024 ** Math.max(0, Math.floor(Math.log2(max || 1) / 10));
  const scale = linear((max || 1) / unit, 2);
  return { ticks: scale.ticks.map((t) => t * unit), at: (v) => scale.at(v / unit) };
}

// ---- Tables

const COLUMNS = ['mean', 'p50', 'p90', 'p99', 'p99_9', 'p99_99', 'max'];
by('operations').replaceChildren(
  el('tr', {}, ...['operation', 'count', 'a second', ...COLUMNS.map((c) => c.replace('_', '.'))].map((t) => el('th', { textContent: t }))),
  ...operations.flatMap(([name, of]) => {
    const cells = (latency) => COLUMNS.map((c) => el('td', { textContent: of.ops ? duration(latency[c]) : '–' }));
    const first = el('tr', {}, ...[words(name), grouped(of.ops), grouped(of.ops_per_s)].map((t) => el('td', { textContent: t })), ...cells(of.latency_ns));
    if (!of.service_ns) return [first];
    return [first, el('tr', { className: 'sub' }, ...['from when sent', '', ''].map((t) => el('td', { textContent: t })), ...cells(of.service_ns))];
  }),
);
const PARTS = { lock: 'a lock, or the leader of a group', wal: 'the log', read: 'reads', throttle: 'throttling' };
const measured = Object.entries(result.engine);
by('engine-section').hidden = measured.length === 0;
by('engine').replaceChildren(
  el('tr', {}, ...['operation', 'count', 'share', 'mean', 'p50', 'p99', 'p99.9', 'max'].map((t) => el('th', { textContent: t }))),
  ...measured.flatMap(([name, of]) => {
    const row = (className, what, ops, share, l) => el('tr', { className },
      ...[what, grouped(ops), share, duration(l.mean), duration(l.p50), duration(l.p99), duration(l.p99_9), duration(l.max)].map((t) => el('td', { textContent: t })));
    const parts = Object.entries(of.parts).map(([part, p]) => row('sub', `for ${PARTS[part] || part}`, p.ops, percent(p.share), p.latency_ns));
    return [row('', words(name), of.ops, '', of.latency_ns), ...parts];
  }),
);
function setup(title, object) {
  const list = el('dl', {});
  for (const [key, value] of Object.entries(object)) {
    // What another entry says better.
    if (['key_bytes', 'value_bytes', 'rate_ops_per_s'].includes(key)) continue;
    if (value === null || value === undefined || (typeof value === 'object' && Object.keys(value).length === 0)) continue;
    let text = typeof value === 'object' ? Object.entries(value).map(([name, part]) => (['percent', 'background'].includes(key) ? `${part} % ${words(name)}` : `${words(name)} ${part}`)).join(', ') : String(value);
    if (typeof value === 'number' && key.endsWith('_bytes')) text = value >= 4096 ? bytes(value) : `${value} B`;
    else if (typeof value === 'number' && key.endsWith('_ns')) text = duration(value);
    else if (typeof value === 'number' && Number.isInteger(value) && !key.includes('seed')) text = grouped(value);
    list.append(el('dt', { textContent: words(key.replace(/_(bytes|ns)$/, '')) }), el('dd', { textContent: text }));
  }
  by('setup').append(el('div', {}, el('h3', { textContent: title }), list));
}
setup('What was asked for', config);
setup('Machine', machine);
setup('Versions', versions);

// ---- Light, dark, and width

by('theme').addEventListener('click', () => {
  const root = document.documentElement;
  const isDark = (root.dataset.theme || (matchMedia('(prefers-color-scheme: dark)').matches ? 'dark' : 'light')) === 'dark';
  root.dataset.theme = isDark ? 'light' : 'dark';
});
const drawAll = () => {
  cursors.clear();
  charts.forEach(redraw);
};
let width = document.body.clientWidth;
drawAll();
new ResizeObserver(() => {
  if (document.body.clientWidth !== width) {
    width = document.body.clientWidth;
    // Not at once: charts change what is observed.
    requestAnimationFrame(drawAll);
  }
}).observe(document.body);
document.body.dataset.charts = charts.length;
})();
