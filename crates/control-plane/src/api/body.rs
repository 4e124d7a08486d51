//! Reading bodies and queries, with errors that name the field.

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::rejection::QueryRejection;
use axum::extract::{FromRequest, FromRequestParts, Path, Query, Request};
use axum::http::header::CONTENT_TYPE;
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode};
use axum::response::IntoResponse;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::de::DeserializeOwned;
use serde_json::Value;
use sortie_protocol::polling::MAX_POLL_BYTES;
use tokio::time::timeout;

use super::App;
use super::problem::ApiError;

/// How alike two names must be for one to be suggested for the other, from 0 to 1.
const ALIKE: f64 = 0.6;

/// A body of a client's. Fields that it should not have are errors.
#[derive(Debug)]
pub struct Strict<T>(pub T);

/// A body of an agent's. Fields that are not known yet are ignored, as everywhere in the protocol.
pub struct Lenient<T>(pub T);

/// The parameters of a query. Unknown ones are errors where their type says so.
#[derive(Debug)]
pub struct Parameters<T>(pub T);

impl<T: DeserializeOwned + JsonSchema> FromRequest<Arc<App>> for Strict<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, app: &Arc<App>) -> Result<Self, ApiError> {
        let bytes = read(request, app).await?;
        // Where every field has a default, an absent body is an empty object.
        parse_strictly(&bytes).map(Self)
    }
}

impl<T: DeserializeOwned> FromRequest<Arc<App>> for Lenient<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, app: &Arc<App>) -> Result<Self, ApiError> {
        let bytes = read(request, app).await?;
        check_object(&bytes)?;
        let mut json = serde_json::Deserializer::from_slice(&bytes);
        serde_path_to_error::deserialize(&mut json).map(Self).map_err(|error| not_readable(&error))
    }
}

impl<T: DeserializeOwned> FromRequestParts<Arc<App>> for Parameters<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, ApiError> {
        let query: Result<Query<T>, QueryRejection> = Query::from_request_parts(parts, app).await;
        match query {
            Ok(Query(parameters)) => Ok(Self(parameters)),
            Err(rejection) => Err(ApiError::invalid_parameter(rejection.body_text())),
        }
    }
}

/// The identifier in the address.
#[derive(Debug)]
pub struct Id(pub String);

impl FromRequestParts<Arc<App>> for Id {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, ApiError> {
        match Path::from_request_parts(parts, app).await {
            Ok(Path(id)) => Ok(Self(id)),
            Err(rejection) => Err(ApiError::invalid_parameter(rejection.body_text())),
        }
    }
}

async fn read(request: Request, app: &Arc<App>) -> Result<Bytes, ApiError> {
    check_content_type(request.headers())?;
    let read = timeout(app.times.request_body, Bytes::from_request(request, app)).await;
    let read = read.map_err(|_| {
        ApiError::new(StatusCode::REQUEST_TIMEOUT, "body_timed_out", "The body did not arrive in time")
    })?;
    read.map_err(|rejection| match rejection.into_response().status() {
        StatusCode::PAYLOAD_TOO_LARGE => {
            ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", "The body is too large").detail(
                format!(
                    "a request holds {} bytes at the most, and one with an agent's messages {MAX_POLL_BYTES}",
                    app.limits.body_bytes
                ),
            )
        }
        _ => ApiError::new(StatusCode::BAD_REQUEST, "body_broken", "The body broke off"),
    })
}

fn check_content_type(headers: &HeaderMap) -> Result<(), ApiError> {
    let Some(given) = headers.get(CONTENT_TYPE) else { return Ok(()) };
    let media_type = given.to_str().unwrap_or_default().split(';').next().unwrap_or_default().trim();
    if media_type.eq_ignore_ascii_case("application/json") {
        return Ok(());
    }
    Err(ApiError::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "json_required", "The body is JSON")
        .detail("send it with `Content-Type: application/json`".to_owned()))
}

/// Turns away what is no object: a list of values would be read as the fields of one in their order.
fn check_object(bytes: &[u8]) -> Result<(), ApiError> {
    if bytes.trim_ascii_start().starts_with(b"{") {
        return Ok(());
    }
    Err(ApiError::new(StatusCode::BAD_REQUEST, "invalid_json", "The body is not a JSON object")
        .detail("it begins with `{`".to_owned()))
}

