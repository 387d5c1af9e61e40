//! The JSON bodies of requests: objects, and what is wrong with one in the words of the API.

use axum::body::Bytes;
use axum::extract::{FromRequest, Request};
use axum::http::StatusCode;
use serde::de::DeserializeOwned;
use trivet_api::{AdminError, ErrorKind};

use crate::failure::Failure;

/// The largest, bytes.
pub(super) const LIMIT: usize = 1 << 20;

/// What the parser expects, as the API calls it.
const WORDS: [(&str, &str); 6] = [
    ("expected u64", "expected a whole number from 0 on"),
    ("expected u32", "expected a whole number from 0 to 4294967295"),
    ("expected f64", "expected a number"),
    ("expected a sequence", "expected a list"),
    ("invalid type: sequence", "invalid type: list"),
    ("invalid type: map", "invalid type: object"),
];

/// A body that is an object and says what `T` is.
pub(super) struct JsonBody<T>(pub(super) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for JsonBody<T> {
    type Rejection = Failure;

    async fn from_request(request: Request, state: &S) -> Result<JsonBody<T>, Failure> {
        let bytes = Bytes::from_request(request, state).await.map_err(|rejection| {
            if rejection.status() == StatusCode::PAYLOAD_TOO_LARGE {
                AdminError::new(ErrorKind::TooLarge, format!("the body is larger than {LIMIT} bytes"))
            } else {
                AdminError::invalid(rejection.body_text())
            }
        })?;
        Ok(JsonBody(read(&bytes)?))
    }
}

fn read<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, AdminError> {
    // A list would do for the parser, too, if it had the fields in their order.
    if !bytes.trim_ascii_start().starts_with(b"{") {
        return Err(AdminError::invalid(
            "the body must be a JSON object, like {\"size\": 1073741824}",
        ));
    }
    let mut json = serde_json::Deserializer::from_slice(bytes);
    let value = serde_path_to_error::deserialize(&mut json).map_err(|error| bad(&error.to_string()))?;
    json.end().map_err(|error| bad(&error.to_string()))?;
    Ok(value)
}

fn bad(why: &str) -> AdminError {
    let why = WORDS
        .iter()
        .fold(why.to_owned(), |why, (theirs, ours)| why.replace(theirs, ours));
    AdminError::invalid(format!("bad JSON body: {why}"))
}

#[cfg(test)]
mod tests {
    use trivet_api::{CreateImage, CreatePool, PatchOsd};

    use super::*;

    fn why<T: DeserializeOwned>(body: &str) -> String {
        read::<T>(body.as_bytes()).err().unwrap().message
    }

    #[test]
    fn an_object_is_read() {
        let image: CreateImage = read(b" \n{\"size\": 512, \"path\": \"a\"} ").unwrap();
        assert_eq!((image.path.as_str(), image.size), ("a", 512));
    }

    #[test]
    fn anything_else_is_no_body() {
        for body in ["", " ", "null", "1", "\"a\"", "[\"a\", 512, null]", "size=512"] {
            let why = why::<CreateImage>(body);
            assert!(why.contains("must be a JSON object"), "{body}: {why}");
        }
    }

    #[test]
    fn what_is_wrong_is_said_in_the_words_of_the_api() {
        for (body, said) in [
            (r#"{"path": "a"}"#, "missing field `size`"),
            (
                r#"{"path": "a", "sise": 1}"#,
                "unknown field `sise`, expected one of `path`",
            ),
            (
                r#"{"path": "a", "size": "1G"}"#,
                "size: invalid type: string \"1G\", expected a whole number",
            ),
            (
                r#"{"path": "a", "size": -1}"#,
                "size: invalid value: integer `-1`, expected a whole number",
            ),
            (
                r#"{"path": ["a"], "size": 1}"#,
                "path: invalid type: list, expected a string",
            ),
            (
                r#"{"path": {}, "size": 1}"#,
                "path: invalid type: object, expected a string",
            ),
            (r#"{"path": "a", "path": "b", "size": 1}"#, "duplicate field `path`"),
            (r#"{"path": "a", "size": 1} x"#, "trailing characters"),
            (r#"{"path": "a""#, "EOF while parsing"),
        ] {
            let why = why::<CreateImage>(body);
            assert!(why.contains(said), "{body}: {why}");
        }
        for (body, said) in [
            (r#"{"name": "p", "replicas": 5000000000}"#, "replicas: invalid value"),
            (
                r#"{"name": "p", "replicas": 2, "osd_tags": "a"}"#,
                "osd_tags: invalid type: string \"a\", expected a list",
            ),
            (
                r#"{"name": "p", "replicas": 2, "osd_tags": [1]}"#,
                "osd_tags[0]: invalid type",
            ),
        ] {
            let why = why::<CreatePool>(body);
            assert!(why.contains(said), "{body}: {why}");
        }
        let why = why::<PatchOsd>(r#"{"reweight": "half"}"#);
        assert!(
            why.contains("reweight: invalid type: string \"half\", expected a number"),
            "{why}"
        );
    }

    #[test]
    fn no_type_of_the_program_is_named() {
        let bodies = [
            "[]",
            "{}",
            r#"{"path": 1}"#,
            r#"{"path": "a", "size": 1.5}"#,
            r#"{"path": "a", "size": null}"#,
        ];
        for body in bodies {
            let why = why::<CreateImage>(body);
            let foreign = ["struct", "CreateImage", "u64", "elements", "sequence", "map"];
            assert!(!foreign.iter().any(|word| why.contains(word)), "{body}: {why}");
        }
    }
}
