//! The command line, as clap reads it. Others script against it: names and defaults are a contract.

pub mod cluster;
pub mod front;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use trivet_api::{clean_path, new_path};
use trivet_meta::MetaUrl;

use crate::roles::args::{GatewayArgs, MonArgs, OsdRole};
use crate::size::parse_size;
use cluster::{MetaCommand, OsdManage, PgCommand, PoolCommand, SettingsArgs};
use front::FrontArgs;

/// OSDs that one process runs at most.
const MAX_OSDS: i64 = 64;

/// A clustered block store that speaks NBD, iSCSI and NFS.
#[derive(Debug, Parser)]
#[command(name = "trivet", version, arg_required_else_help = true)]
pub struct Cli {
    /// Where the admin API is [default: $TRIVET_API, else http://127.0.0.1:8090]
    #[arg(long, global = true, value_name = "URL")]
    pub api: Option<String>,
    /// Print the API's JSON instead of text
    #[arg(long, global = true)]
    pub json: bool,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run a whole cluster in this process, on a folder
    Up(UpArgs),
    /// Make and run OSDs, and show and change those of the cluster
    #[command(subcommand)]
    Osd(OsdRole),
    /// Run a monitor, or list those that run
    Mon(MonArgs),
    /// Run a gateway (NBD, iSCSI, NFS and the admin API), or list those that run
    Gateway(GatewayArgs),
    /// One of the questions and changes that go to the admin API.
    #[command(flatten)]
    Ask(Ask),
}

/// What goes to the admin API.
#[derive(Debug, Subcommand)]
pub enum Ask {
    /// Make, show and change images
    #[command(subcommand)]
    Image(ImageCommand),
    /// Show how the cluster is
    Status,
    /// Read and compare all copies of everything, and repair what is damaged
    Scrub {
        /// Wait until it is done and print what it found; exit code 1 if something cannot be repaired
        #[arg(long)]
        wait: bool,
    },
    /// `trivet osd`, as far as the admin API does it.
    #[command(skip)]
    Osd(OsdCommand),
    /// Show space
    Df,
    /// Make, show and change pools
    #[command(subcommand)]
    Pool(PoolCommand),
    /// Show placement groups, and why they are as they are
    #[command(subcommand)]
    Pg(PgCommand),
    /// Show and change settings
    Settings(SettingsArgs),
    /// Go on after metadata was restored from a backup
    #[command(subcommand)]
    Meta(MetaCommand),
    /// `trivet mon ls`
    #[command(skip)]
    Mons,
    /// `trivet gateway ls`
    #[command(skip)]
    Gateways,
}

/// Of `trivet image`.
#[derive(Debug, Subcommand)]
pub enum ImageCommand {
    /// Make an image
    Create {
        /// Its name, like vms/web01
        #[arg(value_parser = new_name)]
        name: String,
        /// Its size: 512, 64K, 1M, 1.5G, 1T
        #[arg(long, value_parser = parse_size, allow_hyphen_values = true)]
        size: u64,
        /// The pool to put it in: name or id [default: the one with the lowest id]
        #[arg(long)]
        pool: Option<String>,
    },
    /// List all images
    Ls,
    /// Show an image
    Info {
        /// Its name
        #[arg(value_parser = name)]
        name: String,
    },
    /// Grow or shrink an image; what a smaller size cuts off is lost
    Resize {
        /// Its name
        #[arg(value_parser = name)]
        name: String,
        /// Its new size: 512, 64K, 1M, 1.5G, 1T
        #[arg(long, value_parser = parse_size, allow_hyphen_values = true)]
        size: u64,
    },
    /// Remove an image and its data
    Rm {
        /// Its name
        #[arg(value_parser = name)]
        name: String,
    },
    /// Give an image another name
    Rename {
        /// Its name
        #[arg(value_parser = name)]
        old: String,
        /// Its new name
        #[arg(value_parser = new_name)]
        new: String,
    },
}

/// Of `trivet osd`.
#[derive(Debug, Subcommand)]
pub enum OsdCommand {
    /// List all OSDs
    Ls,
    /// Stop an OSD until it is started again
    Stop {
        /// Its number
        #[arg(value_parser = osd)]
        osd: u32,
    },
    /// Start a stopped OSD
    Start {
        /// Its number
        #[arg(value_parser = osd)]
        osd: u32,
    },
    /// What an administrator decides about OSDs.
    #[command(flatten)]
    Manage(OsdManage),
}

