//go:build unix

package safedir

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// Shared and Unprotected, for each owner and mode.
func TestShared(t *testing.T) {
	for _, test := range []struct {
		name        string
		uid         int
		mode        os.FileMode
		shared      string // part of the error; "" for none
		unprotected bool
	}{
		{"own", -1, 0o700, "", false},
		{"own, readable", -1, 0o755, "", false},
		{"of the group", -1, 0o775, "group", false},
		{"of the group, sticky", -1, 0o775 | os.ModeSticky, "group", false},
		{"of all", -1, 0o777, "every user", true},
		{"of all, sticky", -1, 0o777 | os.ModeSticky, "every user", false},
		{"write-only for others", -1, 0o702, "every user", true},
		{"of another user", nobody - 1, 0o755, "belongs to user 65533", false},
		{"of another user and all", nobody - 1, 0o777, "belongs to user 65533", true},
	} {
		t.Run(test.name, func(t *testing.T) {
			if test.uid != -1 {
				needRoot(t)
			}
			d := open(t, mkdir(t, base(t)+"/dir", test.uid, test.mode))
			if err := d.Shared(); (err == nil) != (test.shared == "") || err != nil && !strings.Contains(err.Error(), test.shared) {
				t.Errorf("Shared: %v, want %q", err, test.shared)
			}
			if err := d.Unprotected(); (err != nil) != test.unprotected {
				t.Errorf("Unprotected: %v, want an error: %t", err, test.unprotected)
			}
		})
	}
}

