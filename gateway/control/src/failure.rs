//! A failed call as the answer to an HTTP request.

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use trivet_api::{AdminError, ErrorBody, ErrorKind};

/// Why a request failed; answered as `{"error": {"kind", "message"}}` with the status of its kind.
#[derive(Debug)]
pub(crate) struct Failure(AdminError);

impl From<AdminError> for Failure {
    fn from(error: AdminError) -> Failure {
        Failure(error)
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        (status(self.0.kind), Json(ErrorBody { error: self.0 })).into_response()
    }
}

fn status(kind: ErrorKind) -> StatusCode {
    match kind {
        ErrorKind::NotFound => StatusCode::NOT_FOUND,
        ErrorKind::Exists | ErrorKind::Conflict => StatusCode::CONFLICT,
        ErrorKind::Invalid => StatusCode::BAD_REQUEST,
        ErrorKind::NoSpace => StatusCode::INSUFFICIENT_STORAGE,
        ErrorKind::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        ErrorKind::Timeout => StatusCode::GATEWAY_TIMEOUT,
        ErrorKind::Forbidden => StatusCode::FORBIDDEN,
        ErrorKind::Method => StatusCode::METHOD_NOT_ALLOWED,
        ErrorKind::MediaType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
        ErrorKind::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        ErrorKind::TooLong => StatusCode::URI_TOO_LONG,
        ErrorKind::Internal => StatusCode::INTERNAL_SERVER_ERROR,
    }
}
