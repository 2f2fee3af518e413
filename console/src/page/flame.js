// Draws a flame graph from the server's stacks: each frame can be reached by keyboard, and opens to the whole width. (The file that can
// be saved is drawn by the server.)

const SVG = 'http://www.w3.org/2000/svg';
const HEIGHT = 18;
/** Follows the width of the graph that is shown. */
let observer = null;

const element = (name, attributes) => {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
};

/** Reads stacks, a line for each (`outer;inner weight`), as frames: name, begin and width in weight, depth. */
export function frames(text, unit) {
  const root = { name: 'all', width: 0, below: new Map() };
  for (const line of text.split('\n')) {
    const cut = line.lastIndexOf(' ');
    const weight = Number(line.slice(cut + 1));
    if (cut < 0 || !(weight > 0)) continue;
    root.width += weight;
    let above = root;
    for (const name of line.slice(0, cut).split(';')) {
      let frame = above.below.get(name);
      if (!frame) above.below.set(name, frame = { name, width: 0, below: new Map() });
      frame.width += weight;
      above = frame;
    }
  }
  const found = [];
  const place = (frame, begin, depth) => {
    // What is narrower than a pixel on a wide screen is not seen.
    if (frame.width < root.width / 4000) return;
    const part = ((100 * frame.width) / root.width).toFixed(1);
    const title = `${frame.name} (${frame.width.toLocaleString('en')} ${unit}, ${part} %)`;
    found.push({ ...frame, title, begin, depth });
    for (const below of [...frame.below.values()].sort((a, b) => b.width - a.width)) {
      place(below, begin, depth + 1);
      begin += below.width;
    }
  };
  if (root.width > 0) place(root, 0, 0);
  found.sort((a, b) => a.depth - b.depth || a.begin - b.begin);
  return { total: root.width, found };
}

/** Draws the frames into `place`, and tells `say` which frame is looked at. Returns a function that shows the whole again. */
export function show(place, { total, found }, say) {
  const svg = element('svg', { role: 'tree', 'aria-label': 'Flame graph' });
  place.replaceChildren(svg);

  for (const frame of found) {
    frame.group = element('g', { tabindex: frame.depth === 0 ? 0 : -1, role: 'treeitem', 'aria-label': frame.title });
    frame.group.setAttribute('aria-level', frame.depth + 1);
    frame.title_element = element('title', {});
    frame.title_element.textContent = frame.title;
    frame.rect = element('rect', { y: frame.depth * HEIGHT, height: HEIGHT - 1, rx: 2 });
    frame.text = element('text', { y: frame.depth * HEIGHT + 13 });
    frame.group.append(frame.title_element, frame.rect, frame.text);
    frame.group.addEventListener('click', () => zoom(frame));
    frame.group.addEventListener('focus', () => say(frame.title));
    frame.group.addEventListener('mouseenter', () => say(frame.title));
    frame.group.addEventListener('keydown', (event) => key(event, frame));
    svg.append(frame.group);
  }

  let current = null;
  const layout = () => {
    const width = place.clientWidth;
    const begin = current ? current.begin : 0;
    const all = current ? current.width : total;
    let deepest = 0;
    for (const frame of found) {
      const holds = current && frame.depth < current.depth && frame.begin <= begin && frame.begin + frame.width >= begin + all;
      const inside = frame.begin >= begin && frame.begin + frame.width <= begin + all && (!current || frame.depth >= current.depth);
      frame.group.style.display = holds || inside ? '' : 'none';
      if (!holds && !inside) continue;
      deepest = Math.max(deepest, frame.depth);
      frame.group.classList.toggle('above', Boolean(holds));
      const x = holds ? 0 : ((frame.begin - begin) / all) * width;
      const wide = holds ? width : (frame.width / all) * width;
      frame.rect.setAttribute('x', x);
      frame.rect.setAttribute('width', Math.max(wide, 0.5));
      frame.text.setAttribute('x', x + 4);
      const letters = Math.floor((wide - 8) / 7.3);
      frame.text.textContent = letters < 3 ? '' : frame.name.length > letters ? frame.name.slice(0, letters - 1) + '…' : frame.name;
    }
    svg.setAttribute('height', (deepest + 1) * HEIGHT);
  };
  const zoom = (frame) => {
    current = frame && frame.width < total ? frame : null;
    layout();
    if (frame) frame.group.focus();
  };

  const overlaps = (a, b) => a.begin < b.begin + b.width && b.begin < a.begin + a.width;
  const is_shown = (frame) => frame.group.style.display !== 'none';
  const key = (event, frame) => {
    const near = {
      ArrowDown: () => found.find((it) => it.depth === frame.depth + 1 && is_shown(it) && overlaps(it, frame)),
      ArrowUp: () => found.find((it) => it.depth === frame.depth - 1 && is_shown(it) && overlaps(it, frame)),
      ArrowRight: () => found.find((it) => it.depth === frame.depth && is_shown(it) && it.begin > frame.begin),
      ArrowLeft: () => found.findLast((it) => it.depth === frame.depth && is_shown(it) && it.begin < frame.begin),
    }[event.key];
    if (near) {
      event.preventDefault();
      const next = near();
      if (next) next.group.focus();
    } else if (event.key === 'Enter' || event.key === ' ') {
      event.preventDefault();
      zoom(frame);
    } else if (event.key === 'Escape') {
      zoom(null);
    }
  };

  layout();
  observer?.disconnect();
  observer = new ResizeObserver(layout);
  observer.observe(place);
  return () => zoom(null);
}
