//! The failures, and what the client learns: the status, and a JSON object with the reason.

use std::fmt;

use serde::Serialize;
use weald_http::{IntoResponse, Json, JsonError, Response, StatusCode};

#[derive(Debug)]
pub enum Failure {
    NotFound,
    /// Fields and what is wrong with each.
    Invalid(Vec<(&'static str, &'static str)>),
    /// The body is not JSON, or not the right JSON.
    Body(JsonError),
    /// The service has too much to do now.
    Busy(&'static str),
    /// The database has failed. The client is not told how.
    Store(String),
}

#[derive(Serialize)]
struct Told {
    error: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    fields: Vec<Field>,
}

#[derive(Serialize)]
struct Field {
    name: &'static str,
    fault: &'static str,
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let (status, error) = match &self {
            Self::NotFound => (StatusCode::NOT_FOUND, "there is no such tree".to_owned()),
            Self::Invalid(_) => (
                StatusCode::UNPROCESSABLE_ENTITY,
                "fields are wrong".to_owned(),
            ),
            Self::Body(error) => (error.status(), error.to_string()),
            Self::Busy(what) => (
                StatusCode::SERVICE_UNAVAILABLE,
                format!("too much to do: {what}"),
            ),
            Self::Store(error) => {
                log::error!("the database: {error}");
                let text = "the database has failed".to_owned();
                (StatusCode::INTERNAL_SERVER_ERROR, text)
            }
        };
        let fields = match self {
            Self::Invalid(faults) => faults
                .into_iter()
                .map(|(name, fault)| Field { name, fault })
                .collect(),
            _ => Vec::new(),
        };
        let response = Json(Told { error, fields }).into_response().status(status);
        if status == StatusCode::SERVICE_UNAVAILABLE {
            return response.header("retry-after", "1");
        }
        response
    }
}

impl From<JsonError> for Failure {
    fn from(error: JsonError) -> Self {
        Self::Body(error)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Store(error) => write!(f, "the database: {error}"),
            other => write!(f, "{other:?}"),
        }
    }
}

impl std::error::Error for Failure {}
