//! Apache's configuration: its files in, virtual hosts and their logs out. Pure.
//!
//! Apache reads line by line, and what a line means depends on those before it (`Define`, `LoadModule`, the sections
//! that are open), so this does the same: one pass, the scope of the main server below that of the virtual host.

use std::collections::{HashMap, HashSet};
use std::io;
use std::path::{Path, PathBuf};

use super::{
    Files, Form, Log, MAX_DEPTH, MAX_FILES, Piece, Place, Server, Setup, Sink, Trouble, Vhost, fits_every_path,
    host_name, is_no_file,
};

/// The version that `<IfVersion>` is held against: the one that everybody has.
const VERSION: [u32; 3] = [2, 4, 60];

/// Modules that are compiled in where others are loaded.
const COMPILED_IN: [&str; 10] =
    ["core", "so", "http", "log_config", "logio", "version", "unixd", "watchdog", "mpm_event", "mpm_prefork"];

/// Bytes of a line with its variables, of which each may hold others twice: Apache itself takes lines of up to 8 KiB.
const MAX_EXPANDED: usize = 16 * 1024;
/// Bytes of all lines that have variables.
const MAX_EXPANDED_ALL: usize = 64 * 1024 * 1024;

/// Reads a main configuration file and all that it includes; beside it, `envvars`.
///
/// # Errors
/// Those of reading the main file; others are [`Setup::troubles`].
pub fn read(main: &Path, files: &dyn Files) -> io::Result<Setup> {
    let text = files.read(main)?;
    let folder = main.parent().unwrap_or(Path::new("/"));
    let variables = files.read(&folder.join("envvars")).map(|text| envvars(&text)).unwrap_or_default();
    let root = match folder.file_name() {
        Some(name) if name == "conf" => folder.parent().unwrap_or(folder),
        _ => folder,
    };
    let place = Place { file: main.to_path_buf(), line: 1 };
    let mut reader = Reader {
        files,
        root: root.to_path_buf(),
        variables,
        defined: HashSet::new(),
        modules: HashSet::new(),
        sections: Vec::new(),
        scope: Scope::new(place.clone()),
        outer: None,
        vhosts: Vec::new(),
        listens: Vec::new(),
        troubles: Vec::new(),
        read: 1,
        expanded: 0,
        open: Vec::new(),
    };
    reader.file(main, &text);
    Ok(reader.setup(main))
}

/// A directive's argument.
#[derive(Debug, Clone)]
struct Word {
    /// Without quotes, `\"` undone.
    text: String,
    /// As it stands between its quotes; with them where it begins with another.
    raw: String,
}

/// What a server, main or virtual, has set up.
struct Scope {
    place: Place,
    addresses: Vec<String>,
    name: Option<String>,
    aliases: Vec<String>,
    lost_names: bool,
    tls: Option<bool>,
    only_redirects: bool,
    logs: Vec<Written>,
    /// `LogFormat` with a nickname.
    formats: HashMap<String, Word>,
    /// `LogFormat` without, which `TransferLog` takes.
    transfer: Option<Word>,
}

/// A log before it is known what its nickname stands for.
struct Written {
    place: Place,
    path: String,
    /// The format's string or nickname; `None`: `TransferLog`.
    format: Option<Word>,
    condition: Option<String>,
    global: bool,
}

impl Scope {
    fn new(place: Place) -> Self {
        Self {
            place,
            addresses: Vec::new(),
            name: None,
            aliases: Vec::new(),
            lost_names: false,
            tls: None,
            only_redirects: false,
            logs: Vec::new(),
            formats: HashMap::new(),
            transfer: None,
        }
    }
}

/// A section that is open.
struct Section {
    name: String,
    place: Place,
    /// Whether what stands in it holds.
    holds: bool,
    /// Whether it is about some requests only, so that it says nothing about the server.
    narrows: bool,
}

struct Reader<'f> {
    files: &'f dyn Files,
    /// `ServerRoot`.
    root: PathBuf,
    variables: HashMap<String, String>,
    defined: HashSet<String>,
    modules: HashSet<String>,
    sections: Vec<Section>,
    /// Of the virtual host, or of the main server outside of one.
    scope: Scope,
    /// Of the main server, within a virtual host.
    outer: Option<Scope>,
    vhosts: Vec<Scope>,
    /// Ports that are listened on.
    listens: Vec<String>,
    troubles: Vec<Trouble>,
    read: usize,
    /// Bytes of the lines with variables so far.
    expanded: usize,
    /// The files around the place that is read.
    open: Vec<PathBuf>,
}

