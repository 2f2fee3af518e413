// The page: asks for /view.json again and again and shows it. Names of threads and functions are data: they become texts, never HTML.

import { frames, show } from './flame.js';
import { show_heat, show_workers } from './workers.js';

const at = (id) => document.getElementById(id);
const STATES = [
  ['runs', 'run'],
  ['ready', 'ready to run'],
  ['waits', 'wait'],
  ['parks', 'park'],
  ['blocks', 'block their OS thread'],
];
/** So many points of the past are shown. */
const POINTS = 150;

/** Makes an element: attributes and properties by name, then children. */
function make(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (value === undefined || value === null || value === false) continue;
    if (key.startsWith('on')) made.addEventListener(key.slice(2), value);
    else made.setAttribute(key, value === true ? '' : value);
  }
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

// ---------------------------------------------------------------- asking

let token = sessionStorage.getItem('token') || '';

class Refused extends Error {}

async function ask(path, options = {}) {
  const headers = token ? { Authorization: `Bearer ${token}` } : {};
  const answer = await fetch(path, { ...options, headers, cache: 'no-store' });
  if (answer.status === 401) throw new Refused('the token was not accepted');
  if (!answer.ok) throw new Error((await answer.text()).trim() || `status ${answer.status}`);
  return answer;
}

/** Saves an answer as a file. */
async function save(answer, name) {
  const link = make('a', { href: URL.createObjectURL(await answer.blob()), download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60000);
}

// ---------------------------------------------------------------- texts

const number = new Intl.NumberFormat('en');
const rounded = new Intl.NumberFormat('en', { maximumFractionDigits: 1 });
const count = (value) => number.format(value ?? 0);

function time(ms) {
  if (ms === null || ms === undefined) return '';
  if (ms < 1000) return `${ms} ms`;
  if (ms < 120000) return `${rounded.format(ms / 1000)} s`;
  if (ms < 7200000) return `${rounded.format(ms / 60000)} min`;
  return `${rounded.format(ms / 3600000)} h`;
}

function bytes(value) {
  if (value === null || value === undefined) return '-';
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB'];
  let unit = 0;
  while (value >= 1024 && unit < units.length - 1) { value /= 1024; unit += 1; }
  return `${rounded.format(value)} ${units[unit]}`;
}

const named = (thread) => (thread ? `#${thread.id}${thread.name ? ` ${thread.name}` : ''}` : '');

/** The call of a trace that says most: the innermost of the program's own. */
const first_own = (calls) => (calls.find((call) => call.own) || calls[0])?.name || 'calls unknown';

function object(thread) {
  let text = thread.what || '';
  if (thread.address) text += ` (${thread.address})`;
  if (thread.holder) text += ` that ${named(thread.holder)} has`;
  if (thread.holder_is_gone) text += ' that a thread has which has ended';
  return text;
}

function calls_list(calls) {
  const lines = calls.map((call) => make('li', { class: call.own ? 'own' : null },
    call.name, make('span', { class: 'file' }, call.at && ` at ${call.at}`)));
  return lines.length
    ? make('ol', { class: 'calls' }, ...lines)
    : make('p', { class: 'faint' }, 'The calls are not known: nobody can look at a thread that runs.');
}

// ---------------------------------------------------------------- parts of the page

function show_alerts(runtime) {
  const alerts = [];
  for (const deadlock of runtime.deadlocks) {
    const threads = deadlock.threads.map((thread) => make('li', {},
      make('b', {}, named(thread)), ` waits for ${object(thread)}, for `, make('span', { 'data-waits': thread.id }),
      calls_list(thread.trace)));
    const is_sure = deadlock.is_certain;
    alerts.push(make('div', { class: is_sure ? 'alert' : 'alert warn' },
      make('h3', {}, `${is_sure ? 'Deadlock' : 'Likely deadlock'}: ${count(deadlock.count)} green threads wait for each other`),
      make('ol', {}, ...threads)));
  }
  if (runtime.stalled) {
    alerts.push(make('div', { class: 'alert' }, make('h3', {}, 'Workers stand still'), runtime.stalled));
  }
  const key = JSON.stringify(runtime.deadlocks.map((deadlock) => deadlock.threads.map((thread) => thread.id))) + runtime.stalled;
  const place = at('alerts');
  // A screen reader reads what is added: as long as the problems are the same only times change.
  if (place.dataset.key !== key) {
    place.dataset.key = key;
    place.replaceChildren(...alerts);
  }
  for (const thread of runtime.deadlocks.flatMap((deadlock) => deadlock.threads)) {
    const waits = place.querySelector(`[data-waits="${thread.id}"]`);
    if (waits) waits.textContent = time(thread.waited_ms);
  }
}

function show_states(runtime) {
  const states = STATES.map(([state, text]) => [state, text, runtime.states[state] || 0]);
  at('states').replaceChildren(...states.filter(([, , many]) => many > 0).map(([state, , many]) => {
    const piece = make('span', { class: state });
    piece.style.flexGrow = many;
    return piece;
  }));
  at('states').setAttribute('aria-label', states.map(([, text, many]) => `${count(many)} ${text}`).join(', '));
  at('legend').replaceChildren(...states.map(([state, text, many]) =>
    make('li', {}, make('span', { class: `dot ${state}` }), make('b', {}, count(many)), ` ${text}`)));
}

function show_figures(all, runtime) {
  const { metrics } = runtime;
  const { process } = all;
  const figures = [
    ['green threads', count(metrics.live)],
    ['workers', count(metrics.workers)],
    ['queued for a worker', count(metrics.run_queue_len + metrics.injector_len)],
    ['timers', count(metrics.timers)],
    ['hogs until now', count(metrics.hogs)],
    ['workers that stand still', count(metrics.stalled), metrics.stalled > 0],
    ['OS threads (spare)', `${count(metrics.carriers)} (of ${count(metrics.spare_threads)})`],
    ['wait to block', count(metrics.waiting_to_block), metrics.waiting_to_block > 0],
    ['stacks', bytes(metrics.stack_bytes)],
    ['memory', bytes(process.resident_bytes)],
    ['descriptors', process.open_fds === null ? '-' : `${count(process.open_fds)} of ${count(process.max_fds)}`,
      process.open_fds > 0.9 * process.max_fds],
    ['running for', time(runtime.uptime_ms)],
  ];
  at('figures').replaceChildren(...figures.map(([name, value, is_hot]) =>
    make('div', { class: is_hot ? 'hot' : null }, make('dt', {}, name), make('dd', {}, value))));
}

/** What is shown over time: name, value of a look, unit. `rate`: of a counter, by the second. */
const CHARTS = [
  ['green threads', (it) => it.live],
  ['queued for a worker', (it) => it.run_queue_len + it.injector_len],
  ['waits a second', (it) => it.parks, 'rate'],
  ['spawned a second', (it) => it.spawned, 'rate'],
  ['hogs a second', (it) => it.hogs, 'rate'],
  ['CPUs of the process', (it) => it.cpu_seconds, 'rate'],
];
/** The looks at each runtime, by its number. */
const past = new Map();

function remember(all) {
  for (const runtime of all.runtimes) {
    const looks = past.get(runtime.number) || [];
    const { workers, wake_latency } = runtime;
    looks.push({ ...runtime.metrics, workers, wake_latency, cpu_seconds: all.process.cpu_seconds || 0, at: all.time_ms });
    if (looks.length > POINTS) looks.shift();
    past.set(runtime.number, looks);
  }
}

function series(looks, read, kind) {
  if (kind !== 'rate') return looks.map(read);
  return looks.slice(1).map((look, index) => {
    const before = looks[index];
    const seconds = (look.at - before.at) / 1000;
    return seconds > 0 ? Math.max(0, (read(look) - read(before)) / seconds) : 0;
  });
}

function line(values) {
  const most = Math.max(...values, 1e-9);
  const x = (index) => (values.length < 2 ? 100 : (index / (values.length - 1)) * 100).toFixed(2);
  const y = (value) => (36 - (value / most) * 34).toFixed(2);
  return values.map((value, index) => `${index ? 'L' : 'M'}${x(index)} ${y(value)}`).join('');
}

function show_charts(runtime) {
  const looks = past.get(runtime.number) || [];
  const place = at('charts');
  if (place.childElementCount !== CHARTS.length) {
    place.replaceChildren(...CHARTS.map(([name]) => {
      const svg = document.createElementNS('http://www.w3.org/2000/svg', 'svg');
      svg.setAttribute('viewBox', '0 0 100 37');
      svg.setAttribute('preserveAspectRatio', 'none');
      svg.setAttribute('role', 'img');
      for (const kind of ['area', 'line']) {
        const path = document.createElementNS('http://www.w3.org/2000/svg', 'path');
        path.setAttribute('class', kind);
        svg.append(path);
      }
      return make('figure', { class: 'chart' }, make('figcaption', {}, name, make('b')), svg);
    }));
  }
  CHARTS.forEach(([name, read, kind], index) => {
    const figure = place.children[index];
    const values = series(looks, read, kind);
    const last = rounded.format(values.at(-1) ?? 0);
    figure.querySelector('b').textContent = last;
    const svg = figure.querySelector('svg');
    svg.setAttribute('aria-label', `${name}: ${last} now, ${rounded.format(Math.max(...values, 0))} at most`);
    const drawn = values.length ? line(values) : '';
    svg.querySelector('.line').setAttribute('d', drawn);
    svg.querySelector('.area').setAttribute('d', drawn && `${drawn}L100 37L${values.length < 2 ? 100 : 0} 37Z`);
  });
}

function show_locks(runtime) {
  at('locks-section').hidden = runtime.locks.length === 0;
  const rows = runtime.locks.map((lock) => {
    let holder = named(lock.holder) || 'not known';
    if (lock.holder_is_gone) holder = 'a thread that has ended';
    if (lock.readers > 0) holder = `${count(lock.readers)} readers`;
    const waiters = lock.threads.slice(0, 6).map(named).join(', ');
    return make('tr', {},
      make('td', { class: 'number' }, count(lock.count)),
      make('td', {}, lock.what, ' ', make('span', { class: 'address faint' }, lock.address)),
      make('td', { class: lock.holder_is_gone ? 'lost' : null }, holder),
      make('td', {}, time(lock.longest_ms)),
      make('td', {}, lock.count > 6 ? `${waiters}, ...` : waiters));
  });
  const heads = [['wait', 'number'], ['lock'], ['who has it'], ['longest wait'], ['threads']];
  at('locks').replaceChildren(make('div', { class: 'scroll' }, make('table', {},
    make('thead', {}, make('tr', {}, ...heads.map(([text, kind]) => make('th', { class: kind, scope: 'col' }, text)))),
    make('tbody', {}, ...rows))));
}

/** The groups that are shown, by their keys, so that open ones stay open. */
const shown = new Map();

function group_line(group) {
  const what = group.what && group.doing !== 'parks' ? group.what : '';
  const place = group.trace.length ? first_own(group.trace) : '';
  return [what, place].filter(Boolean).join(' in ') || 'calls unknown';
}

function fill(details, group) {
  const longest = time(group.longest_ms);
  const range = group.count > 1 && group.longest_ms !== group.shortest_ms ? `${time(group.shortest_ms)} to ${longest}` : longest;
  const summary = details.querySelector('summary');
  summary.replaceChildren(
    make('span', { class: 'count' }, count(group.count)),
    make('span', { class: 'badge' }, make('span', { class: `dot ${group.doing}` }), group.doing),
    make('span', { class: 'where' }, group_line(group)),
    make('span', { class: 'time' }, range));
  if (!details.open) return;
  const more = group.count - group.threads.length;
  const members = group.threads.map((thread) => make('li', {}, named(thread),
    make('span', { class: 'faint' }, ` ${time(thread.waited_ms)}${group.is_lock && thread.holder ? `, for ${named(thread.holder)}` : ''}`)));
  if (more > 0) members.push(make('li', { class: 'faint' }, `and ${count(more)} more`));
  details.querySelector('.inside').replaceChildren(calls_list(group.trace), make('ul', { class: 'members' }, ...members));
}

function show_groups(runtime) {
  const filter = at('filter').value.toLowerCase();
  const matches = (group) => !filter || [group.doing, group.what || '', ...group.trace.map((call) => call.name), ...group.threads.map(named)]
    .some((text) => text.toLowerCase().includes(filter));
  const groups = runtime.groups.filter(matches);
  const place = at('groups');
  const kept = new Set(groups.map((group) => group.key));
  for (const [key, details] of shown) {
    if (!kept.has(key)) { details.remove(); shown.delete(key); }
  }
  groups.forEach((group, index) => {
    let details = shown.get(group.key);
    if (!details) {
      details = make('details', { ontoggle: () => fill(details, details.group) }, make('summary'), make('div', { class: 'inside' }));
      shown.set(group.key, details);
    }
    details.group = group;
    fill(details, group);
    // An element that has the focus would lose it by a move.
    if (place.children[index] !== details && !details.contains(document.activeElement)) {
      place.insertBefore(details, place.children[index] || null);
    }
  });
  const left = runtime.group_count - runtime.groups.length;
  at('shown').textContent = `${count(groups.length)} of ${count(runtime.group_count)} groups`
    + (left > 0 ? `; the smallest ${count(left)} are only in the dump with all threads` : '');
}

// ---------------------------------------------------------------- the loop

let last = null;
let is_paused = false;
let timer = null;

function chosen(all) {
  const wanted = Number(at('runtime').value);
  return all.runtimes.find((runtime) => runtime.number === wanted) || all.runtimes[0];
}

function show_runtimes(all) {
  const select = at('runtime');
  const key = all.runtimes.map((runtime) => `${runtime.number}:${runtime.name}`).join();
  if (select.dataset.key === key) return;
  select.dataset.key = key;
  const before = select.value;
  select.replaceChildren(...all.runtimes.map((runtime) =>
    make('option', { value: runtime.number }, `${runtime.name} (${runtime.number})`)));
  if (all.runtimes.some((runtime) => String(runtime.number) === before)) select.value = before;
}

function render() {
  if (!last) return;
  at('program').textContent = last.process.program || 'weald';
  document.title = `${last.process.program || 'program'} - weald`;
  at('process').textContent = `process ${last.process.id}, ${count(last.process.os_threads)} OS threads`;
  show_runtimes(last);
  show_recording(last.is_recording);
  const runtime = chosen(last);
  at('main').hidden = !runtime;
  if (!runtime) return;
  show_alerts(runtime);
  show_states(runtime);
  show_figures(last, runtime);
  show_charts(runtime);
  const looks = past.get(runtime.number);
  show_workers(at('workers'), looks);
  show_heat(at('heat'), at('heat-scale'), at('heat-said'), looks, POINTS);
  show_locks(runtime);
  show_groups(runtime);
}

/** A look is under way; another one would begin a second loop. */
let is_looking = false;

async function look() {
  clearTimeout(timer);
  if (is_looking) return;
  is_looking = true;
  const pause = await look_once();
  is_looking = false;
  if (pause !== null && !is_paused && !document.hidden) timer = setTimeout(look, pause);
}

/** Asks once, shows the answer, and returns for how long to wait. `null`: nobody may look without a token. */
async function look_once() {
  const begun = performance.now();
  let pause = 2000;
  try {
    const all = await (await ask('view.json')).json();
    if (is_paused) return pause;
    last = all;
    remember(last);
    at('login').hidden = true;
    at('looking').hidden = false;
    render();
    at('status').textContent = last.runtimes.length ? 'live' : 'no runtime runs';
    // A dump of very many threads costs the program time.
    pause = Math.max(pause, 10 * (performance.now() - begun));
  } catch (error) {
    if (error instanceof Refused) {
      at('status').textContent = 'asks for its token';
      at('main').hidden = true;
      at('looking').hidden = true;
      at('login').hidden = false;
      at('refused').textContent = token ? error.message : '';
      at('token').focus();
      return null;
    }
    at('status').textContent = `no answer: ${error.message}`;
  }
  return pause;
}

at('pause').addEventListener('click', () => {
  is_paused = !is_paused;
  at('pause').setAttribute('aria-pressed', is_paused);
  at('pause').textContent = is_paused ? 'Go on' : 'Pause';
  at('status').textContent = is_paused ? 'paused' : 'live';
  if (is_paused) clearTimeout(timer);
  else look();
});
document.addEventListener('visibilitychange', () => { if (!document.hidden && !is_paused) look(); });
at('runtime').addEventListener('change', render);
at('filter').addEventListener('input', render);
at('login').addEventListener('submit', (event) => {
  event.preventDefault();
  token = at('token').value.trim();
  sessionStorage.setItem('token', token);
  at('token').value = '';
  look();
});
for (const button of document.querySelectorAll('[data-open]')) {
  button.addEventListener('click', async () => {
    // A text of the server's in a tab of its own. The token cannot be in an address, so the text is fetched.
    try {
      const answer = await ask(button.dataset.open);
      const blob = new Blob([await answer.text()], { type: 'text/plain;charset=utf-8' });
      window.open(URL.createObjectURL(blob), '_blank', 'noopener');
    } catch (error) {
      at('status').textContent = error.message;
    }
  });
}

// ---------------------------------------------------------------- the flame graph

let whole_flame = null;

const UNITS = { waiting: 'ms', threads: 'threads', running: 'looks' };

const flame_path = (file) => {
  const runtime = last && chosen(last);
  const asked = new URLSearchParams({ kind: at('flame-kind').value, seconds: at('flame-seconds').value });
  if (runtime) asked.set('runtime', runtime.number);
  return `${file}?${asked}`;
};

at('flame-kind').addEventListener('change', () => {
  at('flame-seconds').disabled = at('flame-kind').value !== 'running';
});
at('flame-form').addEventListener('submit', async (event) => {
  event.preventDefault();
  const said = at('flame-said');
  said.textContent = at('flame-kind').value === 'running' ? 'Looking at the threads ...' : 'Drawing ...';
  try {
    const unit = UNITS[at('flame-kind').value];
    const graph = frames(await (await ask(flame_path('stacks'))).text(), unit);
    if (graph.found.length === 0) {
      at('flame').replaceChildren();
      said.textContent = 'There is nothing to draw: no thread does that now.';
      return;
    }
    whole_flame = show(at('flame'), graph, (text) => { said.textContent = text; });
    at('flame-out').disabled = false;
    at('flame-save').disabled = false;
    said.textContent = 'Click a frame, or press Enter on it, to see it alone. Arrow keys go from frame to frame, Escape shows all.';
  } catch (error) {
    said.textContent = `Not drawn: ${error.message}`;
  }
});
at('flame-out').addEventListener('click', () => whole_flame?.());
at('flame-save').addEventListener('click', async () => {
  try {
    await save(await ask(flame_path('flame.svg')), 'flame.svg');
  } catch (error) {
    at('flame-said').textContent = `Not saved: ${error.message}`;
  }
});

// ---------------------------------------------------------------- the recording

function show_recording(is_on) {
  at('trace-start').disabled = is_on;
  at('trace-get').disabled = !is_on;
  at('trace-stop').disabled = !is_on;
}

async function record(path, method, said, is_on) {
  try {
    const answer = await ask(path, { method });
    if (answer.status === 200) await save(answer, `weald-${last.process.id}-${Date.now()}.pftrace`);
    at('trace-said').textContent = said;
    show_recording(is_on);
  } catch (error) {
    at('trace-said').textContent = error.message;
  }
}

at('trace-start').addEventListener('click', () => record('trace/start', 'POST', 'It records.', true));
at('trace-get').addEventListener('click', () => record('trace', 'GET', 'Saved; it still records.', true));
at('trace-stop').addEventListener('click', () => record('trace/stop', 'POST', 'Saved; it records no more.', false));

look();
