//! What the cluster is made of, as tables.

use trivet_api::{
    Df, GatewayList, MonitorList, OsdInfo, OsdList, OsdState, PgExplained, PgList, PoolInfo, PoolList, Tree, TreeRow,
};
use trivet_core::keys::Settings;

use super::{duration, one_line, pairs, table};
use crate::size::human_size;

/// `trivet osd ls`.
pub fn osds(list: &OsdList) -> String {
    let row = |osd: &OsdInfo| {
        let mut row = vec![
            osd.id.to_string(),
            osd_state(osd),
            or_dash(osd.host.as_deref()),
            human_size(osd.size),
            human_size(osd.used),
        ];
        row.extend([osd.objects, osd.pgs, osd.primary_pgs].map(|number| number.to_string()));
        row.push(osd.reweight.to_string());
        row.push(words(&osd.tags));
        row.push(one_line(&osd.path));
        row
    };
    let header = [
        ("OSD", true),
        ("STATE", false),
        ("HOST", false),
        ("SIZE", true),
        ("USED", true),
        ("OBJECTS", true),
        ("PGS", true),
        ("PRIMARY", true),
        ("REWEIGHT", true),
        ("TAGS", false),
        ("PATH", false),
    ];
    table(&header, &list.osds.iter().map(row).collect::<Vec<_>>())
}

/// `trivet osd df`; the last line is all of them.
pub fn osd_df(list: &OsdList) -> String {
    let row = |osd: &OsdInfo| {
        let mut row = vec![osd.id.to_string(), osd_state(osd), or_dash(osd.host.as_deref())];
        row.push(human_size(osd.size));
        row.extend(space(osd.capacity, osd.used));
        row.extend([osd.pgs, osd.primary_pgs].map(|number| number.to_string()));
        row
    };
    let sum = |field: fn(&OsdInfo) -> u64| list.osds.iter().map(field).fold(0, u64::saturating_add);
    let mut rows: Vec<_> = list.osds.iter().map(row).collect();
    let mut all = vec![
        "all".to_owned(),
        String::new(),
        String::new(),
        human_size(sum(|osd| osd.size)),
    ];
    all.extend(space(sum(|osd| osd.capacity), sum(|osd| osd.used)));
    all.extend([sum(|osd| osd.pgs), sum(|osd| osd.primary_pgs)].map(|number| number.to_string()));
    rows.push(all);
    let header = [
        ("OSD", true),
        ("STATE", false),
        ("HOST", false),
        ("SIZE", true),
        ("CAPACITY", true),
        ("USED", true),
        ("AVAIL", true),
        ("USE", true),
        ("PGS", true),
        ("PRIMARY", true),
    ];
    table(&header, &rows)
}

/// `trivet osd tree`.
pub fn tree(tree: &Tree) -> String {
    let row = |row: &TreeRow| {
        // A tree from elsewhere could be as deep as it likes.
        let depth = usize::try_from(row.depth.min(32)).unwrap_or(0);
        let name = match &row.osd {
            Some(osd) => format!("osd {}", osd.id),
            None => format!("{} {}", one_line(&row.level), one_line(&row.name)),
        };
        let mut cells = vec![format!("{}{name}", "  ".repeat(depth)), human_size(row.weight)];
        cells.extend(space(row.capacity, row.used));
        cells.push(row.osd.as_ref().map_or_else(String::new, osd_state));
        cells.push(
            row.osd
                .as_ref()
                .map_or_else(String::new, |osd| osd.reweight.to_string()),
        );
        cells.push(row.osd.as_ref().map_or_else(String::new, |osd| words(&osd.tags)));
        cells
    };
    let header = [
        ("PLACE", false),
        ("WEIGHT", true),
        ("CAPACITY", true),
        ("USED", true),
        ("AVAIL", true),
        ("USE", true),
        ("STATE", false),
        ("REWEIGHT", true),
        ("TAGS", false),
    ];
    table(&header, &tree.rows.iter().map(row).collect::<Vec<_>>())
}

/// How many PGs a pool has, and will have.
fn pg_count(pool: &PoolInfo) -> String {
    match pool.pgs_wanted {
        Some(wanted) => format!("{} -> {wanted}", pool.pg_count),
        None => pool.pg_count.to_string(),
    }
}