impl Reader<'_> {
    fn trouble(&mut self, place: &Place, text: impl Into<String>) {
        self.troubles.push(Trouble { place: Some(place.clone()), text: text.into() });
    }

    fn file(&mut self, file: &Path, text: &str) {
        self.open.push(file.to_path_buf());
        let open = self.sections.len();
        let mut lines = text.lines().enumerate();
        while let Some((index, first)) = lines.next() {
            let mut line = first.to_owned();
            // A backslash at the end continues the line, in comments too.
            while line.ends_with('\\') {
                line.pop();
                match lines.next() {
                    Some((_, more)) => line.push_str(more),
                    None => break,
                }
            }
            let line = line.trim().trim_start_matches('\u{feff}');
            if !line.is_empty() && !line.starts_with('#') {
                let place = Place { file: file.to_path_buf(), line: index + 1 };
                self.line(&place, line);
            }
        }
        // A section ends in the file in which it began.
        while self.sections.len() > open {
            if let Some(section) = self.sections.last() {
                let (place, text) = (section.place.clone(), format!("`<{}>` is never closed", section.name));
                self.trouble(&place, text);
            }
            self.close();
        }
        self.open.pop();
    }

    fn line(&mut self, place: &Place, line: &str) {
        if let Some(name) = line.strip_prefix("</") {
            let name = name.trim_end_matches('>').trim();
            match self.sections.last() {
                Some(section) if section.name.eq_ignore_ascii_case(name) => self.close(),
                _ => self.trouble(place, format!("`</{name}>` closes nothing")),
            }
            return;
        }
        let holds = self.sections.iter().all(|section| section.holds);
        let line = if holds { self.expand(line) } else { Some(line.to_owned()) };
        let Some(line) = line else {
            let (most, all) = (MAX_EXPANDED >> 10, MAX_EXPANDED_ALL >> 20);
            let text = format!("passed over: variables make it longer than {most} KiB, or all lines than {all} MiB");
            self.trouble(place, text);
            return;
        };
        if let Some(inner) = line.strip_prefix('<') {
            let inner = inner.strip_suffix('>').unwrap_or(inner);
            let (name, rest) = inner.split_once(char::is_whitespace).unwrap_or((inner, ""));
            self.open(place, name, rest.trim(), holds);
            return;
        }
        let (name, rest) = line.split_once(char::is_whitespace).unwrap_or((&line, ""));
        let name = name.to_ascii_lowercase();
        if !holds {
            let what = matches!(name.as_str(), "customlog" | "transferlog" | "globallog");
            // Within a virtual host that is passed over, that has been said.
            if what && !self.sections.iter().any(|section| section.name.eq_ignore_ascii_case("virtualhost")) {
                self.trouble(place, "passed over, since the section around it doesn't hold here");
            }
            return;
        }
        self.directive(place, &name, &words(rest));
    }

    fn open(&mut self, place: &Place, name: &str, argument: &str, holds: bool) {
        let lower = name.to_ascii_lowercase();
        let mut section = Section { name: name.to_owned(), place: place.clone(), holds: true, narrows: false };
        let (negated, plain) = argument.strip_prefix('!').map_or((false, argument), |rest| (true, rest.trim()));
        let plain = plain.trim_matches('"');
        match lower.as_str() {
            "ifdefine" => section.holds = (self.defined.contains(plain)) != negated,
            "ifmodule" => section.holds = self.has_module(plain) != negated,
            "ifversion" => section.holds = version_fits(plain) != negated,
            "iffile" => section.holds = self.files.read(&self.root.join(plain)).is_ok() != negated,
            "ifdirective" | "ifsection" => {}
            "macro" => {
                section.holds = false;
                if holds {
                    self.trouble(place, "`<Macro>`: what it makes is not read, add its virtual hosts by hand");
                }
            }
            "virtualhost" if holds && self.outer.is_none() => {
                let mut scope = Scope::new(place.clone());
                scope.addresses = words(argument).into_iter().map(|word| word.text).collect();
                self.outer = Some(std::mem::replace(&mut self.scope, scope));
            }
            "virtualhost" => {
                section.holds = false;
                let why = if holds { "one within another" } else { "the section around it doesn't hold here" };
                self.trouble(place, format!("`<VirtualHost {argument}>` is passed over: {why}"));
            }
            _ => section.narrows = true,
        }
        self.sections.push(section);
    }

    fn close(&mut self) {
        let Some(section) = self.sections.pop() else { return };
        if section.holds
            && section.name.eq_ignore_ascii_case("virtualhost")
            && let Some(outer) = self.outer.take()
        {
            let scope = std::mem::replace(&mut self.scope, outer);
            self.vhosts.push(scope);
        }
    }

    fn directive(&mut self, place: &Place, name: &str, words: &[Word]) {
        let text = |index: usize| words.get(index).map(|word| word.text.as_str()).unwrap_or_default();
        match name {
            "include" | "includeoptional" => {
                for word in words {
                    self.include(place, &word.text, name == "include");
                }
                return;
            }
            "define" if !words.is_empty() => {
                self.defined.insert(text(0).to_owned());
                if words.len() > 1 {
                    self.variables.insert(text(0).to_owned(), text(1).to_owned());
                }
                return;
            }
            "undefine" => {
                self.defined.remove(text(0));
                self.variables.remove(text(0));
                return;
            }
            "use" => {
                self.trouble(place, format!("`Use {}`: macros are not read, add its virtual hosts by hand", text(0)));
                return;
            }
            _ => {}
        }
        if self.sections.iter().any(|section| section.narrows) {
            return;
        }
        match name {
            "loadmodule" => {
                self.modules.insert(module_name(text(0)));
            }
            "serverroot" => self.root = self.root.join(text(0)),
            "listen" => {
                let port = text(0).rsplit(':').next().unwrap_or_default().to_owned();
                self.listens.push(port);
            }
            "servername" => {
                let name = text(0);
                let bare = name.split_once("://").map_or(name, |(_, rest)| rest);
                let bare = match bare.rsplit_once(':') {
                    Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) && !host.ends_with(':') => {
                        host
                    }
                    _ => bare,
                };
                match host_name(bare).filter(|name| !name.starts_with("*.")) {
                    Some(name) => self.scope.name = Some(name),
                    None => {
                        self.scope.lost_names = true;
                        self.trouble(place, format!("ServerName `{name}` is no host name"));
                    }
                }
            }
            "serveralias" => {
                for word in words {
                    match host_name(&word.text) {
                        Some(name) => self.scope.aliases.push(name),
                        None => {
                            self.scope.lost_names = true;
                            let why = "is neither a name nor like `*.example.org`: list the names in `hosts`";
                            self.trouble(place, format!("ServerAlias `{}` {why}", word.text));
                        }
                    }
                }
            }
            "sslengine" => self.scope.tls = Some(!text(0).eq_ignore_ascii_case("off")),
            "redirect" | "redirectpermanent" | "redirecttemp" => {
                let from = words.iter().take(2).find(|word| word.text.starts_with('/'));
                self.scope.only_redirects |= from.is_some_and(|word| word.text == "/");
            }
            "redirectmatch" => {
                let pattern = if words.len() > 2 { text(1) } else { text(0) };
                self.scope.only_redirects |= fits_every_path(pattern);
            }
            "logformat" => match (words.first(), words.get(1)) {
                (Some(format), Some(nickname)) => {
                    self.scope.formats.insert(nickname.text.clone(), format.clone());
                }
                (Some(format), None) => self.scope.transfer = Some(format.clone()),
                _ => {}
            },
            "customlog" | "globallog" | "transferlog" if !words.is_empty() => {
                let condition = words.get(2).map(|word| word.text.clone());
                self.scope.logs.push(Written {
                    place: place.clone(),
                    path: text(0).to_owned(),
                    format: words.get(1).filter(|_| name != "transferlog").cloned(),
                    condition: condition.filter(|text| text.starts_with("env=") || text.starts_with("expr=")),
                    global: name == "globallog",
                });
            }
            _ => {}
        }
    }

    fn include(&mut self, place: &Place, argument: &str, required: bool) {
        let path = self.root.join(argument);
        let mut paths = vec![path.clone()];
        if argument.contains(['*', '?', '[']) {
            paths = self.matching(place, &path);
            if paths.is_empty() && required {
                self.trouble(place, format!("nothing matches the included {}", path.display()));
            }
        }
        for path in paths {
            self.read += 1;
            let is_deep = self.open.len() >= MAX_DEPTH;
            if self.read > MAX_FILES || is_deep || self.open.contains(&path) {
                // Said once: it would be the same for each of thousands.
                if self.read <= MAX_FILES + 1 {
                    let why = match self.open.contains(&path) {
                        true => "it would be in itself",
                        false if is_deep => "too many files are open around it",
                        false => "too many files",
                    };
                    self.trouble(place, format!("{} isn't included: {why}", path.display()));
                }
                continue;
            }
            match self.files.read(&path) {
                Ok(text) => self.file(&path, &text),
                // A directory stands for all that is in it.
                Err(error) if error.kind() == io::ErrorKind::IsADirectory => {
                    for inner in self.matching(place, &path.join("*")) {
                        self.include(place, &inner.to_string_lossy(), false);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound && !required => {}
                Err(error) => self.trouble(place, format!("cannot read the included {}: {error}", path.display())),
            }
        }
    }

    fn matching(&mut self, place: &Place, pattern: &Path) -> Vec<PathBuf> {
        let (found, lost) = self.files.matching(&pattern.to_string_lossy());
        for (path, error) in lost {
            self.trouble(place, format!("cannot look into {}: {error}", path.display()));
        }
        found
    }

    /// `${NAME}` as far as it is known; Apache leaves the rest as it stands. `None`: it becomes too long, or all of them
    /// do.
    fn expand(&mut self, line: &str) -> Option<String> {
        if !line.contains("${") {
            return Some(line.to_owned());
        }
        let mut out = String::new();
        let mut rest = line;
        while let Some(at) = rest.find("${") {
            out.push_str(&rest[..at]);
            let after = &rest[at + 2..];
            match after.find('}').and_then(|end| Some((self.variables.get(&after[..end])?, end))) {
                Some((value, end)) => {
                    out.push_str(value);
                    rest = &after[end + 1..];
                    if out.len() > MAX_EXPANDED {
                        return None;
                    }
                }
                None => {
                    out.push_str("${");
                    rest = after;
                }
            }
        }
        out.push_str(rest);
        self.expanded += out.len();
        (self.expanded <= MAX_EXPANDED_ALL).then_some(out)
    }

    /// Whether a module is there, as far as the files tell: where none is loaded, all may be compiled in.
    fn has_module(&self, name: &str) -> bool {
        let name = module_name(name);
        self.modules.is_empty() || self.modules.contains(&name) || COMPILED_IN.contains(&name.as_str())
    }

    fn setup(mut self, main: &Path) -> Setup {
        let main_scope = std::mem::replace(&mut self.scope, Scope::new(Place { file: main.to_path_buf(), line: 1 }));
        let scopes = std::mem::take(&mut self.vhosts);
        // The main server answers where no virtual host does.
        let is_taken = |port: &str| {
            scopes.iter().flat_map(|scope| &scope.addresses).any(|address| match address.rsplit_once(':') {
                Some((host, taken)) => matches!(host, "*" | "_default_") && (taken == port || taken == "*"),
                None => matches!(address.as_str(), "*" | "_default_"),
            })
        };
        let answers =
            if self.listens.is_empty() { scopes.is_empty() } else { self.listens.iter().any(|port| !is_taken(port)) };
        let mut vhosts = Vec::new();
        // A nickname is looked up when all has been read.
        let inherited = self.logs(&main_scope, &main_scope, true);
        if answers && !main_scope.logs.is_empty() {
            vhosts.push(self.vhost(&main_scope, &main_scope, &inherited));
        }
        for scope in &scopes {
            vhosts.push(self.vhost(scope, &main_scope, &inherited));
        }
        // The main server's are named whoever writes them, but once.
        let mut troubles: Vec<Trouble> = Vec::new();
        for trouble in self.troubles {
            if !troubles.contains(&trouble) {
                troubles.push(trouble);
            }
        }
        Setup { server: Server::Apache, main: main.to_path_buf(), vhosts, troubles }
    }

    fn vhost(&mut self, scope: &Scope, main: &Scope, inherited: &[Log]) -> Vhost {
        let own = self.logs(scope, main, false);
        let mut names: Vec<String> = Vec::new();
        for name in scope.name.iter().chain(&scope.aliases) {
            if !names.contains(name) {
                names.push(name.clone());
            }
        }
        let is_443 = scope.addresses.iter().any(|address| address.ends_with(":443"));
        Vhost {
            place: scope.place.clone(),
            is_unnameable: scope.lost_names && names.is_empty(),
            names,
            tls: scope.tls.or(main.tls).unwrap_or(false) || is_443,
            only_redirects: scope.only_redirects,
            logs: vec![if scope.logs.is_empty() { inherited.to_vec() } else { own }],
        }
    }

    /// The logs that a server sets up itself. Those of `GlobalLog` only where there is no other: it repeats them.
    fn logs(&mut self, scope: &Scope, main: &Scope, inherited: bool) -> Vec<Log> {
        let is_global = |log: &&Written| log.global;
        let only_global = inherited && scope.logs.iter().all(|log| log.global);
        let chosen = scope.logs.iter().filter(|log| only_global || !is_global(log));
        let mut out = Vec::new();
        for log in chosen {
            if log.path == "/dev/null" {
                continue;
            }
            out.push(Log {
                place: log.place.clone(),
                sink: self.sink(log),
                form: form(log, scope, main),
                condition: log.condition.clone(),
                is_everybodys: log.global,
                notes: Vec::new(),
            });
        }
        out
    }

    fn sink(&mut self, log: &Written) -> Sink {
        let path = log.path.as_str();
        let why = if path.starts_with('|') {
            "a piped log can't be followed; where the program writes files (rotatelogs), add their pattern to `logs`"
        } else if path.starts_with("syslog") {
            "a log that goes to syslog can't be followed"
        } else if is_no_file(path) {
            "no file: a log that goes there can't be followed"
        } else if path.contains("${") {
            "a variable that nothing sets: see how Apache is started"
        } else if path.is_empty() {
            "no path"
        } else {
            return Sink::File(vec![Piece::Text(self.root.join(path).to_string_lossy().into_owned())]);
        };
        self.trouble(&log.place, format!("`{path}`: {why}"));
        Sink::Lost
    }
}

fn form(log: &Written, scope: &Scope, main: &Scope) -> Form {
    let (name, word) = match &log.format {
        None => match scope.transfer.as_ref().or(main.transfer.as_ref()) {
            Some(word) => ("transfer", word.clone()),
            None => return Form::Builtin("common"),
        },
        Some(word) => match scope.formats.get(&word.text).or_else(|| main.formats.get(&word.text)) {
            Some(format) => (word.text.as_str(), format.clone()),
            None if word.text.eq_ignore_ascii_case("clf") => return Form::Builtin("common"),
            None if word.text.contains('%') => ("custom", word.clone()),
            // Apache would write the nickname itself on every line.
            None => return Form::Unknown(word.text.clone()),
        },
    };
    match builtin(&word.text) {
        Some(name) => Form::Builtin(name),
        None => Form::Apache { name: name.to_owned(), text: word.raw },
    }
}

/// The name by which silktail knows a format.
fn builtin(text: &str) -> Option<&'static str> {
    // These are written alike: bytes with and without the head, and headers in any case.
    let plain = text.replace("%O", "%b").replace("%B", "%b").to_ascii_lowercase();
    Some(match plain.as_str() {
        r#"%h %l %u %t "%r" %>s %b"# => "common",
        r#"%h %l %u %t "%r" %>s %b "%{referer}i" "%{user-agent}i""# => "combined",
        r#"%v:%p %h %l %u %t "%r" %>s %b "%{referer}i" "%{user-agent}i""# => "vhost_combined",
        _ => return None,
    })
}

