//! The green threads of a running weald program in the terminal, from its console's `/view.json`.
//!
//! | file | holds |
//! |---|---|
//! | `main.rs` | arguments, keys, the loop |
//! | `draw.rs` | the picture of a state |
//! | `state.rs` | what is shown: the last answers, what is chosen |
//! | `fetch.rs` | asks the console |
//! | `told.rs` | the console's answer as values |

mod draw;
mod fetch;
mod state;
mod told;

use std::io::{self, Write as _};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

use crate::fetch::Console;
use crate::state::State;

const USAGE: &str = "\
usage: weald-top [ADDRESS] [--once] [--every SECONDS]

  ADDRESS          of the program's console; 127.0.0.1:6680 if not said
  --once           prints one picture as text
  --every SECONDS  between two looks; 2 if not said

  WEALD_CONSOLE_TOKEN  the console's token, if it has one
";

struct Asked {
    address: String,
    once: bool,
    every: Duration,
}

fn asked(mut words: impl Iterator<Item = String>) -> Result<Asked, String> {
    let mut asked = Asked {
        address: String::from("127.0.0.1:6680"),
        once: false,
        every: Duration::from_secs(2),
    };
    while let Some(word) = words.next() {
        match word.as_str() {
            "--once" => asked.once = true,
            "--every" => {
                let seconds: Option<f64> = words.next().and_then(|text| text.parse().ok());
                let every = seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
                asked.every = every
                    .filter(|every| *every >= Duration::from_millis(100))
                    .ok_or("--every takes a number of seconds, 0.1 or more")?;
            }
            "--help" | "-h" => return Err(String::new()),
            word if word.starts_with('-') => return Err(format!("unknown: {word}")),
            _ => asked.address = word,
        }
    }
    Ok(asked)
}

fn main() -> ExitCode {
    let asked = match asked(std::env::args().skip(1)) {
        Ok(asked) => asked,
        Err(text) if text.is_empty() => {
            print!("{USAGE}");
            return ExitCode::SUCCESS;
        }
        Err(text) => {
            eprintln!("weald-top: {text}\n\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    let token = std::env::var("WEALD_CONSOLE_TOKEN").ok();
    let console = Console::new(&asked.address, token);
    let ended = if asked.once {
        once(&console)
    } else {
        ratatui::try_init().and_then(|terminal| {
            let ended = live(terminal, &console, asked.every);
            ratatui::restore();
            ended
        })
    };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("weald-top: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Prints one picture as text.
fn once(console: &Console) -> io::Result<()> {
    let mut state = State::new(console.address());
    state.take(Ok(console.ask()?));
    let mut terminal = Terminal::new(TestBackend::new(120, 50)).map_err(io::Error::other)?;
    let drawn = terminal.draw(|frame| draw::draw(frame, &mut state));
    let area = drawn.map_err(io::Error::other)?.area;
    let buffer = terminal.backend().buffer();
    let mut out = io::stdout().lock();
    for y in 0..area.height {
        let line: String = (0..area.width).map(|x| buffer[(x, y)].symbol()).collect();
        writeln!(out, "{}", line.trim_end())?;
    }
    Ok(())
}

fn live(
    mut terminal: ratatui::DefaultTerminal,
    console: &Console,
    every: Duration,
) -> io::Result<()> {
    let mut state = State::new(console.address());
    // Asking has a thread of its own: keys work also while the program is slow to answer.
    let answers = console.follow(every);
    loop {
        while let Ok(answer) = answers.try_recv() {
            state.take(answer);
        }
        terminal.draw(|frame| draw::draw(frame, &mut state))?;
        let until = Instant::now() + Duration::from_millis(250);
        while event::poll(until.saturating_duration_since(Instant::now()))? {
            if let Event::Key(key) = event::read()?
                && key.kind != KeyEventKind::Release
            {
                if is_end(key) {
                    return Ok(());
                }
                press(&mut state, key.code);
            }
            terminal.draw(|frame| draw::draw(frame, &mut state))?;
        }
    }
}

fn is_end(key: KeyEvent) -> bool {
    let is_control = key.modifiers.contains(KeyModifiers::CONTROL);
    matches!(key.code, KeyCode::Char('q') | KeyCode::Esc)
        || (is_control && key.code == KeyCode::Char('c'))
}

fn press(state: &mut State, key: KeyCode) {
    match key {
        KeyCode::Up | KeyCode::Char('k') => state.go(-1),
        KeyCode::Down | KeyCode::Char('j') => state.go(1),
        KeyCode::PageUp => state.go(-10),
        KeyCode::PageDown => state.go(10),
        KeyCode::Home => state.go(isize::MIN),
        KeyCode::End => state.go(isize::MAX),
        KeyCode::Enter => state.is_open = !state.is_open,
        KeyCode::Tab => state.next_runtime(),
        KeyCode::Char('p' | ' ') => state.is_paused = !state.is_paused,
        _ => {}
    }
}

#[cfg(test)]
mod tests;
