//! The routes of the admin API (axum), JSON in and out:
//!
//! | route | does |
//! |---|---|
//! | `GET /api/v1/images` | list |
//! | `POST /api/v1/images` `{"path", "size", "pool"}` | create; without `pool` in the one with the lowest id |
//! | `GET /api/v1/images/PATH` | show; slashes in PATH stay slashes |
//! | `PATCH /api/v1/images/PATH` `{"size"}` or `{"path"}` | resize or rename |
//! | `DELETE /api/v1/images/PATH` | remove |
//! | `GET /api/v1/status`, `GET /api/v1/osds` | show |
//! | `POST /api/v1/osds/N/stop`, `.../start` | stop, start |
//! | `POST /api/v1/scrub` | ask for a scrub |
//! | `GET /healthz` | 200 `ok` while this gateway serves what is open |
//! | `GET /readyz` | 200 `ok` while it also opens images for new clients |
//! | `GET /metrics` | metrics, as text of Prometheus or of OpenMetrics |
//!
//! What the cluster is made of has its routes in `cluster_http`. Every failure is `{"error": {"kind", "message"}}`. Who
//! may ask at all is decided in `guard`.

use std::future::Future;
use std::io;
use std::time::Duration;

use axum::extract::{DefaultBodyLimit, FromRequestParts, Path, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::{from_fn, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use trivet_api::{AdminAnswer, AdminCall, AdminError, CreateImage, ErrorKind, GatewayStatus, PatchImage, clean_path};

use crate::administration::Administration;
use crate::body::{self, JsonBody};
use crate::exposition::Format;
use crate::failure::Failure;
use crate::listener::Bounded;
use crate::{cluster_http, guard};

/// How long requests under way may take once the gateway is told to stop.
const GRACE: Duration = Duration::from_secs(2);

/// Serves the API on `listener` until `shutdown` is over, then finishes what is under way, for 2 s at most.
///
/// # Errors
/// When the listener has no local address.
pub async fn serve(
    listener: TcpListener,
    administration: Administration,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()> {
    let local = listener.local_addr()?.ip().is_loopback();
    let (told, stopping) = oneshot::channel::<()>();
    let signal = async move {
        shutdown.await;
        drop(told);
    };
    let server = axum::serve(Bounded::new(listener), router(administration, local));
    let patience = async {
        // The sender is only ever dropped: an error is the signal.
        let _ = stopping.await;
        tokio::time::sleep(GRACE).await;
    };
    tokio::select! {
        result = server.with_graceful_shutdown(signal) => result,
        () = patience => Ok(()),
    }
}

/// What routes work with.
#[derive(Clone)]
pub(super) struct Api {
    administration: Administration,
}

fn router(administration: Administration, local: bool) -> Router {
    let router = Router::new()
        .route("/api/v1/images", get(image_list).post(image_create))
        .route(
            "/api/v1/images/{*path}",
            get(image_info).patch(image_patch).delete(image_remove),
        )
        .route("/api/v1/status", get(status))
        .route("/api/v1/osds", get(osd_list))
        .route("/api/v1/osds/{osd}/stop", post(osd_stop))
        .route("/api/v1/osds/{osd}/start", post(osd_start))
        .route("/api/v1/scrub", post(scrub))
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics_text));
    cluster_http::routes(router)
        // What there is no route or method for does not fail for its body: the fallbacks come after this.
        .route_layer(from_fn(guard::json_only))
        .fallback(no_route)
        .method_not_allowed_fallback(no_method)
        .layer(DefaultBodyLimit::max(body::LIMIT))
        .layer(from_fn(guard::short_route))
        .layer(from_fn_with_state(local, guard::local_host))
        .with_state(Api { administration })
}

/// What a route answers.
pub(super) type Answer = Result<Json<AdminAnswer>, Failure>;

impl Api {
    pub(super) async fn ask(&self, call: AdminCall) -> Answer {
        Ok(Json(self.administration.call(call).await?))
    }

    /// What a probe is told: about this gateway, not about the cluster, which others could not serve better.
    async fn judged(&self, good: fn(&GatewayStatus) -> bool) -> Response {
        let why = match self.administration.probe().await {
            Ok(gateway) if good(&gateway) => return "ok".into_response(),
            Ok(_) => self.reasons().await,
            Err(error) => error.message,
        };
        (StatusCode::SERVICE_UNAVAILABLE, why).into_response()
    }

    async fn reasons(&self) -> String {
        match self.administration.call(AdminCall::Status).await {
            Ok(AdminAnswer::Status(status)) => status.reasons.join("\n"),
            Ok(_) => String::new(),
            Err(error) => error.message,
        }
    }
}

async fn image_list(State(api): State<Api>) -> Answer {
    api.ask(AdminCall::ImageList).await
}

async fn image_create(
    State(api): State<Api>,
    JsonBody(body): JsonBody<CreateImage>,
) -> Result<(StatusCode, Json<AdminAnswer>), Failure> {
    Ok((StatusCode::CREATED, api.ask(body.call()?).await?))
}

async fn image_info(State(api): State<Api>, ImagePath(path): ImagePath) -> Answer {
    api.ask(AdminCall::ImageInfo { path }).await
}

async fn image_patch(
    State(api): State<Api>,
    ImagePath(path): ImagePath,
    JsonBody(patch): JsonBody<PatchImage>,
) -> Answer {
    api.ask(patch.call(path)?).await
}

async fn image_remove(State(api): State<Api>, ImagePath(path): ImagePath) -> Answer {
    api.ask(AdminCall::ImageRemove { path }).await
}

async fn status(State(api): State<Api>) -> Answer {
    api.ask(AdminCall::Status).await
}

async fn osd_list(State(api): State<Api>) -> Answer {
    api.ask(AdminCall::OsdList).await
}

async fn osd_stop(State(api): State<Api>, OsdNumber(osd): OsdNumber) -> Answer {
    api.ask(AdminCall::OsdStop { osd }).await
}

async fn osd_start(State(api): State<Api>, OsdNumber(osd): OsdNumber) -> Answer {
    api.ask(AdminCall::OsdStart { osd }).await
}

async fn scrub(State(api): State<Api>) -> Answer {
    api.ask(AdminCall::Scrub).await
}

async fn healthz(State(api): State<Api>) -> Response {
    api.judged(|gateway| gateway.serves).await
}

async fn readyz(State(api): State<Api>) -> Response {
    api.judged(|gateway| gateway.opens).await
}

async fn metrics_text(State(api): State<Api>, headers: HeaderMap) -> Result<Response, Failure> {
    let format = Format::wanted(&headers);
    let text = api.administration.scrape(format).await?;
    Ok(([(header::CONTENT_TYPE, format.content_type())], text).into_response())
}

async fn no_route() -> Failure {
    AdminError::new(ErrorKind::NotFound, "no such route; the API is under /api/v1").into()
}

async fn no_method() -> Failure {
    AdminError::new(ErrorKind::Method, "the route does not know this method").into()
}

/// The image that the route names, valid.
struct ImagePath(String);

impl<S: Send + Sync> FromRequestParts<S> for ImagePath {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<ImagePath, Failure> {
        let path = Path::<String>::from_request_parts(parts, state).await;
        let Path(path) = path.map_err(|e| AdminError::invalid(format!("bad image name: {}", e.body_text())))?;
        Ok(ImagePath(clean_path(&path)?))
    }
}

/// The OSD that the route names.
pub(super) struct OsdNumber(pub(super) u32);

impl<S: Send + Sync> FromRequestParts<S> for OsdNumber {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<OsdNumber, Failure> {
        match Path::<u32>::from_request_parts(parts, state).await {
            Ok(Path(osd)) => Ok(OsdNumber(osd)),
            Err(_) => Err(AdminError::invalid("an OSD is named by its number, as in the list of OSDs").into()),
        }
    }
}
