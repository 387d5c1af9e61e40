//! One scrape of `/metrics`: the counters of the data path and the state of the cluster as OpenMetrics text.
//!
//! A gateway whose data path does not answer still gives its counters, and says `trivet_up 0`.

use std::fmt;
use std::time::Duration;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::text;
use prometheus_client::encoding::{DescriptorEncoder, EncodeGaugeValue, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;
use trivet_api::{GatewayStatus, Health, ImageInfo, OsdInfo, OsdState, PoolInfo, Scrub, Status};
use trivet_gateway::metrics::{BUCKETS, Op, Reading, bucket_bound};

use crate::counters::Export;
use crate::scrape_usage::usage;

/// What there is to show.
#[derive(Debug, Default)]
pub(super) struct Shown {
    /// Absent when the data path did not answer.
    pub(super) status: Option<Status>,
    pub(super) osds: Vec<OsdInfo>,
    pub(super) pools: Vec<PoolInfo>,
    pub(super) images: Vec<ImageInfo>,
}

/// The text of a scrape.
pub(super) fn scrape(exports: Vec<Export>, shown: Shown) -> String {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Scrape { exports, shown }));
    let mut text = String::new();
    text::encode(&mut text, &registry).expect("writing to a string does not fail");
    text
}

#[derive(Debug)]
struct Scrape {
    exports: Vec<Export>,
    shown: Shown,
}

impl Collector for Scrape {
    fn encode(&self, mut encoder: DescriptorEncoder) -> fmt::Result {
        let shown = &self.shown;
        let up = u64::from(shown.status.is_some());
        gauge(&mut encoder, "trivet_up", "Whether the data path answers", &up)?;
        operations(&mut encoder, &self.exports)?;
        if let Some(status) = &shown.status {
            cluster(&mut encoder, status)?;
            gateway(&mut encoder, &status.gateway)?;
            placement(&mut encoder, status)?;
            scrub(&mut encoder, &status.scrub)?;
        }
        osds(&mut encoder, &shown.osds)?;
        pools(&mut encoder, &shown.pools)?;
        usage(&mut encoder, &shown.pools, &shown.images)
    }
}

fn gauge(encoder: &mut DescriptorEncoder, name: &str, help: &str, value: &u64) -> fmt::Result {
    encoder
        .encode_descriptor(name, help, None, MetricType::Gauge)?
        .encode_gauge(value)
}

/// One gauge with a label that tells the values apart.
fn gauges<'a, V: EncodeGaugeValue>(
    encoder: &mut DescriptorEncoder,
    (name, help): (&str, &str),
    label: &'static str,
    values: impl IntoIterator<Item = (&'a str, V)>,
) -> fmt::Result {
    let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
    for (key, value) in values {
        metric.encode_family(&[(label, key)])?.encode_gauge(&value)?;
    }
    Ok(())
}

type Exports = [Export];

fn operations(encoder: &mut DescriptorEncoder, exports: &Exports) -> fmt::Result {
    let name = "trivet_op_seconds";
    let metric = encoder.encode_descriptor(
        name,
        "Seconds from a client's request to its answer",
        None,
        MetricType::Histogram,
    )?;
    each_operation(metric, exports, |metric, reading| {
        let bound = |i| (bucket_bound(i), reading.buckets[i]);
        let buckets: [(f64, u64); BUCKETS + 1] = std::array::from_fn(bound);
        metric.encode_histogram::<NoLabelSet>(reading.seconds, reading.count, &buckets, None)
    })?;
    operation_counter(encoder, exports, ("trivet_ops", "Client operations answered"), |r| {
        r.count
    })?;
    operation_counter(
        encoder,
        exports,
        ("trivet_op_errors", "Client operations that failed"),
        |r| r.errors,
    )?;
    operation_counter(
        encoder,
        exports,
        ("trivet_op_bytes", "Bytes of payload of client operations"),
        |r| r.bytes,
    )
}

