//! The counters in OpenMetrics: <https://prometheus.io/docs/specs/om/open_metrics_spec/>. Names and units are as Prometheus has
//! them; those of the process are the names that all its clients have.

use std::fmt;
use std::time::Duration;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::{Registry, Unit};
use weald::{Latencies, Metrics, WorkerMetrics};

use crate::process::Process;
use crate::view::merged;
use crate::watched::Watched;

/// What the format's specification asks for in `Content-Type`.
pub(crate) const TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The labels of a runtime. Two runtimes may have the same name, so there is a number too.
type Labels = [(&'static str, String); 2];

type Read = fn(&Metrics) -> usize;
type Count = fn(&Metrics) -> u64;

/// Name, help, further label with its value, how it is read.
type Gauge = (
    &'static str,
    &'static str,
    Option<(&'static str, &'static str)>,
    Read,
);

/// The gauges. Rows of the same name follow each other.
const GAUGES: &[Gauge] = &[
    (
        "weald_workers",
        "Workers: green threads that can run at the same time",
        None,
        |m| m.workers,
    ),
    (
        "weald_threads",
        "Green threads that have not ended, by state",
        Some(("state", "parked")),
        |m| m.parked,
    ),
    ("weald_threads", "", Some(("state", "runnable")), |m| {
        m.live.saturating_sub(m.parked)
    }),
    (
        "weald_queue_length",
        "Green threads that are ready to run, by queue",
        Some(("queue", "workers")),
        |m| m.run_queue_len,
    ),
    ("weald_queue_length", "", Some(("queue", "shared")), |m| {
        m.injector_len
    }),
    (
        "weald_timers",
        "Timers that will fire unless they are cancelled",
        None,
        |m| m.timers,
    ),
    (
        "weald_os_threads",
        "OS threads that drive the workers, wait to do so, or are blocked by a green thread",
        None,
        |m| m.carriers,
    ),
    (
        "weald_spare_os_threads_limit",
        "OS threads that there may be beside one for each worker",
        None,
        |m| m.spare_threads,
    ),
    (
        "weald_own_os_threads",
        "Green threads that have an OS thread for themselves",
        None,
        |m| m.own_threads,
    ),
    (
        "weald_stalled_workers",
        "Workers that stand still, as there is no OS thread to drive them",
        None,
        |m| m.stalled,
    ),
    (
        "weald_threads_waiting_to_block",
        "Green threads that wait to enter a call that blocks its OS thread",
        None,
        |m| m.waiting_to_block,
    ),
];

/// Counters: name without `_total`, help, how it is read.
const COUNTERS: &[(&str, &str, Count)] = &[
    (
        "weald_threads_spawned",
        "Green threads that were spawned",
        |m| m.spawned,
    ),
    ("weald_parks", "Waits of green threads", |m| m.parks),
    (
        "weald_steals",
        "Successful thefts of a worker from another",
        |m| m.steals,
    ),
    ("weald_polls", "Looks at a poller", |m| m.polls),
    (
        "weald_hogs",
        "Green threads that have kept their OS thread for more than 10 ms",
        |m| m.hogs,
    ),
    (
        "weald_handovers",
        "Workers that were taken from such a thread and given to another OS thread",
        |m| m.handovers,
    ),
    (
        "weald_unrelieved_hogs",
        "Times that there was no OS thread to give a worker to",
        |m| m.unrelieved,
    ),
    (
        "weald_refused_os_threads",
        "OS threads that the system has refused",
        |m| m.refused_threads,
    ),
];

/// Histograms: name, help, which.
type Histogram = (&'static str, &'static str, fn(&WorkerMetrics) -> &Latencies);

const LATENCIES: &[Histogram] = &[
    (
        "weald_wake_latency",
        "Time from a wake-up until the green thread runs, of one wake-up in 64",
        |worker| &worker.wake_latency,
    ),
    (
        "weald_start_latency",
        "Time from a spawn until the green thread runs, of one spawn in 64",
        |worker| &worker.start_latency,
    ),
];

/// So many of weald's buckets are one here: their bounds grow by a factor of four.
const TOGETHER: usize = 4;

/// The buckets of a histogram: bound in seconds, how many are in it. The last bound is infinite.
fn buckets(all: &Latencies) -> Vec<(f64, u64)> {
    let mut told = Vec::new();
    let mut count = 0;
    for (index, (bound, more)) in all.buckets().enumerate() {
        count += more;
        if index % TOGETHER == 0 && bound != Duration::MAX {
            told.push((bound.as_secs_f64(), std::mem::take(&mut count)));
        }
    }
    told.push((f64::INFINITY, count));
    told
}

/// What is told, read before anything is written.
#[derive(Debug)]
struct Page {
    process: Process,
    stack_bytes: Option<u64>,
    runtimes: Vec<(Labels, Metrics)>,
    /// Of the same runtimes.
    workers: Vec<Vec<WorkerMetrics>>,
}

impl Collector for Page {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut rows = GAUGES;
        while let Some((first, _)) = rows.split_first() {
            let (name, help, ..) = *first;
            let same = rows.iter().take_while(|(it, ..)| *it == name).count();
            let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            for (_, _, label, read) in &rows[..same] {
                for (labels, metrics) in &self.runtimes {
                    let labels: Vec<(&str, &str)> = labels
                        .iter()
                        .map(|(name, value)| (*name, value.as_str()))
                        .chain(*label)
                        .collect();
                    let value = i64::try_from(read(metrics)).unwrap_or(i64::MAX);
                    ConstGauge::new(value).encode(family.encode_family(&labels)?)?;
                }
            }
            rows = &rows[same..];
        }
        for (name, help, read) in COUNTERS {
            let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
            for (labels, metrics) in &self.runtimes {
                let value = ConstCounter::new(read(metrics));
                value.encode(family.encode_family(labels)?)?;
            }
        }
        self.encode_workers(&mut encoder)?;
        self.encode_process(&mut encoder)
    }
}

impl Page {
    /// What is known of each worker, and how long threads waited for one.
    fn encode_workers(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let help = "Time in which a worker did not sleep";
        let seconds = Some(&Unit::Seconds);
        let name = "weald_worker_busy";
        let mut family = encoder.encode_descriptor(name, help, seconds, MetricType::Counter)?;
        for ((labels, _), workers) in self.runtimes.iter().zip(&self.workers) {
            for worker in workers {
                let [name, number] = labels.clone();
                let labels = [name, number, ("worker", worker.index.to_string())];
                let value = ConstCounter::new(worker.busy.as_secs_f64());
                value.encode(family.encode_family(&labels)?)?;
            }
        }
        for (name, help, of) in LATENCIES {
            let mut family =
                encoder.encode_descriptor(name, help, seconds, MetricType::Histogram)?;
            for ((labels, _), workers) in self.runtimes.iter().zip(&self.workers) {
                let all = merged(workers, *of);
                let sum = all.sum().as_secs_f64();
                let mut family = family.encode_family(labels)?;
                family.encode_histogram::<NoLabelSet>(sum, all.count(), &buckets(&all), None)?;
            }
        }
        Ok(())
    }

    /// What is known of the whole process.
    fn encode_process(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let process = &self.process;
        let gauges = [
            (
                "weald_stack",
                "Address space of the stacks in use, of all runtimes",
                Some(Unit::Bytes),
                self.stack_bytes,
            ),
            (
                "process_resident_memory",
                "Resident memory size",
                Some(Unit::Bytes),
                process.resident_bytes,
            ),
            (
                "process_virtual_memory",
                "Virtual memory size",
                Some(Unit::Bytes),
                process.virtual_bytes,
            ),
            (
                "process_open_fds",
                "Number of open file descriptors",
                None,
                process.open_fds,
            ),
            (
                "process_max_fds",
                "Maximum number of open file descriptors",
                None,
                process.max_fds,
            ),
            (
                "process_threads",
                "Number of OS threads in the process",
                None,
                process.os_threads,
            ),
        ];
        for (name, help, unit, value) in gauges {
            if let Some(value) = value {
                let value = ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX));
                let unit = unit.as_ref();
                value.encode(encoder.encode_descriptor(name, help, unit, MetricType::Gauge)?)?;
            }
        }
        if let Some(started) = process.started {
            let help = "Start time of the process since the beginning of 1970";
            let unit = Some(&Unit::Seconds);
            let name = "process_start_time";
            let encoder = encoder.encode_descriptor(name, help, unit, MetricType::Gauge)?;
            ConstGauge::new(started).encode(encoder)?;
        }
        if let Some(seconds) = process.cpu_seconds {
            let help = "User and system CPU time spent";
            let unit = Some(&Unit::Seconds);
            let encoder =
                encoder.encode_descriptor("process_cpu", help, unit, MetricType::Counter)?;
            ConstCounter::new(seconds).encode(encoder)?;
        }
        Ok(())
    }
}

/// The page for a collector of metrics.
pub(crate) fn page(watched: &Watched) -> Result<String, fmt::Error> {
    let handles = watched.runtimes();
    let known = handles.iter().filter_map(|runtime| {
        let labels = [
            ("runtime", runtime.name().to_owned()),
            ("runtime_number", runtime.number().to_string()),
        ];
        let workers = runtime.worker_metrics()?;
        Some(((labels, runtime.metrics()?), workers))
    });
    let (runtimes, workers): (Vec<_>, Vec<_>) = known.unzip();
    let page = Page {
        workers,
        process: Process::read(),
        stack_bytes: runtimes
            .first()
            .map(|(_, metrics): &(Labels, Metrics)| metrics.stack_bytes),
        runtimes,
    };
    let mut registry = Registry::default();
    registry.register_collector(Box::new(page));
    let mut text = String::new();
    encode(&mut text, &registry)?;
    Ok(text)
}
