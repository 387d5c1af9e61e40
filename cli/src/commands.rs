//! What each command asks the admin API, and how its answer is shown.

mod cluster;

use anyhow::Context;
use serde::Serialize;
use serde::de::DeserializeOwned;
use trivet_api::{CreateImage, PatchImage};

use crate::args::{Ask, ImageCommand, OsdCommand};
use crate::client::{Client, encode_path};
use crate::{render, scrub, terminal};

/// What a command that was carried out has to say.
#[derive(Debug)]
pub struct Answer {
    /// Goes to stdout.
    pub text: String,
    /// What is wrong nevertheless: goes to stderr, and decides the exit code.
    pub problem: Option<String>,
}

/// Asks, and returns what there is to say.
pub fn run(client: &Client, ask: &Ask, json: bool) -> anyhow::Result<Answer> {
    if let Ask::Scrub { wait: true } = ask {
        return scrub::wait(client, json);
    }
    let text = once(client, ask, json)?;
    Ok(Answer { text, problem: None })
}

/// One request and its answer.
fn once(client: &Client, ask: &Ask, json: bool) -> anyhow::Result<String> {
    let request = plan(ask)?;
    let answer = client.send(request.method, &request.path, request.body);
    let mut answer = answer.context(request.failure)?;
    if json {
        answer.push('\n');
        return Ok(answer);
    }
    request.view.show(&answer)
}

/// A command as a request.
struct Request {
    method: &'static str,
    path: String,
    body: Option<String>,
    /// How the error line begins.
    failure: String,
    view: View,
}

/// How an answer is shown to people.
enum View {
    Image,
    Images,
    Status,
    Osds,
    OsdDf,
    Tree,
    Df,
    Pool,
    Pools,
    Pg,
    Pgs,
    Monitors,
    Gateways,
    Settings,
    Scrub,
    Done(String),
}

impl View {
    fn show(self, answer: &str) -> anyhow::Result<String> {
        Ok(match self {
            View::Image => render::image(&read(answer)?),
            View::Images => render::images(&read(answer)?, terminal::columns()),
            View::Status => render::status(&read(answer)?),
            View::Osds => render::osds(&read(answer)?),
            View::OsdDf => render::osd_df(&read(answer)?),
            View::Tree => render::tree(&read(answer)?),
            View::Df => render::df(&read(answer)?),
            View::Pool => render::pool(&read(answer)?),
            View::Pools => render::pools(&read(answer)?),
            View::Pg => render::pg(&read(answer)?),
            View::Pgs => render::pgs(&read(answer)?),
            View::Monitors => render::monitors(&read(answer)?),
            View::Gateways => render::gateways(&read(answer)?),
            View::Settings => render::settings(&read(answer)?),
            View::Scrub => render::scrub_asked(&read(answer)?),
            View::Done(text) => render::one_line(&text) + "\n",
        })
    }
}

/// The answer as what it should be.
pub fn read<T: DeserializeOwned>(answer: &str) -> anyhow::Result<T> {
    serde_json::from_str(answer)
        .context("the admin API's answer is not understood; is it of the same version as this CLI?")
}

fn plan(ask: &Ask) -> anyhow::Result<Request> {
    match ask {
        Ask::Image(command) => image(command),
        Ask::Status => Ok(get("status", "cannot get the status", View::Status)),
        Ask::Scrub { .. } => Ok(Request {
            method: "POST",
            path: "/api/v1/scrub".to_owned(),
            body: Some("{}".to_owned()),
            failure: "cannot ask for a scrub".to_owned(),
            view: View::Scrub,
        }),
        Ask::Osd(OsdCommand::Ls) => Ok(get("osds", "cannot list the OSDs", View::Osds)),
        Ask::Osd(OsdCommand::Stop { osd }) => Ok(switch(*osd, "stop", "stopped")),
        Ask::Osd(OsdCommand::Start { osd }) => Ok(switch(*osd, "start", "started")),
        Ask::Osd(OsdCommand::Manage(command)) => cluster::osd(command),
        Ask::Df => Ok(get("df", "cannot show the space", View::Df)),
        Ask::Pool(command) => cluster::pool(command),
        Ask::Pg(command) => Ok(cluster::pg(command)),
        Ask::Mons => Ok(get("mons", "cannot list the monitors", View::Monitors)),
        Ask::Gateways => Ok(get("gateways", "cannot list the gateways", View::Gateways)),
        Ask::Settings(args) => cluster::settings(args),
        Ask::Meta(command) => cluster::meta(command),
    }
}

fn get(route: &str, failure: &str, view: View) -> Request {
    Request {
        method: "GET",
        path: format!("/api/v1/{route}"),
        body: None,
        failure: failure.to_owned(),
        view,
    }
}

fn switch(osd: u32, verb: &str, done: &str) -> Request {
    Request {
        method: "POST",
        path: format!("/api/v1/osds/{osd}/{verb}"),
        body: Some("{}".to_owned()),
        failure: format!("cannot {verb} OSD {osd}"),
        view: View::Done(format!("OSD {osd} is {done}")),
    }
}

fn image(command: &ImageCommand) -> anyhow::Result<Request> {
    Ok(match command {
        ImageCommand::Create { name, size, pool } => Request {
            method: "POST",
            path: "/api/v1/images".to_owned(),
            body: Some(json(&CreateImage {
                path: name.clone(),
                size: *size,
                pool: pool.clone(),
            })?),
            failure: format!("cannot create image {name}"),
            view: View::Image,
        },
        ImageCommand::Ls => get("images", "cannot list the images", View::Images),
        ImageCommand::Info { name } => one("GET", name, "show", View::Image),
        ImageCommand::Rm { name } => one("DELETE", name, "remove", View::Done(format!("removed {name}"))),
        ImageCommand::Resize { name, size } => {
            let patch = PatchImage {
                size: Some(*size),
                path: None,
            };
            Request {
                body: Some(json(&patch)?),
                ..one("PATCH", name, "resize", View::Image)
            }
        }
        ImageCommand::Rename { old, new } => {
            let patch = PatchImage {
                size: None,
                path: Some(new.clone()),
            };
            Request {
                body: Some(json(&patch)?),
                ..one("PATCH", old, "rename", View::Image)
            }
        }
    })
}

/// A request about the image `name`.
fn one(method: &'static str, name: &str, verb: &str, view: View) -> Request {
    Request {
        method,
        path: format!("/api/v1/images/{}", encode_path(name)),
        body: None,
        failure: format!("cannot {verb} image {name}"),
        view,
    }
}

fn json(body: &impl Serialize) -> anyhow::Result<String> {
    serde_json::to_string(body).context("cannot write the request as JSON")
}
