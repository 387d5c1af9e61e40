//! What every request must satisfy before a route sees it. A body must say what it is only where a route takes one.
//!
//! A web page that an administrator looks at can make the browser send requests here. Two rules stop it: on a
//! loopback listener the Host must be a loopback name (a rebound DNS name is not), and whatever carries a body
//! must say that it is JSON, which a page of another origin cannot without a preflight that is never answered.

use std::net::IpAddr;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, Method, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use trivet_api::{AdminError, ErrorKind, MAX_PATH};

use crate::failure::Failure;

/// The longest route with its query, bytes: the longest name, every byte of it as `%XX`, and what stands around it.
const MAX_ROUTE: usize = 3 * MAX_PATH + 1024;

/// Lets loopback hosts through, for a listener on loopback.
pub(super) async fn local_host(State(local): State<bool>, request: Request, next: Next) -> Response {
    if local && !names_loopback(request.headers()) {
        let error = AdminError::new(
            ErrorKind::Forbidden,
            "this API listens on loopback: address it as 127.0.0.1, [::1] or localhost",
        );
        return Failure::from(error).into_response();
    }
    next.run(request).await
}

/// Lets through what is no longer than any route.
pub(super) async fn short_route(request: Request, next: Next) -> Response {
    let route = request.uri().path_and_query();
    if route.is_some_and(|route| route.as_str().len() > MAX_ROUTE) {
        let error = AdminError::new(
            ErrorKind::TooLong,
            format!("the route is longer than {MAX_ROUTE} bytes"),
        );
        return Failure::from(error).into_response();
    }
    next.run(request).await
}

/// Lets POST, PATCH and PUT through only with a JSON content type, even without a body.
pub(super) async fn json_only(request: Request, next: Next) -> Response {
    let carries = matches!(*request.method(), Method::POST | Method::PATCH | Method::PUT);
    if carries && !is_json(request.headers()) {
        let what = "send JSON, and say so with the header 'Content-Type: application/json' (of curl: -H)";
        let error = AdminError::new(ErrorKind::MediaType, what);
        return Failure::from(error).into_response();
    }
    next.run(request).await
}

fn is_json(headers: &HeaderMap) -> bool {
    let value = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let media = value.and_then(|value| value.split(';').next());
    media.is_some_and(|media| media.trim().eq_ignore_ascii_case("application/json"))
}

fn names_loopback(headers: &HeaderMap) -> bool {
    let mut hosts = headers.get_all(header::HOST).iter();
    let (Some(host), None) = (hosts.next(), hosts.next()) else {
        return false;
    };
    host.to_str().is_ok_and(is_loopback)
}

fn is_loopback(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or(rest),
        None => host.split(':').next().unwrap_or(host),
    };
    name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_names() {
        for host in [
            "localhost",
            "LocalHost:8090",
            "127.0.0.1:8090",
            "127.1.2.3",
            "[::1]:80",
            "[::1]",
        ] {
            assert!(is_loopback(host), "{host}");
        }
        for host in [
            "",
            "example.org",
            "localhost.example.org:8090",
            "10.0.0.1",
            "[::2]",
            "127.0.0.1.example.org",
            "0.0.0.0",
        ] {
            assert!(!is_loopback(host), "{host}");
        }
    }
}