/// Cuts a directive's arguments.
fn words(text: &str) -> Vec<Word> {
    let mut out = Vec::new();
    let mut rest = text.trim_start();
    while let Some(first) = rest.chars().next() {
        let (word, behind) = if matches!(first, '"' | '\'') {
            let inner = &rest[1..];
            let mut escaped = false;
            let end = inner.find(|c: char| {
                let ends = c == first && !escaped;
                escaped = c == '\\' && !escaped;
                ends
            });
            let raw = &inner[..end.unwrap_or(inner.len())];
            let behind = end.map_or("", |end| &inner[end + 1..]);
            // Apache undoes these two; what else a backslash means is the directive's own.
            let plain = raw.replace(&format!("\\{first}"), &first.to_string()).replace("\\\\", "\\");
            // Alone, a string that begins with a quote could be taken for one in quotes.
            let raw = if raw.starts_with(['"', '\'']) { format!("{first}{raw}{first}") } else { raw.to_owned() };
            (Word { text: plain, raw }, behind)
        } else {
            let end = rest.find(char::is_whitespace).unwrap_or(rest.len());
            (Word { text: rest[..end].to_owned(), raw: rest[..end].to_owned() }, &rest[end..])
        };
        out.push(word);
        rest = behind.trim_start();
    }
    out
}

