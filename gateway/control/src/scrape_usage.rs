//! The part of a scrape that is about what pools and images take, and how much they are used.

use std::fmt;

use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use trivet_api::{ImageInfo, OpTotal, OpTotals, PoolInfo};

/// Labels of a pool or an image.
type Labels<'a> = Vec<(&'static str, &'a str)>;

/// A counter of operations: how its name ends, help, value.
type Column = (&'static str, &'static str, fn(&OpTotal) -> Value);

/// What a counter shows.
enum Value {
    Whole(u64),
    Seconds(f64),
}

const COLUMNS: [Column; 3] = [
    ("ops", "Operations on objects that OSDs answered", |op| {
        Value::Whole(op.count)
    }),
    ("op_bytes", "Bytes that operations were about", |op| {
        Value::Whole(op.bytes)
    }),
    (
        "op_seconds",
        "Seconds that operations took, all together",
        #[expect(clippy::cast_precision_loss, reason = "a sum of durations need not be exact")]
        |op| Value::Seconds(op.time_us as f64 / 1e6),
    ),
];

/// Of each pool and each image, as far as it is known.
pub(super) fn usage(encoder: &mut DescriptorEncoder, pools: &[PoolInfo], images: &[ImageInfo]) -> fmt::Result {
    let pool = |pool: &'_ PoolInfo| pool.name.clone();
    let names: Vec<String> = pools.iter().map(pool).collect();
    let pool_labels = || names.iter().map(|name| vec![("pool", name.as_str())]);
    let used = pool_labels().zip(pools.iter().map(|pool| pool.used));
    gauge(
        encoder,
        ("trivet_pool_used_bytes", "Data written to the pool's images"),
        used,
    )?;
    let raw = pool_labels().zip(pools.iter().map(|pool| pool.raw_used));
    let help = "What all copies of the pool's objects take on OSDs";
    gauge(encoder, ("trivet_pool_raw_used_bytes", help), raw)?;
    let objects = pool_labels().zip(pools.iter().map(|pool| pool.objects));
    gauge(encoder, ("trivet_pool_objects", "Objects of the pool"), objects)?;
    let rows: Vec<_> = pool_labels().zip(pools.iter().map(|pool| pool.ops)).collect();
    counters(encoder, "trivet_pool", &rows)?;

    let image_labels = || {
        images
            .iter()
            .map(|image| vec![("pool", image.pool.as_str()), ("image", image.path.as_str())])
    };
    let used = image_labels().zip(images.iter().map(|image| image.used));
    gauge(encoder, ("trivet_image_used_bytes", "Data written to the image"), used)?;
    let sizes = image_labels().zip(images.iter().map(|image| Some(image.size)));
    gauge(
        encoder,
        ("trivet_image_size_bytes", "What clients see of the image"),
        sizes,
    )?;
    let rows: Vec<_> = image_labels().zip(images.iter().map(|image| image.ops)).collect();
    counters(encoder, "trivet_image", &rows)
}

/// A gauge with the rows whose value is known.
fn gauge<'a>(
    encoder: &mut DescriptorEncoder,
    (name, help): (&str, &str),
    rows: impl Iterator<Item = (Labels<'a>, Option<u64>)>,
) -> fmt::Result {
    let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
    for (labels, value) in rows {
        if let Some(value) = value {
            metric.encode_family(&labels)?.encode_gauge(&value)?;
        }
    }
    Ok(())
}

fn counters(encoder: &mut DescriptorEncoder, of: &str, rows: &[(Labels<'_>, Option<OpTotals>)]) -> fmt::Result {
    for (name, help, value) in COLUMNS {
        let name = format!("{of}_{name}");
        let mut metric = encoder.encode_descriptor(&name, help, None, MetricType::Counter)?;
        for (labels, ops) in rows {
            for (kind, op) in ops.iter().flat_map(OpTotals::kinds) {
                if op.count == 0 {
                    continue;
                }
                let mut labels = labels.clone();
                labels.push(("op", kind));
                let mut family = metric.encode_family(&labels)?;
                match value(&op) {
                    Value::Whole(value) => family.encode_counter::<NoLabelSet, _, u64>(&value, None)?,
                    Value::Seconds(value) => family.encode_counter::<NoLabelSet, _, f64>(&value, None)?,
                }
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scrape::{Shown, scrape};

    #[test]
    fn pools_and_images_are_there() {
        let total = OpTotal {
            count: 2,
            bytes: 8192,
            time_us: 1500,
        };
        let ops = Some(OpTotals {
            write: total,
            ..OpTotals::default()
        });
        let pool = PoolInfo {
            name: "fast".into(),
            used: Some(8192),
            raw_used: Some(262_144),
            objects: Some(1),
            ops,
            ..PoolInfo::default()
        };
        let mut known = ImageInfo::new("vms/a", "1", 1024);
        (known.pool, known.used, known.ops) = ("fast".into(), Some(8192), ops);
        let shown = Shown {
            pools: vec![pool],
            images: vec![known, ImageInfo::new("unknown", "2", 512)],
            ..Shown::default()
        };
        let text = scrape(Vec::new(), shown);
        for line in [
            "trivet_pool_used_bytes{pool=\"fast\"} 8192",
            "trivet_pool_raw_used_bytes{pool=\"fast\"} 262144",
            "trivet_pool_objects{pool=\"fast\"} 1",
            "trivet_pool_ops_total{pool=\"fast\",op=\"write\"} 2",
            "trivet_image_used_bytes{pool=\"fast\",image=\"vms/a\"} 8192",
            "trivet_image_size_bytes{pool=\"\",image=\"unknown\"} 512",
            "trivet_image_ops_total{pool=\"fast\",image=\"vms/a\",op=\"write\"} 2",
            "trivet_image_op_bytes_total{pool=\"fast\",image=\"vms/a\",op=\"write\"} 8192",
            "trivet_image_op_seconds_total{pool=\"fast\",image=\"vms/a\",op=\"write\"} 0.0015",
        ] {
            assert!(text.lines().any(|given| given == line), "{line} not in\n{text}");
        }
        assert!(!text.contains("trivet_image_used_bytes{pool=\"\""), "not known");
        assert!(!text.contains("op=\"read\""), "there was none");
    }
}
