//! What does the flight recorder cost? Units: ns a yield, ns a mark, microseconds of CPU an echo.
//!
//! `cargo bench -p weald-benches --bench observe`
//!
//! Each case is measured with the recorder off and on; compare the two. In the echo both ends are green threads of one
//! worker, over Unix streams: 100 pairs, 64 bytes to and fro, and all CPU of the process is counted.

use std::io::{Read, Write};
use std::time::Instant;

use weald::net::unix::UnixStream;
use weald::trace;
use weald_benches::{
    Case, Contestant, Lifetime, Metric, Role, answer, compare, cpu_time, nanos_each, repetitions,
    unless_quick, weald_runtime,
};

const MESSAGE_BYTES: usize = 64;
const PAIRS: u64 = 100;

const YIELD: &str = "yield";
const MARK: &str = "mark";
const ECHO: &str = "echo";

fn main() {
    if let Some(role) = Role::of_this_process() {
        serve(&role);
    }
    let amounts = [
        (YIELD, "yield (ns)", unless_quick(1_000_000, 20_000)),
        (MARK, "mark (ns)", unless_quick(1_000_000, 20_000)),
        (ECHO, "CPU an echo (us)", unless_quick(200_000, 2_000)),
    ];
    let cases = amounts.map(|(name, unit, amount)| {
        ["recorder off", "recorder on"].map(|recorder| Case {
            name: format!("{name}, {recorder}"),
            workers: 1,
            amount,
            metrics: vec![Metric::less(unit)],
            contestants: &[
                Contestant::WealdShared,
                Contestant::WealdPinned,
                Contestant::WealdOwn,
            ],
            lifetime: Lifetime::Case,
        })
    });
    compare(cases.as_flattened(), repetitions(9));
}

fn serve(role: &Role) -> ! {
    let runtime = weald_runtime(role.contestant, role.workers);
    if role.case.ends_with("recorder on") {
        trace::start(trace::Options::new()).expect("it is off");
    }
    let measure: fn(u64) -> f64 = match role.case.split(',').next() {
        Some(YIELD) => yields,
        Some(MARK) => marks,
        _ => echoes,
    };
    answer(|amount| vec![runtime.run(|| measure(amount))])
}

/// Two green threads give way to each other.
fn yields(amount: u64) -> f64 {
    let start = Instant::now();
    weald::scope(|s| {
        for _ in 0..2 {
            s.spawn(|| (0..amount / 2).for_each(|_| weald::yield_now()));
        }
    });
    nanos_each(start.elapsed(), amount)
}

fn marks(amount: u64) -> f64 {
    let start = Instant::now();
    for _ in 0..amount {
        trace::mark("a mark");
    }
    nanos_each(start.elapsed(), amount)
}

fn echoes(amount: u64) -> f64 {
    let rounds = amount / PAIRS;
    let before = cpu_time();
    weald::scope(|s| {
        for _ in 0..PAIRS {
            let (mut client, mut server) = UnixStream::pair().expect("there are descriptors");
            s.spawn(move || {
                let mut message = [0; MESSAGE_BYTES];
                while server.read_exact(&mut message).is_ok() {
                    server.write_all(&message).expect("the client reads");
                }
            });
            s.spawn(move || {
                let mut message = [0; MESSAGE_BYTES];
                for _ in 0..rounds {
                    client.write_all(&message).expect("the server reads");
                    client.read_exact(&mut message).expect("the server answers");
                }
            });
        }
    });
    let after = cpu_time();
    let seconds = after.user_s + after.system_s - before.user_s - before.system_s;
    #[expect(clippy::cast_precision_loss, reason = "some thousand rounds")]
    let echoes = (rounds * PAIRS) as f64;
    seconds * 1e6 / echoes
}
