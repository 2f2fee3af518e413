//! What does a fork cost that splits a computation in two? fib 32 forks 3.5 million times and computes nothing else.
//! uts counts an unbalanced tree of 5 million nodes, whose shape is not known in advance. Unit: ms for all.
//!
//! `cargo bench -p weald-benches --bench fork_join`
//!
//! weald uses `join`. tokio has nothing of the kind and uses a task for each fork.

mod rivals;

use std::future::Future;
use std::pin::Pin;
use std::time::Instant;

use weald_benches::{
    Case, Contestant, Lifetime, Metric, Role, answer, compare, repetitions, unless_quick,
    weald_runtime,
};

const CONTESTANTS: &[Contestant] = &[
    Contestant::WealdShared,
    Contestant::WealdPinned,
    Contestant::WealdOwn,
    Contestant::Tokio,
    Contestant::Rayon,
];

/// The root of a tree that has 5,277,296 nodes at depth 10.
const ROOT: u64 = 4;

/// Children of a node of uts on average: 4, a geometric distribution.
const CONTINUES: u64 = u64::MAX / 5 * 4;

fn main() {
    if let Some(role) = Role::of_this_process() {
        serve(&role);
    }
    let mut cases = Vec::new();
    for (name, amount) in [("fib", unless_quick(32, 20)), ("uts", unless_quick(10, 6))] {
        for workers in [1, 2] {
            cases.push(Case {
                name: name.into(),
                workers,
                amount,
                metrics: vec![Metric::less("all (ms)")],
                contestants: CONTESTANTS,
                lifetime: Lifetime::Case,
            });
        }
    }
    compare(&cases, repetitions(9));
}

fn serve(role: &Role) -> ! {
    let is_fib = role.case == "fib";
    match role.contestant {
        Contestant::Rayon => {
            let pool = rayon::ThreadPoolBuilder::new();
            let pool = pool.num_threads(role.workers).build();
            let pool = pool.expect("the pool starts");
            answer(|amount| timed(|| pool.install(|| compute::<Rayon>(is_fib, amount))))
        }
        Contestant::Tokio => {
            let runtime = rivals::tokio_runtime(role.workers);
            answer(|amount| {
                timed(|| {
                    if is_fib {
                        rivals::tokio_run(&runtime, tokio_fib(amount))
                    } else {
                        rivals::tokio_run(&runtime, tokio_uts(ROOT, amount))
                    }
                })
            })
        }
        weald => {
            let runtime = weald_runtime(weald, role.workers);
            answer(|amount| timed(|| runtime.run(|| compute::<Weald>(is_fib, amount))))
        }
    }
}

fn timed(work: impl FnOnce() -> u64) -> Vec<f64> {
    let start = Instant::now();
    std::hint::black_box(work());
    vec![start.elapsed().as_secs_f64() * 1e3]
}

/// The `join` of a contestant.
trait Join {
    fn join<RA: Send, RB: Send>(
        a: impl FnOnce() -> RA + Send,
        b: impl FnOnce() -> RB + Send,
    ) -> (RA, RB);
}

struct Weald;
struct Rayon;

impl Join for Weald {
    #[inline(always)]
    fn join<RA: Send, RB: Send>(
        a: impl FnOnce() -> RA + Send,
        b: impl FnOnce() -> RB + Send,
    ) -> (RA, RB) {
        weald::join(a, b)
    }
}

impl Join for Rayon {
    #[inline(always)]
    fn join<RA: Send, RB: Send>(
        a: impl FnOnce() -> RA + Send,
        b: impl FnOnce() -> RB + Send,
    ) -> (RA, RB) {
        rayon::join(a, b)
    }
}

fn compute<J: Join>(is_fib: bool, amount: u64) -> u64 {
    if is_fib {
        fib::<J>(amount)
    } else {
        uts::<J>(ROOT, amount)
    }
}

fn fib<J: Join>(n: u64) -> u64 {
    if n < 2 {
        return n;
    }
    let (a, b) = J::join(|| fib::<J>(n - 1), || fib::<J>(n - 2));
    a + b
}

/// The nodes of a tree.
fn uts<J: Join>(node: u64, depth: u64) -> u64 {
    let children = if depth == 0 { 0 } else { children(node) };
    1 + uts_of::<J>(node, depth, 0, children)
}

/// Counts the nodes below some of a node's children.
fn uts_of<J: Join>(node: u64, depth: u64, first: u64, end: u64) -> u64 {
    match end - first {
        0 => 0,
        1 => uts::<J>(hash(node ^ hash(first + 1)), depth - 1),
        some => {
            let middle = first + some / 2;
            let (a, b) = J::join(
                || uts_of::<J>(node, depth, first, middle),
                || uts_of::<J>(node, depth, middle, end),
            );
            a + b
        }
    }
}

fn children(node: u64) -> u64 {
    let mut state = node;
    let mut children = 0;
    loop {
        state = hash(state);
        if state > CONTINUES {
            return children;
        }
        children += 1;
    }
}

/// splitmix64.
fn hash(of: u64) -> u64 {
    let x = of.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

fn tokio_fib(n: u64) -> Pin<Box<dyn Future<Output = u64> + Send>> {
    Box::pin(async move {
        if n < 2 {
            return n;
        }
        let second = tokio::spawn(tokio_fib(n - 2));
        tokio_fib(n - 1).await + second.await.expect("a task ends well")
    })
}

fn tokio_uts(node: u64, depth: u64) -> Pin<Box<dyn Future<Output = u64> + Send>> {
    Box::pin(async move {
        let children = if depth == 0 { 0 } else { children(node) };
        let tasks: Vec<_> = (0..children)
            .map(|child| tokio::spawn(tokio_uts(hash(node ^ hash(child + 1)), depth - 1)))
            .collect();
        let mut nodes = 1;
        for task in tasks {
            nodes += task.await.expect("a task ends well");
        }
        nodes
    })
}