/// Reads a document, and names the first field that is not one or that has a wrong value.
///
/// # Errors
/// 400 with the field.
pub fn parse_strictly<T: DeserializeOwned + JsonSchema>(bytes: &[u8]) -> Result<T, ApiError> {
    let bytes = if bytes.iter().all(u8::is_ascii_whitespace) { b"{}" } else { bytes };
    check_object(bytes)?;
    let mut unknown: Option<String> = None;
    let mut track = serde_path_to_error::Track::new();
    let mut json = serde_json::Deserializer::from_slice(bytes);
    let tracked = serde_path_to_error::Deserializer::new(&mut json, &mut track);
    let parsed = serde_ignored::deserialize(tracked, |path| {
        unknown.get_or_insert_with(|| path.to_string());
    });
    let value: T = match parsed {
        Ok(value) => value,
        // A misspelled field is the better explanation for one that is missing.
        Err(error) => {
            let error = serde_path_to_error::Error::new(track.path(), error);
            return Err(match unknown {
                Some(path) if error.inner().is_data() => unknown_field::<T>(&path),
                _ => not_readable(&error),
            });
        }
    };
    json.end().map_err(|error| {
        ApiError::new(StatusCode::BAD_REQUEST, "invalid_json", "The body is not one JSON document")
            .detail(error.to_string())
    })?;
    match unknown {
        None => Ok(value),
        Some(path) => Err(unknown_field::<T>(&path)),
    }
}

fn not_readable(error: &serde_path_to_error::Error<serde_json::Error>) -> ApiError {
    let (path, inner) = (error.path().to_string(), error.inner());
    if inner.is_data() {
        let detail = if path == "." { inner.to_string() } else { format!("`{path}`: {inner}") };
        return ApiError::new(StatusCode::BAD_REQUEST, "invalid_field", "A field is out of form")
            .detail(detail);
    }
    ApiError::new(StatusCode::BAD_REQUEST, "invalid_json", "The body is not JSON").detail(inner.to_string())
}

fn unknown_field<T: JsonSchema>(path: &str) -> ApiError {
    let shown: String = path.chars().filter(|c| !c.is_control()).take(200).collect();
    let name = shown.rsplit('.').next().unwrap_or(&shown);
    let nearest = field_names::<T>()
        .into_iter()
        .map(|known| (strsim::jaro_winkler(name, &known), known))
        .filter(|(alike, _)| *alike >= ALIKE)
        .max_by(|(a, _), (b, _)| a.total_cmp(b));
    let detail = match nearest {
        Some((_, known)) => format!("`{shown}` is not a field; did you mean `{known}`?"),
        None => format!("`{shown}` is not a field"),
    };
    ApiError::new(StatusCode::BAD_REQUEST, "unknown_field", "The body has a field that is none")
        .detail(detail)
}

/// Every name of a field in a type's schema, nested ones included.
fn field_names<T: JsonSchema>() -> BTreeSet<String> {
    let schema: Schema = SchemaGenerator::default().into_root_schema_for::<T>();
    let mut names = BTreeSet::new();
    collect_names(&schema.to_value(), &mut names);
    names
}

fn collect_names(schema: &Value, names: &mut BTreeSet<String>) {
    match schema {
        Value::Object(fields) => {
            if let Some(Value::Object(properties)) = fields.get("properties") {
                names.extend(properties.keys().cloned());
            }
            fields.values().for_each(|value| collect_names(value, names));
        }
        Value::Array(items) => items.iter().for_each(|value| collect_names(value, names)),
        _ => {}
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use sortie_protocol::task::TaskSpec;

    fn complaint(json: &str) -> String {
        format!("{:?}", parse_strictly::<TaskSpec>(json.as_bytes()).unwrap_err())
    }

    #[test]
    fn errors_name_the_field_and_the_nearest_right_one() {
        let task = |rest: &str| format!(r#"{{"kind":"connection-test","url":"https://a"{rest}}}"#);
        assert!(complaint(&task(r#","selctor":{}"#)).contains("did you mean `selector`?"));
        assert!(complaint(&task(r#","selector":{"al":[]}"#)).contains("`selector.al` is not a field"));
        assert!(complaint(&task(r#","run_seconds":"soon""#)).contains("`run_seconds`"));
        assert!(complaint(r#"{"knd":"clone"}"#).contains("did you mean `kind`?"));
        assert!(complaint(r#"{"kind":"fly"}"#).contains("`kind`"));
        assert!(complaint("[]").contains("not a JSON object"));
        assert!(complaint(r#" ["connection-test","https://a"]"#).contains("invalid_json"));
        assert!(complaint("{").contains("invalid_json"));
        assert!(complaint(&(task("") + "{}")).contains("invalid_json"));
    }
}
