//! The client, against the server.

use std::io::Read as _;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use weald::{Runtime, ThreadLocals};
use weald_http::{Body, Request, Response, StatusCode, client};

use crate::support::{each_mode, serve, serve_alone};

#[test]
fn a_client_asks_in_every_mode() {
    each_mode(|rt| {
        rt.run(|| {
            let server = serve_alone(3, |mut request: Request| match request.path() {
                "/echo" => Ok(Response::new(Body::from(request.read_text()?))),
                "/away" => Ok(Response::new("")
                    .status(StatusCode::FOUND)
                    .header("location", "/echo")),
                "/error" => Ok(Response::new("").status(StatusCode::IM_A_TEAPOT)),
                _ => Ok::<_, std::io::Error>(Response::new(Body::writer(|out| {
                    (0..1000).try_for_each(|_| out.send(vec![b'x'; 1000]))
                }))),
            });
            let url = |path: &str| format!("http://{}{path}", server.local_addr());
            let agent = client::agent();
            for _ in 0..3 {
                let mut answer = agent.post(url("/echo")).send("tree").unwrap();
                assert_eq!(answer.body_mut().read_to_string().unwrap(), "tree");
            }
            // The client keeps its connection.
            assert_eq!(server.connections(), 1);
            let mut answer = agent.get(url("/away")).call().unwrap();
            assert_eq!(answer.body_mut().read_to_string().unwrap(), "");
            let mut bytes = Vec::new();
            let answer = agent.get(url("/long")).call().unwrap();
            let mut reader = answer.into_body().into_reader();
            reader.read_to_end(&mut bytes).unwrap();
            assert_eq!(bytes.len(), 1_000_000);
            let refused = agent.get(url("/error")).call().unwrap_err();
            assert!(matches!(refused, client::ureq::Error::StatusCode(418)));
            // No server listens there any more.
            let gone = url("/echo");
            assert!(server.shutdown(Duration::from_secs(5)));
            assert!(client::agent().get(gone).call().is_err());
        });
    });
}

#[test]
fn limits_and_kills_reach_into_a_request() {
    each_mode(|rt| {
        rt.run(|| {
            let server = serve(|_request| weald::sleep(Duration::from_secs(60)));
            let url = format!("http://{}/", server.local_addr());
            let start = Instant::now();
            let asked = url.clone();
            let limited = weald::timeout(Duration::from_millis(50), || {
                client::agent().get(asked).call().is_ok()
            });
            assert!(limited.is_err());
            let limit = Some(Duration::from_millis(50));
            let agent = client::agent_with(client::config().timeout_global(limit).build());
            let late = agent.get(&url).call().unwrap_err();
            assert!(matches!(late, client::ureq::Error::Timeout(_)), "{late}");
            let asks = weald::spawn(move || client::agent().get(url).call().is_ok());
            weald::sleep(Duration::from_millis(20));
            asks.thread().kill();
            assert!(!matches!(asks.join(), Ok(true)));
            assert!(start.elapsed() < Duration::from_secs(30));
            server.shutdown(Duration::ZERO);
        });
    });
}

#[test]
fn many_who_share_an_agent_on_one_pinned_worker_do_not_stop_each_other() {
    // The server is in the default runtime.
    let server = serve(|_request| "well");
    let url = format!("http://{}/", server.local_addr());
    let (done, ended) = mpsc::channel();
    std::thread::spawn(move || {
        let builder = Runtime::builder().workers(1);
        let rt = builder.thread_locals(ThreadLocals::Pinned).build().unwrap();
        let agent = client::agent();
        let ask = || {
            for _ in 0..50 {
                let mut answer = agent.get(&url).call().unwrap();
                assert_eq!(answer.body_mut().read_to_string().unwrap(), "well");
            }
        };
        rt.run(|| {
            weald::scope(|s| {
                for _ in 0..8 {
                    s.spawn(ask);
                }
            });
        });
        done.send(()).unwrap();
    });
    let waited = ended.recv_timeout(Duration::from_secs(120));
    assert_eq!(waited, Ok(()));
}
