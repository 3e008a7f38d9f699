//! nginx's configuration: its files in, `server` blocks and their logs out. Pure.
//!
//! Text → directives, with what is included in its place → `http`, `server` and `location`, each of which inherits the
//! `access_log`s of the one around it unless it has its own.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};

use super::{
    Files, Form, Log, MAX_DEPTH, MAX_FILES, Piece, Place, Server, Setup, Sink, Trouble, Vhost, fits_every_path,
    host_name, is_no_file,
};

/// What nginx calls `combined`.
const COMBINED: &str = "$remote_addr - $remote_user [$time_local] \"$request\" $status $body_bytes_sent \
                        \"$http_referer\" \"$http_user_agent\"";

/// Reads a main configuration file and all that it includes.
///
/// # Errors
/// Those of reading the main file; others are [`Setup::troubles`].
pub fn read(main: &Path, files: &dyn Files) -> io::Result<Setup> {
    let text = files.read(main)?;
    let folder = main.parent().unwrap_or(Path::new("/")).to_path_buf();
    let mut reader = Reader { files, folder, troubles: Vec::new(), read: 1, open: Vec::new(), depth: 0 };
    let root = reader.file(main, &text);
    let mut vhosts = Vec::new();
    let blocks: Vec<&[Directive]> = root.iter().filter(|one| one.is("http")).filter_map(Directive::block).collect();
    // A file of sites-enabled given alone is as good as the `http` around it.
    for http in blocks.into_iter().chain([root.as_slice()]) {
        reader.http(http, &mut vhosts);
    }
    Ok(Setup { server: Server::Nginx, main: main.to_path_buf(), vhosts, troubles: reader.troubles })
}

/// A word of a directive.
#[derive(Debug, Clone, PartialEq)]
struct Word {
    /// With quotes and escapes undone.
    text: String,
    /// As it stands.
    raw: String,
}

/// A directive, with its block if it has one.
#[derive(Debug)]
struct Directive {
    place: Place,
    words: Vec<Word>,
    block: Option<Vec<Directive>>,
}

impl Directive {
    fn is(&self, name: &str) -> bool {
        self.words.first().is_some_and(|word| word.text == name)
    }

    fn block(&self) -> Option<&[Directive]> {
        self.block.as_deref()
    }

    fn arguments(&self) -> impl Iterator<Item = &str> + Clone {
        self.words.iter().skip(1).map(|word| word.text.as_str())
    }
}

enum Token {
    Word(Word),
    /// `;`
    End,
    /// `{`
    Open,
    /// `}`
    Close,
}

/// Cuts text into words and signs.
struct Tokens<'t> {
    text: &'t str,
    at: usize,
    line: usize,
}

