// The workers: how busy each is, and how long threads wait for one from their wake-up on, as a heat map. A column is a look of the page,
// a row a power of two of time; the darker, the more threads.

/** The rows of the heat map: the bounds go from 2^LOWEST to 2^HIGHEST nanoseconds. */
const LOWEST = 8;
const HIGHEST = 32;
const ROWS = HIGHEST - LOWEST;

const rounded = new Intl.NumberFormat('en', { maximumFractionDigits: 1 });

export function duration(ns) {
  if (ns === null || ns === undefined) return '-';
  if (ns < 1e3) return `${ns} ns`;
  if (ns < 1e6) return `${rounded.format(ns / 1e3)} µs`;
  if (ns < 1e9) return `${rounded.format(ns / 1e6)} ms`;
  return `${rounded.format(ns / 1e9)} s`;
}

/** The parts of the time between the last two looks in which each worker was busy. */
export function show_workers(place, looks) {
  const [before, last] = looks.slice(-2);
  const workers = (last || before).workers;
  if (place.childElementCount !== workers.length) {
    place.replaceChildren(...workers.map(() => {
      const cell = document.createElement('div');
      cell.append(document.createElement('span'), document.createElement('meter'));
      const meter = cell.lastElementChild;
      meter.max = 1;
      return cell;
    }));
  }
  workers.forEach((worker, index) => {
    const earlier = last && before.workers.find((it) => it.index === worker.index);
    const span = last ? (last.at - before.at) * 1000 : 0;
    const busy = earlier && span > 0 ? Math.min(1, Math.max(0, (worker.busy_us - earlier.busy_us) / span)) : 0;
    const [text, meter] = place.children[index].children;
    const queued = worker.queued ? `, ${worker.queued} queued` : '';
    text.textContent = `${worker.index}: ${Math.round(100 * busy)} %${queued}`;
    meter.value = busy;
    meter.setAttribute('aria-label', `worker ${worker.index}`);
  });
}

/** How many were counted between two looks, by rows. */
function column(latency, earlier) {
  const rows = new Array(ROWS).fill(0);
  latency.counts.forEach((count, index) => {
    const more = count - (earlier.counts[index] || 0);
    if (more <= 0) return;
    const bound = latency.bounds_ns[index];
    const power = bound === null ? HIGHEST : Math.ceil(Math.log2(bound));
    rows[Math.min(ROWS - 1, Math.max(0, power - LOWEST - 1))] += more;
  });
  return rows;
}

/** The scale beside the heat map: a label where a power of ten is. */
function show_scale(scale) {
  if (scale.childElementCount) return;
  for (const [ns, text] of [[1e9, '1 s'], [1e6, '1 ms'], [1e3, '1 µs']]) {
    const label = document.createElement('li');
    label.textContent = text;
    label.style.top = `${100 - (100 * (Math.log2(ns) - LOWEST)) / ROWS}%`;
    scale.append(label);
  }
}

/** Draws the heat map of the last looks, the newest at the right, and says its figures. */
export function show_heat(canvas, scale, said, looks, points) {
  const last = looks.at(-1).wake_latency;
  const text = last.p99_ns === null ? 'Nothing has been measured yet.'
    : `Half of the threads ran within ${duration(last.p50_ns)} of their wake-up, 99 % within ${duration(last.p99_ns)}, since the start. One wake-up in 64 is measured.`;
  said.textContent = text;
  canvas.setAttribute('aria-label', text);
  show_scale(scale);
  const width = Math.max(1, Math.round(canvas.clientWidth * devicePixelRatio));
  const height = Math.max(1, Math.round(canvas.clientHeight * devicePixelRatio));
  if (canvas.width !== width) canvas.width = width;
  if (canvas.height !== height) canvas.height = height;
  const draws = canvas.getContext('2d');
  draws.clearRect(0, 0, width, height);
  draws.fillStyle = getComputedStyle(canvas).color;
  const columns = looks.slice(1).map((look, index) => column(look.wake_latency, looks[index].wake_latency));
  const most = Math.max(1, ...columns.flat());
  const wide = width / points;
  const high = height / ROWS;
  columns.forEach((rows, index) => {
    const x = width - (columns.length - index) * wide;
    rows.forEach((count, row) => {
      if (count === 0) return;
      // One thread among thousands is seen too.
      draws.globalAlpha = 0.15 + (0.85 * Math.log1p(count)) / Math.log1p(most);
      draws.fillRect(x, height - (row + 1) * high, Math.max(1, wide - 0.5), Math.max(1, high - 0.5));
    });
  });
  draws.globalAlpha = 1;
}
