//! Whose the state is, and what that user could read: root sees everything, the service doesn't.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::unistd::{Gid, Uid, User, geteuid, getgrouplist};

/// The user who owns the state, where root asks for them.
#[derive(Debug)]
pub struct Owner {
    name: String,
    uid: u32,
    groups: Vec<u32>,
}

/// Whether somebody can read a file.
#[derive(Debug, PartialEq, Eq)]
pub enum Reach {
    /// They can, or it can't be told (access lists aren't looked at).
    Yes,
    /// Not because of this file or directory.
    No(PathBuf),
}

/// The owner of `state_dir`, if this is root and the owner is not.
pub fn of_state(state_dir: &Path) -> Option<Owner> {
    if !geteuid().is_root() {
        return None;
    }
    let uid = Uid::from_raw(std::fs::metadata(state_dir).ok()?.uid());
    if uid.is_root() {
        return None;
    }
    let user = User::from_uid(uid).ok().flatten();
    let groups = user.as_ref().and_then(|user| {
        let name = std::ffi::CString::new(user.name.as_str()).ok()?;
        getgrouplist(&name, user.gid).ok()
    });
    let name = user.map_or_else(|| uid.to_string(), |user| user.name);
    let groups = groups.unwrap_or_default().into_iter().map(Gid::as_raw).collect();
    Some(Owner { name, uid: uid.as_raw(), groups })
}

impl Owner {
    /// The user's name, or number.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether they could read a file, by owner, group and mode of it and of the directories above it.
    pub fn reach(&self, path: &Path) -> Reach {
        const READ: u32 = 0o4;
        const SEARCH: u32 = 0o1;
        let Ok(real) = std::fs::canonicalize(path) else { return Reach::Yes };
        let mut above: Vec<&Path> = real.ancestors().skip(1).collect();
        above.reverse();
        let denied = |path: &Path, wanted: u32| {
            std::fs::metadata(path).is_ok_and(|meta| !self.may(&meta, wanted) && !has_access_list(path))
        };
        if let Some(directory) = above.into_iter().find(|directory| denied(directory, SEARCH)) {
            return Reach::No(directory.to_path_buf());
        }
        if denied(&real, READ) { Reach::No(real) } else { Reach::Yes }
    }

    fn may(&self, meta: &std::fs::Metadata, wanted: u32) -> bool {
        let shift = if meta.uid() == self.uid {
            6
        } else if self.groups.contains(&meta.gid()) {
            3
        } else {
            0
        };
        meta.mode() >> shift & wanted == wanted
    }
}

/// Whether the mode alone doesn't decide.
fn has_access_list(path: &Path) -> bool {
    let mut value = [0_u8; 0];
    rustix::fs::getxattr(path, "system.posix_acl_access", &mut value).is_ok_and(|len| len > 0)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn who_may_read_is_told_by_owner_group_and_mode() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        let file = folder.path().join("access.log");
        std::fs::write(&file, "").unwrap();
        let meta = std::fs::metadata(&file).unwrap();
        let somebody = |uid: u32, groups: Vec<u32>| Owner { name: "somebody".to_owned(), uid, groups };
        let stranger = somebody(meta.uid() + 12_345, vec![meta.gid() + 12_345]);
        let member = somebody(meta.uid() + 12_345, vec![meta.gid()]);
        for (mode, owner, want) in [
            (0o640, &stranger, false),
            (0o644, &stranger, true),
            (0o640, &member, true),
            (0o600, &member, false),
            (0o604, &member, false),
        ] {
            std::fs::set_permissions(&file, std::fs::Permissions::from_mode(mode)).unwrap();
            let want = if want { Reach::Yes } else { Reach::No(std::fs::canonicalize(&file).unwrap()) };
            assert_eq!(owner.reach(&file), want, "{mode:o} for {owner:?}");
        }
        std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o700)).unwrap();
        assert_eq!(stranger.reach(&file), Reach::No(std::fs::canonicalize(folder.path()).unwrap()));
    }
}
