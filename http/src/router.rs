//! A router: from paths to handlers, with the crate matchit.

use std::fmt;

use http::header::ALLOW;
use http::{HeaderValue, Method, StatusCode};

use crate::request::{Params, Request};
use crate::response::{IntoResponse, Response};
use crate::text::percent_decoded;

type Handler = Box<dyn Fn(Request) -> Response + Send + Sync>;

/// The handlers of one path.
#[derive(Default)]
struct Methods(Vec<(Method, Handler)>);

/// Chooses a handler by path and method.
///
/// A part of a path in braces matches one segment: `/trees/{name}`. At the end of a path, a part with a star matches
/// the rest: `/files/{*rest}`. Literal parts come before parts in braces. [`Request::param`] returns what a part has
/// matched, percent-decoded. The handler for `GET` also answers `HEAD`. A path without a route is answered 404, and a
/// method without a route 405.
///
/// # Examples
/// ```
/// use weald_http::{Request, Router};
///
/// fn tree(request: Request) -> String {
///     format!("the tree {}\n", request.param("name").unwrap_or_default())
/// }
/// let router = Router::new()
///     .get("/", |_request| "welcome\n")
///     .get("/trees/{name}", tree)
///     .post("/trees", |mut request: Request| request.read_text());
/// let listener = weald::tcp_listener("127.0.0.1:0")?;
/// let server = weald_http::Server::new(listener).serve(router.into_handler());
/// # drop(server);
/// # Ok::<(), std::io::Error>(())
/// ```
#[must_use = "a router does nothing before a server has it"]
pub struct Router {
    paths: matchit::Router<usize>,
    /// The path and its handlers, by the numbers in `paths`.
    methods: Vec<(String, Methods)>,
    fallback: Option<Handler>,
}

impl Router {
    /// Returns a router without routes.
    pub fn new() -> Self {
        Self {
            paths: matchit::Router::new(),
            methods: Vec::new(),
            fallback: None,
        }
    }

    /// Adds a handler for a method and a path.
    ///
    /// # Panics
    /// If the path is invalid, or matches the same as another path that is written differently, or has a handler for
    /// this method already.
    #[track_caller]
    pub fn route<R: IntoResponse>(
        mut self,
        method: Method,
        path: &str,
        handler: impl Fn(Request) -> R + Send + Sync + 'static,
    ) -> Self {
        let place = self.methods.iter().position(|(other, _)| other == path);
        let place = place.unwrap_or_else(|| {
            let place = self.methods.len();
            if let Err(error) = self.paths.insert(path, place) {
                panic!("no route for the path {path:?}: {error}");
            }
            self.methods.push((path.to_owned(), Methods::default()));
            place
        });
        let handlers = &mut self.methods[place].1.0;
        let is_new = handlers.iter().all(|(other, _)| *other != method);
        assert!(is_new, "there are two handlers for {method} {path}");
        let handler: Handler = Box::new(move |request| handler(request).into_response());
        handlers.push((method, handler));
        self
    }

    /// Adds a handler for `GET` and `HEAD` of a path.
    ///
    /// # Panics
    /// As [`route`](Self::route).
    #[track_caller]
    pub fn get<R: IntoResponse>(
        self,
        path: &str,
        handler: impl Fn(Request) -> R + Send + Sync + 'static,
    ) -> Self {
        self.route(Method::GET, path, handler)
    }

    /// Adds a handler for `POST` of a path.
    ///
    /// # Panics
    /// As [`route`](Self::route).
    #[track_caller]
    pub fn post<R: IntoResponse>(
        self,
        path: &str,
        handler: impl Fn(Request) -> R + Send + Sync + 'static,
    ) -> Self {
        self.route(Method::POST, path, handler)
    }

    /// Adds a handler for `PUT` of a path.
    ///
    /// # Panics
    /// As [`route`](Self::route).
    #[track_caller]
    pub fn put<R: IntoResponse>(
        self,
        path: &str,
        handler: impl Fn(Request) -> R + Send + Sync + 'static,
    ) -> Self {
        self.route(Method::PUT, path, handler)
    }

    /// Adds a handler for `DELETE` of a path.
    ///
    /// # Panics
    /// As [`route`](Self::route).
    #[track_caller]
    pub fn delete<R: IntoResponse>(
        self,
        path: &str,
        handler: impl Fn(Request) -> R + Send + Sync + 'static,
    ) -> Self {
        self.route(Method::DELETE, path, handler)
    }

    /// Sets the handler for paths that have no route. Without it they are answered 404.
    pub fn fallback<R: IntoResponse>(
        mut self,
        handler: impl Fn(Request) -> R + Send + Sync + 'static,
    ) -> Self {
        self.fallback = Some(Box::new(move |request| handler(request).into_response()));
        self
    }

    /// Answers one request.
    pub fn handle(&self, mut request: Request) -> Response {
        let Ok(found) = self.paths.at(request.path()) else {
            return match &self.fallback {
                Some(handler) => handler(request),
                None => Response::of(StatusCode::NOT_FOUND),
            };
        };
        let (path, Methods(handlers)) = &self.methods[*found.value];
        let of = |method: &Method| handlers.iter().find(|(other, _)| other == method);
        let handler = match of(request.method()) {
            None if *request.method() == Method::HEAD => of(&Method::GET),
            handler => handler,
        };
        let Some((_, handler)) = handler else {
            return not_allowed(handlers);
        };
        crate::span::route(request.method(), path);
        let params: Option<Vec<_>> = found
            .params
            .iter()
            .map(|(name, value)| Some((name.to_owned(), percent_decoded(value, false)?)))
            .collect();
        let Some(params) = params else {
            // The part is not UTF-8.
            return Response::of(StatusCode::BAD_REQUEST);
        };
        request.extensions_mut().insert(Params(params));
        handler(request)
    }

    /// Turns the router into a server's handler.
    pub fn into_handler(self) -> impl Fn(Request) -> Response + Send + Sync + 'static {
        move |request| self.handle(request)
    }
}

fn not_allowed(handlers: &[(Method, Handler)]) -> Response {
    let mut names: Vec<_> = handlers.iter().map(|(method, _)| method.as_str()).collect();
    if names.contains(&"GET") && !names.contains(&"HEAD") {
        names.push("HEAD");
    }
    let mut response = Response::of(StatusCode::METHOD_NOT_ALLOWED);
    if let Ok(value) = HeaderValue::from_str(&names.join(", ")) {
        response.headers_mut().insert(ALLOW, value);
    }
    response
}

impl Default for Router {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Router {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let paths = self.methods.iter().map(|(path, _)| path);
        f.debug_set().entries(paths).finish()
    }
}
