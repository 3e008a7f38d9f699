//! What the web servers of this machine log: their configuration files in, a configuration for silktail out. Pure but
//! for [`Disk`].
//!
//! [`nginx()`] and [`apache()`] each read a main file and all that it includes, through [`Files`], into a [`Setup`]:
//! the virtual hosts and the logs that each writes. [`configuration`] groups them into sites (`plan`) and writes them
//! down (`render`). What can't be read is never dropped in silence: it is a [`Trouble`], and a comment in what is written.

mod apache;
mod nginx;
mod plan;
mod render;

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use crate::small_file;

pub use apache::read as apache;
pub use nginx::read as nginx;
pub use render::{Made, configuration};

/// How many files are read: files that include each other twice would else double at each depth.
const MAX_FILES: usize = 5_000;
/// How many blocks, or files that include each other, may be open at a place. Real ones have less than ten; what goes through
/// them goes through those inside by calling itself.
const MAX_DEPTH: usize = 100;

/// Where configuration files are found.
pub trait Files {
    /// A file's text.
    ///
    /// # Errors
    /// Those of reading it.
    fn read(&self, path: &Path) -> io::Result<String>;
    /// The files that match a pattern, in order, and the directories that couldn't be looked into.
    fn matching(&self, pattern: &str) -> (Vec<PathBuf>, Vec<(PathBuf, io::Error)>);
}

/// As `glob(3)`, which both servers use: a wildcard takes neither a slash nor a leading dot.
const GLOB: glob::MatchOptions =
    glob::MatchOptions { case_sensitive: true, require_literal_separator: true, require_literal_leading_dot: true };

/// The files of this machine.
#[derive(Debug, Clone, Copy)]
pub struct Disk;

impl Files for Disk {
    fn read(&self, path: &Path) -> io::Result<String> {
        small_file::read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
    }

    fn matching(&self, pattern: &str) -> (Vec<PathBuf>, Vec<(PathBuf, io::Error)>) {
        let (mut found, mut lost) = (Vec::new(), Vec::new());
        // A pattern that is none matches nothing; the caller says what was included in vain.
        for path in glob::glob_with(pattern, GLOB).into_iter().flatten() {
            match path {
                Ok(path) => found.push(path),
                Err(error) => lost.push((error.path().to_path_buf(), error.into())),
            }
        }
        (found, lost)
    }
}

/// Files that are held in memory: `nginx -T`, or a test's.
#[derive(Debug, Clone, Default)]
pub struct Dump {
    files: BTreeMap<PathBuf, String>,
}

impl Dump {
    /// Files by their paths.
    pub fn new<'t>(files: impl IntoIterator<Item = (&'t str, &'t str)>) -> Self {
        Self { files: files.into_iter().map(|(path, text)| (path.into(), text.to_owned())).collect() }
    }

    /// What `nginx -T` prints, and its main file; `None`: it is something else.
    pub fn of_nginx(text: &str) -> Option<(PathBuf, Self)> {
        let mut main = None;
        let mut files: BTreeMap<PathBuf, String> = BTreeMap::new();
        let mut current: Option<PathBuf> = None;
        for line in text.split_inclusive('\n') {
            let header = line.trim_end().strip_prefix("# configuration file ").and_then(|rest| rest.strip_suffix(':'));
            if let Some(path) = header.map(PathBuf::from) {
                main.get_or_insert_with(|| path.clone());
                files.entry(path.clone()).or_default();
                current = Some(path);
            } else if let Some(text) = current.as_ref().and_then(|path| files.get_mut(path)) {
                text.push_str(line);
            }
        }
        Some((main?, Self { files }))
    }
}

impl Files for Dump {
    fn read(&self, path: &Path) -> io::Result<String> {
        self.files
            .get(path)
            .cloned()
            .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "not among the files given"))
    }

    fn matching(&self, pattern: &str) -> (Vec<PathBuf>, Vec<(PathBuf, io::Error)>) {
        let Ok(pattern) = glob::Pattern::new(pattern) else { return (Vec::new(), Vec::new()) };
        (self.files.keys().filter(|path| pattern.matches_path_with(path, GLOB)).cloned().collect(), Vec::new())
    }
}

/// Which web server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Server {
    /// nginx.
    Nginx,
    /// Apache.
    Apache,
}

impl Server {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Server::Nginx => "nginx",
            Server::Apache => "Apache",
        }
    }
}

/// A line of a configuration file.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The file.
    pub file: PathBuf,
    /// Its line, from 1.
    pub line: usize,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file.display(), self.line)
    }
}

/// Something that couldn't be read, or that the user should know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trouble {
    /// Where.
    pub place: Option<Place>,
    /// What.
    pub text: String,
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Some(place) => write!(f, "{place}: {}", self.text),
            None => f.write_str(&self.text),
        }
    }
}

/// What a server's configuration says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setup {
    /// Which server.
    pub server: Server,
    /// The file that was read first.
    pub main: PathBuf,
    /// In the order of the files.
    pub vhosts: Vec<Vhost>,
    /// What couldn't be read.
    pub troubles: Vec<Trouble>,
}