/// `trivet pool ls`.
pub fn pools(list: &PoolList) -> String {
    let row = |pool: &PoolInfo| {
        let name = one_line(&pool.name);
        let mut row = vec![
            pool.id.to_string(),
            if pool.removing { format!("{name} (going)") } else { name },
        ];
        row.extend([pool.replicas.to_string(), pool.min_size.to_string(), pg_count(pool)]);
        row.push(one_line(&pool.failure_domain));
        row.push(or_dash(pool.root.as_deref()));
        row.extend([
            words(&pool.osd_tags),
            words(&pool.primary_tags),
            pool.images.to_string(),
        ]);
        row.push(human_size(pool.max_avail));
        row
    };
    let header = [
        ("ID", true),
        ("POOL", false),
        ("REPLICAS", true),
        ("MIN", true),
        ("PGS", true),
        ("DOMAIN", false),
        ("ROOT", false),
        ("OSD TAGS", false),
        ("PRIMARY TAGS", false),
        ("IMAGES", true),
        ("AVAIL", true),
    ];
    table(&header, &list.pools.iter().map(row).collect::<Vec<_>>())
}

/// What `trivet pool create` and `modify` print.
pub fn pool(pool: &PoolInfo) -> String {
    let tags = |tags: &[String]| (!tags.is_empty()).then(|| words(tags));
    pairs([
        ("pool", Some(one_line(&pool.name))),
        ("id", Some(pool.id.to_string())),
        ("replicas", Some(pool.replicas.to_string())),
        ("min size", Some(pool.min_size.to_string())),
        ("pgs", Some(pg_count(pool))),
        ("failure domain", Some(one_line(&pool.failure_domain))),
        ("root", pool.root.as_deref().map(one_line)),
        ("osd tags", tags(&pool.osd_tags)),
        ("primary tags", tags(&pool.primary_tags)),
        ("images", Some(pool.images.to_string())),
    ])
}

/// What is not known is a dash.
fn shown(value: Option<&impl ToString>) -> String {
    value.map_or_else(|| "-".to_owned(), ToString::to_string)
}

/// `trivet df`.
pub fn df(df: &Df) -> String {
    let raw = [df.raw.total, df.raw.used, df.raw.free].map(human_size);
    let mut first: Vec<String> = vec!["all OSDs".to_owned()];
    first.extend(raw);
    first.push(percent(df.raw.total, df.raw.used));
    let header = [
        ("RAW", false),
        ("CAPACITY", true),
        ("USED", true),
        ("AVAIL", true),
        ("USE", true),
    ];
    let raw = table(&header, &[first]);
    let row = |pool: &PoolInfo| {
        vec![
            one_line(&pool.name),
            pool.replicas.to_string(),
            pool.images.to_string(),
            shown(pool.objects.as_ref()),
            human_size(pool.provisioned),
            shown(pool.used.map(human_size).as_ref()),
            shown(pool.raw_used.map(human_size).as_ref()),
            human_size(pool.max_avail),
        ]
    };
    let header = [
        ("POOL", false),
        ("REPLICAS", true),
        ("IMAGES", true),
        ("OBJECTS", true),
        ("PROVISIONED", true),
        ("USED", true),
        ("RAW USED", true),
        ("AVAIL", true),
    ];
    format!(
        "{raw}\n{}",
        table(&header, &df.pools.iter().map(row).collect::<Vec<_>>())
    )
}

/// `trivet pg ls`.
pub fn pgs(list: &PgList) -> String {
    let row = |pg: &trivet_api::PgInfo| {
        vec![
            one_line(&pg.id),
            one_line(&pg.pool),
            one_line(&pg.state),
            numbers(&pg.up),
            numbers(&pg.acting),
            pg.primary.map_or_else(|| "-".to_owned(), |osd| osd.to_string()),
            pg.epoch.to_string(),
            pg.missing.to_string(),
        ]
    };
    let header = [
        ("PG", false),
        ("POOL", false),
        ("STATE", false),
        ("UP", false),
        ("ACTING", false),
        ("PRIMARY", true),
        ("EPOCH", true),
        ("MISSING", true),
    ];
    table(&header, &list.pgs.iter().map(row).collect::<Vec<_>>())
}

/// `trivet pg explain`.
pub fn pg(explained: &PgExplained) -> String {
    let pg = &explained.pg;
    let mut text = pairs([
        (
            "pg",
            Some(format!("{} (pool {})", one_line(&pg.id), one_line(&pg.pool))),
        ),
        ("state", Some(one_line(&pg.state))),
        ("up set", Some(numbers(&pg.up))),
        ("acting set", Some(numbers(&pg.acting))),
        ("primary", pg.primary.map(|osd| osd.to_string())),
        ("epoch", Some(pg.epoch.to_string())),
        ("missing", Some(pg.missing.to_string())),
    ]);
    for reason in &explained.reasons {
        text.push_str(&format!("why         {}\n", one_line(reason)));
    }
    for wanted in &explained.waits_for {
        text.push_str(&format!("waits for   one of {}\n", numbers(wanted)));
    }
    for interval in &explained.intervals {
        let acted = if interval.active {
            "may have written"
        } else {
            "never served"
        };
        let acting = numbers(&interval.acting);
        text.push_str(&format!("history     epoch {}: {acting} {acted}\n", interval.epoch));
    }
    text
}

