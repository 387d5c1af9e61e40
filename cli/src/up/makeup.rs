//! What a cluster of `trivet up` is made of: a new one as the options ask for, and one that is there as it is.

use std::collections::BTreeSet;

use anyhow::{bail, ensure};
use trivet_api::counted;
use trivet_core::OsdId;
use trivet_core::keys::Pool;

use crate::args::UpArgs;
use crate::size::human_size;

/// The smallest OSD: log and checkpoint areas take their part, and something must be left.
const MIN_OSD: u64 = 256 << 20;
/// OSD files are multiples of this.
const OSD_GRAIN: u64 = 1 << 20;

/// What a new cluster is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Makeup {
    /// How many OSDs.
    pub osds: u32,
    /// The size of each, bytes.
    pub osd_size: u64,
    /// Copies of every object.
    pub replicas: u32,
}

impl Makeup {
    /// When nobody says.
    const USUAL: Makeup = Makeup {
        osds: 3,
        osd_size: 4 << 30,
        replicas: 2,
    };

    /// As the options ask for.
    ///
    /// # Errors
    /// When they ask for what cannot be.
    pub fn wanted(args: &UpArgs) -> anyhow::Result<Makeup> {
        let wanted = Makeup {
            osds: args.osds.unwrap_or(Makeup::USUAL.osds),
            osd_size: whole_grains(args.osd_size.unwrap_or(Makeup::USUAL.osd_size)),
            replicas: args.replicas.unwrap_or(Makeup::USUAL.replicas),
        };
        let Makeup { osds, replicas, .. } = wanted;
        ensure!(
            replicas <= osds,
            "--replicas {replicas}: there {} only {}; give more --osds or fewer --replicas",
            if osds == 1 { "is" } else { "are" },
            counted(osds.into(), "OSD", "OSDs")
        );
        if let Some(size) = args.osd_size {
            let least = MIN_OSD >> 20;
            ensure!(
                size >= MIN_OSD,
                "--osd-size {size}: too small; an OSD needs at least {least} MiB"
            );
        }
        Ok(wanted)
    }
}

fn whole_grains(size: u64) -> u64 {
    size / OSD_GRAIN * OSD_GRAIN
}

/// That no option asks for another cluster than the one that is there: it would not come to be. `pool` is the one that
/// `trivet up` made, if it is still there.
///
/// # Errors
/// With what there is, and what to do.
pub fn agree(args: &UpArgs, osds: &[(OsdId, u64)], pool: Option<&Pool>) -> anyhow::Result<()> {
    let data = args.data.display();
    let so = "leave the option out, or name another folder for a new cluster";
    if let Some(wanted) = args.osds.filter(|wanted| u64::from(*wanted) != osds.len() as u64) {
        let there = counted(osds.len() as u64, "OSD", "OSDs");
        bail!("--osds {wanted}: the cluster in {data} has {there}, and keeps them; {so}");
    }
    if let Some(wanted) = args.osd_size.map(whole_grains) {
        let sizes: BTreeSet<u64> = osds.iter().map(|(_, size)| *size).collect();
        let differs = sizes.iter().any(|size| *size != wanted);
        let there: Vec<String> = sizes.into_iter().map(exact).collect();
        ensure!(
            !differs,
            "--osd-size {}: the OSDs in {data} have {}, and keep them; {so}",
            exact(wanted),
            there.join(" and ")
        );
    }
    let Some(pool) = pool else { return Ok(()) };
    match args.replicas {
        Some(wanted) if u64::from(wanted) != pool.replicas as u64 => bail!(
            "--replicas {wanted}: pool {} keeps {} of every object; leave the option out, and see 'trivet pool modify {} \
             --replicas {wanted}'",
            pool.name,
            counted(pool.replicas as u64, "copy", "copies"),
            pool.name
        ),
        _ => Ok(()),
    }
}

/// `4.0 GiB (4294967296 bytes)`.
fn exact(size: u64) -> String {
    format!("{} ({size} bytes)", human_size(size))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::args::{Cli, Command};

    fn up(options: &str) -> UpArgs {
        let words = format!("trivet up --data d {options}");
        match Cli::parse_from(words.split_whitespace()).command {
            Command::Up(args) => args,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_new_cluster_is_as_the_contract_says_or_as_asked_for() {
        assert_eq!(Makeup::wanted(&up("")).unwrap(), Makeup::USUAL);
        let asked = Makeup {
            osds: 5,
            osd_size: 300 << 20,
            replicas: 3,
        };
        let options = "--osds 5 --osd-size 314572801 --replicas 3";
        assert_eq!(Makeup::wanted(&up(options)).unwrap(), asked);
    }

    #[test]
    fn what_cannot_be_is_refused() {
        for (options, why) in [
            ("--osds 1", "--replicas 2: there is only 1 OSD;"),
            ("--osds 2 --replicas 3", "--replicas 3: there are only 2 OSDs;"),
            ("--osd-size 255M", "at least 256 MiB"),
        ] {
            let error = Makeup::wanted(&up(options)).unwrap_err().to_string();
            assert!(error.contains(why), "{options}: {error}");
        }
    }

    #[test]
    fn a_cluster_that_is_there_is_not_asked_to_be_another() {
        let osds = [1, 2, 3].map(|osd| (OsdId(osd), 4 << 30));
        let pool = Pool {
            name: "default".into(),
            replicas: 2,
            ..Pool::default()
        };
        for options in ["", "--osds 3 --osd-size 4G --replicas 2", "--osd-size 4294967297"] {
            agree(&up(options), &osds, Some(&pool)).unwrap();
        }
        for (options, why) in [
            ("--osds 4", "--osds 4: the cluster in d has 3 OSDs, and keeps them;"),
            (
                "--osd-size 8G",
                "the OSDs in d have 4.0 GiB (4294967296 bytes), and keep them;",
            ),
            ("--replicas 3", "pool default keeps 2 copies of every object;"),
        ] {
            let error = agree(&up(options), &osds, Some(&pool)).unwrap_err().to_string();
            assert!(error.contains(why), "{options}: {error}");
        }
        // Somebody has removed it, and made others.
        agree(&up("--replicas 3"), &osds, None).unwrap();
    }
}
