//! What is answered at which path.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use weald::RuntimeHandle;
use weald::sync::Semaphore;
use weald_http::{Request, Response, Router, StatusCode};

use crate::calls::Names;
use crate::flame::{Kind, Stacks};
use crate::guard::{self, Guard};
use crate::metrics;
use crate::recording;
use crate::view;
use crate::watched::{Dumped, Watched};

/// The longest time for which running threads are looked at.
const LONGEST: Duration = Duration::from_secs(30);

/// The files of the page: path, type, text. They show nothing of the program.
const FILES: &[(&str, &str, &str)] = &[
    (
        "/",
        "text/html; charset=utf-8",
        include_str!("page/index.html"),
    ),
    (
        "/app.js",
        "text/javascript; charset=utf-8",
        include_str!("page/app.js"),
    ),
    (
        "/workers.js",
        "text/javascript; charset=utf-8",
        include_str!("page/workers.js"),
    ),
    (
        "/flame.js",
        "text/javascript; charset=utf-8",
        include_str!("page/flame.js"),
    ),
    (
        "/style.css",
        "text/css; charset=utf-8",
        include_str!("page/style.css"),
    ),
];

/// What the handlers share.
struct State {
    watched: Watched,
    names: Names,
    /// Running threads are looked at for one client at a time.
    looking: Semaphore,
}

/// Why there is no other answer. It is small, because it is rare.
struct Refusal(Box<Response>);

impl From<Response> for Refusal {
    fn from(response: Response) -> Self {
        Self(Box::new(response))
    }
}

type Answer = Result<Response, Refusal>;

/// The handler of the console's server.
pub(crate) fn handler(
    guard: Guard,
    own: RuntimeHandle,
) -> impl Fn(Request) -> Response + Send + Sync + 'static {
    let state = Arc::new(State {
        watched: Watched::new(own),
        names: Names::default(),
        looking: Semaphore::new(1),
    });
    let with = |answer: fn(&State, &Request) -> Answer| {
        let state = Arc::clone(&state);
        move |request: Request| answer(&state, &request).unwrap_or_else(|Refusal(refusal)| *refusal)
    };
    let mut router = Router::new()
        .get("/dump", with(dump))
        .get("/dump.json", with(dump_json))
        .get("/view.json", with(view_json))
        .get("/metrics", with(metrics_page))
        .get("/metrics.json", with(metrics_json))
        .get("/stacks", with(stacks))
        .get("/flame.svg", with(flame))
        .get("/trace", with(trace))
        .post("/trace", with(trace_for))
        .post("/trace/start", with(trace_start))
        .post("/trace/stop", with(trace_stop));
    for &(path, kind, text) in FILES {
        router = router.get(path, move |_request| of_type(kind, text));
    }
    move |request| {
        let is_public = FILES.iter().any(|(path, ..)| *path == request.path());
        let refusal = guard.refuse(&request, is_public);
        guard::protected(refusal.unwrap_or_else(|| router.handle(request)))
    }
}

fn of_type(kind: &'static str, body: impl Into<weald_http::Body>) -> Response {
    Response::new(body).header("content-type", kind)
}

fn plain(text: impl Into<weald_http::Body>) -> Response {
    of_type("text/plain; charset=utf-8", text)
}

fn json(value: &Value) -> Response {
    of_type("application/json", value.to_string())
}

fn bad(text: String) -> Refusal {
    plain(text).status(StatusCode::BAD_REQUEST).into()
}

/// The value of a name in the query.
fn asked(request: &Request, name: &str) -> Option<String> {
    let mut pairs = request.query_pairs().into_iter();
    pairs.find_map(|(other, value)| (other == name).then_some(value))
}

/// A number in the query; `None` if it is not there.
fn number(request: &Request, name: &str) -> Result<Option<u64>, Refusal> {
    let Some(text) = asked(request, name) else {
        return Ok(None);
    };
    let number = text.parse();
    let number = number.map_err(|_| bad(format!("`{name}` is a number\n")))?;
    Ok(Some(number))
}