/// `trivet mon ls`.
pub fn monitors(list: &MonitorList) -> String {
    let row = |monitor: &trivet_api::MonitorInfo| {
        let leads = if monitor.leads { "leads" } else { "waits" };
        vec![
            one_line(&monitor.id),
            leads.to_owned(),
            or_dash(monitor.host.as_deref()),
        ]
    };
    let header = [("MONITOR", false), ("STATE", false), ("HOST", false)];
    table(&header, &list.monitors.iter().map(row).collect::<Vec<_>>())
}

/// `trivet gateway ls`.
pub fn gateways(list: &GatewayList) -> String {
    let row = |gateway: &trivet_api::GatewayInfo| {
        let this = if gateway.this { "answers this" } else { "" };
        vec![
            one_line(&gateway.id),
            one_line(&gateway.name),
            or_dash(gateway.http.as_deref()),
            this.to_owned(),
        ]
    };
    let header = [("GATEWAY", false), ("NAME", false), ("HTTP", false), ("", false)];
    table(&header, &list.gateways.iter().map(row).collect::<Vec<_>>())
}

/// `trivet settings`.
pub fn settings(settings: &Settings) -> String {
    let out = settings.osd_out_s;
    pairs([
        ("osd_out_s", Some(format!("{out} ({})", duration(out)))),
        ("backfill_full_pct", Some(format!("{} %", settings.backfill_full_pct))),
        ("no_recovery", Some(settings.no_recovery.to_string())),
    ])
}

/// `up`, `down`, and what else there is to say.
fn osd_state(osd: &OsdInfo) -> String {
    let mut state = if osd.state == OsdState::Up { "up" } else { "down" }.to_owned();
    for (flag, name) in [(osd.out, "out"), (osd.dropped, "dropped"), (osd.noout, "noout")] {
        if flag {
            state.push(',');
            state.push_str(name);
        }
    }
    state
}

/// Capacity, used, available, used in per cent; nothing is known of what has no capacity.
fn space(capacity: u64, used: u64) -> [String; 4] {
    if capacity == 0 {
        return ["-"; 4].map(ToOwned::to_owned);
    }
    let left = capacity.saturating_sub(used);
    [
        human_size(capacity),
        human_size(used),
        human_size(left),
        percent(capacity, used),
    ]
}

fn percent(whole: u64, part: u64) -> String {
    match whole {
        0 => "-".to_owned(),
        _ => format!("{} %", u128::from(part) * 100 / u128::from(whole)),
    }
}

fn or_dash(text: Option<&str>) -> String {
    text.map_or_else(|| "-".to_owned(), one_line)
}

fn words(words: &[String]) -> String {
    match words {
        [] => "-".to_owned(),
        words => one_line(&words.join(",")),
    }
}

