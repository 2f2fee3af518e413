//! JSON bodies, by serde_json. Feature `json`.

use std::error::Error;
use std::fmt;
use std::io;

use http::header::CONTENT_TYPE;
use http::{HeaderValue, StatusCode};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::quiet::Quiet;
use crate::request::Request;
use crate::response::{IntoResponse, Response};

/// Answers that serde could not write.
static UNWRITTEN: Quiet = Quiet::new();

/// A value that is answered as JSON. A value that serde cannot write is answered 500.
///
/// # Examples
/// ```
/// use weald_http::{IntoResponse, Json};
/// let response = Json(["alder", "birch"]).into_response();
/// assert_eq!(response.headers()["content-type"], "application/json");
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Json<T>(pub T);

impl<T: Serialize> IntoResponse for Json<T> {
    fn into_response(self) -> Response {
        match serde_json::to_vec(&self.0) {
            Ok(bytes) => {
                let mut response = Response::new(bytes);
                let value = HeaderValue::from_static("application/json");
                response.headers_mut().insert(CONTENT_TYPE, value);
                response
            }
            Err(error) => {
                let text = format!("an answer cannot be written as JSON: {error}");
                UNWRITTEN.say(log::Level::Error, &text);
                Response::of(StatusCode::INTERNAL_SERVER_ERROR)
            }
        }
    }
}

/// Why a body could not be read as JSON. Returned by a handler, it is answered with its status and its text.
#[derive(Debug)]
pub struct JsonError(Kind);

#[derive(Debug)]
enum Kind {
    /// The request does not say that its body is JSON.
    Type,
    Read(io::Error),
    Parse(serde_json::Error),
}

impl JsonError {
    /// Returns the status. 415: the request does not say that it is JSON. 400: the body is not JSON. 422: the JSON is
    /// not what was expected. 400, 408 or 413: the body could not be read.
    pub fn status(&self) -> StatusCode {
        match &self.0 {
            Kind::Type => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Kind::Read(error) => {
                let inner = error.get_ref().and_then(|inner| inner.downcast_ref());
                inner.map_or(
                    StatusCode::INTERNAL_SERVER_ERROR,
                    crate::RequestError::status,
                )
            }
            Kind::Parse(error) if error.is_data() => StatusCode::UNPROCESSABLE_ENTITY,
            Kind::Parse(_) => StatusCode::BAD_REQUEST,
        }
    }
}

impl fmt::Display for JsonError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Kind::Type => f.write_str("the content type is not application/json"),
            Kind::Read(error) => fmt::Display::fmt(error, f),
            Kind::Parse(error) => fmt::Display::fmt(error, f),
        }
    }
}

impl Error for JsonError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match &self.0 {
            Kind::Type => None,
            Kind::Read(error) => Some(error),
            Kind::Parse(error) => Some(error),
        }
    }
}

impl IntoResponse for JsonError {
    fn into_response(self) -> Response {
        let status = self.status();
        match self.0 {
            Kind::Read(error) => error.into_response(),
            _ => format!("{self}\n").into_response().status(status),
        }
    }
}

impl Request {
    /// Reads the whole body as JSON. A blocking call.
    ///
    /// # Errors
    /// Tells why the body could not be read. A handler that returns the error answers with the status that fits.
    ///
    /// # Examples
    /// ```
    /// use weald_http::{Json, JsonError, Request};
    /// fn sum(mut request: Request) -> Result<Json<i64>, JsonError> {
    ///     let numbers: Vec<i64> = request.read_json()?;
    ///     Ok(Json(numbers.iter().sum()))
    /// }
    /// ```
    pub fn read_json<T: DeserializeOwned>(&mut self) -> Result<T, JsonError> {
        let kind = self.header(CONTENT_TYPE).unwrap_or_default();
        let kind = kind.split(';').next().unwrap_or_default().trim();
        let kind = kind.to_ascii_lowercase();
        let is_json = kind == "application/json"
            || (kind.starts_with("application/") && kind.ends_with("+json"));
        if !is_json {
            return Err(JsonError(Kind::Type));
        }
        let bytes = self
            .read_bytes()
            .map_err(|error| JsonError(Kind::Read(error)))?;
        serde_json::from_slice(&bytes).map_err(|error| JsonError(Kind::Parse(error)))
    }
}
