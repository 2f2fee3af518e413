//! A service in sixty lines; its twin on axum is `http/twin`. `cargo run -p weald-http --example service`
#![allow(clippy::needless_pass_by_value, reason = "a handler gets its request")]
#![allow(clippy::unwrap_used, reason = "a note is pushed whole or not at all")]

use std::io;
use std::sync::Mutex;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use weald_http::{IntoResponse, Json, JsonError, Request, Response, Router, Server, StatusCode};

#[derive(Deserialize)]
struct NewNote {
    text: String,
}

#[derive(Clone, Serialize)]
struct Note {
    id: usize,
    text: String,
}

static NOTES: Mutex<Vec<Note>> = Mutex::new(Vec::new());

fn create(mut request: Request) -> Result<Response, JsonError> {
    let NewNote { text } = request.read_json()?;
    if text.is_empty() {
        let refused = (StatusCode::UNPROCESSABLE_ENTITY, "a note has a text\n");
        return Ok(refused.into_response());
    }
    let mut notes = NOTES.lock().unwrap();
    let id = notes.len() + 1;
    let note = Note { id, text };
    notes.push(note.clone());
    Ok((StatusCode::CREATED, Json(note)).into_response())
}

fn read(request: Request) -> Option<Json<Note>> {
    let id: usize = request.param("id")?.parse().ok()?;
    let notes = NOTES.lock().unwrap();
    notes.get(id.checked_sub(1)?).cloned().map(Json)
}

fn primes(request: Request) -> Result<String, StatusCode> {
    let most = request.param("most").and_then(|text| text.parse().ok());
    let most: u32 = most
        .filter(|most| *most <= 1_000_000)
        .ok_or(StatusCode::BAD_REQUEST)?;
    let is_prime = |n: &u32| (2..=n.isqrt()).all(|d| !n.is_multiple_of(d));
    // This handler computes; the other requests go on.
    Ok(format!("{}\n", (2..=most).filter(is_prime).count()))
}

fn main() -> io::Result<()> {
    let router = Router::new()
        .get("/", |_request| "notes\n")
        .post("/notes", create)
        .get("/notes/{id}", read)
        .get("/primes/{most}", primes);
    let address = std::env::args()
        .nth(1)
        .unwrap_or("127.0.0.1:8080".to_owned());
    let server = Server::new(weald::tcp_listener(&*address)?).serve(router.into_handler());
    println!("listening on {}", server.local_addr());
    server.until_shutdown(Duration::from_secs(10))?;
    Ok(())
}
