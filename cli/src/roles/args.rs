//! The command lines of the roles that run as processes of their own.

use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::Context;
use clap::{Args, Subcommand};
use trivet_meta::MetaUrl;

use crate::args::front::{FrontArgs, address};
use crate::args::{OsdCommand, osd};
use crate::size::parse_size;

/// `trivet osd`: an OSD's process, or a question about OSDs.
#[derive(Debug, Subcommand)]
pub enum OsdRole {
    /// Make a disk or file an OSD of the cluster; prints its number
    Format(FormatArgs),
    /// Run the OSD on a disk
    Run(RunArgs),
    /// What goes to the admin API.
    #[command(flatten)]
    Ask(OsdCommand),
}

/// Of `trivet osd format`.
#[derive(Debug, Args)]
pub struct FormatArgs {
    /// A block device, or a file, which is made if it is not there
    #[arg(value_name = "DISK")]
    pub disk: PathBuf,
    #[command(flatten)]
    pub meta: Meta,
    /// Size of the file; a device is used as it is
    #[arg(long, value_name = "SIZE", value_parser = parse_size, allow_hyphen_values = true)]
    pub size: Option<u64>,
    /// The OSD's number [default: the next free one]
    #[arg(long, value_name = "N", value_parser = osd)]
    pub osd: Option<u32>,
    /// Even if there is an OSD on the disk already: what it has is lost
    #[arg(long)]
    pub force: bool,
}

/// Of `trivet osd run`.
#[derive(Debug, Args)]
pub struct RunArgs {
    /// As given to 'trivet osd format'
    #[arg(value_name = "DISK")]
    pub disk: PathBuf,
    #[command(flatten)]
    pub meta: Meta,
    /// Where it listens for gateways and other OSDs; port 0: any free one
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:0", value_parser = address)]
    pub listen: SocketAddr,
    /// Where the others find it, if that is not where it listens
    #[arg(long, value_name = "ADDRESS", value_parser = address)]
    pub advertise: Option<SocketAddr>,
    /// The host that it is on: its place in the placement tree [default: this machine's name]
    #[arg(long, value_name = "NAME", value_parser = place)]
    pub host: Option<String>,
}

/// `trivet gateway`.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub struct GatewayArgs {
    /// What is asked instead of running one.
    #[command(subcommand)]
    pub list: Option<ListCommand>,
    #[command(flatten)]
    pub meta: Option<Meta>,
    #[command(flatten)]
    pub front: FrontArgs,
    /// What 'trivet gateway ls' calls it [default: this machine's name]
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,
}

/// `trivet mon`.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub struct MonArgs {
    /// What is asked instead of running one.
    #[command(subcommand)]
    pub list: Option<ListCommand>,
    #[command(flatten)]
    pub meta: Option<Meta>,
    /// The host that it is on [default: this machine's name]
    #[arg(long, value_name = "NAME", value_parser = place)]
    pub host: Option<String>,
}

/// Of `trivet mon` and `trivet gateway`: a question for the admin API.
#[derive(Debug, Subcommand)]
pub enum ListCommand {
    /// List those that run
    Ls,
}

/// Where the metadata store is.
#[derive(Debug, Args)]
pub struct Meta {
    /// The metadata store: etcd://HOST:PORT[,HOST:PORT..]/PREFIX; the prefix names the cluster
    #[arg(long = "meta", value_name = "META", env = "TRIVET_META", hide_env_values = true)]
    pub url: MetaUrl,
}

/// Where the metadata store is, of a role that is to run.
///
/// # Errors
/// Nobody said.
pub fn required(meta: &Option<Meta>) -> anyhow::Result<&MetaUrl> {
    let meta = meta.as_ref().context("give --meta META, or 'ls'")?;
    Ok(&meta.url)
}

/// A name in the placement tree: part of a key.
fn place(text: &str) -> Result<String, String> {
    let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    if text.is_empty() || text.len() > 255 || !text.chars().all(good) {
        return Err(format!("bad name {text:?}: use letters, digits, '.', '_' and '-'"));
    }
    Ok(text.to_owned())
}