/// A virtual host: nginx's `server`, Apache's `<VirtualHost>` or the main server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Vhost {
    /// Where it begins.
    pub place: Place,
    /// Its names, the primary one first; wildcards only as `*.example.org`.
    pub names: Vec<String>,
    /// It has names, but none that silktail could tell hosts by.
    pub is_unnameable: bool,
    /// Whether it speaks TLS.
    pub tls: bool,
    /// It only redirects or refuses: nothing in it could be downloaded.
    pub only_redirects: bool,
    /// The logs of the server itself, then of each location with its own. Within one list each request is in every log.
    pub logs: Vec<Vec<Log>>,
}

/// A log that a virtual host writes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Log {
    /// Where it is set up.
    pub place: Place,
    /// Where it goes to.
    pub sink: Sink,
    /// How its lines are written.
    pub form: Form,
    /// The condition under which a request is logged.
    pub condition: Option<String>,
    /// Whether it has the requests of all virtual hosts, whoever's it is.
    pub is_everybodys: bool,
    /// What the user should know of it.
    pub notes: Vec<String>,
}

/// Where a log goes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sink {
    /// A file, or as many as the variables in its path have values.
    File(Vec<Piece>),
    /// Nothing that could be followed; it has been named as such.
    Lost,
}

/// A part of a path.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Piece {
    /// As it stands.
    Text(String),
    /// The requested host.
    Host,
    /// The virtual host's primary name.
    ServerName,
    /// Another variable.
    Any,
}

/// How a log's lines are written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Form {
    /// One of silktail's own.
    Builtin(&'static str),
    /// nginx's `log_format`.
    Nginx {
        /// The name it was given.
        name: String,
        /// What stands behind the name, or the whole directive.
        text: String,
    },
    /// Apache's `LogFormat`.
    Apache {
        /// The nickname, or one made up.
        name: String,
        /// The string.
        text: String,
    },
    /// A name that nothing defines.
    Unknown(String),
}

/// A host name from a configuration, as it can stand in a URL or in `hosts`.
fn host_name(text: &str) -> Option<String> {
    let name = text.trim_end_matches('.').to_lowercase();
    let bare = name.strip_prefix("*.").unwrap_or(&name);
    let is_plain = |c: char| c.is_alphanumeric() || matches!(c, '-' | '.' | '_');
    let is_v6 = bare.starts_with('[') && bare.ends_with(']');
    let is_host = !bare.is_empty()
        && !bare.starts_with('.')
        && bare.chars().any(char::is_alphanumeric)
        && (is_v6 || bare.chars().all(is_plain))
        && url::Url::parse(&format!("https://{bare}")).is_ok_and(|url| url.host_str().is_some())
        && crate::rules::Hosts::parse(std::slice::from_ref(&name)).is_ok();
    is_host.then_some(name)
}

/// Whether a path is a terminal, a pipe or nothing at all, whatever the server writes there.
fn is_no_file(path: &str) -> bool {
    ["/dev/", "/proc/"].iter().any(|prefix| path.starts_with(prefix))
}

/// A regular expression, as used in redirects, that every path fits.
fn fits_every_path(pattern: &str) -> bool {
    let inner = pattern.strip_prefix('^').unwrap_or(pattern);
    let inner = inner.strip_suffix('$').unwrap_or(inner);
    let inner = inner.strip_prefix('/').unwrap_or(inner);
    matches!(inner, ".*" | "(.*)" | ".*?" | "(.*?)") || matches!(pattern, "^" | "^/" | "/" | "(.*)" | ".*")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dump_is_cut_into_its_files() {
        let text = "nginx: configuration file /a test is successful\n# configuration file /a:\nhttp {}\n\n\
                    # configuration file /b:\n";
        let (main, dump) = Dump::of_nginx(text).unwrap();
        assert_eq!(main, Path::new("/a"));
        assert_eq!(dump.read(Path::new("/a")).unwrap(), "http {}\n\n");
        assert_eq!(dump.read(Path::new("/b")).unwrap(), "");
        assert!(dump.read(Path::new("/c")).is_err());
        assert!(Dump::of_nginx("user www-data;\n").is_none());
    }

    #[test]
    fn only_what_can_be_a_host_is_a_name() {
        for (text, want) in [
            ("Docs.Example.org.", Some("docs.example.org")),
            ("*.example.org", Some("*.example.org")),
            ("my_host", Some("my_host")),
            ("münchen.example", Some("münchen.example")),
            ("[2001:db8::1]", Some("[2001:db8::1]")),
            ("", None),
            ("_", None),
            ("*", None),
            ("*.", None),
            ("a.*", None),
            ("a b", None),
            ("a/b", None),
            ("a@b", None),
            ("$hostname", None),
            ("\n", None),
        ] {
            assert_eq!(host_name(text).as_deref(), want, "{text:?}");
        }
    }
}
