//! From patterns to the files that match them now.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::moment::Moment;

/// Whether a `logs` entry is a glob rather than a plain path.
pub fn is_glob(pattern: &str) -> bool {
    pattern.contains(['*', '?', '['])
}

/// The paths that a pattern matches now. A plain path is given out whether it exists or not: a directory may be
/// searchable and not readable.
pub fn expand(pattern: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    each_path(pattern, &mut |_, _| {}, &mut |path| found.push(path));
    found.sort();
    found
}

/// The same, in no order; directories that can't be read now are told to `trouble`.
fn each_path(pattern: &str, trouble: &mut impl FnMut(&Path, io::Error), take: &mut impl FnMut(PathBuf)) {
    if !is_glob(pattern) {
        return take(PathBuf::from(pattern));
    }
    let as_path = Path::new(pattern);
    // Names are matched here, since the walker leaves out those that aren't UTF-8. A bad pattern was refused with the
    // configuration.
    let (Some(parent), Some(name)) = (as_path.parent(), as_path.file_name().map(|name| name.to_string_lossy())) else {
        return;
    };
    let Ok(wanted) = glob::Pattern::new(&name) else { return };
    if name.contains("**") {
        let paths = glob::glob(pattern).into_iter().flatten().flatten();
        return paths.filter(|path| !path.is_dir()).for_each(take);
    }
    // A bare name lies where the program was started.
    let there = |directory: &Path| {
        if directory.as_os_str().is_empty() { Path::new(".").to_path_buf() } else { directory.to_path_buf() }
    };
    let mut list = |directory: &Path| match fs::read_dir(there(directory)) {
        Ok(entries) => {
            for entry in entries.flatten().filter(|entry| wanted.matches(&entry.file_name().to_string_lossy())) {
                let name = entry.file_name();
                // As long as it gets: there may be ten thousand of them.
                let mut path = PathBuf::with_capacity(directory.as_os_str().len() + 1 + name.len());
                path.push(directory);
                path.push(&name);
                // What the directory says of an entry costs nothing; a link has to be followed.
                let is_folder = match entry.file_type() {
                    Ok(kind) if !kind.is_symlink() => kind.is_dir(),
                    _ => path.is_dir(),
                };
                if !is_folder {
                    take(path);
                }
            }
        }
        Err(error) => trouble(directory, error),
    };
    let parent_text = parent.to_string_lossy();
    if is_glob(&parent_text) {
        let directories = glob::glob(&parent_text).into_iter().flatten().flatten();
        directories.filter(|path| path.is_dir()).for_each(|path| list(&path));
    } else {
        list(parent);
    }
}

/// Every path that any pattern matches, with the indices of the patterns that match it; directories that can't be read
/// now are told to `trouble`.
///
/// Of a log that a glob finds both as it is and compressed (somebody is compressing it, or keeps both), the compressed
/// one is left out.
pub fn paths(patterns: &[String], mut trouble: impl FnMut(&Path, io::Error)) -> BTreeMap<PathBuf, Arc<[usize]>> {
    // One by one: to collect them takes a vector of all. What the C library gets back in one large piece it takes for what is
    // wanted again, and from then on it keeps as much of everything.
    let mut found: BTreeMap<PathBuf, Arc<[usize]>> = BTreeMap::new();
    for (index, pattern) in patterns.iter().enumerate() {
        let alone: Arc<[usize]> = [index].into();
        let add = |found: &mut BTreeMap<_, Arc<[usize]>>, path| {
            let known = found.entry(path).or_insert_with(|| Arc::clone(&alone));
            if !known.ends_with(&[index]) {
                *known = known.iter().copied().chain([index]).collect();
            }
        };
        let mut packed = BTreeSet::new();
        each_path(pattern, &mut trouble, &mut |path| match unpacked_name(&path) {
            Some(_) if is_glob(pattern) => drop(packed.insert(path)),
            _ => add(&mut found, path),
        });
        let is_found = |name: &PathBuf| found.get(name).is_some_and(|known| known.ends_with(&[index]));
        let has_twin =
            |path: &PathBuf| unpacked_name(path).is_some_and(|name| packed.contains(&name) || is_found(&name));
        let kept: Vec<PathBuf> = packed.iter().filter(|path| !has_twin(path)).cloned().collect();
        kept.into_iter().for_each(|path| add(&mut found, path));
    }
    found
}

