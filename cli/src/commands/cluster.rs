//! Commands about what the cluster is made of, as requests.

use trivet_api::{Adopt, CreatePool, PatchOsd, PatchSettings, SetPlace};

use super::{Request, View, get, json};
use crate::args::cluster::{
    CreateArgs, MetaCommand, OsdManage, PgCommand, PoolCommand, Setting, SettingsArgs, SettingsCommand, Switch,
    TagArgs, TagCommand, TreeCommand,
};
use crate::client::encode_path;

/// `trivet pool`.
pub(super) fn pool(command: &PoolCommand) -> anyhow::Result<Request> {
    Ok(match command {
        PoolCommand::Create(args) => create_pool(args)?,
        PoolCommand::Ls => get("pools", "cannot list the pools", View::Pools),
        PoolCommand::Modify(args) => Request {
            body: Some(json(&args.patch())?),
            ..about(
                "PATCH",
                "pools",
                &args.pool,
                format!("cannot change pool {}", args.pool),
                View::Pool,
            )
        },
        PoolCommand::Rm { pool } => about(
            "DELETE",
            "pools",
            pool,
            format!("cannot remove pool {pool}"),
            View::Done(format!("removed pool {pool}")),
        ),
    })
}

/// `trivet meta`.
pub(super) fn meta(command: &MetaCommand) -> anyhow::Result<Request> {
    let MetaCommand::Adopt { without } = command;
    let body = Adopt {
        without: without.clone(),
    };
    Ok(Request {
        method: "POST",
        path: "/api/v1/meta/adopt".to_owned(),
        body: Some(json(&body)?),
        failure: "cannot adopt the metadata".to_owned(),
        view: View::Done("the metadata is adopted; look into /lost+found for images without names".to_owned()),
    })
}

fn create_pool(args: &CreateArgs) -> anyhow::Result<Request> {
    let body = CreatePool {
        name: args.name.clone(),
        replicas: args.replicas,
        min_size: args.min_size,
        pg_count: args.pgs,
        failure_domain: args.failure_domain.clone(),
        root: args.root.clone(),
        osd_tags: args.osd_tags.clone(),
        primary_tags: args.primary_tags.clone(),
    };
    Ok(Request {
        method: "POST",
        path: "/api/v1/pools".to_owned(),
        body: Some(json(&body)?),
        failure: format!("cannot create pool {}", args.name),
        view: View::Pool,
    })
}

/// `trivet osd`, what administrators decide.
pub(super) fn osd(command: &OsdManage) -> anyhow::Result<Request> {
    Ok(match command {
        OsdManage::Tree { command: None } => get("tree", "cannot show the tree", View::Tree),
        OsdManage::Tree { command: Some(command) } => tree(command)?,
        OsdManage::Df => get("osds", "cannot show the space", View::OsdDf),
        OsdManage::Reweight { osd, weight } => {
            let patch = PatchOsd {
                reweight: Some(*weight),
                ..PatchOsd::default()
            };
            modify(*osd, &patch, format!("OSD {osd} has weight {weight}"))?
        }
        OsdManage::Tag(command) => tag(command)?,
        OsdManage::Out { osd } => out(*osd, true, format!("OSD {osd} is out: its PGs move to others"))?,
        OsdManage::In { osd } => out(*osd, false, format!("OSD {osd} is in"))?,
        OsdManage::Noout { osd, switch } => {
            let noout = *switch == Switch::On;
            let patch = PatchOsd {
                noout: Some(noout),
                ..PatchOsd::default()
            };
            let done = match switch {
                Switch::On => format!("OSD {osd} keeps its PGs while it is down"),
                Switch::Off => format!("OSD {osd} loses its PGs when it is down for too long"),
            };
            modify(*osd, &patch, done)?
        }
        OsdManage::Rm { osd } => about(
            "DELETE",
            "osds",
            &osd.to_string(),
            format!("cannot remove OSD {osd}"),
            View::Done(format!("removed OSD {osd}")),
        ),
    })
}

