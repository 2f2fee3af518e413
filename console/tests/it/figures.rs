//! The page for Prometheus.

use std::collections::{BTreeMap, BTreeSet};

use weald::Runtime;

use crate::support::get;

/// The samples of a page in OpenMetrics by name and labels. Fails for what the format does not allow.
fn parsed(page: &str) -> BTreeMap<String, f64> {
    assert!(page.ends_with("# EOF\n"), "{page}");
    let mut samples = BTreeMap::new();
    let (mut seen, mut family, mut kind) = (BTreeSet::new(), "", "");
    for line in page.lines() {
        if line == "# EOF" {
            continue;
        }
        if let Some(line) = line.strip_prefix("# ") {
            let mut words = line.splitn(3, ' ');
            let (what, name) = (words.next().unwrap(), words.next().unwrap());
            let rest = words.next().unwrap_or_default();
            match what {
                "HELP" => {
                    assert!(seen.insert(name), "{name} has its samples in one place");
                    assert!(!rest.is_empty(), "{name} has a help");
                    family = name;
                }
                "TYPE" => kind = rest,
                "UNIT" => assert!(
                    name.ends_with(&format!("_{rest}")),
                    "{name} has the unit {rest}"
                ),
                other => panic!("{other}: {line}"),
            }
            assert_eq!(name, family, "{line}");
            continue;
        }
        let (sample, value) = line.rsplit_once(' ').unwrap();
        let name = sample.split('{').next().unwrap();
        let expected = match kind {
            "counter" => format!("{family}_total"),
            "gauge" => family.to_owned(),
            "histogram" => {
                let parts = ["_bucket", "_sum", "_count"].map(|part| format!("{family}{part}"));
                parts
                    .into_iter()
                    .find(|part| part == name)
                    .unwrap_or_default()
            }
            other => panic!("a family of the type {other}"),
        };
        assert_eq!(name, expected, "{line}");
        let value = value.parse().unwrap();
        let before = samples.insert(sample.to_owned(), value);
        assert!(before.is_none(), "{sample} is told once");
    }
    samples
}

#[test]
fn the_page_of_metrics_is_as_openmetrics_has_it_with_each_runtime_by_itself() {
    let build = |workers| Runtime::builder().workers(workers).name("figures").build();
    let (first, second) = (build(1).unwrap(), build(3).unwrap());
    let console = weald_console::serve("127.0.0.1:0").unwrap();
    let parked = first.spawn(weald::park);
    while first.metrics().parked == 0 {
        std::thread::yield_now();
    }
    let answer = get(console.local_addr(), "/metrics");
    let kind = answer.field("content-type").unwrap();
    assert_eq!(
        kind,
        "application/openmetrics-text; version=1.0.0; charset=utf-8"
    );
    let samples = parsed(&answer.body);
    let of = |name: &str, runtime: &Runtime, more: &str| {
        let number = runtime.handle().number();
        let sample = format!("{name}{{runtime=\"figures\",runtime_number=\"{number}\"{more}}}");
        let value = samples.get(&sample);
        *value.unwrap_or_else(|| panic!("{sample} is missing: {}", answer.body))
    };
    let is = |value: f64, expected: f64| assert!((value - expected).abs() < 1e-9, "{value}");
    is(of("weald_workers", &first, ""), 1.0);
    is(of("weald_workers", &second, ""), 3.0);
    is(of("weald_threads", &first, ",state=\"parked\""), 1.0);
    is(of("weald_threads", &first, ",state=\"runnable\""), 0.0);
    is(of("weald_threads_spawned_total", &first, ""), 1.0);
    is(of("weald_threads_spawned_total", &second, ""), 0.0);
    // Each runtime has its workers, and a histogram whose last bucket has all.
    let number = second.handle().number();
    let labels = format!("runtime=\"figures\",runtime_number=\"{number}\"");
    for worker in 0..3 {
        let busy = format!("weald_worker_busy_seconds_total{{{labels},worker=\"{worker}\"}}");
        assert!(samples[&busy] >= 0.0);
    }
    for name in ["weald_wake_latency_seconds", "weald_start_latency_seconds"] {
        let count = samples[&format!("{name}_count{{{labels}}}")];
        is(
            samples[&format!("{name}_bucket{{le=\"+Inf\",{labels}}}")],
            count,
        );
        assert!(samples.contains_key(&format!("{name}_sum{{{labels}}}")));
    }
    if cfg!(target_os = "linux") {
        for name in [
            "process_resident_memory_bytes",
            "process_open_fds",
            "process_start_time_seconds",
            "weald_stack_bytes",
        ] {
            assert!(samples[name] > 0.0, "{name}");
        }
        assert!(samples.contains_key("process_cpu_seconds_total"));
    }
    parked.thread().unpark();
    parked.join().unwrap();
    console.shutdown();
}
