//! The picture of a state.

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style, Stylize as _};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Borders, Cell, Paragraph, Row, Table, TableState, Wrap};

use crate::state::State;
use crate::told::{All, Group, Runtime, first_own, visible};

const STATES: [(&str, &str, Color); 5] = [
    ("runs", "run", Color::Green),
    ("ready", "ready", Color::Yellow),
    ("waits", "wait", Color::Blue),
    ("parks", "park", Color::DarkGray),
    ("blocks", "block their OS thread", Color::Red),
];

/// Lines that deadlocks and workers that stand still take at most.
const ALERTS: u16 = 8;

pub(crate) fn draw(frame: &mut Frame<'_>, state: &mut State) {
    let (Some(all), Some(runtime)) = (&state.last, state.shown()) else {
        let text = match &state.error {
            Some(error) => format!("{}: {error}", state.address),
            None if state.last.is_some() => format!("{}: no runtime runs", state.address),
            None => format!("{}: waiting for an answer", state.address),
        };
        frame.render_widget(Paragraph::new(text).wrap(Wrap { trim: true }), frame.area());
        return;
    };
    let alerts = alerts(runtime);
    let wanted = u16::try_from(alerts.len()).unwrap_or(u16::MAX);
    let [head, bar, problems, list, foot] = Layout::vertical([
        Constraint::Length(4),
        Constraint::Length(2),
        Constraint::Length(wanted.min(ALERTS)),
        Constraint::Min(3),
        Constraint::Length(1),
    ])
    .areas(frame.area());
    frame.render_widget(Paragraph::new(heading(state, all, runtime)), head);
    states(frame, bar, runtime);
    frame.render_widget(Paragraph::new(alerts), problems);
    if state.is_open
        && let Some(group) = state.chosen()
    {
        details(frame, list, group);
    } else {
        groups(frame, list, runtime, state.place());
    }
    frame.render_widget(Paragraph::new(footing(state)), foot);
}

fn footing(state: &State) -> Line<'_> {
    if let Some(error) = &state.error {
        return Line::from(format!("no answer: {error}")).red();
    }
    let state = if state.is_paused { "PAUSED  " } else { "" };
    Line::from(vec![
        Span::from(state).yellow(),
        Span::from("up/down choose  Enter open  Tab next runtime  p pause  q end").dim(),
    ])
}

fn heading<'a>(state: &State, all: &'a All, runtime: &'a Runtime) -> Vec<Line<'a>> {
    let (process, metrics) = (&all.process, &runtime.metrics);
    let program = process.program.as_deref().unwrap_or("program");
    #[allow(clippy::cast_precision_loss, reason = "it is rounded when it is shown")]
    let rates = [
        ("waits", state.rate(|_, it| it.metrics.parks as f64)),
        ("spawns", state.rate(|_, it| it.metrics.spawned as f64)),
        ("hogs", state.rate(|_, it| it.metrics.hogs as f64)),
    ];
    let rates = rates.map(|(name, rate)| match rate {
        Some(rate) => format!("{rate:.0} {name}/s"),
        None => format!("- {name}/s"),
    });
    let cpus = state.rate(|all, _| all.process.cpu_seconds.unwrap_or(0.0));
    let cpus = cpus.map_or_else(|| String::from("-"), |cpus| format!("{cpus:.2}"));
    let or = |value: Option<u64>| value.map_or_else(|| String::from("-"), |it| it.to_string());
    vec![
        Line::from(vec![
            Span::from(visible(program)).bold(),
            Span::from(format!(" ({})  runtime ", process.id)),
            Span::from(visible(&runtime.name)).bold(),
            Span::from(format!(
                "  {} of {}  up {}",
                place(all, runtime),
                all.runtimes.len(),
                time(Some(runtime.uptime_ms))
            )),
        ]),
        Line::from(format!(
            "{cpus} CPUs  {} of memory  {} of stacks  {} OS threads  {}/{} descriptors",
            bytes(process.resident_bytes.unwrap_or(0)),
            bytes(metrics.stack_bytes),
            or(process.os_threads),
            or(process.open_fds),
            or(process.max_fds),
        )),
        Line::from(format!(
            "{} workers  {} carriers  {} queued  {} timers  {}",
            metrics.workers,
            metrics.carriers,
            metrics.run_queue_len + metrics.injector_len,
            metrics.timers,
            rates.join("  "),
        )),
        Line::from(load(state, runtime)),
    ]
}