fn operation_counter(
    encoder: &mut DescriptorEncoder,
    exports: &Exports,
    (name, help): (&str, &str),
    value: fn(&Reading) -> u64,
) -> fmt::Result {
    let metric = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
    each_operation(metric, exports, |metric, reading| {
        metric.encode_counter::<NoLabelSet, _, u64>(&value(reading), None)
    })
}

/// Every operation that was seen, with its labels.
fn each_operation(
    mut metric: MetricEncoder,
    exports: &Exports,
    mut encode: impl FnMut(&mut MetricEncoder, &Reading) -> fmt::Result,
) -> fmt::Result {
    for (protocol, export, counters) in exports {
        for op in Op::ALL {
            let reading = counters.read(op);
            if reading.count > 0 {
                let labels = [
                    ("protocol", protocol.name()),
                    ("export", export.as_str()),
                    ("op", op.name()),
                ];
                encode(&mut metric.encode_family(&labels)?, &reading)?;
            }
        }
    }
    Ok(())
}

fn cluster(encoder: &mut DescriptorEncoder, status: &Status) -> fmt::Result {
    let healths = [("ok", Health::Ok), ("warn", Health::Warn), ("error", Health::Error)];
    let healths = healths.map(|(name, health)| (name, u64::from(health == status.health)));
    gauges(
        encoder,
        ("trivet_health", "1 for the present verdict"),
        "health",
        healths,
    )?;
    gauge(
        encoder,
        "trivet_uptime_seconds",
        "Seconds since the gateway started",
        &status.uptime_s,
    )?;
    gauge(encoder, "trivet_images", "Images", &status.images)?;
    let space = &status.capacity;
    let space = [("total", space.total), ("used", space.used), ("free", space.free)];
    gauges(
        encoder,
        ("trivet_capacity_bytes", "Raw space of all OSDs"),
        "kind",
        space,
    )?;
    let clients = &status.clients;
    let clients = [("nbd", clients.nbd), ("iscsi", clients.iscsi), ("nfs", clients.nfs)];
    gauges(encoder, ("trivet_clients", "Clients connected"), "protocol", clients)
}

fn gateway(encoder: &mut DescriptorEncoder, gateway: &GatewayStatus) -> fmt::Result {
    let opens = u64::from(gateway.opens);
    gauge(encoder, "trivet_opens", "Whether the gateway opens images", &opens)?;
    if let Some(age) = gateway.metadata_age_ms {
        let name = "trivet_metadata_age_seconds";
        seconds(
            encoder,
            (name, "Age of the gateway's copy of the metadata in seconds"),
            age,
        )?;
    }
    let name = "trivet_metadata_latency_seconds";
    let help = "Seconds that the metadata store takes to answer";
    seconds(encoder, (name, help), gateway.metadata_latency_ms)?;
    let buffers = [("used", gateway.buffers), ("budget", gateway.buffers_max)];
    gauges(
        encoder,
        ("trivet_buffers_bytes", "Memory for clients' data"),
        "kind",
        buffers,
    )?;
    let name = "trivet_clients_waiting_for_buffers";
    let waiting = &gateway.waiting_for_buffers;
    gauge(
        encoder,
        name,
        "Connections that are not read from for want of memory",
        waiting,
    )?;
    let name = "trivet_log_lines_lost";
    let help = "Lines of the log that could not be written";
    let metric = encoder.encode_descriptor(name, help, None, MetricType::Counter);
    metric?.encode_counter::<NoLabelSet, _, u64>(&gateway.log_lines_lost, None)
}

/// A gauge of a time in milliseconds.
fn seconds(encoder: &mut DescriptorEncoder, (name, help): (&str, &str), millis: u64) -> fmt::Result {
    let value = Duration::from_millis(millis).as_secs_f64();
    encoder
        .encode_descriptor(name, help, None, MetricType::Gauge)?
        .encode_gauge(&value)
}

