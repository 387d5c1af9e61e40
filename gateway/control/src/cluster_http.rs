//! The routes of the admin API about what the cluster is made of:
//!
//! | route | does |
//! |---|---|
//! | `GET`, `POST /api/v1/pools` | list; create |
//! | `PATCH`, `DELETE /api/v1/pools/POOL` | change; remove. POOL is a name or an id |
//! | `PATCH`, `DELETE /api/v1/osds/N` | reweight, tags, noout, out; forget |
//! | `GET /api/v1/tree`, `PUT`, `DELETE /api/v1/tree/NAME` | the placement tree; make or move a place; remove it |
//! | `GET /api/v1/df` | space |
//! | `GET /api/v1/pgs?pool=&osd=&state=`, `GET /api/v1/pgs/POOL.N` | list PGs; explain one |
//! | `GET /api/v1/mons`, `GET /api/v1/gateways` | who runs |
//! | `GET`, `PATCH /api/v1/settings` | show; change |
//! | `POST /api/v1/meta/adopt` | go on with metadata that is older than the data |

use axum::extract::{FromRequestParts, Path, Query, State};
use axum::http::StatusCode;
use axum::http::request::Parts;
use axum::routing::{get, patch, post, put};
use axum::{Json, Router};

use trivet_api::{
    AdminAnswer, AdminCall, AdminError, Adopt, ClusterChange, ClusterQuestion as Question, CreatePool, PatchOsd,
    PatchPool, PatchSettings, PgFilter, SetPlace,
};

use crate::body::JsonBody;
use crate::failure::Failure;
use crate::http::{Answer, Api, OsdNumber};

/// Adds the routes.
pub(super) fn routes(router: Router<Api>) -> Router<Api> {
    router
        .route("/api/v1/pools", get(pool_list).post(pool_create))
        .route("/api/v1/pools/{name}", patch(pool_modify).delete(pool_remove))
        .route("/api/v1/osds/{osd}", patch(osd_modify).delete(osd_remove))
        .route("/api/v1/tree", get(tree))
        .route("/api/v1/tree/{name}", put(tree_set).delete(tree_remove))
        .route("/api/v1/df", get(df))
        .route("/api/v1/pgs", get(pg_list))
        .route("/api/v1/pgs/{name}", get(pg_explain))
        .route("/api/v1/mons", get(mon_list))
        .route("/api/v1/gateways", get(gateway_list))
        .route("/api/v1/settings", get(settings).patch(settings_modify))
        .route("/api/v1/meta/adopt", post(adopt))
}

async fn change(api: &Api, change: ClusterChange) -> Answer {
    api.ask(AdminCall::Change(change)).await
}

async fn question(api: &Api, question: Question) -> Answer {
    api.ask(AdminCall::Ask(question)).await
}

async fn pool_list(State(api): State<Api>) -> Answer {
    question(&api, Question::Pools).await
}

async fn pool_create(
    State(api): State<Api>,
    JsonBody(body): JsonBody<CreatePool>,
) -> Result<(StatusCode, Json<AdminAnswer>), Failure> {
    Ok((StatusCode::CREATED, change(&api, body.change()?).await?))
}

async fn pool_modify(State(api): State<Api>, Name(pool): Name, JsonBody(body): JsonBody<PatchPool>) -> Answer {
    change(&api, body.change(pool)?).await
}

async fn pool_remove(State(api): State<Api>, Name(pool): Name) -> Answer {
    change(&api, ClusterChange::PoolRemove { pool }).await
}

async fn osd_modify(State(api): State<Api>, OsdNumber(osd): OsdNumber, JsonBody(body): JsonBody<PatchOsd>) -> Answer {
    change(&api, body.change(osd)?).await
}

async fn osd_remove(State(api): State<Api>, OsdNumber(osd): OsdNumber) -> Answer {
    change(&api, ClusterChange::OsdRemove { osd }).await
}

async fn tree(State(api): State<Api>) -> Answer {
    question(&api, Question::Tree).await
}

async fn tree_set(State(api): State<Api>, Name(name): Name, JsonBody(body): JsonBody<SetPlace>) -> Answer {
    change(&api, body.change(name)?).await
}

async fn tree_remove(State(api): State<Api>, Name(name): Name) -> Answer {
    change(&api, ClusterChange::TreeRemove { name }).await
}

async fn df(State(api): State<Api>) -> Answer {
    question(&api, Question::Df).await
}

async fn pg_list(State(api): State<Api>, Filter(filter): Filter) -> Answer {
    question(&api, Question::Pgs(filter)).await
}

async fn pg_explain(State(api): State<Api>, Name(pg): Name) -> Answer {
    question(&api, Question::Pg { pg }).await
}

async fn mon_list(State(api): State<Api>) -> Answer {
    question(&api, Question::Monitors).await
}

async fn gateway_list(State(api): State<Api>) -> Answer {
    question(&api, Question::Gateways).await
}

async fn settings(State(api): State<Api>) -> Answer {
    question(&api, Question::Settings).await
}

async fn settings_modify(State(api): State<Api>, JsonBody(body): JsonBody<PatchSettings>) -> Answer {
    change(&api, body.change()?).await
}

async fn adopt(State(api): State<Api>, JsonBody(body): JsonBody<Adopt>) -> Answer {
    change(&api, ClusterChange::Adopt(body)).await
}

/// What the last part of the route names.
struct Name(String);

impl<S: Send + Sync> FromRequestParts<S> for Name {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Name, Failure> {
        let Path(name) = Path::<String>::from_request_parts(parts, state)
            .await
            .map_err(|e| AdminError::invalid(format!("bad name: {}", e.body_text())))?;
        Ok(Name(name))
    }
}

/// Which PGs are wanted.
struct Filter(PgFilter);

impl<S: Send + Sync> FromRequestParts<S> for Filter {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Filter, Failure> {
        let Query(filter) = Query::<PgFilter>::from_request_parts(parts, state)
            .await
            .map_err(|e| AdminError::invalid(format!("bad query: {}", e.body_text())))?;
        Ok(Filter(filter))
    }
}