/// The names that a glob matches and of which rotated siblings are there, whether anything lies under them or not; of a plain
/// path itself.
pub fn rotated_names(pattern: &str) -> BTreeSet<PathBuf> {
    let Some(parent) = Path::new(pattern).parent() else { return BTreeSet::new() };
    if !is_glob(pattern) {
        return [PathBuf::from(pattern)].into();
    }
    let folders = match parent.to_string_lossy() {
        folders if is_glob(&folders) => glob::glob(&folders).into_iter().flatten().flatten().collect(),
        _ => vec![parent.to_path_buf()],
    };
    let mut names = BTreeSet::new();
    // One by one: nearly all are logs under their own names.
    for entry in folders.iter().filter_map(|folder| fs::read_dir(folder).ok()).flatten().flatten() {
        let path = entry.path();
        for bare in names_before_rotation(&path) {
            let unrotated = path.with_file_name(bare);
            if is_plainly_rotated(&path, &unrotated) && is_for(pattern, &unrotated) && !is_for(pattern, &path) {
                names.insert(unrotated);
            }
        }
    }
    names
}

/// Those of a glob under which nothing lies.
pub fn absent(pattern: &str) -> Vec<PathBuf> {
    rotated_names(pattern).into_iter().filter(|name| is_glob(pattern) && name.symlink_metadata().is_err()).collect()
}

/// Whether a pattern matches a path, whether anything lies there or not.
pub fn is_for(pattern: &str, path: &Path) -> bool {
    if !is_glob(pattern) {
        return Path::new(pattern) == path;
    }
    // Names that aren't UTF-8 are matched as they are shown.
    Glob::of(pattern).is_some_and(|glob| glob.fits(&path.to_string_lossy()))
}

/// A pattern with wildcards.
pub struct Glob(glob::Pattern);

impl Glob {
    /// `None`: it has none, or is a bad one, which is refused with the configuration.
    pub fn of(pattern: &str) -> Option<Self> {
        is_glob(pattern).then(|| glob::Pattern::new(pattern).ok().map(Self)).flatten()
    }

    /// Whether it matches a path.
    pub fn fits(&self, path: &str) -> bool {
        // Its default takes `Acme` for `acme`.
        let options = glob::MatchOptions { require_literal_separator: true, ..glob::MatchOptions::new() };
        self.0.matches_with(path, options)
    }
}

/// The directory in which something must happen before a pattern matches other files: its longest part without wildcards.
pub fn watched_directory(pattern: &str) -> PathBuf {
    let literal: PathBuf =
        Path::new(pattern).components().take_while(|part| !is_glob(&part.as_os_str().to_string_lossy())).collect();
    if is_glob(pattern) { literal } else { literal.parent().map(Path::to_path_buf).unwrap_or_default() }
}

/// Whether a name is one that rotation makes of a log's name: `access.log.1`, `access.log-20261110.gz`; or, before the
/// extension, `access-20261110.log`, `access.1.log.gz`.
pub fn is_sibling(path: &Path, of: &Path) -> bool {
    let (Some(name), Some(of_name)) = (path.file_name(), of.file_name()) else { return false };
    if path.parent() != of.parent() {
        return false;
    }
    let rest = name.as_encoded_bytes().strip_prefix(of_name.as_encoded_bytes());
    if rest.is_some_and(|rest| matches!(rest.first(), Some(b'.' | b'-' | b'_'))) {
        return true;
    }
    let unpacked = unpacked_name(path).unwrap_or_else(|| path.to_path_buf());
    let (Some(stem), Some(of_stem)) = (unpacked.file_stem(), of.file_stem()) else { return false };
    let rest = stem.as_encoded_bytes().strip_prefix(of_stem.as_encoded_bytes());
    // A number or a date: `access-ssl.log` is another log.
    of.extension().is_some()
        && unpacked.extension() == of.extension()
        && matches!(rest, Some([b'.' | b'-' | b'_', digit, ..]) if digit.is_ascii_digit())
}

/// What rotation, or whoever did it by hand, has put into a log's name to make another of it, its separator included; `None`:
/// nothing, or something else.
fn mark_of_rotation(path: &Path, of: &Path) -> Option<Vec<u8>> {
    if !is_sibling(path, of) {
        return None;
    }
    let unpacked = unpacked_name(path).unwrap_or_else(|| path.to_path_buf());
    let name = unpacked.file_name()?.as_encoded_bytes();
    // Behind the name, or before its extension.
    let behind = name.strip_prefix(of.file_name()?.as_encoded_bytes());
    let before = || unpacked.file_stem()?.as_encoded_bytes().strip_prefix(of.file_stem()?.as_encoded_bytes());
    behind.or_else(before).map(<[u8]>::to_vec)
}