// paths are directories of this user, and ways to them. A link is "path -> target".
var paths = []struct {
	name string
	make func(t *testing.T, base string)
	path string
	root bool   // only root can make it
	err  string // part of the error; "" for none
}{
	{name: "own", path: "dir", make: func(*testing.T, string) {}},
	{name: "not there", path: "none/dir", err: "no such file",
		make: func(*testing.T, string) {}},
	{name: "own link", path: "link",
		make: func(t *testing.T, base string) { must(t, os.Symlink(base+"/dir", base+"/link")) }},
	{name: "relative link", path: "link",
		make: func(t *testing.T, base string) { must(t, os.Symlink("./dir/../dir", base+"/link")) }},
	{name: "links to links", path: "link/../link2",
		make: func(t *testing.T, base string) {
			must(t, os.Symlink("link2", base+"/link"))
			must(t, os.Symlink("dir", base+"/link2"))
		}},
	{name: "link loop", path: "link", err: "too many levels",
		make: func(t *testing.T, base string) {
			must(t, os.Symlink("link2", base+"/link"))
			must(t, os.Symlink("link", base+"/link2"))
		}},
	{name: "world-writable on the way", path: "open/sub",
		make: func(t *testing.T, base string) {
			mkdir(t, base+"/open", -1, 0o777)
			mkdir(t, base+"/open/sub", -1, 0o700)
		}},
	{name: "link in a world-writable directory", path: "open/link", err: "every user can replace",
		make: func(t *testing.T, base string) {
			mkdir(t, base+"/open", -1, 0o777)
			must(t, os.Symlink(base+"/dir", base+"/open/link"))
		}},
	{name: "own link in a sticky directory", path: "open/link",
		make: func(t *testing.T, base string) {
			mkdir(t, base+"/open", -1, 0o777|os.ModeSticky)
			must(t, os.Symlink(base+"/dir", base+"/open/link"))
		}},
	{name: "foreign link in a sticky directory", path: "open/link", root: true, err: "user 65534 can replace",
		make: func(t *testing.T, base string) {
			mkdir(t, base+"/open", -1, 0o777|os.ModeSticky)
			must(t, os.Symlink(base+"/dir", base+"/open/link"))
			give(t, base+"/open/link", nobody)
		}},
	{name: "group on the way", path: "open/sub",
		make: func(t *testing.T, base string) {
			mkdir(t, base+"/open", -1, 0o775)
			mkdir(t, base+"/open/sub", -1, 0o700)
		}},
	{name: "own link in a group's directory", path: "open/link",
		make: func(t *testing.T, base string) {
			mkdir(t, base+"/open", -1, 0o775)
			must(t, os.Symlink(base+"/dir", base+"/open/link"))
		}},
	{name: "foreign link in a group's directory", path: "open/link", root: true, err: "group 0 can replace",
		make: func(t *testing.T, base string) {
			mkdir(t, base+"/open", -1, 0o775)
			must(t, os.Symlink(base+"/dir", base+"/open/link"))
			give(t, base+"/open/link", nobody)
		}},
	{name: "foreign link in a group's sticky directory", path: "open/link", root: true, err: "user 65534 can replace",
		make: func(t *testing.T, base string) {
			mkdir(t, base+"/open", -1, 0o775|os.ModeSticky)
			must(t, os.Symlink(base+"/dir", base+"/open/link"))
			give(t, base+"/open/link", nobody)
		}},
	{name: "not there, in a group's directory", path: "open/none", err: "no such file",
		make: func(t *testing.T, base string) { mkdir(t, base+"/open", -1, 0o775) }},
	{name: "foreign directory on the way", path: "foreign/sub", root: true,
		make: func(t *testing.T, base string) {
			mkdir(t, base+"/foreign", nobody, 0o755)
			mkdir(t, base+"/foreign/sub", -1, 0o700)
		}},
	{name: "link in a foreign directory", path: "foreign/link", root: true, err: "user 65534 can replace",
		make: func(t *testing.T, base string) {
			mkdir(t, base+"/foreign", nobody, 0o755)
			must(t, os.Symlink(base+"/dir", base+"/foreign/link"))
		}},
	{name: "link behind a foreign directory", path: "foreign/own/link", root: true, err: "user 65534 can replace",
		make: func(t *testing.T, base string) {
			mkdir(t, base+"/foreign", nobody, 0o755)
			mkdir(t, base+"/foreign/own", -1, 0o755) // or a link to another one
			must(t, os.Symlink(base+"/dir", base+"/foreign/own/link"))
		}},
	{name: "link to a foreign directory's link", path: "link", root: true, err: "user 65534 can replace",
		make: func(t *testing.T, base string) {
			mkdir(t, base+"/foreign", nobody, 0o755)
			must(t, os.Symlink("../dir", base+"/foreign/link"))
			must(t, os.Symlink("foreign/link", base+"/link"))
		}},
	{name: "foreign directory at the end", path: "foreign", root: true,
		make: func(t *testing.T, base string) { mkdir(t, base+"/foreign", nobody, 0o755) }},
	{name: "foreign link to a foreign directory", path: "foreign/link", root: true,
		make: func(t *testing.T, base string) {
			mkdir(t, base+"/foreign", nobody, 0o755)
			mkdir(t, base+"/foreign2", nobody, 0o755)
			must(t, os.Symlink(base+"/foreign2", base+"/foreign/link"))
		}},
	{name: "directory of a group on the way", path: "group/link",
		make: func(t *testing.T, base string) {
			mkdir(t, base+"/group", -1, 0o775)
			must(t, os.Symlink("../dir", base+"/group/link"))
		}},
}

// Open follows no link of another user to a directory of root's or of this user.
// Hold does, and reports it.
func TestPath(t *testing.T) {
	for _, test := range paths {
		t.Run(test.name, func(t *testing.T) {
			if test.root {
				needRoot(t)
			}
			dir := base(t)
			mkdir(t, dir+"/dir", -1, 0o700)
			test.make(t, dir)
			d, err := Open(dir + "/" + test.path)
			if (err == nil) != (test.err == "") || err != nil && !strings.Contains(err.Error(), test.err) {
				t.Errorf("Open: %v, want %q", err, test.err)
			}
			if err == nil {
				d.Close()
			}
			held, holdErr := Hold(dir + "/" + test.path)
			switch {
			case holdErr != nil:
				if err == nil || holdErr.Error() != err.Error() {
					t.Errorf("Hold: %v, and Open: %v", holdErr, err)
				}
				return
			case (held.Redirected() == nil) != (err == nil):
				t.Errorf("Redirected: %v, and Open: %v", held.Redirected(), err)
			}
			if here, err := held.InPlace(); !here || err != nil {
				t.Errorf("Hold opened another directory: %v", err)
			}
			held.Close()
		})
	}
}

