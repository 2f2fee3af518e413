//! Tests the service over real HTTP, with each database that is available.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use weald_api::{Store, limits, postgres, router, sqlite};
use weald_http::client::{self, ureq::Agent};
use weald_http::{Server, ServerHandle};

/// A folder that belongs to one test.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("weald-api-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn start(store: Arc<dyn Store>) -> ServerHandle {
    let listener = weald::tcp_listener("127.0.0.1:0").unwrap();
    Server::new(listener)
        .limits(limits())
        .half_close(false)
        .serve(router(store).into_handler())
}

struct Client {
    agent: Agent,
    base: String,
}

impl Client {
    fn new(server: &ServerHandle) -> Self {
        let config = client::config().http_status_as_error(false);
        Self {
            agent: client::agent_with(config.build()),
            base: format!("http://{}", server.local_addr()),
        }
    }

    /// Returns the status and the body.
    fn ask(&self, method: &str, path: &str, body: Option<&str>) -> (u16, Value) {
        let request = weald_http::client::ureq::http::Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.base))
            .header("content-type", "application/json");
        let mut answer = match body {
            Some(body) => self.agent.run(request.body(body.to_owned()).unwrap()),
            None => self.agent.run(request.body(()).unwrap()),
        }
        .unwrap();
        let text = answer.body_mut().read_to_string().unwrap();
        let value = serde_json::from_str(&text).unwrap_or(Value::String(text));
        (answer.status().as_u16(), value)
    }

    fn get(&self, path: &str) -> (u16, Value) {
        self.ask("GET", path, None)
    }

    fn post(&self, path: &str, body: &Value) -> (u16, Value) {
        self.ask("POST", path, Some(&body.to_string()))
    }
}

fn check_trees(store: Arc<dyn Store>) {
    let server = start(store);
    let client = Client::new(&server);
    let species = format!("alder {}", std::process::id());
    let alder = json!({"species": species, "height_m": 21.5, "planted": 1990});
    let (status, made) = client.post("/trees", &alder);
    assert_eq!(status, 201, "{made}");
    let id = made["id"].as_i64().unwrap();
    let path = format!("/trees/{id}");
    assert_eq!(client.get(&path), (200, made.clone()));

    let higher = json!({"species": species, "height_m": 22.0, "planted": 1990});
    let (status, changed) = client.ask("PUT", &path, Some(&higher.to_string()));
    assert_eq!((status, &changed["height_m"]), (200, &json!(22.0)));
    for _ in 0..4 {
        assert_eq!(client.post("/trees", &alder).0, 201);
    }
    let query = format!("species={}", species.replace(' ', "%20"));
    let (_, page) = client.get(&format!("/trees?{query}&limit=3"));
    let ids = |page: &Value| -> Vec<i64> {
        let trees = page.as_array().unwrap().iter();
        trees.map(|tree| tree["id"].as_i64().unwrap()).collect()
    };
    assert_eq!(ids(&page).len(), 3);
    let last = ids(&page)[2];
    let (_, rest) = client.get(&format!("/trees?{query}&after={last}"));
    assert_eq!(ids(&rest).len(), 2);
    assert!(ids(&rest)[0] > last);

    assert_eq!(client.ask("DELETE", &path, None).0, 204);
    for method in ["GET", "DELETE"] {
        assert_eq!(client.ask(method, &path, None).0, 404);
    }
    let put = client.ask("PUT", &path, Some(&higher.to_string()));
    assert_eq!(put.0, 404);
    for id in [ids(&page), ids(&rest)].concat() {
        client.ask("DELETE", &format!("/trees/{id}"), None);
    }
    assert!(server.shutdown(Duration::from_secs(10)));
}

#[test]
fn trees_are_kept_in_sqlite() {
    let folder = Folder::new("sqlite");
    let path = folder.0.join("trees.db");
    check_trees(Arc::new(sqlite::open(&path).unwrap()));
    // The trees are still there.
    let tree = weald_api::trees::NewTree {
        species: "yew".to_owned(),
        height_m: 5.0,
        planted: 1200,
    };
    let id = sqlite::open(&path).unwrap().insert(&tree).unwrap().id;
    let again = sqlite::open(&path).unwrap();
    assert_eq!(again.get(id).unwrap(), Some(tree.with_id(id)));
}

#[test]
fn trees_are_kept_in_postgresql() {
    let Ok(url) = std::env::var("WEALD_TEST_POSTGRES") else {
        eprintln!("SKIPPED: WEALD_TEST_POSTGRES names no server");
        return;
    };
    weald_patch::all().unwrap();
    check_trees(Arc::new(postgres::open(&url).unwrap()));
}

fn with_sqlite(name: &str, check: impl FnOnce(&ServerHandle, &Client)) {
    let folder = Folder::new(name);
    let store = sqlite::open(&folder.0.join("trees.db")).unwrap();
    let server = start(Arc::new(store));
    check(&server, &Client::new(&server));
    assert!(server.shutdown(Duration::from_secs(10)));
}