/// Whether a name that may be a rotated log's says so itself: `access.log.1`, `access.log-20261110.gz`, `access.log.old`.
/// Beside `example.com` lie `example.com-ssl_log` and `example.com.au`, which are logs of their own.
pub fn may_be_rotated(path: &Path, of: &Path) -> bool {
    /// What is appended by hand, or by Windows' tools.
    const WORDS: [&[u8]; 5] = [b"old", b"bak", b"prev", b"orig", b"save"];
    match mark_of_rotation(path, of).as_deref() {
        None => false,
        // Packed as it is.
        Some([]) => true,
        Some([_, digit, ..]) if digit.is_ascii_digit() => true,
        Some([_, word @ ..]) => WORDS.iter().any(|known| word.eq_ignore_ascii_case(known)),
    }
}

/// Whether a name is one that rotation gives, or somebody who moves a log out of the way.
pub fn is_rotated(path: &Path, of: &Path) -> bool {
    let by_hand = || mark_of_rotation(path, of).is_some_and(|mark| !mark.get(1).is_some_and(u8::is_ascii_digit));
    is_plainly_rotated(path, of) || by_hand() && may_be_rotated(path, of)
}

/// Whether a name is one that a rotation gives, and hardly anybody else: a small number behind a dot, or a date. A file that
/// nobody knows is taken for a log's by that alone, and beside `access.log` may lie `access-8080.log`, `access.log.bak` and
/// what an administrator has cut out of it.
pub fn is_plainly_rotated(path: &Path, of: &Path) -> bool {
    let Some(mark) = mark_of_rotation(path, of) else { return false };
    let digits = |text: &[u8]| text.iter().take_while(|byte| byte.is_ascii_digit()).count();
    match mark.as_slice() {
        [] => true,
        [b'.', number @ ..] if (1..=3).contains(&number.len()) => digits(number) == number.len(),
        [_, date @ ..] => {
            let is_date = digits(date) >= 6
                || digits(date) == 4
                    && date.get(4).is_some_and(|byte| b"-_.".contains(byte))
                    && digits(&date[5..]) >= 2;
            is_date && date.iter().all(|byte| byte.is_ascii_digit() || b"-_.T:+Z".contains(byte))
        }
    }
}

/// Whether a name is one that rotation makes of a log's name and moves to another directory.
pub fn is_named_as_rotated(path: &Path, of: &Path) -> bool {
    path.file_name().is_some_and(|name| is_sibling(&of.with_file_name(name), of))
}

/// Whether a name has a number or a date as rotation appends it.
pub fn has_a_rotated_name(path: &Path) -> bool {
    path.file_name().is_some_and(|name| unrotated_name(path) != name.to_string_lossy())
}

/// Whether rotation may have made two names of one, or one of the other: `access.log.1` is to `access.log.2.gz`.
pub fn are_related(one: &Path, other: &Path) -> bool {
    one.parent() == other.parent()
        && (is_sibling(one, other) || is_sibling(other, one) || unrotated_name(one) == unrotated_name(other))
}

/// What names have in common that rotation may have made of the same one: their directory, and what it left of it.
pub fn family(path: &Path) -> (Option<&Path>, String) {
    (path.parent(), unrotated_name(path))
}

/// The name without compression, and without the numbers and dates of rotation.
fn unrotated_name(path: &Path) -> String {
    fn without_numbers(text: &str) -> &str {
        let is_separator = |c: char| matches!(c, '.' | '-' | '_');
        let name = text.trim_end_matches(|c: char| c.is_ascii_digit() || is_separator(c));
        // `server1` has no separator before its number: that is its name.
        text[name.len()..].find(is_separator).map_or(text, |at| &text[..name.len() + at])
    }
    let plain = unpacked_name(path).unwrap_or_else(|| path.to_path_buf());
    let name = plain.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let bare = without_numbers(&name);
    match bare.rsplit_once('.') {
        Some((stem, extension)) => format!("{}.{extension}", without_numbers(stem)),
        None => bare.to_owned(),
    }
}