/// How busy each worker is, and how long threads wait for one.
fn load(state: &State, runtime: &Runtime) -> String {
    let workers = runtime.workers.iter().map(|worker| {
        #[allow(clippy::cast_precision_loss, reason = "it is rounded when it is shown")]
        let busy = state.rate(|_, it| {
            let mut workers = it.workers.iter();
            let found = workers.find(|it| it.index == worker.index);
            found.map_or(0.0, |it| it.busy_us as f64 / 1e6)
        });
        let busy = busy.map_or_else(
            || String::from("-"),
            |busy| format!("{:.0} %", 100.0 * busy.min(1.0)),
        );
        match worker.queued {
            0 => format!("{}: {busy}", worker.index),
            queued => format!("{}: {busy}, {queued} queued", worker.index),
        }
    });
    let workers: Vec<_> = workers.collect();
    let latency = &runtime.wake_latency;
    format!(
        "woken to running: {} in half, {} in 99 %  load {}",
        nanos(latency.p50_ns),
        nanos(latency.p99_ns),
        workers.join("  ")
    )
}

fn place(all: &All, runtime: &Runtime) -> usize {
    let mut runtimes = all.runtimes.iter();
    runtimes
        .position(|it| it.number == runtime.number)
        .unwrap_or(0)
        + 1
}

/// A bar of the threads' states, and their numbers.
fn states(frame: &mut Frame<'_>, area: Rect, runtime: &Runtime) {
    let counts = STATES.map(|(state, text, colour)| {
        let count = runtime.states.get(state).copied().unwrap_or(0);
        (count, text, colour)
    });
    let all: u64 = counts.iter().map(|(count, ..)| count).sum();
    let width = u64::from(area.width);
    let pieces = counts.iter().filter(|(count, ..)| *count > 0);
    let bar = pieces.map(|(count, _, colour)| {
        // A state that some thread has is seen.
        let wide = (count * width / all.max(1)).max(1);
        Span::styled(
            " ".repeat(usize::try_from(wide).unwrap_or(0)),
            Style::new().bg(*colour),
        )
    });
    let numbers = counts.iter().flat_map(|(count, text, colour)| {
        [
            Span::styled("■ ", Style::new().fg(*colour)),
            Span::from(format!("{count} {text}   ")),
        ]
    });
    let lines: Vec<Line<'_>> = vec![bar.collect(), numbers.collect()];
    frame.render_widget(Paragraph::new(lines), area);
}

fn alerts(runtime: &Runtime) -> Vec<Line<'_>> {
    let mut lines = Vec::new();
    for deadlock in &runtime.deadlocks {
        let (likely, style) = if deadlock.is_certain {
            ("", Style::new().fg(Color::Red).add_modifier(Modifier::BOLD))
        } else {
            ("LIKELY ", Style::new().fg(Color::Yellow))
        };
        let text = format!(
            "{likely}DEADLOCK: {} green threads wait for each other",
            deadlock.count
        );
        lines.push(Line::styled(text, style));
        for thread in &deadlock.threads {
            lines.push(Line::from(format!(
                "  {} waits for {}, for {}",
                thread.named(),
                thread.object(),
                time(thread.waited_ms)
            )));
        }
    }
    let stalled = runtime.stalled.iter().flat_map(|text| text.lines());
    lines.extend(stalled.map(|line| Line::from(line).red()));
    lines
}

fn waited(group: &Group) -> String {
    if group.count > 1 && group.shortest_ms != group.longest_ms {
        format!("{} to {}", time(group.shortest_ms), time(group.longest_ms))
    } else {
        time(group.longest_ms)
    }
}

