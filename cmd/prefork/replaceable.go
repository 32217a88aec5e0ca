package main

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// replaceable returns an error if a user other than root, this one and that of the
// manager can replace the socket at a path: its process could be anyone's. It walks
// the path as the kernel does, so that each link counts with its directory.
func replaceable(path string, manager int) error {
	if !filepath.IsAbs(path) {
		dir, err := os.Getwd()
		if err != nil {
			return err
		}
		path = dir + "/" + path
	}
	trusted := func(uid int) bool { return uid == 0 || uid == os.Geteuid() || uid == manager }
	rest := strings.Split(path, "/")
	links := 0
	for dir := "/"; len(rest) > 0; {
		name := rest[0]
		rest = rest[1:]
		switch name {
		case "", ".":
			continue
		case "..":
			dir = filepath.Dir(dir)
			continue
		}
		entry := filepath.Join(dir, name)
		if who := whoCanReplace(entry, dir, trusted); who != "" {
			return fmt.Errorf("%s can replace %s", who, entry)
		}
		target, err := os.Readlink(entry)
		if err != nil { // no link
			dir = entry
			continue
		}
		if links++; links > maxLinks {
			return fmt.Errorf("%s: too many links", path)
		}
		if filepath.IsAbs(target) {
			dir = "/"
		}
		rest = append(strings.Split(target, "/"), rest...)
	}
	return nil
}

// maxLinks is how many links in a path Linux follows.
const maxLinks = 40

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
