//! Pictures of a real program, and keys.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::crossterm::event::KeyCode;

use crate::draw::draw;
use crate::fetch::Console;
use crate::state::State;
use crate::{asked, press};

/// A console tells of all runtimes of the process, so the tests run one by one.
static ALONE: Mutex<()> = Mutex::new(());

/// The picture as text.
fn picture(state: &mut State) -> String {
    let mut terminal = Terminal::new(TestBackend::new(100, 30)).unwrap();
    terminal.draw(|frame| draw(frame, state)).unwrap();
    let buffer = terminal.backend().buffer();
    let line = |y| {
        (0..100)
            .map(|x| buffer[(x, y)].symbol())
            .collect::<String>()
    };
    (0..30).map(|y| line(y) + "\n").collect()
}

/// Asks until the picture has this text.
fn wait_for(state: &mut State, console: &Console, text: &str) -> String {
    let begun = Instant::now();
    loop {
        state.take(console.ask());
        let seen = picture(state);
        if seen.contains(text) {
            return seen;
        }
        assert!(begun.elapsed() < Duration::from_secs(60), "{text}: {seen}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_picture_shows_groups_and_opens_one_and_goes_to_the_next_runtime() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let served = weald_console::serve("127.0.0.1:0").unwrap();
    let console = Console::new(&served.local_addr().to_string(), None);
    let build = |name: &str| weald::Runtime::builder().workers(1).name(name).build();
    let (first, second) = (build("first").unwrap(), build("second").unwrap());
    let lock: &'static weald::sync::Mutex<()> = Box::leak(Box::default());
    let threads: Vec<_> = first.run(|| {
        let owner = weald::Builder::new().name("owner\u{1b}[2J".to_owned());
        let owner = owner.spawn(|| {
            let _lock = lock.lock().unwrap();
            weald::park();
        });
        let owner = owner.unwrap();
        while lock.try_lock().is_ok() {
            weald::yield_now();
        }
        let waiter = weald::Builder::new().name("waiter".to_owned());
        let waiter = waiter.spawn(|| drop(lock.lock().unwrap()));
        vec![owner, waiter.unwrap()]
    });
    let mut state = State::new(console.address());
    let seen = wait_for(&mut state, &console, "a mutex");
    assert!(seen.contains("runtime first"), "{seen}");
    assert!(seen.contains("1 of 2"), "{seen}");
    assert!(seen.contains("1 wait") && seen.contains("1 park"), "{seen}");
    assert!(
        seen.contains("workers/") || seen.contains("1 workers"),
        "{seen}"
    );

    // Locks are the first group.
    press(&mut state, KeyCode::Enter);
    let seen = picture(&mut state);
    assert!(seen.contains("waiter") && seen.contains("that #"), "{seen}");
    assert!(
        seen.contains("owner?[2J has"),
        "no name changes the terminal: {seen}"
    );
    press(&mut state, KeyCode::Enter);
    press(&mut state, KeyCode::Down);
    press(&mut state, KeyCode::Enter);
    let seen = picture(&mut state);
    assert!(seen.contains("1 parks"), "{seen}");
    // Further down is nothing.
    press(&mut state, KeyCode::End);
    press(&mut state, KeyCode::PageDown);

    press(&mut state, KeyCode::Tab);
    let seen = picture(&mut state);
    assert!(seen.contains("runtime second"), "{seen}");
    press(&mut state, KeyCode::Tab);
    assert!(picture(&mut state).contains("runtime first"));

    press(&mut state, KeyCode::Char('p'));
    threads[0].thread().unpark();
    for thread in threads {
        thread.join().unwrap();
    }
    state.take(console.ask());
    assert!(picture(&mut state).contains("PAUSED"));
    assert!(picture(&mut state).contains("1 park"));
    drop(second);
    served.shutdown();
    state.take(console.ask());
    assert!(picture(&mut state).contains("no answer"));
}

#[test]
fn a_deadlock_is_on_top() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let served = weald_console::serve("127.0.0.1:0").unwrap();
    let console = Console::new(&served.local_addr().to_string(), None);
    let program = weald::Runtime::builder()
        .workers(1)
        .name("deadlocked")
        .build()
        .unwrap();
    let locks: &'static [weald::sync::Mutex<()>; 2] = Box::leak(Box::default());
    let both: &'static weald::sync::Barrier = Box::leak(Box::new(weald::sync::Barrier::new(2)));
    let threads = [(0, 1), (1, 0)].map(|(first, second)| {
        program.spawn(move || {
            let _first = locks[first].lock();
            both.wait();
            drop(locks[second].lock());
        })
    });
    let mut state = State::new(console.address());
    let begun = Instant::now();
    let seen = loop {
        state.take(console.ask());
        while state.shown().is_some_and(|it| it.name != "deadlocked") {
            press(&mut state, KeyCode::Tab);
        }
        let seen = picture(&mut state);
        if seen.contains("DEADLOCK: 2 green threads wait for each other") {
            break seen;
        }
        assert!(begun.elapsed() < Duration::from_secs(60), "{seen}");
    };
    assert_eq!(seen.matches("waits for a mutex (0x").count(), 2, "{seen}");
    for thread in &threads {
        thread.thread().kill();
    }
    served.shutdown();
}

#[test]
fn a_token_is_sent_and_its_lack_is_told() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let token = "a-token-of-32-characters-or-more";
    let builder = weald_console::Builder::new().token(token);
    let served = builder.serve("127.0.0.1:0").unwrap();
    let address = format!("http://{}/", served.local_addr());
    let error = Console::new(&address, None).ask().unwrap_err();
    assert!(error.to_string().contains("WEALD_CONSOLE_TOKEN"), "{error}");
    Console::new(&address, Some(token.to_owned()))
        .ask()
        .unwrap();
    served.shutdown();
}

#[test]
fn arguments_are_read_and_wrong_ones_told() {
    let read = |words: &[&str]| asked(words.iter().map(|word| (*word).to_owned()));
    let said = read(&["--once", "[::1]:1", "--every", "0.5"]).unwrap();
    assert!(said.once);
    assert_eq!(said.address, "[::1]:1");
    assert_eq!(said.every, Duration::from_millis(500));
    assert_eq!(read(&[]).unwrap().address, "127.0.0.1:6680");
    for wrong in [
        &["--every"][..],
        &["--every", "0"],
        &["--every", "x"],
        &["--twice"],
    ] {
        assert!(!read(wrong).err().unwrap().is_empty(), "{wrong:?}");
    }
    assert_eq!(read(&["--help"]).err().unwrap(), "");
}
