//! The default number of workers follows what the system allows: the monitor asks again, once a second at most, while any worker
//! is awake. What it asks, and how the answer is rounded, is in `parts/cpus.rs`.
//!
//! It asks only in a runtime whose number of workers nobody has said: not `RuntimeBuilder::workers`, `WEALD_WORKERS` or
//! `Runtime::set_workers`. The affinity is that of the monitor's OS thread, which has that of the OS thread that started
//! the runtime, unless somebody changes it for all OS threads of the process (`taskset -ap`, a container's `cpuset`). So a carrier that a program
//! ties to a core changes nothing.
//!
//! A look takes some tens of microseconds. Changes between two looks are not seen, nor are those while all workers sleep: who wakes first
//! may find as many workers as before, for some milliseconds.

use std::time::{Duration, Instant};

use crate::engine::inner::Inner;
use crate::engine::settings::WORKERS;
use crate::parts::cpus::Cpus;
use crate::shim::atomic::Ordering;
use crate::shim::sync::Arc;

/// Between two looks. Go's is the same.
const AGAIN: Duration = Duration::from_secs(1);

/// That the system refuses an OS thread or a poller is logged again after this.
const LOG_AGAIN: Duration = Duration::from_secs(60);

/// What the monitor knows of the limits.
#[derive(Debug)]
pub(super) struct Limits {
    cpus: Cpus,
    /// When the next look is due.
    next: Instant,
    logged: Option<Instant>,
}

impl Limits {
    pub(super) fn new(now: Instant) -> Self {
        Self::of(Cpus::new(), now)
    }

    fn of(cpus: Cpus, now: Instant) -> Self {
        let (next, logged) = (now + AGAIN, None);
        Self { cpus, next, logged }
    }

    /// At each of the monitor's looks.
    #[inline]
    pub(super) fn look(&mut self, inner: &Arc<Inner>, now: Instant) {
        if now >= self.next && inner.follows_limits.load(Ordering::Relaxed) {
            self.ask(inner, now);
        }
    }

    #[cold]
    fn ask(&mut self, inner: &Arc<Inner>, now: Instant) {
        self.next = now + AGAIN;
        let Some(workers) = self.cpus.usable_if_known() else {
            return;
        };
        let workers = workers.min(*WORKERS.end());
        if workers == inner.idle.workers() || inner.is_closing() {
            return;
        }
        if let Err(error) = Inner::follow_limits(inner, workers)
            && self.logged.is_none_or(|logged| now >= logged + LOG_AGAIN)
        {
            self.logged = Some(now);
            log::warn!("weald: there could be {workers} workers, but {error}");
        }
    }
}

#[cfg(all(test, not(loom)))]
#[allow(clippy::unwrap_used, reason = "unwrap is for tests")]
mod tests {
    use std::time::Instant;

    use super::{AGAIN, Inner, Limits};
    use crate::RuntimeBuilder;
    use crate::parts::cpus::Cpus;
    use crate::parts::quota::{FakeRoot, Quota};
    use crate::shim::clock;
    use crate::shim::sync::Arc;

    fn inner(builder: RuntimeBuilder) -> Arc<Inner> {
        let nobody = |_: &_, _| Ok(());
        Arc::new(Inner::new(builder.settings().unwrap(), nobody).unwrap())
    }

    fn fake(name: &str, quota: &str) -> (FakeRoot, Limits, Instant) {
        let root = FakeRoot::new(name);
        root.write(
            "proc/self/mountinfo",
            "30 23 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n",
        );
        root.write("proc/self/cgroup", "0::/pod\n");
        root.write("sys/fs/cgroup/pod/cpu.max", quota);
        let (quota, now) = (Quota::under(root.path()), clock::now());
        (root, Limits::of(Cpus::fake(quota, || Some(16)), now), now)
    }

    #[test]
    #[cfg_attr(miri, ignore = "Miri has no poller")]
    fn a_number_that_nobody_has_said_follows_the_quota_once_a_second() {
        let inner = inner(RuntimeBuilder::new().spare_threads(8));
        let (root, mut limits, mut now) = fake("follows", "300000 100000\n");
        let before = inner.idle.workers();
        limits.look(&inner, now + AGAIN / 2);
        assert_eq!(inner.idle.workers(), before, "too early");
        for (quota, workers) in [
            ("300000 100000\n", 3),
            ("50000 100000\n", 1),
            ("550000 100000\n", 5),
            ("max 100000\n", 16),
            ("nonsense\n", 16),
            ("200000 100000\n", 2),
        ] {
            root.write("sys/fs/cgroup/pod/cpu.max", quota);
            now += AGAIN;
            limits.look(&inner, now);
            assert_eq!(inner.idle.workers(), workers, "{quota}");
        }
    }

    #[test]
    #[cfg_attr(miri, ignore = "Miri has no poller")]
    fn a_number_that_somebody_has_said_stays() {
        let said = inner(RuntimeBuilder::new().workers(2).spare_threads(8));
        let (_root, mut limits, now) = fake("said", "300000 100000\n");
        limits.look(&said, now + AGAIN);
        assert_eq!(said.idle.workers(), 2);
        let said_later = inner(RuntimeBuilder::new().spare_threads(8));
        Inner::set_workers(&said_later, 2).unwrap();
        limits.look(&said_later, now + 2 * AGAIN);
        assert_eq!(said_later.idle.workers(), 2);
    }
}
