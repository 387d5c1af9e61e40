//! The one binary `trivet`: `up` runs the cluster, everything else asks its admin API over HTTP.
//!
//! Promises: what goes wrong is one line on stderr, `trivet: ...`, and exit code 1 (a usage error may show clap's
//! explanation instead); results go to stdout, as a table or with `--json` as the API's JSON, and so do failures to stderr.

mod args;
mod client;
mod commands;
mod failure;
mod render;
mod roles;
mod scrub;
mod size;
mod terminal;
mod up;

use std::io::{self, Write};
use std::os::unix::process::CommandExt;
use std::process::ExitCode;

use anyhow::{Context, anyhow};
use clap::Parser;
use trivet_node::data::Fenced;

use args::{Ask, Cli, Command};
use client::Client;
use mimalloc::MiMalloc;
use roles::args::{GatewayArgs, MonArgs, OsdRole};

/// Small writes take a tenth less time than with the allocator of glibc (decision 0011).
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return failure::usage(&error),
    };
    let json = cli.json;
    match run(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if error.is::<Fenced>() => begin_anew(&error),
        Err(error) => failure::tell(json, &error),
    }
}

/// The same command takes the place of this process.
fn begin_anew(why: &anyhow::Error) -> ExitCode {
    failure::say(&why.to_string());
    let mut command = std::process::Command::new("/proc/self/exe");
    let error = command.args(std::env::args_os().skip(1)).exec();
    failure::say(&format!("cannot begin anew: {error}"))
}

fn run(cli: Cli) -> anyhow::Result<()> {
    match cli.command {
        Command::Up(args) => up::run(&args),
        Command::Osd(OsdRole::Format(args)) => roles::osd::format(&args),
        Command::Osd(OsdRole::Run(args)) => roles::osd::run(&args),
        Command::Mon(MonArgs { list: Some(_), .. }) => ask(cli.api, &Ask::Mons, cli.json),
        Command::Gateway(GatewayArgs { list: Some(_), .. }) => ask(cli.api, &Ask::Gateways, cli.json),
        Command::Mon(args) => roles::mon::run(&args),
        Command::Gateway(args) => roles::gateway::run(&args),
        Command::Osd(OsdRole::Ask(command)) => ask(cli.api, &Ask::Osd(command), cli.json),
        Command::Ask(question) => ask(cli.api, &question, cli.json),
    }
}

/// Asks the admin API.
fn ask(api: Option<String>, ask: &Ask, json: bool) -> anyhow::Result<()> {
    let client = Client::new(api)?;
    let answer = commands::run(&client, ask, json)?;
    print(&answer.text)?;
    answer.problem.map_or(Ok(()), |problem| Err(anyhow!(problem)))
}

/// To stdout; a reader that has gone away (`| head`) is no failure.
fn print(text: &str) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error).context("cannot write to stdout"),
        _ => Ok(()),
    }
}
