//! HTTP clients.

use std::time::Duration;

use weald_patched_crates::{PAGE, all_at_once, http};

/// A limit that is longer than the tests take, for clients that start a timer.
const LIMIT: Duration = Duration::from_secs(50);

#[test]
fn ureq_has_all_requests_under_way_at_once() {
    let url = http();
    all_at_once(move |_| {
        let page = ureq::get(&url).call().unwrap().body_mut().read_to_string();
        assert_eq!(page.unwrap(), PAGE);
    });
}

#[test]
fn ureq_with_timeouts_and_a_shared_agent() {
    let url = http();
    let agent: ureq::Agent = ureq::Agent::config_builder()
        .timeout_global(Some(LIMIT))
        .build()
        .into();
    all_at_once(move |_| {
        let page = agent.get(&url).call().unwrap().body_mut().read_to_string();
        assert_eq!(page.unwrap(), PAGE);
    });
}

#[test]
fn attohttpc_has_all_requests_under_way_at_once() {
    let url = http();
    all_at_once(move |_| {
        let response = attohttpc::get(&url).timeout(LIMIT).send().unwrap();
        assert_eq!(response.text().unwrap(), PAGE);
    });
}

#[test]
fn minreq_has_all_requests_under_way_at_once() {
    let url = http();
    all_at_once(move |_| {
        let response = minreq::get(&url)
            .with_timeout(LIMIT.as_secs())
            .send()
            .unwrap();
        assert_eq!(response.as_str().unwrap(), PAGE);
    });
}

#[test]
fn reqwest_blocking_has_all_requests_under_way_at_once() {
    let url = http();
    all_at_once(move |_| {
        let page = reqwest::blocking::get(&url).unwrap().text().unwrap();
        assert_eq!(page, PAGE);
    });
}
