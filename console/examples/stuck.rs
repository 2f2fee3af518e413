//! A program with a deadlock, a lock that many wait for, threads that leak and one that computes: look at it in a browser, at
//! <http://127.0.0.1:6680>. `cargo run -p weald-console --example stuck`. An address and a token may be arguments.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use weald::sync::{Mutex, channel};
use weald::{Builder, sleep, spawn};

/// Green threads that pass messages on, and do all that they should.
fn busy() {
    for number in 0..20 {
        let (sender, receiver) = channel::bounded::<u64>(16);
        let producer = Builder::new().name(format!("producer-{number}"));
        let started = producer.spawn(move || {
            let mut count = 0;
            while sender.send(count).is_ok() {
                count += 1;
                sleep(Duration::from_millis(5 + number));
            }
        });
        started.expect("there is memory for a thread");
        let consumer = Builder::new().name(format!("consumer-{number}"));
        let started = consumer.spawn(move || receiver.iter().sum::<u64>());
        started.expect("there is memory for a thread");
    }
}

/// Two green threads that take two locks in two orders.
fn deadlock() {
    let accounts = Arc::new([Mutex::new(100), Mutex::new(100)]);
    for (name, from, to) in [("transfer-a", 0, 1), ("transfer-b", 1, 0)] {
        let accounts = Arc::clone(&accounts);
        let transfer = move || {
            let mut from = accounts[from].lock().expect("nobody panics");
            sleep(Duration::from_millis(50));
            let mut to = accounts[to].lock().expect("nobody panics");
            *from -= 1;
            *to += 1;
        };
        let started = Builder::new().name(name.to_owned()).spawn(transfer);
        started.expect("there is memory for a thread");
    }
}

/// A lock that its owner keeps, and those that wait for it.
fn contended() {
    let cache = Arc::new(Mutex::new(Vec::<u8>::new()));
    let owner = Arc::clone(&cache);
    let refresh = Builder::new().name("refresh".to_owned());
    let started = refresh.spawn(move || {
        loop {
            let _cache = owner.lock();
            sleep(Duration::from_secs(5));
        }
    });
    started.expect("there is memory for a thread");
    for number in 0..30 {
        let cache = Arc::clone(&cache);
        let request = Builder::new().name(format!("request-{number}"));
        let started = request.spawn(move || {
            loop {
                drop(cache.lock());
                sleep(Duration::from_millis(100));
            }
        });
        started.expect("there is memory for a thread");
    }
}

/// A green thread that computes for long, again and again.
fn hog() {
    let report = Builder::new().name("<report>".to_owned());
    let started = report.spawn(|| {
        loop {
            let begun = Instant::now();
            while begun.elapsed() < Duration::from_millis(200) {
                std::hint::black_box((0..1000_u64).sum::<u64>());
            }
            sleep(Duration::from_millis(800));
        }
    });
    started.expect("there is memory for a thread");
}

/// More and more green threads that nobody wakes.
fn leak() {
    loop {
        spawn(weald::park);
        sleep(Duration::from_millis(500));
    }
}

#[weald::main]
fn main() -> io::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let address = arguments.next().unwrap_or("127.0.0.1:6680".to_owned());
    let mut console = weald_console::Builder::new();
    if let Some(token) = arguments.next() {
        console = console.token(token);
    }
    let console = console.serve(address)?;
    println!("http://{}", console.local_addr());
    busy();
    deadlock();
    contended();
    hog();
    leak();
    Ok(())
}
