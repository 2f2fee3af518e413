//! What do locks and channels cost between green threads? Unit: ns an operation.
//!
//! | case                  | an operation                                                              |
//! |-----------------------|---------------------------------------------------------------------------|
//! | mutex                 | a lock and unlock, by 100 threads that want it at once                    |
//! | channel of 128        | a message, by 4 senders to 4 receivers                                    |
//! | ping-pong             | a round trip over two channels of capacity 1                              |
//! | ping-pong with limits | the same with a limit of 10 s on each reception, which never passes       |
//! | select                | a message into one of 4 channels in turn, and a select of the 4           |
//!
//! crossbeam, flume and parking_lot are on OS threads, on one CPU where the others have one worker. may has no bounded channel: its
//! unbounded one takes part. tokio has none for several receivers: async-channel is in its place.
//!
//! `cargo bench -p weald-benches --bench sync`

#![allow(
    clippy::similar_names,
    reason = "ping, pinged, pong and ponged are the usual ones"
)]

mod rivals;

use std::sync::Arc;
use std::time::{Duration, Instant};

use weald_benches::Contestant::{
    self, Crossbeam, Flume, May, ParkingLot, Tokio, WealdOwn, WealdPinned, WealdShared,
};
use weald_benches::{
    Case, Lifetime, Metric, Role, answer, compare, criterion, nanos_each, pin_to_nth_cpu,
    repetitions, unless_quick, weald_runtime,
};

const THREADS: u64 = 100;
const CAPACITY: usize = 128;
const PAIRS: u64 = 4;
const LIMIT: Duration = Duration::from_secs(10);

const MUTEX: &str = "mutex, 100 threads";
const CHANNEL: &str = "channel of 128, 4 to 4";
const PING_PONG: &str = "channel of 1, ping-pong";
const LIMITED: &str = "channel of 1, ping-pong with limits";
const SELECT: &str = "select of 4 channels";

const WITH_LOCKS: &[Contestant] = &[WealdShared, WealdPinned, WealdOwn, May, Tokio, ParkingLot];
const WITH_CHANNELS: &[Contestant] = &[
    WealdShared,
    WealdPinned,
    WealdOwn,
    May,
    Tokio,
    Crossbeam,
    Flume,
];
const WITH_SELECT: &[Contestant] = &[WealdShared, WealdPinned, WealdOwn, Tokio, Crossbeam];

fn main() {
    if let Some(role) = Role::of_this_process() {
        serve(&role);
    }
    let case = |name: &str, workers, amount, contestants| Case {
        name: name.into(),
        workers,
        amount: unless_quick(amount, amount / 100),
        metrics: vec![Metric::less("operation (ns)")],
        contestants,
        lifetime: Lifetime::Case,
    };
    let cases = [
        case(MUTEX, 1, 4_000_000, WITH_LOCKS),
        case(MUTEX, 2, 4_000_000, WITH_LOCKS),
        case(CHANNEL, 1, 2_000_000, WITH_CHANNELS),
        case(CHANNEL, 2, 2_000_000, WITH_CHANNELS),
        case(PING_PONG, 1, 200_000, WITH_CHANNELS),
        case(LIMITED, 1, 200_000, WITH_CHANNELS),
        case(SELECT, 1, 1_000_000, WITH_SELECT),
    ];
    criterion(&cases);
    compare(&cases, repetitions(7));
}

fn serve(role: &Role) -> ! {
    let case = role.case.clone();
    match role.contestant {
        May => {
            rivals::may_start(role.workers);
            answer(move |amount| {
                let case = case.clone();
                vec![rivals::may_run(move || on_may(&case, amount))]
            })
        }
        Tokio => {
            let runtime = rivals::tokio_runtime(role.workers);
            answer(move |amount| vec![rivals::tokio_run(&runtime, on_tokio(case.clone(), amount))])
        }
        rival @ (Crossbeam | Flume | ParkingLot) => {
            if role.workers == 1 {
                pin_to_nth_cpu(0).expect("there is a first CPU");
            }
            answer(move |amount| vec![on_os_threads(rival, &case, amount)])
        }
        weald => {
            let runtime = weald_runtime(weald, role.workers);
            answer(move |amount| vec![runtime.run(|| on_weald(&case, amount))])
        }
    }
}

/// A thread's body, and the way to wait for its end.
type Body = Box<dyn FnOnce() + Send>;
type Join = Box<dyn FnOnce()>;

/// A number under a lock.
trait Lock: Send + Sync + 'static {
    fn add(&self);
}

trait Sends: Send + 'static {
    fn put(&self, n: u64);
}

trait Receives: Send + 'static {
    /// `None`: no sender is left.
    fn take(&self) -> Option<u64>;
    /// With a limit that never passes.
    fn take_limited(&self) -> u64;
}