// The path without links.
func TestFollowPath(t *testing.T) {
	dir := base(t)
	mkdir(t, dir+"/dir", -1, 0o700)
	mkdir(t, dir+"/dir/sub", -1, 0o700)
	for target, want := range map[string]string{
		"dir": dir + "/dir", "./dir/sub/../sub/..": dir + "/dir", dir + "/dir/sub": dir + "/dir/sub", "..": filepath.Dir(dir),
		"/../../..": "/", "none": "",
	} {
		must(t, os.Symlink(target, dir+"/link"))
		if got, err, _ := followPath(dir + "/link"); got != want || err != nil {
			t.Errorf("%s: %q, %v, want %q", target, got, err, want)
		}
		must(t, os.Remove(dir+"/link"))
	}
}

// An entry that another user is about to create counts as a link of his: the
// path is examined before it is opened.
func TestMissingEntryIsReplaceable(t *testing.T) {
	dir := base(t)
	mkdir(t, dir+"/sticky", -1, 0o777|os.ModeSticky)
	if direct, err, _ := followPath(dir + "/sticky/none"); direct != "" || err == nil {
		t.Errorf("%q, %v", direct, err)
	}
	if direct, err, _ := followPath(dir + "/none"); direct != "" || err != nil {
		t.Errorf("in an own directory: %q, %v", direct, err)
	}
	mkdir(t, dir+"/group", -1, 0o775)
	if direct, err, _ := followPath(dir + "/group/none"); direct != "" || err == nil {
		t.Errorf("in a group's directory: %q, %v", direct, err)
	}
	needRoot(t)
	mkdir(t, dir+"/foreign", nobody, 0o755)
	if direct, err, _ := followPath(dir + "/foreign/none/sub"); direct != "" || err == nil {
		t.Errorf("%q, %v", direct, err)
	}
}

// A directory may be writable for the private group of an ordinary user.
func TestPrivateGroup(t *testing.T) {
	for _, row := range []struct {
		owner, group, uid, gid uint32
		want                   bool
	}{
		{1000, 1000, 1000, 1000, true},
		{1000, 100, 1000, 1000, false},      // a group of many, such as users
		{1000, 100, 1000, 100, false},       // as the user's own
		{1000, 1000, 1000, 100, false},      // the user has another group now
		{1001, 1000, 1000, 1000, false},     // another user's directory
		{0, 0, 0, 0, false},                 // root is not an ordinary user
		{65534, 65534, 65534, 65534, false}, // nobody, whose group daemons share
	} {
		st := &unix.Stat_t{Uid: row.owner, Gid: row.group}
		if got := privateGroup(st, row.uid, row.gid); got != row.want {
			t.Errorf("directory of %d:%d, process %d:%d: %v", row.owner, row.group, row.uid, row.gid, got)
		}
	}
}

// Only the owner of a sticky directory can rename the files of others in it.
func TestSticky(t *testing.T) {
	dir := base(t)
	for _, row := range []struct {
		mode  os.FileMode
		owner int
		want  bool
	}{
		{0o755, -1, false},
		{0o777, -1, false},
		{0o777 | os.ModeSticky, -1, true},
		{0o777 | os.ModeSticky, nobody, false},
	} {
		if row.owner != -1 && os.Geteuid() != 0 {
			continue // only root can give a directory away
		}
		path := fmt.Sprintf("%s/%o-%d", dir, row.mode, row.owner)
		mkdir(t, path, row.owner, row.mode)
		d, err := Open(path)
		if err != nil {
			t.Fatal(err)
		}
		if got := d.Sticky(); got != row.want {
			t.Errorf("%v of %d: %v", row.mode, row.owner, got)
		}
		d.Close()
	}
}
