//! A dump is data, too: by its fields and groups, and by serde. Runtimes can be found from outside.

use serde_json::Value;

use crate::support::{Flag, LIMIT, each_mode_on, wait_until, with_deadline};

/// The dump as a program that is not weald reads it.
fn serialized(dump: &weald::Dump) -> Value {
    let text = serde_json::to_string(dump).unwrap();
    serde_json::from_str(&text).unwrap()
}

#[test]
fn a_dump_serializes_its_head_groups_threads_and_deadlocks() {
    each_mode_on(2, |rt| {
        let locks = std::sync::Arc::new([(); 2].map(weald::sync::Mutex::new));
        let both = std::sync::Arc::new(weald::sync::Barrier::new(2));
        let threads = [("first", 0, 1), ("second", 1, 0)].map(|(name, mine, others)| {
            let (locks, both) = (locks.clone(), both.clone());
            rt.run(|| {
                let builder = weald::Builder::new().name(name.to_string());
                let body = move || {
                    let _mine = locks[mine].lock();
                    both.wait();
                    drop(locks[others].lock());
                };
                builder.spawn(body).unwrap()
            })
        });
        let crowd: Vec<_> = (0..5).map(|_| rt.spawn(weald::park)).collect();
        wait_until(|| rt.dump().deadlocks.len() == 1 && rt.metrics().parked == 7);
        let dump = rt.dump();
        let data = serialized(&dump);

        assert_eq!(data["runtime"], "weald");
        assert!(data["uptime_seconds"].as_f64().unwrap() > 0.0);
        let taken = data["taken"].as_str().unwrap();
        assert!(taken.len() == "2026-12-01T00:13:10.216Z".len(), "{taken}");
        assert!(taken.ends_with('Z') && &taken[10..11] == "T", "{taken}");
        assert_eq!(data["metrics"]["workers"], 2);
        assert_eq!(data["metrics"]["live"], 7);
        assert!(data["stalled"].is_null());

        let id = |thread: &weald::JoinHandle<()>| Value::from(thread.thread().id().as_u64());
        let ids = [id(&threads[0]), id(&threads[1])];
        assert_eq!(data["deadlocks"][0]["is_certain"], true);
        let locked = data["deadlocks"][0]["threads"].as_array().unwrap();
        assert!(ids.iter().all(|id| locked.contains(id)), "{data:#}");

        let all = data["threads"].as_array().unwrap();
        assert_eq!(all.len(), 7);
        let first = all.iter().find(|thread| thread["id"] == ids[0]).unwrap();
        assert_eq!(first["name"], "first");
        assert_eq!(first["doing"], "waits");
        assert!(first["waited_seconds"].is_number());
        let waits_for = &first["waits_for"];
        assert_eq!(waits_for["what"], "mutex");
        assert_eq!(waits_for["holder"], ids[1]);
        assert_eq!(waits_for["is_limited"], false);
        assert!(waits_for["address"].as_str().unwrap().starts_with("0x"));

        let groups = data["groups"].as_array().unwrap();
        assert_eq!(groups.len(), dump.groups().len());
        let group = first["group"].as_u64().unwrap();
        let group = &groups[usize::try_from(group).unwrap()];
        assert!(group["threads"].as_array().unwrap().contains(&ids[0]));
        assert_eq!(group["what"], "mutex");
        let parked = groups.iter().find(|group| group["doing"] == "parks");
        let parked = parked.unwrap();
        assert_eq!(
            (&parked["count"], &parked["what"]),
            (&5.into(), &"unpark".into())
        );
        let longest = parked["longest_seconds"].as_f64().unwrap();
        assert!(longest >= parked["shortest_seconds"].as_f64().unwrap());
        if cfg!(target_os = "linux") {
            let frames = parked["trace"].as_array().unwrap();
            assert!(frames[0]["address"].as_str().unwrap().starts_with("0x"));
            let is_park =
                |frame: &Value| frame["function"].as_str().unwrap().contains("sleep::park");
            let park = frames.iter().find(|frame| is_park(frame)).unwrap();
            assert!(
                park["file"].as_str().unwrap().ends_with("sleep.rs"),
                "{park}"
            );
            assert!(park["line"].is_u64(), "{park}");
        }

        threads[0].thread().kill();
        for thread in threads {
            // One was killed; the other gets the lock then, poisoned.
            let _ = thread.join();
        }
        for thread in crowd {
            thread.thread().unpark();
            thread.join().unwrap();
        }
    });
}

#[test]
fn runtimes_can_be_found_and_looked_at_also_while_their_workers_are_held() {
    with_deadline(LIMIT, || {
        let rt = weald::Runtime::builder().workers(1).spare_threads(1);
        let rt = rt.name("found by its name").build().unwrap();
        let found = weald::runtimes();
        let handle = found.iter().find(|it| it.name() == "found by its name");
        let handle = handle.unwrap().clone();
        assert!(!handle.is_default());
        assert_eq!(handle.name(), rt.handle().name());

        // More threads that compute than OS threads to run them.
        let (inside, stop) = (Flag::default(), Flag::default());
        let hogs = [(); 4].map(|()| {
            let (tells, until) = (inside.clone(), stop.clone());
            rt.spawn(move || {
                tells.set();
                until.spin();
            })
        });
        inside.wait();
        assert_eq!(handle.metrics().unwrap().live, 4);
        let dump = handle.dump().unwrap();
        let id = dump.threads[0].id;
        assert_eq!(id.to_string(), format!("#{}", id.as_u64()));
        stop.set();
        for hog in hogs {
            hog.join().unwrap();
        }

        handle.set_workers(2).unwrap();
        assert_eq!(rt.metrics().workers, 2);
        drop(rt);
        assert!(handle.metrics().is_none() && handle.dump().is_none());
        let error = handle.set_workers(1).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::NotConnected);
        assert!(
            !weald::runtimes()
                .iter()
                .any(|it| it.name() == "found by its name")
        );
    });
}