fn mutex(spawn: fn(Body) -> Join, lock: impl Lock, amount: u64) -> f64 {
    let lock = Arc::new(lock);
    let rounds = (amount / THREADS).max(1);
    let start = Instant::now();
    let threads: Vec<Join> = (0..THREADS)
        .map(|_| {
            let lock = Arc::clone(&lock);
            spawn(Box::new(move || (0..rounds).for_each(|_| lock.add())))
        })
        .collect();
    for join in threads {
        join();
    }
    nanos_each(start.elapsed(), rounds * THREADS)
}

fn channel<S: Sends + Clone, R: Receives + Clone>(
    spawn: fn(Body) -> Join,
    (sender, receiver): (S, R),
    amount: u64,
) -> f64 {
    let rounds = (amount / PAIRS).max(1);
    let start = Instant::now();
    let mut threads = Vec::new();
    for _ in 0..PAIRS {
        let (sender, receiver) = (sender.clone(), receiver.clone());
        threads.push(spawn(Box::new(move || {
            (0..rounds).for_each(|n| sender.put(n));
        })));
        threads.push(spawn(Box::new(move || while receiver.take().is_some() {})));
    }
    drop((sender, receiver));
    for join in threads {
        join();
    }
    nanos_each(start.elapsed(), rounds * PAIRS)
}

fn ping_pong<S: Sends, R: Receives>(
    spawn: fn(Body) -> Join,
    make: impl Fn() -> (S, R),
    limited: bool,
    amount: u64,
) -> f64 {
    let ((ping, pinged), (pong, ponged)) = (make(), make());
    let receive = move |end: &R| {
        if limited {
            end.take_limited()
        } else {
            end.take().expect("the other is there")
        }
    };
    let start = Instant::now();
    let join = spawn(Box::new(move || {
        (0..amount).for_each(|_| pong.put(receive(&pinged)));
    }));
    for n in 0..amount {
        ping.put(n);
        receive(&ponged);
    }
    let elapsed = start.elapsed();
    join();
    nanos_each(elapsed, amount)
}

macro_rules! ends {
    ($sender:ty, $receiver:ty) => {
        impl Sends for $sender {
            fn put(&self, n: u64) {
                self.send(n).expect("a receiver is there");
            }
        }

        impl Receives for $receiver {
            fn take(&self) -> Option<u64> {
                self.recv().ok()
            }

            fn take_limited(&self) -> u64 {
                self.recv_timeout(LIMIT).expect("the limit never passes")
            }
        }
    };
}

ends!(
    weald::sync::channel::Sender<u64>,
    weald::sync::channel::Receiver<u64>
);
ends!(may::sync::mpmc::Sender<u64>, may::sync::mpmc::Receiver<u64>);
ends!(
    crossbeam_channel::Sender<u64>,
    crossbeam_channel::Receiver<u64>
);
ends!(flume::Sender<u64>, flume::Receiver<u64>);

impl Lock for weald::sync::Mutex<u64> {
    fn add(&self) {
        *self.lock().expect("nobody panics") += 1;
    }
}

impl Lock for may::sync::Mutex<u64> {
    fn add(&self) {
        *self.lock().expect("nobody panics") += 1;
    }
}

impl Lock for parking_lot::Mutex<u64> {
    fn add(&self) {
        *self.lock() += 1;
    }
}

fn on_weald(case: &str, amount: u64) -> f64 {
    use weald::sync::channel::bounded;
    let spawn = |body: Body| -> Join {
        let thread = weald::spawn(body);
        Box::new(|| thread.join().expect("it ends"))
    };
    match case {
        MUTEX => mutex(spawn, weald::sync::Mutex::new(0), amount),
        CHANNEL => channel(spawn, bounded(CAPACITY), amount),
        SELECT => {
            let ends: [_; 4] = std::array::from_fn(|_| bounded::<u64>(1));
            let [(_, a), (_, b), (_, c), (_, d)] = &ends;
            let start = Instant::now();
            for (n, (sender, _)) in (0..amount).zip(ends.iter().cycle()) {
                sender.put(n);
                let came = weald::select! {
                    recv(a) -> came => came,
                    recv(b) -> came => came,
                    recv(c) -> came => came,
                    recv(d) -> came => came,
                };
                assert_eq!(came, Ok(n));
            }
            nanos_each(start.elapsed(), amount)
        }
        _ => ping_pong(spawn, || bounded(1), case == LIMITED, amount),
    }
}

fn on_may(case: &str, amount: u64) -> f64 {
    use may::sync::mpmc;
    let spawn = |body: Body| -> Join {
        let thread = may::go!(body);
        Box::new(|| thread.join().expect("it ends"))
    };
    match case {
        MUTEX => mutex(spawn, may::sync::Mutex::new(0), amount),
        CHANNEL => channel(spawn, mpmc::channel(), amount),
        _ => ping_pong(spawn, mpmc::channel, case == LIMITED, amount),
    }
}