/// The names of which rotation may have made one: without all numbers and dates, or without the last, for the others may be
/// the log's own. `shop-8080.log.1` is of `shop-8080.log`.
fn names_before_rotation(path: &Path) -> Vec<String> {
    fn without_the_last(text: &str) -> Option<&str> {
        let at = text.rfind(['.', '-', '_'])?;
        text[at + 1..].bytes().all(|byte| byte.is_ascii_digit()).then(|| &text[..at])
    }
    let plain = unpacked_name(path).unwrap_or_else(|| path.to_path_buf());
    let name = plain.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let own = path.file_name().unwrap_or_default().to_string_lossy();
    let mut names = vec![unrotated_name(path)];
    names.extend(without_the_last(&name).map(str::to_owned));
    let before = name.rsplit_once('.').and_then(|(stem, extension)| Some((without_the_last(stem)?, extension)));
    names.extend(before.map(|(stem, extension)| format!("{stem}.{extension}")));
    names.push(name);
    names.retain(|name| *name != own && !name.is_empty());
    names.dedup();
    names
}

/// The name without what compression appends to it; `None`: it has nothing of the kind.
fn unpacked_name(path: &Path) -> Option<PathBuf> {
    let known = ["gz", "zst", "bz2", "xz", "lzma", "Z"];
    path.extension().filter(|extension| known.iter().any(|known| extension == known)).map(|_| path.with_extension(""))
}

/// A file beside a log, by one of the names that rotation gives.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Sibling {
    /// When it was last written to.
    pub modified: Option<SystemTime>,
    /// When it was made, where the file system keeps that.
    pub born: Option<SystemTime>,
    /// Its name.
    pub path: PathBuf,
    /// Device and inode.
    pub inode: (u64, u64),
}

impl Sibling {
    fn name(&self) -> &[u8] {
        self.path.file_name().unwrap_or_default().as_encoded_bytes()
    }
}

/// The rotated siblings of a log, oldest first by their last write. Where one lies there both as it was and compressed
/// (somebody is compressing it, or keeps both), the compressed one is left out.
pub fn siblings(path: &Path) -> Vec<PathBuf> {
    Directories::default().siblings(path).into_iter().map(|sibling| sibling.path).collect()
}

/// The files whose names rotation may have made of the same one (see [`are_related`]), oldest first by their last write.
pub fn related(path: &Path) -> Vec<PathBuf> {
    let mut directories = Directories::default();
    let files = directories.listing(path).map(|listing| listing.files.as_slice()).unwrap_or_default();
    let mut found: Vec<&Sibling> = files.iter().filter(|file| are_related(&file.path, path)).collect();
    found.sort();
    found.into_iter().map(|file| file.path.clone()).collect()
}

/// What lies in directories, each listed once.
#[derive(Debug, Default)]
pub struct Directories {
    listed: HashMap<PathBuf, Listing>,
    looked: Option<Moment>,
}

#[derive(Debug)]
struct Listing {
    /// By the bytes of their names.
    files: Vec<Sibling>,
    is_whole: bool,
}

impl Listing {
    /// Those among which a log's siblings are: their names begin as the log's does before its extension.
    fn beside(&self, of: &Path) -> &[Sibling] {
        let Some(stem) = of.file_stem() else { return &[] };
        let begins = stem.as_encoded_bytes();
        let first = self.files.partition_point(|file| file.name() < begins);
        let rest = &self.files[first..];
        &rest[..rest.partition_point(|file| file.name().starts_with(begins))]
    }
}

/// Names that change while they are listed may be missed; a directory was quiet if it wasn't changed for this long.
const QUIET: Duration = Duration::from_millis(20);

impl Directories {
    /// To be listed by who has looked before at that moment.
    pub fn since(looked: Option<Moment>) -> Self {
        Self { looked, ..Self::default() }
    }

    /// See [`siblings`].
    pub fn siblings(&mut self, path: &Path) -> Vec<Sibling> {
        let Some(listing) = self.listing(path) else { return Vec::new() };
        let mut found: Vec<Sibling> =
            listing.beside(path).iter().filter(|file| is_sibling(&file.path, path)).cloned().collect();
        let names: HashSet<PathBuf> = found.iter().map(|file| file.path.clone()).collect();
        found.retain(|file| unpacked_name(&file.path).is_none_or(|name| !names.contains(&name)));
        found.sort();
        found
    }

    /// Whether no sibling can have been missed: nothing was renamed, made or removed meanwhile.
    pub fn has_all_siblings(&mut self, path: &Path) -> bool {
        // By a clock that was just set forward, a directory that changes now seems to have been quiet for long.
        let set_forward = self.looked.is_some_and(|looked| looked.is_set_forward_until(&Moment::now()));
        !set_forward && self.listing(path).is_some_and(|listing| listing.is_whole)
    }