#[test]
fn what_is_wrong_is_said_with_the_status_that_fits() {
    with_sqlite("wrong", |_, client| {
        let (status, told) = client.post(
            "/trees",
            &json!({"species": " ", "height_m": -1, "planted": 1990}),
        );
        assert_eq!(status, 422);
        let fields = told["fields"].as_array().unwrap().iter();
        let names: Vec<_> = fields
            .map(|field| field["name"].as_str().unwrap())
            .collect();
        assert_eq!(names, ["species", "height_m"]);
        let table = [
            ("GET", "/nowhere", None, 404),
            ("GET", "/trees/x", None, 404),
            ("GET", "/trees/999999999", None, 404),
            ("GET", "/trees?limit=0", None, 422),
            ("GET", "/trees?after=x", None, 422),
            ("PATCH", "/trees", None, 405),
            ("POST", "/trees", Some("{"), 400),
            ("POST", "/trees", Some("{\"species\": 5}"), 422),
            ("POST", "/trees", Some("{\"spices\": \"oak\"}"), 422),
            (
                "POST",
                "/forecasts",
                Some("{\"height_m\": 5, \"years\": 0, \"lives\": 10}"),
                422,
            ),
        ];
        for (method, path, body, expected) in table {
            let (status, told) = client.ask(method, path, body);
            assert_eq!(status, expected, "{method} {path} {body:?}: {told}");
        }
        let long = format!("{{\"species\": \"{}\"}}", "x".repeat(20_000));
        assert_eq!(client.ask("POST", "/trees", Some(&long)).0, 413);
    });
}

#[test]
fn a_hundred_clients_write_and_read_at_once_and_metrics_count_them() {
    with_sqlite("many", |server, client| {
        std::thread::scope(|scope| {
            for n in 0..100 {
                scope.spawn(move || {
                    let client = Client::new(server);
                    let tree = json!({"species": "birch", "height_m": 10, "planted": 1900 + n});
                    let (status, made) = client.post("/trees", &tree);
                    assert_eq!(status, 201, "{made}");
                    let got = client.get(&format!("/trees/{}", made["id"]));
                    assert_eq!(got, (200, made));
                });
            }
        });
        let (_, page) = client.get("/trees?species=birch");
        assert_eq!(page.as_array().unwrap().len(), 100);
        let (_, page) = client.get("/metrics");
        let page = page.as_str().unwrap();
        assert!(
            page.contains("http_requests_total{status=\"2xx\"} 201\n"),
            "{page}"
        );
    });
}

#[test]
fn forecasts_hold_up_nobody() {
    with_sqlite("forecast", |server, client| {
        let ask = json!({"height_m": 10, "years": 50, "lives": 20_000, "seed": 7});
        let first = client.post("/forecasts", &ask);
        assert_eq!(first.0, 200, "{}", first.1);
        assert_eq!(client.post("/forecasts", &ask), first);
        let (low, high) = (&first.1["p10_m"], &first.1["p90_m"]);
        assert!(low.as_f64().unwrap() > 10.0 && high.as_f64() > low.as_f64());
        // Other requests are answered while these are computed.
        let long = &json!({"height_m": 10, "years": 500, "lives": 100_000});
        std::thread::scope(|scope| {
            let all: Vec<_> = (0..3)
                .map(|_| scope.spawn(move || Client::new(server).post("/forecasts", long)))
                .collect();
            let mut count = 0;
            while !all.iter().all(|one| one.is_finished()) {
                assert_eq!(client.get("/health"), (200, json!("well\n")));
                count += 1;
            }
            assert!(count > 0);
            for one in all {
                let (status, told) = one.join().unwrap();
                // On a busy machine the last forecast may not get its turn in time.
                assert!(status == 200 || status == 503, "{told}");
            }
        });
    });
}

/// The program, started as in production.
struct Program {
    child: Child,
    address: String,
}

impl Program {
    fn start(folder: &Folder) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_weald-api"))
            .env("DATABASE_FILE", folder.0.join("trees.db"))
            .env("LISTEN", "127.0.0.1:0")
            .env_remove("DATABASE_URL")
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = Vec::new();
        let out = child.stdout.as_mut().unwrap();
        while !line.ends_with(b"\n") {
            let mut byte = [0];
            out.read_exact(&mut byte).unwrap();
            line.push(byte[0]);
        }
        let line = String::from_utf8(line).unwrap();
        let address = line.trim().strip_prefix("listening on http://").unwrap();
        let address = address.to_owned();
        Self { child, address }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn sigterm_ends_the_program_after_its_last_answer() {
    let folder = Folder::new("sigterm");
    let mut program = Program::start(&folder);
    let mut stream = TcpStream::connect(&program.address).unwrap();
    let body = r#"{"height_m": 10, "years": 500, "lives": 50000}"#;
    write!(
        stream,
        "POST /forecasts HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .unwrap();
    // A request that is counted has arrived.
    let limit = Instant::now() + Duration::from_secs(60);
    let is_counted = || {
        let mut other = TcpStream::connect(&program.address).unwrap();
        other.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").unwrap();
        let mut page = String::new();
        other.read_to_string(&mut page).unwrap();
        // The two requests are this one and the forecast. The forecast is being computed, or is done.
        page.contains("http_open_requests 2\n") || page.contains("{status=\"2xx\"} 1\n")
    };
    while !is_counted() {
        assert!(Instant::now() < limit);
    }
    let id = i32::try_from(program.child.id()).unwrap();
    // SAFETY: no pointers; the child is ours, and has not been waited for.
    assert_eq!(unsafe { libc::kill(id, libc::SIGTERM) }, 0);
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(
        answer.starts_with("HTTP/1.1 200") && answer.contains("median_m"),
        "{answer}"
    );
    let status = program.child.wait().unwrap();
    assert!(status.success(), "{status}");
}