fn on_os_threads(rival: Contestant, case: &str, amount: u64) -> f64 {
    let spawn = |body: Body| -> Join {
        let thread = std::thread::spawn(body);
        Box::new(|| thread.join().expect("it ends"))
    };
    match (case, rival) {
        (MUTEX, _) => mutex(spawn, parking_lot::Mutex::new(0), amount),
        (CHANNEL, Crossbeam) => channel(spawn, crossbeam_channel::bounded(CAPACITY), amount),
        (CHANNEL, _) => channel(spawn, flume::bounded(CAPACITY), amount),
        (SELECT, _) => {
            let ends: [_; 4] = std::array::from_fn(|_| crossbeam_channel::bounded::<u64>(1));
            let [(_, a), (_, b), (_, c), (_, d)] = &ends;
            let start = Instant::now();
            for (n, (sender, _)) in (0..amount).zip(ends.iter().cycle()) {
                sender.put(n);
                let came = crossbeam_channel::select! {
                    recv(a) -> came => came,
                    recv(b) -> came => came,
                    recv(c) -> came => came,
                    recv(d) -> came => came,
                };
                assert_eq!(came, Ok(n));
            }
            nanos_each(start.elapsed(), amount)
        }
        (_, Crossbeam) => ping_pong(
            spawn,
            || crossbeam_channel::bounded(1),
            case == LIMITED,
            amount,
        ),
        _ => ping_pong(spawn, || flume::bounded(1), case == LIMITED, amount),
    }
}

async fn on_tokio(case: String, amount: u64) -> f64 {
    match &*case {
        MUTEX => {
            let lock = Arc::new(tokio::sync::Mutex::new(0_u64));
            let rounds = (amount / THREADS).max(1);
            let start = Instant::now();
            let mut tasks = tokio::task::JoinSet::new();
            for _ in 0..THREADS {
                let lock = Arc::clone(&lock);
                tasks.spawn(async move {
                    for _ in 0..rounds {
                        *lock.lock().await += 1;
                    }
                });
            }
            tasks.join_all().await;
            nanos_each(start.elapsed(), rounds * THREADS)
        }
        CHANNEL => {
            let (sender, receiver) = async_channel::bounded(CAPACITY);
            let rounds = (amount / PAIRS).max(1);
            let start = Instant::now();
            let mut tasks = tokio::task::JoinSet::new();
            for _ in 0..PAIRS {
                let (sender, receiver) = (sender.clone(), receiver.clone());
                tasks.spawn(async move {
                    for n in 0..rounds {
                        sender.send(n).await.expect("a receiver is there");
                    }
                });
                tasks.spawn(async move { while receiver.recv().await.is_ok() {} });
            }
            drop((sender, receiver));
            tasks.join_all().await;
            nanos_each(start.elapsed(), rounds * PAIRS)
        }
        SELECT => {
            let mut ends: [_; 4] = std::array::from_fn(|_| tokio::sync::mpsc::channel::<u64>(1));
            let start = Instant::now();
            for n in 0..amount {
                let index = usize::try_from(n % 4).expect("less than 4");
                ends[index].0.send(n).await.expect("the receiver is there");
                let [(_, a), (_, b), (_, c), (_, d)] = &mut ends;
                let came = tokio::select! {
                    came = a.recv() => came,
                    came = b.recv() => came,
                    came = c.recv() => came,
                    came = d.recv() => came,
                };
                assert_eq!(came, Some(n));
            }
            nanos_each(start.elapsed(), amount)
        }
        _ => {
            let limited = case == LIMITED;
            let (ping, mut pinged) = tokio::sync::mpsc::channel(1);
            let (pong, mut ponged) = tokio::sync::mpsc::channel(1);
            let start = Instant::now();
            let second = tokio::spawn(async move {
                for _ in 0..amount {
                    let n = tokio_receive(&mut pinged, limited).await;
                    pong.send(n).await.expect("the first is there");
                }
            });
            for n in 0..amount {
                ping.send(n).await.expect("the second is there");
                tokio_receive(&mut ponged, limited).await;
            }
            let elapsed = start.elapsed();
            second.await.expect("it ends");
            nanos_each(elapsed, amount)
        }
    }
}

async fn tokio_receive(end: &mut tokio::sync::mpsc::Receiver<u64>, limited: bool) -> u64 {
    let came = if limited {
        let came = tokio::time::timeout(LIMIT, end.recv()).await;
        came.expect("the limit never passes")
    } else {
        end.recv().await
    };
    came.expect("the other is there")
}