fn out(osd: u32, out: bool, done: String) -> anyhow::Result<Request> {
    let patch = PatchOsd {
        out: Some(out),
        ..PatchOsd::default()
    };
    modify(osd, &patch, done)
}

fn tag(command: &TagCommand) -> anyhow::Result<Request> {
    let (TagCommand::Add(TagArgs { osd, tags }) | TagCommand::Rm(TagArgs { osd, tags })) = command;
    let list = tags.join(", ");
    let (patch, done) = match command {
        TagCommand::Add(_) => {
            let patch = PatchOsd {
                add_tags: tags.clone(),
                ..PatchOsd::default()
            };
            (patch, format!("OSD {osd} has {list}"))
        }
        TagCommand::Rm(_) => {
            let patch = PatchOsd {
                remove_tags: tags.clone(),
                ..PatchOsd::default()
            };
            (patch, format!("OSD {osd} has {list} no more"))
        }
    };
    modify(*osd, &patch, done)
}

fn modify(osd: u32, patch: &PatchOsd, done: String) -> anyhow::Result<Request> {
    let failure = format!("cannot change OSD {osd}");
    Ok(Request {
        body: Some(json(patch)?),
        ..about("PATCH", "osds", &osd.to_string(), failure, View::Done(done))
    })
}

fn tree(command: &TreeCommand) -> anyhow::Result<Request> {
    Ok(match command {
        TreeCommand::Set { name, level, parent } => {
            let place = SetPlace {
                level: level.clone(),
                parent: parent.clone(),
            };
            let place_of = parent
                .as_ref()
                .map_or_else(|| "at the top".to_owned(), |parent| format!("in {parent}"));
            let done = View::Done(format!("{name} is a {level} {place_of}"));
            Request {
                body: Some(json(&place)?),
                ..about("PUT", "tree", name, format!("cannot set {name}"), done)
            }
        }
        TreeCommand::Rm { name } => about(
            "DELETE",
            "tree",
            name,
            format!("cannot remove {name}"),
            View::Done(format!("removed {name}")),
        ),
    })
}

/// `trivet pg`.
pub(super) fn pg(command: &PgCommand) -> Request {
    match command {
        PgCommand::Ls { pool, osd, state } => {
            let mut query = Vec::new();
            query.extend(pool.as_ref().map(|pool| format!("pool={}", encode_path(pool))));
            query.extend(osd.as_ref().map(|osd| format!("osd={osd}")));
            query.extend(state.as_ref().map(|state| format!("state={}", encode_path(state))));
            let route = match query.is_empty() {
                true => "pgs".to_owned(),
                false => format!("pgs?{}", query.join("&")),
            };
            get(&route, "cannot list the PGs", View::Pgs)
        }
        PgCommand::Explain { pg } => about("GET", "pgs", pg, format!("cannot explain PG {pg}"), View::Pg),
    }
}

/// `trivet settings`.
pub(super) fn settings(args: &SettingsArgs) -> anyhow::Result<Request> {
    let Some(SettingsCommand::Set { name, value }) = &args.command else {
        return Ok(get("settings", "cannot show the settings", View::Settings));
    };
    let mut patch = PatchSettings::default();
    match name {
        Setting::OsdOutS => patch.osd_out_s = Some(u64::from(*value)),
        Setting::BackfillFullPct => patch.backfill_full_pct = Some(*value),
        Setting::NoRecovery => {
            anyhow::ensure!(
                *value <= 1,
                "bad no_recovery {value}: give 1 to stop recovery, 0 to let it go on"
            );
            patch.no_recovery = Some(*value == 1);
        }
    }
    Ok(Request {
        method: "PATCH",
        path: "/api/v1/settings".to_owned(),
        body: Some(json(&patch)?),
        failure: "cannot change the settings".to_owned(),
        view: View::Settings,
    })
}

/// A request about one of a kind of things.
fn about(method: &'static str, kind: &str, name: &str, failure: String, view: View) -> Request {
    Request {
        method,
        path: format!("/api/v1/{kind}/{}", encode_path(name)),
        body: None,
        failure,
        view,
    }
}
