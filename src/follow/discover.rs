//! From patterns to the files that match them now.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Whether a `logs` entry is a glob rather than a plain path.
pub fn is_glob(pattern: &str) -> bool {
    pattern.contains(['*', '?', '['])
}

/// The paths that a pattern matches now. A plain path is given out whether it exists or not: a directory may be
/// searchable and not readable.
pub fn expand(pattern: &str) -> Vec<PathBuf> {
    if !is_glob(pattern) {
        return vec![PathBuf::from(pattern)];
    }
    // A bad pattern was refused with the configuration; an unreadable directory matches nothing until it can be read.
    glob::glob(pattern).map(|paths| paths.flatten().filter(|path| !path.is_dir()).collect()).unwrap_or_default()
}

/// Whether a pattern matches a path, whether that exists or not.
pub fn matches(pattern: &str, path: &Path) -> bool {
    if !is_glob(pattern) {
        return Path::new(pattern) == path;
    }
    let options = glob::MatchOptions { require_literal_separator: true, ..glob::MatchOptions::new() };
    glob::Pattern::new(pattern).is_ok_and(|pattern| pattern.matches_path_with(path, options))
}

/// Every path that any pattern matches, with the indices of the patterns that match it.
pub fn paths(patterns: &[String]) -> BTreeMap<PathBuf, Vec<usize>> {
    let mut found: BTreeMap<PathBuf, Vec<usize>> = BTreeMap::new();
    for (index, pattern) in patterns.iter().enumerate() {
        for path in expand(pattern) {
            found.entry(path).or_default().push(index);
        }
    }
    found
}

/// The directory in which something must happen before a pattern matches other files: its longest part without wildcards.
pub fn watched_directory(pattern: &str) -> PathBuf {
    let literal: PathBuf =
        Path::new(pattern).components().take_while(|part| !is_glob(&part.as_os_str().to_string_lossy())).collect();
    if is_glob(pattern) { literal } else { literal.parent().map(Path::to_path_buf).unwrap_or_default() }
}

/// Whether a name is one that rotation makes of a log's name: `access.log.1`, `access.log-20261110.gz`.
pub fn is_sibling(path: &Path, of: &Path) -> bool {
    let (Some(name), Some(of_name)) = (path.file_name(), of.file_name()) else { return false };
    let rest = name.as_encoded_bytes().strip_prefix(of_name.as_encoded_bytes());
    path.parent() == of.parent() && rest.is_some_and(|rest| matches!(rest.first(), Some(b'.' | b'-' | b'_')))
}

/// The name without what compression appends to it; `None`: it has nothing of the kind.
fn unpacked_name(path: &Path) -> Option<PathBuf> {
    let known = ["gz", "zst", "bz2", "xz", "lzma", "Z"];
    path.extension().filter(|extension| known.iter().any(|known| extension == known)).map(|_| path.with_extension(""))
}

/// The rotated siblings of a log, oldest first by their last write. Where one lies there both as it was and compressed
/// (somebody is compressing it, or keeps both), the compressed one is left out.
pub fn siblings(path: &Path) -> Vec<PathBuf> {
    let Some(folder) = path.parent() else { return Vec::new() };
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let mut found: Vec<_> = entries
        .flatten()
        .filter(|entry| is_sibling(&entry.path(), path))
        .filter_map(|entry| {
            let meta = entry.metadata().ok().filter(std::fs::Metadata::is_file)?;
            Some((meta.modified().ok(), entry.path()))
        })
        .collect();
    let names: std::collections::HashSet<PathBuf> = found.iter().map(|(_, path)| path.clone()).collect();
    found.retain(|(_, path)| unpacked_name(path).is_none_or(|name| !names.contains(&name)));
    found.sort();
    found.into_iter().map(|(_, path)| path).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

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
}
