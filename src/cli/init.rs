//! `silktail init`: a configuration made from the nginx or Apache set-up found on this machine.

use std::fs::OpenOptions;
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use super::{Failure, print, printable, say};
use crate::setup::{self, Disk, Dump, Setup};

/// The arguments of `init`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// nginx's main configuration file, or `-` for the output of `nginx -T` on standard input
    #[arg(long, value_name = "FILE")]
    nginx: Option<PathBuf>,
    /// Apache's main configuration file
    #[arg(long, value_name = "FILE")]
    apache: Option<PathBuf>,
    /// Write to the path of --config, never over an existing file
    #[arg(long)]
    write: bool,
}

/// Where nginx's main file is.
const NGINX: [&str; 1] = ["/etc/nginx/nginx.conf"];
/// Where Apache's main file is, on Debian's kind of systems and on Red Hat's.
const APACHE: [&str; 2] = ["/etc/apache2/apache2.conf", "/etc/httpd/conf/httpd.conf"];

/// How to say where the files are.
const HOW: &str = "say where the main file is with --nginx FILE or --apache FILE, or pipe: \
                   nginx -T | silktail init --nginx -";

/// Prints a configuration, or writes it.
pub fn run(config_path: &Path, args: &Args) -> Result<(), Failure> {
    if args.write && config_path.symlink_metadata().is_ok() {
        return Err(exists(config_path));
    }
    let setups = read(args)?;
    let Some(made) = setup::configuration(&setups) else {
        let files: Vec<String> = setups.iter().map(|setup| shown(&setup.main)).collect();
        for trouble in setups.iter().flat_map(|setup| &setup.troubles) {
            say(&format!("warning: {}", printable(&trouble.to_string())));
        }
        return Err(Failure::Failed(format!("there is no virtual host in {}; {HOW}", files.join(" and "))));
    };
    for trouble in &made.troubles {
        say(&format!("warning: {}", printable(&trouble.to_string())));
    }
    if !args.write {
        return print(&made.toml);
    }
    write(config_path, &made.toml)?;
    let keys =
        if made.sites == 1 { "the key of its site".to_owned() } else { format!("the keys of {} sites", made.sites) };
    say(&format!("{} is written: fill in {keys}, then run `silktail check`", shown(config_path)));
    Ok(())
}

/// What the servers say. Without a path, each server's own is looked at, and one that isn't there is not missed.
fn read(args: &Args) -> Result<Vec<Setup>, Failure> {
    let mut setups = Vec::new();
    if args.nginx.is_some() || args.apache.is_some() {
        if let Some(path) = &args.nginx {
            setups.push(if path.as_os_str() == "-" { nginx_dump()? } else { given(path, setup::nginx)? });
        }
        if let Some(path) = &args.apache {
            setups.push(given(path, setup::apache)?);
        }
        return Ok(setups);
    }
    search(&NGINX, &APACHE)
}

type Reader = fn(&Path, &dyn setup::Files) -> io::Result<Setup>;

/// What is at the usual places.
fn search(nginx_paths: &[&str], apache_paths: &[&str]) -> Result<Vec<Setup>, Failure> {
    let mut setups = Vec::new();
    let mut lost = Vec::new();
    let nginx = nginx_paths.iter().map(|path| (path, setup::nginx as Reader));
    let apache = apache_paths.iter().map(|path| (path, setup::apache as Reader));
    for (path, reader) in nginx.chain(apache) {
        match reader(Path::new(path), &Disk) {
            Ok(setup) => setups.push(setup),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => lost.push(format!("cannot read {path}: {error}")),
        }
    }
    if !setups.is_empty() {
        for text in lost {
            say(&format!("warning: {text}"));
        }
        return Ok(setups);
    }
    if !lost.is_empty() {
        return Err(Failure::Failed(format!("{}; run it as root, or {HOW}", lost.join("; "))));
    }
    let places: Vec<&str> = nginx_paths.iter().chain(apache_paths).copied().collect();
    Err(Failure::Failed(format!("found neither nginx nor Apache: looked at {}; {HOW}", places.join(", "))))
}

fn given(path: &Path, reader: Reader) -> Result<Setup, Failure> {
    // Logs are written down as whole paths.
    let whole = std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf());
    reader(&whole, &Disk).map_err(|error| Failure::Failed(format!("cannot read {}: {error}", shown(path))))
}

fn nginx_dump() -> Result<Setup, Failure> {
    let mut bytes = Vec::new();
    let failed = |error: io::Error| Failure::Failed(format!("cannot read standard input: {error}"));
    io::stdin().lock().read_to_end(&mut bytes).map_err(failed)?;
    let text = String::from_utf8_lossy(&bytes);
    let Some((main, files)) = Dump::of_nginx(&text) else {
        let text = "standard input is not the output of `nginx -T` (which needs root): it has no line \
                    `# configuration file …:`";
        return Err(Failure::Failed(text.to_owned()));
    };
    setup::nginx(&main, &files).map_err(failed)
}

/// Writes a file that isn't there yet. It will hold keys: others than its owner and group needn't read it.
fn write(path: &Path, text: &str) -> Result<(), Failure> {
    let failed = |error: io::Error| Failure::Failed(format!("cannot write {}: {error}", shown(path)));
    let mut file = match OpenOptions::new().write(true).create_new(true).mode(0o640).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Err(exists(path)),
        Err(error) => return Err(failed(error)),
    };
    file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(|error| {
        // Half a configuration would only be in the way of the next try.
        let _ = std::fs::remove_file(path);
        failed(error)
    })
}

fn exists(path: &Path) -> Failure {
    Failure::Failed(format!(
        "{} exists already, nothing was written: without --write the configuration is printed",
        shown(path)
    ))
}

fn shown(path: &Path) -> String {
    printable(&path.display().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(result: Result<Vec<Setup>, Failure>) -> String {
        match result {
            Err(Failure::Failed(text)) => text,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn where_nothing_is_found_it_says_where_it_looked_and_how_to_go_on() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name).display().to_string();
        let (none, dir) = (path("none"), path(""));
        let text = said(search(&[&none], &[&none]));
        for what in ["neither nginx nor Apache", none.as_str(), "--nginx FILE", "--apache FILE", "nginx -T"] {
            assert!(text.contains(what), "{what}: {text}");
        }
        // What is there and can't be read is something else.
        let text = said(search(&[&none], &[&dir]));
        assert!(text.contains(&format!("cannot read {dir}")) && text.contains("root"), "{text}");
        std::fs::write(folder.path().join("nginx.conf"), "events {}").unwrap();
        let found = search(&[&path("nginx.conf")], &[&dir]).unwrap();
        assert_eq!(found.len(), 1, "one that can be read is enough");
    }
}