/// Of `trivet up`. What the cluster is made of is given for a new one; one that is there keeps what it has.
#[derive(Clone, Debug, Args)]
pub struct UpArgs {
    /// The folder that holds everything; made when it is not there
    #[arg(long, value_name = "DIR")]
    pub data: PathBuf,
    /// The metadata store, if it is not to be a file in the folder: etcd://HOST:PORT[,HOST:PORT..]/PREFIX
    #[arg(long, value_name = "META")]
    pub meta: Option<MetaUrl>,
    /// OSDs of a new cluster, each one file in the folder [default: 3]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=MAX_OSDS))]
    pub osds: Option<u32>,
    /// Size of each OSD of a new cluster [default: 4G]
    #[arg(long, value_name = "SIZE", value_parser = parse_size, allow_hyphen_values = true)]
    pub osd_size: Option<u64>,
    /// Copies of every object of a new cluster, each on another OSD [default: 2]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=MAX_OSDS))]
    pub replicas: Option<u32>,
    #[command(flatten)]
    pub front: FrontArgs,
}

fn name(text: &str) -> Result<String, String> {
    clean_path(text).map_err(|error| error.message)
}

fn new_name(text: &str) -> Result<String, String> {
    new_path(text).map_err(|error| error.message)
}

/// An OSD's number.
pub fn osd(text: &str) -> Result<u32, String> {
    let hint = |_| format!("bad OSD number {text:?}: `trivet osd ls` shows the numbers");
    text.parse().map_err(hint)
}

#[cfg(test)]
mod documented;

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn parse(line: &str) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(line.split(' '))
    }

    fn up(line: &str) -> UpArgs {
        match parse(line).unwrap().command {
            Command::Up(args) => args,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
    }

    fn gateway(line: &str) -> GatewayArgs {
        match parse(line).unwrap().command {
            Command::Gateway(args) => args,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn gateways_have_the_defaults_of_the_contract() {
        let contract = ["127.0.0.1:10809", "127.0.0.1:3260", "127.0.0.1:2049"];
        for front in [
            up("trivet up --data d").front,
            gateway("trivet gateway --meta etcd://h:1/x").front,
        ] {
            let doors: Vec<String> = front.doors().iter().map(|(.., at)| at.to_string()).collect();
            assert_eq!(doors, contract);
            assert_eq!(
                (front.http.to_string().as_str(), front.memory),
                ("127.0.0.1:8090", 256 << 20)
            );
        }
    }

    #[test]
    fn every_door_of_up_can_be_off() {
        let front = up("trivet up --data d --nbd off --iscsi 127.0.0.1:1 --nfs off").front;
        assert_eq!(front.doors().len(), 1);
        assert!(parse("trivet up --data d --http off").is_err());
    }

    #[test]
    fn global_options_stand_anywhere() {
        for line in [
            "trivet --json --api http://h:1 image ls",
            "trivet image ls --json --api http://h:1",
            "trivet image --json ls --api http://h:1",
        ] {
            let cli = parse(line).unwrap();
            assert!(cli.json && cli.api.as_deref() == Some("http://h:1"), "{line}");
        }
    }

    #[test]
    fn roles_run_or_are_listed() {
        for role in ["mon", "gateway"] {
            assert!(parse(&format!("trivet {role} --meta etcd://h:1/x")).is_ok(), "{role}");
            assert!(parse(&format!("trivet {role} ls --json")).is_ok(), "{role}");
            assert!(parse(&format!("trivet {role}")).is_err(), "{role}");
        }
    }

    #[test]
    fn images_with_odd_names_can_be_got_rid_of() {
        for line in ["info a\nb", "rm a\nb", "rename a\nb ab", "resize a\nb --size 1G"] {
            assert!(parse(&format!("trivet image {line}")).is_ok(), "{line}");
        }
    }

    #[test]
    fn nonsense_is_refused() {
        for line in [
            "trivet up",
            "trivet up --data d --osds 0",
            "trivet up --data d --osds 65",
            "trivet up --data d --nbd localhost",
            "trivet image create demo",
            "trivet image create demo --size 12Q",
            "trivet image create a//b --size 1G",
            "trivet image info ..",
            "trivet image create a\nb --size 1G",
            "trivet image rename a\nb a\tb",
            "trivet osd stop x",
            "trivet scrub x",
            "trivet pool create p",
            "trivet pool create a/b --replicas 2",
            "trivet pool create 5 --replicas 2",
            "trivet pool create p --replicas 2 --osd-tags a,b/c",
            "trivet osd reweight 1 1.5",
            "trivet osd reweight 1",
            "trivet osd tag add 1",
            "trivet osd noout 1 maybe",
            "trivet osd tree set r1",
            "trivet settings set something 5",
            "trivet settings set osd_out_s x",
            "trivet mon ls --meta x",
            "trivet pg explain",
            "trivet frobnicate",
        ] {
            assert!(parse(line).is_err(), "{line}");
        }
    }
}
