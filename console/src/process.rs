//! What the kernel tells of the process: memory, descriptors, OS threads, time. Source: proc(5).

use std::fs;
use std::sync::OnceLock;

/// Each is `None` where the system does not tell it.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Process {
    pub(crate) cpu_seconds: Option<f64>,
    pub(crate) resident_bytes: Option<u64>,
    pub(crate) virtual_bytes: Option<u64>,
    pub(crate) os_threads: Option<u64>,
    pub(crate) open_fds: Option<u64>,
    pub(crate) max_fds: Option<u64>,
    /// Seconds since the beginning of 1970.
    pub(crate) started: Option<f64>,
}

impl Process {
    /// Reads some small files of `/proc`, which do not block.
    pub(crate) fn read() -> Self {
        let mut found = Self {
            open_fds: open_fds(),
            max_fds: max_fds(),
            ..Self::default()
        };
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let kib = |name: &str| Some(field(&status, name)? * 1024);
        found.resident_bytes = kib("VmRSS:");
        found.virtual_bytes = kib("VmSize:");
        found.os_threads = field(&status, "Threads:");
        let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
        // The second field is the program's name, which may hold spaces and parentheses.
        if let Some((_, rest)) = stat.rsplit_once(')') {
            let fields: Vec<u64> = rest
                .split_whitespace()
                .map(|field| field.parse().unwrap_or(0))
                .collect();
            // The first one here is field 3, the state. Fields 14 and 15 are the times in user and kernel mode.
            if let (Some(user), Some(kernel)) = (fields.get(11), fields.get(12)) {
                found.cpu_seconds = Some(ticks(user + kernel));
            }
            // Field 22: the start, since the boot.
            found.started = fields.get(19).and_then(|start| started(*start));
        }
        found
    }
}

/// Clock ticks as seconds. Linux tells 100 a second to programs on all platforms that weald supports.
#[allow(
    clippy::cast_precision_loss,
    reason = "a sum of ticks is far below 2^53"
)]
fn ticks(count: u64) -> f64 {
    count as f64 / 100.0
}

fn started(start: u64) -> Option<f64> {
    static BOOT: OnceLock<Option<f64>> = OnceLock::new();
    let boot = *BOOT.get_or_init(|| {
        let system = fs::read_to_string("/proc/stat").ok()?;
        let mut lines = system.lines();
        let seconds = lines.find_map(|line| line.strip_prefix("btime "))?;
        seconds.trim().parse().ok()
    });
    Some(boot? + ticks(start))
}

fn open_fds() -> Option<u64> {
    let count = fs::read_dir("/proc/self/fd").ok()?.count();
    // One is that of the folder.
    u64::try_from(count.saturating_sub(1)).ok()
}

fn max_fds() -> Option<u64> {
    let limits = fs::read_to_string("/proc/self/limits").ok()?;
    let line = limits
        .lines()
        .find(|line| line.starts_with("Max open files"))?;
    line.split_whitespace().nth(3)?.parse().ok()
}

/// A number of `/proc/self/status`.
fn field(status: &str, name: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(all(test, target_os = "linux"))]
#[allow(clippy::unwrap_used, reason = "unwrap is for tests")]
mod tests {
    use std::time::{SystemTime, UNIX_EPOCH};

    use super::Process;

    #[test]
    fn the_kernel_tells_of_this_process() {
        let process = Process::read();
        assert!(process.resident_bytes.unwrap() > 100_000);
        assert!(process.virtual_bytes.unwrap() >= process.resident_bytes.unwrap());
        assert!(process.os_threads.unwrap() >= 1);
        assert!(process.open_fds.unwrap() >= 3);
        assert!(process.max_fds.unwrap() >= process.open_fds.unwrap());
        assert!(process.cpu_seconds.unwrap() >= 0.0);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        let age = now.as_secs_f64() - process.started.unwrap();
        assert!(age > -5.0, "{age}");
    }
}
