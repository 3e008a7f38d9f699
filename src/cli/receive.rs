//! `silktail receive`: a local endpoint that checks every POST against the API and prints it.

use std::net::SocketAddr;

use super::{Failure, print, say};
use crate::receive::{Received, Receiver};

/// The arguments of `receive`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Where to listen; port 0 takes a free one
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8099")]
    listen: SocketAddr,
}

/// Receives until it is stopped.
pub fn run(args: &Args) -> Result<(), Failure> {
    let failed = |what: &str, error: std::io::Error| Failure::Failed(format!("{what}: {error}"));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| failed("cannot start", error))?;
    runtime.block_on(async {
        use tokio::signal::unix::{SignalKind, signal};
        let mut term = signal(SignalKind::terminate()).map_err(|error| failed("cannot handle signals", error))?;
        let mut int = signal(SignalKind::interrupt()).map_err(|error| failed("cannot handle signals", error))?;
        let (mut receiver, mut posts) = Receiver::bind(args.listen)
            .await
            .map_err(|error| failed(&format!("cannot listen on {}", args.listen), error))?;
        say(&format!("listening; in the configuration:\n\n[endpoint]\nurl = \"{}\"\n", receiver.url()));
        let result = loop {
            tokio::select! {
                post = posts.recv() => match post {
                    Some(post) => if let Err(failure) = show(&post) { break Err(failure) },
                    None => break Ok(()),
                },
                _ = term.recv() => break Ok(()),
                _ = int.recv() => break Ok(()),
            }
        };
        receiver.stop();
        result
    })
}

fn show(post: &Received) -> Result<(), Failure> {
    for problem in &post.problems {
        say(&format!("wrong: {}", super::printable(problem)));
    }
    let body = String::from_utf8_lossy(&post.body);
    print(&format!("{}\n", super::printable(&body)))
}