/// `mod_ssl.c` and `ssl_module` are the same.
fn module_name(name: &str) -> String {
    let name = name.strip_prefix("mod_").unwrap_or(name);
    name.strip_suffix(".c").or(name.strip_suffix("_module")).unwrap_or(name).to_owned()
}

/// Whether `<IfVersion>`'s argument fits [`VERSION`]; what can't be told (a regex) is taken to.
fn version_fits(argument: &str) -> bool {
    let (sign, text) = match argument.split_once(char::is_whitespace) {
        Some((sign, text)) => (sign, text.trim()),
        None => ("=", argument),
    };
    let mut version = [0u32; 3];
    let mut given = 0;
    for (place, part) in version.iter_mut().zip(text.split('.')) {
        let Ok(number) = part.parse() else { return true };
        *place = number;
        given += 1;
    }
    // `2.4` is all of 2.4's.
    let ours = VERSION.map(|part| part);
    let order = ours[..given].cmp(&version[..given]);
    match sign {
        "=" | "==" => order.is_eq(),
        ">" => order.is_gt() || (order.is_eq() && given < 3),
        ">=" => order.is_ge(),
        "<" => order.is_lt(),
        "<=" => order.is_le(),
        _ => true,
    }
}

/// What `envvars`, a shell script, sets. Of two branches the last counts: Debian's first is for further instances.
fn envvars(text: &str) -> HashMap<String, String> {
    let mut out: HashMap<String, String> = HashMap::new();
    for line in text.lines() {
        let line = line.trim();
        let line = line.strip_prefix("export ").unwrap_or(line).trim_start();
        let Some((name, value)) = line.split_once('=') else { continue };
        let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
        if name.is_empty() || !name.chars().all(is_name) {
            continue;
        }
        let (literal, value) = match value.strip_prefix('\'') {
            Some(rest) => (true, rest.split('\'').next().unwrap_or_default()),
            None => match value.strip_prefix('"') {
                Some(rest) => (false, rest.split('"').next().unwrap_or_default()),
                None => (false, value.split([' ', '\t', ';', '#']).next().unwrap_or_default()),
            },
        };
        let value = if literal { value.to_owned() } else { shell(value, &out) };
        if value.len() <= MAX_EXPANDED {
            out.insert(name.to_owned(), value);
        }
    }
    out
}