fn placement(encoder: &mut DescriptorEncoder, status: &Status) -> fmt::Result {
    let pgs = &status.pgs;
    let kinds = [
        ("total", pgs.total),
        ("active", pgs.active),
        ("clean", pgs.clean),
        ("degraded", pgs.degraded),
    ];
    gauges(encoder, ("trivet_pgs", "Placement groups"), "kind", kinds)?;
    let states = pgs.by_state.iter().map(|(state, count)| (state.as_str(), *count));
    gauges(
        encoder,
        ("trivet_pg_states", "Placement groups by exact state"),
        "state",
        states,
    )?;
    let missing = &status.recovery.objects_missing;
    gauge(
        encoder,
        "trivet_objects_missing",
        "Copies of objects to be recovered",
        missing,
    )?;
    let rate = &status.recovery.rate;
    gauge(
        encoder,
        "trivet_recovery_copies_per_second",
        "Copies of objects recovered a second, lately",
        rate,
    )
}

fn scrub(encoder: &mut DescriptorEncoder, scrub: &Scrub) -> fmt::Result {
    let pgs = [("total", scrub.pgs), ("done", scrub.done)];
    gauges(
        encoder,
        ("trivet_scrub_pgs", "Placement groups of the last scrub"),
        "kind",
        pgs,
    )?;
    let objects = [
        ("compared", scrub.objects),
        ("repaired", scrub.repaired),
        ("inconsistent", scrub.inconsistent),
        ("lost", scrub.lost),
    ];
    gauges(
        encoder,
        ("trivet_scrub_objects", "What the last scrub found"),
        "kind",
        objects,
    )?;
    let age = &scrub.age_s;
    gauge(
        encoder,
        "trivet_scrub_age_seconds",
        "Seconds since a scrub was asked for; 0 if none ever was",
        age,
    )
}

/// A gauge per OSD: name, help, value.
type Column = (&'static str, &'static str, fn(&OsdInfo) -> u64);

fn osds(encoder: &mut DescriptorEncoder, osds: &[OsdInfo]) -> fmt::Result {
    let ids: Vec<String> = osds.iter().map(|osd| osd.id.to_string()).collect();
    let columns: [Column; 9] = [
        ("trivet_osd_up", "Whether the OSD serves", |osd| {
            u64::from(osd.state == OsdState::Up)
        }),
        ("trivet_osd_size_bytes", "Space of the OSD", |osd| osd.size),
        ("trivet_osd_in", "Whether the placement uses the OSD", |osd| {
            u64::from(!osd.out && !osd.dropped)
        }),
        (
            "trivet_osd_noout",
            "Whether the OSD keeps its PGs while it is down",
            |osd| u64::from(osd.noout),
        ),
        (
            "trivet_osd_capacity_bytes",
            "Space for objects on the OSD; 0 when it does not say",
            |osd| osd.capacity,
        ),
        ("trivet_osd_used_bytes", "Space taken on the OSD", |osd| osd.used),
        ("trivet_osd_objects", "Copies of objects on the OSD", |osd| osd.objects),
        ("trivet_osd_pgs", "PGs the OSD belongs to", |osd| osd.pgs),
        ("trivet_osd_primary_pgs", "PGs the OSD is the primary of", |osd| {
            osd.primary_pgs
        }),
    ];
    for (name, help, value) in columns {
        let rows = ids.iter().zip(osds).map(|(id, osd)| (id.as_str(), value(osd)));
        gauges(encoder, (name, help), "osd", rows)?;
    }
    let rows = ids.iter().zip(osds);
    let rows = rows.map(|(id, osd)| (id.as_str(), f64::from(osd.reweight)));
    let help = "Part of the OSD's size that the placement uses, from 0 to 1";
    gauges(encoder, ("trivet_osd_reweight_ratio", help), "osd", rows)
}

/// A gauge per pool: name, help, value.
type PoolColumn = (&'static str, &'static str, fn(&PoolInfo) -> u64);