    fn listing(&mut self, path: &Path) -> Option<&Listing> {
        let folder = path.parent()?;
        Some(self.listed.entry(folder.to_path_buf()).or_insert_with(|| list(folder)))
    }
}

fn list(folder: &Path) -> Listing {
    let began = SystemTime::now();
    // A directory that can't be read has been said where it is followed; one that is gone holds nothing.
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let file = |entry: fs::DirEntry| {
        let meta = entry.metadata().ok().filter(fs::Metadata::is_file)?;
        let (modified, born) = (meta.modified().ok(), meta.created().ok());
        Some(Sibling { modified, born, path: entry.path(), inode: (meta.dev(), meta.ino()) })
    };
    let mut files: Vec<Sibling> = entries.filter_map(file).collect();
    files.sort_unstable_by(|one, other| one.name().cmp(other.name()));
    let changed = fs::metadata(folder).and_then(|meta| meta.modified());
    let is_whole = match changed {
        // A time that is far ahead is a wrong clock's, and says nothing.
        Ok(changed) => began.duration_since(changed).unwrap_or_else(|ahead| ahead.duration()) > QUIET,
        Err(error) => error.kind() == io::ErrorKind::NotFound,
    };
    Listing { files, is_whole }
}

#[cfg(test)]
mod tests {
    #[test]
    fn names_that_rotation_makes_of_one_are_related() {
        for (one, other, want) in [
            ("access.log", "access.log", true),
            ("access.log.1", "access.log.2.gz", true),
            ("access.log-20261110", "access.log-20261111.zst", true),
            ("access-20261110.log", "access.1.log.gz", true),
            ("access.log.2026-11-10", "access.log", true),
            ("access.log", "error.log", false),
            ("server1.log", "server2.log", false),
            ("access-ssl.log", "access.log", false),
            ("access.log.1", "error.log.1", false),
        ] {
            let path = |name| std::path::Path::new("/var/log").join(name);
            assert_eq!(super::are_related(&path(one), &path(other)), want, "{one}, {other}");
            assert_eq!(super::are_related(&path(other), &path(one)), want, "{other}, {one}");
        }
        assert!(!super::are_related(std::path::Path::new("/a/access.log"), std::path::Path::new("/b/access.log.1")));
    }

    use super::*;

    #[test]
    fn a_name_says_of_itself_that_rotation_gave_it_or_it_does_not() {
        for (name, plainly, perhaps) in [
            ("access.log.1", true, true),
            ("access.log.365.gz", true, true),
            ("access.1.log", true, true),
            ("access.log.gz", true, true),
            ("access.log-20261110", true, true),
            ("access.log-20261110-1762819200.zst", true, true),
            ("access.log.2026-11-10", true, true),
            ("access-2026-11-10_13.log.gz", true, true),
            ("access.log_20261110.1", true, true),
            ("access.log.old", false, true),
            ("access.log.1.anon", false, true),
            ("access.log.8443", false, true),
            ("access-8080.log", false, true),
            ("access-1.log", false, true),
            ("access.log-443", false, true),
            ("access.log.json", false, false),
            ("access-ssl.log", false, false),
            ("access2.log", false, false),
        ] {
            let path = |name| Path::new("/var/log").join(name);
            let got = |says: fn(&Path, &Path) -> bool| says(&path(name), &path("access.log"));
            assert_eq!((got(is_plainly_rotated), got(may_be_rotated)), (plainly, perhaps), "{name}");
        }
    }

    #[test]
    fn names_under_which_only_rotated_logs_lie_are_found() {
        let folder = tempfile::tempdir().unwrap();
        for name in [
            "a.log",
            "a.log.1",
            "b.log.1",
            "b.log.2.gz",
            "c.log-20261110",
            "d.txt.1",
            "e-8080.log.old",
            "f-8080.log.1",
            "g-1.log.2.gz",
        ] {
            fs::write(folder.path().join(name), "").unwrap();
        }
        let pattern = folder.path().join("*.log");
        let rotated = ["a.log", "b.log", "c.log", "f-8080.log", "g-1.log"].map(|name| folder.path().join(name));
        assert!(rotated_names(&pattern.to_string_lossy()).into_iter().eq(rotated.clone()));
        assert_eq!(absent(&pattern.to_string_lossy()), rotated[1..]);
        assert!(absent(&folder.path().join("b.log").to_string_lossy()).is_empty());
    }