/// Undoes `$NAME`, `${NAME}` and `${NAME:-default}`; nothing else of the shell's.
fn shell(value: &str, variables: &HashMap<String, String>) -> String {
    let mut out = String::new();
    let mut rest = value;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        let after = &rest[at + 1..];
        let inner = after.strip_prefix('{').and_then(|inner| Some(&inner[..inner.find('}')?]));
        let (name, default, len) = match inner {
            Some(inner) => {
                let (name, default) = inner.split_once(":-").unwrap_or((inner, ""));
                (name, default, inner.len() + 2)
            }
            None => {
                let len = after.bytes().take_while(|byte| byte.is_ascii_alphanumeric() || *byte == b'_').count();
                (&after[..len], "", len)
            }
        };
        out.push_str(variables.get(name).map_or(default, String::as_str));
        rest = &after[len..];
        if out.len() > MAX_EXPANDED {
            // It is taken for none.
            return out;
        }
    }
    out + rest
}

#[cfg(test)]
mod tests {
    use super::super::Dump;
    use super::*;

    const MAIN: &str = "/a/apache2.conf";

    fn setup(text: &str) -> Setup {
        read(Path::new(MAIN), &Dump::new([(MAIN, text), ("/a/envvars", "export LOGS=/var/log/apache2$NONE\n")]))
            .unwrap()
    }