fn pools(encoder: &mut DescriptorEncoder, pools: &[PoolInfo]) -> fmt::Result {
    let columns: [PoolColumn; 5] = [
        ("trivet_pool_replicas", "Copies of every object", |pool| pool.replicas),
        ("trivet_pool_pgs", "PGs of the pool", |pool| pool.pg_count.into()),
        ("trivet_pool_images", "Images in the pool", |pool| pool.images),
        (
            "trivet_pool_provisioned_bytes",
            "What clients see of the pool's images",
            |pool| pool.provisioned,
        ),
        (
            "trivet_pool_max_avail_bytes",
            "What can be written until the pool's fullest OSD is full",
            |pool| pool.max_avail,
        ),
    ];
    for (name, help, value) in columns {
        let rows = pools.iter().map(|pool| (pool.name.as_str(), value(pool)));
        gauges(encoder, (name, help), "pool", rows)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use trivet_core::ImageId;
    use trivet_gateway::metrics::{Metrics, Protocol};

    use super::*;

    fn has(text: &str, line: &str) {
        assert!(text.lines().any(|given| given == line), "no line {line:?} in:\n{text}");
    }

    #[test]
    fn counters_and_gauges_are_there() {
        let mut metrics = Metrics::default();
        let export = metrics.export(Protocol::Nbd, ImageId(1));
        export.record(Op::Read, 4096, Duration::from_micros(20), false);
        export.record(Op::Read, 4096, Duration::from_secs(60), true);
        let mut status = Status {
            health: Health::Warn,
            images: 3,
            ..Status::default()
        };
        status.pgs.by_state.insert("active+degraded".into(), 5);
        status.scrub.repaired = 6;
        let osd = OsdInfo {
            id: 2,
            state: OsdState::Up,
            used: 77,
            ..OsdInfo::default()
        };
        let pool = PoolInfo {
            name: "fast".into(),
            max_avail: 99,
            ..PoolInfo::default()
        };
        let shown = Shown {
            status: Some(status),
            osds: vec![osd],
            pools: vec![pool],
            images: Vec::new(),
        };
        let counted = vec![(Protocol::Nbd, "vms/we\"b".to_owned(), export)];
        let text = scrape(counted, shown);
        let labels = r#"protocol="nbd",export="vms/we\"b",op="read""#;
        has(&text, "trivet_up 1");
        has(&text, &format!("trivet_ops_total{{{labels}}} 2"));
        has(&text, &format!("trivet_op_errors_total{{{labels}}} 1"));
        has(&text, &format!("trivet_op_bytes_total{{{labels}}} 8192"));
        has(
            &text,
            &format!("trivet_op_seconds_bucket{{le=\"0.000016\",{labels}}} 0"),
        );
        has(
            &text,
            &format!("trivet_op_seconds_bucket{{le=\"0.000032\",{labels}}} 1"),
        );
        has(&text, &format!("trivet_op_seconds_bucket{{le=\"+Inf\",{labels}}} 2"));
        has(&text, "trivet_health{health=\"warn\"} 1");
        has(&text, "trivet_images 3");
        has(&text, "trivet_pg_states{state=\"active+degraded\"} 5");
        has(&text, "trivet_scrub_objects{kind=\"repaired\"} 6");
        has(&text, "trivet_osd_up{osd=\"2\"} 1");
        has(&text, "trivet_osd_used_bytes{osd=\"2\"} 77");
        has(&text, "trivet_osd_in{osd=\"2\"} 1");
        has(&text, "trivet_osd_reweight_ratio{osd=\"2\"} 1.0");
        has(&text, "trivet_pool_max_avail_bytes{pool=\"fast\"} 99");
        assert!(text.ends_with("# EOF\n"));
    }

    #[test]
    fn a_stalled_data_path_shows() {
        let text = scrape(Vec::new(), Shown::default());
        has(&text, "trivet_up 0");
        assert!(!text.contains("trivet_health{"), "{text}");
    }
}