impl Tokens<'_> {
    fn peek(&self) -> Option<char> {
        self.text.get(self.at..)?.chars().next()
    }

    fn bump(&mut self) -> Option<char> {
        let next = self.peek()?;
        self.at += next.len_utf8();
        self.line += usize::from(next == '\n');
        Some(next)
    }

    fn skip_blank(&mut self) {
        while let Some(next) = self.peek() {
            if next == '#' {
                while self.peek().is_some_and(|next| next != '\n') {
                    self.bump();
                }
            } else if next.is_ascii_whitespace() || next == '\u{feff}' {
                self.bump();
            } else {
                return;
            }
        }
    }

    fn next(&mut self) -> Option<Token> {
        self.skip_blank();
        let start = self.at;
        let text = match self.bump()? {
            ';' => return Some(Token::End),
            '{' => return Some(Token::Open),
            '}' => return Some(Token::Close),
            quote @ ('"' | '\'') => self.quoted(quote),
            _ => {
                self.at = start;
                self.bare()
            }
        };
        Some(Token::Word(Word { text, raw: self.text[start..self.at].to_owned() }))
    }

    fn quoted(&mut self, quote: char) -> String {
        let mut text = String::new();
        while let Some(next) = self.bump() {
            match next {
                '\\' => self.escape(&mut text),
                _ if next == quote => break,
                _ => text.push(next),
            }
        }
        text
    }

    fn bare(&mut self) -> String {
        let mut text = String::new();
        while let Some(next) = self.peek() {
            // The brace of `${name}` opens no block.
            if next == ';' || next.is_ascii_whitespace() || (next == '{' && !text.ends_with('$')) {
                break;
            }
            self.bump();
            if next == '\\' { self.escape(&mut text) } else { text.push(next) }
        }
        text
    }

    fn escape(&mut self, text: &mut String) {
        match self.bump() {
            Some(next @ ('"' | '\'' | '\\')) => text.push(next),
            Some('t') => text.push('\t'),
            Some('n') => text.push('\n'),
            Some('r') => text.push('\r'),
            Some(other) => text.extend(['\\', other]),
            None => text.push('\\'),
        }
    }

    /// Passes over a block behind its `{`, and all that are in it.
    fn skip_block(&mut self) {
        let mut depth = 1;
        while depth > 0 {
            match self.next() {
                Some(Token::Open) => depth += 1,
                Some(Token::Close) => depth -= 1,
                Some(_) => {}
                None => return,
            }
        }
    }

    /// Passes over a block of Lua behind its `{`: braces in strings and comments don't count.
    fn skip_lua(&mut self) {
        let mut depth = 1;
        while depth > 0 {
            let rest = self.text.get(self.at..).unwrap_or_default();
            let long = rest.strip_prefix("--").unwrap_or(rest);
            if let Some(level) = long_bracket(long) {
                let close = format!("]{}]", "=".repeat(level));
                let end = rest.find(&close).map_or(rest.len(), |end| end + close.len());
                self.pass(end);
                continue;
            }
            if rest.starts_with("--") {
                self.pass(rest.find('\n').unwrap_or(rest.len()));
                continue;
            }
            match self.bump() {
                None => return,
                Some('{') => depth += 1,
                Some('}') => depth -= 1,
                Some(quote @ ('"' | '\'')) => {
                    while let Some(next) = self.bump() {
                        match next {
                            '\\' => drop(self.bump()),
                            // A Lua string ends with its line, whatever it looks like.
                            _ if next == quote || next == '\n' => break,
                            _ => {}
                        }
                    }
                }
                Some(_) => {}
            }
        }
    }

    fn pass(&mut self, len: usize) {
        self.line += self.text.get(self.at..self.at + len).unwrap_or_default().matches('\n').count();
        self.at += len;
    }
}

/// The level of the Lua long bracket that text begins with: `[[` is 0, `[==[` is 2.
fn long_bracket(text: &str) -> Option<usize> {
    let inner = text.strip_prefix('[')?;
    let level = inner.bytes().take_while(|byte| *byte == b'=').count();
    inner[level..].starts_with('[').then_some(level)
}

struct Reader<'f> {
    files: &'f dyn Files,
    /// What relative paths of includes are relative to.
    folder: PathBuf,
    troubles: Vec<Trouble>,
    /// How many files have been read.
    read: usize,
    /// The files around the place that is read.
    open: Vec<PathBuf>,
    /// Blocks around the file that is read.
    depth: usize,
}

