//! The service as a program. Settings come from the environment: see the README.

use std::env;
use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use weald_api::{Store, limits, logger, postgres, router, sqlite};
use weald_http::Server;

/// How long requests that run may take after SIGTERM or Ctrl-C.
const GRACE: Duration = Duration::from_secs(10);

fn main() -> Result<(), Box<dyn Error>> {
    logger::start();
    // From now on the pool and the database's sockets suspend green threads instead of OS threads.
    weald_patch::all()?;
    let store: Arc<dyn Store> = match env::var("DATABASE_URL") {
        Ok(url) => Arc::new(postgres::open(&url)?),
        Err(_) => {
            let path = env::var("DATABASE_FILE").unwrap_or_else(|_| "trees.db".to_owned());
            Arc::new(sqlite::open(path.as_ref())?)
        }
    };
    let address = env::var("LISTEN").unwrap_or_else(|_| "127.0.0.1:8080".to_owned());
    let listener = weald::tcp_listener(&*address)?;
    let server = Server::new(listener)
        .limits(limits())
        // No handler computes for a client that has gone.
        .half_close(false)
        .serve(router(store).into_handler());
    println!("listening on http://{}", server.local_addr());
    if !server.until_shutdown(GRACE)? {
        log::warn!("some requests did not end within {GRACE:?}");
    }
    Ok(())
}