    fn paths(vhost: &Vhost) -> Vec<String> {
        let path = |log: &Log| match &log.sink {
            Sink::File(pieces) => match pieces.as_slice() {
                [Piece::Text(path)] => path.clone(),
                other => panic!("{other:?}"),
            },
            Sink::Lost => "lost".to_owned(),
        };
        vhost.logs.iter().flatten().map(path).collect()
    }

    #[test]
    fn logs_are_found_where_apache_writes_them() {
        for (name, text, want) in [
            (
                "a variable",
                "<VirtualHost *:80>\nCustomLog ${LOGS}/a.log combined\n</VirtualHost>",
                "/var/log/apache2/a.log",
            ),
            (
                "a definition",
                "Define D /d\n<VirtualHost *>\nCustomLog \"${D}/a b.log\" x\n</VirtualHost>",
                "/d/a b.log",
            ),
            ("relative", "ServerRoot /srv\n<VirtualHost *>\nCustomLog logs/a x\n</VirtualHost>", "/srv/logs/a"),
            ("inherited", "<VirtualHost *:80>\n</VirtualHost>\nCustomLog /m x", "/m"),
            ("its own", "CustomLog /m x\n<VirtualHost *:80>\ncustomlog /v x\n</VirtualHost>", "/v"),
            ("TransferLog", "<VirtualHost *>\nTransferLog /t\n</VirtualHost>", "/t"),
            ("GlobalLog", "GlobalLog /g x\n<VirtualHost *>\nCustomLog /v x\n</VirtualHost>", "/v"),
            ("only GlobalLog", "GlobalLog /g x\n<VirtualHost *>\n</VirtualHost>", "/g"),
            ("a pipe", "<VirtualHost *>\nCustomLog \"|/usr/bin/rotatelogs /l/a.%Y 86400\" x\n</VirtualHost>", "lost"),
            ("unset", "<VirtualHost *>\nCustomLog ${WHO}/a.log x\n</VirtualHost>", "lost"),
            ("nowhere", "<VirtualHost *>\nCustomLog /dev/null x\n</VirtualHost>", ""),
            (
                "continued",
                "<VirtualHost *>\nCustomLog \\\n  /c \\\n x\n# comment \\\nCustomLog /no x\n</VirtualHost>",
                "/c",
            ),
        ] {
            let setup = setup(text);
            assert_eq!(setup.vhosts.len(), 1, "{name}");
            assert_eq!(paths(&setup.vhosts[0]).join(" "), want, "{name}");
            assert_eq!(setup.troubles.len(), usize::from(want == "lost"), "{name}: {:?}", setup.troubles);
        }
    }

