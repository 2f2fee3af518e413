//! Which path does what.

use std::sync::Arc;
use std::time::Duration;

use weald_http::{Json, Limits, Request, Response, Router, StatusCode};

use crate::failure::Failure;
use crate::forecast::forecast;
use crate::store::Store;
use crate::trees::{NewTree, Tree};

/// The most trees on a page.
const PAGE: i64 = 100;

/// The limits of a request. No body of this service has more than a few hundred bytes.
pub fn limits() -> Limits {
    Limits::new()
        .body_size(16 * 1024)
        .body_time(Duration::from_secs(10))
        .keep_alive(Duration::from_secs(60))
        .connections(5000)
}

/// Returns the service, with its database.
pub fn router(store: Arc<dyn Store>) -> Router {
    let with = |handler: fn(&dyn Store, Request) -> Result<Response, Failure>| {
        let store = Arc::clone(&store);
        move |request| handler(&*store, request)
    };
    Router::new()
        .get("/health", |_request| "well\n")
        .get("/metrics", |request: Request| {
            let page = request.server_metrics().to_prometheus();
            Response::new(page).header("content-type", "text/plain; version=0.0.4")
        })
        .get("/trees", with(list))
        .post("/trees", with(create))
        .get("/trees/{id}", with(get))
        .put("/trees/{id}", with(replace))
        .delete("/trees/{id}", with(delete))
        .post("/forecasts", |mut request: Request| {
            forecast(&request.read_json()?).map(Json)
        })
}

fn json(value: impl serde::Serialize) -> Response {
    use weald_http::IntoResponse as _;
    Json(value).into_response()
}

/// Returns the number in the path. Text that is not a number names no tree.
fn id(request: &Request) -> Result<i64, Failure> {
    let id = request.param("id").and_then(|text| text.parse().ok());
    id.ok_or(Failure::NotFound)
}

fn read(request: &mut Request) -> Result<NewTree, Failure> {
    let new: NewTree = request.read_json()?;
    new.check()?;
    Ok(new)
}

fn list(store: &dyn Store, request: Request) -> Result<Response, Failure> {
    let (mut species, mut after, mut most) = (None, 0, PAGE);
    for (name, value) in request.query_pairs() {
        match name.as_str() {
            "species" => species = Some(value),
            "after" => {
                let fault = Failure::Invalid(vec![("after", "must be a number")]);
                after = value.parse().map_err(|_| fault)?;
            }
            "limit" => {
                let number = value.parse().ok().filter(|most| (1..=PAGE).contains(most));
                let fault = Failure::Invalid(vec![("limit", "must be 1 to 100")]);
                most = number.ok_or(fault)?;
            }
            _ => {}
        }
    }
    let trees: Vec<Tree> = store.list(species.as_deref(), after, most)?;
    Ok(json(trees))
}

fn get(store: &dyn Store, request: Request) -> Result<Response, Failure> {
    let tree = store.get(id(&request)?)?.ok_or(Failure::NotFound)?;
    Ok(json(tree))
}

fn create(store: &dyn Store, mut request: Request) -> Result<Response, Failure> {
    let tree = store.insert(&read(&mut request)?)?;
    let place = format!("/trees/{}", tree.id);
    Ok(json(tree)
        .status(StatusCode::CREATED)
        .header("location", place))
}

fn replace(store: &dyn Store, mut request: Request) -> Result<Response, Failure> {
    let (id, new) = (id(&request)?, read(&mut request)?);
    if !store.replace(id, &new)? {
        return Err(Failure::NotFound);
    }
    Ok(json(new.with_id(id)))
}

fn delete(store: &dyn Store, request: Request) -> Result<Response, Failure> {
    if !store.delete(id(&request)?)? {
        return Err(Failure::NotFound);
    }
    Ok(Response::new(()).status(StatusCode::NO_CONTENT))
}
