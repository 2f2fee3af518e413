//! Asks the console.

use std::io;
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant};

use crate::told::All;

/// An answer is never larger: the console bounds it.
const LARGEST: u64 = 64 << 20;

#[derive(Clone)]
pub(crate) struct Console {
    address: String,
    token: Option<String>,
    agent: ureq::Agent,
}

impl Console {
    /// `address`: `host:port`, with `http://` before it or without.
    pub(crate) fn new(address: &str, token: Option<String>) -> Self {
        let address = address.trim_end_matches('/');
        let address = match address.split_once("://") {
            Some(_) => address.to_owned(),
            None => format!("http://{address}"),
        };
        let config = ureq::Agent::config_builder()
            .timeout_global(Some(Duration::from_secs(30)))
            .http_status_as_error(false)
            // A console on this machine is no business of a proxy's.
            .proxy(None)
            .build();
        Self {
            address,
            token,
            agent: config.into(),
        }
    }

    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// Asks once. Blocks for 30 s at most.
    pub(crate) fn ask(&self) -> io::Result<All> {
        let mut request = self.agent.get(format!("{}/view.json", self.address));
        if let Some(token) = &self.token {
            request = request.header("Authorization", format!("Bearer {token}"));
        }
        let mut answer = request.call().map_err(io::Error::other)?;
        let status = answer.status();
        let body = answer.body_mut().with_config().limit(LARGEST);
        let text = body.read_to_string().map_err(io::Error::other)?;
        match status.as_u16() {
            200 => serde_json::from_str(&text).map_err(io::Error::other),
            401 => Err(io::Error::other(
                "the console asks for its token: set WEALD_CONSOLE_TOKEN",
            )),
            _ => Err(io::Error::other(format!("{status}: {}", text.trim()))),
        }
    }

    /// Asks again and again, in a thread of its own that ends when nobody hears.
    pub(crate) fn follow(&self, every: Duration) -> Receiver<io::Result<All>> {
        let (tells, hears) = mpsc::channel();
        let console = self.clone();
        thread::spawn(move || {
            loop {
                let begun = Instant::now();
                if tells.send(console.ask()).is_err() {
                    return;
                }
                // A dump of very many threads costs the program time.
                thread::sleep(every.max(10 * begun.elapsed()));
            }
        });
        hears
    }
}