impl Reader<'_> {
    fn trouble(&mut self, place: &Place, text: impl Into<String>) {
        self.troubles.push(Trouble { place: Some(place.clone()), text: text.into() });
    }

    fn file(&mut self, file: &Path, text: &str) -> Vec<Directive> {
        self.open.push(file.to_path_buf());
        let out = self.directives(file, text);
        self.open.pop();
        out
    }

    fn directives(&mut self, file: &Path, text: &str) -> Vec<Directive> {
        let mut tokens = Tokens { text, at: 0, line: 1 };
        let mut out = Vec::new();
        // Blocks that are open: the directive each belongs to, and what stood before it.
        let mut open: Vec<(Directive, Vec<Directive>)> = Vec::new();
        let mut words: Vec<Word> = Vec::new();
        let mut place = Place { file: file.to_path_buf(), line: 1 };
        loop {
            tokens.skip_blank();
            if words.is_empty() {
                place.line = tokens.line;
            }
            match tokens.next() {
                Some(Token::Word(word)) => words.push(word),
                Some(Token::End) => {
                    let directive = Directive { place: place.clone(), words: std::mem::take(&mut words), block: None };
                    if directive.is("include") {
                        self.depth += open.len();
                        out.extend(self.include(&directive));
                        self.depth -= open.len();
                    } else if !directive.words.is_empty() {
                        out.push(directive);
                    }
                }
                Some(Token::Open) => {
                    let directive = Directive { place: place.clone(), words: std::mem::take(&mut words), block: None };
                    if directive.words.first().is_some_and(|word| word.text.ends_with("_by_lua_block")) {
                        tokens.skip_lua();
                        continue;
                    }
                    if self.depth + open.len() >= MAX_DEPTH {
                        self.trouble(&place, format!("passed over: {MAX_DEPTH} blocks are open around it"));
                        tokens.skip_block();
                        continue;
                    }
                    open.push((directive, std::mem::take(&mut out)));
                }
                Some(Token::Close) => {
                    if !words.is_empty() {
                        self.trouble(&place, "a directive without its `;`");
                        words.clear();
                    }
                    match open.pop() {
                        Some((mut directive, before)) => {
                            directive.block = Some(std::mem::replace(&mut out, before));
                            out.push(directive);
                        }
                        None => self.trouble(&place, "a `}` without its `{`"),
                    }
                }
                None => break,
            }
        }
        if !words.is_empty() {
            self.trouble(&place, "a directive without its `;`");
        }
        while let Some((mut directive, before)) = open.pop() {
            self.trouble(&directive.place, "a `{` without its `}`");
            directive.block = Some(std::mem::replace(&mut out, before));
            out.push(directive);
        }
        out
    }

    fn include(&mut self, directive: &Directive) -> Vec<Directive> {
        let mut out = Vec::new();
        for argument in directive.arguments() {
            let path = self.folder.join(argument);
            let mut paths = vec![path.clone()];
            if argument.contains(['*', '?', '[']) {
                let (found, lost) = self.files.matching(&path.to_string_lossy());
                for (path, error) in lost {
                    self.trouble(&directive.place, format!("cannot look into {}: {error}", path.display()));
                }
                paths = found;
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
                        self.trouble(&directive.place, format!("{} isn't included: {why}", path.display()));
                    }
                    continue;
                }
                match self.files.read(&path) {
                    Ok(text) => out.extend(self.file(&path, &text)),
                    Err(error) => {
                        self.trouble(&directive.place, format!("cannot read the included {}: {error}", path.display()))
                    }
                }
            }
        }
        out
    }

    fn http(&mut self, http: &[Directive], vhosts: &mut Vec<Vhost>) {
        let formats: HashMap<&str, Form> = http
            .iter()
            .filter(|one| one.is("log_format"))
            .filter_map(|one| Some((one.words.get(1)?.text.as_str(), form(one)?)))
            .collect();
        let own = self.own_logs(http, &formats);
        for server in http.iter().filter(|one| one.is("server")) {
            let Some(block) = server.block() else { continue };
            let inherited = own.clone().unwrap_or_else(|| {
                vec![Log {
                    place: server.place.clone(),
                    sink: Sink::File(vec![Piece::Text("/var/log/nginx/access.log".to_owned())]),
                    form: Form::Builtin("combined"),
                    condition: None,
                    is_everybodys: false,
                    notes: vec![
                        "no access_log is set up: this is nginx's own default on most systems; `nginx -V` shows \
                         it as \
                         --http-log-path"
                            .to_owned(),
                    ],
                }]
            });
            let mut logs = Vec::new();
            let of_server = self.own_logs(block, &formats);
            logs.push(of_server.unwrap_or(inherited));
            self.inner_logs(block, &formats, &mut logs);
            let mut vhost = Vhost {
                place: server.place.clone(),
                names: Vec::new(),
                is_unnameable: false,
                tls: block.iter().any(speaks_tls),
                only_redirects: block.iter().any(redirects_all),
                logs,
            };
            self.names(block, &mut vhost);
            vhosts.push(vhost);
        }
    }

    fn names(&mut self, block: &[Directive], vhost: &mut Vhost) {
        let mut lost = false;
        for directive in block.iter().filter(|one| one.is("server_name")) {
            for name in directive.arguments() {
                if matches!(name, "" | "_" | "*" | "-" | "--" | "!@#") {
                    // The usual ways to say: none.
                    continue;
                }
                let (name, both) = name.strip_prefix('.').map_or((name, false), |name| (name, true));
                match host_name(name) {
                    Some(name) => {
                        let wild = both.then(|| format!("*.{name}"));
                        for name in [name].into_iter().chain(wild) {
                            if !vhost.names.contains(&name) {
                                vhost.names.push(name);
                            }
                        }
                    }
                    None => {
                        lost = true;
                        let why = match name {
                            _ if name.starts_with('~') => "is a regex, which silktail can't read: list the names",
                            "$hostname" => "is the machine's name: add it",
                            _ => "is neither a name nor like `*.example.org`: list the names",
                        };
                        self.trouble(&directive.place, format!("server_name `{name}` {why} in `hosts`"));
                    }
                }
            }
        }
        vhost.is_unnameable = lost && vhost.names.is_empty();
    }

    /// The logs of locations, and of what is inside them, that don't inherit the server's.
    fn inner_logs(&mut self, block: &[Directive], formats: &HashMap<&str, Form>, logs: &mut Vec<Vec<Log>>) {
        for inner in block {
            let Some(directives) = inner.block() else { continue };
            if let Some(own) = self.own_logs(directives, formats) {
                let what: Vec<&str> = inner.words.iter().map(|word| word.text.as_str()).collect();
                // `location = /favicon.ico` is one file, and hardly the one that counts.
                if own.is_empty() && inner.words.get(1).is_none_or(|word| word.text != "=") {
                    let text = format!("`{}` isn't logged: nothing that is fetched there can be seen", what.join(" "));
                    self.trouble(&inner.place, text);
                }
                logs.push(own);
            }
            self.inner_logs(directives, formats, logs);
        }
    }

    /// The logs that a block sets up itself; `None`: it inherits.
    fn own_logs(&mut self, block: &[Directive], formats: &HashMap<&str, Form>) -> Option<Vec<Log>> {
        let own: Vec<&Directive> = block.iter().filter(|one| one.is("access_log")).collect();
        if own.is_empty() {
            return None;
        }
        // `off` cancels all of its level.
        if own.iter().any(|one| one.arguments().next() == Some("off")) {
            return Some(Vec::new());
        }
        Some(own.into_iter().filter_map(|one| self.log(one, formats)).collect())
    }

    fn log(&mut self, directive: &Directive, formats: &HashMap<&str, Form>) -> Option<Log> {
        let mut arguments = directive.arguments();
        let path = arguments.next()?;
        if path == "/dev/null" {
            return None;
        }
        let is_option = |word: &&str| {
            *word == "gzip" || ["buffer=", "gzip=", "flush=", "if="].iter().any(|name| word.starts_with(name))
        };
        let name = arguments.clone().find(|word| !is_option(word)).unwrap_or("combined");
        let option = |name: &str| arguments.clone().find_map(|word| word.strip_prefix(name));
        let mut log = Log {
            place: directive.place.clone(),
            sink: Sink::Lost,
            form: match formats.get(name) {
                Some(form) => form.clone(),
                None if name == "combined" => Form::Builtin("combined"),
                None => Form::Unknown(name.to_owned()),
            },
            condition: option("if=").map(str::to_owned),
            is_everybodys: false,
            notes: Vec::new(),
        };
        if path.starts_with("syslog:") {
            self.trouble(&directive.place, format!("`{path}`: a log that goes to syslog can't be followed"));
        } else if arguments.clone().any(|word| word == "gzip" || word.starts_with("gzip=")) {
            self.trouble(&directive.place, format!("`{path}` is written compressed (gzip): that can't be followed"));
        } else if is_no_file(path) {
            self.trouble(&directive.place, format!("`{path}` is no file: a log that goes there can't be followed"));
        } else {
            if !path.starts_with(['/', '$']) {
                let note = format!("`{path}` is relative to nginx's prefix, which only nginx knows (`nginx -V`)");
                self.trouble(&directive.place, format!("{note}: see whether its path is right"));
                log.notes.push(note);
            }
            log.sink = Sink::File(pieces(&self.prefix(), path));
            if arguments.clone().any(|word| word.starts_with("buffer=")) && option("flush=").is_none() {
                log.notes.push(format!(
                    "nginx buffers {path}, and events count when their lines are written: add \
                     flush=5s"
                ));
            }
        }
        Some(log)
    }

    /// What relative paths of logs are relative to, as far as that can be told from here.
    fn prefix(&self) -> PathBuf {
        match self.folder.file_name() {
            Some(name) if name == "conf" => self.folder.parent().unwrap_or(&self.folder).to_path_buf(),
            _ => self.folder.clone(),
        }
    }
}

