package main

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// replaceable returns an error if a user other than root, this one and that of the
// manager can replace the socket at a path: its process could be anyone's.
func replaceable(path string, manager int) error {
	path, err := filepath.Abs(path)
	if err != nil {
		return err
	}
	paths := []string{path}
	if dir, err := filepath.EvalSymlinks(filepath.Dir(path)); err == nil && dir != filepath.Dir(path) {
		paths = append(paths, filepath.Join(dir, filepath.Base(path)))
	}
	trusted := func(uid int) bool { return uid == 0 || uid == os.Geteuid() || uid == manager }
	for _, path := range paths {
		for dir := filepath.Dir(path); dir != path; path, dir = dir, filepath.Dir(dir) {
			if who := whoCanReplace(path, dir, trusted); who != "" {
				return fmt.Errorf("%s can replace %s", who, path)
			}
		}
	}
	return nil
}

// whoCanReplace names who can replace a file in a directory, and is not trusted; ""
// if they are all.
func whoCanReplace(path, dir string, trusted func(uid int) bool) string {
	st, err := os.Stat(dir)
	if err != nil {
		return "another user"
	}
	uid, gid, ok := ownerOf(st)
	if !ok {
		return "" // the system has no such users
	}
	if !trusted(uid) {
		return "user " + userName(uid)
	}
	privateGroup := uid == gid && uid != 0 && uid != overflowUID
	writable := st.Mode().Perm() & 0o022
	if privateGroup {
		writable &^= 0o020
	}
	if writable == 0 {
		return ""
	}
	if st.Mode()&fs.ModeSticky != 0 { // others can replace their own files alone
		file, err := os.Lstat(path)
		if err != nil {
			return "every user"
		}
		if owner, _, _ := ownerOf(file); !trusted(owner) {
			return "user " + userName(owner)
		}
		return ""
	}
	if writable&0o002 != 0 {
		return "every user"
	}
	return "group " + groupName(gid)
}

// overflowUID is the user nobody, and the one that stands for those outside a user
// namespace.
const overflowUID = 65534
