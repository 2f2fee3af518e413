//! The service of `http/examples/service.rs` on axum.
#![allow(clippy::unwrap_used, reason = "a note is pushed whole or not at all")]

use std::io;
use std::sync::Mutex;
use std::time::Duration;

use axum::extract::Path;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::{Deserialize, Serialize};
use tokio::signal::unix::{SignalKind, signal};

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

async fn create(Json(NewNote { text }): Json<NewNote>) -> Response {
    if text.is_empty() {
        let refused = (StatusCode::UNPROCESSABLE_ENTITY, "a note has a text\n");
        return refused.into_response();
    }
    let mut notes = NOTES.lock().unwrap();
    let id = notes.len() + 1;
    let note = Note { id, text };
    notes.push(note.clone());
    (StatusCode::CREATED, Json(note)).into_response()
}

async fn read(Path(id): Path<String>) -> Result<Json<Note>, StatusCode> {
    let id: usize = id.parse().map_err(|_| StatusCode::NOT_FOUND)?;
    let place = id.checked_sub(1).ok_or(StatusCode::NOT_FOUND)?;
    let note = NOTES.lock().unwrap().get(place).cloned();
    note.map(Json).ok_or(StatusCode::NOT_FOUND)
}

async fn primes(Path(most): Path<String>) -> Result<String, StatusCode> {
    let most: u32 = most.parse().map_err(|_| StatusCode::BAD_REQUEST)?;
    if most > 1_000_000 {
        return Err(StatusCode::BAD_REQUEST);
    }
    let is_prime = |n: &u32| (2..=n.isqrt()).all(|d| !n.is_multiple_of(d));
    // The computation has a thread of its own: here other requests would wait for it.
    let count = tokio::task::spawn_blocking(move || (2..=most).filter(is_prime).count());
    let count = count.await.map_err(|_| StatusCode::INTERNAL_SERVER_ERROR)?;
    Ok(format!("{count}\n"))
}

#[tokio::main]
async fn main() -> io::Result<()> {
    let router = Router::new()
        .route("/", get(async || "notes\n"))
        .route("/notes", post(create))
        .route("/notes/{id}", get(read))
        .route("/primes/{most}", get(primes));
    let address = std::env::args()
        .nth(1)
        .unwrap_or("127.0.0.1:8080".to_owned());
    let listener = tokio::net::TcpListener::bind(address).await?;
    println!("listening on {}", listener.local_addr()?);
    let (asked, mut ends) = (
        tokio::sync::watch::channel(()),
        signal(SignalKind::terminate())?,
    );
    let (asks, mut is_asked) = asked;
    let shutdown = async move {
        tokio::select! {
            _ = ends.recv() => {}
            _ = tokio::signal::ctrl_c() => {}
        }
        let _ = asks.send(());
    };
    let server = axum::serve(listener, router).with_graceful_shutdown(shutdown);
    // Requests that run get ten seconds.
    tokio::select! {
        ended = server => ended,
        () = async {
            let _ = is_asked.changed().await;
            tokio::time::sleep(Duration::from_secs(10)).await;
        } => Ok(()),
    }
}
