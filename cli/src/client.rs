//! The HTTP side of the CLI: one request, one answer, every failure one line that names the server.

use std::env;
use std::time::Duration;

use anyhow::{Context, anyhow};
use trivet_api::{AdminError, ErrorBody, ErrorKind};
use ureq::Agent;
use ureq::http::{Request, StatusCode};

/// Where the API is when nobody says.
const DEFAULT_API: &str = "http://127.0.0.1:8090";
/// The variable that says it.
const API_VARIABLE: &str = "TRIVET_API";
/// A whole request; longer than the 30 s in which the server ends every call.
const TIMEOUT: Duration = Duration::from_secs(40);
/// The largest answer, bytes: a list of about half a million images.
const ANSWER_LIMIT: u64 = 256 << 20;

/// A client of one admin API.
pub struct Client {
    agent: Agent,
    base: String,
}

impl Client {
    /// For the API at `api`, else at `$TRIVET_API`, else on this machine.
    pub fn new(api: Option<String>) -> anyhow::Result<Client> {
        let given = api.or_else(|| env::var(API_VARIABLE).ok().filter(|url| !url.is_empty()));
        let base = given.unwrap_or_else(|| DEFAULT_API.to_owned());
        if !base.starts_with("http://") {
            let why = format!("bad API address {base:?}: write it like {DEFAULT_API}");
            return Err(AdminError::invalid(why).into());
        }
        // No proxy and no redirects: the address is meant as it stands.
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .proxy(None)
            .timeout_global(Some(TIMEOUT))
            .build();
        let base = base.trim_end_matches('/').to_owned();
        Ok(Client {
            agent: config.new_agent(),
            base,
        })
    }

    /// Sends a request to `path`, with JSON when `body` is some; the JSON that came back.
    pub fn send(&self, method: &str, path: &str, body: Option<String>) -> anyhow::Result<String> {
        let url = format!("{}{path}", self.base);
        let request = Request::builder().method(method).uri(&url);
        let request = request.header("content-type", "application/json");
        let answer = match body {
            Some(body) => self.agent.run(request.body(body)?),
            None => self.agent.run(request.body(())?),
        };
        let mut answer = answer.map_err(|error| self.unreachable(&error))?;
        let status = answer.status();
        let text = answer.body_mut().with_config().limit(ANSWER_LIMIT).read_to_string();
        let text = text.with_context(|| format!("no whole answer from {}", self.base))?;
        if status.is_success() {
            Ok(text)
        } else {
            Err(self.refused(status, &text))
        }
    }

    fn unreachable(&self, error: &ureq::Error) -> anyhow::Error {
        let base = &self.base;
        let kind = match error {
            // It may have been carried out.
            ureq::Error::Timeout(_) => ErrorKind::Timeout,
            _ => ErrorKind::Unavailable,
        };
        let why = format!(
            "no answer from the admin API at {base}: {error}; is `trivet up` running? --api or {API_VARIABLE} name another address"
        );
        AdminError::new(kind, why).into()
    }

    fn refused(&self, status: StatusCode, text: &str) -> anyhow::Error {
        match serde_json::from_str::<ErrorBody>(text) {
            Ok(body) => body.error.into(),
            Err(_) => anyhow!(
                "{} answers with {status}, and not like Trivet's admin API; check --api and {API_VARIABLE}",
                self.base
            ),
        }
    }
}

/// An image's path as part of a URL: slashes stay, whatever is not plain is percent-encoded (RFC 3986 section 2.3).
pub fn encode_path(path: &str) -> String {
    let mut encoded = String::with_capacity(path.len());
    for byte in path.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'/' => {
                encoded.push(char::from(byte));
            }
            _ => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_encoded() {
        for (path, encoded) in [
            ("vms/web-01_a.vmdk~", "vms/web-01_a.vmdk~"),
            ("a b?c#d%e", "a%20b%3Fc%23d%25e"),
            ("ü\n", "%C3%BC%0A"),
        ] {
            assert_eq!(encode_path(path), encoded);
        }
    }

    #[test]
    fn only_http_addresses_are_taken() {
        for api in ["127.0.0.1:8090", "https://127.0.0.1:8090", "ftp://x"] {
            assert!(Client::new(Some(api.into())).is_err(), "{api}");
        }
        assert_eq!(Client::new(Some("http://h:1/".into())).unwrap().base, "http://h:1");
    }
}