    #[test]
    fn globs_and_plain_paths_are_told_apart() {
        for (pattern, directory) in [
            ("/var/log/nginx/docs.log", "/var/log/nginx"),
            ("/var/log/nginx/*.log", "/var/log/nginx"),
            ("/srv/*/logs/access.log", "/srv"),
        ] {
            assert_eq!(watched_directory(pattern), Path::new(directory), "{pattern}");
        }
    }

    #[test]
    fn siblings_are_those_that_rotation_makes_of_a_name() {
        let folder = tempfile::tempdir().unwrap();
        let all = "access.log access.log.1 access.log.2 access.log.2.gz access.log-20261110.gz access.logs other.log.1";
        for name in all.split(' ') {
            std::fs::write(folder.path().join(name), name).unwrap();
        }
        let mut names: Vec<_> = siblings(&folder.path().join("access.log"))
            .iter()
            .map(|path| path.file_name().unwrap().to_string_lossy().into_owned())
            .collect();
        names.sort();
        assert_eq!(names, ["access.log-20261110.gz", "access.log.1", "access.log.2"]);
    }

    #[test]
    fn a_date_before_the_extension_makes_a_sibling_and_another_word_does_not() {
        for (name, want) in [
            ("access-20261110.log", true),
            ("access.1.log", true),
            ("access-20261110.log.gz", true),
            ("access_2026-11-10.log.zst", true),
            ("access-ssl.log", false),
            ("access.log", false),
            ("access2.log", false),
            ("access-20261110.txt", false),
            ("error-20261110.log", false),
        ] {
            let folder = Path::new("/var/log");
            assert_eq!(is_sibling(&folder.join(name), &folder.join("access.log")), want, "{name}");
        }
    }

    #[test]
    fn a_glob_finds_names_of_any_bytes_and_says_what_it_cannot_list() {
        use std::ffi::OsStr;
        use std::os::unix::ffi::OsStrExt;
        let folder = tempfile::tempdir().unwrap();
        let names: [&[u8]; 4] = [b"a.log", b"b\n.log", b"c\xff.log", b"d.txt"];
        for name in names {
            fs::write(folder.path().join(OsStr::from_bytes(name)), "").unwrap();
        }
        fs::create_dir(folder.path().join("e.log")).unwrap();
        let pattern = format!("{}/*.log", folder.path().display());
        let want: Vec<PathBuf> = names[..3].iter().map(|name| folder.path().join(OsStr::from_bytes(name))).collect();
        assert_eq!(expand(&pattern), want);
        for path in &want {
            assert!(is_for(&pattern, path), "{path:?}");
            assert!(!is_for(&pattern.to_uppercase(), path), "{path:?}");
        }
        assert!(!is_for(&pattern, &folder.path().join("sub/a.log")));
        let mut said = Vec::new();
        paths(&[format!("{}/gone/*.log", folder.path().display())], |path, _| said.push(path.to_path_buf()));
        assert_eq!(said, [folder.path().join("gone")]);
    }

    #[test]
    fn of_a_log_that_lies_there_twice_a_glob_takes_the_plain_one() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["access.log", "access.log.1", "access.log.1.gz", "access.log.2.gz"] {
            fs::write(folder.path().join(name), "").unwrap();
        }
        let pattern = format!("{}/access.log*", folder.path().display());
        let plain = format!("{}/access.log.1.gz", folder.path().display());
        let names = |patterns: &[String]| -> Vec<_> {
            let name = |path: PathBuf| path.file_name().unwrap().to_str().unwrap().to_owned();
            paths(patterns, |_, _| {}).into_iter().map(|(path, patterns)| (name(path), patterns.to_vec())).collect()
        };
        let each = |name: &str, patterns: &[usize]| (name.to_owned(), patterns.to_vec());
        let [zeroth, first, second] = ["access.log", "access.log.1", "access.log.2.gz"].map(|name| each(name, &[0]));
        assert_eq!(names(std::slice::from_ref(&pattern)), [zeroth.clone(), first.clone(), second]);
        // Who asks for it by its name gets it.
        let named = [zeroth, first, each("access.log.1.gz", &[1]), each("access.log.2.gz", &[0, 2])];
        assert_eq!(names(&[pattern, plain, format!("{}/*.2.gz", folder.path().display())]), named);
    }
}