    #[test]
    fn sections_hold_where_apache_would_let_them() {
        for (name, section, holds) in [
            ("defined", "IfDefine YES", true),
            ("not defined", "IfDefine NO", false),
            ("negated", "IfDefine !NO", true),
            ("loaded, by its file", "IfModule mod_ssl.c", true),
            ("loaded, by its name", "ifmodule ssl_module", true),
            ("not loaded", "IfModule mod_nss.c", false),
            ("not loaded, negated", "IfModule !mod_nss.c", true),
            ("compiled in", "IfModule log_config_module", true),
            ("version", "IfVersion >= 2.4", true),
            ("old version", "IfVersion < 2.4", false),
            ("a file", "IfFile /a/envvars", true),
            ("no file", "IfFile /a/none", false),
        ] {
            let end = section.split(' ').next().unwrap();
            let text = format!(
                "Define YES\nLoadModule ssl_module modules/mod_ssl.so\n<{section}>\n<VirtualHost *:80>\n\
                 ServerName a.example\nCustomLog /a x\n</VirtualHost>\n</{end}>\n"
            );
            let setup = setup(&text);
            assert_eq!(setup.vhosts.len(), usize::from(holds), "{name}");
            assert_eq!(setup.troubles.len(), usize::from(!holds), "{name}: what is passed over is said");
        }
    }

    #[test]
    fn names_and_tls_are_read() {
        let setup = setup(
            "<VirtualHost *:443>\n SERVERNAME https://A.Example:443\n ServerAlias www.a.example *.a.example a?.b\n\
             <Directory />\n ServerAlias no.example\n </Directory>\n</VirtualHost>\n\
             <VirtualHost 192.0.2.1:8443>\n ServerName b.example\n SSLEngine on\n</VirtualHost>\n\
             <VirtualHost *:80>\n ServerName c.example:80\n Redirect permanent / https://c.example/\n</VirtualHost>\n\
             <VirtualHost *:80>\n ServerAlias *\n</VirtualHost>\n",
        );
        let seen: Vec<_> = setup
            .vhosts
            .iter()
            .map(|vhost| (vhost.names.join(" "), vhost.tls, vhost.only_redirects, vhost.is_unnameable))
            .collect();
        assert_eq!(
            seen,
            [
                ("a.example www.a.example *.a.example".to_owned(), true, false, false),
                ("b.example".to_owned(), true, false, false),
                ("c.example".to_owned(), false, true, false),
                (String::new(), false, false, true),
            ]
        );
        assert_eq!(setup.vhosts[2].place.line, 12);
        assert!(setup.troubles.iter().any(|trouble| trouble.text.contains("`a?.b`")), "{:?}", setup.troubles);
    }

    #[test]
    fn formats_are_told_by_what_they_hold() {
        use crate::format::Format;
        let own = r#"LogFormat "\"%r\" %h %>s %v \"%{User-Agent}i\" it's" mine"#;
        for (name, text, want) in [
            (
                "Debian's combined",
                r#"LogFormat "%h %l %u %t \"%r\" %>s %O \"%{Referer}i\" \"%{User-agent}i\"" c
CustomLog /x c"#,
                Some("combined"),
            ),
            (
                "an explicit one",
                r#"CustomLog /x "%v:%p %h %l %u %t \"%r\" %>s %O \"%{Referer}i\" \"%{User-Agent}i\"" env=x"#,
                Some("vhost_combined"),
            ),
            ("none", "TransferLog /x", Some("common")),
            ("TransferLog's", "LogFormat \"%h \\\"%r\\\" %V\"\nTransferLog /x", None),
            ("its own", &format!("CustomLog /x mine\n{own}"), None),
            ("in single quotes", "CustomLog /x '\"%r\" %h \"%v\"'", None),
        ] {
            let setup = setup(&format!("<VirtualHost *>\n{text}\n</VirtualHost>"));
            match (&setup.vhosts[0].logs[0][0].form, want) {
                (Form::Builtin(got), Some(want)) => assert_eq!(*got, want, "{name}"),
                (Form::Apache { text, .. }, None) => {
                    let format = Format::apache("f", text, jiff::tz::TimeZone::UTC).unwrap();
                    assert!(format.gives("host") && format.gives("ip") && format.gives("target"), "{name}: {text}");
                }
                other => panic!("{name}: {other:?}"),
            }
        }
        let unknown = setup("<VirtualHost *>\nCustomLog /x nope\n</VirtualHost>");
        assert_eq!(unknown.vhosts[0].logs[0][0].form, Form::Unknown("nope".to_owned()));
    }