/// A path with its variables told apart.
fn pieces(prefix: &Path, path: &str) -> Vec<Piece> {
    let mut out = Vec::new();
    if !path.starts_with(['/', '$']) {
        out.push(Piece::Text(format!("{}/", prefix.display())));
    }
    let mut rest = path;
    while let Some(at) = rest.find('$') {
        let (before, after) = (&rest[..at], &rest[at + 1..]);
        let braced = after.strip_prefix('{');
        let name_from = braced.unwrap_or(after);
        let len = name_from.bytes().take_while(|byte| byte.is_ascii_alphanumeric() || *byte == b'_').count();
        let name = &name_from[..len];
        if !before.is_empty() {
            out.push(Piece::Text(before.to_owned()));
        }
        if name.is_empty() {
            out.push(Piece::Text("$".to_owned()));
            rest = after;
            continue;
        }
        out.push(match name {
            "host" | "http_host" => Piece::Host,
            "server_name" => Piece::ServerName,
            _ => Piece::Any,
        });
        let behind = &name_from[len..];
        rest = if braced.is_some() { behind.strip_prefix('}').unwrap_or(behind) } else { behind };
    }
    if !rest.is_empty() {
        out.push(Piece::Text(rest.to_owned()));
    }
    out
}

/// A `log_format` as it is written down; `None`: it holds nothing.
fn form(directive: &Directive) -> Option<Form> {
    let name = &directive.words.get(1)?.text;
    let strings = directive.words.get(2..)?;
    let (escape, strings) = match strings.split_first() {
        Some((first, rest)) if first.text.starts_with("escape=") => (Some(first.text.as_str()), rest),
        _ => (None, strings),
    };
    if strings.is_empty() {
        return None;
    }
    let whole: String = strings.iter().map(|word| word.text.as_str()).collect();
    if escape.is_none_or(|escape| escape == "escape=default") {
        if whole == COMBINED {
            return Some(Form::Builtin("combined"));
        }
        if COMBINED.strip_suffix(" \"$http_referer\" \"$http_user_agent\"") == Some(&whole) {
            return Some(Form::Builtin("common"));
        }
    }
    let text = match (escape, strings) {
        // The bare string is easiest to read, where nothing in it could be taken for something else.
        (None, [only])
            if !only.raw.contains('\\')
                && !only.text.contains(['\n', '\''])
                && !only.text.starts_with([' ', '\t', '"'])
                && !["escape=", "log_format"].iter().any(|start| only.text.starts_with(start)) =>
        {
            only.text.clone()
        }
        _ => {
            let quoted = |word: &Word| match word.raw.chars().next() {
                Some('"' | '\'') => word.raw.clone(),
                // Next to strings in quotes a bare word would be taken for part of the log.
                _ => format!("'{}'", word.raw.replace('\'', "\\'")),
            };
            let joined: Vec<String> = escape.map(str::to_owned).into_iter().chain(strings.iter().map(quoted)).collect();
            // With the directive around them, quotes are nginx's whatever they are.
            match joined.iter().filter(|part| part.starts_with('"')).count() {
                0 => joined.join("\n"),
                _ => format!("log_format {} {};", slug(name), joined.join("\n    ")),
            }
        }
    };
    Some(Form::Nginx { name: name.clone(), text })
}