/// The runtime that is asked for; `None`: all.
fn runtime(state: &State, request: &Request) -> Result<Option<u64>, Refusal> {
    let Some(asked) = number(request, "runtime")? else {
        return Ok(None);
    };
    let runtimes = state.watched.runtimes();
    if runtimes.iter().any(|runtime| runtime.number() == asked) {
        return Ok(Some(asked));
    }
    let refusal = plain(format!("no runtime has the number {asked}\n"));
    Err(refusal.status(StatusCode::NOT_FOUND).into())
}

/// The dumps that are asked for.
fn chosen(dumps: &[Dumped], runtime: Option<u64>) -> impl Iterator<Item = &Dumped> {
    dumps.iter().filter(move |dumped| {
        let number = dumped.runtime.number();
        runtime.is_none_or(|asked| asked == number)
    })
}

fn dump(state: &State, request: &Request) -> Answer {
    let runtime = runtime(state, request)?;
    let is_whole = asked(request, "all").is_some();
    let dumps = state.watched.dumps();
    let text = weald::blocking(|| {
        let mut text = String::new();
        for Dumped { dump, .. } in chosen(&dumps, runtime) {
            // Writing to a string cannot fail.
            let _ = if is_whole {
                writeln!(text, "{dump:#}")
            } else {
                writeln!(text, "{dump}")
            };
        }
        text
    });
    Ok(plain(if text.is_empty() {
        String::from("no runtime runs\n")
    } else {
        text
    }))
}

