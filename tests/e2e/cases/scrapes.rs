//! What is scraped costs clients nothing: series come and go with their images, and ten thousand images read every second
//! leave the latency of writes as it is.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use trivet_e2e::nbd::Nbd;
use trivet_e2e::rng::Rng;
use trivet_e2e::{Cluster, Server, sized};

use crate::command_line::{http, http_at};

/// Who makes images at once.
const MAKERS: u64 = 8;
/// The image that is written.
const SIZE: u64 = 256 << 20;
const BLOCK: u64 = 4096;
/// Between scrapes.
const PERIOD: Duration = Duration::from_secs(1);

fn post(port: u16, path: &str, body: &str) -> Result<()> {
    use std::io::{Read, Write};
    let mut stream = std::net::TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(Duration::from_secs(60)))?;
    let length = body.len();
    write!(
        stream,
        "POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
    )?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    ensure!(text.starts_with("HTTP/1.1 201"), "{text}");
    Ok(())
}

/// Many images, in directories of a hundred.
fn make_images(port: u16, count: u64) -> Result<()> {
    let next = AtomicU64::new(0);
    thread::scope(|scope| {
        let make = || -> Result<()> {
            loop {
                let n = next.fetch_add(1, Relaxed);
                if n >= count {
                    return Ok(());
                }
                let body = format!(r#"{{"path": "hosts/rack{}/vm{n}", "size": 1073741824}}"#, n / 100);
                post(port, "/api/v1/images", &body)?;
            }
        };
        let makers: Vec<_> = (0..MAKERS).map(|_| scope.spawn(make)).collect();
        let joined = makers.into_iter().map(|maker| maker.join().expect("no panic"));
        joined.collect::<Result<Vec<()>>>()
    })?;
    Ok(())
}

/// How long writes of 4 KiB take, one after the other, for so long.
fn write_for(nbd: &mut Nbd, rng: &mut Rng, time: Duration) -> Result<Vec<Duration>> {
    let (data, started) = (vec![0x5a; usize::try_from(BLOCK)?], Instant::now());
    let mut took = Vec::new();
    while started.elapsed() < time {
        let began = Instant::now();
        nbd.write(rng.below(SIZE / BLOCK) * BLOCK, &data)?;
        took.push(began.elapsed());
    }
    Ok(took)
}

/// Scrapes every second until it is told to stop; how long the scrapes took and how long the last text is.
fn scrape_until(port: u16, stop: &AtomicBool) -> Result<(Vec<Duration>, usize)> {
    let (mut took, mut length) = (Vec::new(), 0);
    while !stop.load(Relaxed) {
        let began = Instant::now();
        length = http_at(port, "/metrics")?.len();
        took.push(began.elapsed());
        while began.elapsed() < PERIOD && !stop.load(Relaxed) {
            thread::sleep(Duration::from_millis(20));
        }
    }
    Ok((took, length))
}

/// The value below which so many thousandths of these are, microseconds.
fn quantile(times: &mut [Duration], thousandths: usize) -> u128 {
    times.sort_unstable();
    times[(times.len() * thousandths / 1000).min(times.len() - 1)].as_micros()
}

#[test]
fn scraping_many_images_leaves_writes_alone() -> Result<()> {
    let cluster = Cluster::alone()?;
    let server = cluster.start()?;
    let (port, images) = (server.ports.http, sized(200, 10_000));
    make_images(port, images)?;
    server.admin("image create load --size 256M")?;
    let mut nbd = Nbd::open(server.ports.nbd, "load")?;
    let mut rng = Rng::new(7);
    let window = Duration::from_secs(sized(1, 10));
    write_for(&mut nbd, &mut rng, window)?;
    let (mut quiet, mut scraped, mut scrapes, mut ratios) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let mut length = 0;
    for _ in 0..sized(2, 8) {
        let mut alone = write_for(&mut nbd, &mut rng, window)?;
        let stop = AtomicBool::new(false);
        let mut watched = thread::scope(|scope| -> Result<Vec<Duration>> {
            let scraper = scope.spawn(|| scrape_until(port, &stop));
            let took = write_for(&mut nbd, &mut rng, window);
            stop.store(true, Relaxed);
            let (took_scrapes, text) = scraper.join().expect("no panic")?;
            scrapes.extend(took_scrapes);
            length = text;
            took
        })?;
        ratios.push(quantile(&mut watched, 990) * 1000 / quantile(&mut alone, 990).max(1));
        quiet.append(&mut alone);
        scraped.append(&mut watched);
    }
    ratios.sort_unstable();
    println!(
        "{images} images, a scrape of {} KiB every second takes {} ms; 4 KiB writes: p50 {} us, p99 {} us without, p50 {} us, \
         p99 {} us with scrapes; p99 by pairs x {:?} thousandths, median {}",
        length >> 10,
        quantile(&mut scrapes, 500) / 1000,
        quantile(&mut quiet, 500),
        quantile(&mut quiet, 990),
        quantile(&mut scraped, 500),
        quantile(&mut scraped, 990),
        ratios,
        ratios[ratios.len() / 2],
    );
    let text = http(&server, "/metrics")?;
    let series = text.lines().filter(|line| line.starts_with("trivet_image_size_bytes{"));
    ensure!(series.count() as u64 > images, "each image has its series");
    server.stop()?;
    Ok(())
}

/// The series that name an image, by its path.
fn series(server: &Server, path: &str) -> Result<Vec<String>> {
    let text = http(server, "/metrics")?;
    let (image, export) = (format!("image=\"{path}\""), format!("export=\"{path}\""));
    let named = text
        .lines()
        .filter(|line| line.contains(&image) || line.contains(&export));
    Ok(named.map(str::to_owned).collect())
}

#[test]
fn series_follow_the_names_of_images_and_go_with_them() -> Result<()> {
    let cluster = Cluster::new()?;
    let server = cluster.start()?;
    server.admin("image create first --size 64M")?;
    Nbd::open(server.ports.nbd, "first")?.write(0, &[1; 4096])?;
    // Exports are listed anew several times a second.
    let counted = |path: &str| -> Result<bool> {
        let started = Instant::now();
        while started.elapsed() < Duration::from_secs(10) {
            let found = series(&server, path)?;
            let writes = "op=\"write\"} 1";
            if found
                .iter()
                .any(|line| line.starts_with("trivet_ops_total") && line.ends_with(writes))
            {
                return Ok(true);
            }
            thread::sleep(Duration::from_millis(100));
        }
        Ok(false)
    };
    ensure!(counted("first")?, "{:?}", series(&server, "first")?);
    server.admin("image rename first second")?;
    ensure!(series(&server, "first")?.is_empty(), "{:?}", series(&server, "first")?);
    ensure!(counted("second")?, "{:?}", series(&server, "second")?);
    server.admin("image rm second")?;
    let left = series(&server, "second")?;
    ensure!(left.is_empty(), "{left:?}");
    println!("series went with their image");
    server.stop()?;
    Ok(())
}