    #[test]
    fn the_main_server_counts_where_no_virtual_host_answers() {
        let log = "CustomLog /m x\nServerName m.example\n";
        let vhost = "<VirtualHost *:443>\nServerName v.example\n</VirtualHost>\n";
        for (name, text, want) in [
            ("alone", log.to_owned(), "m.example"),
            ("beside another port", format!("Listen 80\nListen 443 https\n{log}{vhost}"), "m.example v.example"),
            ("covered", format!("Listen [::]:443\n{log}{vhost}"), "v.example"),
            ("without logs", "Listen 80\nServerName m.example".to_owned(), ""),
        ] {
            let names: Vec<_> = setup(&text).vhosts.into_iter().flat_map(|vhost| vhost.names).collect();
            assert_eq!(names.join(" "), want, "{name}");
        }
    }

    #[test]
    fn includes_are_read_in_their_place_and_end() {
        let files = Dump::new([
            (
                "/a/conf/httpd.conf",
                "Define N one\nInclude conf.d/*.conf\nIncludeOptional none/*.conf\nInclude no.conf\n",
            ),
            ("/a/conf.d/a.conf", "<VirtualHost *>\nServerName ${N}.example\nInclude snip\n</VirtualHost>"),
            ("/a/conf.d/b.conf", "<VirtualHost *>\nServerName two.example\n"),
            ("/a/conf.d/c.conf", "Include conf.d/c.conf\nInclude conf.d/c.conf\n</IfModule>\nUse Site x\n"),
            ("/a/snip", "CustomLog /snip.log x"),
        ]);
        let setup = read(Path::new("/a/conf/httpd.conf"), &files).unwrap();
        let names: Vec<_> = setup.vhosts.iter().map(|vhost| vhost.names[0].as_str()).collect();
        assert_eq!(names, ["one.example", "two.example"]);
        assert_eq!(paths(&setup.vhosts[0]), ["/snip.log"]);
        for what in ["never closed", "closes nothing", "in itself", "macros are not read", "/a/no.conf"] {
            assert!(setup.troubles.iter().any(|trouble| trouble.text.contains(what)), "{what}: {:?}", setup.troubles);
        }
    }

    #[test]
    fn variables_that_hold_each_other_make_no_endless_line() {
        let twice = (0..26).map(|number| format!("Define A{} ${{A{number}}}${{A{number}}}\n", number + 1));
        let log = "<VirtualHost *:80>\nServerName a.example\nCustomLog /x/${A26} combined\nCustomLog /y/${A3} combined\n</VirtualHost>";
        let text = format!("Define A0 xxxxxxxx\n{}{log}", twice.collect::<String>());
        let setup = setup(&text);
        let said: Vec<String> = setup.troubles.iter().map(ToString::to_string).collect();
        assert!(said[0].starts_with("/a/apache2.conf:12: passed over: variables make it longer"), "{said:?}");
        assert_eq!(paths(&setup.vhosts[0]), ["lost".to_owned(), format!("/y/{}", "x".repeat(64))]);
        // Those of the shell likewise.
        let twice = (0..40).map(|number| format!("A{}=$A{number}$A{number}\n", number + 1)).collect::<String>();
        let variables = envvars(&format!("A0=xxxxxxxx\n{twice}B=/b\n"));
        assert_eq!(variables["B"], "/b");
        assert!(variables.values().all(|value| value.len() <= MAX_EXPANDED));
        let line = format!("C={}", "$A10".repeat(1_000));
        assert_eq!(envvars(&format!("A0=xxxxxxxx\n{twice}{line}")).get("C"), None);
    }

    #[test]
    fn debians_envvars_give_the_log_directory() {
        let text = "unset HOME\nif [ \"${APACHE_CONFDIR##/etc/apache2-}\" != \"x\" ] ; \
         then\n\tSUFFIX=\"-${A##b}\"\nelse\n\
                    \tSUFFIX=\nfi\nexport APACHE_LOG_DIR=/var/log/apache2$SUFFIX # x\nexport Q='a b' X=\"${Q:-c}/d\"\n";
        let variables = envvars(text);
        assert_eq!(variables["APACHE_LOG_DIR"], "/var/log/apache2");
        assert_eq!(variables["Q"], "a b");
    }
}