fn groups(frame: &mut Frame<'_>, area: Rect, runtime: &Runtime, place: Option<usize>) {
    let rows = runtime.groups.iter().map(|group| {
        let colour = STATES.iter().find(|(state, ..)| *state == group.doing);
        let colour = colour.map_or(Color::Reset, |(.., colour)| *colour);
        let what = group.what.as_deref().filter(|_| group.doing != "parks");
        let place = visible(first_own(&group.trace));
        Row::new([
            Cell::from(Line::from(group.count.to_string()).right_aligned()),
            Cell::from(group.doing.clone()).style(Style::new().fg(colour)),
            Cell::from(what.unwrap_or_default().to_owned()),
            Cell::from(place),
            Cell::from(waited(group)),
        ])
    });
    let widths = [
        Constraint::Length(8),
        Constraint::Length(6),
        Constraint::Length(24),
        Constraint::Min(20),
        Constraint::Length(22),
    ];
    let heads = ["threads", "do", "what for", "in", "for so long"];
    let table = Table::new(rows, widths)
        .header(Row::new(heads).add_modifier(Modifier::DIM))
        .row_highlight_style(Style::new().add_modifier(Modifier::REVERSED))
        .block(Block::new().borders(Borders::TOP).title(" groups "));
    let mut chosen = TableState::new().with_selected(place);
    frame.render_stateful_widget(table, area, &mut chosen);
}

fn details(frame: &mut Frame<'_>, area: Rect, group: &Group) {
    let what = group.what.as_deref().unwrap_or_default();
    let title = format!(
        " {} {} {what}, {} ",
        group.count,
        group.doing,
        waited(group)
    );
    let calls = group.trace.iter().map(|call| {
        let name = visible(&call.name);
        let name = if call.own {
            Span::from(name).bold()
        } else {
            Span::from(name)
        };
        let place = if call.at.is_empty() {
            String::new()
        } else {
            format!(" at {}", visible(&call.at))
        };
        Line::from(vec![name, Span::from(place).dim()])
    });
    let mut lines: Vec<Line<'_>> = calls.collect();
    if lines.is_empty() {
        lines.push(Line::from(
            "the calls are not known: nobody can look at a thread that runs",
        ));
    }
    lines.push(Line::default());
    for thread in &group.threads {
        lines.push(Line::from(format!(
            "{}  {}  {}",
            thread.named(),
            time(thread.waited_ms),
            thread.object()
        )));
    }
    let told = u64::try_from(group.threads.len()).unwrap_or(u64::MAX);
    if group.count > told {
        lines.push(Line::from(format!("and {} more", group.count - told)).dim());
    }
    let block = Block::new().borders(Borders::TOP).title(title);
    frame.render_widget(
        Paragraph::new(lines)
            .wrap(Wrap { trim: false })
            .block(block),
        area,
    );
}

#[allow(clippy::cast_precision_loss, reason = "it is rounded")]
fn time(ms: Option<u64>) -> String {
    match ms {
        None => String::new(),
        Some(ms @ 0..1000) => format!("{ms} ms"),
        Some(ms @ 1000..120_000) => format!("{:.1} s", ms as f64 / 1000.0),
        Some(ms @ 120_000..7_200_000) => format!("{:.1} min", ms as f64 / 60_000.0),
        Some(ms) => format!("{:.1} h", ms as f64 / 3_600_000.0),
    }
}

#[allow(clippy::cast_precision_loss, reason = "it is rounded")]
fn bytes(bytes: u64) -> String {
    match bytes >> 20 {
        0 => format!("{} KiB", bytes >> 10),
        1..1024 => format!("{:.1} MiB", bytes as f64 / 1_048_576.0),
        _ => format!("{:.1} GiB", bytes as f64 / 1_073_741_824.0),
    }
}

#[allow(clippy::cast_precision_loss, reason = "it is rounded")]
fn nanos(nanos: Option<u64>) -> String {
    match nanos {
        None => String::from("-"),
        Some(ns @ 0..1000) => format!("{ns} ns"),
        Some(ns @ 1000..1_000_000) => format!("{:.1} us", ns as f64 / 1e3),
        Some(ns @ 1_000_000..1_000_000_000) => format!("{:.1} ms", ns as f64 / 1e6),
        Some(ns) => format!("{:.1} s", ns as f64 / 1e9),
    }
}