fn numbers(numbers: &[u32]) -> String {
    match numbers {
        [] => "-".to_owned(),
        numbers => numbers.iter().map(ToString::to_string).collect::<Vec<_>>().join(","),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read<T: serde::de::DeserializeOwned>(value: serde_json::Value) -> T {
        serde_json::from_value(value).unwrap()
    }

    fn osd(id: u32, more: serde_json::Value) -> serde_json::Value {
        let mut osd = json!({
            "id": id, "state": "up", "path": "", "size": 4096, "used": 0, "objects": 0, "pgs": 0, "primary_pgs": 0,
        });
        osd.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        osd
    }

    #[test]
    fn osds_show_what_was_decided_about_them() {
        let first = osd(
            1,
            json!({"host": "a", "tags": ["ssd", "new"], "reweight": 0.5, "noout": true}),
        );
        let second = osd(
            2,
            json!({"state": "down", "dropped": true, "capacity": 2048, "used": 512}),
        );
        let list: OsdList = read(json!({"osds": [first, second]}));
        let text = "\
OSD  STATE         HOST     SIZE   USED  OBJECTS  PGS  PRIMARY  REWEIGHT  TAGS     PATH
  1  up,noout      a     4.0 KiB    0 B        0    0        0     0.500  ssd,new
  2  down,dropped  -     4.0 KiB  512 B        0    0        0     1.000  -
";
        assert_eq!(osds(&list), text);
        let text = "\
OSD  STATE         HOST     SIZE  CAPACITY   USED    AVAIL   USE  PGS  PRIMARY
  1  up,noout      a     4.0 KiB         -      -        -     -    0        0
  2  down,dropped  -     4.0 KiB   2.0 KiB  512 B  1.5 KiB  25 %    0        0
all                      8.0 KiB   2.0 KiB  512 B  1.5 KiB  25 %    0        0
";
        assert_eq!(osd_df(&list), text);
    }

    #[test]
    fn the_tree_is_indented() {
        let rows = json!([
            {"name": "r1", "level": "rack", "depth": 0, "weight": 4096, "capacity": 4096, "used": 1024},
            {"name": "a", "level": "host", "depth": 1, "weight": 4096, "capacity": 4096, "used": 1024},
            {"name": "1", "level": "osd", "depth": 2, "weight": 4096, "capacity": 4096, "used": 1024,
             "osd": osd(1, json!({"out": true}))},
        ]);
        let text = "\
PLACE       WEIGHT  CAPACITY     USED    AVAIL   USE  STATE   REWEIGHT  TAGS
rack r1    4.0 KiB   4.0 KiB  1.0 KiB  3.0 KiB  25 %
  host a   4.0 KiB   4.0 KiB  1.0 KiB  3.0 KiB  25 %
    osd 1  4.0 KiB   4.0 KiB  1.0 KiB  3.0 KiB  25 %  up,out     1.000  -
";
        assert_eq!(tree(&read(json!({"rows": rows}))), text);
    }

    fn a_pool() -> serde_json::Value {
        json!({
            "id": 1, "name": "fast", "replicas": 2, "min_size": 1, "pg_count": 64, "failure_domain": "host",
            "osd_tags": ["ssd"], "images": 3, "provisioned": 2048, "max_avail": 1024, "removing": true,
        })
    }

    #[test]
    fn pools_and_space() {
        let list: PoolList = read(json!({"pools": [a_pool()]}));
        let text = "\
ID  POOL          REPLICAS  MIN  PGS  DOMAIN  ROOT  OSD TAGS  PRIMARY TAGS  IMAGES    AVAIL
 1  fast (going)         2    1   64  host    -     ssd       -                  3  1.0 KiB
";
        assert_eq!(pools(&list), text);
        let all: Df = read(json!({"raw": {"total": 4096, "used": 1024, "free": 3072}, "pools": [a_pool()]}));
        let text = "\
RAW       CAPACITY     USED    AVAIL   USE
all OSDs   4.0 KiB  1.0 KiB  3.0 KiB  25 %

POOL  REPLICAS  IMAGES  OBJECTS  PROVISIONED  USED  RAW USED    AVAIL
fast         2       3        -      2.0 KiB     -         -  1.0 KiB
";
        assert_eq!(df(&all), text);
        let known = PoolInfo {
            objects: Some(12),
            used: Some(8192),
            raw_used: Some(24 << 17),
            ..list.pools[0].clone()
        };
        let text = df(&Df {
            pools: vec![known],
            ..all
        });
        assert!(
            text.ends_with(
                "\
POOL  REPLICAS  IMAGES  OBJECTS  PROVISIONED     USED  RAW USED    AVAIL
fast         2       3       12      2.0 KiB  8.0 KiB   3.0 MiB  1.0 KiB
"
            ),
            "{text}"
        );
        assert!(pool(&list.pools[0]).contains("failure domain  host\nosd tags        ssd\n"));
    }

    #[test]
    fn a_pg_is_explained() {
        let explained: PgExplained = read(json!({
            "id": "1.3", "pool": "fast", "state": "inactive", "up": [1, 2], "acting": [], "epoch": 7, "missing": 0,
            "reasons": ["start 2"], "waits_for": [[2, 3]],
            "intervals": [{"epoch": 6, "acting": [2, 3], "active": true}, {"epoch": 7, "acting": [1], "active": false}],
        }));
        let text = "\
pg          1.3 (pool fast)
state       inactive
up set      1,2
acting set  -
epoch       7
missing     0
why         start 2
waits for   one of 2,3
history     epoch 6: 2,3 may have written
history     epoch 7: 1 never served
";
        assert_eq!(pg(&explained), text);
        let list = PgList {
            pgs: vec![explained.pg],
        };
        let text = "\
PG   POOL  STATE     UP   ACTING  PRIMARY  EPOCH  MISSING
1.3  fast  inactive  1,2  -             -      7        0
";
        assert_eq!(pgs(&list), text);
    }

    #[test]
    fn who_runs_and_settings() {
        let list: MonitorList =
            read(json!({"monitors": [{"id": "0a", "host": "h", "leads": true}, {"id": "0b", "leads": false}]}));
        assert_eq!(
            monitors(&list),
            "MONITOR  STATE  HOST\n0a       leads  h\n0b       waits  -\n"
        );
        let list: GatewayList = read(json!({"gateways": [{"id": "0a", "name": "g", "http": "h:1", "this": true}]}));
        assert_eq!(
            gateways(&list),
            "GATEWAY  NAME  HTTP\n0a       g     h:1   answers this\n"
        );
        let text = "osd_out_s          600 (10m 0s)\nbackfill_full_pct  90 %\nno_recovery        false\n";
        assert_eq!(settings(&Settings::default()), text);
    }
}