/// A name without what would end it.
fn slug(name: &str) -> String {
    name.chars().map(|c| if c.is_alphanumeric() || c == '_' || c == '-' { c } else { '_' }).collect()
}

fn speaks_tls(directive: &Directive) -> bool {
    match directive.words.first().map(|word| word.text.as_str()) {
        Some("ssl") => directive.arguments().next() == Some("on"),
        Some("listen") => {
            let mut words = directive.arguments();
            let port = words.next().unwrap_or_default();
            port == "443" || port.ends_with(":443") || words.any(|word| matches!(word, "ssl" | "quic"))
        }
        _ => false,
    }
}

/// A directive of a server after which no location of it is ever reached.
fn redirects_all(directive: &Directive) -> bool {
    let words: Vec<&str> = directive.words.iter().map(|word| word.text.as_str()).collect();
    match words.as_slice() {
        ["return", code, ..] => !code.starts_with('2') || code.len() != 3,
        ["rewrite", pattern, target, flag] => {
            matches!(*flag, "permanent" | "redirect") && fits_every_path(pattern) && !target.is_empty()
        }
        ["ssl_reject_handshake", "on"] => true,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::super::Dump;
    use super::*;

    fn setup(text: &str) -> Setup {
        read(Path::new("/etc/nginx/nginx.conf"), &Dump::new([("/etc/nginx/nginx.conf", text)])).unwrap()
    }

    fn paths(vhost: &Vhost) -> Vec<Vec<String>> {
        let path = |log: &Log| match &log.sink {
            Sink::Lost => "lost".to_owned(),
            Sink::File(pieces) => pieces
                .iter()
                .map(|piece| match piece {
                    Piece::Text(text) => text.as_str(),
                    Piece::Host => "<host>",
                    Piece::ServerName => "<server name>",
                    Piece::Any => "*",
                })
                .collect(),
        };
        vhost.logs.iter().map(|level| level.iter().map(path).collect()).collect()
    }

    #[test]
    fn logs_are_inherited_unless_a_block_has_its_own() {
        for (name, text, want) in [
            ("http's", "http { access_log /h; server { } }", vec![vec!["/h"]]),
            ("the server's own", "http { access_log /h; server { access_log /s; } }", vec![vec!["/s"]]),
            ("set up behind its use", "http { server { } access_log /h; }", vec![vec!["/h"]]),
            ("nginx's own", "http { server { } }", vec![vec!["/var/log/nginx/access.log"]]),
            (
                "a location's too",
                "http { server { access_log /s; location / { location /a { access_log /a; } } } }",
                vec![vec!["/s"], vec!["/a"]],
            ),
            ("off", "http { access_log /h; server { access_log off; } }", vec![vec![]]),
            ("both", "http { server { access_log /a; access_log /b; } }", vec![vec!["/a", "/b"]]),
            ("nowhere", "http { server { access_log /dev/null; } }", vec![vec![]]),
            ("a server alone", "server { access_log /s; }", vec![vec!["/s"]]),
            (
                "variables",
                "http { server { access_log /l/$host/${server_name}_$year.log; } }",
                vec![vec!["/l/<host>/<server name>_*.log"]],
            ),
            ("relative", "http { server { access_log logs/a.log; } }", vec![vec!["/etc/nginx/logs/a.log"]]),
            ("syslog", "http { server { access_log syslog:server=[::1] combined; } }", vec![vec!["lost"]]),
            ("compressed", "http { server { access_log /a.gz combined gzip flush=5m; } }", vec![vec!["lost"]]),
            ("Docker", "http { server { access_log /dev/stdout; } }", vec![vec!["lost"]]),
        ] {
            let setup = setup(text);
            assert_eq!(setup.vhosts.len(), 1, "{name}");
            assert_eq!(paths(&setup.vhosts[0]), want, "{name}");
        }
    }

    #[test]
    fn servers_elsewhere_than_in_http_are_others() {
        let text = "stream { server { listen 53; } } mail { server { } } \
                    http { upstream u { server 127.0.0.1; } server { server_name a.example; } }";
        let names: Vec<_> = setup(text).vhosts.into_iter().map(|vhost| vhost.names).collect();
        assert_eq!(names, [["a.example"]]);
    }

    #[test]
    fn hostile_text_is_read_as_nginx_reads_it() {
        for (name, text) in [
            ("a brace in quotes", "location ~ \"a{2}\" { return 404 'x;}\\'}'; }"),
            ("a brace of a variable", "set $a ${b}c; add_header X ${d};"),
            ("a comment", "# } server_name b.example;\n"),
            ("a hash in a word", "rewrite ^/a#b /c;"),
            ("an if", "if ($http_user_agent ~ \"(a|b){\"){ return 403; }"),
            (
                "Lua",
                "location /l { content_by_lua_block { local t = {\"}\", '\\'}'} -- }\n --[[ } ]] x = [==[ }]]} \
                 ]==] } }",
            ),
            ("Lua with an argument", "set_by_lua_block $a { return {} }"),
            ("a map", "types { text/html html htm; }"),
            ("line ends of Windows", "index a;\r\n\tindex b;\r\n"),
        ] {
            let text =
                format!("http {{ server {{ {text} server_name a.example; }} server {{ server_name z.example; }} }}");
            let setup = setup(&text);
            let names: Vec<_> = setup.vhosts.iter().map(|vhost| vhost.names.clone()).collect();
            assert_eq!(names, [["a.example"], ["z.example"]], "{name}");
            assert_eq!(setup.troubles, [], "{name}");
        }
    }

    #[test]
    fn broken_text_is_named_and_read_as_far_as_it_goes() {
        for (text, want) in [
            ("http { server { server_name a.example; ", "a `{` without its `}`"),
            ("http { server { server_name a.example; } } }", "a `}` without its `{`"),
            ("http { server { server_name a.example; listen 80 } }", "a directive without its `;`"),
            ("http { server { server_name a.example; } } error_log '", "a directive without its `;`"),
        ] {
            let setup = setup(text);
            assert_eq!(setup.vhosts[0].names, ["a.example"], "{text}");
            assert!(setup.troubles.iter().any(|trouble| trouble.text == want), "{text}: {:?}", setup.troubles);
        }
    }

    #[test]
    fn what_is_nested_too_deeply_is_passed_over_and_the_rest_is_read() {
        let good = "http { server { server_name a.example; } } ";
        let deep = |depth: usize, closed: usize| format!("{good}{}{}", "x { ".repeat(depth), "} ".repeat(closed));
        for (name, text, passed_over) in [
            ("as deep as may be", deep(MAX_DEPTH, MAX_DEPTH), 0),
            ("one deeper", deep(MAX_DEPTH + 1, MAX_DEPTH + 1) + "http { server { server_name b.example; } }", 1),
            ("without an end", deep(300_000, 0), 1),
        ] {
            let setup = setup(&text);
            assert_eq!(setup.vhosts[0].names, ["a.example"], "{name}");
            assert_eq!(setup.vhosts.len(), 1 + usize::from(name == "one deeper"), "{name}");
            let said = setup.troubles.iter().filter(|trouble| trouble.text.starts_with("passed over"));
            assert_eq!(said.count(), passed_over, "{name}: {:?}", setup.troubles);
        }
        // Each file opens a block and includes the next in it.
        let names: Vec<String> = (0..300).map(|number| format!("/a/{number}")).collect();
        let texts: Vec<String> = (1..=300).map(|next| format!("{good} x {{ include {next}; }}")).collect();
        let files = Dump::new(names.iter().zip(&texts).map(|(name, text)| (name.as_str(), text.as_str())));
        let setup = read(Path::new("/a/0"), &files).unwrap();
        assert!(setup.troubles.iter().any(|trouble| trouble.text.contains("too many files are open")), "{setup:?}");
    }

    #[test]
    fn names_that_are_not_hosts_are_named() {
        let setup = setup(
            "http { server { server_name .a.example *.b.example ~^(www\\.)?c$ d.* $hostname; } \
             server { server_name _; } server { server_name ~^x; } }",
        );
        assert_eq!(setup.vhosts[0].names, ["a.example", "*.a.example", "*.b.example"]);
        assert_eq!((setup.vhosts[0].is_unnameable, setup.vhosts[1].is_unnameable), (false, false));
        assert!(setup.vhosts[2].is_unnameable);
        let named: Vec<_> = setup.troubles.iter().map(|trouble| trouble.text.split('`').nth(1).unwrap()).collect();
        assert_eq!(named, ["~^(www\\.)?c$", "d.*", "$hostname", "~^x"]);
    }

    #[test]
    fn includes_stand_where_they_are_and_end() {
        let files = Dump::new([
            ("/n/main", "http { include sites/*; include missing.conf; include none/*; }"),
            ("/n/sites/b", "server { server_name b.example; include snip; }"),
            ("/n/sites/a", "server { server_name a.example; include snip; }"),
            ("/n/sites/.hidden", "server { server_name hidden.example; }"),
            ("/n/snip", "access_log /snip.log; include /n/snip; include /n/snip;"),
        ]);
        let setup = read(Path::new("/n/main"), &files).unwrap();
        let names: Vec<_> = setup.vhosts.iter().map(|vhost| vhost.names[0].as_str()).collect();
        assert_eq!(names, ["a.example", "b.example"]);
        assert_eq!(paths(&setup.vhosts[0])[0][0], "/snip.log");
        let said = |what: &str| setup.troubles.iter().any(|trouble| trouble.text.contains(what));
        assert!(said("/n/missing.conf") && said("in itself") && !said("none"), "{:?}", setup.troubles);
    }

    #[test]
    fn tls_is_seen_and_so_is_who_only_redirects() {
        for (text, tls, only_redirects) in [
            ("listen 80; root /x;", false, false),
            ("listen [::]:443 ssl http2;", true, false),
            ("listen 443;", true, false),
            ("listen 8443 ssl;", true, false),
            ("listen 80; return 301 https://$host$request_uri;", false, true),
            ("return 200 ok;", false, false),
            ("location / { return 301 https://x; }", false, false),
            ("rewrite ^(.*)$ https://x$1 permanent;", false, true),
            ("rewrite ^/a$ /b permanent;", false, false),
        ] {
            let setup = setup(&format!("http {{ server {{ {text} }} }}"));
            let vhost = &setup.vhosts[0];
            assert_eq!((vhost.tls, vhost.only_redirects), (tls, only_redirects), "{text}");
        }
    }

    #[test]
    fn formats_mean_afterwards_what_they_meant_to_nginx() {
        use crate::format::Format;
        let line = br#"192.0.2.7 - - [10/Oct/2026:13:55:36 +0000] "GET /a HTTP/1.1" 200 5 "UA" docs.example.org"#;
        let bare = r#"$remote_addr - - [$time_local] "$request" $status $body_bytes_sent "$http_user_agent" $host"#;
        let in_double = bare.replace('"', "\\\"");
        for (name, text) in [
            ("one string", format!("log_format f '{bare}';")),
            ("pieces", format!("log_format f '{}'\n  '{}';", &bare[..17], &bare[17..])),
            ("a comment between", format!("log_format f '{}' # client\n  '{}';", &bare[..17], &bare[17..])),
            ("double quotes", format!("log_format f \"{in_double}\";")),
            ("double quotes in pieces", format!("log_format f \"{}\" \"{}\";", &in_double[..17], &in_double[17..])),
            ("an escape", format!("log_format f escape=default '{bare}';")),
            ("a bare word", format!("log_format f $remote_addr ' {}';", &bare[13..])),
        ] {
            let setup = setup(&format!("http {{ {text} server {{ access_log /a f buffer=32k if=$ok; }} }}"));
            let log = &setup.vhosts[0].logs[0][0];
            let Form::Nginx { text, .. } = &log.form else { panic!("{name}: {log:?}") };
            let format = Format::nginx("f", text, jiff::tz::TimeZone::UTC).unwrap_or_else(|e| {
                panic!(
                    "{name}: \
             {e:?}"
                )
            });
            let entry = format.parse(line).unwrap_or_else(|| panic!("{name}: {text}"));
            assert_eq!(entry.text("host").as_deref(), Some("docs.example.org"), "{name}");
            assert_eq!(entry.text("user_agent").as_deref(), Some("UA"), "{name}");
            assert_eq!(log.condition.as_deref(), Some("$ok"), "{name}");
        }
        let setup = setup(&format!("http {{ log_format f '{COMBINED}'; server {{ access_log /a f; }} }}"));
        assert_eq!(setup.vhosts[0].logs[0][0].form, Form::Builtin("combined"));
    }
}