fn dump_json(state: &State, request: &Request) -> Answer {
    let runtime = runtime(state, request)?;
    let dumps = state.watched.dumps();
    // The text is made at once. A tree of values of a million threads would be several times as large.
    let text = weald::blocking(|| {
        let dumps = chosen(&dumps, runtime).map(|Dumped { runtime, dump }| {
            let (name, dump) = (Value::from(runtime.name()), serde_json::to_string(dump)?);
            let (number, is_default) = (runtime.number(), runtime.is_default());
            Ok(format!(
                r#"{{"number":{number},"name":{name},"is_default":{is_default},"dump":{dump}}}"#
            ))
        });
        let dumps = dumps.collect::<Result<Vec<_>, serde_json::Error>>()?;
        Ok::<_, serde_json::Error>(format!(r#"{{"runtimes":[{}]}}"#, dumps.join(",")))
    });
    match text {
        Ok(text) => Ok(of_type("application/json", text)),
        Err(error) => {
            let answer = plain(format!("{error}\n")).status(StatusCode::INTERNAL_SERVER_ERROR);
            Err(answer.into())
        }
    }
}

fn view_json(state: &State, request: &Request) -> Answer {
    let runtime = runtime(state, request)?;
    let dumps = state.watched.dumps();
    let told = weald::blocking(|| {
        let dumps = chosen(&dumps, runtime);
        dumps
            .map(|dumped| view::dump(dumped, &state.names))
            .collect::<Vec<_>>()
    });
    Ok(json(&view::whole(&told)))
}

fn metrics_json(state: &State, request: &Request) -> Answer {
    let asked = runtime(state, request)?;
    let runtimes = state.watched.runtimes();
    let told = runtimes
        .iter()
        .filter(|runtime| asked.is_none_or(|asked| asked == runtime.number()))
        .filter_map(|runtime| Some(view::head(runtime, &runtime.metrics()?)));
    Ok(json(&view::whole(&told.collect::<Vec<_>>())))
}

fn metrics_page(state: &State, _request: &Request) -> Answer {
    let page = metrics::page(&state.watched);
    let failed =
        |_| plain("the page could not be written\n").status(StatusCode::INTERNAL_SERVER_ERROR);
    Ok(of_type(metrics::TYPE, page.map_err(failed)?))
}

/// The stacks that are asked for: `kind`, `seconds` and `runtime` in the query.
fn taken(state: &State, request: &Request) -> Result<(Kind, Stacks), Refusal> {
    let runtime = runtime(state, request)?;
    let kind = asked(request, "kind").unwrap_or_else(|| String::from("waiting"));
    let kind = Kind::of(&kind)
        .ok_or_else(|| bad(String::from("`kind` is waiting, threads or running\n")))?;
    let seconds = number(request, "seconds")?.unwrap_or(2);
    let time = Duration::from_secs(seconds);
    if time > LONGEST {
        return Err(bad(format!("`seconds` is at most {}\n", LONGEST.as_secs())));
    }
    let _one = if kind == Kind::Running {
        let Some(permit) = state.looking.try_acquire() else {
            let refusal = plain("another client looks at running threads now\n");
            let refusal = refusal.status(StatusCode::SERVICE_UNAVAILABLE);
            return Err(refusal.header("retry-after", "5").into());
        };
        Some(permit)
    } else {
        None
    };
    let stacks = Stacks::take(kind, time, runtime, &state.watched, &state.names);
    Ok((kind, stacks))
}

fn stacks(state: &State, request: &Request) -> Answer {
    let (_, stacks) = taken(state, request)?;
    Ok(plain(stacks.text()))
}

#[cfg(feature = "flamegraph")]
fn flame(state: &State, request: &Request) -> Answer {
    let (kind, stacks) = taken(state, request)?;
    let picture = weald::blocking(|| stacks.picture(kind));
    let picture = picture.map_err(|error| {
        plain(format!("no flame graph: {error}\n")).status(StatusCode::INTERNAL_SERVER_ERROR)
    })?;
    let Some(picture) = picture else {
        return Ok(Response::new(()).status(StatusCode::NO_CONTENT));
    };
    // The picture has a program in it, which gets nothing of the console.
    Ok(of_type("image/svg+xml", picture).header(
        "content-security-policy",
        "sandbox allow-scripts; default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; \
         frame-ancestors 'none'",
    ))
}

#[cfg(not(feature = "flamegraph"))]
fn flame(_state: &State, _request: &Request) -> Answer {
    let text =
        "weald-console was built without the feature `flamegraph`; /stacks has the same as text\n";
    Ok(plain(text).status(StatusCode::NOT_IMPLEMENTED))
}

/// What has been recorded until now.
fn trace(_state: &State, _request: &Request) -> Answer {
    recording::snapshot().map_or_else(|| Err(not_recording()), Ok)
}

fn not_recording() -> Refusal {
    let text = "nothing is recorded: POST /trace/start begins, POST /trace?seconds=5 records for so long\n";
    plain(text).status(StatusCode::CONFLICT).into()
}

/// Begins a recording with the memory that is asked for.
fn start(request: &Request) -> Result<(), Refusal> {
    let memory = number(request, "memory")?;
    recording::start(memory).map_err(|error| {
        let status = match error.kind() {
            std::io::ErrorKind::AlreadyExists => StatusCode::CONFLICT,
            std::io::ErrorKind::InvalidInput => StatusCode::BAD_REQUEST,
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        };
        plain(format!("{error}\n")).status(status).into()
    })
}

/// Records for some seconds.
fn trace_for(_state: &State, request: &Request) -> Answer {
    let Some(seconds) = number(request, "seconds")? else {
        return Err(bad(String::from("`seconds` says for how long\n")));
    };
    let time = Duration::from_secs(seconds);
    if time > LONGEST {
        return Err(bad(format!("`seconds` is at most {}\n", LONGEST.as_secs())));
    }
    start(request)?;
    Ok(recording::stop_after(time))
}

fn trace_start(_state: &State, request: &Request) -> Answer {
    start(request)?;
    Ok(Response::new(()).status(StatusCode::NO_CONTENT))
}

fn trace_stop(_state: &State, _request: &Request) -> Answer {
    recording::stop().map_or_else(|| Err(not_recording()), Ok)
}
